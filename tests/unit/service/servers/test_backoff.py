"""A server is in a back-off while Kubernetes waits before the next try."""

from __future__ import annotations

from typing import Any

import pytest

from service.servers.backoff import in_backoff
from service.servers.objects import ServerObjects

STATEFULSET = {"metadata": {"name": "server-1"}, "spec": {"replicas": 1}, "status": {}}
REFUSED = {"reason": "FailedCreate", "message": "create Pod failed error: exceeded quota: small"}


def pod(state: dict[str, Any], *, ready: bool = False, **metadata: Any) -> dict[str, Any]:
    container = {"name": "game", "state": state, "started": True}
    conditions = [{"type": "Ready", "status": str(ready), "lastTransitionTime": "2026-01-31T12:00:00Z"}]
    return {
        "metadata": {"name": "server-1-0", **metadata},
        "spec": {"containers": [{"name": "game"}]},
        "status": {"conditions": conditions, "containerStatuses": [container]},
    }


def in_a_mesh(state: dict[str, Any]) -> dict[str, Any]:
    """A pod whose game waits for an init container in that state."""
    waiting = pod({"waiting": {"reason": "PodInitializing"}})
    waiting["status"]["initContainerStatuses"] = [{"name": "mesh", "state": state}]
    return waiting


RUNNING = {"running": {"startedAt": "2026-01-31T11:00:00Z"}}
CRASHED = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s"}}
ENDED = {"terminated": {"exitCode": 1, "finishedAt": "2026-01-31T12:00:00Z"}}
NO_IMAGE = {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}


@pytest.mark.parametrize(
    ("pod", "events", "expected"),
    [
        (pod(CRASHED), [], True),
        (pod(ENDED), [], True),
        (pod(NO_IMAGE), [], True),
        (None, [REFUSED], True),
        (in_a_mesh(CRASHED), [], True),
        (in_a_mesh({"running": {}}), [], False),
        # The pod is being created, or nothing is known.
        (None, [], False),
        (pod({"waiting": {"reason": "ContainerCreating"}}), [], False),
        # The game runs, hangs or stops: a start must not interrupt it.
        (pod(RUNNING, ready=True), [], False),
        (pod(RUNNING), [], False),
        (pod(CRASHED, deletionTimestamp="2026-01-31T12:00:00Z"), [], False),
    ],
)
def test_only_a_failed_try_is_a_back_off(
    pod: dict[str, Any] | None, events: list[dict[str, Any]], expected: bool
) -> None:
    """A pod whose container runs is never in a back-off."""
    assert in_backoff(ServerObjects(1, statefulset=STATEFULSET, pod=pod, events=tuple(events))) is expected


def test_a_stopped_server_is_in_no_back_off() -> None:
    """Nor is a server that does not exist."""
    stopped = {**STATEFULSET, "spec": {"replicas": 0}}
    assert not in_backoff(ServerObjects(1, statefulset=stopped, events=(REFUSED,)))
    assert not in_backoff(ServerObjects(1, events=(REFUSED,)))
