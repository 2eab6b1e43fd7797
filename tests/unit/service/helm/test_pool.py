"""The pool limits how many helm processes run, and for how long."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from service.errors import ClusterUnavailable, TooManyOperations
from service.helm import pool
from service.helm.pool import HelmPool
from service.kube.leases import DURATION, MARGIN, Lease, now
from service.kube.types import Object


def lease(seconds: float = 10) -> Lease:
    """A Lease that is valid for `seconds`."""
    held: Object = {}
    return Lease(held, now() - DURATION + MARGIN + seconds, False)


def test_no_more_processes_run_than_there_are_slots() -> None:
    """The others wait for a free slot."""
    helm_pool, running, most = HelmPool(2), 0, 0

    async def work() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.05)
        running -= 1

    threads = [threading.Thread(target=helm_pool.run, args=(lease(), work)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 2


def test_work_that_waits_too_long_for_a_slot_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes no slot later."""
    monkeypatch.setattr(pool, "SLOT_SECONDS", 0.1)
    helm_pool, began, finish = HelmPool(1), threading.Event(), threading.Event()

    async def slow() -> None:
        began.set()
        while not finish.is_set():
            await asyncio.sleep(0.02)

    thread = threading.Thread(target=helm_pool.run, args=(lease(), slow))
    thread.start()
    assert began.wait(10)
    with pytest.raises(TooManyOperations) as problem:
        helm_pool.run(lease(), slow)
    assert problem.value.headers == {"Retry-After": "5"}
    finish.set()
    thread.join()
    helm_pool.run(lease(), slow)


def test_a_failure_is_raised_and_frees_the_slot() -> None:
    """The caller gets whatever the work raises."""
    helm_pool = HelmPool(1)

    async def broken() -> None:
        raise KeyError("x")

    for _ in range(2):
        with pytest.raises(KeyError):
            helm_pool.run(lease(), broken)


def test_work_is_stopped_before_its_lease_expires() -> None:
    """It is cancelled, has time to end its process, and the Lease is left for recovery."""
    held = lease(0.3)
    ended: list[float] = []

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


def test_work_that_finishes_after_its_lease_has_failed() -> None:
    """After a freeze, another may hold the Lease by then, so success could be wrong."""
    held = lease(0.2)

    async def frozen() -> None:
        time.sleep(0.4)

    with pytest.raises(ClusterUnavailable):
        HelmPool(1).run(held, frozen)
    assert held.abandoned


def test_work_that_fails_after_its_lease_is_left_to_the_next_holder() -> None:
    """helm-daemon ends it at the same moment, and its own failure would not say that another may write now."""
    held = lease(0.2)

    async def frozen() -> None:
        time.sleep(0.4)
        raise KeyError("x")

    with pytest.raises(ClusterUnavailable):
        HelmPool(1).run(held, frozen)
    assert held.abandoned


def test_no_work_takes_longer_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if its Lease is renewed again and again."""
    monkeypatch.setattr(pool, "MAX_SECONDS", 0.2)
    held = lease()
    with pytest.raises(ClusterUnavailable):
        HelmPool(1).run(held, lambda: asyncio.sleep(30))
    assert held.abandoned
