"""Strangers have two minutes, and never all of the door; of a server's sessions the newest go."""

from __future__ import annotations

import time

from disk_agent.sshd.connections import Connection
from disk_agent.sshd.limits import Limits, leaving

LIMITS = Limits(login_seconds=120, waiting=6, sessions=2)
TICKS = 100


def connection(number: int, server: str | None = None, *, logged_in: bool = False, age: float = 0) -> Connection:
    started = int((time.clock_gettime(time.CLOCK_BOOTTIME) - age) * TICKS)
    return Connection(number, started, server, logged_in, ())


def test_who_types_a_password_for_a_while_stays() -> None:
    assert not leaving([connection(1, "7", age=110), connection(2, None, age=110)], LIMITS)


def test_two_minutes_without_a_login_are_enough() -> None:
    late, in_time, session = (
        connection(1, "7", age=121),
        connection(2, age=1),
        connection(3, "7", logged_in=True, age=900),
    )
    assert leaving([session, late, in_time], LIMITS).late == (late,)


def test_a_crowd_that_names_nobody_loses_its_oldest() -> None:
    """And a customer at the password prompt stays, however long the crowd goes on coming."""
    typing = connection(1, "7", age=60)
    crowd = [connection(number, None, age=50 - number) for number in range(2, 12)]
    assert leaving([typing, *crowd], LIMITS).crowd == tuple(crowd[:5])


def test_a_crowd_at_one_server_loses_its_own() -> None:
    """Those who come to another server, or have not yet named theirs, stay."""
    crowd = [connection(number, "9", age=100 - number) for number in range(1, 20)]
    others = [connection(50, "7", age=110), connection(51, None, age=105), connection(52, "8", age=1)]
    assert leaving([*others[:2], *crowd, others[2]], LIMITS).crowd == tuple(crowd[:16])


def test_of_a_servers_sessions_the_newest_go_and_strangers_are_none() -> None:
    """Whoever knocks in a server's name without logging in takes none of its sessions away."""
    hers = [connection(number, "7", logged_in=True, age=100 - number) for number in range(1, 5)]
    knocking = [connection(number, "7", age=10) for number in (10, 11, 12)]
    found = leaving([*hers, *knocking, connection(20, "8", logged_in=True)], LIMITS)
    assert (found.surplus, found.crowd) == (tuple(hers[2:]), ())
