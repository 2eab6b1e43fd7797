"""What a server is doing, said honestly and in plain words.

Pure but for the clock: objects go in, a State comes out. It is read from pods, StatefulSets, nodes and events,
never from what helm believes: where a namespace enforces "restricted", helm says deployed while no pod was ever
admitted. Helm's own word counts only where there is no StatefulSet to look at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from service.kube.types import Object
from service.servers import reasons
from service.servers.accessors import (
    condition,
    created_at,
    deleted_at,
    game_status,
    revision_created_at,
    revision_modified_at,
    termination,
)
from service.servers.exits import exit_reason, exited_by_itself
from service.servers.names import KEPT_SINCE
from service.servers.objects import Objects
from service.servers.stops import stop_of

STATES = ("creating", "starting", "running", "stopping", "stopped", "deleting", "failed")
WANTED = ("running", "stopped", "deleted")

_IMAGE = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"}
_CONFIGURATION = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "ContainerCannotRun"}
_RESTARTS = "The server restarts to take a change."


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


def state_of(objects: Objects) -> State:
    """The state of a server. Nodes and events are looked at only where they have a say."""
    status, statefulset = _release_status(objects), objects.statefulset
    if deleted_at(statefulset) or status == "uninstalling" or (statefulset is None and status is None):
        return _deleting(objects)
    if statefulset is None:
        return _without_workload(objects, status)
    if int(statefulset.get("spec", {}).get("replicas", 1)) != 0:
        return _wanted_running(objects, statefulset)
    if objects.pod is None:
        return _stopped(objects, statefulset)
    since = deleted_at(objects.pod) or revision_created_at(objects.releases)
    return State("stopping", _lost_node_reason(objects), since, "stopped")


def start_failure(objects: Objects) -> str | None:
    """Why the server's last start has come to nothing, for the time after it was given up; None where it has not."""
    pod = objects.pod or {}
    container = game_status(pod) or {}
    if container.get("started"):
        return None
    if end := termination(pod) or (container.get("lastState") or {}).get("terminated"):
        reason = None if exited_by_itself(pod, end) else exit_reason(pod, end)
    else:
        now = _of_pod(objects, pod)
        reason = now.reason if now.state == "failed" else None
    return reason and f"Its last start had failed: {reason}"


def with_log(state: State, tail: str) -> State:
    """The same state, its reason ending with the game's own last lines."""
    lines = [line.strip()[:300] for line in tail.splitlines() if line.strip()]
    if not lines:
        return state
    reason = f"{state.reason} Its last lines: {' | '.join(lines)}"
    if any("No space left on device" in line for line in lines):
        reason = f"The disk is full. {reason}"
    return replace(state, reason=reason)


# -- a server that is not wanted to run --------------------------------------------------------------------


def _deleting(objects: Objects) -> State:
    kept_since = ((objects.claim or {}).get("metadata", {}).get("annotations") or {}).get(KEPT_SINCE)
    deletion = deleted_at(objects.statefulset) or deleted_at(objects.pod)
    since = kept_since or deletion or revision_modified_at(objects.releases)
    return State("deleting", _lost_node_reason(objects), since, "deleted")


def _without_workload(objects: Objects, status: str | None) -> State:
    if (status or "").startswith("pending"):
        return State("creating", None, revision_created_at(objects.releases), "running")
    reason = (
        "The install failed; the same create again, or a delete, mends it."
        if status == "failed"
        else "The server's StatefulSet is missing; a start makes it again."
    )
    return State("failed", reason, revision_modified_at(objects.releases), "running")


def _stopped(objects: Objects, statefulset: Object) -> State:
    if (stop := stop_of(statefulset)) is not None:
        if stop.awaited(datetime.now(UTC)):
            return State("stopping", None, stop.at, "stopped")
        return State("stopped", stop.reason, stop.at, "stopped")
    # Nobody has seen a pod end. Where the disk waits for the first one, there has never been any.
    never = (objects.claim or {}).get("status", {}).get("phase") == "Pending"
    since = created_at(statefulset) if never else revision_created_at(objects.releases) or created_at(statefulset)
    return State("stopped", None, since, "stopped")


def _lost_node_reason(objects: Objects) -> str | None:
    trouble = reasons.node_failure(objects)
    return trouble and f"{trouble[0]} Nobody can tell whether the game has ended, until the node is back or removed."


# -- a server that is wanted to run ------------------------------------------------------------------------


def _wanted_running(objects: Objects, statefulset: Object) -> State:
    pod, made = objects.pod, revision_created_at(objects.releases) or created_at(statefulset)
    if pod is None:
        if refused := reasons.pod_creation_failure(objects) or reasons.disk_failure(objects):
            # A refusal of before a stop and a start is one of now since that start.
            return State("failed", refused[0], max(refused[1] or "", made or "") or None, "running")
        return State(_initial_state(objects), None, made, "running")
    if trouble := reasons.node_failure(objects):
        evicted = " Kubernetes has given up the game there: once the node is back, it starts anew."
        return State("failed", trouble[0] + (evicted if deleted_at(pod) else ""), trouble[1], "running")
    outdated = _is_outdated(statefulset, pod)
    if since := deleted_at(pod):
        reason = reasons.disruption(pod) or (_RESTARTS if outdated else None)
        return State("stopping", reason, since, "running")
    if outdated:
        return State("starting", _RESTARTS, made, "running")
    return _of_pod(objects, pod)


def _of_pod(objects: Objects, pod: Object) -> State:
    status = pod.get("status", {})
    since = status.get("startTime") or created_at(pod)
    ready = condition(pod, "Ready")
    if ready.get("status") == "True":
        return State("running", None, ready.get("lastTransitionTime") or since, "running")
    container = game_status(pod)
    if status.get("phase") == "Failed":
        reason = status.get("message") or reasons.disruption(pod) or "The node ended the server's pod."
        return State("failed", reason, _failed_at(pod, container) or since, "running")
    scheduled = condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        return _unscheduled(objects, scheduled, pod)
    if container is None:
        return _waiting(objects, pod, _initial_state(objects), since)
    return _of_container(objects, pod, container, since)


def _of_container(objects: Objects, pod: Object, container: Object, since: str | None) -> State:
    now, last = container.get("state") or {}, (container.get("lastState") or {}).get("terminated")
    waiting, end, running = now.get("waiting"), now.get("terminated"), now.get("running")
    if waiting is not None:
        why, message = waiting.get("reason", ""), waiting.get("message", "")
        # The first that a kubelet does when all else is there is to pull the image.
        began = condition(pod, "PodReadyToStartContainers").get("lastTransitionTime") or since
        if why in _IMAGE:
            reason = reasons.image_failure(container.get("image") or "the image", why, message)
            return State("failed", reason, began, "running")
        if why in _CONFIGURATION:
            return State("failed", f"The container cannot be made: {message or why}", began, "running")
        if why == "CrashLoopBackOff":
            return _terminated(pod, last or {}, backing_off=True)
        return _waiting(objects, pod, "starting", since)
    if end is not None:
        return _terminated(pod, end, backing_off=False)
    started = (running or {}).get("startedAt") or since
    ready_changed = condition(pod, "Ready").get("lastTransitionTime")
    if container.get("started") and (ready_changed or "") > (started or ""):
        return State("failed", "The game runs, but does not answer any more.", ready_changed, "running")
    return State("starting", _previous_exit(pod, last) if last else None, started, "running")


def _terminated(pod: Object, end: Mapping[str, Any], *, backing_off: bool) -> State:
    reason, since = exit_reason(pod, end), end.get("finishedAt")
    if exited_by_itself(pod, end):
        # As by its own command for it: no failure, though the customer has to wait if that was done often.
        reason += " Kubernetes starts it again" + (
            ", but waits longer before each new start, up to five minutes." if backing_off else "."
        )
        return State("starting", reason, since, "running")
    if backing_off:
        what = "It ends" if end.get("exitCode") == 0 else "It crashes"
        reason += f" {what} again and again; Kubernetes waits longer before each new try."
    # A game out of memory is killed in mid-sentence: its log has nothing to tell.
    crashed = end.get("reason") != "OOMKilled"
    return State("failed", reason, since, "running", crashed=crashed, previous=backing_off)


def _previous_exit(pod: Object, last: Mapping[str, Any]) -> str:
    if exited_by_itself(pod, last):
        return f"{exit_reason(pod, last)} Kubernetes has started it again."
    return f"The last try ended: {exit_reason(pod, last)}"


def _unscheduled(objects: Objects, scheduled: Mapping[str, Any], pod: Object) -> State:
    since = scheduled.get("lastTransitionTime")
    if refused := reasons.disk_failure(objects):
        return State("failed", refused[0], refused[1] or since, "running")
    if scheduled.get("reason") != "Unschedulable":
        return State(_initial_state(objects), None, since, "running")
    return State("failed", reasons.scheduling_failure(objects, pod), since, "running")


def _waiting(objects: Objects, pod: Object, state: str, since: str | None) -> State:
    if refused := reasons.mount_failure(objects, pod):
        return State("failed", refused[0], refused[1] or since, "running")
    return State(state, None, since, "running")


# -- small readings ----------------------------------------------------------------------------------------


def _release_status(objects: Objects) -> str | None:
    for metadata in reversed(objects.releases):
        status = str(metadata.get("labels", {}).get("status", ""))
        return None if status == "uninstalled" else status
    return None


def _initial_state(objects: Objects) -> str:
    """What to call the time before there is a container: the first is still part of the creation."""
    bound = (objects.claim or {}).get("status", {}).get("phase") == "Bound"
    return "starting" if bound else "creating"


def _failed_at(pod: Object, container: Object | None) -> str | None:
    """When a pod failed that nobody starts again."""
    end = ((container or {}).get("state") or {}).get("terminated") or {}
    at: str | None = end.get("finishedAt") or condition(pod, "DisruptionTarget").get("lastTransitionTime")
    return at or condition(pod, "Ready").get("lastTransitionTime")


def _is_outdated(statefulset: Object, pod: Object) -> bool:
    """Whether the controller has still to see the newest template, or to replace the pod for it."""
    strategy = statefulset.get("spec", {}).get("updateStrategy") or {}
    # Below the partition a pod is meant to stay as it is.
    if (strategy.get("rollingUpdate") or {}).get("partition") or strategy.get("type") == "OnDelete":
        return False
    status = statefulset.get("status", {})
    generation = statefulset.get("metadata", {}).get("generation")
    if generation is not None and status.get("observedGeneration", generation) < generation:
        return True
    wanted = status.get("updateRevision")
    actual = pod.get("metadata", {}).get("labels", {}).get("controller-revision-hash")
    return wanted is not None and actual is not None and wanted != actual
