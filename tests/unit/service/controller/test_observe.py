"""The controller observes the servers: nothing is lost, nothing is kept twice, and all of it is bounded."""

from __future__ import annotations

from collections import deque
from copy import deepcopy
from dataclasses import replace
from datetime import timedelta

import pytest

from service.controller import observe
from service.controller.observe import Observer
from service.errors import ClusterUnavailable
from service.events.facts import Facts
from service.servers.objects import ServerObjects
from service.servers.volumes import DiskNode
from tests.support.event_world import EventWorld, ObservedCluster


@pytest.fixture
def world() -> EventWorld:
    return EventWorld()


@pytest.fixture
def cluster(world: EventWorld) -> ObservedCluster:
    return world.observed()


@pytest.fixture
def observer(cluster: ObservedCluster) -> Observer:
    observer = Observer(cluster.as_cluster())
    cluster.subscribe(observer._heard)
    return observer


def hear(cluster: ObservedCluster, observer: Observer) -> list[Facts]:
    """The watches receive all that has happened; returns the new facts."""
    cluster.hear(10**6)
    observer.turn(0)
    return observer.take(0)


def run(world: EventWorld, id: int) -> None:
    world.create(id)
    for _ in range(3):
        world.step(id)


def test_each_version_of_a_pod_is_gone_through(world: EventWorld, cluster: ObservedCluster, observer: Observer) -> None:
    """Also those that were there for a moment, although the watches have newer ones by now."""
    run(world, 1)
    world.crash(1, 137, "OOMKilled")
    world.step(1)
    world.step(1)
    world.step(1)
    ends = [facts.pod.ends for facts in hear(cluster, observer) if facts.pod]
    assert ends == sorted(ends)
    assert ends[-1] == 1


@pytest.mark.parametrize("forced", [True, False])
def test_a_pod_that_is_removed_at_once_has_not_stopped_well(
    world: EventWorld, cluster: ObservedCluster, observer: Observer, forced: bool
) -> None:
    """The version that Kubernetes removes says so, and another one, such as before a gap in the watch, does not."""
    run(world, 1)
    world.stop(1)
    world.step(1)
    if forced:
        world._pod(1, metadata={"deletionTimestamp": world.time(), "deletionGracePeriodSeconds": 0})
    world._drop(world.pods, "pod", 1)
    stop = next(facts.pod.stop for facts in hear(cluster, observer) if facts.pod and facts.pod.stop)
    assert (stop.reason or "").startswith("Its pod was removed before its game had ended.") == forced


def test_a_pod_that_is_ending_when_it_is_first_seen_has_stopped_and_not_exited(
    world: EventWorld, cluster: ObservedCluster, observer: Observer
) -> None:
    """The last version claims that the deletion was requested when the pod was gone, after its game had ended."""
    run(world, 1)
    world.stop(1)
    world.step(1)
    cluster.listeners.clear()
    hear(cluster, observer)
    cluster.subscribe(observer._heard)
    observer.look([1])
    assert [facts.pod.stop for facts in hear(cluster, observer) if facts.pod] == [None]
    world.now += timedelta(seconds=5)
    pod = deepcopy(world.pods[1])
    status = pod["status"]["containerStatuses"][0]
    status["state"] = {"terminated": world._terminated(status, 0, "Completed")}
    world.now += timedelta(seconds=5)
    pod["metadata"].update(deletionTimestamp=world.time(), deletionGracePeriodSeconds=0)
    world.pods[1] = pod
    world._drop(world.pods, "pod", 1)
    last = next(facts.pod for facts in hear(cluster, observer) if facts.pod and facts.pod.stop)
    assert (last.stop and last.stop.type, last.ends) == ("stopped", 0)


def test_a_game_that_ran_when_its_stop_was_asked_for_has_stopped_by_any_clock(
    world: EventWorld, cluster: ObservedCluster, observer: Observer
) -> None:
    """The clock of its node may be behind, so the end seems to be older than the stop."""
    run(world, 1)
    world.stop(1)
    world.step(1)
    world.now -= timedelta(seconds=5)
    world.kill(1)
    last = next(facts.pod for facts in hear(cluster, observer) if facts.pod and facts.pod.stop)
    assert (last.stop and last.stop.type, last.ends) == ("killed", 0)


def test_what_says_nothing_new_is_not_kept(world: EventWorld, cluster: ObservedCluster, observer: Observer) -> None:
    """Kubernetes writes to its objects all the time."""
    run(world, 1)
    assert hear(cluster, observer)
    world.start(1)
    world._pod(1, metadata={"annotations": {"other": "text"}})
    assert [facts.generation for facts in hear(cluster, observer)] == [2], "a start that changes nothing but this"


def test_nothing_is_lost_while_the_watches_are_not_complete(
    world: EventWorld, cluster: ObservedCluster, observer: Observer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change waits until the rest of its server is known."""
    run(world, 1)
    cluster.hear(10**6)

    def fail(id: int) -> None:
        raise ClusterUnavailable

    with monkeypatch.context() as away:
        away.setattr(cluster, "known", fail)
        with pytest.raises(ClusterUnavailable):
            observer.turn(0)
    assert not observer.take(0)
    observer.turn(0)
    assert [facts.pod is not None for facts in observer.take(0)] == [False, True, True]


def test_a_pod_that_waits_keeps_some_minutes(
    world: EventWorld, cluster: ObservedCluster, observer: Observer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one has written them by then. The active one keeps them until it has written them."""
    run(world, 1)
    cluster.hear(10**6)
    observer.turn(0)
    monkeypatch.setattr(observe, "KEPT_SECONDS", 0.0)
    run(world, 2)
    cluster.hear(10**6)
    observer.turn(0)
    assert len(observer.take(0)) == 1
    observer.lead()
    run(world, 3)
    assert len(hear(cluster, observer)) == 3


def test_more_changes_than_there_is_room_for(
    world: EventWorld, cluster: ObservedCluster, observer: Observer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are counted, and all servers are looked at afterwards."""
    monkeypatch.setattr(observe, "MAX_CHANGES", 5)
    for id in range(1, 20):
        run(world, id)
    cluster.hear(10**6)
    assert observer.dropped > 0
    observer.turn(0)
    observer.turn(0)
    newest = {facts.id: facts for facts in observer.take(0)}
    assert [facts.pod is not None and facts.pod.answers is not None for facts in newest.values()] == [True] * 19


def test_the_active_one_looks_at_all_servers(
    world: EventWorld, cluster: ObservedCluster, observer: Observer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk fills without a change of the server's objects."""
    monkeypatch.setattr(observe, "SWEEP_SECONDS", 0.0001)
    run(world, 1)
    hear(cluster, observer)
    world.fill(1, full=True)
    assert hear(cluster, observer) == []
    observer.lead()
    for _ in range(3):
        observer.turn(0.001)
    assert [facts.full for facts in observer.take(0)] == [True]


def test_the_event_of_a_pod_that_gets_no_node_has_the_same_reason_as_the_servers_get(
    world: EventWorld, cluster: ObservedCluster, observer: Observer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nodes and the disk's volume are asked for it. The choice in the claim may be of another cluster."""
    message = "0/3 nodes are available: 1 node(s) didn't match PersistentVolume's node affinity, 2 Insufficient memory."
    scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    choice = {"volume.kubernetes.io/selected-node": "node-of-before"}
    world.create(1)
    world.step(1)
    pod = deepcopy(world.pods[1])
    pod["spec"].pop("nodeName", None)
    pod["status"] = {"conditions": [scheduled]}
    world._put(world.pods, "pod", 1, pod)
    known = cluster.known

    def with_disk(id: int) -> ServerObjects | None:
        objects = known(id)
        return objects and replace(
            objects,
            claim={"metadata": {"annotations": choice}, "status": {"phase": "Bound"}},
            nodes={"node2": {"metadata": {"name": "node2"}, "spec": {"unschedulable": True}}},
            node_of=lambda claim: DiskNode("node2", only=True),
        )

    monkeypatch.setattr(cluster, "known", with_disk)
    waits = [facts.pod.waits for facts in hear(cluster, observer) if facts.pod and facts.pod.waits]
    reason = f"The node that holds the disk, node2, cannot take the server: it is cordoned. ({message})"
    assert [why for why, _ in waits] == [reason]


def test_a_pod_that_goes_when_it_is_first_seen_has_stopped_and_not_exited(
    world: EventWorld, cluster: ObservedCluster, observer: Observer
) -> None:
    """When its deletion was requested is unknown then: a finalizer may have kept it for long."""
    run(world, 1)
    hear(cluster, observer)
    world.stop(1)
    world.step(1)
    status = world.pods[1]["status"]["containerStatuses"][0]
    world._container(1, state={"terminated": world._terminated(status, 137, "Error")})
    world.now += timedelta(seconds=5)
    world._pod(1, metadata={"deletionTimestamp": world.time(), "deletionGracePeriodSeconds": 0})
    cluster = world.observed()
    observer = Observer(cluster.as_cluster())
    cluster.subscribe(observer._heard)
    world._drop(world.pods, "pod", 1)
    pods = [facts.pod for facts in hear(cluster, observer) if facts.pod]
    assert {(pod.stop and (pod.stop.type, pod.stop.code), pod.ends) for pod in pods} == {(("killed", 137), 0)}


def test_a_pod_that_had_failed_is_not_stopped_when_it_goes_at_once(
    world: EventWorld, cluster: ObservedCluster, observer: Observer
) -> None:
    """Kubernetes gives an evicted pod no time when it deletes it."""
    run(world, 1)
    world.crash(1, 137)
    world.now += timedelta(seconds=5)
    world._pod(1, metadata={"deletionTimestamp": world.time(), "deletionGracePeriodSeconds": 0})
    world._drop(world.pods, "pod", 1)
    pod = hear(cluster, observer)[-1].pod
    assert pod is not None
    assert (pod.stop and pod.stop.type, pod.ends) == ("stopped", 1)


def test_a_pod_that_is_heard_of_first_is_seen_beside_its_newest_statefulset(
    world: EventWorld, cluster: ObservedCluster, observer: Observer
) -> None:
    """Each kind has a watch of its own. What is older then does not come after it."""
    run(world, 1)
    world.stop(1)
    cluster.waiting = deque(sorted(cluster.waiting, key=lambda change: change[1]))
    seen = [(facts.version, facts.wanted) for facts in hear(cluster, observer)]
    assert set(seen) == {(int(world.statefulsets[1]["metadata"]["resourceVersion"]), "stopped")}
