"""Slows the guessing of passwords, for each server by itself. Pure: times come in as arguments.

The client's address is hidden behind the node port, so a limit for each source would hit everybody who comes
through the same node. A server has a bucket of tries instead; empty, its passwords are closed (keys are not)
until a new try has dripped in.
"""

from __future__ import annotations


class Guesses:
    """Wrong passwords so far, by server."""

    def __init__(self, burst: int, seconds_per_guess: float) -> None:
        self._burst = burst
        self._seconds = seconds_per_guess
        # The time at which a server's bucket is full again.
        self._full_at: dict[str, float] = {}
        self._closed: frozenset[str] = frozenset()

    def failed(self, server: str, now: float) -> bool:
        """Count one wrong password; true when that closes the server's passwords.

        What is tried while they are closed does not count: it would keep the customer out for good.
        """
        if server in self._closed or server in self.slowed(now):
            return False
        self._full_at[server] = self._full_at.get(server, now) + self._seconds
        return server in self.slowed(now)

    def slowed(self, now: float) -> frozenset[str]:
        """The servers whose bucket holds no whole try at this time."""
        self._full_at = {server: full for server, full in self._full_at.items() if full > now}
        closed = (self._burst - 1) * self._seconds
        return frozenset(server for server, full in self._full_at.items() if full - now > closed)

    def applied(self, slowed: frozenset[str]) -> None:
        """From now on sshd refuses every password of these servers, and of no others.

        It learns a little later than the clock that a try has dripped in, and what it refuses until then was no guess.
        """
        self._closed = slowed

    def next_opening(self, now: float) -> float | None:
        """Seconds until the first closed server opens again; None when none is closed."""
        closed = (self._burst - 1) * self._seconds
        waits = [full - now - closed for server, full in self._full_at.items() if server in self.slowed(now)]
        return max(0.0, min(waits)) if waits else None
