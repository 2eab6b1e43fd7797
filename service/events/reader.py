"""Reads the log of events, from a watch of its segments in memory."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Callable

from service.events.event import Event, dropped
from service.events.segments import MAX_EVENTS, events_of
from service.kube.times import now
from service.records.store import Record, RecordStore


def _every(event: Event) -> bool:
    return True


class EventReader:
    """The newest events in memory. Thread-safe. Nothing here sends a request.

    Args:
        store: The records of the kind `segments.KIND`.
    """

    def __init__(self, store: RecordStore) -> None:
        self._watch = store.watch(self._read)
        self._changed = threading.Condition()
        # By position. A list is never changed once readers have it.
        self._events: list[Event] = []
        self._newest = 0

    def start(self) -> None:
        """Start the watch. Idempotent."""
        self._watch.start()

    def wait(self, seconds: float) -> bool:
        """Wait up to `seconds` for the first list; returns whether it is complete."""
        return self._watch.wait(seconds)

    def lost_for(self) -> float:
        """For how many seconds the watch has been interrupted; 0 while it works."""
        return self._watch.lost_for()

    @property
    def newest(self) -> int:
        """The position of the newest event; 0 before the first."""
        return self._newest

    @property
    def beginning(self) -> int:
        """The position before the oldest event: `after(beginning, …)` begins with that event."""
        events = self._events
        return events[0].position - 1 if events else self._newest

    def after(self, position: int, limit: int, wanted: Callable[[Event], bool] = _every) -> tuple[list[Event], int]:
        """The events after a position, oldest first.

        If the log no longer has all of them, the first is one of the type `dropped`, whatever is wanted. It is not in
        the log itself. Its position is that of the last event that was dropped.

        Args:
            position: The position up to which the caller has all events.
            limit: How many events to return at most.
            wanted: Which events to return.

        Returns:
            The events, and the position to ask from next time: every wanted event up to there has been returned.
            Without any new event it is `position` itself, even if that is beyond the newest event.
        """
        events = self._events
        if not events or position >= events[-1].position:
            return [], position
        found = []
        beginning = events[0].position - 1
        if position < beginning:
            found.append(dropped(position, beginning, now()))
            position = beginning
        for event in events[bisect_right(events, position, key=_position) :]:
            if len(found) >= limit:
                break
            if wanted(event):
                found.append(event)
            position = event.position
        return found, position

    def wait_beyond(self, position: int, seconds: float) -> bool:
        """Wait up to `seconds` for an event after `position`; returns whether there is one."""
        with self._changed:
            return self._changed.wait_for(lambda: self._newest > position, seconds)

    def _read(self, segment: Record, deleted: bool) -> None:
        """Take what a segment has; the watch calls this with each that it receives, in the order of their changes."""
        with self._changed:
            if deleted:
                gone = {int(key) for key in segment.data if key.isdecimal()}
                self._events = [event for event in self._events if event.position not in gone]
                # Without any segment, the log begins again.
                self._newest = self._newest if self._events else 0
                return
            new = events_of(segment.data, self._newest)
            if new:
                self._events = [*self._events, *new][-MAX_EVENTS:]
                self._newest = new[-1].position
                self._changed.notify_all()


def _position(event: Event) -> int:
    return event.position
