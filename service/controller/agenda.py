"""What a part of the controller has to look at, and when: a queue of keys by time, for several workers."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Hashable
from datetime import datetime
from itertools import count
from typing import Generic, NamedTuple, TypeVar

Key = TypeVar("Key", bound=Hashable)

LOOK_SECONDS = 1.0
"""How long a worker sleeps at most: the clock may be set meanwhile."""


class _Entry(NamedTuple):
    later: bool
    """Whether those that are urgent go before it."""
    when: datetime
    number: int


class Agenda(Generic[Key]):
    """Keys and the times at which to look at them. Thread-safe. A key is in the hands of one worker at a time.

    Args:
        clock: Returns the current time.
    """

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._numbers = count()
        self._entries: dict[Key, _Entry] = {}
        self._timed: list[tuple[datetime, int, Key]] = []
        self._ready: list[tuple[_Entry, Key]] = []
        self._in_hand: set[Key] = set()

    def put(self, key: Key, when: datetime, *, urgent: bool = False) -> None:
        """Look at `key` at `when`, or earlier if that was asked for; the urgent ones of those that are due go first."""
        with self._changed:
            entry = self._entries.get(key)
            if entry is not None and entry.when <= when and not (urgent and entry.later):
                return
            earliest = when if entry is None else min(when, entry.when)
            entry = self._entries[key] = _Entry(not urgent, earliest, next(self._numbers))
            self._push(key, entry)

    def take(self, *, wait: bool = True) -> Key | None:
        """The next key that is due, which is in the caller's hands until `done`.

        Waits until there is one; without `wait`, returns None if there is none.
        """
        with self._changed:
            while True:
                now = self._clock()
                self._sort(now)
                if (key := self._next()) is not None:
                    self._in_hand.add(key)
                    return key
                if not wait:
                    return None
                seconds = (self._timed[0][0] - now).total_seconds() if self._timed else LOOK_SECONDS
                self._changed.wait(min(max(seconds, 0.0), LOOK_SECONDS))

    def done(self, key: Key) -> None:
        """The caller has done with the key."""
        with self._changed:
            self._in_hand.discard(key)
            # It may have become due meanwhile.
            if (entry := self._entries.get(key)) is not None:
                self._push(key, entry)

    def waiting(self) -> int:
        """How many keys are due, and wait for a worker."""
        with self._changed:
            now = self._clock()
            return sum(entry.when <= now for entry in self._entries.values())

    def oldest(self) -> float:
        """For how many seconds the one that has waited longest has been due."""
        with self._changed:
            now = self._clock()
            first = min((entry.when for entry in self._entries.values()), default=now)
            return max(0.0, (now - first).total_seconds())

    def _push(self, key: Key, entry: _Entry) -> None:
        heapq.heappush(self._timed, (entry.when, entry.number, key))
        if len(self._timed) > 2 * len(self._entries) + 100:
            # Most of them no longer count, but would stay until their time.
            self._timed = [(entry.when, entry.number, key) for key, entry in self._entries.items()]
            heapq.heapify(self._timed)
        self._changed.notify()

    def _sort(self, now: datetime) -> None:
        while self._timed and self._timed[0][0] <= now:
            _, number, key = heapq.heappop(self._timed)
            entry = self._entries.get(key)
            if entry is not None and entry.number == number:
                heapq.heappush(self._ready, (entry, key))

    def _next(self) -> Key | None:
        while self._ready:
            entry, key = heapq.heappop(self._ready)
            # One that is in hand comes back with `done`.
            if self._entries.get(key) == entry and key not in self._in_hand:
                del self._entries[key]
                return key
        return None
