"""One of several pods is the active controller, and another takes over when it ends, dies or is cut off."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from service.controller import leader
from service.controller.leader import Deposed, Leader, Term
from service.kube import leases
from service.kube.leases import Leases
from tests.support.memory_kube import MemoryKube
from tests.support.waiting import until


class Pod:
    """A pod of the controller: a thread that runs a Leader."""

    def __init__(self, kube: MemoryKube, name: str, *, sees_all: bool = True) -> None:
        self.stop = threading.Event()
        self.terms: list[Term] = []
        self.exits: list[int] = []
        self.sees_all = sees_all
        leads = Leader(Leases(kube, "gameservers", name), self.stop, lambda: self.sees_all, self.exits.append)
        self.thread = threading.Thread(target=leads.run, args=(self.terms.append,), daemon=True)
        self.thread.start()

    def end(self) -> None:
        self.stop.set()
        self.thread.join(10)
        assert not self.thread.is_alive()


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Start pods with a Lease of 2 seconds; all end with the test."""
    monkeypatch.setattr(leases, "DURATION", 2)
    monkeypatch.setattr(leases, "MARGIN", 0.5)
    monkeypatch.setattr(leases, "RENEW_EVERY", 0.2)
    monkeypatch.setattr(leases, "RETRY_EVERY", 0.2)
    monkeypatch.setattr(leader, "HEAD_START_SECONDS", 0)
    pods: list[Pod] = []

    def make(kube: MemoryKube, name: str, **options: bool) -> Pod:
        pods.append(Pod(kube, name, **options))
        return pods[-1]

    yield make
    for pod in pods:
        pod.stop.set()


def led(start: Callable[..., Pod]) -> tuple[MemoryKube, MemoryKube]:
    """A cluster that has an active pod, and the same as that pod reaches it: it dies when `away` is called there."""
    kube, cut_off = MemoryKube(), MemoryKube()
    cut_off.objects = kube.objects
    dead = start(cut_off, "dead")
    until(lambda: dead.terms)
    return kube, cut_off


def test_one_pod_is_active_and_the_other_takes_over(start: Callable[..., Pod]) -> None:
    """At once when the first one is told to end, because it gives the Lease back."""
    kube = MemoryKube()
    first = start(kube, "one")
    until(lambda: first.terms)
    second = start(kube, "two")
    time.sleep(0.5)
    assert not second.terms
    first.end()
    until(lambda: second.terms, 3)
    assert first.terms[0].remaining() == 0
    with pytest.raises(Deposed), first.terms[0].step():
        pass
    assert second.terms[0].holder != first.terms[0].holder


def test_a_pod_that_is_cut_off_ends_before_another_takes_over(start: Callable[..., Pod]) -> None:
    """Its process ends, so nothing goes on that it has started."""
    kube, cut_off = MemoryKube(), MemoryKube()
    cut_off.objects = kube.objects
    first = start(cut_off, "one")
    until(lambda: first.terms)
    second = start(kube, "two")
    cut_off.away()
    until(lambda: first.exits == [1], 5)
    assert not second.terms
    with pytest.raises(Deposed):
        first.terms[0].require()
    until(lambda: second.terms, 5)


def test_a_pod_finishes_its_step_before_it_gives_the_lease_back(start: Callable[..., Pod]) -> None:
    """Otherwise the next one could do the same step again."""
    kube = MemoryKube()
    first = start(kube, "one")
    until(lambda: first.terms)
    second = start(kube, "two")
    with first.terms[0].step():
        first.stop.set()
        until(lambda: first.terms[0].remaining() == 0)
        with pytest.raises(Deposed):
            first.terms[0].sleep(60)
        time.sleep(1.5)
        assert not second.terms
    until(lambda: second.terms, 5)


def test_a_new_pod_leaves_the_lease_of_a_dead_one_to_an_older_pod(
    start: Callable[..., Pod], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The older one has watched meanwhile. Without a Lease, or if nobody else takes it, the new one does."""
    kube, cut_off = led(start)
    old = start(kube, "old")
    # The Lease is renewed meanwhile, so the old one has watched since before the last renewal.
    time.sleep(0.5)
    monkeypatch.setattr(leader, "HEAD_START_SECONDS", 3)
    cut_off.away()
    new = start(kube, "new")
    until(lambda: old.terms, 5)
    assert not new.terms
    old.end()
    # The Lease was given back, so nobody has to be waited for.
    until(lambda: new.terms, 2)


def test_a_new_pod_takes_the_lease_of_a_dead_one_if_nobody_else_does(
    start: Callable[..., Pod], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some seconds later than an older pod would have, and not earlier."""
    monkeypatch.setattr(leader, "HEAD_START_SECONDS", 1.5)
    kube, cut_off = led(start)
    cut_off.away()
    began = time.monotonic()
    new = start(kube, "new")
    until(lambda: new.terms, 8)
    # The Lease lasts for 2 seconds from a renewal, which was at most a fifth of a second before.
    assert time.monotonic() - began > 2 - 0.5 + 1.5


def test_a_pod_whose_watches_are_not_complete_does_not_take_the_lease(start: Callable[..., Pod]) -> None:
    """It would not know what happens to the servers."""
    pod = start(MemoryKube(), "blind", sees_all=False)
    time.sleep(1)
    assert not pod.terms
    pod.sees_all = True
    until(lambda: pod.terms, 5)


def test_a_pod_counts_as_new_until_its_watches_are_complete(
    start: Callable[..., Pod], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long ago it started: what happened before, it has not seen."""
    kube, cut_off = led(start)
    slow = start(kube, "slow", sees_all=False)
    time.sleep(0.5)
    monkeypatch.setattr(leader, "HEAD_START_SECONDS", 1.5)
    cut_off.away()
    # After a renewal that was on its way.
    time.sleep(0.3)
    began = time.monotonic()
    slow.sees_all = True
    until(lambda: slow.terms, 8)
    assert time.monotonic() - began > 2 - 0.5 - 0.3 + 1.5 - 0.3
