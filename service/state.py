"""What a server is doing, said honestly and in plain words.

Pure: objects go in, a State comes out. It is read from pods, StatefulSets and events, never from what helm
believes: where a namespace enforces "restricted", helm says deployed while no pod was ever admitted. Helm's
own word counts only where there is no StatefulSet to look at.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from service.edges import Object, Objects

CONTAINER = "game"
STATES = ("creating", "starting", "running", "stopping", "stopped", "deleting", "failed")
WANTED = ("running", "stopped", "deleted")

_IMAGE = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"}
_CONFIGURATION = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "ContainerCannotRun"}
_VOLUME_EVENTS = {"FailedMount", "FailedAttachVolume", "FailedMapVolume"}


@dataclass(frozen=True)
class State:
    """`state` is one of STATES, `wanted` one of WANTED, `since` an RFC 3339 time or None where nobody knows.

    `crashed` says that the last lines of the game's log, if somebody fetches them, belong into the reason;
    `previous` that they are those of the container before the present one.
    """

    state: str
    reason: str | None
    since: str | None
    wanted: str
    crashed: bool = False
    previous: bool = False


def exists(objects: Objects) -> bool:
    """Whether there is a server (a release or what one has made), as against a mere kept disk."""
    return objects.statefulset is not None or _release_status(objects) is not None


def state_of(objects: Objects, events: Sequence[Object] | None = None) -> State:
    """The state of a server. `events` are newer ones than its own; without any, some reasons stay unknown."""
    happened = objects.events if events is None else events
    status, newest = _release_status(objects), _made(objects.releases[-1:])
    if objects.statefulset is None:
        if status is None or status == "uninstalling":
            return State("deleting", None, _deleted(objects.pod) or newest, "deleted")
        if status.startswith("pending"):
            return State("creating", None, newest, "running")
        reason = (
            "The install failed; the same create again, or a delete, mends it."
            if status == "failed"
            else "The server's StatefulSet is missing; a start makes it again."
        )
        return State("failed", reason, newest, "running")
    if _deleted(objects.statefulset) or status == "uninstalling":
        return State("deleting", None, _deleted(objects.statefulset) or newest, "deleted")
    if int(objects.statefulset.get("spec", {}).get("replicas", 1)) == 0:
        if objects.pod is not None:
            return State("stopping", None, _deleted(objects.pod) or newest, "stopped")
        return State("stopped", None, newest or _created(objects.statefulset), "stopped")
    return _wanted_running(objects, _of_these(objects, happened), newest)


def with_log(state: State, tail: str) -> State:
    """The same state, its reason ending with the game's own last lines."""
    lines = [line.strip()[:300] for line in tail.splitlines() if line.strip()]
    if not lines:
        return state
    reason = f"{state.reason} Its last lines: {' | '.join(lines)}"
    if any("No space left on device" in line for line in lines):
        reason = f"The disk is full. {reason}"
    return replace(state, reason=reason)


# -- a server that is wanted to run ------------------------------------------------------------------------


def _wanted_running(objects: Objects, events: Sequence[Object], newest: str | None) -> State:
    statefulset, pod = objects.statefulset or {}, objects.pod
    made = newest or _created(statefulset)
    if pod is None:
        if reason := _refused(events) or _disk_refused(objects.claim, events):
            return State("failed", reason, made, "running")
        return State(_before(objects), None, made, "running")
    if deleted := _deleted(pod):
        return State("stopping", None, deleted, "running")
    if _outdated(statefulset, pod):
        return State("starting", "The server restarts to take a change.", made, "running")
    return _of_pod(objects, events, pod)


def _of_pod(objects: Objects, events: Sequence[Object], pod: Object) -> State:
    status = pod.get("status", {})
    since = status.get("startTime") or _created(pod)
    if ready_since := _ready_since(pod):
        return State("running", None, ready_since, "running")
    if status.get("phase") == "Failed":
        return State("failed", status.get("message") or "The node ended the server's pod.", since, "running")
    scheduled = _condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        return _unscheduled(objects, events, scheduled, pod)
    container = next((c for c in status.get("containerStatuses", []) if c.get("name") == CONTAINER), None)
    if container is None:
        reason = _volume_refused(events)
        return State("failed" if reason else _before(objects), reason, since, "running")
    return _of_container(events, pod, container, since)


def _of_container(events: Sequence[Object], pod: Object, container: Object, since: str | None) -> State:
    now, last = container.get("state", {}), container.get("lastState", {}).get("terminated")
    waiting, ended, running = now.get("waiting"), now.get("terminated"), now.get("running")
    if waiting is not None:
        why, message = waiting.get("reason", ""), waiting.get("message", "")
        if why in _IMAGE:
            return State("failed", _image_reason(container, why, message), since, "running")
        if why in _CONFIGURATION:
            return State("failed", f"The container cannot be made: {message or why}", since, "running")
        if why == "CrashLoopBackOff":
            return _crashed(pod, last or {}, again=True, previous=True)
        reason = _volume_refused(events)
        return State("failed" if reason else "starting", reason, since, "running")
    if ended is not None:
        return _crashed(pod, ended, again=False, previous=False)
    started = (running or {}).get("startedAt") or since
    if container.get("started") and (_condition(pod, "Ready").get("lastTransitionTime") or "") > (started or ""):
        # The kubelet sets both conditions; only for a node that is lost does Kubernetes set the one without the other.
        lost = _condition(pod, "ContainersReady").get("status") == "True"
        reason = "Its node does not answer." if lost else "The game runs, but does not answer any more."
        return State("failed", reason, _condition(pod, "Ready").get("lastTransitionTime"), "running")
    if last is not None:
        return State("starting", f"The last try ended: {_ending(pod, last)}", started, "running")
    return State("starting", None, started, "running")


def _crashed(pod: Object, ended: Mapping[str, Any], *, again: bool, previous: bool) -> State:
    reason = _ending(pod, ended)
    if again:
        reason += " It crashes again and again; Kubernetes waits longer before each new try."
    # A game out of memory is killed in mid-sentence: its log has nothing to tell.
    crashed = ended.get("reason") != "OOMKilled"
    return State("failed", reason, ended.get("finishedAt"), "running", crashed=crashed, previous=previous)


def _ending(pod: Object, ended: Mapping[str, Any]) -> str:
    if ended.get("reason") == "OOMKilled":
        limit = _game(pod).get("resources", {}).get("limits", {}).get("memory")
        return f"The game ran out of memory{f' (its limit is {_quantity(limit)})' if limit else ''}."
    if ended.get("reason") in {"StartError", "ContainerCannotRun"}:
        return f"The game could not be started: {ended.get('message', '')}"
    code = ended.get("exitCode")
    if code == 0:
        return "The game ended by itself (exit code 0)."
    if ended.get("signal"):
        return f"The game was ended by signal {ended['signal']}."
    return f"The game crashed (exit code {code})."


def _image_reason(container: Object, why: str, message: str) -> str:
    image = container.get("image") or "the image"
    lowered = message.lower()
    if why == "InvalidImageName":
        return f"The image's name {image} is not valid."
    if why == "ErrImageNeverPull" or "not found" in lowered or "does not exist" in lowered:
        return f"The image {image} was not found."
    if "unauthorized" in lowered or "denied" in lowered:
        return f"The registry refused the image {image}."
    return f"The image {image} cannot be pulled." + (
        f" {message[:300]}" if message and "ack-off" not in message else ""
    )


# -- before there is a pod on a node -----------------------------------------------------------------------


def _unscheduled(objects: Objects, events: Sequence[Object], condition: Mapping[str, Any], pod: Object) -> State:
    since, message = condition.get("lastTransitionTime"), condition.get("message", "")
    if reason := _disk_refused(objects.claim, events):
        return State("failed", reason, since, "running")
    if condition.get("reason") != "Unschedulable":
        return State(_before(objects), None, since, "running")
    wants = _game(pod).get("resources", {}).get("requests", {})
    short = [
        f"{_quantity(wants[name])} of memory" if name == "memory" else f"{wants[name]} of {name}"
        for name in ("memory", "cpu", "ephemeral-storage")
        if f"Insufficient {name}" in message and name in wants
    ]
    if short:
        return State("failed", f"No node has {' and '.join(short)} free. ({message})", since, "running")
    if "unbound immediate PersistentVolumeClaims" in message or "persistentvolumeclaim" in message:
        return State("failed", f"The disk is not bound. ({message})", since, "running")
    if "volume node affinity conflict" in message:
        return State("failed", f"The node that holds the disk cannot take the server. ({message})", since, "running")
    return State("failed", f"No node can take the server. ({message})", since, "running")


def _refused(events: Sequence[Object]) -> str | None:
    for event in reversed(events):
        if event.get("reason") == "SuccessfulCreate":
            return None
        message = event.get("message", "")
        if event.get("reason") != "FailedCreate" or "PersistentVolumeClaim" in message.split("error:")[0]:
            continue
        if "violates PodSecurity" in message:
            return f"Pod security refused the server's pod: {message.split('violates PodSecurity', 1)[1].strip()}"
        if "exceeded quota" in message:
            return f"A quota refused the server's pod: {message.split('exceeded quota', 1)[1].lstrip(': ')}"
        return f"The cluster refused the server's pod: {message[:300]}"
    return None


def _disk_refused(claim: Object | None, events: Sequence[Object]) -> str | None:
    if claim is None or claim.get("status", {}).get("phase") == "Bound":
        return None
    if claim.get("status", {}).get("phase") == "Lost":
        return "The disk's volume is lost."
    for event in reversed(events):
        if event.get("reason") == "ProvisioningFailed":
            return f"The disk is not bound: {event.get('message', '')[:300]}"
        if event.get("reason") in {"ProvisioningSucceeded", "Provisioning"}:
            return None
    return None


def _volume_refused(events: Sequence[Object]) -> str | None:
    for event in reversed(events):
        if event.get("reason") in {"Pulled", "Created", "Started", "SuccessfulAttachVolume"}:
            return None
        if event.get("reason") in _VOLUME_EVENTS:
            return f"The disk cannot be mounted: {event.get('message', '')[:300]}"
    return None


def _of_these(objects: Objects, events: Sequence[Object]) -> Sequence[Object]:
    """Without those of an earlier server's objects: they had the same names, and events outlive them by an hour."""
    if not events:
        return events
    there = (objects.statefulset, objects.pod, objects.claim)
    uids = {None, *(thing.get("metadata", {}).get("uid") for thing in there if thing is not None)}
    return [event for event in events if event.get("involvedObject", {}).get("uid") in uids]


# -- small readings ----------------------------------------------------------------------------------------


def _release_status(objects: Objects) -> str | None:
    for metadata in reversed(objects.releases):
        status = str(metadata.get("labels", {}).get("status", ""))
        return None if status == "uninstalled" else status
    return None


def _before(objects: Objects) -> str:
    """What to call the time before there is a container: the first is still part of the creation."""
    bound = (objects.claim or {}).get("status", {}).get("phase") == "Bound"
    return "starting" if bound else "creating"


def _made(releases: Sequence[Object]) -> str | None:
    return releases[0].get("creationTimestamp") if releases else None


def _created(thing: Object) -> str | None:
    created: str | None = thing.get("metadata", {}).get("creationTimestamp")
    return created


def _deleted(thing: Object | None) -> str | None:
    """When its deletion was asked for. Kubernetes writes down when it has to be over, grace period included:
    https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/object-meta/
    """
    about = (thing or {}).get("metadata", {})
    if not (over := about.get("deletionTimestamp")):
        return None
    asked = datetime.fromisoformat(over) - timedelta(seconds=about.get("deletionGracePeriodSeconds") or 0)
    return asked.strftime("%Y-%m-%dT%H:%M:%SZ")


def _outdated(statefulset: Object, pod: Object) -> bool:
    """Whether the controller has still to see the newest template, or to replace the pod for it."""
    status = statefulset.get("status", {})
    generation = statefulset.get("metadata", {}).get("generation")
    if generation is not None and status.get("observedGeneration", generation) < generation:
        return True
    # Below the partition a pod is meant to stay as it is.
    if statefulset["spec"].get("updateStrategy", {}).get("rollingUpdate", {}).get("partition"):
        return False
    wanted = status.get("updateRevision")
    actual = pod.get("metadata", {}).get("labels", {}).get("controller-revision-hash")
    return wanted is not None and actual is not None and wanted != actual


def _ready_since(pod: Object) -> str | None:
    ready = _condition(pod, "Ready")
    if ready.get("status") != "True":
        return None
    return ready.get("lastTransitionTime") or pod.get("status", {}).get("startTime") or _created(pod) or ""


def _condition(pod: Object, name: str) -> Mapping[str, Any]:
    found: Mapping[str, Any]
    for found in pod.get("status", {}).get("conditions", []):
        if found.get("type") == name:
            return found
    return {}


def _game(pod: Object) -> Mapping[str, Any]:
    found: Mapping[str, Any]
    for found in pod.get("spec", {}).get("containers", []):
        if found.get("name") == CONTAINER:
            return found
    return {}


def _quantity(text: str) -> str:
    """`4Gi` as people write it: `4 GiB`."""
    parts = re.fullmatch(r"([0-9.]+)([KMGT]i)", text)
    return f"{parts[1]} {parts[2]}B" if parts else text
