"""What sshd's log lines have said about the client of each connection.

One line names the client's address, another the user, a third neither. This module joins them, so that every logged
line can be found by its server. sshd's lines carry the pid of the process that serves the connection.
"""

from __future__ import annotations

import threading
from collections.abc import Container
from dataclasses import dataclass

from disk_agent.logs import Fields


@dataclass
class Peer:
    """The client of one connection.

    Attributes:
        since: When its first line was logged (`time.monotonic()`).
        client: The address that it connects from.
        server: The id of the server whose user it named.
        wrong_passwords: How many wrong passwords it has given.
        logged_in: Whether it has logged in.
    """

    since: float
    client: str | None = None
    server: int | None = None
    wrong_passwords: int = 0
    logged_in: bool = False


class Peers:
    """The peers of all open connections, by pid. Thread-safe; times are passed in."""

    def __init__(self) -> None:
        self._peers: dict[int, Peer] = {}
        self._lock = threading.Lock()

    def update(self, fields: Fields, now: float) -> Fields:
        """Learn from one of sshd's own log lines; returns it with everything known about its connection."""
        pid = fields.get("session")
        if pid is None:
            return fields
        with self._lock:
            if fields["event"] == "connection":
                self._peers[pid] = Peer(now, fields["client"])
                return fields
            peer = self._peers.setdefault(pid, Peer(now))
            peer.client = fields.get("client") or peer.client
            peer.server = fields["server"] or peer.server
            if fields["event"] == "login refused" and fields.get("method") == "password":
                peer.wrong_passwords += 1
            peer.logged_in = peer.logged_in or fields["event"] == "login"
            known = {"server": peer.server, **({"client": peer.client} if peer.client else {})}
        return {**fields, **known}

    def get(self, pid: int) -> Peer:
        """What is known about a connection; an empty `Peer` if nothing is."""
        with self._lock:
            return self._peers.get(pid) or Peer(0)

    def __len__(self) -> int:
        return len(self._peers)

    def forget_ended(self, pids: Container[int], before: float) -> None:
        """Forget the connections that have ended: those first seen before `before` that are not among `pids`."""
        with self._lock:
            self._peers = {pid: peer for pid, peer in self._peers.items() if pid in pids or peer.since >= before}
