"""Waiting for a state that is reached without the test's doing."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(
    reached: Callable[[], object],
    seconds: float = 30,
    message: Callable[[], str] | str = "not reached in time",
    *,
    not_yet: tuple[type[Exception], ...] = (),
) -> float:
    """Wait until `reached()` returns a true value; checks often at first, then every 0.2 seconds.

    A check that takes longer, such as a kubectl, is made less often: tests that poll took much of the machine's time.

    Args:
        reached: The condition.
        seconds: How long to wait.
        message: The message of the AssertionError, or a function that makes it.
        not_yet: Exceptions of `reached` that only mean that it is not reached yet.

    Returns:
        How many seconds it took.

    Raises:
        AssertionError: `reached()` was not true within `seconds`.
    """
    began = time.monotonic()
    while True:
        checked = time.monotonic()
        if _holds(reached, not_yet):
            return time.monotonic() - began
        now = time.monotonic()
        waited = now - began
        if waited > seconds:
            raise AssertionError(message if isinstance(message, str) else message())
        time.sleep(max(min(0.05 + waited / 10, 0.2), min(2 * (now - checked), 1.0)))


def _holds(reached: Callable[[], object], not_yet: tuple[type[Exception], ...]) -> bool:
    try:
        return bool(reached())
    except not_yet:
        return False
