"""The Job that makes a server's disk before the server's first start: its manifest, and how far it is. Pure.

The cluster makes a disk for a pod: the storage class waits until the scheduler has chosen the pod's node, and the
kubelet gives the root folder to the pod's group when it mounts the disk. So that the disk is made where the game fits,
the Job's pod has everything of the game's pod that decides about its node, and its group. It runs no part of the game:
neither the game's image nor a text of the customer, only the program `true`.

It is a Job and not a bare pod, because a Job leaves nothing behind, whenever a replica dies. Its deadline ends a pod
that no node takes too (a pod's own deadline begins only on a node), Kubernetes deletes a finished Job, and whoever
deletes the StatefulSet deletes the Job with it.

The game may start at any time. Both pods then use the disk on the same node, which ReadWriteOnce allows. With
ReadWriteOncePod the scheduler lets the game wait until this pod has ended, for seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from service.kube.types import Object
from service.servers import reasons
from service.servers.accessors import CONTAINER, condition, game_container, is_bound, uid
from service.servers.names import ID, disk_job_name, server_name
from service.servers.objects import Objects
from service.servers.restricted import restricted_container, restricted_pod
from service.servers.volumes import HOSTNAME

DEADLINE_SECONDS = 120
"""How long the Job may take, with the time that its pod waits for a node. Then it is over, and the next call makes a
new one."""
KEPT_SECONDS = 20
"""How long a finished Job stays, so that a call can still read why it failed."""

# What decides where the game's pod fits, and whose its disk is. Its labels decide nothing: Services and NetworkPolicies
# must not take this pod for the game's.
_PLACE = (
    "affinity",
    "imagePullSecrets",
    "nodeSelector",
    "priorityClassName",
    "runtimeClassName",
    "schedulerName",
    "securityContext",
    "tolerations",
    "topologySpreadConstraints",
)


def disk_job(id: int, statefulset: Object, image: str, pull_secrets: Sequence[str], node: str | None = None) -> Object:
    """The manifest of the Job.

    Args:
        id: The server's id.
        statefulset: The server's StatefulSet, as it is in the cluster.
        image: An image with the program `true`.
        pull_secrets: The names of Secrets for pulling it, in addition to the game's.
        node: The only node on which the disk can be made, if it is a copy of what is on that node.
    """
    name, namespace = disk_job_name(id), statefulset["metadata"]["namespace"]
    labels = {
        "app.kubernetes.io/name": "gameserver-disk",
        "app.kubernetes.io/instance": server_name(id),
        "app.kubernetes.io/component": "disk",
        "app.kubernetes.io/part-of": "gameserver-cluster",
        "app.kubernetes.io/managed-by": "gameserver-api",
    }
    owner = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "name": server_name(id),
        "uid": uid(statefulset),
    }
    template = {
        # Without the label of the server's id, by which the API finds a server's pods.
        "metadata": {"labels": labels},
        "spec": _pod_spec(id, statefulset["spec"]["template"]["spec"], image, pull_secrets, node),
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {**labels, ID: str(id)},
            "ownerReferences": [owner],
        },
        "spec": {
            "activeDeadlineSeconds": DEADLINE_SECONDS,
            "backoffLimit": 0,
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            "template": template,
        },
    }


def _pod_spec(id: int, game: Mapping[str, Any], image: str, pull_secrets: Sequence[str], node: str | None) -> Object:
    place = {key: game[key] for key in _PLACE if key in game}
    if node is not None:
        place["nodeSelector"] = {**place.get("nodeSelector", {}), HOSTNAME: node}
    return {
        **place,
        **restricted_pod(place.get("securityContext") or {}, place.get("imagePullSecrets") or [], pull_secrets),
        "terminationGracePeriodSeconds": 1,
        "containers": [
            {
                # The same name, because it stands for the game: `reasons` reads its requests.
                "name": CONTAINER,
                "image": image,
                "imagePullPolicy": "IfNotPresent",
                "command": ["true"],
                "resources": game_container({"spec": game}).get("resources") or {},
                "securityContext": restricted_container(),
                "volumeMounts": [{"name": "data", "mountPath": "/disk"}],
            }
        ],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": server_name(id)}}],
    }


def disk_is_made(objects: Objects) -> bool:
    """Whether the disk is there, and belongs to the game's group.

    Args:
        objects: The server's claim, with the Job as the `statefulset` and the Job's pod as the `pod`.
    """
    if not is_bound(objects.claim):
        return False
    pod = objects.pod
    if pod is None:
        # There is no Job, or not any more.
        return objects.statefulset is None or _is_finished(objects.statefulset)
    # The kubelet mounts the disk, and changes its group, before it makes the sandbox. So the image does not matter.
    mounted = condition(pod, "PodReadyToStartContainers").get("status") == "True"
    return mounted or pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def disk_is_missing(objects: Objects) -> bool:
    """Whether a new Job is needed; `objects` are those of `disk_is_made`."""
    return objects.statefulset is None and (objects.claim or {}).get("status", {}).get("phase") == "Pending"


def hindrance(objects: Objects) -> str | None:
    """Why the disk is not made, as a sentence; None if nothing is known. `objects` are those of `disk_is_made`."""
    pod = objects.pod
    if failure := reasons.disk_failure(objects):
        return failure[0]
    if pod is None:
        failure = reasons.pod_creation_failure(objects)
        return failure and failure[0]
    scheduled = condition(pod, "PodScheduled")
    if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
        return reasons.scheduling_failure(objects, pod)
    failure = reasons.preparation_failure(objects, pod)
    return failure and failure[0]


def _is_finished(job: Object) -> bool:
    return any(condition(job, name).get("status") == "True" for name in ("Complete", "Failed"))
