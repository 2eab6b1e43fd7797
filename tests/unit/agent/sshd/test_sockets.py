"""Lines that a session logs by syslog(3) reach the log with the server's id, whatever state the socket was in."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from disk_agent.sshd.sockets import Sockets

LINE = b"<38>Jan  2 03:04:05 internal-sftp[13]: sent status Failure\0"


@pytest.fixture
def sockets(tmp_path: Path) -> Iterator[Sockets]:
    listening = Sockets(tmp_path / "own", lambda _: None)
    listening.start()
    yield listening
    listening.close("7")


@pytest.fixture
def logged(capsys: pytest.CaptureFixture[str]) -> Callable[[int], list[dict[str, Any]]]:
    """Waits for a number of log lines and returns them."""
    lines: list[str] = []

    def wait(count: int) -> list[dict[str, Any]]:
        deadline = time.monotonic() + 5
        while len(lines) < count and time.monotonic() < deadline:
            lines.extend(capsys.readouterr().out.splitlines())
            time.sleep(0.01)
        return [json.loads(line) for line in lines]

    return wait


def send(path: Path, line: bytes = LINE) -> None:
    """Send a line as glibc's syslog(3) does, over a stream that OpenSSH opens for each line."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(str(path))
        client.send(line)


def test_a_socket_is_bound_again_if_its_file_has_gone(
    tmp_path: Path, sockets: Sockets, logged: Callable[[int], list[dict[str, Any]]]
) -> None:
    """As after a restart of the agent, or after a chroot was recreated."""
    path = tmp_path / "log"
    for count in (1, 2):
        sockets.bind("7", path)
        sockets.bind("7", path)
        send(path)
        assert len(logged(count)) == count
        path.unlink()
    assert [(line["server"], line["status"]) for line in logged(2)] == [(7, "Failure")] * 2


def test_many_lines_at_once_keep_their_order_and_none_is_lost(
    tmp_path: Path, sockets: Sockets, logged: Callable[[int], list[dict[str, Any]]]
) -> None:
    sockets.bind("7", tmp_path / "log")
    for number in range(500):
        send(tmp_path / "log", b'<38>Jan  2 03:04:05 internal-sftp[13]: remove name "/files/%d"\0' % number)
    assert [line["path"] for line in logged(500)] == [f"/files/{number}" for number in range(500)]


def test_a_session_that_connects_and_sends_nothing_delays_the_others_briefly(
    tmp_path: Path, sockets: Sockets, logged: Callable[[int], list[dict[str, Any]]]
) -> None:
    sockets.bind("7", tmp_path / "log")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent:
        silent.connect(str(tmp_path / "log"))
        send(tmp_path / "log")
        assert len(logged(1)) == 1


def test_events_of_sshd_itself_are_passed_on(tmp_path: Path, logged: Callable[[int], list[dict[str, Any]]]) -> None:
    """They arrive as datagrams; wrong passwords and sessions are counted from them."""
    events: list[dict[str, Any]] = []
    Sockets(tmp_path / "own", events.append).start()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.connect(str(tmp_path / "own"))
        client.send(b"<38>Jan  2 03:04:05 sshd[9]: Accepted password for server-7 from 10.0.0.1 port 5 ssh2")
    assert [line["event"] for line in logged(1)] == ["login"]
    assert [line["server"] for line in events] == [7]
