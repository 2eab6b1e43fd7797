"""Clients have two minutes to log in; floods lose their own connections, and too many sessions the newest."""

from __future__ import annotations

import time

from disk_agent.sshd.connections import Connection, Process
from disk_agent.sshd.limits import Limits, excess

LIMITS = Limits(login_seconds=120, unauthenticated=6, sessions=2)
TICKS_PER_SECOND = 100


def connection(
    pid: int, server: str | None = None, *, logged_in: bool = False, age: float = 0, sessions: int = 0
) -> Connection:
    start_ticks = int((time.clock_gettime(time.CLOCK_BOOTTIME) - age) * TICKS_PER_SECOND)
    title = f"sshd: server-{server}@internal-sftp".encode()
    processes = tuple(Process(1000 * pid + number, pid, start_ticks, 1000, title) for number in range(sessions))
    return Connection(pid, start_ticks, server, logged_in, processes)


def test_a_client_may_take_its_time_to_log_in() -> None:
    assert not excess([connection(1, "7", age=110), connection(2, None, age=110)], LIMITS)


def test_after_two_minutes_without_a_login_a_connection_is_closed() -> None:
    late, in_time, session = (
        connection(1, "7", age=121),
        connection(2, age=1),
        connection(3, "7", logged_in=True, age=900),
    )
    assert excess([session, late, in_time], LIMITS).timed_out == (late,)


def test_a_flood_that_names_no_server_loses_its_oldest() -> None:
    """A customer at the password prompt stays, however long the flood continues."""
    typing = connection(1, "7", age=60)
    flood = [connection(number, None, age=50 - number) for number in range(2, 12)]
    assert excess([typing, *flood], LIMITS).unauthenticated == tuple(flood[:5])


def test_a_flood_at_one_server_loses_its_own_connections() -> None:
    """Connections to other servers stay, and those that have not named one yet."""
    flood = [connection(number, "9", age=100 - number) for number in range(1, 20)]
    others = [connection(50, "7", age=110), connection(51, None, age=105), connection(52, "8", age=1)]
    assert excess([*others[:2], *flood, others[2]], LIMITS).unauthenticated == tuple(flood[:16])


def test_a_server_with_too_many_sessions_loses_its_newest() -> None:
    """Connections without a login do not count as sessions."""
    sessions = [connection(number, "7", logged_in=True, age=100 - number) for number in range(1, 5)]
    connecting = [connection(number, "7", age=10) for number in (10, 11, 12)]
    closing = excess([*sessions, *connecting, connection(20, "8", logged_in=True)], LIMITS)
    assert (closing.sessions, closing.unauthenticated) == (tuple(sessions[2:]), ())


def test_sessions_in_one_connection_count_each() -> None:
    """The newest connections lose theirs, all of them at once; one without a session yet counts as one."""
    limits = Limits(sessions=5)
    open_connections = [
        connection(number, "7", logged_in=True, age=100 - number, sessions=sessions)
        for number, sessions in enumerate((1, 3, 2, 0, 1))
    ]
    other = connection(20, "8", logged_in=True, sessions=5)
    closing = excess([*open_connections, other], limits)
    assert closing.sessions == (open_connections[2], open_connections[4])
    assert not excess([*open_connections[:2], open_connections[3], other], limits)
