"""sshd's processes are grouped into connections by their titles; closing one kills all of its processes."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from disk_agent.sshd.connections import close, connections
from tests.support.waiting import until

CUSTOMER = 1000


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc with processes of OpenSSH."""
    for pid, parent, uid, title in (
        (10, 1, 0, "sshd: /usr/sbin/sshd -D [listener] 1 of 100-300 startups"),
        (20, 10, 0, "sshd: server-7 [priv]"),
        (21, 20, CUSTOMER, "sshd: server-7@notty"),
        (22, 21, CUSTOMER, "sshd: server-7@internal-sftp"),
        (30, 10, 0, "sshd: server-7 [priv]"),
        (31, 30, 100, "sshd: server-7 [net]"),
        (40, 10, 0, "sshd: [accepted]"),
        (41, 40, 100, "sshd: [net]"),
        (50, 1, CUSTOMER, "sshd: server-8@notty"),
        (51, 50, CUSTOMER, "sshd: server-8@internal-sftp"),
        (60, 10, 0, "sshd: unknown [priv]"),
        (70, 10, 0, "sshd: server-9 [priv]"),
        (71, 70, CUSTOMER, "sshd: server-9 [priv]"),
        (80, 1, 0, "python3 -m disk_agent"),
    ):
        process(tmp_path, pid, parent, uid, title)
    return tmp_path


def process(proc: Path, pid: int, parent: int, uid: int, title: str) -> None:
    folder = proc / str(pid)
    folder.mkdir()
    (folder / "cmdline").write_bytes(title.encode() + b"\0" * 20)
    (folder / "stat").write_text(f"{pid} (sshd) S {parent} {'0 ' * 17}{pid * 100} 0")
    (folder / "status").write_text(f"Name:\tsshd\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n")


def test_a_connection_has_all_of_its_processes(proc: Path) -> None:
    """A session without its monitor is still a connection; one without a channel yet is logged in already."""
    summaries = [
        (
            connection.pid,
            connection.server,
            connection.logged_in,
            sorted(process.pid for process in connection.processes),
        )
        for connection in connections(CUSTOMER, proc)
    ]
    assert summaries == [
        (20, "7", True, [20, 21, 22]),
        (30, "7", False, [30, 31]),
        (40, None, False, [40, 41]),
        (50, "8", True, [50, 51]),
        (60, None, False, [60]),
        (70, "9", True, [70, 71]),
    ]


def test_a_connection_has_as_many_sessions_as_sftp_processes(proc: Path) -> None:
    """A client opens several through one connection; sshd forks a process for each."""
    for pid in (23, 24):
        process(proc, pid, 21, CUSTOMER, "sshd: server-7@internal-sftp")
    # A session that is being opened has its connection's title for a moment.
    process(proc, 25, 21, CUSTOMER, "sshd: server-7@notty")
    sessions = {connection.pid: connection.sessions for connection in connections(CUSTOMER, proc)}
    assert sessions == {20: 3, 30: 0, 40: 0, 50: 1, 60: 0, 70: 0}


@pytest.fixture
def session() -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Real processes with the titles of sshd's: a monitor, a connection and its SFTP process."""
    sleep = shutil.which("sleep")
    assert sleep
    processes = {
        title: subprocess.Popen([f"sshd: server-4711{title}", "60"], executable=sleep)
        for title in (" [priv]", "@notty", "@internal-sftp")
    }
    # The kernel sets a title a moment after Popen returns.
    until(lambda: all(Path(f"/proc/{process.pid}/cmdline").read_bytes() for process in processes.values()))
    yield processes
    for process in processes.values():
        process.kill()
        process.wait()


def test_closing_kills_all_processes_of_a_connection(session: dict[str, subprocess.Popen[bytes]]) -> None:
    """The SFTP process gets a moment to log what it had open, and ends too."""
    closing = [connection for connection in connections(CUSTOMER) if connection.server == "4711"]
    assert len(closing) == 3  # All are children of this test, so each counts as a connection.
    began = time.monotonic()
    close(closing)
    for child in session.values():
        assert child.wait(5) == -9
    assert time.monotonic() - began < 2


def test_a_reused_pid_is_left_alone(tmp_path: Path) -> None:
    """A process that is not sshd's, or not the one that was seen, is not killed."""
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        process(tmp_path, other.pid, 1, CUSTOMER, "sshd: server-7@notty")
        closing = connections(CUSTOMER, tmp_path)
        shutil.rmtree(tmp_path / str(other.pid))
        process(tmp_path, other.pid, 1, CUSTOMER, "a game")
        close(closing, tmp_path)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
