"""Log lines: the agent's own, sshd's and each session's, all as JSON on standard output."""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
from datetime import UTC, datetime
from typing import Any

Fields = dict[str, Any]

_HEADER = re.compile(
    r"<\d+>(?:\w{3} +\d+ [\d:]{8} )?(?:\S+? )?(?P<program>[\w-]+)\[(?P<pid>\d+)\]: (?P<text>.*)", re.DOTALL
)
_LOGIN = re.compile(
    r"(?P<outcome>Accepted|Failed) (?P<method>password|publickey|none) for (?P<unknown>invalid user )?(?P<user>\S*) "
    r"from (?P<client>\S+) port (?P<port>\d+)(?: ssh2)?(?:: (?P<key>.+))?"
)
_PATH = r'"(?P<path>.*)"'
# By the first word, as a folder of small files brings thousands of lines a second.
_OPERATIONS = {
    operation: re.compile(rf"(?P<operation>{operation}) {rest}")
    for operations, rest in (
        ("open", rf"{_PATH} flags (?P<flags>\S+) mode (?P<mode>\d+)"),
        ("close", rf"{_PATH} bytes read (?P<bytes_read>\d+) written (?P<bytes_written>\d+)"),
        ("rename posix-rename symlink link hardlink", r'old "(?P<path>.*)" new "(?P<new_path>.*)"'),
        ("mkdir", rf"name {_PATH} mode (?P<mode>\d+)"),
        ("remove rmdir", rf"name {_PATH}"),
        ("set", rf"{_PATH} (?P<attribute>mode|size|owner|modtime|mtime) (?P<value>.+)"),
        ("opendir closedir", _PATH),
        ("statvfs fsync lsetstat copy-data copy", r"(?P<path>.+)"),
    )
    for operation in operations.split()
}
_SESSION = re.compile(r"session (?P<change>opened|closed) for local user (?P<user>\S+) from \[(?P<client>[^\]]*)\]")
_SERVER_USER = re.compile(r"server-([1-9][0-9]{0,18})", re.ASCII)
# The user of a login that nobody has; what follows it differs from line to line.
_NOBODY = re.compile(r"(?<=nvalid user )(?:.*(?= from \S+ port \d)|.*(?= \S+ port \d)|.*)", re.DOTALL)
_NUMBERS = frozenset({"bytes_read", "bytes_written", "port"})
_writing = threading.Lock()


def write(*events: Fields) -> None:
    """A JSON line for each, in one write. Called from several threads; lines never mix."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    text = "".join(json.dumps({"time": now, **fields}) + "\n" for fields in events)
    with _writing:
        sys.stdout.write(text)
        sys.stdout.flush()


class JsonHandler(logging.Handler):
    """The agent's own log."""

    def emit(self, record: logging.LogRecord) -> None:
        fields = {"level": record.levelname.lower(), "event": record.getMessage(), **getattr(record, "fields", {})}
        if record.exc_info:
            fields["exception"] = logging.Formatter().formatException(record.exc_info)
        write(fields)


def event(line: str, server: str | None) -> Fields | None:
    """A syslog line as fields; None for one that nobody needs. Pure.

    server is the one whose chroot the line came from, None for a line of sshd's own.
    """
    header = _HEADER.fullmatch(line.rstrip("\n\0"))
    if header is None:
        return {"level": "info", "event": "sshd", "server": _number(server), "text": line}
    common: Fields = {"level": "info", "server": _number(server), "session": int(header["pid"])}
    # A password is easily typed where the user's name belongs.
    text = header["text"] if server else _NOBODY.sub(_harmless, header["text"])
    if server is None and (login := _LOGIN.fullmatch(text)):
        if login["method"] == "none":  # how a client asks which methods there are
            return None
        user = _SERVER_USER.fullmatch(login["user"])
        fields = {name: login[name] for name in ("user", "method", "client", "key") if login[name]}
        outcome = "login" if login["outcome"] == "Accepted" else "login refused"
        return {**common, "event": outcome, **fields, "server": _number(user[1] if user else None)}
    if server is not None and (session := _SESSION.match(text)):
        return {**common, "event": f"session {session['change']}", "client": session["client"]}
    if server is not None:
        operation = _OPERATIONS.get(text.partition(" ")[0])
        if operation and (found := operation.match(text)):
            fields = {name: int(value) if name in _NUMBERS else value for name, value in found.groupdict().items()}
            return {**common, "event": "file", **fields}
        if text == "sent status No such file":  # a client asking whether there is one
            return None
        if text.startswith("sent status "):
            return {**common, "event": "file refused", "status": text.removeprefix("sent status ")}
    return {**common, "event": "sshd", "text": text}


def _harmless(user: re.Match[str]) -> str:
    return user[0] if _SERVER_USER.fullmatch(user[0]) else ""


def _number(server: str | None) -> int | None:
    return int(server) if server else None
