"""Slows down password guessing, for each server separately. Pure: times are passed in.

The client's address is hidden behind the node port, so a limit per source would hit everybody who comes through the
same node. Instead, each server has a bucket of guesses. When it is empty, the server's passwords are closed (its keys
are not) until the bucket holds a guess again.
"""

from __future__ import annotations


class Guesses:
    """Wrong passwords so far, by server id.

    Args:
        burst: How many guesses a full bucket holds.
        seconds_per_guess: How long it takes until a bucket holds one more guess.
    """

    def __init__(self, burst: int, seconds_per_guess: float) -> None:
        self._burst = burst
        self._seconds = seconds_per_guess
        # When each server's bucket is full again.
        self._full_at: dict[str, float] = {}
        self._closed: frozenset[str] = frozenset()

    def failed(self, server: str, now: float) -> bool:
        """Count one wrong password; returns whether that closes the server's passwords.

        Attempts while they are closed do not count: they would keep the customer out forever.
        """
        if server in self._closed or server in self.slowed(now):
            return False
        self._full_at[server] = self._full_at.get(server, now) + self._seconds
        return server in self.slowed(now)

    def slowed(self, now: float) -> frozenset[str]:
        """The servers whose bucket holds no whole guess at this time."""
        self._full_at = {server: full for server, full in self._full_at.items() if full > now}
        closed = (self._burst - 1) * self._seconds
        return frozenset(server for server, full in self._full_at.items() if full - now > closed)

    def applied(self, slowed: frozenset[str]) -> None:
        """Note that sshd now refuses every password of exactly these servers.

        sshd learns that a bucket holds a guess again a little later than this class, and passwords that it refuses
        until then were no guesses.
        """
        self._closed = slowed

    def next_opening(self, now: float) -> float | None:
        """Seconds until the first closed server opens again; None if none is closed."""
        closed = (self._burst - 1) * self._seconds
        waits = [full - now - closed for server, full in self._full_at.items() if server in self.slowed(now)]
        return max(0.0, min(waits)) if waits else None
