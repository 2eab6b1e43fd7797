"""When deliveries that failed are tried again."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from service.webhooks.retries import HOUR, LONGEST, next_try, requested

START = 1_000_000.0
NOW = datetime(2026, 11, 27, 12, 0, 0, tzinfo=UTC)


def schedule(random: float) -> list[float]:
    """The pauses of a delivery that always fails at once."""
    pauses, now, tries = [], START, 1
    while (then := next_try(tries, START, now, None, random)) is not None:
        pauses.append(then - now)
        now, tries = then, tries + 1
    assert now == START + LONGEST
    return pauses


def test_it_is_tried_for_a_day_in_growing_pauses() -> None:
    """The last try is at the end of the day."""
    hours = [HOUR, 2 * HOUR, 4 * HOUR, 8 * HOUR, 8 * HOUR]
    assert schedule(0) == [5, 30, 120, 600, 1800, *hours, LONGEST - 23 * HOUR - 2555]


def test_jitter_only_adds() -> None:
    """Up to a fifth of the pause, and never beyond the day."""
    for plain, longer in zip(schedule(0)[:8], schedule(1)[:8], strict=True):
        assert longer == pytest.approx(plain * 1.2)
    assert sum(schedule(1)) == LONGEST


def test_a_receiver_may_put_a_try_off() -> None:
    """By up to an hour; a shorter time than the pause changes nothing."""
    assert next_try(1, START, START, 60, 0) == START + 60
    assert next_try(1, START, START, 1, 0) == START + 5
    assert next_try(1, START, START, 10 * HOUR, 0) == START + HOUR
    assert next_try(9, START, START, 60, 0) == START + 8 * HOUR


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120),
        (" 7 ", 7),
        ("Fri, 27 Nov 2026 12:01:30 GMT", 90),
        ("Fri, 27 Nov 2026 11:00:00 GMT", 0),
        ("9" * 400, 999_999_999),
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("٣", None),
        ("Fri, 99 Nov 2026 12:01:30 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, seconds: float | None) -> None:
    """Anything else is as if there were none."""
    assert requested(header, NOW) == seconds
