"""Explains why a server's pod is not created, not scheduled or not ready. Pure.

Kubernetes says some of this only in messages. For each message that this module looks for, a test in
tests/cluster/test_states.py makes a real cluster produce it. So we notice if another version of Kubernetes words it
differently.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from service.kube.types import Object
from service.servers.accessors import (
    CONTAINER,
    condition,
    deleted_at,
    game_container,
    is_bound,
    lost_by_node,
    readable_size,
    uid,
)
from service.servers.disks import claim_gb
from service.servers.exits import runs
from service.servers.objects import Objects
from service.servers.volumes import HOSTNAME

_VOLUME_EVENTS = {"FailedMount", "FailedAttachVolume", "FailedMapVolume"}
_SANDBOX = "FailedCreatePodSandBox"
_EVICTED = "Evicted"
READ_EVENTS = frozenset({"FailedCreate", "SuccessfulCreate", "ProvisioningFailed", _SANDBOX, _EVICTED, *_VOLUME_EVENTS})
"""The reasons of the events that this module reads; all except SuccessfulCreate have the type Warning."""
# The wording of Kubernetes 1.35, and of earlier versions.
_NO_DISK_SPACE = "node(s) did not have enough free storage"
_OTHER_NODES = r"(\d+) node\(s\) (?:didn't match PersistentVolume's node affinity|had volume node affinity conflict)"
_REFUSES_ALL_PODS = ("node(s) were unschedulable", "node(s) had untolerated taint")

IMAGE_FAILURES = frozenset(
    {
        *("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"),
        *("ImageInspectError", "SignatureValidationFailed"),
    }
)
"""The reasons for which a container waits because its image cannot be used."""
CONTAINER_FAILURES = frozenset(
    {"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "ContainerCannotRun"}
)
"""The reasons for which a container waits because it cannot be created."""
_DOES_NOT_START = IMAGE_FAILURES | CONTAINER_FAILURES | {"CrashLoopBackOff"}

Reason = tuple[str, str | None]
"""A reason as a sentence, and since when it holds (RFC 3339), if that is known."""


# -- the node ----------------------------------------------------------------------------------------------


def node_failure(objects: Objects) -> Reason | None:
    """Why the pod's node does not manage the pod; None if it does, or if the pod has no node.

    When a node is not ready, Kubernetes marks its pods as not ready too, so the nodes of ready pods are not read.
    """
    pod = objects.pod or {}
    name = pod.get("spec", {}).get("nodeName")
    ready = condition(pod, "Ready")
    if not name or ready.get("status") == "True" or pod.get("status", {}).get("phase") in ("Failed", "Succeeded"):
        return None
    lost = lost_by_node(pod)
    nodes = objects.nodes
    if not nodes:
        return (f"Its node {name} does not answer.", ready.get("lastTransitionTime")) if lost else None
    if name not in nodes:
        return f"Its node {name} is no longer part of the cluster.", None
    health = condition(nodes[name], "Ready")
    since = health.get("lastTransitionTime")
    if health.get("status") == "Unknown":
        return f"Its node {name} has not answered since {since}.", since
    if health.get("status") == "False":
        return f"Its node {name} has not been ready since {since}: {str(health.get('message', ''))[:300]}", since
    if lost and not deleted_at(pod):
        return f"Its node {name} did not answer until a moment ago.", ready.get("lastTransitionTime")
    return None


def disruption(pod: Object) -> str | None:
    """Why Kubernetes itself stops the pod; None if it does not.

    https://kubernetes.io/docs/concepts/workloads/pods/disruptions/#pod-disruption-conditions
    """
    target = condition(pod, "DisruptionTarget")
    sentences = {
        "PreemptionByScheduler": "The server is making room for one with a higher priority.",
        "EvictionByEvictionAPI": "The server's node is being drained.",
        "DeletionByTaintManager": "The server's node no longer accepts servers.",
        "DeletionByPodGC": "The server's node is no longer part of the cluster.",
        "TerminationByKubelet": "The server's node stopped it.",
    }
    return sentences.get(target.get("reason", "")) if target.get("status") == "True" else None


def ended_by_node(objects: Objects) -> str | None:
    """Why the pod's node ended the pod and will not start its game again; None if it did not.

    The kubelet starts a game again that ends, so it has ended a pod itself that is over without having been deleted. On
    Kubernetes 1.35, the phase is `Succeeded` if the game then exits with 0, and only an event says why.
    """
    pod = objects.pod or {}
    status = pod.get("status", {})
    if status.get("phase") not in ("Failed", "Succeeded"):
        return None
    if reason := status.get("message") or disruption(pod):
        return str(reason)
    for event in reversed(_events(objects)):
        if event.get("reason") == _EVICTED:
            return f"The server's node stopped it: {event.get('message', '').strip()[:300]}"
    # A pod that is deleted is over as well in the end.
    return None if deleted_at(pod) else "The server's node stopped it."


CLEANUP = timedelta(minutes=1)


def overdue_end(pod: Object | None, now: datetime) -> str | None:
    """Why a pod is still there some time after it had to have ended; None if it is not, or if nobody has deleted it.

    Kubernetes removes a pod once its node has ended it and nobody has a finalizer on it any longer:
    https://kubernetes.io/docs/concepts/overview/working-with-objects/finalizers/
    """
    metadata = (pod or {}).get("metadata", {})
    due = metadata.get("deletionTimestamp")
    if pod is None or not due or now < datetime.fromisoformat(due) + CLEANUP:
        return None
    node = pod.get("spec", {}).get("nodeName")
    if node and runs(pod):
        return f"Its node {node} has not ended the game, which had time until {due}."
    if finalizers := metadata.get("finalizers"):
        return f"The game no longer runs, but its pod cannot go before its finalizers do: {', '.join(finalizers)}."
    return f"The game no longer runs, but its node {node} has not cleaned up after its pod." if node else None


# -- no pod ------------------------------------------------------------------------------------------------


def pod_creation_failure(objects: Objects) -> Reason | None:
    """Why the StatefulSet's controller cannot create the pod, and since when it has tried."""
    reason: str | None = None
    since: str | None = None
    for event in reversed(_events(objects)):
        if event.get("reason") == "SuccessfulCreate":
            break
        if event.get("reason") == "FailedCreate":
            reason = reason or _refusal(event.get("message", ""))
            since = _first(event)
    return (reason, since) if reason else None


def _refusal(message: str) -> str:
    if "violates PodSecurity" in message:
        return f"Pod security refused the server's pod: {message.split('violates PodSecurity', 1)[1].strip()}"
    if "exceeded quota" in message:
        return f"A quota refused the server's pod: {message.split('exceeded quota', 1)[1].lstrip(': ')}"
    return f"The cluster refused the server's pod: {message[:300]}"


# -- no node -----------------------------------------------------------------------------------------------


def scheduling_failure(objects: Objects, pod: Object) -> str:
    """Why the scheduler finds no node for the pod, as a sentence."""
    message = condition(pod, "PodScheduled").get("message", "")
    if objects.claim is None:
        return f"The server's disk, the claim server-{objects.id}, is missing. ({message})"
    if not is_bound(objects.claim) and "unbound immediate PersistentVolumeClaims" in message:
        return f"The disk is not bound. ({message})"
    missing = _missing_resources(objects.claim, pod, message)
    name = objects.node_of(objects.claim)
    failure = _disk_node_failure(objects.nodes, name)
    other_nodes = re.search(_OTHER_NODES, message)
    if other_nodes is None:
        # If a node accepts no pods at all, the scheduler does not say whether it has the disk.
        refused = failure not in ("", _GONE) and any(text in message for text in _REFUSES_ALL_PODS)
        predicate = f"has {missing} free" if missing and not refused else "can take the server"
        chosen = f"; {name}, which was chosen for its disk, {failure}" if failure else ""
        return f"No node {predicate}{chosen}. ({message})"
    all_nodes = re.search(r"\b0/(\d+) nodes", message)
    if all_nodes and int(all_nodes[1]) - int(other_nodes[1]) > 1:
        predicate = f"has {missing} free" if missing else "can take the server"
        return f"No node that can use the disk {predicate}. ({message})"
    holder = f"The node that holds the disk, {name}," if name else "The node that holds the disk"
    cause = failure or (f"does not have {missing} free" if missing else "")
    return f"{holder} cannot take the server{f': it {cause}' if cause else ''}. ({message})"


def lacks_disk_space(scheduled: Mapping[str, Any]) -> bool:
    """Whether the scheduler, in a pod's condition PodScheduled, says that nodes have no room for its disk."""
    return scheduled.get("status") == "False" and _NO_DISK_SPACE in scheduled.get("message", "")


def no_disk_space(objects: Objects) -> str | None:
    """Says that nodes have no room for a disk that does not exist yet, as a sentence; None if they have."""
    claim, pod = objects.claim, objects.pod or {}
    if claim is None or is_bound(claim) or not pod:
        return None
    if lacks_disk_space(condition(pod, "PodScheduled")):
        return f"No node that could take the server has room for its disk of {claim_gb(claim)} GiB."
    failed = disk_failure(objects)
    return failed[0] if failed and failed[0].startswith(_STORAGE_FULL) else None


def _missing_resources(claim: Object, pod: Object, message: str) -> str:
    requests = game_container(pod).get("resources", {}).get("requests", {})
    missing = [
        f"{readable_size(requests[name])} of memory" if name == "memory" else f"{requests[name]} of {name}"
        for name in ("memory", "cpu", "ephemeral-storage")
        if f"Insufficient {name}" in message and name in requests
    ]
    if _NO_DISK_SPACE in message:
        missing.append(f"{claim_gb(claim)} GiB of disk")
    return " and ".join(missing)


_GONE = "is no longer part of the cluster"


def _disk_node_failure(nodes: Mapping[str, Object], name: str | None) -> str:
    if not name or not nodes:
        return ""
    node = nodes.get(name) or next((each for each in nodes.values() if _host_name(each) == name), None)
    if node is None:
        return _GONE
    if condition(node, "Ready").get("status") == "Unknown":
        return "does not answer"
    if condition(node, "Ready").get("status") == "False":
        return "is not ready"
    return "is cordoned" if node.get("spec", {}).get("unschedulable") else ""


def _host_name(node: Object) -> str | None:
    """The name under which volumes know the node."""
    name: str | None = (node["metadata"].get("labels") or {}).get(HOSTNAME)
    return name


# -- disk and image ----------------------------------------------------------------------------------------


_STORAGE_FULL = "The storage has no room for the server's disk"


def disk_failure(objects: Objects) -> Reason | None:
    """Why the disk gets no volume; None if it has one, or if nothing is known."""
    claim = objects.claim
    if claim is None or is_bound(claim):
        return None
    if claim.get("status", {}).get("phase") == "Lost":
        return "The disk's volume is lost.", None
    for event in reversed(_events(objects)):
        if event.get("reason") == "ProvisioningFailed":
            message = event.get("message", "")
            # The code with which CSI drivers say so:
            # https://github.com/container-storage-interface/spec/blob/v1.12.0/spec.md#createvolume-errors
            if "code = ResourceExhausted" in message:
                return f"{_STORAGE_FULL} of {claim_gb(claim)} GiB. ({message[:300]})", _first(event)
            return f"The disk is not bound: {message[:300]}", _first(event)
    return None


_KUBELET_IS_LATE = "failed to sync secret cache: timed out waiting for the condition"
"""A busy kubelet had no answer about a Secret within a second. It asks again at once, so this is no failure.

Seen with Kubernetes 1.35 while both cores were busy. The message is from `Get` in
https://github.com/kubernetes/kubernetes/blob/v1.35.4/pkg/kubelet/util/manager/watch_based_manager.go
"""


def preparation_failure(objects: Objects, pod: Object) -> Reason | None:
    """Why the node cannot prepare the pod: mount its volumes, then make its sandbox. None if it can."""
    if condition(pod, "PodReadyToStartContainers").get("status") == "True":
        return None
    for event in reversed(_events(objects)):
        message = event.get("message", "")[:300]
        if event.get("reason") == _SANDBOX:
            # Such as no address left, or a runtimeClassName without its runtime.
            return f"The node cannot prepare the server's pod: {message}", _first(event)
        if event.get("reason") in _VOLUME_EVENTS and _KUBELET_IS_LATE not in message:
            # The volume's name in the chart.
            owners = {'volume "rcon"': "RCON", 'volume "econ"': "the console"}
            owner = next((name for text, name in owners.items() if text in message), None)
            volume = f"The Secret with {owner}'s password" if owner else "The disk"
            return f"{volume} cannot be mounted: {message}", _first(event)
    return None


def image_failure(image: str, reason: str, message: str) -> str:
    """Why the image cannot be used, as a sentence, from the reason and message of the container's `waiting` state."""
    text = message.replace(image, "").lower()
    if reason == "InvalidImageName":
        return f"The image's name {image} is not valid."
    # Check this first, because of "pull access denied, repository does not exist or may require authorization".
    if any(word in text for word in ("unauthorized", "denied", "forbidden", "authorization failed")):
        return f"The registry refused the image {image}."
    if "no match for platform" in text:
        return f"The image {image} has no version for its node's kind of processor."
    if reason == "ErrImageNeverPull" or "not found" in text or "does not exist" in text:
        return f"The image {image} was not found."
    return f"The image {image} cannot be pulled." + (
        f" {message[:300]}" if message and "ack-off" not in message else ""
    )


# -- other containers --------------------------------------------------------------------------------------


def other_container_failure(pod: Object) -> str | None:
    """Why a container that the cluster has added to the pod, as a service mesh does, does not start; None if all do."""
    status = pod.get("status", {})
    for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        waiting = (container.get("state") or {}).get("waiting") or {}
        if container.get("name") != CONTAINER and waiting.get("reason") in _DOES_NOT_START:
            message = waiting.get("message") or waiting["reason"]
            return (
                f"The container {container['name']}, which the cluster has added to the server's pod, "
                f"does not start: {message[:300]}"
            )
    return None


# -- events ------------------------------------------------------------------------------------------------


def _events(objects: Objects) -> Sequence[Object]:
    """The events without those of an earlier server's objects.

    Those objects had the same names, and their events outlive them by an hour.
    """
    events = objects.events
    if not events:
        return events
    owners = (objects.statefulset, objects.pod, objects.claim)
    uids = {None, *(uid(owner) for owner in owners if owner is not None)}
    return [event for event in events if event.get("involvedObject", {}).get("uid") in uids]


def _first(event: Object) -> str | None:
    first: str | None = event.get("firstTimestamp") or event.get("eventTime") or event.get("lastTimestamp")
    # Events of the newer API have fractions of a second.
    return f"{first[:19]}Z" if first else None
