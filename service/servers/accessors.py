"""Reads single fields of Kubernetes' objects. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from service.kube.times import stamp
from service.kube.types import Object

CONTAINER = "game"
READINESS_GATES = "ReadinessGatesNotReady"
"""The reason of a pod's condition Ready while its containers are ready and its readiness gates are not.

https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-readiness-gate
"""


def condition(object_: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A condition of a pod, a node or a claim; {} if it has none with that name."""
    candidate: Mapping[str, Any]
    for candidate in object_.get("status", {}).get("conditions") or []:
        if candidate.get("type") == name:
            return candidate
    return {}


def wants_pod(statefulset: Mapping[str, Any] | None) -> bool:
    """Whether a StatefulSet wants its pod, whoever scaled it; also True without a StatefulSet."""
    return bool((statefulset or {}).get("spec", {}).get("replicas", 1))


def is_bound(claim: Mapping[str, Any] | None) -> bool:
    """Whether a claim has a volume."""
    return bool((claim or {}).get("status", {}).get("phase") == "Bound")


def game_container(pod: Object) -> Mapping[str, Any]:
    """The game's container in the pod's spec; {} if there is none."""
    return named_game(pod.get("spec", {}).get("containers") or [])


def game_status(pod: Object) -> Object | None:
    """The status of the game's container; None before the kubelet has reported one."""
    return dict(named_game(pod.get("status", {}).get("containerStatuses") or [])) or None


def termination(pod: Object) -> Mapping[str, Any] | None:
    """The `terminated` state of the game's container: of its current run, or of the run before a back-off.

    None while it has not ended.
    """
    status = game_status(pod) or {}
    current = status.get("state") or {}
    terminated: Mapping[str, Any] | None = current.get("terminated")
    if terminated is None and "waiting" in current:
        terminated = (status.get("lastState") or {}).get("terminated")
    return terminated


def lost_by_node(pod: Object) -> bool:
    """Whether Kubernetes has marked the pod as not ready because its node does not answer.

    The kubelet sets both conditions, and says so in the first one's reason if it waits for a readiness gate. Kubernetes
    itself changes only the first one's status:
    https://github.com/kubernetes/kubernetes/blob/v1.35.4/pkg/controller/util/node/controller_utils.go
    """
    ready = condition(pod, "Ready")
    return (
        ready.get("status") == "False"
        and ready.get("reason") != READINESS_GATES
        and condition(pod, "ContainersReady").get("status") == "True"
    )


def annotation(object_: Object | None, name: str) -> str | None:
    """The text of an annotation; None if there is none."""
    text: str | None = (((object_ or {}).get("metadata") or {}).get("annotations") or {}).get(name)
    return text


def uid(object_: Object | None) -> str | None:
    """The uid of a Kubernetes object, which an earlier object with the same name does not have."""
    value: str | None = (object_ or {}).get("metadata", {}).get("uid")
    return value


def owner_uid(object_: Object) -> str | None:
    """The uid of the controller that owns the object."""
    owners = object_.get("metadata", {}).get("ownerReferences") or []
    value: str | None = next((owner.get("uid") for owner in owners if owner.get("controller")), None)
    return value


def version(object_: Object) -> int:
    """An object's resourceVersion as a number; they can be compared since Kubernetes 1.35, and with etcd could before.

    https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions
    """
    text = str(object_["metadata"].get("resourceVersion") or "")
    return int(text) if text.isdecimal() else 0


def created_at(object_: Object) -> str | None:
    """When the object was created (RFC 3339)."""
    value: str | None = object_.get("metadata", {}).get("creationTimestamp")
    return value


def deleted_at(object_: Object | None) -> str | None:
    """When the object's deletion was requested (RFC 3339); None if it was not.

    Kubernetes stores the time at which the deletion has to be finished, which includes the grace period:
    https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/object-meta/
    """
    metadata = (object_ or {}).get("metadata", {})
    if not (deadline := metadata.get("deletionTimestamp")):
        return None
    return stamp(datetime.fromisoformat(deadline) - timedelta(seconds=metadata.get("deletionGracePeriodSeconds") or 0))


def removed_at(pod: Object) -> str | None:
    """When Kubernetes removed a pod, from the version that it removed; None for an earlier version.

    Nothing is waited for any longer then, so the grace period is 0.
    """
    return deleted_at(pod) if pod["metadata"].get("deletionGracePeriodSeconds") == 0 else None


def revision_created_at(releases: Sequence[Object]) -> str | None:
    """When helm created the newest revision (RFC 3339); None without a release. `releases` are oldest first."""
    return releases[-1].get("creationTimestamp") if releases else None


def revision_modified_at(releases: Sequence[Object]) -> str | None:
    """When helm last wrote the newest revision, such as when it failed or when its uninstall began (RFC 3339)."""
    label = str(releases[-1].get("labels", {}).get("modifiedAt", "")) if releases else ""
    return stamp(datetime.fromtimestamp(int(label), UTC)) if label.isdigit() else revision_created_at(releases)


def trimmed_event(event: Object) -> Object:
    """An event reduced to the fields that are read, because there may be many events."""
    involved, series = event.get("involvedObject", {}), event.get("series") or {}
    first = event.get("firstTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp")
    return {
        "metadata": {"name": event["metadata"]["name"]},
        "involvedObject": {"uid": involved.get("uid")},
        "reason": event.get("reason"),
        "message": (event.get("message") or "")[:1000],
        "firstTimestamp": first,
        "lastTimestamp": series.get("lastObservedTime") or event.get("lastTimestamp") or first,
    }


def sorted_events(events: Sequence[Object]) -> tuple[Object, ...]:
    """Sort events from `trimmed_event`, newest last."""
    return tuple(sorted(events, key=lambda event: str(event.get("lastTimestamp") or "")))


def seconds_between(earlier: str | None, later: str | None) -> float | None:
    """The seconds from one RFC 3339 time to another; None if one of them is unknown."""
    if not earlier or not later:
        return None
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()


def readable_size(text: str) -> str:
    """A Kubernetes quantity as people write it: `4 GiB` for `4Gi`. Other texts are returned unchanged."""
    parts = re.fullmatch(r"([0-9.]+)([KMGT]i)", text)
    return f"{parts[1]} {parts[2]}B" if parts else text


def named_game(containers: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The one of the game among containers; {} if there is none."""
    return next((container for container in containers if container.get("name") == CONTAINER), {})


def claims_of(pod: Object) -> list[str]:
    """The names of the claims that a pod mounts."""
    volumes = pod.get("spec", {}).get("volumes") or []
    return [volume["persistentVolumeClaim"]["claimName"] for volume in volumes if "persistentVolumeClaim" in volume]
