"""The end of each game's log is read although the kubelet deletes it, and nothing else on the node is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from disk_agent.lastlines import podlogs
from disk_agent.lastlines.podlogs import WINDOW, Pod, PodLogs, RunLog
from tests.unit.agent.lastlines.nodelogs import PodFolder, numbered


@pytest.fixture
def logs(tmp_path: Path) -> Iterator[PodLogs]:
    yield PodLogs(tmp_path, "gameservers")
    # No descriptor is left.
    assert not [path for path in Path("/proc/self/fd").iterdir() if os.path.realpath(path).startswith(f"{tmp_path}/")]


def taken(runs: list[RunLog]) -> list[tuple[str, str, int, bytes, bool]]:
    """Server, pod, restarts and end of each run; closes them."""
    ends = [(run.pod.server, run.pod.uid, run.restarts, *run.end()) for run in runs]
    for run in runs:
        run.close()
    return ends


def test_the_end_outlives_its_deletion(tmp_path: Path, logs: PodLogs) -> None:
    """Also what was written after the last look. It is told once."""
    pod = PodFolder(tmp_path)
    pod.write(b"one\n")
    assert logs.look() == []
    assert logs.pods() == [Pod("7", pod.uid)]
    pod.write(b"two\n")
    pod.remove()
    assert taken(logs.look()) == [("7", pod.uid, 0, b"one\ntwo\n", True)]
    assert (logs.look(), logs.pods()) == ([], [])


def test_the_files_go_before_the_folder(tmp_path: Path, logs: PodLogs) -> None:
    """The kubelet removes the folder up to a minute later; an older run's file may be left in it until then."""
    pod = PodFolder(tmp_path)
    pod.write(b"crashed\n")
    pod.write(b"one\n", restarts=1)
    assert logs.look() == []
    pod.file(1).unlink()
    assert taken(logs.look()) == [("7", pod.uid, 1, b"one\n", True)]
    assert logs.look() == []
    pod.remove()
    assert logs.look() == []


def test_the_last_run_counts(tmp_path: Path, logs: PodLogs) -> None:
    """A crashed run is Kubernetes' to answer, as long as its pod is there."""
    pod = PodFolder(tmp_path)
    pod.write(b"one\n")
    logs.look()
    pod.write(b"two\n", restarts=1)
    assert logs.look() == []
    pod.file(0).unlink()
    assert logs.look() == []
    pod.write(b"ten\n", restarts=10)
    logs.look()
    pod.remove()
    assert taken(logs.look()) == [("7", pod.uid, 10, b"ten\n", True)]


def test_a_container_without_a_log(tmp_path: Path, logs: PodLogs) -> None:
    """A pod whose game has not begun yet."""
    pod = PodFolder(tmp_path)
    pod.folder.mkdir()
    assert logs.look() == []
    pod.container.mkdir()
    assert (logs.look(), logs.pods()) == ([], [])
    pod.remove()
    assert logs.look() == []


def test_rotation(tmp_path: Path, logs: PodLogs) -> None:
    """The kubelet renames the file and has a new one begun; what was written before it counts too."""
    pod = PodFolder(tmp_path)
    pod.write(b"one\n")
    logs.look()
    pod.rotate("20261127-120000")
    # Not ended: the new file is still to come.
    assert logs.look() == []
    pod.write(b"two\n")
    assert logs.look() == []
    (pod.container / "0.log.20261127-120000").rename(pod.container / "0.log.20261127-120000.gz")
    pod.write(b"three\n")
    pod.remove()
    assert taken(logs.look()) == [("7", pod.uid, 0, b"one\ntwo\nthree\n", True)]


def test_rotation_again_and_again(tmp_path: Path, logs: PodLogs) -> None:
    """The newest two files are held, and that there was more is known."""
    pod = PodFolder(tmp_path)
    for number in range(4):
        pod.write(b"%d\n" % number)
        logs.look()
        if number < 3:
            pod.rotate(f"20261127-12000{number}")
    pod.remove()
    assert taken(logs.look()) == [("7", pod.uid, 0, b"2\n3\n", False)]


@pytest.mark.parametrize(("suffix", "expected"), [("", b"old\nnew\n"), (".gz", b"new\n")])
def test_an_agent_that_comes_later(tmp_path: Path, logs: PodLogs, suffix: str, expected: bytes) -> None:
    """It finds the newest renamed file, unless that is packed already."""
    pod = PodFolder(tmp_path)
    pod.write(b"old\n")
    pod.rotate(f"20261127-120000{suffix}")
    pod.write(b"new\n")
    logs.look()
    pod.remove()
    assert taken(logs.look()) == [("7", pod.uid, 0, expected, False)]


def test_only_the_end_of_a_long_log_is_read(tmp_path: Path, logs: PodLogs) -> None:
    """Whatever its size."""
    pod, data = PodFolder(tmp_path), numbered(20_000)
    pod.write(data)
    logs.look()
    pod.rotate("20261127-120000")
    pod.write(b"end\n")
    logs.look()
    pod.remove()
    assert taken(logs.look()) == [("7", pod.uid, 0, (data + b"end\n")[-WINDOW:], False)]


def test_nothing_else_is_opened(tmp_path: Path, logs: PodLogs) -> None:
    """Not the pods of other namespaces and other names, nor other containers."""
    PodFolder(tmp_path, namespace="kube-system").write(b"secret\n")
    for name in ("gameservers_server-7-disk-abc12_", "gameservers_server-07-0_", "gameservers_server-7-1_", "x"):
        (tmp_path / f"{name}{PodFolder(tmp_path).uid}" / "game").mkdir(parents=True)
    pod = PodFolder(tmp_path, number=2)
    (pod.folder / "other").mkdir(parents=True)
    (pod.folder / "other" / "0.log").write_text("no\n")
    assert (logs.look(), logs.pods()) == ([], [])
    for path in list(tmp_path.iterdir()):
        PodFolder.remove(type("Folder", (), {"folder": path}))  # type: ignore[arg-type]


@pytest.mark.parametrize("place", ["folder", "container", "file"])
def test_links_are_not_followed(tmp_path: Path, logs: PodLogs, place: str, caplog: pytest.LogCaptureFixture) -> None:
    """Neither of a pod, nor of a container, nor of a log: it is logged once, and the other pods are not affected."""
    outside = tmp_path / "outside"
    (outside / "game").mkdir(parents=True)
    (outside / "game" / "0.log").write_text("secret\n")
    pod, other = PodFolder(tmp_path), PodFolder(tmp_path, 8, 2)
    other.write(b"one\n")
    link: Path = {"folder": pod.folder, "container": pod.container, "file": pod.file()}[place]
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to({"folder": outside, "container": outside / "game", "file": outside / "game" / "0.log"}[place])
    logs.look()
    logs.look()
    assert logs.pods() == [Pod("8", other.uid)]
    assert [record.getMessage() for record in caplog.records] == ["log not readable"]
    link.unlink()
    other.remove()
    assert [end[:2] for end in taken(logs.look())] == [("8", other.uid)]


def test_what_is_no_plain_file_does_not_block(tmp_path: Path, logs: PodLogs) -> None:
    """A FIFO."""
    pod = PodFolder(tmp_path)
    pod.container.mkdir(parents=True)
    os.mkfifo(pod.file())
    assert (logs.look(), logs.pods()) == ([], [])


def test_there_is_a_limit(tmp_path: Path, logs: PodLogs, monkeypatch: pytest.MonkeyPatch) -> None:
    """More pods than that are not followed, until others have ended."""
    monkeypatch.setattr(podlogs, "MOST_PODS", 1)
    one, two = PodFolder(tmp_path, 1, 1), PodFolder(tmp_path, 2, 2)
    for pod in (one, two):
        pod.write(b"log\n")
    logs.look()
    assert logs.pods() == [Pod("1", one.uid)]
    one.remove()
    assert [end[0] for end in taken(logs.look())] == ["1"]
    logs.look()
    assert logs.pods() == [Pod("2", two.uid)]
    two.remove()
    taken(logs.look())
