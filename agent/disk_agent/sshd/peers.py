"""Who is behind each of sshd's processes, by what its log lines have told.

One line names the client, another the user, a third neither: this puts them together, so that each line can be
found by its server. sshd's lines carry the number of the process that serves the connection.
"""

from __future__ import annotations

import threading
from collections.abc import Container
from dataclasses import dataclass

from disk_agent.logs import Fields


@dataclass
class Peer:
    """One connection: since when, where from, to which server, how many passwords were wrong, whether it is let in."""

    since: float
    client: str | None = None
    server: int | None = None
    wrong: int = 0
    logged_in: bool = False


class Peers:
    """The connections that there are, by process. Safe for threads; times come in as arguments."""

    def __init__(self) -> None:
        self._peers: dict[int, Peer] = {}
        self._lock = threading.Lock()

    def told(self, fields: Fields, now: float) -> Fields:
        """Learn from a line of sshd's own; gives it with what is known of its connection."""
        process = fields.get("session")
        if process is None:
            return fields
        with self._lock:
            if fields["event"] == "connection":
                self._peers[process] = Peer(now, fields["client"])
                return fields
            peer = self._peers.setdefault(process, Peer(now))
            peer.client = fields.get("client") or peer.client
            peer.server = fields["server"] or peer.server
            if fields["event"] == "login refused" and fields.get("method") == "password":
                peer.wrong += 1
            peer.logged_in = peer.logged_in or fields["event"] == "login"
            known = {"server": peer.server, **({"client": peer.client} if peer.client else {})}
        return {**fields, **known}

    def of(self, process: int) -> Peer:
        """What is known of a connection."""
        with self._lock:
            return self._peers.get(process) or Peer(0)

    def __len__(self) -> int:
        return len(self._peers)

    def keep(self, processes: Container[int], before: float) -> None:
        """Forget all others that came before: their connections have ended."""
        with self._lock:
            self._peers = {
                number: peer for number, peer in self._peers.items() if number in processes or peer.since >= before
            }
