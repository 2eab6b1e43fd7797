"""sshd's processes make connections; what is ended is ended with all of them, by their titles and their numbers."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from disk_agent.sshd.connections import connections, end_connections

CUSTOMER = 1000


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """Some of /proc, as OpenSSH fills it."""
    for number, parent, user, title in (
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
        process(tmp_path, number, parent, user, title)
    return tmp_path


def process(proc: Path, number: int, parent: int, user: int, title: str) -> None:
    folder = proc / str(number)
    folder.mkdir()
    (folder / "cmdline").write_bytes(title.encode() + b"\0" * 20)
    (folder / "stat").write_text(f"{number} (sshd) S {parent} {'0 ' * 17}{number * 100} 0")
    (folder / "status").write_text(f"Name:\tsshd\nUid:\t{user}\t{user}\t{user}\t{user}\n")


def test_each_connection_is_all_of_its_processes(proc: Path) -> None:
    """One whose monitor was killed works on, and is one still; one that has no channel yet is logged in already."""
    found = [
        (one.number, one.server, one.logged_in, sorted(process.number for process in one.processes))
        for one in connections(CUSTOMER, proc)
    ]
    assert found == [
        (20, "7", True, [20, 21, 22]),
        (30, "7", False, [30, 31]),
        (40, None, False, [40, 41]),
        (50, "8", True, [50, 51]),
        (60, None, False, [60]),
        (70, "9", True, [70, 71]),
    ]


@pytest.fixture
def titled(tmp_path: Path) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Processes that call themselves what sshd's do: a monitor, a connection and its files."""
    sleep = shutil.which("sleep")
    assert sleep
    made = {
        title: subprocess.Popen([f"sshd: server-4711{title}", "60"], executable=sleep)
        for title in (" [priv]", "@notty", "@internal-sftp")
    }
    yield made
    for one in made.values():
        one.kill()
        one.wait()


@pytest.mark.usefixtures("titled")
def test_all_processes_of_a_connection_end(titled: dict[str, subprocess.Popen[bytes]]) -> None:
    """What works on files has a moment to log what it had open, and ends too."""
    found = [one for one in connections(CUSTOMER) if one.server == "4711"]
    assert len(found) == 3  # they are children of this test, none of another
    began = time.monotonic()
    end_connections(found)
    for one in titled.values():
        assert one.wait(5) == -9
    assert time.monotonic() - began < 2


def test_a_number_that_was_given_away_is_left_alone(tmp_path: Path) -> None:
    """A process that is no session of sshd's, or another than was seen, is not touched."""
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        process(tmp_path, other.pid, 1, CUSTOMER, "sshd: server-7@notty")
        found = connections(CUSTOMER, tmp_path)
        shutil.rmtree(tmp_path / str(other.pid))
        process(tmp_path, other.pid, 1, CUSTOMER, "a game")
        end_connections(found, tmp_path)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
