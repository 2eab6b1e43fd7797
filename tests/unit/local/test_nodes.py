"""What a node is started with."""

import os
import subprocess
from pathlib import Path

import pytest

from local import nodes, paths, steps

NODE = nodes.Node(9)
#: What the README has people read into their shell, and what else Kubernetes' programs would heed.
SHELL = {"API_TOKEN": "secret", "API_URL": "http://x", "KUBECONFIG": "/of/the/user", "HTTPS_PROXY": "http://proxy"}


@pytest.fixture(autouse=True)
def shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell that has read .local/env."""
    for name, value in SHELL.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(("tools", "path"), [((), "/usr/"), ((Path("/built"),), "/built:/usr/")])
def test_nothing_of_the_shell_is_in_a_commands_environment(
    tools: tuple[Path, ...], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ctr`, `ip` and kubeadm in a node get a PATH and nothing else."""
    monkeypatch.setattr(nodes, "running", lambda: {NODE.number: os.getpid()})
    command = nodes.enter(NODE, ["env"], *tools)
    end = command.index("--")
    assert command[:end] == ["nsenter", "-t", str(os.getpid()), "-m", "-u", "-i", "-n", "-p"]
    (line,) = subprocess.run(command[end + 1 :], capture_output=True, text=True, check=True).stdout.splitlines()
    assert line.startswith(f"PATH={path}")


def test_nothing_of_the_shell_is_in_the_nodes_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What starts it hands its environment on to containerd and the kubelet, for as long as the cluster is up."""
    (tmp_path / "unshare").write_text(f"#!/bin/sh\nenv >{tmp_path}/environment\numask >{tmp_path}/umask\n")
    (tmp_path / "unshare").chmod(0o755)
    monkeypatch.setattr(nodes, "_PATH", f"{tmp_path}:{nodes._PATH}")
    monkeypatch.setattr(paths, "NODES", tmp_path / "nodes")
    monkeypatch.setattr(nodes, "running", dict)
    monkeypatch.setattr(nodes, "_ensure_bridge", lambda: None)
    shells = os.umask(0o077)
    try:
        with pytest.raises(steps.StepFailed, match="its namespaces did not come up"):
            nodes.start(NODE, Path("/built"))
    finally:
        os.umask(shells)
    names = {line.split("=")[0] for line in (tmp_path / "environment").read_text().splitlines()}
    # The shell that this unshare is makes one itself.
    assert names - {"PWD"} == {"PATH"}
    assert (tmp_path / "umask").read_text() == "0022\n"


def test_the_loop_devices_of_the_nodes_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By their files: a pool has its path out here, and a disk the one that it has in its node."""
    monkeypatch.setattr(paths, "NODES", tmp_path / "nodes")
    monkeypatch.setattr(nodes, "_BLOCK_DEVICES", tmp_path)
    files = {
        "loop0": f"{tmp_path}/nodes/node1/pool.img",
        "loop1": "/var/lib/gameserver-disks/disks/pvc-1/disk.img",
        "loop2": "/srv/someone-elses.img",
        "loop3": "",
    }
    for name, file in files.items():
        (tmp_path / name / "loop").mkdir(parents=True)
        if file:
            (tmp_path / name / "loop" / "backing_file").write_text(f"{file}\n")
    assert nodes.loop_devices() == ["loop0", "loop1"]
