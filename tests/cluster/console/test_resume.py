"""A client that follows a log gets each line once, whatever dies meanwhile; what Kubernetes has no more is told."""

from __future__ import annotations

import contextlib
import random
import time
from threading import Thread

import pytest

from service.logs.entries import GAP
from tests.cluster.console.talking import Replicas, create, order
from tests.cluster.controller.place import Place
from tests.support.followers import Reader, shown
from tests.support.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.own_namespace]

LINES = 10_000
AGAIN = "the game has started again"


def numbers(reader: Reader) -> list[int]:
    """The numbers of the numbered lines that the client has got."""
    return [int(text.split()[1]) for text in reader.texts() if text.startswith("line ")]


def gaps(reader: Reader) -> int:
    """How often it was told that lines are missing."""
    return sum(note == GAP for note, _ in reader.notes)


def until_got(reader: Reader, number: int, place: Place, seconds: float = 60) -> None:
    """Wait until the client has got the line with this number."""

    def got() -> bool:
        return number in numbers(reader)[-500:]

    until(got, seconds, lambda: f"{reader.texts()[-3:]} {reader.notes} {place.logged()[-3000:]}")


@pytest.mark.long
def test_a_killed_replica_loses_no_line(place: Place) -> None:
    """10,000 numbered lines, while the replica that serves the client is killed again and again."""
    create(place, 32)
    kills = 0
    with Replicas(place, 3) as replicas:
        reader = Reader(replicas.urls, 32)
        reader.start()
        until(lambda: reader.lines, 30, place.logged)
        counting = {"do": "count", "from": 1, "to": LINES, "rate": 100}
        writing = Thread(target=order, args=(place, 32, 300), kwargs=counting)
        writing.start()
        while writing.is_alive():
            time.sleep(random.Random(kills).uniform(3, 9))
            breaks, number = reader.breaks, reader.at
            replicas.kill(number)
            kills += 1
            replicas.start_again(number)
            until(lambda breaks=breaks: reader.breaks > breaks, 60)  # type: ignore[misc]
        writing.join()
        until_got(reader, LINES, place)
        reader.stopped.set()
    shown(lines=len(numbers(reader)), kills=kills, breaks=reader.breaks, notes=reader.notes)
    assert numbers(reader) == list(range(1, LINES + 1))
    assert len({id for id, _ in reader.lines}) == len(reader.lines)
    assert gaps(reader) == 0
    assert kills >= 3


def test_a_crash_of_the_game_loses_no_line(place: Place) -> None:
    """Its last lines come, then that it has started again, and then the lines of its next run; also to one who was away
    meanwhile."""
    create(place, 33)
    reader = Reader([place.api.url], 33)
    reader.start()
    until(lambda: reader.lines, 30, place.logged)
    order(place, 33, do="count", **{"from": 1, "to": 2000, "rate": 100_000})
    until_got(reader, 2000, place)
    early = Reader([place.api.url], 33)
    early.lines = reader.lines[:500]
    with contextlib.suppress(OSError):
        order(place, 33, do="die")
    until(lambda: AGAIN in [note for note, _ in reader.notes], 60, place.logged)
    order(place, 33, do="count", **{"from": 2001, "to": 3000, "rate": 100_000})
    until_got(reader, 3000, place)
    early.start()
    until_got(early, 3000, place)
    for each in (reader, early):
        each.stopped.set()
        assert numbers(each) == list(range(1, 3001)), each.notes
        assert gaps(each) == 0
        assert [note for note, _ in each.notes] == [AGAIN]


@pytest.mark.long
def test_a_rotated_log_loses_no_line(place: Place) -> None:
    """The kubelet begins a new file every 10 MiB. One who follows misses nothing; one who comes back is told."""
    create(place, 34)
    reader = Reader([place.api.url], 34)
    reader.start()
    until(lambda: reader.lines, 30, place.logged)
    # 120 KiB a second for two minutes.
    counting = {"from": 1, "to": LINES, "rate": 80, "padding": " " + "x" * 1500}
    writing = Thread(target=order, args=(place, 34, 300), kwargs={"do": "count", **counting})
    writing.start()
    writing.join()
    until_got(reader, LINES, place)
    late = Reader([place.api.url], 34)
    late.lines = [line for line in reader.lines if line[1].startswith("line 1 ")]
    late.start()
    until_got(late, LINES, place)
    for each in (reader, late):
        each.stopped.set()
    shown(lines=len(numbers(reader)), notes=reader.notes, late=len(numbers(late)), late_notes=late.notes)
    assert numbers(reader) == list(range(1, LINES + 1))
    assert gaps(reader) == 0
    assert gaps(late) == 1
    assert numbers(late)[-100:] == list(range(LINES - 99, LINES + 1))
