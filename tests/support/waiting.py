"""Waiting for what comes about by itself."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(
    reached: Callable[[], object], seconds: float = 10, what: Callable[[], str] | str = "not reached in time"
) -> float:
    """Wait until `reached()`, looking often at first; gives how many seconds it took.

    Raises AssertionError with `what`.
    """
    began = time.monotonic()
    while not reached():
        waited = time.monotonic() - began
        if waited > seconds:
            raise AssertionError(what if isinstance(what, str) else what())
        time.sleep(min(0.05 + waited / 10, 0.2))
    return time.monotonic() - began
