"""Writes the log of events: only the active controller does.

A write names the version of the segment that it changes. A new controller first touches the newest segment, so what an
earlier one may still have on its way comes too late. There is a next segment only once the one before is closed, so
this holds for a new segment too.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from service.errors import ClusterUnavailable
from service.events.event import Event, written
from service.events.segments import CLOSED, LARGEST, MAX_BYTES, MAX_EVENTS, events_of, key_of, segment_name, size_of
from service.records.store import Record, RecordStore

log = logging.getLogger(__name__)

LONGEST_EVENT = 12 * 1024
_TOUCHED = "touched"
"""The key with which a new controller touches the newest segment."""


@dataclass(frozen=True)
class _Segment:
    """A segment without its events: their ids, and how many bytes it has."""

    record: Record
    ids: tuple[str, ...]
    size: int


class EventLog:
    """The log, as its only writer sees it. Not thread-safe.

    Every method may raise ClusterUnavailable, and Conflict if another has written: then `open` has to be called again.

    Args:
        store: The records of the kind `segments.KIND`.
    """

    def __init__(self, store: RecordStore) -> None:
        self._store = store
        self._segments: deque[_Segment] = deque()
        self._ids: set[str] = set()
        self._numbers: dict[str, int] = {}
        self._position = 0

    def open(self) -> None:
        """Read the log, and keep all earlier writers from writing to it."""
        records = self._store.all()
        if not records or CLOSED in records[-1].data:
            records.append(self._store.create(_next_name(records), {}))
        records[-1] = self._store.change(records[-1], {_TOUCHED: str(time.time_ns())})
        self._segments = deque(_segment(record) for record in records)
        self._ids = {id for segment in self._segments for id in segment.ids}
        self._numbers = {}
        self._position = 0
        for record in records:
            for event in events_of(record.data):
                self._numbers[event.uid] = event.number
                self._position = event.position

    def has(self, id: str) -> bool:
        """Whether the log has the event with this id."""
        return id in self._ids

    def number(self, uid: str) -> int:
        """The number of the server's last event in the log; 0 if it has none of that server."""
        return self._numbers.get(uid, 0)

    @property
    def count(self) -> int:
        """How many events the log has."""
        return len(self._ids)

    @property
    def size(self) -> int:
        """How many bytes all segments have."""
        return sum(segment.size for segment in self._segments)

    def append(self, events: Sequence[Event], numbers: Mapping[str, int]) -> list[Event]:
        """Write events at the end of the log, apart from those that it has.

        Args:
            events: The events, oldest first.
            numbers: The number of each server's last event, for servers of which the log has none.

        Returns:
            What was written, with numbers and positions.
        """
        new: list[Event] = []
        last = dict(numbers)
        seen: set[str] = set()
        for event in events:
            if event.id in self._ids or event.id in seen:
                continue
            if len(written(event).encode()) > LONGEST_EVENT:
                # Its texts come from an annotation that somebody has written by hand.
                log.error("an event of the type %s at server %d is left out: it is too long", event.type, event.server)
                continue
            seen.add(event.id)
            last[event.uid] = number = max(last.get(event.uid, 0), self.number(event.uid)) + 1
            new.append(replace(event, number=number, position=self._position + len(new) + 1))
        rest = deque(new)
        while rest:
            self._fill(rest)
        self._drop()
        return new

    def _fill(self, rest: deque[Event]) -> None:
        """Write as many events as the newest segment takes; if there are more, close it and create the next."""
        segment = self._segments[-1]
        size, data, taken = segment.size, dict[str, str](), list[Event]()
        while rest:
            key, text = key_of(rest[0].position), written(rest[0])
            size += len(key) + len(text.encode())
            if size > LARGEST:
                break
            data[key] = text
            taken.append(rest.popleft())
        if rest:
            data[CLOSED] = "true"
        self._segments[-1] = self._changed(segment, data, taken)
        if rest:
            created = self._created(segment_name(int(segment.record.name) + 1))
            self._segments.append(_segment(created))

    def _changed(self, segment: _Segment, data: Mapping[str, str], events: Sequence[Event]) -> _Segment:
        try:
            record = self._store.change(segment.record, data)
        except ClusterUnavailable:
            # It may have been written all the same.
            record = self._found(segment.record.name, data)
        for event in events:
            self._ids.add(event.id)
            self._numbers[event.uid] = event.number
            self._position = event.position
        return _segment(record)

    def _created(self, name: str) -> Record:
        try:
            return self._store.create(name, {})
        except ClusterUnavailable:
            return self._found(name, {})

    def _found(self, name: str, data: Mapping[str, str]) -> Record:
        """The segment, if it has this data; otherwise raises ClusterUnavailable."""
        record = self._store.get(name)
        if record is None or not data.items() <= record.data.items():
            raise ClusterUnavailable
        return record

    def _drop(self) -> None:
        """Delete the oldest segments that the log does not need."""
        while len(self._segments) > 1:
            oldest = self._segments[0]
            if self.count - len(oldest.ids) < MAX_EVENTS and self.size <= MAX_BYTES:
                return
            self._store.delete(oldest.record)
            self._segments.popleft()
            self._ids.difference_update(oldest.ids)


def _segment(record: Record) -> _Segment:
    ids = tuple(event.id for event in events_of(record.data))
    return _Segment(replace(record, data={}), ids, size_of(record.data))


def _next_name(records: Iterable[Record]) -> str:
    return segment_name(max((int(record.name) for record in records), default=0) + 1)
