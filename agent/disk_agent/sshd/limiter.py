"""Applies `limits.py` to the connections of this node: closes those that exceed the limits, and logs it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from disk_agent.sshd import connections
from disk_agent.sshd.connections import Connection
from disk_agent.sshd.journal import Journal
from disk_agent.sshd.limits import Limits, excess
from disk_agent.sshd.peers import Peers

# Seconds between two checks of all processes: when nothing happens, and after something did.
IDLE_SECONDS, BUSY_SECONDS = 1.0, 0.1


class ConnectionLimiter:
    """Closes the connections that exceed the limits, from a thread of its own.

    `session_uid` is the uid that customers' sessions run as.
    """

    def __init__(self, limits: Limits, session_uid: int, peers: Peers, journal: Journal) -> None:
        self._limits = limits
        self._session_uid = session_uid
        self._peers = peers
        self._journal = journal
        self._wake = threading.Event()

    def start(self) -> None:
        """Start the thread."""
        threading.Thread(target=self._run, name="connection-limiter", daemon=True).start()

    def notify(self, event: str) -> None:
        """Check soon because of a log event: after a login, or when there are too many connections."""
        if event == "login" or len(self._peers) > self._limits.unauthenticated:
            self._wake.set()

    def enforce(self) -> bool:
        """Check all connections once; returns whether some had to be closed."""
        began = time.monotonic()
        open_connections = connections.connections(self._session_uid)
        self._peers.forget_ended({connection.pid for connection in open_connections}, began - IDLE_SECONDS)
        # sshd logs a login before the session's process exists.
        closing = excess(
            (
                replace(connection, logged_in=connection.logged_in or self._peers.get(connection.pid).logged_in)
                for connection in open_connections
            ),
            self._limits,
        )
        if not closing:
            return False
        for connection in (*closing.timed_out, *closing.unauthenticated):
            connections.kill_monitor(connection.pid)
        connections.close(closing.sessions)
        for connection in closing.timed_out:
            self._log(
                "login timed out",
                server=self._server(connection),
                **self._client(connection),
                session=connection.pid,
            )
        for server, count in self._count_by_server(closing.unauthenticated):
            self._log("too many connections without a login", server=server, ended=count)
        for server, count in self._count_by_server(closing.sessions):
            self._log("too many sessions", server=server, ended=count)
        return True

    def _run(self) -> None:
        while True:
            self._wake.wait(IDLE_SECONDS)
            self._wake.clear()
            # Connections that began during a check are found by the next one.
            while self.enforce():
                time.sleep(BUSY_SECONDS)
            time.sleep(BUSY_SECONDS)

    def _log(self, event: str, **fields: object) -> None:
        self._journal.write({"level": "warning", "event": event, **fields})

    def _server(self, connection: Connection) -> int | None:
        return int(connection.server) if connection.server else self._peers.get(connection.pid).server

    def _client(self, connection: Connection) -> dict[str, str]:
        client = self._peers.get(connection.pid).client
        return {"client": client} if client else {}

    @staticmethod
    def _count_by_server(closed: Iterable[Connection]) -> list[tuple[int | None, int]]:
        counts = Counter(connection.server for connection in closed)
        return [(int(server) if server else None, count) for server, count in counts.items()]
