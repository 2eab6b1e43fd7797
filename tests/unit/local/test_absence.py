"""How the cluster's tests look at a node's processes, which go while they do."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from local.nodes import Node
from tests.cluster import absence

NODE = Node(9)


@pytest.fixture
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(absence, "_CGROUPS", tmp_path)
    return tmp_path / NODE.cgroup.lstrip("/")


def _fill(group: Path, *pids: int) -> None:
    group.mkdir(parents=True)
    (group / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))


def test_a_cgroup_that_goes_meanwhile_is_passed_over(
    cgroup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pod's end takes its cgroup away between the look at the folder above and the look into it."""
    _fill(cgroup, 1)
    _fill(cgroup / "stays", 2)
    _fill(cgroup / "goes", 3)
    scandir = os.scandir

    def late(folder: Any = ".") -> Any:
        if Path(folder).name == "goes":
            Path(folder).rename(tmp_path / "gone")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", late)
    assert absence.processes(NODE) == {1, 2}


def test_a_process_that_goes_meanwhile_hides_no_other(cgroup: Path) -> None:
    """Those of its cgroup that are listed after it are found."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    own = Path("/proc/self/comm").read_text().strip()
    _fill(cgroup, gone.pid, os.getpid())
    assert absence.processes(NODE, own) == {os.getpid()}
