"""What sshd and the sessions say goes through here into the log, each server's within its budget."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from disk_agent import logs
from disk_agent.logs import Fields
from disk_agent.sshd.budget import FILES, REFUSALS, SESSIONS, Budget, Key

_LIMITS = {"files": FILES, "sessions": SESSIONS, "refusals": REFUSALS}
_ABOUT = {
    "file": "files",
    "file refused": "files",
    "login refused": "refusals",
    "login timed out": "refusals",
    "too many connections without a login": "refusals",
}


class Journal:
    """Safe for threads. is_here tells whether a server's disk is offered on this node: whoever knocks can name any."""

    def __init__(self, is_here: Callable[[str], bool]) -> None:
        self._is_here = is_here
        self._budget = Budget()
        self._lock = threading.Lock()

    def write(self, *events: Fields) -> None:
        """Log them, as far as each server's budget goes."""
        now, stamp, lines = time.monotonic(), logs.stamp(), []
        with self._lock:
            for fields in events:
                key = self._key(fields)
                if self._budget.admits(key, _LIMITS[key[1]], now):
                    lines.append(logs.line(fields, stamp))
                    self._budget.spend(key, len(lines[-1].encode()))
        logs.write_lines([*self._omitted(now), *lines])

    def settle(self) -> None:
        """Log what was left out. To be called now and then."""
        logs.write_lines(self._omitted(time.monotonic()))

    def _omitted(self, now: float) -> list[str]:
        with self._lock:
            due = self._budget.omitted(now)
        return [
            logs.line(
                {"level": "warning", "event": "lines left out", "server": server, "about": about, "lines": count},
                logs.stamp(),
            )
            for (server, about), count in due
        ]

    def _key(self, fields: Fields) -> Key:
        server = fields.get("server")
        known = server if server is not None and self._is_here(str(server)) else None
        # What sshd says before a login, anybody makes it say.
        knocking = fields["event"] == "sshd" and "[preauth]" in fields["text"]
        return known, "refusals" if knocking else _ABOUT.get(fields["event"], "sessions")
