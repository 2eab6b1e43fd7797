"""What `make run` writes for a shell."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from local import deploy, nodes, paths
from tests.support.environment import local_environment


def test_a_shell_reads_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in a checkout with a space and an apostrophe in its path, and so do the tests."""
    checkout = tmp_path / "Ada's servers"
    checkout.mkdir()
    monkeypatch.setattr(paths, "ENV", checkout / "env")
    monkeypatch.setattr(deploy, "token", lambda: "secret")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("NO_PROXY", "")
    nodes.reach_directly()
    assert deploy.write_env(checkout / "kubeconfig", "10.77.0.2") == "http://10.77.0.2:30080"
    script = '. "$1"; printf %s "$KUBECONFIG"'
    read = subprocess.run(["sh", "-c", script, "sh", paths.ENV], capture_output=True, text=True, check=True).stdout
    assert read == str(checkout / "kubeconfig") == local_environment()["KUBECONFIG"]
