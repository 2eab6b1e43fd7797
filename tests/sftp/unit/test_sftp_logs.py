"""sshd's lines become fields, with the server's id from where the line came."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import pytest
from sftp_agent.logs import Sockets, event

STAMP = "<38>Jan  2 03:04:05 "


@pytest.mark.parametrize(
    ("line", "server", "fields"),
    [
        (
            "sshd[12]: Accepted password for server-7 from 10.0.0.1 port 5022 ssh2",
            None,
            {
                "event": "login",
                "user": "server-7",
                "method": "password",
                "client": "10.0.0.1",
                "server": 7,
                "session": 12,
            },
        ),
        (
            "sshd[12]: Accepted publickey for server-7 from ::1 port 5022 ssh2: ED25519 SHA256:abc",
            None,
            {
                "event": "login",
                "user": "server-7",
                "method": "publickey",
                "client": "::1",
                "key": "ED25519 SHA256:abc",
                "server": 7,
                "session": 12,
            },
        ),
        (
            "sshd[12]: Failed password for invalid user root from 10.0.0.1 port 5022 ssh2",
            None,
            {
                "event": "login refused",
                "user": "root",
                "method": "password",
                "client": "10.0.0.1",
                "server": None,
                "session": 12,
            },
        ),
        (
            'internal-sftp[13]: open "/files/a \\"b\\"" flags WRITE,CREATE mode 0666',
            "7",
            {
                "event": "file",
                "operation": "open",
                "path": '/files/a \\"b\\"',
                "flags": "WRITE,CREATE",
                "mode": "0666",
                "server": 7,
                "session": 13,
            },
        ),
        (
            'internal-sftp[13]: close "/files/a" bytes read 0 written 12',
            "7",
            {
                "event": "file",
                "operation": "close",
                "path": "/files/a",
                "bytes_read": 0,
                "bytes_written": 12,
                "server": 7,
                "session": 13,
            },
        ),
        (
            'internal-sftp[13]: posix-rename old "/files/a" new "/files/b"',
            "7",
            {
                "event": "file",
                "operation": "posix-rename",
                "path": "/files/a",
                "new_path": "/files/b",
                "server": 7,
                "session": 13,
            },
        ),
        (
            "internal-sftp[13]: sent status Permission denied",
            "7",
            {"event": "file refused", "status": "Permission denied", "server": 7, "session": 13},
        ),
        (
            "internal-sftp[13]: session opened for local user server-7 from [10.0.0.1]",
            "7",
            {"event": "session opened", "client": "10.0.0.1", "server": 7, "session": 13},
        ),
    ],
)
def test_lines_become_fields(line: str, server: str | None, fields: dict[str, Any]) -> None:
    assert event(STAMP + line, server) == {"level": "info", **fields}


def test_a_chroots_line_that_looks_like_a_login_is_none() -> None:
    """Only sshd's own socket tells of logins: what comes from a session cannot slow another server."""
    found = event(STAMP + "sshd[12]: Failed password for server-8 from 10.0.0.1 port 5022 ssh2", "7")
    assert found is not None
    assert (found["event"], found["server"]) == ("sshd", 7)


def test_asking_whether_there_is_a_file_is_no_event() -> None:
    assert event(STAMP + "internal-sftp[12]: sent status No such file", "7") is None


def test_asking_for_methods_is_no_refused_login() -> None:
    assert event(STAMP + "sshd[12]: Failed none for server-7 from 10.0.0.1 port 5022 ssh2", None) is None


def test_a_socket_is_bound_again_when_its_file_is_gone(tmp_path: Path) -> None:
    """As after a restart of the agent, or when a chroot was made anew."""
    heard: list[dict[str, Any]] = []
    sockets = Sockets(tmp_path / "own", heard.append)
    sockets.start()
    path = tmp_path / "log"
    for count in (1, 2):
        sockets.bind("7", path)
        sockets.bind("7", path)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
            client.connect(str(path))
            client.send(b"<38>Jan  2 03:04:05 internal-sftp[13]: sent status Failure")
        deadline = time.monotonic() + 5
        while len(heard) < count and time.monotonic() < deadline:
            time.sleep(0.01)
        path.unlink()
    sockets.close("7")
    assert [found["status"] for found in heard] == ["Failure", "Failure"]
