"""What a node is started with."""

import os
import subprocess
import urllib.request
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


def test_a_machine_without_cgroup_v1_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is compiled: the kubelets would not start, after a quarter of an hour."""
    monkeypatch.setattr(nodes, "_CGROUPS", tmp_path)
    nodes.refuse_unified_cgroups()
    (tmp_path / "cgroup.controllers").touch()
    with pytest.raises(steps.StepFailed, match="needs cgroup v1"):
        nodes.refuse_unified_cgroups()


@pytest.mark.parametrize("own", [None, "internal.example,10.0.0.0/8"])
def test_no_proxy_is_asked_for_the_nodes(own: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the user has excepted from it stays so."""
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        if own:
            monkeypatch.setenv(name, own)
    nodes.reach_directly()
    assert urllib.request.proxy_bypass("10.77.0.2:30080")
    assert bool(urllib.request.proxy_bypass("internal.example")) is bool(own)
    assert not urllib.request.proxy_bypass("elsewhere.example")
