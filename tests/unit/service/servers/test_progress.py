"""The steps of a start follow from a server's objects."""

from __future__ import annotations

from typing import Any

import pytest

from service.servers.objects import ServerObjects
from service.servers.progress import Mark, Step, mark_of, new_steps, steps_of
from tests.unit.service.servers.test_state import releases

T0, T1, T2, T3 = (f"2026-01-31T12:0{minute}:00Z" for minute in range(4))
CLAIM = {"metadata": {"uid": "claim-0123"}, "status": {"phase": "Bound"}}
PENDING = {"metadata": {"uid": "claim-0123"}, "status": {"phase": "Pending"}}
SCHEDULED = {"type": "PodScheduled", "status": "True", "lastTransitionTime": T1}
READY = {"type": "Ready", "status": "True", "lastTransitionTime": T3}


def statefulset(replicas: int = 1, status: dict[str, Any] | None = None, **metadata: Any) -> dict[str, Any]:
    metadata = {"uid": "workload-0", "generation": 2, "creationTimestamp": T0, **metadata}
    return {"metadata": metadata, "spec": {"replicas": replicas}, "status": status or {}}


def pod(*conditions: dict[str, Any], container: dict[str, Any] | None = None, **metadata: Any) -> dict[str, Any]:
    containers = [] if container is None else [{"name": "game", "image": "game:1", **container}]
    return {
        "metadata": {"uid": "pod-456789", "creationTimestamp": T0, **metadata},
        "spec": {"nodeName": "node1", "containers": [{"name": "game"}]},
        "status": {"conditions": list(conditions), "containerStatuses": containers},
    }


def waiting(reason: str, message: str = "", **more: Any) -> dict[str, Any]:
    return {"state": {"waiting": {"reason": reason, "message": message}}, "restartCount": 0, **more}


def server(**parts: Any) -> ServerObjects:
    objects = {"id": 1, "statefulset": statefulset(), "claim": CLAIM, "releases": releases("deployed")}
    return ServerObjects(**{**objects, **parts})


RUNS = {"state": {"running": {"startedAt": T2}}, "imageID": "sha256:0", "restartCount": 0}
ENDED = {"exitCode": 1, "startedAt": T1, "finishedAt": T2}
AGAIN = {"state": {"running": {"startedAt": T3}}, "imageID": "sha256:0", "restartCount": 1}
BACKS_OFF = waiting("CrashLoopBackOff", imageID="sha256:0", lastState={"terminated": ENDED}) | {"restartCount": 1}
NOT_FOUND = waiting("ImagePullBackOff", "not found")
CRASHED = "The game crashed (exit code 1)."
UNSCHEDULABLE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "lastTransitionTime": T1}
LAST_STOP = {"gameserver/last-stop": f'{{"pod": "pod-456789", "at": "{T3}", "reason": null}}'}


def behind(*times: tuple[str, str | None]) -> list[tuple[str, str | None, str, str | None]]:
    return [(name, at, "starting", None) for name, at in times]


DISK, NODE, IMAGE = ("disk", None), ("scheduled", T1), ("image", None)


@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        pytest.param(server(claim=PENDING), [], id="nothing yet"),
        pytest.param(server(), behind(DISK), id="the disk is there"),
        pytest.param(server(pod=pod()), behind(DISK), id="a pod without a node"),
        pytest.param(server(pod=pod(SCHEDULED)), behind(DISK, NODE), id="scheduled"),
        pytest.param(
            server(pod=pod(SCHEDULED, container=waiting("ContainerCreating"))), behind(DISK, NODE), id="pulling"
        ),
        pytest.param(
            server(pod=pod(SCHEDULED, container=waiting("ContainerCreating", imageID="sha256:0"))),
            behind(DISK, NODE, IMAGE),
            id="pulled",
        ),
        pytest.param(
            server(pod=pod(SCHEDULED, container=RUNS)), behind(DISK, NODE, IMAGE, ("loading", T2)), id="loading"
        ),
        pytest.param(
            server(pod=pod(SCHEDULED, READY, container=RUNS)),
            [*behind(DISK, NODE, IMAGE, ("loading", T2)), ("running", T3, "running", None)],
            id="running",
        ),
        pytest.param(
            server(pod=pod(READY)),
            [*behind(DISK, ("scheduled", None), IMAGE, ("loading", None)), ("running", T3, "running", None)],
            id="what a running server must have passed",
        ),
        pytest.param(
            server(claim=PENDING, pod=pod(UNSCHEDULABLE)),
            [("failed", T1, "failed", "No node can take the server. ()")],
            id="no node",
        ),
        pytest.param(
            server(pod=pod(SCHEDULED, container=NOT_FOUND)),
            [*behind(DISK, NODE), ("failed", T0, "failed", "The image game:1 was not found.")],
            id="no image",
        ),
        pytest.param(
            server(pod=pod(SCHEDULED, container=waiting("CreateContainerConfigError", "no secret"))),
            [
                *behind(DISK, NODE, IMAGE),
                ("failed", T0, "failed", "The container cannot be created: no secret"),
            ],
            id="the image is there, the container is not",
        ),
        pytest.param(
            server(pod=pod(SCHEDULED, container={**RUNS, "state": {"terminated": ENDED}})),
            [*behind(DISK, NODE, IMAGE, ("loading", T1)), ("failed", T2, "failed", CRASHED)],
            id="crashed",
        ),
        pytest.param(
            server(pod=pod(SCHEDULED, container=BACKS_OFF)),
            [
                *behind(DISK, NODE, IMAGE, ("loading", T1)),
                (
                    "failed",
                    T2,
                    "failed",
                    f"{CRASHED} It crashes again and again; Kubernetes waits longer before each new start.",
                ),
            ],
            id="backing off",
        ),
        pytest.param(
            server(pod=pod(SCHEDULED, container={**AGAIN, "lastState": {"terminated": ENDED}})),
            [
                *behind(DISK, NODE, IMAGE),
                ("loading", T3, "starting", f"The last attempt ended: {CRASHED}"),
            ],
            id="again",
        ),
        pytest.param(
            server(
                pod=pod(SCHEDULED, READY, container=RUNS), statefulset=statefulset(status={"observedGeneration": 1})
            ),
            [("disk", None, "starting", "The server is restarting to apply a change.")],
            id="the pod is one of before",
        ),
        pytest.param(
            server(pod=pod(SCHEDULED, container=RUNS, deletionTimestamp=T3)),
            [("disk", None, "stopping", None)],
            id="the pod is being replaced",
        ),
        pytest.param(server(statefulset=statefulset(0), pod=pod(READY, container=RUNS)), [], id="stopping"),
        pytest.param(
            server(statefulset=statefulset(0, annotations=LAST_STOP)), [("stopped", T3, "stopped", None)], id="stopped"
        ),
        pytest.param(server(statefulset=statefulset(deletionTimestamp=T3)), [], id="being deleted"),
        pytest.param(ServerObjects(1, pod=pod(READY)), [], id="deleted, but its pod is there"),
        pytest.param(ServerObjects(1), [("deleted", None, "deleting", None)], id="deleted"),
        pytest.param(
            server(statefulset=None, pod=None, releases=releases("failed")),
            [
                *behind(DISK),
                ("failed", T0, "failed", "The install failed. Send the same create again, or delete the server."),
            ],
            id="the install failed",
        ),
    ],
)
def test_the_steps_of_a_start(objects: ServerObjects, expected: list[tuple[str, str | None, str, str | None]]) -> None:
    """Those that it has behind it, each with its time where Kubernetes keeps it, and then how it ended."""
    assert [(step.name, step.at, step.state, step.reason) for step in steps_of(objects)] == expected


def told(objects: ServerObjects, last: str | None) -> list[str]:
    """The names of the steps that a client hears of that has had `last`."""
    return [step.name for step in new_steps(steps_of(objects), None if last is None else mark_of(last))]


def ids(objects: ServerObjects) -> dict[str, str]:
    return {step.name: step.mark.id for step in steps_of(objects)}


SCHEDULED_ONE = server(pod=pod(SCHEDULED))
LOADING_ONE = server(pod=pod(SCHEDULED, container=RUNS))
RUNNING_ONE = server(pod=pod(SCHEDULED, READY, container=RUNS))
CRASHED_ONE = server(pod=pod(SCHEDULED, container={**RUNS, "state": {"terminated": ENDED}}))
LOADING_AGAIN = server(pod=pod(SCHEDULED, container={**AGAIN, "lastState": {"terminated": ENDED}}))
UNSCHEDULED = server(pod=pod(UNSCHEDULABLE))
NO_IMAGE = server(pod=pod(SCHEDULED, container=NOT_FOUND))
OTHER_POD = server(pod=pod(SCHEDULED, uid="other-0123"))
STOPPED_ONE = server(statefulset=statefulset(0, annotations=LAST_STOP))


@pytest.mark.parametrize(
    ("had", "step", "now", "expected"),
    [
        pytest.param(LOADING_ONE, "loading", LOADING_ONE, [], id="nothing has happened"),
        pytest.param(SCHEDULED_ONE, "scheduled", LOADING_ONE, ["image", "loading"], id="it went on"),
        pytest.param(LOADING_ONE, "disk", LOADING_ONE, ["scheduled", "image", "loading"], id="it has had the disk"),
        pytest.param(LOADING_ONE, "loading", SCHEDULED_ONE, [], id="a look that is older"),
        pytest.param(LOADING_ONE, "loading", CRASHED_ONE, ["failed"], id="a crash"),
        pytest.param(CRASHED_ONE, "failed", CRASHED_ONE, [], id="the same crash"),
        pytest.param(CRASHED_ONE, "failed", LOADING_AGAIN, ["loading"], id="the next start"),
        pytest.param(LOADING_AGAIN, "loading", CRASHED_ONE, [], id="a crash of before"),
        pytest.param(UNSCHEDULED, "failed", LOADING_ONE, ["scheduled", "image", "loading"], id="a node was found"),
        pytest.param(UNSCHEDULED, "failed", NO_IMAGE, ["scheduled", "failed"], id="another failure"),
        pytest.param(RUNNING_ONE, "running", CRASHED_ONE, ["failed"], id="a crash after it ran"),
        pytest.param(CRASHED_ONE, "failed", RUNNING_ONE, ["running"], id="it answers again"),
        pytest.param(RUNNING_ONE, "running", OTHER_POD, ["scheduled"], id="another pod with the same disk"),
        pytest.param(RUNNING_ONE, "running", STOPPED_ONE, ["stopped"], id="it was stopped"),
        pytest.param(STOPPED_ONE, "stopped", STOPPED_ONE, [], id="it stays stopped"),
        pytest.param(STOPPED_ONE, "stopped", SCHEDULED_ONE, ["disk", "scheduled"], id="it was started"),
    ],
)
def test_a_client_hears_of_each_step_once(
    had: ServerObjects, step: str, now: ServerObjects, expected: list[str]
) -> None:
    """Whether it has stayed, or comes back with the id of the last step."""
    assert told(now, ids(had)[step]) == expected


def test_a_client_without_an_id_hears_of_all() -> None:
    """And so does one with an id that is none."""
    for last in (None, "", "pod.0.1.1", "a" * 500, "claim-01.pod-4567.0.9", f"claim-01.pod-4567.{'9' * 30}.1"):
        assert told(LOADING_ONE, last) == ["disk", "scheduled", "image", "loading"]


def test_an_id_says_what_it_is_of() -> None:
    """The disk, the pod, how often the game has restarted, and how far the start was."""
    assert ids(LOADING_AGAIN) == {
        "disk": "claim-01.-.0.1",
        "scheduled": "claim-01.pod-4567.0.2",
        "image": "claim-01.pod-4567.0.3",
        "loading": "claim-01.pod-4567.1.4",
    }
    mark = Mark("claim-01", "pod-4567", 0, 4, "failed-0a1b2c3d")
    assert mark_of(mark.id) == mark
    assert Step("failed", None, "failed", None, mark).mark.id == "claim-01.pod-4567.0.4.failed-0a1b2c3d"
