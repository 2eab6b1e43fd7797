"""What a session logs by syslog(3) reaches the log with its server's id, in whatever state the socket was."""

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
    """Waits for so many lines of the log; gives them."""
    lines: list[str] = []

    def wait(count: int) -> list[dict[str, Any]]:
        deadline = time.monotonic() + 5
        while len(lines) < count and time.monotonic() < deadline:
            lines.extend(capsys.readouterr().out.splitlines())
            time.sleep(0.01)
        return [json.loads(line) for line in lines]

    return wait


def say(path: Path, line: bytes = LINE) -> None:
    """As glibc's syslog(3) says it to a stream that OpenSSH opens for each line."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(str(path))
        client.send(line)


def test_a_socket_is_bound_again_when_its_file_is_gone(
    tmp_path: Path, sockets: Sockets, logged: Callable[[int], list[dict[str, Any]]]
) -> None:
    """As after a restart of the agent, or when a chroot was made anew."""
    path = tmp_path / "log"
    for count in (1, 2):
        sockets.bind("7", path)
        sockets.bind("7", path)
        say(path)
        assert len(logged(count)) == count
        path.unlink()
    assert [(found["server"], found["status"]) for found in logged(2)] == [(7, "Failure")] * 2


def test_many_lines_at_once_keep_their_order_and_none_is_lost(
    tmp_path: Path, sockets: Sockets, logged: Callable[[int], list[dict[str, Any]]]
) -> None:
    sockets.bind("7", tmp_path / "log")
    for number in range(500):
        say(tmp_path / "log", b'<38>Jan  2 03:04:05 internal-sftp[13]: remove name "/files/%d"\0' % number)
    assert [found["path"] for found in logged(500)] == [f"/files/{number}" for number in range(500)]


def test_one_that_connects_and_says_nothing_keeps_nobody_waiting_for_long(
    tmp_path: Path, sockets: Sockets, logged: Callable[[int], list[dict[str, Any]]]
) -> None:
    sockets.bind("7", tmp_path / "log")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent:
        silent.connect(str(tmp_path / "log"))
        say(tmp_path / "log")
        assert len(logged(1)) == 1


def test_sshds_own_lines_are_heard(tmp_path: Path, logged: Callable[[int], list[dict[str, Any]]]) -> None:
    """They come as datagrams, and count wrong passwords and sessions."""
    heard: list[dict[str, Any]] = []
    Sockets(tmp_path / "own", heard.append).start()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.connect(str(tmp_path / "own"))
        client.send(b"<38>Jan  2 03:04:05 sshd[9]: Accepted password for server-7 from 10.0.0.1 port 5 ssh2")
    assert [found["event"] for found in logged(1)] == ["login"]
    assert [found["server"] for found in heard] == [7]
