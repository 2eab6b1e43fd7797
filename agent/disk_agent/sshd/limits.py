"""Who has to go: strangers who do not log in, and sessions beyond a server's own. Pure.

A stranger has two minutes, as with any OpenSSH: people compare fingerprints and look passwords up. What keeps
the door open for customers is that strangers never get all of it: of connections without a login only so many
stay, and when there are more, the server (or the crowd that has named none) with the most of them loses its
oldest. So whoever floods the door loses his own, and a customer who is typing a password at another server keeps
hers. Limits for each source would not do: behind a node port all customers come from the nodes' own addresses.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass

from disk_agent.sshd.connections import Connection


@dataclass(frozen=True)
class Limits:
    """login_seconds: to log in; waiting: connections without a login on this node; sessions: of one server."""

    login_seconds: float = 120
    waiting: int = 150
    sessions: int = 20


@dataclass(frozen=True)
class Leaving:
    """The connections to end, by the reason."""

    late: tuple[Connection, ...]
    crowd: tuple[Connection, ...]
    surplus: tuple[Connection, ...]

    def __bool__(self) -> bool:
        return bool(self.late or self.crowd or self.surplus)


def leaving(connections: Iterable[Connection], limits: Limits) -> Leaving:
    """Decide, from all connections, the oldest first. Of a server's sessions the newest go."""
    waiting, late = [], []
    sessions: dict[str | None, list[Connection]] = defaultdict(list)
    for one in connections:
        if one.logged_in:
            sessions[one.server].append(one)
        elif one.age >= limits.login_seconds:
            late.append(one)
        else:
            waiting.append(one)
    surplus = (one for found in sessions.values() for one in found[limits.sessions :])
    return Leaving(tuple(late), tuple(_crowd(waiting, len(waiting) - limits.waiting)), tuple(surplus))


def _crowd(waiting: list[Connection], count: int) -> list[Connection]:
    groups: dict[str | None, deque[Connection]] = defaultdict(deque)
    for one in waiting:
        groups[one.server].append(one)
    return [max(groups.values(), key=len).popleft() for _ in range(count)]
