"""The log's segments: its records in Kubernetes, as names and keys. Pure.

A segment is a record whose keys are the positions of its events. A segment that takes no more events says so with a key
of its own, written together with its last events; only then is there a next one.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from service.events.event import Event, read

log = logging.getLogger(__name__)

KIND = "events"
"""The kind of the records."""
CLOSED = "closed"
"""The key of a segment that takes no more events."""
LARGEST = 32 * 1024
"""A segment with this many bytes is closed."""
MAX_EVENTS = 10_000
"""The log has the newest events up to this number."""
MAX_BYTES = 16 * 2**20
"""All segments together have at most this many bytes."""


def segment_name(number: int) -> str:
    """The name of a segment's record; names sort as numbers do."""
    return f"{number:012}"


def key_of(position: int) -> str:
    """The key of an event in its segment."""
    return f"{position:012}"


def size_of(data: Mapping[str, str]) -> int:
    """How many bytes a segment has."""
    return sum(len(key) + len(text.encode()) for key, text in data.items())


def events_of(data: Mapping[str, str], after: int = 0) -> list[Event]:
    """A segment's events after a position, in order; what is not an event is left out and logged."""
    events = []
    for key in sorted(key for key in data if key.isdecimal() and int(key) > after):
        try:
            events.append(read(int(key), data[key]))
        except ValueError as error:
            log.warning("event %s of the log is left out: %s", key, error)
    return events
