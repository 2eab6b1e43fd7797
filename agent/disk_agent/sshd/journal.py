"""Writes what sshd and its sessions log to the container's log, each server's lines within its budget."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from disk_agent import logs
from disk_agent.logs import Fields
from disk_agent.sshd.budget import FILES, REFUSALS, SESSIONS, Budget, Key

_LIMITS = {"files": FILES, "sessions": SESSIONS, "refusals": REFUSALS}
# The allowance of each event; all others belong to "sessions".
_ALLOWANCES = {
    "file": "files",
    "file refused": "files",
    "login refused": "refusals",
    "login timed out": "refusals",
    "too many connections without a login": "refusals",
}


class Journal:
    """The log of sshd and its sessions. Thread-safe.

    `is_here` says whether a server's disk is offered on this node: a client can name any server.
    """

    def __init__(self, is_here: Callable[[str], bool]) -> None:
        self._is_here = is_here
        self._budget = Budget()
        self._lock = threading.Lock()

    def write(self, *events: Fields) -> None:
        """Log the events, as far as each server's budget allows."""
        now, stamp, lines = time.monotonic(), logs.stamp(), []
        with self._lock:
            for fields in events:
                key = self._key(fields)
                if self._budget.admits(key, _LIMITS[key[1]], now):
                    lines.append(logs.line(fields, stamp))
                    self._budget.spend(key, len(lines[-1].encode()))
        logs.write_lines([*self._omitted(now), *lines])

    def flush(self) -> None:
        """Log how many lines were left out, if that is due. Call it now and then."""
        logs.write_lines(self._omitted(time.monotonic()))

    def _omitted(self, now: float) -> list[str]:
        with self._lock:
            due = self._budget.omitted(now)
        return [
            logs.line(
                {"level": "warning", "event": "lines left out", "server": server, "about": allowance, "lines": count},
                logs.stamp(),
            )
            for (server, allowance), count in due
        ]

    def _key(self, fields: Fields) -> Key:
        server = fields.get("server")
        known = server if server is not None and self._is_here(str(server)) else None
        # Anybody can make sshd log such lines: they come before a login.
        before_login = fields["event"] == "sshd" and "[preauth]" in fields["text"]
        return known, "refusals" if before_login else _ALLOWANCES.get(fields["event"], "sessions")
