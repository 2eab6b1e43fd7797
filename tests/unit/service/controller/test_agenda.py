"""The queue of what the controller looks at."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

from service.controller.agenda import Agenda

NOW = datetime(2026, 6, 1, 4, tzinfo=UTC)


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def test_keys_come_when_they_are_due() -> None:
    """In the order of their times, and those that are urgent first."""
    clock = Clock()
    agenda: Agenda[str] = Agenda(clock)
    agenda.put("second", later(2))
    agenda.put("first", later(1))
    assert (agenda.take(wait=False), agenda.waiting(), agenda.oldest()) == (None, 0, 0)
    clock.now = later(5)
    agenda.put("urgent", later(5), urgent=True)
    assert (agenda.waiting(), agenda.oldest()) == (3, 4)
    assert [agenda.take(wait=False) for _ in range(4)] == ["urgent", "first", "second", None]


def test_the_earliest_time_counts() -> None:
    """A key is looked at once for several reasons."""
    clock = Clock()
    agenda: Agenda[str] = Agenda(clock)
    for seconds in (9, 1, 5):
        agenda.put("a", later(seconds))
    clock.now = later(1)
    assert (agenda.take(wait=False), agenda.take(wait=False)) == ("a", None)
    clock.now = later(60)
    assert agenda.take(wait=False) is None


def test_a_key_is_in_one_workers_hands() -> None:
    """What becomes due meanwhile comes after `done`, once."""
    agenda: Agenda[str] = Agenda(Clock())
    agenda.put("a", NOW)
    assert agenda.take(wait=False) == "a"
    agenda.put("a", NOW)
    agenda.put("a", NOW, urgent=True)
    assert agenda.take(wait=False) is None
    agenda.done("a")
    assert (agenda.take(wait=False), agenda.take(wait=False)) == ("a", None)
    agenda.done("a")
    assert agenda.take(wait=False) is None


def test_what_no_longer_counts_takes_no_room() -> None:
    """Keys that are looked at every minute, long before their time, as schedules are."""
    clock = Clock()
    agenda: Agenda[int] = Agenda(clock)
    for key in range(10):
        agenda.put(key, later(3600 * (key + 1)))
    for minute in range(1, 59):
        clock.now = later(60 * minute)
        for key in range(10):
            agenda.put(key, clock.now)
            assert agenda.take(wait=False) == key
            agenda.put(key, later(3600 * (key + 1)))
            agenda.done(key)
    assert len(agenda._timed) <= 2 * 10 + 100
    assert agenda.take(wait=False) is None
    clock.now = later(36000)
    assert [agenda.take(wait=False) for _ in range(11)] == [*range(10), None]


def test_a_worker_waits_until_something_is_due() -> None:
    """And is woken by it."""
    agenda: Agenda[str] = Agenda(Clock())
    found: list[str | None] = []
    worker = threading.Thread(target=lambda: found.append(agenda.take()))
    worker.start()
    agenda.put("a", NOW)
    worker.join(5)
    assert found == ["a"]
