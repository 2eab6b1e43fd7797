"""When a delivery that failed is tried again. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

MINUTE, HOUR = 60.0, 3600.0
PAUSES = (5.0, 30.0, 2 * MINUTE, 10 * MINUTE, 30 * MINUTE, HOUR, 2 * HOUR, 4 * HOUR, 8 * HOUR)
"""How many seconds to wait after each try. The last one repeats."""
LONGEST = 24 * HOUR
"""For how long a delivery is tried, from its first try. The last try is made at the end of it."""
JITTER = 0.2
"""By what part a pause may be longer, so that deliveries that failed together are not all tried together again."""
LONGEST_REQUESTED = HOUR
"""For how long a receiver can put off a try, by `Retry-After`."""


def next_try(tries: int, first: float, now: float, requested: float | None, random: float) -> float | None:
    """When to try again.

    Args:
        tries: How many tries have failed, at least 1.
        first: When the first was made, in Unix seconds.
        now: The time.
        requested: The receiver's Retry-After in seconds, or None.
        random: From 0 to 1, for the jitter.

    Returns:
        The time, or None if the last try was made.
    """
    end = first + LONGEST
    if now >= end:
        return None
    pause = PAUSES[min(tries, len(PAUSES)) - 1] * (1 + JITTER * random)
    return min(now + max(pause, min(requested or 0.0, LONGEST_REQUESTED)), end)


def requested(header: str | None, now: datetime) -> float | None:
    """The seconds of a `Retry-After`, which may also be a date; None if there is none that can be read."""
    text = (header or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return max(0.0, ((date if date.tzinfo else date.replace(tzinfo=UTC)) - now).total_seconds())
