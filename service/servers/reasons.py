"""What keeps a server's pod from being made, placed or looked after, in plain words. Pure.

Kubernetes says some of this in words alone. Each wording that is looked for here is produced for real by a test in
tests/cluster/test_states.py, so that another version of Kubernetes with other words is noticed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from service.kube.types import Object
from service.servers.accessors import condition, deleted_at, game_container, readable_size, uid
from service.servers.objects import Objects
from service.servers.volumes import selected_node

READ_EVENTS = frozenset(
    {"FailedCreate", "SuccessfulCreate", "ProvisioningFailed", "FailedMount", "FailedAttachVolume", "FailedMapVolume"}
)
"""The reasons of the events that are looked at; all but SuccessfulCreate are of the type Warning."""
_VOLUME_EVENTS = {"FailedMount", "FailedAttachVolume", "FailedMapVolume"}
# The words of Kubernetes 1.35, and those of before.
_OF_OTHER_NODES = r"(\d+) node\(s\) (?:didn't match PersistentVolume's node affinity|had volume node affinity conflict)"

Reason = tuple[str, str | None]
"""A reason, and since when it holds, if that is known."""


# -- the node ----------------------------------------------------------------------------------------------


def node_failure(objects: Objects) -> Reason | None:
    """Reason the pod's node does not look after the pod; None where it does, or where there is none.

    Kubernetes takes a pod's readiness away with its node's, so a pod that is ready needs no look at the nodes.
    """
    pod = objects.pod or {}
    name = pod.get("spec", {}).get("nodeName")
    ready = condition(pod, "Ready")
    if not name or ready.get("status") == "True" or pod.get("status", {}).get("phase") in ("Failed", "Succeeded"):
        return None
    # The kubelet sets both conditions; only for a node that is lost does Kubernetes set the one without the other.
    lost = ready.get("status") == "False" and condition(pod, "ContainersReady").get("status") == "True"
    nodes = objects.nodes
    if not nodes:
        return (f"Its node {name} does not answer.", ready.get("lastTransitionTime")) if lost else None
    if name not in nodes:
        return f"Its node {name} is no longer part of the cluster.", None
    health = condition(nodes[name], "Ready")
    since = health.get("lastTransitionTime")
    if health.get("status") == "Unknown":
        return f"Its node {name} does not answer, since {since}.", since
    if health.get("status") == "False":
        return f"Its node {name} is not ready, since {since}: {str(health.get('message', ''))[:300]}", since
    if lost and not deleted_at(pod):
        return f"Its node {name} did not answer until a moment ago.", ready.get("lastTransitionTime")
    return None


def disruption(pod: Object) -> str | None:
    """Reason Kubernetes itself ends the pod.

    https://kubernetes.io/docs/concepts/workloads/pods/disruptions/#pod-disruption-conditions
    """
    found = condition(pod, "DisruptionTarget")
    why = {
        "PreemptionByScheduler": "The server makes room for one of a higher priority.",
        "EvictionByEvictionAPI": "The server's node is being drained.",
        "DeletionByTaintManager": "The server's node no longer takes servers.",
        "DeletionByPodGC": "The server's node is no longer part of the cluster.",
        "TerminationByKubelet": "The server's node ended it.",
    }
    return why.get(found.get("reason", "")) if found.get("status") == "True" else None


# -- no pod ------------------------------------------------------------------------------------------------


def pod_creation_failure(objects: Objects) -> Reason | None:
    """Reason the StatefulSet's controller cannot make the pod, and since when it has tried."""
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
    """Reason the scheduler finds no node for the pod."""
    message = condition(pod, "PodScheduled").get("message", "")
    if objects.claim is None:
        return f"The server's disk, the claim server-{objects.id}, is missing. ({message})"
    if not _bound(objects.claim) and "unbound immediate PersistentVolumeClaims" in message:
        return f"The disk is not bound. ({message})"
    short = _short(pod, message)
    name = selected_node(objects.claim)
    trouble = _holder_trouble(objects.nodes, name)
    others = re.search(_OF_OTHER_NODES, message)
    if others is None and trouble:
        # Of a node that takes nothing anyway the scheduler does not say whether the disk is there.
        return f"No node can take the server; {name}, which was chosen for its disk, {trouble}. ({message})"
    if others is None:
        return f"No node has {short} free. ({message})" if short else f"No node can take the server. ({message})"
    all_ = re.search(r"\b0/(\d+) nodes", message)
    if all_ and int(all_[1]) - int(others[1]) > 1:
        what = f"has {short} free" if short else "can take the server"
        return f"No node that the disk can be used from {what}. ({message})"
    holder = f"The node that holds the disk, {name}," if name else "The node that holds the disk"
    why = trouble or (f"does not have {short} free" if short else "")
    return f"{holder} cannot take the server{f': it {why}' if why else ''}. ({message})"


def _short(pod: Object, message: str) -> str:
    wants = game_container(pod).get("resources", {}).get("requests", {})
    return " and ".join(
        f"{readable_size(wants[name])} of memory" if name == "memory" else f"{wants[name]} of {name}"
        for name in ("memory", "cpu", "ephemeral-storage")
        if f"Insufficient {name}" in message and name in wants
    )


def _holder_trouble(nodes: Mapping[str, Object], name: str | None) -> str:
    if not name or not nodes:
        return ""
    if name not in nodes:
        return "is no longer part of the cluster"
    if condition(nodes[name], "Ready").get("status") == "Unknown":
        return "does not answer"
    if condition(nodes[name], "Ready").get("status") == "False":
        return "is not ready"
    return "is cordoned" if nodes[name].get("spec", {}).get("unschedulable") else ""


# -- disk and image ----------------------------------------------------------------------------------------


def disk_failure(objects: Objects) -> Reason | None:
    """Reason the disk gets no volume."""
    claim = objects.claim
    if claim is None or _bound(claim):
        return None
    if claim.get("status", {}).get("phase") == "Lost":
        return "The disk's volume is lost.", None
    for event in reversed(_events(objects)):
        if event.get("reason") == "ProvisioningFailed":
            return f"The disk is not bound: {event.get('message', '')[:300]}", _first(event)
    return None


def mount_failure(objects: Objects, pod: Object) -> Reason | None:
    """Reason the pod's volumes cannot be mounted. The sandbox is made once they are."""
    if condition(pod, "PodReadyToStartContainers").get("status") == "True":
        return None
    for event in reversed(_events(objects)):
        if event.get("reason") in _VOLUME_EVENTS:
            message = event.get("message", "")[:300]
            # By the name that the chart gives to the volume.
            what = "The Secret with RCON's password" if 'volume "rcon"' in message else "The disk"
            return f"{what} cannot be mounted: {message}", _first(event)
    return None


def image_failure(image: str, why: str, message: str) -> str:
    """Reason the image is not there, from the reason and the message with which the container waits."""
    said = message.replace(image, "").lower()
    if why == "InvalidImageName":
        return f"The image's name {image} is not valid."
    # Before the other: "pull access denied, repository does not exist or may require authorization".
    if any(word in said for word in ("unauthorized", "denied", "forbidden", "authorization failed")):
        return f"The registry refused the image {image}."
    if why == "ErrImageNeverPull" or "not found" in said or "does not exist" in said:
        return f"The image {image} was not found."
    return f"The image {image} cannot be pulled." + (
        f" {message[:300]}" if message and "ack-off" not in message else ""
    )


# -- events ------------------------------------------------------------------------------------------------


def _events(objects: Objects) -> Sequence[Object]:
    """Without those of an earlier server's objects: they had the same names, and events outlive them by an hour."""
    events = objects.events
    if not events:
        return events
    uids = {None, *(uid(thing) for thing in (objects.statefulset, objects.pod, objects.claim) if thing is not None)}
    return [event for event in events if event.get("involvedObject", {}).get("uid") in uids]


def _first(event: Object) -> str | None:
    first: str | None = event.get("firstTimestamp") or event.get("eventTime") or event.get("lastTimestamp")
    # Events of the newer kind have fractions of a second.
    return f"{first[:19]}Z" if first else None


def _bound(claim: Object) -> bool:
    return bool(claim.get("status", {}).get("phase") == "Bound")
