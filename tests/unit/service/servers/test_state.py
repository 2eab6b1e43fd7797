"""A server's state and its reason follow from its objects."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from local.paths import ROOT
from service.kube.times import stamp
from service.servers import reasons
from service.servers.objects import ServerObjects
from service.servers.reasons import READ_EVENTS
from service.servers.state import State, exists, start_failure, state_of, with_log
from service.servers.stops import Stop
from service.servers.usage import Usage
from service.servers.volumes import DiskNode

T0, T1, T2 = "2026-01-31T12:00:00Z", "2026-01-31T12:01:00Z", "2026-01-31T12:02:00Z"


def releases(*statuses: str) -> tuple[dict[str, Any], ...]:
    return tuple(
        {"labels": {"status": status, "version": str(version)}, "creationTimestamp": T0}
        for version, status in enumerate(statuses, 1)
    )


def statefulset(replicas: int = 1, **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"creationTimestamp": T0, **metadata}, "spec": {"replicas": replicas}, "status": {}}


CLAIM = {"metadata": {}, "status": {"phase": "Bound"}}
PENDING_CLAIM = {"metadata": {}, "status": {"phase": "Pending"}}


#: It allows twenty seconds.
PROBE = {"periodSeconds": 5, "failureThreshold": 4}


def pod(
    container: dict[str, Any] | None = None,
    *conditions: dict[str, Any],
    metadata: dict[str, Any] | None = None,
    **status: Any,
) -> dict[str, Any]:
    resources = {"requests": {"memory": "64Gi", "cpu": "250m"}, "limits": {"memory": "4Gi"}}
    containers = [{"name": "game", **container}] if container is not None else []
    spec = {"name": "game", "resources": resources, "startupProbe": PROBE}
    return {
        "metadata": {"creationTimestamp": T0, **(metadata or {})},
        "spec": {"nodeName": "node2" if containers else "", "containers": [spec]},
        "status": {"startTime": T0, "conditions": list(conditions), "containerStatuses": containers, **status},
    }


def server(**parts: Any) -> ServerObjects:
    return ServerObjects(
        **{"id": 1, "statefulset": statefulset(), "claim": CLAIM, "releases": releases("deployed"), **parts}
    )


def event(reason: str, message: str = "") -> dict[str, Any]:
    return {"reason": reason, "message": message, "firstTimestamp": T1, "lastTimestamp": T2}


def unschedulable(message: str) -> dict[str, Any]:
    return {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": message,
        "lastTransitionTime": T1,
    }


READY = {"type": "Ready", "status": "True", "lastTransitionTime": T1}
NOT_READY = {"type": "Ready", "status": "False", "lastTransitionTime": T2}
NEVER = {**NOT_READY, "lastTransitionTime": T0}
OOM = {"terminated": {"reason": "OOMKilled", "exitCode": 137, "finishedAt": T2}}
CRASH = {"terminated": {"reason": "Error", "exitCode": 1, "finishedAt": T2}}
BACK_OFF = {"waiting": {"reason": "CrashLoopBackOff"}}
AGAIN = " It crashes again and again; Kubernetes waits longer before each new start."


def failed(reason: str, since: str | None = T0, **flags: bool) -> State:
    return State("failed", reason, since, "running", **flags)


CASES: dict[str, tuple[ServerObjects, State]] = {
    "install under way": (
        server(statefulset=None, releases=releases("pending-install")),
        State("creating", None, T0, "running"),
    ),
    "install failed before it created anything": (
        server(statefulset=None, releases=releases("failed")),
        failed("The install failed. Send the same create again, or delete the server."),
    ),
    "StatefulSet deleted by hand": (
        server(statefulset=None),
        failed("The server's StatefulSet is missing. A start creates it again.", None),
    ),
    "being uninstalled": (
        server(releases=releases("deployed", "uninstalling")),
        State("deleting", None, T0, "deleted"),
    ),
    "StatefulSet being deleted": (
        server(statefulset=statefulset(deletionTimestamp=T1)),
        State("deleting", None, T1, "deleted"),
    ),
    "uninstalled, the pod still saving": (
        server(statefulset=None, releases=(), pod=pod({}, metadata={"deletionTimestamp": T1})),
        State("deleting", None, T1, "deleted"),
    ),
    "stopped": (server(statefulset=statefulset(0)), State("stopped", None, T0, "stopped")),
    "stopping, for up to a minute": (
        server(
            statefulset=statefulset(0),
            pod=pod({}, READY, metadata={"deletionTimestamp": T2, "deletionGracePeriodSeconds": 60}),
        ),
        State("stopping", None, T1, "stopped"),
    ),
    "stopping, before the controller acts": (
        server(statefulset=statefulset(0), pod=pod({}, READY)),
        State("stopping", None, T0, "stopped"),
    ),
    "started while it is stopping": (
        server(pod=pod({}, READY, metadata={"deletionTimestamp": T1})),
        State("stopping", None, T1, "running"),
    ),
    "no pod yet, disk unbound": (server(claim=PENDING_CLAIM), State("creating", None, T0, "running")),
    "no pod yet, disk bound": (server(), State("starting", None, T0, "running")),
    "no pod yet, after one that is gone": (
        server(statefulset={**statefulset(), "status": {"replicas": 1}}),
        State("starting", None, None, "running"),
    ),
    "image being pulled": (
        server(pod=pod({"state": {"waiting": {"reason": "ContainerCreating"}}})),
        State("starting", None, T0, "running"),
    ),
    "game loading its world": (
        server(pod=pod({"started": False, "state": {"running": {"startedAt": T1}}}, NEVER)),
        State("starting", None, T1, "running"),
    ),
    "running while its kubelet restarts": (
        server(pod=pod({"started": False, "state": {"running": {"startedAt": T0}}}, NOT_READY)),
        State("starting", None, T2, "running"),
    ),
    "running": (
        server(pod=pod({"started": True, "state": {"running": {"startedAt": T0}}}, READY)),
        State("running", None, T1, "running"),
    ),
    "running after a crash long ago": (
        server(pod=pod({"started": True, "state": {"running": {"startedAt": T0}}, "lastState": CRASH}, READY)),
        State("running", None, T1, "running"),
    ),
    "running, the change not yet seen": (
        server(statefulset={**statefulset(generation=2), "status": {"observedGeneration": 1}}, pod=pod({}, READY)),
        State("starting", "The server is restarting to apply a change.", T0, "running"),
    ),
    "running with an old template": (
        server(
            statefulset={**statefulset(), "status": {"updateRevision": "new"}},
            pod=pod({}, READY, metadata={"labels": {"controller-revision-hash": "old"}}),
        ),
        State("starting", "The server is restarting to apply a change.", T0, "running"),
    ),
    "running with an old template on purpose": (
        server(
            statefulset={
                **statefulset(),
                "spec": {"replicas": 1, "updateStrategy": {"rollingUpdate": {"partition": 1}}},
                "status": {"updateRevision": "new"},
            },
            pod=pod({}, READY, metadata={"labels": {"controller-revision-hash": "old"}}),
        ),
        State("running", None, T1, "running"),
    ),
    "no longer answering": (
        server(pod=pod({"started": True, "state": {"running": {"startedAt": T1}}}, NOT_READY)),
        failed("The game is running, but no longer answers.", T2),
    ),
    "node lost": (
        server(
            pod=pod(
                {"started": True, "state": {"running": {"startedAt": T1}}},
                NOT_READY,
                {"type": "ContainersReady", "status": "True"},
            )
        ),
        failed("Its node node2 does not answer.", T2),
    ),
    "out of memory": (
        server(pod=pod({"state": OOM})),
        failed("The game ran out of memory (its limit is 4 GiB).", T2),
    ),
    "out of memory again": (
        server(pod=pod({"state": BACK_OFF, "lastState": OOM})),
        failed(f"The game ran out of memory (its limit is 4 GiB).{AGAIN}", T2, previous=True),
    ),
    "starting again after out of memory": (
        server(pod=pod({"started": False, "state": {"running": {"startedAt": T2}}, "lastState": OOM})),
        State("starting", "The last attempt ended: The game ran out of memory (its limit is 4 GiB).", T2, "running"),
    ),
    "crashed": (server(pod=pod({"state": CRASH})), failed("The game crashed (exit code 1).", T2, crashed=True)),
    "crash loop": (
        server(pod=pod({"state": BACK_OFF, "lastState": CRASH})),
        failed(f"The game crashed (exit code 1).{AGAIN}", T2, crashed=True, previous=True),
    ),
    "ended by itself": (
        server(pod=pod({"state": {"terminated": {"exitCode": 0, "finishedAt": T2}}})),
        failed("The game ended by itself (exit code 0).", T2, crashed=True),
    ),
    "image not found": (
        server(
            pod=pod(
                {
                    "image": "localhost/minecraft:nope",
                    "state": {"waiting": {"reason": "ErrImageNeverPull", "message": "is not present"}},
                }
            )
        ),
        failed("The image localhost/minecraft:nope was not found."),
    ),
    "image refused": (
        server(pod=pod({"image": "a/b:1", "state": {"waiting": {"reason": "ErrImagePull", "message": "403 denied"}}})),
        failed("The registry refused the image a/b:1."),
    ),
    "image backing off": (
        server(
            pod=pod(
                {"image": "a/b:1", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling"}}}
            )
        ),
        failed("The image a/b:1 cannot be pulled."),
    ),
    "configuration": (
        server(pod=pod({"state": {"waiting": {"reason": "CreateContainerConfigError", "message": "no secret"}}})),
        failed("The container cannot be created: no secret"),
    ),
    "no memory free": (
        server(pod=pod(None, unschedulable("0/2 nodes are available: 2 Insufficient memory."))),
        failed("No node has 64 GiB of memory free. (0/2 nodes are available: 2 Insufficient memory.)", T1),
    ),
    "neither memory nor cpu free": (
        server(pod=pod(None, unschedulable("1 Insufficient cpu, 1 Insufficient memory."))),
        failed("No node has 64 GiB of memory and 250m of cpu free. (1 Insufficient cpu, 1 Insufficient memory.)", T1),
    ),
    "no node allowed": (
        server(pod=pod(None, unschedulable("2 node(s) had untolerated taint(s)"))),
        failed("No node can take the server. (2 node(s) had untolerated taint(s))", T1),
    ),
    "disk on another node": (
        server(pod=pod(None, unschedulable("1 node(s) had volume node affinity conflict"))),
        failed(
            "The node that holds the disk cannot take the server. (1 node(s) had volume node affinity conflict)", T1
        ),
    ),
    "claim unbound": (
        server(claim=PENDING_CLAIM, pod=pod(None, unschedulable("pod has unbound immediate PersistentVolumeClaims"))),
        failed("The disk is not bound. (pod has unbound immediate PersistentVolumeClaims)", T1),
    ),
    "evicted": (
        server(pod=pod({}, phase="Failed", reason="Evicted", message="The node was low on resource: memory.")),
        failed("The node was low on resource: memory."),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_state(case: str) -> None:
    """Each situation has one state, with its reason and its time."""
    objects, expected = CASES[case]
    assert state_of(objects) == expected


SECURITY = (
    'create Pod server-1-0 in StatefulSet server-1 failed error: pods "server-1-0" is forbidden: violates PodSecurity '
    '"restricted:latest": allowPrivilegeEscalation != false'
)
NO_CLASS = 'storageclass.storage.k8s.io "nope" not found'
EVENTS: dict[str, tuple[ServerObjects, list[dict[str, Any]], State]] = {
    "pod security": (
        server(),
        [event("FailedCreate", SECURITY)],
        failed('Pod security refused the server\'s pod: "restricted:latest": allowPrivilegeEscalation != false', T1),
    ),
    "a refusal before the last pod": (
        server(),
        [event("FailedCreate", SECURITY), event("SuccessfulCreate")],
        State("starting", None, T0, "running"),
    ),
    "quota": (
        server(),
        [event("FailedCreate", "create Pod failed error: exceeded quota: mem, requested: 4Gi")],
        failed("A quota refused the server's pod: mem, requested: 4Gi", T1),
    ),
    "no storage class": (
        server(claim=PENDING_CLAIM, pod=pod(None, unschedulable("unbound"))),
        [event("ProvisioningFailed", NO_CLASS)],
        failed(f"The disk is not bound: {NO_CLASS}", T1),
    ),
    "disk cannot be mounted": (
        server(pod=pod({"state": {"waiting": {"reason": "ContainerCreating"}}})),
        [event("Scheduled"), event("FailedMount", "no such device")],
        failed("The disk cannot be mounted: no such device", T1),
    ),
    "no sandbox": (
        server(pod=pod({"state": {"waiting": {"reason": "ContainerCreating"}}})),
        [event("FailedCreatePodSandBox", "no IP addresses available in range set")],
        failed("The node cannot prepare the server's pod: no IP addresses available in range set", T1),
    ),
    "a kubelet that asks for a Secret again": (
        server(pod=pod({"state": {"waiting": {"reason": "ContainerCreating"}}})),
        [
            event(
                "FailedMount",
                'MountVolume.SetUp failed for volume "rcon" : failed to sync secret cache: '
                "timed out waiting for the condition",
            )
        ],
        State("starting", None, T0, "running"),
    ),
}


LOADING = {"name": "game", "state": {"waiting": {"reason": "PodInitializing"}}}
ADDED = "The container mesh, which the cluster has added to the server's pod, does not start: back-off 5m0s"
MESH = {"name": "mesh", "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s"}}}
SLOW_MESH = {"name": "mesh", "state": {"running": {"startedAt": T0}}}
ANSWERS = {"name": "game", "started": True, "ready": True, "state": {"running": {"startedAt": T0}}}
NOT_ALL_READY = {"type": "ContainersReady", "status": "False", "lastTransitionTime": T2}
GATE = 'corresponding condition of pod readiness gate "lb" does not exist.'
CLOSED = {**NOT_READY, "reason": "ReadinessGatesNotReady", "message": GATE}


@pytest.mark.parametrize(
    ("pod", "expected"),
    [
        (pod({}, NOT_READY, containerStatuses=[LOADING], initContainerStatuses=[MESH]), failed(ADDED)),
        (pod({}, NOT_READY, containerStatuses=[LOADING]), State("starting", None, T0, "running")),
        (pod({}, NOT_READY, NOT_ALL_READY, containerStatuses=[MESH, ANSWERS]), failed(ADDED, T2)),
        (
            pod({}, NOT_READY, NOT_ALL_READY, containerStatuses=[SLOW_MESH, ANSWERS]),
            State("starting", "The game answers, but waits for another container of its pod.", T2, "running"),
        ),
        (
            pod(ANSWERS, CLOSED, {"type": "ContainersReady", "status": "True"}),
            State(
                "starting", f"The game answers, but waits for a readiness gate of the cluster: {GATE}", T2, "running"
            ),
        ),
    ],
    ids=["init container", "initializing", "sidecar", "slow sidecar", "readiness gate"],
)
def test_what_the_cluster_has_added_to_a_pod_is_not_the_games_fault(pod: dict[str, Any], expected: State) -> None:
    """Meshes add containers, and load balancers gates. Neither is a lost node or a hanging game."""
    assert state_of(server(pod=pod, nodes={"node2": node()})) == expected


@pytest.mark.parametrize("end", [{"reason": "Unknown", "exitCode": 255}, {"reason": "ContainerStatusUnknown"}])
def test_a_game_that_its_node_lost_has_not_crashed(end: dict[str, Any]) -> None:
    """As after a reset of the node: containerd makes the exit code up, and the log says nothing about it."""
    lost = {"terminated": {**end, "finishedAt": T2}}
    ended = "Its node restarted or lost track of the game. How the game ended is unknown."
    again = {"started": False, "state": {"running": {"startedAt": T2}}, "lastState": lost}
    assert state_of(server(pod=pod({"state": lost}, NOT_READY))) == failed(ended, T2)
    assert state_of(server(pod=pod(again, NOT_READY))) == State(
        "starting", f"The last attempt ended: {ended}", T2, "running"
    )


def test_events_of_an_earlier_servers_pod_are_ignored() -> None:
    """It had the same name; its Secret was removed before it was mounted."""
    present = server(
        pod=pod({"state": {"waiting": {"reason": "ContainerCreating"}}}, metadata={"uid": "present"}),
    )
    failure = event("FailedMount", "no such secret")
    current, earlier = ({**failure, "involvedObject": {"uid": uid}} for uid in ("present", "earlier"))
    assert state_of(replace(present, events=(current,))) == failed("The disk cannot be mounted: no such secret", T1)
    assert state_of(replace(present, events=(earlier,))) == state_of(present) == State("starting", None, T0, "running")


@pytest.mark.parametrize("case", EVENTS)
def test_state_with_events(case: str) -> None:
    """Some reasons are only in events."""
    objects, events, expected = EVENTS[case]
    assert state_of(replace(objects, events=tuple(events))) == expected


def test_the_last_log_lines_are_added_to_the_reason() -> None:
    """Without empty lines. A full disk comes first."""
    crashed = failed("The game crashed (exit code 1).", crashed=True)
    assert with_log(crashed, "a\n\n b \n").reason == "The game crashed (exit code 1). Its last log lines: a | b"
    assert with_log(crashed, "") == crashed
    full = with_log(crashed, "world: No space left on device").reason
    assert full is not None
    assert full.startswith("The disk is full. The game crashed")
    # The agent may have said so already.
    assert with_log(
        replace(crashed, reason=f"The disk is full. {crashed.reason}"), "No space left on device"
    ).reason == ("The disk is full. The game crashed (exit code 1). Its last log lines: No space left on device")


def test_a_kept_disk_is_no_server() -> None:
    """Nor are the revisions of an uninstalled release."""
    assert not exists(ServerObjects(1, claim=CLAIM))
    assert not exists(ServerObjects(1, releases=releases("uninstalled")))
    assert exists(ServerObjects(1, releases=releases("failed")))
    assert exists(ServerObjects(1, statefulset=statefulset()))


# -- a node that is lost -----------------------------------------------------------------------------------


def node(status: str = "True", *taints: dict[str, Any], cordoned: bool = False) -> dict[str, Any]:
    ready = {"type": "Ready", "status": status, "lastTransitionTime": T1, "message": "the runtime is down"}
    return {
        "metadata": {"name": "node2"},
        "spec": {"unschedulable": cordoned, "taints": list(taints)},
        "status": {"conditions": [ready]},
    }


RUNS = {"started": True, "state": {"running": {"startedAt": T0}}}
LOADS = {"started": False, "state": {"running": {"startedAt": T0}}}
DELETED = {"deletionTimestamp": T2, "deletionGracePeriodSeconds": 0}
LOST = [NOT_READY, {"type": "ContainersReady", "status": "True"}]
SILENT = f"Its node node2 has not answered since {T1}."
EVICTED = " Kubernetes has given up on the game there. Once the node is back, the game starts again."
UNKNOWN_END = " Whether the game has stopped is unknown until the node is back or is removed."
ALIVE, GONE = {"node2": node()}, {"node1": node()}
NODES: dict[str, tuple[ServerObjects, State]] = {
    "lost while it ran": (server(pod=pod(RUNS, *LOST)), failed(SILENT, T1)),
    "lost while it loaded": (server(pod=pod(LOADS, NOT_READY)), failed(SILENT, T1)),
    "lost, and the pod is being deleted": (
        server(pod=pod(RUNS, *LOST, metadata=DELETED)),
        failed(SILENT + EVICTED, T1),
    ),
    "lost and stopped": (
        server(statefulset=statefulset(0), pod=pod(RUNS, *LOST, metadata=DELETED)),
        State("stopping", SILENT + UNKNOWN_END, T2, "stopped"),
    ),
    "lost and deleted": (
        server(statefulset=None, releases=(), pod=pod(RUNS, *LOST, metadata=DELETED)),
        State("deleting", SILENT + UNKNOWN_END, T2, "deleted"),
    ),
    "lost and being uninstalled": (
        server(releases=releases("uninstalling"), pod=pod(RUNS, *LOST)),
        State("deleting", SILENT + UNKNOWN_END, T0, "deleted"),
    ),
}


@pytest.mark.parametrize("case", NODES)
def test_a_lost_node_is_named_while_it_is_lost(case: str) -> None:
    """Whatever the desired state, with its name and since when, and no longer."""
    objects, expected = NODES[case]
    assert state_of(replace(objects, nodes={"node2": node("Unknown")})) == expected
    assert SILENT not in (state_of(replace(objects, nodes=ALIVE)).reason or "")
    removed = state_of(replace(objects, nodes=GONE))
    assert removed.state == expected.state
    assert (removed.reason or "").startswith("Its node node2 is no longer part of the cluster.")
    unready = state_of(replace(objects, nodes={"node2": node("False")}))
    assert (unready.reason or "").startswith(f"Its node node2 has not been ready since {T1}: the runtime is down")


def test_nodes_are_read_only_if_the_state_depends_on_them() -> None:
    """Not for servers that run or have no pod, so a list of two thousand servers does not read them."""

    class Unread(dict[str, Any]):
        def __bool__(self) -> bool:
            raise AssertionError

        __contains__ = __getitem__ = __bool__  # type: ignore[assignment]

    for objects in (
        server(pod=pod(RUNS, READY)),
        server(),
        server(statefulset=statefulset(0)),
        server(statefulset=statefulset(0), pod=pod(RUNS, READY, metadata=DELETED)),
    ):
        state_of(replace(objects, nodes=Unread()))


@pytest.mark.parametrize(
    ("condition_reason", "reason"),
    [
        ("PreemptionByScheduler", "The server is making room for one with a higher priority."),
        ("EvictionByEvictionAPI", "The server's node is being drained."),
        ("DeletionByTaintManager", "The server's node no longer accepts servers."),
        ("SomethingNew", None),
    ],
)
def test_if_kubernetes_stops_the_pod_the_reason_says_why(condition_reason: str, reason: str | None) -> None:
    """It comes from the pod's condition."""
    disrupted = {"type": "DisruptionTarget", "status": "True", "reason": condition_reason}
    ending = server(pod=pod(RUNS, READY, disrupted, metadata=DELETED))
    assert state_of(ending) == State("stopping", reason, T2, "running")


def test_an_evicted_pod_failed_when_it_ended() -> None:
    """Not when it started."""
    ended = {"state": {"terminated": {"exitCode": 137, "finishedAt": T2}}}
    evicted = server(pod=pod(ended, phase="Failed", message="The node was low on resource: memory."))
    assert state_of(evicted) == failed("The node was low on resource: memory.", T2)


EXCEEDED = "Pod ephemeral local storage usage exceeds the total limit of containers 20Mi. "
EVICTION = f"The server's node stopped it: {EXCEEDED.strip()}"


def test_a_pod_that_its_node_ended_has_not_ended_by_itself() -> None:
    """Also if its game saved and exited with 0, after which the phase is Succeeded and only an event says more."""
    over = pod({"state": ended(0, START, AFTER_20)}, ready_until(AFTER_20), metadata={"uid": "pod"}, phase="Succeeded")
    evicted = {**event("Evicted", EXCEEDED), "involvedObject": {"uid": "pod"}}
    of_another = {**evicted, "involvedObject": {"uid": "another"}}
    assert state_of(server(pod=over, events=(evicted,))) == failed(EVICTION, AFTER_20)
    assert state_of(server(pod=over, events=(of_another,))) == failed("The server's node stopped it.", AFTER_20)
    assert start_failure(server(pod=over, events=(evicted,))) == f"Its last start failed: {EVICTION}"
    goes = {**over, "metadata": {**over["metadata"], **DELETED}}
    assert state_of(server(pod=goes, events=(evicted,))) == State("stopping", EVICTION, T2, "running")
    assert state_of(server(pod=goes)) == State("stopping", None, T2, "running"), "as after any stop"
    assert "Evicted" in READ_EVENTS


ENDED = {"state": {"terminated": {"exitCode": 0, "finishedAt": T1}}}
HELD = {**DELETED, "finalizers": ["example.com/x"]}
NOT_ENDED = f"Its node node2 has not ended the game, which had time until {T2}."
IS_HELD = "The game no longer runs, but its pod cannot go before its finalizers do: example.com/x."
NOT_CLEANED = "The game no longer runs, but its node node2 has not cleaned up after its pod."


@pytest.mark.parametrize(
    ("ending", "reason"),
    [
        (pod(RUNS, READY, metadata=DELETED), NOT_ENDED),
        (pod(RUNS, READY, metadata=HELD), NOT_ENDED),
        (pod(ENDED, NOT_READY, metadata=HELD, phase="Succeeded"), IS_HELD),
        (pod(metadata=HELD), IS_HELD),
        (pod(ENDED, NOT_READY, metadata=DELETED, phase="Succeeded"), NOT_CLEANED),
        (pod(metadata=DELETED), None),
    ],
)
def test_a_pod_that_does_not_go_says_what_keeps_it(
    ending: dict[str, Any], reason: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the desired state, from a minute after its end was due."""
    stops = server(statefulset=statefulset(0), pod=ending, nodes=ALIVE)
    goes = server(statefulset=None, releases=(), pod=ending, nodes=ALIVE)
    starts = server(pod=ending, nodes=ALIVE)
    former = server(pod=None, former_pod=ending, claim=CLAIM)
    assert [state_of(each).reason for each in (stops, goes, starts)] == [None] * 3
    monkeypatch.setattr(reasons, "CLEANUP", timedelta(minutes=1))
    assert state_of(stops) == State("stopping", reason, T2, "stopped")
    assert state_of(goes) == State("deleting", reason, T2, "deleted")
    assert state_of(starts) == State("stopping", reason, T2, "running")
    assert (state_of(former).reason or "").endswith(reason or "This one starts then.")
    due = stamp(datetime.now(UTC) - timedelta(seconds=5))
    on_its_way = {**ending, "metadata": {**ending["metadata"], "deletionTimestamp": due}}
    assert state_of(replace(stops, pod=on_its_way)).reason is None


def test_a_restart_for_a_change_is_named_while_the_old_pod_stops() -> None:
    """A pod that a change leaves alone is not outdated."""
    old = pod(RUNS, READY, metadata={**DELETED, "labels": {"controller-revision-hash": "old"}})
    updated = {**statefulset(), "status": {"updateRevision": "new"}}
    assert state_of(server(statefulset=updated, pod=old)) == State(
        "stopping", "The server is restarting to apply a change.", T2, "running"
    )
    left_alone = {**updated, "spec": {"replicas": 1, "updateStrategy": {"rollingUpdate": {"partition": 1}}}}
    runs = pod(RUNS, READY, metadata={"labels": {"controller-revision-hash": "old"}})
    assert state_of(server(statefulset=left_alone, pod=runs)) == State("running", None, T1, "running")


# -- how a run ended ---------------------------------------------------------------------------------------


def ended(code: int, started: str, finished: str) -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "startedAt": started, "finishedAt": finished}}


START, AFTER_5, AFTER_16, AFTER_20 = (f"2026-01-31T12:00:{second:02}Z" for second in (10, 15, 26, 30))
SLOW = "The game did not answer within 20 s of its start and was stopped."
ENDED_BY_ITSELF = "The game ended by itself (exit code 0)."


def ready_until(finished: str) -> dict[str, Any]:
    """The Ready condition of a pod that was ready until `finished`."""
    return {**NEVER, "lastTransitionTime": finished}


@pytest.mark.parametrize(
    ("code", "finished", "ready", "reason"),
    [
        (0, AFTER_16, NEVER, SLOW),
        (143, AFTER_20, NEVER, SLOW),
        (137, AFTER_20, NEVER, SLOW),
        # Its save failed as it was stopped.
        (1, AFTER_20, NEVER, SLOW),
        # Before the last probe.
        (0, AFTER_5, NEVER, ENDED_BY_ITSELF),
        (1, AFTER_5, NEVER, "The game crashed (exit code 1)."),
        # It had answered.
        (1, AFTER_20, ready_until(AFTER_20), "The game crashed (exit code 1)."),
        (137, AFTER_20, ready_until(AFTER_20), "The game crashed (exit code 137)."),
    ],
)
def test_a_start_that_timed_out_is_no_crash(code: int, finished: str, ready: dict[str, Any], reason: str) -> None:
    """It follows from the run's duration and whether it was ever ready, also during and after a back-off."""
    end = ended(code, START, finished)
    assert state_of(server(pod=pod({"state": end}, ready))).reason == reason
    waits = state_of(server(pod=pod({**BACK_OFF_STATE, "lastState": end}, ready)))
    assert (waits.state, waits.since) == ("failed", finished)
    assert (waits.reason or "").startswith(f"{reason} It {'ends' if code == 0 else 'crashes'} again and again")
    again = {"started": False, "state": {"running": {"startedAt": T2}}, "lastState": end}
    starts = state_of(server(pod=pod(again, ready)))
    assert starts == State("starting", f"The last attempt ended: {reason}", T2, "running")


BACK_OFF_STATE = {"state": BACK_OFF}


def test_a_game_that_ends_by_its_own_command_has_not_crashed() -> None:
    """It had answered and exited with 0. Kubernetes starts it again, immediately or after a while."""
    end, ready = ended(0, START, AFTER_20), ready_until(AFTER_20)
    ended_ = state_of(server(pod=pod({"state": end}, ready)))
    assert ended_ == State("starting", f"{ENDED_BY_ITSELF} Kubernetes starts it again.", AFTER_20, "running")
    waits = state_of(server(pod=pod({**BACK_OFF_STATE, "lastState": end}, ready)))
    slower = " Kubernetes starts it again, but waits longer before each new start, up to five minutes."
    assert waits == State("starting", ENDED_BY_ITSELF + slower, AFTER_20, "running")
    again = {"started": False, "state": {"running": {"startedAt": T2}}, "lastState": end}
    loads = state_of(server(pod=pod(again, ready)))
    assert loads == State("starting", f"{ENDED_BY_ITSELF} Kubernetes has started it again.", T2, "running")


# -- after a stop ------------------------------------------------------------------------------------------


DUE_BY_HAND = '{"pod": "uid", "at": "x", "reason": null, "due": "soon"}'


def stopped(stop: Stop | None, **parts: Any) -> ServerObjects:
    annotations = {} if stop is None else {"gameserver/last-stop": stop.as_text()}
    return server(statefulset=statefulset(0, annotations=annotations), **parts)


def test_a_stopped_server_says_how_its_stop_went() -> None:
    """Until the next start, with the time at which the game ended. A malformed annotation is ignored."""
    assert state_of(stopped(Stop("uid", T2, "It was killed."))) == State("stopped", "It was killed.", T2, "stopped")
    assert state_of(stopped(Stop("uid", T2, None))) == State("stopped", None, T2, "stopped")
    for text in ("", "{", "[]", "7", '{"pod": 1, "at": "x", "reason": null}', '{"at": "x"}', DUE_BY_HAND):
        by_hand = server(statefulset=statefulset(0, annotations={"gameserver/last-stop": text}))
        assert state_of(by_hand) == State("stopped", None, T0, "stopped")
    runs = statefulset(1, annotations={"gameserver/last-stop": Stop("uid", T2, "It was killed.").as_text()})
    assert state_of(server(statefulset=runs, pod=pod(RUNS, READY))) == State("running", None, T1, "running")


def test_a_server_is_stopping_until_its_stop_is_recorded() -> None:
    """Its pod may disappear before that. If no replica saw the end, the server counts as stopped a little later."""
    now = datetime.now(UTC)
    soon, long_ago = stamp(now + timedelta(seconds=30)), stamp(now - timedelta(seconds=60))
    assert state_of(stopped(Stop("uid", T2, None, soon))) == State("stopping", None, T2, "stopped")
    assert state_of(stopped(Stop("uid", T2, None, long_ago))) == State("stopped", None, T2, "stopped")


def test_a_server_that_never_ran_is_stopped_since_its_creation() -> None:
    """A later change is no stop. Of a server that may have run, nobody knows when it stopped without being seen."""
    changed = tuple({**release, "creationTimestamp": T2} for release in releases("superseded", "deployed"))
    assert state_of(stopped(None, claim=PENDING_CLAIM, releases=changed)).since == T0
    created = server(statefulset=statefulset(0, generation=1), releases=changed)
    assert state_of(created).since == T0
    later = replace(created, statefulset=statefulset(0, generation=2))
    assert state_of(later) == State("stopped", None, None, "stopped")
    assert state_of(replace(later, claim=PENDING_CLAIM)).since == T0


# -- since -------------------------------------------------------------------------------------------------


def test_an_install_has_failed_since_it_failed() -> None:
    """Not since it began."""
    late = {"labels": {"status": "failed", "version": "1", "modifiedAt": "1769860920"}, "creationTimestamp": T0}
    assert state_of(server(statefulset=None, releases=(late,))).since == T2


def test_a_deletion_began_when_it_was_requested() -> None:
    """Although the pod was stopping already, and the release is older."""
    kept = {"metadata": {"annotations": {"gameserver/kept-since": T2}}, "status": {"phase": "Bound"}}
    ends = pod(RUNS, READY, metadata={"deletionTimestamp": T1})
    assert state_of(server(statefulset=None, releases=(), pod=ends, claim=kept)).since == T2
    assert state_of(server(releases=releases("uninstalling"), claim=kept)).since == T2


def test_an_old_refusal_counts_from_the_last_start() -> None:
    """A refusal after the start counts from when it began, not from when it was last repeated."""
    refused = replace(server(), events=(event("FailedCreate", "exceeded quota: mem"),))
    assert state_of(refused).since == T1
    later = tuple({**release, "creationTimestamp": T2} for release in releases("deployed"))
    assert state_of(replace(refused, releases=later)).since == T2


# -- no node -----------------------------------------------------------------------------------------------

OTHER = "1 node(s) didn't match PersistentVolume's node affinity"
HELD = {
    "metadata": {"annotations": {"volume.kubernetes.io/selected-node": "node2"}},
    "status": {"phase": "Bound"},
}
CORDONED = f"0/2 nodes are available: {OTHER}, 1 node(s) were unschedulable."
FULL = f"0/2 nodes are available: 1 Insufficient memory, {OTHER}."
ZONE = "0/6 nodes are available: 2 Insufficient memory, 4 node(s) didn't match PersistentVolume's node affinity."
SHORT = "0/3 nodes are available: 3 Insufficient memory."
BOTH = "0/2 nodes are available: 1 Insufficient memory, 1 node(s) were unschedulable."
TAINTED = "1 node(s) had untolerated taint(s)"
PORTS = "1 node(s) didn't have free ports for the requested pod ports"
OTHER_CHOSEN = "1 node(s) didn't find available persistent volumes to bind"
OUT_OF_ZONE = "0/6 nodes are available: 2 Insufficient memory, 4 node(s) had no available volume zone."
NO_ZONE = "0/6 nodes are available: 6 node(s) didn't match PersistentVolume's node affinity."
#: What Kubernetes 1.35 adds, if a preemption does not help.
TAIL = (
    " no new claims to deallocate, preemption: 0/2 nodes are available:"
    f" 1 Insufficient memory, {OTHER}, 1 Preemption is not helpful for scheduling."
)
REPLACED = "node2, which was chosen for its disk, is no longer part of the cluster"
HOLDER = "The node that holds the disk, node2, cannot take the server"


@pytest.mark.parametrize(
    ("claim", "nodes", "message", "reason"),
    [
        (HELD, {"node2": node(cordoned=True)}, CORDONED, f"{HOLDER}: it is cordoned."),
        (HELD, {"node2": node("Unknown")}, CORDONED, f"{HOLDER}: it does not answer."),
        (HELD, GONE, f"0/1 nodes are available: {OTHER}.", f"{HOLDER}: it is no longer part of the cluster."),
        (HELD, {"node2": node()}, FULL, f"{HOLDER}: it does not have 64 GiB of memory free."),
        (HELD, {}, CORDONED, f"{HOLDER}."),
        (CLAIM, {}, CORDONED, "The node that holds the disk cannot take the server."),
        (
            HELD,
            {"node2": node(cordoned=True)},
            BOTH,
            "No node can take the server; node2, which was chosen for its disk, is cordoned.",
        ),
        # A network disk outlives the node that was chosen for it, so first comes what is missing now.
        (HELD, GONE, SHORT, f"No node has 64 GiB of memory free; {REPLACED}."),
        (HELD, GONE, BOTH, f"No node has 64 GiB of memory free; {REPLACED}."),
        (
            HELD,
            GONE,
            "0/2 nodes are available: 2 node(s) had untolerated taint(s).",
            f"No node can take the server; {REPLACED}.",
        ),
        (HELD, {"node2": node()}, SHORT, "No node has 64 GiB of memory free."),
        (HELD, {"node2": node()}, ZONE, "No node that can use the disk has 64 GiB of memory free."),
        (HELD, {"node2": node()}, OUT_OF_ZONE, "No node that can use the disk has 64 GiB of memory free."),
        (HELD, {"node2": node()}, NO_ZONE, "No node can use the disk."),
        # What one node lacks is not why another one cannot take the server.
        (CLAIM, {}, f"0/2 nodes are available: 1 Insufficient memory, {PORTS}.", "No node can take the server."),
        (
            CLAIM,
            {},
            f"0/2 nodes are available: 1 Insufficient memory, 1 Too many pods, 2 Insufficient cpu.{TAIL}",
            "No node has 64 GiB of memory and 250m of cpu free and room for another pod.",
        ),
        (
            CLAIM,
            {},
            f"0/2 nodes are available: 2 Insufficient example.com/gpu.{TAIL}",
            "No node has enough example.com/gpu free.",
        ),
        (
            {**CLAIM, "spec": {"volumeName": "pv-1"}},
            {},
            "0/1 nodes are available: 1 node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s).",
            "The disk's volume, pv-1, is missing.",
        ),
        (
            {**CLAIM, "metadata": {"deletionTimestamp": T1}},
            {},
            f'0/1 nodes are available: persistentvolumeclaim "server-1" is being deleted.{TAIL}',
            "The server's disk, the claim server-1, is being deleted.",
        ),
        # A disk that does not exist yet, for which the scheduler has chosen a node.
        (
            {**PENDING_CLAIM, "metadata": HELD["metadata"]},
            {"node2": node(cordoned=True)},
            f"0/3 nodes are available: {OTHER_CHOSEN}, 1 node(s) were unschedulable, {TAINTED}.",
            "The node that was chosen for the disk, node2, cannot take the server: it is cordoned.",
        ),
        (None, {}, 'persistentvolumeclaim "server-1" not found', "The server's disk, the claim server-1, is missing."),
    ],
)
def test_a_disk_on_a_node_that_cannot_take_the_server(
    claim: dict[str, Any] | None, nodes: dict[str, Any], message: str, reason: str
) -> None:
    """The reason has the node's name, what is wrong with it, and Kubernetes' own message."""
    waits = server(claim=claim, nodes=nodes, pod=pod(None, unschedulable(message)))
    assert state_of(waits) == failed(f"{reason} ({message})", T1)


def test_the_node_that_has_the_disk_is_the_volumes_not_the_one_that_was_once_chosen() -> None:
    """A volume knows it by its host name, which may be another than its name. See `Hosts.node_of`."""
    holder = {**node(cordoned=True), "metadata": {"name": "node1", "labels": {"kubernetes.io/hostname": "node1.lan"}}}
    waits = server(claim=HELD, nodes={"node1": holder, "node2": node()}, pod=pod(None, unschedulable(CORDONED)))
    waits = replace(waits, node_of=lambda claim: DiskNode("node1.lan", only=True))
    reason = f"The node that holds the disk, node1.lan, cannot take the server: it is cordoned. ({CORDONED})"
    assert state_of(waits) == failed(reason, T1)


@pytest.mark.tools
def test_the_scheduler_that_runs_words_its_reasons_so() -> None:
    """Most are too much work to bring about in a cluster: full nodes, zones, volumes that are gone."""
    other_versions = {"node(s) had volume node affinity conflict"}
    texts = {
        *reasons._NOT_FOR_SERVERS,
        *(f"Insufficient {name}" for name in reasons._RESOURCES),
        *reasons._ROOM,
        *reasons._CANNOT_USE_DISK,
        *(reasons._NO_DISK_SPACE, reasons._NOT_CHOSEN, reasons._NO_VOLUME),
        *("is being deleted", "unbound immediate PersistentVolumeClaims", "nodes are available"),
    }
    scheduler = (ROOT / ".local" / "bin" / "kubectl").resolve().with_name("kube-scheduler").read_bytes()
    assert {text for text in texts if text.encode() not in scheduler} == other_versions


PRESSURE = {"key": "node.kubernetes.io/disk-pressure", "effect": "NoSchedule"}
DEDICATED = {"key": "dedicated", "value": "games", "effect": "NoExecute"}
THREE = f"0/3 nodes are available: {OTHER}, {TAINTED}"


@pytest.mark.parametrize(
    ("nodes", "message", "cause"),
    [
        # A control plane is tainted, and the third node is another one or full: no message says which node it is about.
        ({"node2": node(cordoned=True)}, f"{THREE}, 1 node(s) were unschedulable.", "it is cordoned"),
        (
            {"node2": node(cordoned=True)},
            f"0/3 nodes are available: 1 Insufficient memory, {OTHER}, 1 node(s) were unschedulable.",
            "it is cordoned",
        ),
        (
            {"node2": node("Unknown")},
            f"0/3 nodes are available: {OTHER}, 2 node(s) had untolerated taint(s).",
            "it does not answer",
        ),
        (GONE, SHORT, "it is no longer part of the cluster"),
        ({"node2": node()}, f"{THREE}, 1 Insufficient memory.{TAIL}", "it does not have 64 GiB of memory free"),
        ({"node2": node()}, SHORT, "it does not have 64 GiB of memory free"),
        ({"node2": node()}, f"{THREE}, 1 Too many pods.", "it does not have room for another pod"),
        (
            {"node2": node()},
            f"{THREE}, 1 node(s) exceed max volume count.",
            "it does not have room for another volume",
        ),
        (
            {"node2": node("True", {**DEDICATED, "effect": "PreferNoSchedule"}, PRESSURE)},
            f"0/3 nodes are available: 1 Insufficient memory, {OTHER}, {TAINTED}.",
            "it has the taint node.kubernetes.io/disk-pressure:NoSchedule, which the server does not tolerate",
        ),
        (
            {"node2": node("True", DEDICATED)},
            f"0/3 nodes are available: {OTHER}, 1 node(s) were unschedulable, "
            "1 node(s) had untolerated taint {dedicated: games}.",
            "it has the taint dedicated=games:NoExecute, which the server does not tolerate",
        ),
        # Nobody can tell which of the two is the node with the disk.
        ({"node2": node()}, f"0/3 nodes are available: 1 Insufficient memory, {OTHER}, {PORTS}.", None),
        ({}, f"0/3 nodes are available: 1 Insufficient memory, {OTHER}, 1 node(s) were unschedulable.", None),
        # What a preemption lacks is not why the node cannot take the server.
        ({"node2": node()}, f"{THREE}, {PORTS}.{TAIL}", None),
    ],
)
def test_the_only_node_that_can_use_the_disk_is_named_however_many_others_there_are(
    nodes: dict[str, Any], message: str, cause: str | None
) -> None:
    """The reason says what is wrong with that node, and not what the scheduler says about others."""
    waits = server(
        nodes=nodes, pod=pod(None, unschedulable(message)), node_of=lambda claim: DiskNode("node2", only=True)
    )
    assert state_of(waits) == failed(f"{HOLDER}{f': {cause}' if cause else ''}. ({message})", T1)


@pytest.mark.parametrize(
    ("toleration", "tolerated"),
    [
        ({"key": "dedicated", "value": "games", "effect": "NoExecute"}, True),
        ({"key": "dedicated", "operator": "Equal", "value": "games"}, True),
        ({"key": "dedicated", "operator": "Exists"}, True),
        ({"operator": "Exists"}, True),
        ({"key": "dedicated", "value": "databases"}, False),
        ({"key": "dedicated", "operator": "Exists", "effect": "NoSchedule"}, False),
        ({"key": "other", "operator": "Exists"}, False),
    ],
)
def test_a_taint_that_the_server_tolerates_is_no_cause(toleration: dict[str, str], tolerated: bool) -> None:
    """It says as the scheduler does which tolerations are for a taint."""
    message = f"0/3 nodes are available: 1 Insufficient memory, {OTHER}, {TAINTED}."
    waits = pod(None, unschedulable(message))
    waits["spec"]["tolerations"] = [toleration]
    holder = DiskNode("node2", only=True)
    reason = state_of(server(nodes={"node2": node("True", DEDICATED)}, pod=waits, node_of=lambda claim: holder)).reason
    cause = "does not have 64 GiB of memory free" if tolerated else "has the taint dedicated=games:NoExecute"
    assert (reason or "").startswith(f"{HOLDER}: it {cause}")


@pytest.mark.parametrize(
    ("waiting_reason", "message", "reason"),
    [
        # The messages of containerd and the kubelet.
        ("ErrImagePull", 'failed to resolve reference "a/b:1": a/b:1: not found', "The image a/b:1 was not found."),
        (
            "ImagePullBackOff",
            'Back-off pulling image "a/b:1": ErrImagePull: pull access denied, repository does not exist or may '
            "require authorization: server message: insufficient_scope: authorization failed",
            "The registry refused the image a/b:1.",
        ),
        (
            "ErrImagePull",
            'failed to pull and unpack image "a/b:1": no match for platform in manifest: not found',
            "The image a/b:1 has no version for its node's kind of processor.",
        ),
        ("ImageInspectError", "broken pipe", "The image a/b:1 cannot be pulled. broken pipe"),
        ("ErrImagePull", "unexpected status from HEAD request: 403 Forbidden", "The registry refused the image a/b:1."),
    ],
)
def test_an_image_that_cannot_be_pulled(waiting_reason: str, message: str, reason: str) -> None:
    """The reason says what the registry answered, since when the kubelet could pull."""
    sandbox = {"type": "PodReadyToStartContainers", "status": "True", "lastTransitionTime": T1}
    waiting = {"image": "a/b:1", "state": {"waiting": {"reason": waiting_reason, "message": message}}}
    assert state_of(server(pod=pod(waiting, sandbox))) == failed(reason, T1)


def test_a_mount_failure_is_over_once_the_sandbox_exists() -> None:
    """Volumes are mounted before it. A failure to mount RCON's password names the Secret, not the disk."""
    waits = {"state": {"waiting": {"reason": "ContainerCreating"}}}
    failure = event("FailedMount", 'MountVolume.SetUp failed for volume "rcon" : secret "server-1-rcon" not found')
    blocked = replace(server(pod=pod(waits)), events=(failure,))
    assert (state_of(blocked).reason or "").startswith("The Secret with RCON's password cannot be mounted: ")
    sandbox = {"type": "PodReadyToStartContainers", "status": "True", "lastTransitionTime": T1}
    assert state_of(replace(blocked, pod=pod(waits, sandbox))) == State("starting", None, T0, "running")


def used(share: float, age: timedelta = timedelta(0)) -> Usage:
    """A disk of 10 GiB of which `share` was used some time ago."""
    return Usage(stamp(datetime.now(UTC) - age), True, used=int(share * 10 * 2**30), size=10 * 2**30)


@pytest.mark.parametrize(
    ("objects", "reason"),
    [
        (server(pod=pod({"started": True}, READY)), "The disk is full. The game may be unable to save."),
        (server(pod=pod({"state": CRASH})), "The disk is full. The game crashed (exit code 1)."),
        (
            server(pod=pod({"state": BACK_OFF, "lastState": CRASH})),
            f"The disk is full. The game crashed (exit code 1).{AGAIN}",
        ),
        (
            server(pod=pod({"state": {"running": {"startedAt": T2}}, "lastState": CRASH})),
            "The disk is full. The last attempt ended: The game crashed (exit code 1).",
        ),
        # Not what a full disk can cause, or nothing that needs a cause.
        (
            server(pod=pod({"image": "i", "state": {"waiting": {"reason": "InvalidImageName"}}})),
            "The image's name i is not valid.",
        ),
        (server(pod=pod({"started": False, "state": {"running": {"startedAt": T2}}})), None),
        (server(statefulset=statefulset(0)), None),
    ],
)
def test_a_full_disk_is_a_reason_of_a_game_that_runs_or_crashed(objects: ServerObjects, reason: str | None) -> None:
    """It comes first, and only while the agent says so."""
    without = state_of(objects)
    assert state_of(replace(objects, usage=used(1))) == replace(without, reason=reason)
    for usage in (used(0.99), used(1, timedelta(minutes=11)), Usage(T0, enforced=False)):
        assert state_of(replace(objects, usage=usage)) == without


NO_SPACE = "0/2 nodes are available: 2 node(s) did not have enough free storage."
NEW_CLAIM = {**PENDING_CLAIM, "spec": {"resources": {"requests": {"storage": "100Gi"}}}}
EXHAUSTED = "failed to provision volume: rpc error: code = ResourceExhausted desc = the pool has 3 GiB left"


@pytest.mark.parametrize(
    ("message", "event_message", "reason"),
    [
        (NO_SPACE, "", f"No node has 100 GiB of disk free. ({NO_SPACE})"),
        (
            f"{NO_SPACE} 1 Insufficient memory.",
            "",
            f"No node has 64Gi of memory and 100 GiB of disk free. ({NO_SPACE} 1 Insufficient memory.)",
        ),
        # The scheduler knows more than the attempt before, which was on one node.
        (NO_SPACE, EXHAUSTED, f"No node has 100 GiB of disk free. ({NO_SPACE})"),
        ("", EXHAUSTED, f"The storage has no room for the server's disk of 100 GiB. ({EXHAUSTED})"),
    ],
)
def test_no_node_has_room_for_the_disk(message: str, event_message: str, reason: str) -> None:
    """The reason has the size, and what the scheduler or the driver says."""
    events = (event("ProvisioningFailed", event_message),) if event_message else ()
    waits = server(claim=NEW_CLAIM, pod=pod(None, unschedulable(message)), events=events)
    assert state_of(waits) == failed(reason.replace("64Gi", "64 GiB"), T1)
