"""HelmPool for helm processes."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from service.errors import ClusterUnavailable, TooManyOperations
from service.helm import pool
from service.helm.pool import HelmPool
from service.kube.leases import DURATION, MARGIN, Lease, _now
from service.kube.types import Object


def lease(seconds: float = 10) -> Lease:
    """One that is good for so long."""
    held: Object = {}
    return Lease(held, _now() - DURATION + MARGIN + seconds, False)


def test_no_more_run_at_once_than_there_are_pool() -> None:
    """The others wait for their turn."""
    found, running, most = HelmPool(2), 0, 0

    async def work() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.05)
        running -= 1

    threads = [threading.Thread(target=found.run, args=(lease(), work)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 2


def test_whoever_waits_too_long_is_told_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """And takes no place later."""
    monkeypatch.setattr(pool, "SLOT_SECONDS", 0.1)
    found, began, go = HelmPool(1), threading.Event(), threading.Event()

    async def slow() -> None:
        began.set()
        while not go.is_set():
            await asyncio.sleep(0.02)

    thread = threading.Thread(target=found.run, args=(lease(), slow))
    thread.start()
    assert began.wait(10)
    with pytest.raises(TooManyOperations) as problem:
        found.run(lease(), slow)
    assert problem.value.headers == {"Retry-After": "5"}
    go.set()
    thread.join()
    found.run(lease(), slow)


def test_a_failure_is_the_callers_and_frees_the_place() -> None:
    """Whatever the work raises comes out as it is."""
    found = HelmPool(1)

    async def broken() -> None:
        raise KeyError("x")

    for _ in range(2):
        with pytest.raises(KeyError):
            found.run(lease(), broken)


def test_work_ends_before_its_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is cancelled, gets the time to end its process, and the Lease is left to whoever recovers."""
    held, ended = lease(0.3), []

    async def work() -> None:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            ended.append(time.monotonic())
            raise

    began = time.monotonic()
    with pytest.raises(ClusterUnavailable):
        HelmPool(1).run(held, work)
    assert 0.2 < ended[0] - began < 10
    assert held.abandoned


def test_work_that_a_freeze_made_late_has_failed() -> None:
    """It came to its end, but its Lease may be another's by then: to say that all is well could be untrue."""
    held = lease(0.2)

    async def frozen() -> None:
        time.sleep(0.4)

    with pytest.raises(ClusterUnavailable):
        HelmPool(1).run(held, frozen)
    assert held.abandoned


def test_no_work_lasts_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though its Lease is renewed again and again."""
    monkeypatch.setattr(pool, "LONGEST", 0.2)
    held = lease()
    with pytest.raises(ClusterUnavailable):
        HelmPool(1).run(held, lambda: asyncio.sleep(30))
    assert held.abandoned
