"""Log lines: the agent's own, sshd's and each session's, all as JSON on standard output.

sshd and internal-sftp log by syslog(3) to /dev/log; for a session that is the one in its chroot, so the
socket on which a line comes tells its server for certain. A session that finds no socket, while the agent
starts again, drops the line and goes on.
"""

from __future__ import annotations

import json
import logging
import os
import re
import selectors
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
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
_OPERATIONS = tuple(
    re.compile(pattern)
    for pattern in (
        rf"(?P<operation>open) {_PATH} flags (?P<flags>\S+) mode (?P<mode>\d+)",
        rf"(?P<operation>close) {_PATH} bytes read (?P<bytes_read>\d+) written (?P<bytes_written>\d+)",
        r'(?P<operation>rename|posix-rename|symlink|link|hardlink) old "(?P<path>.*)" new "(?P<new_path>.*)"',
        rf"(?P<operation>mkdir) name {_PATH} mode (?P<mode>\d+)",
        rf"(?P<operation>remove|rmdir) name {_PATH}",
        rf"(?P<operation>set) {_PATH} (?P<attribute>mode|size|owner|modtime|mtime) (?P<value>.+)",
        rf"(?P<operation>opendir|closedir) {_PATH}",
        r"(?P<operation>statvfs|fsync|lsetstat|copy-data|copy) (?P<path>.+)",
    )
)
_SESSION = re.compile(r"session (?P<change>opened|closed) for local user (?P<user>\S+) from \[(?P<client>[^\]]*)\]")
_SERVER_USER = re.compile(r"server-([1-9][0-9]{0,18})", re.ASCII)
_BATCH = 64
_NUMBERS = frozenset({"bytes_read", "bytes_written", "port"})


def write(*events: Fields) -> None:
    """A JSON line for each, in one write."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    sys.stdout.write("".join(json.dumps({"time": now, **fields}) + "\n" for fields in events))
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
    text = header["text"]
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
        for operation in _OPERATIONS:
            if found := operation.match(text):
                fields = {name: int(value) if name in _NUMBERS else value for name, value in found.groupdict().items()}
                return {**common, "event": "file", **fields}
        if text == "sent status No such file":  # a client asking whether there is one
            return None
        if text.startswith("sent status "):
            return {**common, "event": "file refused", "status": text.removeprefix("sent status ")}
    return {**common, "event": "sshd", "text": text}


class Sockets(threading.Thread):
    """The /dev/log of sshd and of each chroot. Each event goes to the log, and to heard."""

    def __init__(self, own: Path, heard: Callable[[Fields], None]) -> None:
        super().__init__(name="logs", daemon=True)
        self._selector = selectors.DefaultSelector()
        self._heard = heard
        self._bound: dict[str | None, tuple[socket.socket, int]] = {}
        self._lock = threading.Lock()
        self.bind(None, own)

    def bind(self, server: str | None, path: Path) -> None:
        """Listen at the path, unless that is done already: twice is once."""
        with self._lock:
            if server in self._bound and _inode(path) == self._bound[server][1]:
                return
            self._close(server)
            path.unlink(missing_ok=True)
            listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            listening.bind(str(path))
            # The session logs as the game's uid.
            path.chmod(0o666)
            self._bound[server] = (listening, _inode(path))
            self._selector.register(listening, selectors.EVENT_READ, server)

    def close(self, server: str) -> None:
        """Stop listening for a server."""
        with self._lock:
            self._close(server)

    def run(self) -> None:
        while True:
            lines = [(line, key.data) for key, _ in self._selector.select() for line in _waiting(key.fileobj)]
            events = [fields for line, server in lines if (fields := event(line, server)) is not None]
            write(*events)
            for fields in events:
                self._heard(fields)

    def _close(self, server: str | None) -> None:
        if server in self._bound:
            listening, _ = self._bound.pop(server)
            self._selector.unregister(listening)
            listening.close()


def _waiting(listening: Any) -> Iterator[str]:
    """What waits at a socket. The kernel holds only ten lines there; then the session that logs has to wait."""
    for _ in range(_BATCH):
        try:
            yield listening.recv(8192, socket.MSG_DONTWAIT).decode(errors="backslashreplace")
        except OSError:  # nothing more, or closed meanwhile
            return


def _inode(path: Path) -> int:
    try:
        return os.lstat(path).st_ino
    except OSError:
        return -1


def _number(server: str | None) -> int | None:
    return int(server) if server else None
