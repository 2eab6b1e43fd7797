"""One holder at a time has a Lease, renews it, and releases it; a dead holder's Lease is taken over."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
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
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases that last a second and a half."""
    for name, value in {"DURATION": 1.5, "RENEW_EVERY": 0.2, "RETRY_EVERY": 0.1, "MARGIN": 0.5}.items():
        monkeypatch.setattr(leases, name, value)


def store_lease(holder: str, seconds_ago: float, kube: MemoryKube) -> None:
    """Store a Lease that `holder` renewed some time ago."""
    renew_time = (datetime.now(UTC) - timedelta(seconds=seconds_ago)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    spec = {"holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": renew_time, "leaseTransitions": 4}
    kube._stored(PATH, {"metadata": {"name": "server-1"}, "spec": spec})


def test_a_lease_exists_while_it_is_held(kube: MemoryKube) -> None:
    """It names its holder, and is deleted afterwards."""
    with Leases(kube, "games", "pod-1").hold("server-1") as lease:
        spec = kube.objects[PATH]["spec"]
        assert spec["holderIdentity"].startswith("pod-1/")
        assert spec["leaseDurationSeconds"] == 15
        assert 10 < lease.remaining() <= 11
        assert not lease.taken_over
    assert kube.objects == {}


def test_a_live_lease_is_respected(kube: MemoryKube) -> None:
    """A second caller is told to retry soon, and the first keeps its Lease."""
    first, second = Leases(kube, "games", "pod-1"), Leases(kube, "games", "pod-2")
    with first.hold("server-1"):
        with pytest.raises(OperationInProgress) as problem, second.hold("server-1"):
            pass
        assert problem.value.headers == {"Retry-After": "1"}
        with second.hold("server-2"):
            pass
    assert kube.objects == {}


def test_an_expired_lease_is_taken_over(kube: MemoryKube) -> None:
    """Its new holder knows that the previous one did not finish."""
    store_lease("pod-1/x", 15.1, kube)
    with Leases(kube, "games", "pod-2").hold("server-1") as lease:
        assert lease.taken_over
        assert kube.objects[PATH]["spec"]["holderIdentity"].startswith("pod-2/")
        assert kube.objects[PATH]["spec"]["leaseTransitions"] == 5
    assert kube.objects == {}


def test_a_dead_holders_lease_has_to_expire(kube: MemoryKube) -> None:
    """Until it does, callers are told how long to wait."""
    store_lease("pod-1/x", 8, kube)
    with pytest.raises(OperationInProgress) as problem, Leases(kube, "games", "pod-2").hold("server-1"):
        pass
    assert problem.value.headers == {"Retry-After": "7"}


def test_only_one_of_two_takeovers_succeeds(kube: MemoryKube) -> None:
    """The API server's version check lets one write through."""
    store_lease("pod-1/x", 60, kube)

    def overtake(method: str, path: str) -> None:
        if method == "PUT":
            kube.back()
            store_lease("pod-3/y", 0, kube)

    kube.before = overtake
    with pytest.raises(OperationInProgress), Leases(kube, "games", "pod-2").hold("server-1"):
        pass
    assert kube.objects[PATH]["spec"]["holderIdentity"] == "pod-3/y"


@pytest.mark.usefixtures("fast")
def test_a_lease_is_renewed_while_the_work_lasts(kube: MemoryKube) -> None:
    """Work that takes longer than the Lease keeps it."""
    with Leases(kube, "games", "pod-1").hold("server-1") as lease:
        before = kube.objects[PATH]["spec"]["renewTime"]
        time.sleep(2)
        assert lease.remaining() > 0.5
        assert kube.objects[PATH]["spec"]["renewTime"] > before
    assert kube.objects == {}


@pytest.mark.usefixtures("fast")
def test_a_holder_that_cannot_renew_stops_in_time(kube: MemoryKube) -> None:
    """While Kubernetes is unreachable, the holder's time runs out before its Lease, and it leaves the Lease alone."""
    with Leases(kube, "games", "pod-1").hold("server-1") as lease:
        kube.away()
        time.sleep(1.3)
        assert lease.remaining() <= 0
        kube.back()
    assert PATH in kube.objects


@pytest.mark.usefixtures("fast")
def test_a_holder_notices_that_it_lost_its_lease(kube: MemoryKube) -> None:
    """A node that was frozen finds another's name in its Lease, and leaves it there."""
    with Leases(kube, "games", "pod-1").hold("server-1") as lease:
        store_lease("pod-2/y", 0, kube)
        until(lambda: lease.remaining() == 0, 10)
    assert kube.objects[PATH]["spec"]["holderIdentity"] == "pod-2/y"


def test_a_holder_can_confirm_its_lease(kube: MemoryKube) -> None:
    """Kubernetes is asked, because the holder's clock may have stood still. A lost Lease stays with its new holder."""
    leases_ = Leases(kube, "games", "pod-1")
    with leases_.hold("server-1") as lease:
        leases_.confirm("server-1", lease)
        store_lease("pod-2/y", 0, kube)
        with pytest.raises(ClusterUnavailable):
            leases_.confirm("server-1", lease)
        assert lease.remaining() == 0
    assert kube.objects[PATH]["spec"]["holderIdentity"] == "pod-2/y"


@pytest.mark.usefixtures("fast")
def test_a_renewal_whose_response_was_lost_is_no_loss(kube: MemoryKube) -> None:
    """The conflict that follows is with the holder's own write."""
    with Leases(kube, "games", "pod-1").hold("server-1") as lease:
        kube._stored(PATH, kube.objects[PATH])
        time.sleep(0.6)
        assert lease.remaining() > 0.5
    assert kube.objects == {}


def test_an_abandoned_lease_is_left_to_expire(kube: MemoryKube) -> None:
    """The next holder then knows that it has to recover something."""
    with Leases(kube, "games", "pod-1").hold("server-1") as lease:
        lease.abandon()
    assert PATH in kube.objects


def test_a_lease_that_cannot_be_released_is_no_error(kube: MemoryKube) -> None:
    """The work is done; the Lease expires."""
    with Leases(kube, "games", "pod-1").hold("server-1"):
        kube.away()


def test_without_kubernetes_there_is_no_lease(kube: MemoryKube) -> None:
    """Nothing is done without one."""
    kube.away()
    with pytest.raises(ClusterUnavailable), Leases(kube, "games", "pod-1").hold("server-1"):
        pytest.fail("not reached")


@pytest.mark.parametrize("spec", [{}, {"renewTime": "x", "leaseDurationSeconds": 15}, {"renewTime": None}])
def test_a_malformed_lease_counts_as_expired(kube: MemoryKube, spec: dict[str, Any]) -> None:
    """Somebody may have written it by hand. It blocks nobody."""
    kube._stored(PATH, {"metadata": {"name": "server-1"}, "spec": {"holderIdentity": "?", **spec}})
    with Leases(kube, "games", "pod-1").hold("server-1") as lease:
        assert lease.taken_over


def waiting(kube: MemoryKube, seconds: float, work: Callable[[], object] = lambda: None) -> threading.Thread:
    """A thread that waits for the Lease, and does `work` with it. Returns once its request is in the Lease."""

    def wait() -> None:
        with Leases(kube, "games", "pod-2").hold("server-1", wait=seconds):
            work()

    thread = threading.Thread(target=wait)
    thread.start()
    until(lambda: leases.NEXT in kube.objects[PATH]["metadata"].get("annotations", {}), 5)
    return thread


def test_who_waits_gets_the_lease_before_those_who_try_again(kube: MemoryKube) -> None:
    """Its holder passes it on, so there is no moment in which another could take it."""
    first, third = Leases(kube, "games", "pod-1"), Leases(kube, "games", "pod-3")
    holders: list[tuple[str, int, bool]] = []

    def note() -> None:
        spec = kube.objects[PATH]["spec"]
        waits = leases.NEXT in kube.objects[PATH]["metadata"]["annotations"]
        holders.append((spec["holderIdentity"].split("/")[0], spec["leaseTransitions"], waits))

    with first.hold("server-1"):
        thread = waiting(kube, 10, note)
    for _ in range(20):
        with pytest.raises(OperationInProgress), third.hold("server-1"):
            pass
        if not thread.is_alive():
            break
    thread.join()
    # It was passed on, and renewed at once by whom it was passed on to.
    assert holders == [("pod-2", 2, False)]
    assert kube.objects == {}


def test_who_has_waited_too_long_is_refused_and_nothing_stays(kube: MemoryKube) -> None:
    """The request is taken back, so the holder deletes the Lease as usual."""
    with Leases(kube, "games", "pod-1").hold("server-1"):
        began = time.monotonic()
        with pytest.raises(OperationInProgress), Leases(kube, "games", "pod-2").hold("server-1", wait=0.3):
            pass
        assert 0.3 <= time.monotonic() - began < 2
        assert kube.objects[PATH]["metadata"]["annotations"] == {}
    assert kube.objects == {}


def test_only_one_waits_first(kube: MemoryKube) -> None:
    """A second one waits too, and has its turn after that."""
    order: list[str] = []

    def wait(pod: str) -> None:
        with Leases(kube, "games", pod).hold("server-1", wait=10):
            order.append(pod)

    with Leases(kube, "games", "pod-1").hold("server-1"):
        first = waiting(kube, 10, lambda: order.append("pod-2"))
        second = threading.Thread(target=wait, args=("pod-3",))
        second.start()
        time.sleep(0.3)
        assert kube.objects[PATH]["metadata"]["annotations"][leases.NEXT].startswith("pod-2/")
    first.join()
    second.join()
    assert order == ["pod-2", "pod-3"]
    assert kube.objects == {}


@pytest.mark.usefixtures("fast")
def test_a_lease_is_renewed_while_another_waits(kube: MemoryKube) -> None:
    """The request changes the Lease under its holder, who keeps it."""
    with Leases(kube, "games", "pod-1").hold("server-1") as lease:
        thread = waiting(kube, 10)
        time.sleep(1.6)
        assert lease.remaining() > 0.5
    thread.join()
    assert kube.objects == {}


@pytest.mark.usefixtures("fast")
def test_a_lease_that_was_passed_on_to_a_dead_process_expires(kube: MemoryKube) -> None:
    """Who comes then takes it over as a dead holder's."""
    with Leases(kube, "games", "pod-1").hold("server-1"):
        kube.merge(PATH, {"metadata": {"annotations": {leases.NEXT: "pod-2/x"}}})
    assert kube.objects[PATH]["spec"]["holderIdentity"] == "pod-2/x"
    with Leases(kube, "games", "pod-3").hold("server-1", wait=5) as lease:
        assert lease.taken_over
    assert kube.objects == {}


def test_who_waits_for_a_dead_holder_takes_over_from_it(kube: MemoryKube) -> None:
    """A dead holder passes nothing on; its Lease expires."""
    store_lease("pod-1/x", 14.6, kube)
    with Leases(kube, "games", "pod-2").hold("server-1", wait=5) as lease:
        assert lease.taken_over
        assert leases.NEXT not in kube.objects[PATH]["metadata"].get("annotations", {})
    assert kube.objects == {}


def test_a_lease_passed_on_too_late_is_released(kube: MemoryKube) -> None:
    """Who has just given up does not keep it for 15 seconds."""
    store_lease("pod-1/x", 0, kube)
    looks = 0

    def pass_on(method: str, path: str) -> None:
        nonlocal looks
        looks += method == "GET"
        # The fourth look is the one that takes the request back.
        if looks == 4:
            kube.back()
            store_lease(kube.objects[PATH]["metadata"]["annotations"][leases.NEXT], 0, kube)

    kube.before = pass_on
    with pytest.raises(OperationInProgress), Leases(kube, "games", "pod-2").hold("server-1", wait=0.05):
        pass
    assert kube.objects == {}
