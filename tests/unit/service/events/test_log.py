"""The log of events: its writer and its readers."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest

from service.errors import ClusterUnavailable
from service.events.event import Event, event_id, read, written
from service.events.log import LONGEST_EVENT, EventLog
from service.events.reader import EventReader
from service.events.segments import CLOSED, KIND, LARGEST, events_of, size_of
from service.kube.client import Conflict
from service.records.store import RecordStore
from tests.support.memory_kube import LabelledKube
from tests.support.waiting import until


def event(number: int, uid: str = "u", **more: Any) -> Event:
    fields: dict[str, Any] = {"data": {"reason": "x" * 100}, **more}
    return Event(event_id(uid, number), "running", "2026-11-27T04:00:00Z", 1, uid, "acme", **fields)


@pytest.fixture
def kube() -> LabelledKube:
    return LabelledKube()


@pytest.fixture
def store(kube: LabelledKube) -> RecordStore:
    return RecordStore(kube, "gameservers", KIND)


def opened(store: RecordStore) -> EventLog:
    log = EventLog(store)
    log.open()
    return log


def stored(store: RecordStore) -> list[Event]:
    return [each for record in store.all() for each in events_of(record.data)]


def test_an_event_is_read_as_it_was_written() -> None:
    """Its position is the key."""
    one = replace(event(1, data={"reason": "Überlastet ✓", "exit_code": None}), number=3, position=7)
    assert read(7, written(one)) == one


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"id": 1}', "null", "[" * 100_000])
def test_what_is_no_event_is_refused(text: str) -> None:
    """Somebody may have written in the record by hand."""
    with pytest.raises(ValueError, match="not an event"):
        read(1, text)


def test_numbers_count_a_servers_events_and_positions_all(store: RecordStore) -> None:
    """Both without gaps, also after another has opened the log."""
    opened(store).append([event(1), event(1, "v"), event(2)], {})
    opened(store).append([event(3), event(2, "v")], {})
    assert [(each.uid, each.number, each.position) for each in stored(store)] == [
        ("u", 1, 1), ("v", 1, 2), ("u", 2, 3), ("u", 3, 4), ("v", 2, 5)
    ]  # fmt: skip


def test_an_event_is_written_once(store: RecordStore) -> None:
    """Whoever adds it, and however often."""
    assert len(opened(store).append([event(1), event(1)], {})) == 1
    assert opened(store).append([event(1), event(2)], {}) == [stored(store)[1]]
    assert len(stored(store)) == 2


def test_numbers_go_on_after_the_log_has_forgotten_a_server(store: RecordStore) -> None:
    """Its last number is saved apart."""
    [new] = opened(store).append([event(1)], {"u": 41})
    assert new.number == 42


def test_a_segment_that_is_full_is_closed(store: RecordStore) -> None:
    """Before there is a next one. No segment has more than 32 KiB, and none is lost between two of them."""
    log = opened(store)
    for start in range(0, 300, 7):
        log.append([event(number) for number in range(start, start + 7)], {})
    segments = store.all()
    assert len(segments) > 2
    assert [CLOSED in segment.data for segment in segments] == [True] * (len(segments) - 1) + [False]
    assert all(size_of(segment.data) <= LARGEST + len(CLOSED) + 4 + 30 for segment in segments)
    assert [each.position for each in stored(store)] == list(range(1, 302))
    assert (log.count, log.size) == (301, sum(size_of(segment.data) for segment in segments))


def test_an_earlier_writer_is_refused(store: RecordStore) -> None:
    """From the moment on in which another has opened the log, also where it would begin a segment."""
    earlier = opened(store)
    earlier.append([event(1)], {})
    later = opened(store)
    with pytest.raises(Conflict):
        earlier.append([event(2)], {})
    with pytest.raises(Conflict):
        earlier.append([event(number) for number in range(10, 200)], {})
    later.append([event(3)], {})
    assert [each.id for each in stored(store)] == [event(1).id, event(3).id]


def test_a_writer_that_dies_between_two_segments_leaves_a_log_that_goes_on(
    kube: LabelledKube, store: RecordStore
) -> None:
    """The next one creates the segment that is missing."""
    log = opened(store)

    def refuse(method: str, path: str) -> None:
        if method == "POST":
            raise ClusterUnavailable

    kube.before = refuse
    with pytest.raises(ClusterUnavailable):
        log.append([event(number) for number in range(200)], {})
    kube.back()
    assert CLOSED in store.all()[-1].data
    opened(store).append([event(number) for number in range(200)], {})
    assert [each.id for each in stored(store)] == [event(number).id for number in range(200)]


def test_the_log_has_the_newest_events(store: RecordStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """It drops whole segments, and never more than it must."""
    monkeypatch.setattr("service.events.log.MAX_EVENTS", 500)
    log = opened(store)
    for start in range(0, 2000, 50):
        log.append([event(number) for number in range(start, start + 50)], {})
    assert 500 <= log.count == len(stored(store)) < 700
    assert stored(store)[-1].position == 2000
    assert not log.has(event(0).id)
    assert log.has(event(1999).id)


def test_the_log_is_bounded_in_bytes(store: RecordStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """However few events that are."""
    monkeypatch.setattr("service.events.log.MAX_BYTES", 100_000)
    log = opened(store)
    log.append([event(number, data={"reason": "x" * 1000}) for number in range(300)], {})
    assert log.size == sum(size_of(segment.data) for segment in store.all()) <= 100_000


def test_an_event_that_is_too_long_is_left_out(store: RecordStore) -> None:
    """A uid or a customer that somebody has written by hand must not stop the log."""
    log = opened(store)
    assert log.append([event(1, data={"reason": "x" * LONGEST_EVENT}), event(2)], {}) == stored(store)
    assert [each.number for each in stored(store)] == [1]


def test_a_reader_follows(store: RecordStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """It wakes who waits, and forgets what the log has dropped."""
    monkeypatch.setattr("service.events.log.MAX_EVENTS", 200)
    log = opened(store)
    log.append([event(1)], {})
    reader = EventReader(store)
    reader.start()
    assert reader.wait(10)
    until(lambda: reader.newest == 1)
    assert not reader.wait_beyond(1, 0.05)
    writer = threading.Timer(0.2, lambda: log.append([event(2)], {}))
    writer.start()
    assert reader.wait_beyond(1, 10)
    writer.join()
    assert reader.after(0, 10) == (stored(store), 2)
    assert reader.after(1, 10)[0] == stored(store)[1:]
    assert reader.after(7, 10) == ([], 7)
    for start in range(10, 1000, 50):
        log.append([event(number) for number in range(start, start + 50)], {})
    oldest = stored(store)[0].position
    until(lambda: reader.beginning == oldest - 1 and reader.newest == log.count + oldest - 1)
    [dropped, first], position = reader.after(2, 2)
    assert (dropped.type, dropped.position, dropped.data["events"]) == ("dropped", oldest - 1, oldest - 3)
    assert (first.position, position) == (oldest, oldest)


def test_a_reader_begins_again_with_the_log(store: RecordStore) -> None:
    """After somebody has deleted all of it."""
    log = opened(store)
    log.append([event(1), event(2)], {})
    reader = EventReader(store)
    reader.start()
    until(lambda: reader.newest == 2)
    for record in store.all():
        store.delete(record)
    until(lambda: reader.newest == 0)
    opened(store).append([event(3)], {})
    until(lambda: reader.newest == 1)
    assert [each.id for each in reader.after(0, 10)[0]] == [event(3).id]
