"""States and their reasons, from objects as the cluster has them."""

from __future__ import annotations

from typing import Any

import pytest

from service.objects import ServerObjects
from service.state import State, exists, state_of, with_log

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


def pod(
    container: dict[str, Any] | None = None,
    *conditions: dict[str, Any],
    metadata: dict[str, Any] | None = None,
    **status: Any,
) -> dict[str, Any]:
    resources = {"requests": {"memory": "64Gi", "cpu": "250m"}, "limits": {"memory": "4Gi"}}
    containers = [{"name": "game", **container}] if container is not None else []
    return {
        "metadata": {"creationTimestamp": T0, **(metadata or {})},
        "spec": {"containers": [{"name": "game", "resources": resources}]},
        "status": {"startTime": T0, "conditions": list(conditions), "containerStatuses": containers, **status},
    }


def server(**parts: Any) -> ServerObjects:
    return ServerObjects(
        **{"id": 1, "statefulset": statefulset(), "claim": CLAIM, "releases": releases("deployed"), **parts}
    )


def event(reason: str, message: str = "") -> dict[str, Any]:
    return {"reason": reason, "message": message}


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
OOM = {"terminated": {"reason": "OOMKilled", "exitCode": 137, "finishedAt": T2}}
CRASH = {"terminated": {"reason": "Error", "exitCode": 1, "finishedAt": T2}}
BACK_OFF = {"waiting": {"reason": "CrashLoopBackOff"}}
AGAIN = " It crashes again and again; Kubernetes waits longer before each new try."


def failed(reason: str, since: str | None = T0, **more: bool) -> State:
    return State("failed", reason, since, "running", **more)


CASES: dict[str, tuple[ServerObjects, State]] = {
    "install under way": (
        server(statefulset=None, releases=releases("pending-install")),
        State("creating", None, T0, "running"),
    ),
    "install failed before anything was made": (
        server(statefulset=None, releases=releases("failed")),
        failed("The install failed; the same create again, or a delete, mends it."),
    ),
    "StatefulSet taken away by hand": (
        server(statefulset=None),
        failed("The server's StatefulSet is missing; a start makes it again."),
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
    "stopping, the controller still asleep": (
        server(statefulset=statefulset(0), pod=pod({}, READY)),
        State("stopping", None, T0, "stopped"),
    ),
    "started while it still stops": (
        server(pod=pod({}, READY, metadata={"deletionTimestamp": T1})),
        State("stopping", None, T1, "running"),
    ),
    "no pod yet, disk unbound": (server(claim=PENDING_CLAIM), State("creating", None, T0, "running")),
    "no pod yet, disk bound": (server(), State("starting", None, T0, "running")),
    "image being pulled": (
        server(pod=pod({"state": {"waiting": {"reason": "ContainerCreating"}}})),
        State("starting", None, T0, "running"),
    ),
    "game loading its world": (
        server(pod=pod({"started": False, "state": {"running": {"startedAt": T1}}}, NOT_READY)),
        State("starting", None, T1, "running"),
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
        State("starting", "The server restarts to take a change.", T0, "running"),
    ),
    "running with an old template": (
        server(
            statefulset={**statefulset(), "status": {"updateRevision": "new"}},
            pod=pod({}, READY, metadata={"labels": {"controller-revision-hash": "old"}}),
        ),
        State("starting", "The server restarts to take a change.", T0, "running"),
    ),
    "running with an old template that it is to keep": (
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
    "no answer any more": (
        server(pod=pod({"started": True, "state": {"running": {"startedAt": T1}}}, NOT_READY)),
        failed("The game runs, but does not answer any more.", T2),
    ),
    "node lost": (
        server(
            pod=pod(
                {"started": True, "state": {"running": {"startedAt": T1}}},
                NOT_READY,
                {"type": "ContainersReady", "status": "True"},
            )
        ),
        failed("Its node does not answer.", T2),
    ),
    "out of memory": (
        server(pod=pod({"state": OOM})),
        failed("The game ran out of memory (its limit is 4 GiB).", T2),
    ),
    "out of memory again": (
        server(pod=pod({"state": BACK_OFF, "lastState": OOM})),
        failed(f"The game ran out of memory (its limit is 4 GiB).{AGAIN}", T2, previous=True),
    ),
    "trying again after out of memory": (
        server(pod=pod({"started": False, "state": {"running": {"startedAt": T2}}, "lastState": OOM})),
        State("starting", "The last try ended: The game ran out of memory (its limit is 4 GiB).", T2, "running"),
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
        failed("The container cannot be made: no secret"),
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
    """Each situation has its one state, with its reason and since when."""
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
        failed('Pod security refused the server\'s pod: "restricted:latest": allowPrivilegeEscalation != false'),
    ),
    "a refusal of before the last pod": (
        server(),
        [event("FailedCreate", SECURITY), event("SuccessfulCreate")],
        State("starting", None, T0, "running"),
    ),
    "quota": (
        server(),
        [event("FailedCreate", "create Pod failed error: exceeded quota: mem, requested: 4Gi")],
        failed("A quota refused the server's pod: mem, requested: 4Gi"),
    ),
    "no storage class": (
        server(claim=PENDING_CLAIM, pod=pod(None, unschedulable("unbound"))),
        [event("ProvisioningFailed", NO_CLASS)],
        failed(f"The disk is not bound: {NO_CLASS}", T1),
    ),
    "disk cannot be mounted": (
        server(pod=pod({"state": {"waiting": {"reason": "ContainerCreating"}}})),
        [event("Scheduled"), event("FailedMount", "no such device")],
        failed("The disk cannot be mounted: no such device"),
    ),
}


def test_events_of_an_earlier_servers_pod_say_nothing() -> None:
    """One of the same name, whose Secret was removed before it was mounted."""
    present = server(
        pod=pod({"state": {"waiting": {"reason": "ContainerCreating"}}}, metadata={"uid": "present"}),
    )
    refused = event("FailedMount", "no such secret")
    mine, earlier = ({**refused, "involvedObject": {"uid": uid}} for uid in ("present", "earlier"))
    assert state_of(present, [mine]) == failed("The disk cannot be mounted: no such secret")
    assert state_of(present, [earlier]) == state_of(present, []) == State("starting", None, T0, "running")


@pytest.mark.parametrize("case", EVENTS)
def test_state_with_events(case: str) -> None:
    """Some reasons are in events alone."""
    objects, events, expected = EVENTS[case]
    assert state_of(objects, events) == expected


def test_the_log_ends_the_reason() -> None:
    """Without empty lines, and a full disk comes first."""
    crashed = failed("The game crashed (exit code 1).", crashed=True)
    assert with_log(crashed, "a\n\n b \n").reason == "The game crashed (exit code 1). Its last lines: a | b"
    assert with_log(crashed, "") == crashed
    full = with_log(crashed, "world: No space left on device").reason
    assert full is not None
    assert full.startswith("The disk is full. The game crashed")


def test_a_kept_disk_is_no_server() -> None:
    """Nor is what is left of an uninstalled release."""
    assert not exists(ServerObjects(1, claim=CLAIM))
    assert not exists(ServerObjects(1, releases=releases("uninstalled")))
    assert exists(ServerObjects(1, releases=releases("failed")))
    assert exists(ServerObjects(1, statefulset=statefulset()))
