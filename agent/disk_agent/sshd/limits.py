"""Decides which connections exceed the limits: unauthenticated ones, and sessions beyond a server's own. Pure.

A client has two minutes to log in, as with any OpenSSH: people compare fingerprints and look up passwords. The number
of connections without a login is limited, so that they cannot take every slot of sshd. When there are too many, the
oldest connection is closed of the server that has the most of them; connections that have not named a server count as
one group. A flood therefore loses its own connections, and a customer who is typing a password for another server keeps
hers. A limit for each source address would not work: behind a node port, all customers come from the nodes' addresses.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from disk_agent.sshd.connections import Connection


@dataclass(frozen=True)
class Limits:
    """The limits on connections.

    Attributes:
        login_seconds: How long a client may take to log in.
        unauthenticated: How many connections without a login this node keeps.
        sessions: How many sessions one server keeps. A connection has as many as SFTP processes, and at least one.
    """

    login_seconds: float = 120
    unauthenticated: int = 150
    sessions: int = 20


@dataclass(frozen=True)
class Excess:
    """The connections to close, by the limit that they exceed."""

    timed_out: tuple[Connection, ...]
    unauthenticated: tuple[Connection, ...]
    sessions: tuple[Connection, ...]

    def __bool__(self) -> bool:
        return bool(self.timed_out or self.unauthenticated or self.sessions)


def excess(connections: Iterable[Connection], limits: Limits) -> Excess:
    """Decide which connections to close.

    Args:
        connections: All connections of this node, oldest first. If a server has too many sessions, the newest
            connections are closed that do not fit with all of theirs.
        limits: The limits to apply.
    """
    unauthenticated, timed_out = [], []
    sessions: dict[str | None, list[Connection]] = defaultdict(list)
    for connection in connections:
        if connection.logged_in:
            sessions[connection.server].append(connection)
        elif connection.age >= limits.login_seconds:
            timed_out.append(connection)
        else:
            unauthenticated.append(connection)
    return Excess(
        tuple(timed_out),
        tuple(_oldest_of_largest_group(unauthenticated, len(unauthenticated) - limits.unauthenticated)),
        tuple(connection for of_server in sessions.values() for connection in _beyond(of_server, limits.sessions)),
    )


def _beyond(connections: list[Connection], limit: int) -> Iterator[Connection]:
    """The connections that do not fit into a limit of sessions, when the oldest come first."""
    sessions = 0
    for connection in connections:
        count = max(1, connection.sessions)
        if sessions + count > limit:
            yield connection
        else:
            sessions += count


def _oldest_of_largest_group(unauthenticated: list[Connection], count: int) -> list[Connection]:
    """`count` connections, each the oldest of the server that has the most at that point."""
    groups: dict[str | None, deque[Connection]] = defaultdict(deque)
    for connection in unauthenticated:
        groups[connection.server].append(connection)
    return [max(groups.values(), key=len).popleft() for _ in range(count)]
