"""Explains why a server's pod is not created, not scheduled or not ready. Pure.

Kubernetes says some of this only in messages. For each message that this module looks for, a test in
tests/cluster/test_states.py makes a real cluster produce it, or tests/unit/service/servers/test_state.py looks for it
in the scheduler. So we notice if another version of Kubernetes words it differently.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
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
from service.servers.volumes import HOSTNAME, DiskNode

_VOLUME_EVENTS = {"FailedMount", "FailedAttachVolume", "FailedMapVolume"}
_SANDBOX = "FailedCreatePodSandBox"
_EVICTED = "Evicted"
READ_EVENTS = frozenset({"FailedCreate", "SuccessfulCreate", "ProvisioningFailed", _SANDBOX, _EVICTED, *_VOLUME_EVENTS})
"""The reasons of the events that this module reads; all except SuccessfulCreate have the type Warning."""
# Why the scheduler rejects nodes, in the wording of Kubernetes 1.35 and of earlier versions. It says for each node only
# the first reason that applies, in the order of
# https://github.com/kubernetes/kubernetes/blob/v1.35.4/pkg/scheduler/apis/config/v1/default_plugins.go
_REFUSES_ALL_PODS = ("node(s) were unschedulable", "node(s) had untolerated taint")
_NOT_FOR_SERVERS = (*_REFUSES_ALL_PODS, "node(s) didn't match Pod's node affinity/selector")
_RESOURCES = ("memory", "cpu", "ephemeral-storage")
_ROOM = {"Too many pods": "room for another pod", "node(s) exceed max volume count": "room for another volume"}
_NO_DISK_SPACE = "node(s) did not have enough free storage"
_CANNOT_USE_DISK = (
    "node(s) didn't match PersistentVolume's node affinity",
    "node(s) had volume node affinity conflict",
    "node(s) had no available volume zone",
)
# Also for nodes other than the one that was chosen for a disk that does not exist yet.
_NOT_CHOSEN = "node(s) didn't find available persistent volumes to bind"
_NO_VOLUME = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"

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
    return f"{_no_node_because(objects, pod, message)} ({message})"


def _no_node_because(objects: Objects, pod: Object, message: str) -> str:
    claim, rejected = objects.claim, _rejected_nodes(message)
    if claim is None:
        return f"The server's disk, the claim server-{objects.id}, is missing."
    if deleted_at(claim) and "is being deleted" in message:
        return f"The server's disk, the claim server-{objects.id}, is being deleted."
    if not is_bound(claim) and "unbound immediate PersistentVolumeClaims" in message:
        return "The disk is not bound."
    if _NO_VOLUME in rejected:
        return f"The disk's volume, {claim['spec']['volumeName']}, is missing."
    node = objects.node_of(claim)
    failure = _disk_node_failure(objects.nodes, node, pod)
    chosen = node is not None and not is_bound(claim) and _NOT_CHOSEN in rejected
    elsewhere = {reason for reason in rejected if reason in _CANNOT_USE_DISK or (chosen and reason == _NOT_CHOSEN)}
    # How many nodes may have the disk, as far as the message tells.
    all_nodes = re.search(r"\b0/(\d+) nodes", message)
    left = int(all_nodes[1]) - sum(rejected[reason] for reason in elsewhere) if all_nodes else 1
    if elsewhere and not left and not failure:
        return "No node can use the disk."
    if chosen or (node and node.only) or (elsewhere and left <= 1):
        holder = "The node that was chosen for the disk" if chosen else "The node that holds the disk"
        # A node that is well accepts pods, so it was rejected for another reason.
        well = node and objects.nodes and not failure
        missing = _missing(claim, pod, _without(rejected.keys() - elsewhere, _REFUSES_ALL_PODS if well else ()))
        cause = failure or (missing and f"does not have {missing}")
        return f"{holder}{f', {node.name},' if node else ''} cannot take the server{cause and f': it {cause}'}."
    missing = _missing(claim, pod, _without(rejected.keys() - elsewhere, _NOT_FOR_SERVERS))
    if elsewhere:
        return f"No node that can use the disk {f'has {missing}' if missing else 'can take the server'}."
    # If a node accepts no pods at all, the scheduler does not say whether it has the disk.
    refused = failure not in ("", _GONE) and any(reason.startswith(_REFUSES_ALL_PODS) for reason in rejected)
    known = f"; {node.name}, which was chosen for its disk, {failure}" if node and failure else ""
    return f"No node {f'has {missing}' if missing and not refused else 'can take the server'}{known}."


def _rejected_nodes(message: str) -> dict[str, int]:
    """How many nodes the scheduler rejects for which reason.

    The message goes on with why a preemption does not help, which may name other reasons.
    https://github.com/kubernetes/kubernetes/blob/v1.35.4/pkg/scheduler/framework/types.go (`FitError`)
    """
    parts = re.split(r"[:,.] (?=\d+ )", re.split(r"\. (?=\D)", message)[0])
    counted = [part.partition(" ") for part in parts]
    return {reason.rstrip("."): int(count) for count, _, reason in counted if count.isdigit()}


def _without(reasons: Collection[str], prefixes: tuple[str, ...]) -> set[str]:
    return {reason for reason in reasons if not reason.startswith(prefixes)}


def lacks_disk_space(scheduled: Mapping[str, Any]) -> bool:
    """Whether the scheduler, in a pod's condition PodScheduled, says that nodes have no room for its disk."""
    return scheduled.get("status") == "False" and _NO_DISK_SPACE in _rejected_nodes(scheduled.get("message", ""))


def no_disk_space(objects: Objects) -> str | None:
    """Says that nodes have no room for a disk that does not exist yet, as a sentence; None if they have."""
    claim, pod = objects.claim, objects.pod or {}
    if claim is None or is_bound(claim) or not pod:
        return None
    if lacks_disk_space(condition(pod, "PodScheduled")):
        return f"No node that could take the server has room for its disk of {claim_gb(claim)} GiB."
    failed = disk_failure(objects)
    return failed[0] if failed and failed[0].startswith(_STORAGE_FULL) else None


def _missing(claim: Object, pod: Object, reasons: Collection[str]) -> str:
    """What nodes lack that the scheduler rejects for these reasons; "" if there are others or none."""
    requests = game_container(pod).get("resources", {}).get("requests", {})
    names = [reason.removeprefix("Insufficient ") for reason in reasons if reason.startswith("Insufficient ")]
    names.sort(key=lambda name: (_RESOURCES.index(name) if name in _RESOURCES else len(_RESOURCES), name))
    free = [
        f"{readable_size(str(requests[name]))} of {name}" if name in requests else f"enough {name}" for name in names
    ]
    if _NO_DISK_SPACE in reasons:
        free.append(f"{claim_gb(claim)} GiB of disk")
    room = [text for reason, text in _ROOM.items() if reason in reasons]
    if len(free) + len(room) < len(reasons):
        return ""
    return " and ".join([*([f"{' and '.join(free)} free"] if free else []), *room])


_GONE = "is no longer part of the cluster"


def _disk_node_failure(nodes: Mapping[str, Object], disk_node: DiskNode | None, pod: Object) -> str:
    """Why a disk's node does not accept the pod, as a predicate; "" if it does, or if the nodes are unknown."""
    if disk_node is None or not nodes:
        return ""
    name = disk_node.name
    node = nodes.get(name) or next((each for each in nodes.values() if _host_name(each) == name), None)
    if node is None:
        return _GONE
    if condition(node, "Ready").get("status") == "Unknown":
        return "does not answer"
    if condition(node, "Ready").get("status") == "False":
        return "is not ready"
    if node.get("spec", {}).get("unschedulable"):
        return "is cordoned"
    taint = _untolerated_taint(node, pod)
    return f"has the taint {taint}, which the server does not tolerate" if taint else ""


def _untolerated_taint(node: Object, pod: Object) -> str | None:
    """A taint for which the scheduler does not give the pod this node; None if there is none."""
    tolerations = pod.get("spec", {}).get("tolerations") or []
    for taint in node.get("spec", {}).get("taints") or []:
        if taint["effect"] != "PreferNoSchedule" and not any(_tolerates(each, taint) for each in tolerations):
            value = f"={taint['value']}" if taint.get("value") else ""
            return f"{taint['key']}{value}:{taint['effect']}"
    return None


def _tolerates(toleration: Object, taint: Object) -> bool:
    """https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/"""
    return (
        toleration.get("key") in (None, "", taint["key"])
        and toleration.get("effect") in (None, "", taint["effect"])
        and (toleration.get("operator") == "Exists" or toleration.get("value", "") == taint.get("value", ""))
    )


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
