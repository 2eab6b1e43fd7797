"""Leases: who gets one, who keeps it, and what is left of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.errors import ClusterUnavailable, OperationInProgress
from service.kube import leases
from service.kube.leases import Leases
from tests.support.memory_kube import MemoryKube
from tests.support.waiting import until

PATH = "/apis/coordination.k8s.io/v1/namespaces/games/leases/server-1"


@pytest.fixture
def kube() -> MemoryKube:
    return MemoryKube()


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leases of a second and a half."""
    for name, value in {"DURATION": 1.5, "RENEW_EVERY": 0.2, "RETRY_EVERY": 0.1, "MARGIN": 0.5}.items():
        monkeypatch.setattr(leases, name, value)
    return


def left_by(holder: str, seconds_ago: float, kube: MemoryKube) -> None:
    """A Lease that its holder renewed some time ago."""
    renewed = (datetime.now(UTC) - timedelta(seconds=seconds_ago)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    spec = {"holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": renewed, "leaseTransitions": 4}
    kube._stored(PATH, {"metadata": {"name": "server-1"}, "spec": spec})


def test_a_lease_is_there_while_held_and_gone_after(kube: MemoryKube) -> None:
    """Nothing is left behind, and the holder is named."""
    with Leases(kube, "games", "pod-1").hold("server-1") as lease:
        spec = kube.objects[PATH]["spec"]
        assert spec["holderIdentity"].startswith("pod-1/")
        assert spec["leaseDurationSeconds"] == 15
        assert 10 < lease.remaining() <= 11
        assert not lease.taken_over
    assert kube.objects == {}


def test_a_live_lease_is_respected(kube: MemoryKube) -> None:
    """The second comer is told to come again soon, and the first keeps its Lease."""
    first, second = Leases(kube, "games", "pod-1"), Leases(kube, "games", "pod-2")
    with first.hold("server-1"):
        with pytest.raises(OperationInProgress) as problem, second.hold("server-1"):
            pass
        assert problem.value.headers == {"Retry-After": "1"}
        with second.hold("server-2"):
            pass
    assert kube.objects == {}


def test_a_lease_that_ran_out_is_taken_over(kube: MemoryKube) -> None:
    """Its new holder knows that the one before did not finish."""
    left_by("pod-1/x", 15.1, kube)
    with Leases(kube, "games", "pod-2").hold("server-1") as lease:
        assert lease.taken_over
        assert kube.objects[PATH]["spec"]["holderIdentity"].startswith("pod-2/")
        assert kube.objects[PATH]["spec"]["leaseTransitions"] == 5
    assert kube.objects == {}


def test_a_dead_holder_is_waited_for(kube: MemoryKube) -> None:
    """Whoever comes before it ran out is told when that will be."""
    left_by("pod-1/x", 8, kube)
    with pytest.raises(OperationInProgress) as problem, Leases(kube, "games", "pod-2").hold("server-1"):
        pass
    assert problem.value.headers == {"Retry-After": "7"}


def test_two_that_take_over_at_once(kube: MemoryKube) -> None:
    """The API server's version check lets one through."""
    left_by("pod-1/x", 60, kube)

    def overtake(method: str, path: str) -> None:
        if method == "PUT":
            kube.back()
            left_by("pod-3/y", 0, kube)

    kube.before = overtake
    with pytest.raises(OperationInProgress), Leases(kube, "games", "pod-2").hold("server-1"):
        pass
    assert kube.objects[PATH]["spec"]["holderIdentity"] == "pod-3/y"


@pytest.mark.usefixtures("fast")
def test_a_lease_is_renewed_while_the_work_lasts(kube: MemoryKube) -> None:
    """Work longer than the Lease keeps it."""
    with Leases(kube, "games", "pod-1").hold("server-1") as lease:
        before = kube.objects[PATH]["spec"]["renewTime"]
        time.sleep(2)
        assert lease.remaining() > 0.5
        assert kube.objects[PATH]["spec"]["renewTime"] > before
    assert kube.objects == {}


@pytest.mark.usefixtures("fast")
def test_a_holder_that_cannot_renew_stops_in_time(kube: MemoryKube) -> None:
    """Kubernetes is away: the time runs out before the Lease does, and the Lease is left alone."""
    with Leases(kube, "games", "pod-1").hold("server-1") as lease:
        kube.away()
        time.sleep(1.3)
        assert lease.remaining() <= 0
        kube.back()
    assert PATH in kube.objects


@pytest.mark.usefixtures("fast")
def test_a_holder_that_was_overtaken_knows_it(kube: MemoryKube) -> None:
    """A node that froze and thawed finds another's name in its Lease, and leaves it there."""
    with Leases(kube, "games", "pod-1").hold("server-1") as lease:
        left_by("pod-2/y", 0, kube)
        until(lambda: lease.remaining() == 0, 10)
    assert kube.objects[PATH]["spec"]["holderIdentity"] == "pod-2/y"


def test_a_holder_can_ask_whether_it_still_is_one(kube: MemoryKube) -> None:
    """Kubernetes knows better than a clock that may have stood still; once lost, the Lease stays with the other."""
    leases_ = Leases(kube, "games", "pod-1")
    with leases_.hold("server-1") as lease:
        leases_.confirm("server-1", lease)
        left_by("pod-2/y", 0, kube)
        with pytest.raises(ClusterUnavailable):
            leases_.confirm("server-1", lease)
        assert lease.remaining() == 0
    assert kube.objects[PATH]["spec"]["holderIdentity"] == "pod-2/y"


@pytest.mark.usefixtures("fast")
def test_a_renewal_whose_answer_was_lost_is_no_loss(kube: MemoryKube) -> None:
    """The conflict that follows is with ourselves."""
    with Leases(kube, "games", "pod-1").hold("server-1") as lease:
        kube._stored(PATH, kube.objects[PATH])
        time.sleep(0.6)
        assert lease.remaining() > 0.5
    assert kube.objects == {}


def test_an_abandoned_lease_is_left_to_run_out(kube: MemoryKube) -> None:
    """So that the next holder knows that there is something to recover."""
    with Leases(kube, "games", "pod-1").hold("server-1") as lease:
        lease.abandon()
    assert PATH in kube.objects


def test_a_lease_that_cannot_be_given_back_is_no_error(kube: MemoryKube) -> None:
    """The work is done; the Lease runs out."""
    with Leases(kube, "games", "pod-1").hold("server-1"):
        kube.away()


def test_without_kubernetes_there_is_no_lease(kube: MemoryKube) -> None:
    """And nothing is done without one."""
    kube.away()
    with pytest.raises(ClusterUnavailable), Leases(kube, "games", "pod-1").hold("server-1"):
        pytest.fail("not reached")


@pytest.mark.parametrize("spec", [{}, {"renewTime": "x", "leaseDurationSeconds": 15}, {"renewTime": None}])
def test_a_lease_that_makes_no_sense_has_run_out(kube: MemoryKube, spec: dict[str, Any]) -> None:
    """A hand may have written it; it stands in nobody's way."""
    kube._stored(PATH, {"metadata": {"name": "server-1"}, "spec": {"holderIdentity": "?", **spec}})
    with Leases(kube, "games", "pod-1").hold("server-1") as lease:
        assert lease.taken_over
