"""The Job that makes a disk before the first start: its pod fits where the game fits, and runs nothing of it."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import kubernetes_validate
import pytest

from service.servers.diskjob import disk_is_made, disk_is_missing, disk_job, hindrance
from service.servers.objects import ServerObjects

PLACE: dict[str, Any] = {
    "affinity": {"nodeAffinity": {}},
    "nodeSelector": {"pool": "games"},
    "priorityClassName": "paid",
    "runtimeClassName": "sandbox",
    "tolerations": [{"key": "games", "operator": "Exists"}],
}
RESOURCES = {"requests": {"cpu": "250m", "memory": "2Gi"}, "limits": {"memory": "2Gi"}}
STATEFULSET: dict[str, Any] = {
    "metadata": {"name": "server-7", "namespace": "gameservers", "uid": "u-7"},
    "spec": {
        "template": {
            "metadata": {"labels": {"gameserver/id": "7", "app.kubernetes.io/component": "server"}},
            "spec": {
                **PLACE,
                "imagePullSecrets": [{"name": "games"}],
                "securityContext": {
                    "runAsUser": 1000,
                    "runAsGroup": 1000,
                    "fsGroup": 1000,
                    "fsGroupChangePolicy": "OnRootMismatch",
                },
                "containers": [
                    {
                        "name": "game",
                        "image": "game:1",
                        "command": ["/run"],
                        "env": [{"name": "MOTD", "value": "$(id)"}],
                        "ports": [{"name": "primary", "containerPort": 25565}],
                        "resources": RESOURCES,
                        "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "rcon", "mountPath": "/r"}],
                    }
                ],
                "volumes": [
                    {"name": "data", "persistentVolumeClaim": {"claimName": "server-7"}},
                    {"name": "rcon", "secret": {"secretName": "server-7-rcon"}},
                ],
            },
        }
    },
}
PENDING = {"metadata": {"uid": "c"}, "spec": {}, "status": {"phase": "Pending"}}
BOUND = {"metadata": {"uid": "c"}, "spec": {}, "status": {"phase": "Bound"}}
JOB: dict[str, Any] = {"metadata": {"uid": "j"}, "status": {}}


def made() -> dict[str, Any]:
    """The Job for the StatefulSet."""
    job: dict[str, Any] = disk_job(7, STATEFULSET, "example.com/api:1", ["registry"])
    return job


def test_the_pod_fits_where_the_game_fits() -> None:
    """It has the game's requests, node, priority, runtime and group, and the disk; and none of the game's own parts."""
    assert made()["spec"]["template"]["spec"] == {
        **PLACE,
        "imagePullSecrets": [{"name": "games"}, {"name": "registry"}],
        "securityContext": {
            "runAsUser": 1000,
            "runAsGroup": 1000,
            "fsGroup": 1000,
            "fsGroupChangePolicy": "OnRootMismatch",
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 1,
        "containers": [
            {
                "name": "game",
                "image": "example.com/api:1",
                "imagePullPolicy": "IfNotPresent",
                "command": ["true"],
                "resources": RESOURCES,
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [{"name": "data", "mountPath": "/disk"}],
            }
        ],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "server-7"}}],
    }


def test_nothing_takes_the_pod_for_the_games() -> None:
    """Neither a Service nor a NetworkPolicy selects it, and the API's watch of pods does not see it."""
    labels = made()["spec"]["template"]["metadata"]["labels"]
    assert labels["app.kubernetes.io/component"] == "disk"
    assert "gameserver/id" not in labels


def test_nothing_of_it_stays() -> None:
    """It ends after a while even without a node, is deleted when it has ended, and goes with the StatefulSet."""
    job = made()
    assert (job["spec"]["activeDeadlineSeconds"], job["spec"]["ttlSecondsAfterFinished"]) == (120, 20)
    assert job["spec"]["backoffLimit"] == 0
    assert job["metadata"]["ownerReferences"] == [
        {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "server-7", "uid": "u-7"}
    ]


def test_kubernetes_accepts_it() -> None:
    """It has only fields that the oldest supported version knows, each of the right type."""
    kubernetes_validate.validate(made(), "1.31", strict=True)


def test_the_statefulset_stays_as_it_is() -> None:
    """Making a manifest changes nothing."""
    before = deepcopy(STATEFULSET)
    made()
    assert before == STATEFULSET


def of(claim: object, job: object = None, pod: object = None, **more: Any) -> ServerObjects:
    return ServerObjects(7, statefulset=job, pod=pod, claim=claim, **more)  # type: ignore[arg-type]


def pod(phase: str = "Pending", **condition: str) -> dict[str, Any]:
    return {
        "metadata": {"uid": "p"},
        "spec": {"containers": [{"name": "game", "resources": RESOURCES}]},
        "status": {"phase": phase, "conditions": [condition] if condition else []},
    }


MOUNTED = pod(type="PodReadyToStartContainers", status="True")
FINISHED = {**JOB, "status": {"conditions": [{"type": "Complete", "status": "True"}]}}


@pytest.mark.parametrize(
    ("objects", "is_made", "is_missing"),
    [
        (of(PENDING), False, True),
        (of(PENDING, JOB), False, False),
        (of(PENDING, JOB, pod()), False, False),
        (of(BOUND, JOB), False, False),
        (of(BOUND, JOB, pod()), False, False),
        (of(BOUND, JOB, MOUNTED), True, False),
        (of(BOUND, JOB, pod("Succeeded")), True, False),
        (of(BOUND, FINISHED), True, False),
        (of(BOUND), True, False),
        (of(None), False, False),
        (of(None, JOB, pod()), False, False),
    ],
)
def test_the_disk_is_made_once_it_is_mounted(objects: ServerObjects, is_made: bool, is_missing: bool) -> None:
    """The kubelet gives the root folder to the game's group when it mounts the disk, before it pulls the image."""
    assert (disk_is_made(objects), disk_is_missing(objects)) == (is_made, is_missing)


def event(uid: str, reason: str, message: str) -> dict[str, Any]:
    return {"involvedObject": {"uid": uid}, "reason": reason, "message": message}


UNSCHEDULABLE = pod(
    type="PodScheduled", status="False", reason="Unschedulable", message="0/1 nodes: 1 Insufficient memory."
)


@pytest.mark.parametrize(
    ("objects", "reason"),
    [
        (of(PENDING), None),
        (of(PENDING, JOB, pod()), None),
        (of(PENDING, JOB, UNSCHEDULABLE), "No node has 2 GiB of memory free. (0/1 nodes: 1 Insufficient memory.)"),
        (
            of(PENDING, JOB, events=(event("j", "FailedCreate", "pods is forbidden: exceeded quota: memory"),)),
            "A quota refused the server's pod: memory",
        ),
        (
            of(PENDING, JOB, pod(), events=(event("c", "ProvisioningFailed", "no such class"),)),
            "The disk is not bound: no such class",
        ),
        (
            of(BOUND, JOB, pod(), events=(event("p", "FailedMount", 'volume "data": it is damaged'),)),
            'The disk cannot be mounted: volume "data": it is damaged',
        ),
    ],
)
def test_the_reason_is_the_one_that_a_start_would_have(objects: ServerObjects, reason: str | None) -> None:
    """No node, a quota, a storage class, a mount."""
    assert hindrance(objects) == reason
