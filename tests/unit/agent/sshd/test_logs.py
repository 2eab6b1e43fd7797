"""sshd's lines become fields, with the id of the server whose socket they came from."""

from __future__ import annotations

import json
from typing import Any

import pytest

from disk_agent.logs import line
from disk_agent.sshd.logs import event

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


def test_a_sessions_line_that_looks_like_a_login_is_none() -> None:
    """Only sshd's own socket reports logins, so a session cannot slow down another server."""
    parsed = event(STAMP + "sshd[12]: Failed password for server-8 from 10.0.0.1 port 5022 ssh2", "7")
    assert parsed is not None
    assert (parsed["event"], parsed["server"]) == ("sshd", 7)


def test_checking_whether_a_file_exists_is_no_event() -> None:
    assert event(STAMP + "internal-sftp[12]: sent status No such file", "7") is None


def test_asking_for_login_methods_is_no_refused_login() -> None:
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
def test_an_unknown_user_may_be_a_password(line: str, text: str) -> None:
    """Customers may type it in place of the name, so it is not logged; the user of a deleted server is."""
    parsed = event(f"{STAMP}sshd[12]: {line}", None)
    assert parsed is not None
    assert (parsed["event"], parsed["text"]) == ("sshd", text)


NAMES = {
    "umlauts": (r"w\303\266rld", "wörld"),
    "a backslash": (r"back\\slash", "back\\slash"),
    "a backslash before digits": (r"a\\303", r"a\303"),
    "a newline": (r"a\nb", "a\nb"),
    "control sequences": (r"\033[31m\a", "\x1b[31m\a"),
    "no UTF-8": (r"\377\376.zip", r"\xff\xfe.zip"),
    "an incomplete character": (r"a\303", r"a\xc3"),
    "quotes": ('q"x" flags READ mode 0666', 'q"x" flags READ mode 0666'),
}


@pytest.mark.parametrize(("logged", "name"), NAMES.values(), ids=NAMES)
def test_file_names_are_as_the_customer_wrote_them(logged: str, name: str) -> None:
    """OpenSSH writes each byte that is not ASCII as an octal number."""
    parsed = event(f'{STAMP}internal-sftp[13]: open "/files/{logged}" flags WRITE mode 0666', "7")
    assert parsed is not None
    assert (parsed["path"], parsed["mode"]) == (f"/files/{name}", "0666")


def test_letters_are_readable_in_the_log_and_control_characters_are_escaped() -> None:
    fields = {"event": "file", "path": "/files/wörld \x1b[31m\n\x7f\x9b\u202e\u2028\U000e0001 漢字"}
    text = line(fields, "now")
    assert "wörld" in text
    assert "漢字" in text
    assert text.removesuffix("\n").isprintable()
    assert json.loads(text)["path"] == fields["path"]


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        (
            'forced close "/files/big" bytes read 0 written 1044480',
            {"operation": "close", "path": "/files/big", "bytes_read": 0, "bytes_written": 1044480, "broken_off": True},
        ),
        ('forced closedir "/files"', {"operation": "closedir", "path": "/files", "broken_off": True}),
        ('statvfs "/files"', {"operation": "statvfs", "path": "/files"}),
        (
            'set "/files/a" owner 0 group 0',
            {"operation": "set", "path": "/files/a", "attribute": "owner", "value": "0 group 0"},
        ),
        (
            r'rename old "/files/\303\244" new "/files/b"',
            {"operation": "rename", "path": "/files/ä", "new_path": "/files/b"},
        ),
    ],
)
def test_rarer_operations_and_those_that_broke_off(text: str, fields: dict[str, Any]) -> None:
    parsed = event(f"{STAMP}internal-sftp[13]: {text}", "7")
    assert parsed == {"level": "info", "server": 7, "session": 13, "event": "file", **fields}


UMLAUT = r"\303\274"


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        (f'open "/files/{UMLAUT * 127}" flags WRITE', {"operation": "open", "path": "/files/" + "ü" * 60}),
        (f'forced close "/files/{UMLAUT * 127}', {"operation": "close", "path": "/files/" + "ü" * 59}),
        (f'mkdir name "/{UMLAUT * 127}', {"operation": "mkdir", "path": "/" + "ü" * 60}),
        (f'rename old "/a" new "/{"x" * 600}', {"operation": "rename", "path": "/a", "new_path": "/" + "x" * 478}),
        (f'rename old "/{"x" * 600}', {"operation": "rename", "path": "/" + "x" * 487}),
    ],
)
def test_a_line_that_openssh_cut_is_read_as_far_as_it_goes(text: str, fields: dict[str, Any]) -> None:
    """It writes at most 500 characters, and an umlaut takes eight."""
    parsed = event(f"{STAMP}internal-sftp[13]: {text[:500]}\0", "7")
    assert parsed is not None
    assert (parsed["event"], parsed["cut"]) == ("file", True)
    assert {name: parsed[name] for name in fields} == fields


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("error: maximum authentication attempts exceeded for server-7 from ::1 port 5 ssh2 [preauth]", 7),
        ("Disconnecting authenticating user server-7 ::1 port 5: Too many authentication failures [preauth]", 7),
        ("Connection closed by authenticating user server-7 ::1 port 5 [preauth]", 7),
        ("Connection reset by authenticating user server-7 ::1 port 5 [preauth]", 7),
        ("Failed password for invalid user Server-7 from ::1 port 5 ssh2", 7),
        ("Invalid user SERVER-7 from ::1 port 5", 7),
        ("Invalid user server-7@10.77.0.3 from ::1 port 5", 7),
        ("Invalid user server-7@2001:db8::1 from ::1 port 5", 7),
        ("Invalid user server-7  from ::1 port 5", 7),
        ("Connection closed by invalid user  server-7 ::1 port 5 [preauth]", 7),
        ("Connection reset by invalid user server-7  ::1 port 5 [preauth]", 7),
        ("Disconnecting invalid user \tserver-7 ::1 port 5: Too many authentication failures [preauth]", 7),
        ("Invalid user server-7 hush from ::1 port 5", None),
        ("Invalid user server-7@hush! from ::1 port 5", None),
        ("Connection reset by ::1 port 5 [preauth]", None),
        ("Invalid user  from ::1 port 5", None),
    ],
)
def test_each_line_of_sshd_has_its_server_and_its_client(text: str, server: int | None) -> None:
    parsed = event(f"{STAMP}sshd[12]: {text}", None)
    assert parsed is not None
    assert (parsed["server"], parsed["client"]) == (server, "::1")


@pytest.mark.parametrize("user", ["server-7 ", " server-7", "server-7@10.77.0.3", "server-7@play.example.com "])
def test_a_user_name_from_copy_and_paste_is_named(user: str) -> None:
    """With a space, or with the server's address: sshd knows no such user, but the customer is known."""
    for text in ("Failed password for", "error: maximum authentication attempts exceeded for"):
        parsed = event(f"{STAMP}sshd[12]: {text} invalid user {user} from ::1 port 5 ssh2", None)
        assert parsed is not None
        assert (parsed["event"], parsed["server"], parsed["user"]) == ("login refused", 7, user.strip())


def test_too_many_attempts_are_a_refused_login() -> None:
    text = "error: maximum authentication attempts exceeded for server-7 from ::1 port 5 ssh2 [preauth]"
    parsed = event(f"{STAMP}sshd[12]: {text}", None)
    assert parsed is not None
    assert (parsed["event"], parsed["reason"], parsed["user"]) == ("login refused", "too many tries", "server-7")


@pytest.mark.parametrize(
    "text", ["User child is on pid 9", "Received disconnect from ::1 port 5:11: disconnected by user"]
)
def test_lines_of_no_use_are_dropped(text: str) -> None:
    assert event(f"{STAMP}sshd[12]: {text}", None) is None
