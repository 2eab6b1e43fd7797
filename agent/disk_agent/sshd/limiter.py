"""Looks after the connections of this node: ends those that `limits.py` says have to go, and logs it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from disk_agent.sshd import connections
from disk_agent.sshd.connections import Connection
from disk_agent.sshd.journal import Journal
from disk_agent.sshd.limits import Limits, leaving
from disk_agent.sshd.peers import Peers

# Seconds from one look at all processes to the next: at ease, and when something has happened.
EASE, HASTE = 1.0, 0.1


class ConnectionLimiter:
    """Customers' sessions run as user."""

    def __init__(self, limits: Limits, user: int, peers: Peers, journal: Journal) -> None:
        self._limits = limits
        self._user = user
        self._peers = peers
        self._journal = journal
        self._wake = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._run, name="connection-limiter", daemon=True).start()

    def heard(self, event: str) -> None:
        """Of a login, or of a connection; of those, only a crowd is worth a look."""
        if event == "login" or len(self._peers) > self._limits.waiting:
            self._wake.set()

    def look(self) -> bool:
        """One look at all connections; whether some had to go."""
        began = time.monotonic()
        found = connections.connections(self._user)
        self._peers.keep({one.number for one in found}, began - EASE)
        # A login is logged before its session is there.
        going = leaving(
            (replace(one, logged_in=one.logged_in or self._peers.of(one.number).logged_in) for one in found),
            self._limits,
        )
        if not going:
            return False
        for one in (*going.late, *going.crowd):
            connections.turn_away(one.number)
        connections.end_connections(going.surplus)
        for one in going.late:
            self._tell("login timed out", server=self._server(one), **self._client(one), session=one.number)
        for server, count in self._by_server(going.crowd):
            self._tell("too many connections without a login", server=server, ended=count)
        for server, count in self._by_server(going.surplus):
            self._tell("too many sessions", server=server, ended=count)
        return True

    def _run(self) -> None:
        while True:
            self._wake.wait(EASE)
            self._wake.clear()
            # What had begun in the meantime is found by another look.
            while self.look():
                time.sleep(HASTE)
            time.sleep(HASTE)

    def _tell(self, event: str, **fields: object) -> None:
        self._journal.write({"level": "warning", "event": event, **fields})

    def _server(self, one: Connection) -> int | None:
        return int(one.server) if one.server else self._peers.of(one.number).server

    def _client(self, one: Connection) -> dict[str, str]:
        client = self._peers.of(one.number).client
        return {"client": client} if client else {}

    @staticmethod
    def _by_server(ended: Iterable[Connection]) -> list[tuple[int | None, int]]:
        counts = Counter(one.server for one in ended)
        return [(int(server) if server else None, count) for server, count in counts.items()]
