"""sshd's lines become fields, with the server's id from where the line came."""

from __future__ import annotations

from typing import Any

import pytest
from sftp_agent.logs import event

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
            "sshd[12]: Failed password for invalid user hush from 1 port 1 from 10.0.0.1 port 5022 ssh2",
            None,
            {
                "event": "login refused",
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


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("Invalid user hush from 10.0.0.1 port 22", "Invalid user  from 10.0.0.1 port 22"),
        ("Invalid user hu sh from 1 port 2 from ::1 port 22", "Invalid user  from ::1 port 22"),
        (
            "Connection closed by invalid user hush 10.0.0.1 port 22 [preauth]",
            "Connection closed by invalid user  10.0.0.1 port 22 [preauth]",
        ),
        ("something new about an invalid user hush", "something new about an invalid user "),
        ("Invalid user server-7 from ::1 port 22", "Invalid user server-7 from ::1 port 22"),
    ],
)
def test_a_user_that_nobody_is_may_be_a_password(line: str, text: str) -> None:
    """Typed where the name belongs, it is not written down; a server that is no more is."""
    found = event(f"{STAMP}sshd[12]: {line}", None)
    assert found is not None
    assert (found["event"], found["text"]) == ("sshd", text)
