"""How far the deliveries of a webhook are, as its record keeps it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from service.records.store import LARGEST
from service.webhooks.deliveries import (
    FAILING_TRIES,
    MOST_TRIES,
    MOST_WAITING,
    Deliveries,
    Try,
    Waiting,
    excerpt,
    read,
    written,
)
from service.webhooks.retries import LONGEST
from service.webhooks.sender import Result

NOW = 1_790_000_000.0
MADE = Try("id", "crashed", 4711, 1, "2026-11-27T12:00:00Z", "refused", 500, "The answer was 500.", "no", 12, None)
FAILED, DELIVERED = Result("refused", 500), Result("delivered", 204)


def note(known: Deliveries, waiting: Waiting, result: Result, now: float = NOW) -> str:
    return known.note(MADE, result, waiting, now, 0.0)


def test_what_fails_waits_until_it_is_delivered() -> None:
    """Each try is kept with when the next one is due."""
    known = Deliveries(starts=1, cursor=7)
    assert note(known, Waiting(7, 0, 0, NOW), FAILED) == "waiting"
    assert known.waiting == {7: Waiting(7, 1, NOW + 5, NOW)}
    assert known.tries[0].next == "2026-09-21T14:13:25Z"
    assert note(known, known.waiting[7], FAILED, NOW + 5) == "waiting"
    assert known.waiting == {7: Waiting(7, 2, NOW + 35, NOW)}
    assert (known.failures, known.first_due()) == (2, Waiting(7, 2, NOW + 35, NOW))
    assert note(known, known.waiting[7], DELIVERED, NOW + 35) == "delivered"
    assert (known.waiting, known.failures, known.first_due()) == ({}, 0, None)
    assert [one.next is None for one in known.tries] == [True, False, False]


def test_after_a_day_it_is_given_up() -> None:
    """With the try that is made then."""
    known = Deliveries()
    assert note(known, Waiting(7, 11, NOW + LONGEST, NOW), FAILED, NOW + LONGEST) == "given-up"
    assert known.waiting == {}


def test_the_receiver_decides_when() -> None:
    """By Retry-After, up to an hour."""
    known = Deliveries()
    note(known, Waiting(7, 0, 0, NOW), Result("refused", 429, retry_after="60"))
    note(known, Waiting(8, 0, 0, NOW), Result("refused", 503, retry_after="Mon, 21 Sep 2026 15:33:20 GMT"))
    assert [one.due - NOW for one in known.waiting.values()] == [60, 3600]


def test_410_ends_it() -> None:
    """Nothing waits any more. Only when the webhook is enabled anew does it begin, from there."""
    known = Deliveries(starts=1, cursor=9, waiting={5: Waiting(5, 1, NOW, NOW)})
    assert note(known, Waiting(9, 0, 0, NOW), Result("refused", 410)) == "ended"
    assert (known.waiting, known.ended) == ({}, "The receiver answered 410: it wants no more events.")
    known.begin(1, 20)
    assert (known.cursor, bool(known.ended)) == (9, True)
    known.begin(2, 20)
    assert (known.cursor, known.ended, known.failures, len(known.tries)) == (20, "", 0, 1)


def test_a_receiver_that_is_back_gets_what_waits_at_once() -> None:
    """After some failures in a row; a single event that always fails is not hurried by the others."""
    waiting = {position: Waiting(position, 5, NOW + 3600, NOW) for position in (1, 2)}
    known = Deliveries(waiting=dict(waiting), failures=FAILING_TRIES - 1)
    note(known, Waiting(3, 0, 0, NOW), DELIVERED)
    assert known.waiting == waiting
    known.failures = FAILING_TRIES
    note(known, Waiting(4, 0, 0, NOW), DELIVERED, NOW + 1)
    assert known.waiting == {position: replace(one, due=NOW + 1) for position, one in waiting.items()}


def test_a_test_that_is_delivered_says_that_the_receiver_is_back() -> None:
    """What waits for hours is due at once. One that fails changes nothing."""
    waiting = {1: Waiting(1, 8, NOW + 9 * 3600, NOW), 2: Waiting(2, 1, NOW - 1, NOW)}
    known = Deliveries(waiting=dict(waiting), failures=1)
    known.note_test(MADE, FAILED, NOW)
    assert (known.waiting, known.failures) == (waiting, 1)
    known.note_test(MADE, DELIVERED, NOW)
    assert (known.waiting, known.failures) == ({**waiting, 1: replace(waiting[1], due=NOW)}, 0)


def test_what_is_written_is_read() -> None:
    """Times of what waits to the second."""
    known = Deliveries(3, 99, {7: Waiting(7, 1, NOW, NOW - 5), 9: Waiting(9, 2, NOW, NOW, 12)}, [MADE], 2, "", "test-1")
    assert read(written(known)) == known
    assert read(written(Deliveries())) == Deliveries()


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"state": ""},
        {"state": "[]"},
        {"state": '{"starts": 1, "other": 2}'},
        {"state": "{}", "waiting": "a"},
        {"state": "{}", "waiting": "1"},
        {"state": "{}", "tries": "[{}]"},
        {"state": "[" * 9999},
    ],
)
def test_a_damaged_record_is_said(data: dict[str, str]) -> None:
    """As one kind of error."""
    with pytest.raises(ValueError, match="cannot be read"):
        read(data)


@pytest.mark.parametrize("text", ["x" * 999, "ü" * 999, '"\\' * 500, "\0\x1b[31m" * 99, "🎮" * 300, "一" * 300])
def test_the_largest_record_fits(text: str) -> None:
    """A record has at most 64 KiB."""
    made = replace(
        MADE, id="f" * 32, type="schedule-failed", server=2**63 - 1, attempt=12, outcome="unreachable",
        detail="d" * 100, answer=excerpt(text), ms=10_000, next="2026-11-27T12:00:00Z",
    )  # fmt: skip
    waiting = {10**9 + number: Waiting(10**9 + number, 12, NOW, NOW) for number in range(MOST_WAITING)}
    known = Deliveries(99, 10**10, waiting, [made] * MOST_TRIES, 10**5, "e" * 200, "test-" + "0" * 16)
    data = written(known)
    assert sum(len(key) + len(value.encode()) for key, value in data.items()) <= LARGEST
    assert read(data).waiting == waiting


def test_only_the_newest_tries_are_kept() -> None:
    """The newest first."""
    known = Deliveries()
    for number in range(MOST_TRIES + 5):
        known.note_test(replace(MADE, id=str(number)), FAILED, NOW)
    assert [one.id for one in known.tries] == [str(number) for number in range(MOST_TRIES + 4, 4, -1)]


def test_an_answer_is_cut_and_made_harmless() -> None:
    """200 characters, none of them for a terminal."""
    assert excerpt("a" * 300) == "a" * 200
    assert excerpt(" a\x1b[31m\n\tb\x00 ") == "a [31m  b"
    assert excerpt("") == ""
