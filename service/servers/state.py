"""Computes a server's state from its objects.

Pure except for the clock. The state comes from pods, StatefulSets, nodes and events, not from helm's status: if a
namespace enforces "restricted", helm says "deployed" although no pod was ever admitted. Helm's status counts only if
there is no StatefulSet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from service.kube.types import Object
from service.servers import reasons
from service.servers.accessors import (
    READINESS_GATES,
    annotation,
    condition,
    created_at,
    deleted_at,
    game_status,
    is_bound,
    revision_created_at,
    revision_modified_at,
    termination,
    wants_pod,
)
from service.servers.exits import exit_reason, exited_by_itself, lost_track
from service.servers.names import KEPT_SINCE
from service.servers.objects import Objects
from service.servers.spec import idle_stopped_at
from service.servers.stops import stop_of

STATES = ("creating", "starting", "running", "stopping", "stopped", "deleting", "failed")
WANTED = ("running", "stopped", "deleted")

_FULL = "The disk is full."
_NOBODY_PLAYED = "It was stopped because nobody was playing."
_FORMER = "The game of an earlier server with this id still ends. This one starts then."
_RESTARTS = "The server is restarting to apply a change."


@dataclass(frozen=True)
class State:
    """A server's state.

    Attributes:
        state: One of STATES.
        reason: Why the server is in this state, as a sentence, if there is something to say.
        since: Since when, as an RFC 3339 time; None if that is unknown.
        wanted: The desired state, one of WANTED.
        crashed: Whether the last lines of the game's log should be added to the reason; see `with_log`.
        previous: Whether those are the previous container's lines.
    """

    state: str
    reason: str | None
    since: str | None
    wanted: str
    crashed: bool = False
    previous: bool = False


def exists(objects: Objects) -> bool:
    """Whether there is a server, that is a release or a StatefulSet, and not just a kept disk."""
    return objects.statefulset is not None or _release_status(objects) is not None


def state_of(objects: Objects) -> State:
    """The state of a server. Nodes and events are read only if the state depends on them."""
    status, statefulset = _release_status(objects), objects.statefulset
    if deleted_at(statefulset) or status == "uninstalling" or (statefulset is None and status is None):
        return _deleting(objects)
    if statefulset is None:
        return _without_workload(objects, status)
    if wants_pod(statefulset):
        return _should_run(objects, statefulset)
    if objects.pod is None:
        return _stopped(objects, statefulset)
    since = deleted_at(objects.pod) or revision_created_at(objects.releases)
    return State("stopping", _what_keeps_the_pod(objects), since, "stopped")


def start_failure(objects: Objects) -> str | None:
    """Why the server's last start failed, to be shown once the server is stopped; None if it did not fail."""
    pod = objects.pod or {}
    container = game_status(pod) or {}
    if container.get("started"):
        return None
    if not deleted_at(pod) and (reason := reasons.ended_by_node(objects)):
        return f"Its last start failed: {reason}"
    if end := termination(pod) or (container.get("lastState") or {}).get("terminated"):
        reason = None if exited_by_itself(pod, end) else exit_reason(pod, end)
    else:
        current = _of_pod(objects, pod)
        reason = current.reason if current.state == "failed" else None
    return reason and f"Its last start failed: {reason}"


def with_log(state: State, tail: str) -> State:
    """The same state, with the last lines of the game's log (`tail`) added to its reason."""
    lines = [line.strip()[:300] for line in tail.splitlines() if line.strip()]
    if not lines:
        return state
    reason = f"{state.reason} Its last log lines: {' | '.join(lines)}"
    if any("No space left on device" in line for line in lines) and not reason.startswith(_FULL):
        reason = f"{_FULL} {reason}"
    return replace(state, reason=reason)


def is_outdated(statefulset: Object, pod: Object) -> bool:
    """Whether the controller has not yet seen the newest template, or not yet replaced the pod for it."""
    strategy = statefulset.get("spec", {}).get("updateStrategy") or {}
    # Below the partition, a pod is left alone on purpose.
    if (strategy.get("rollingUpdate") or {}).get("partition") or strategy.get("type") == "OnDelete":
        return False
    status = statefulset.get("status", {})
    generation = statefulset.get("metadata", {}).get("generation")
    if generation is not None and status.get("observedGeneration", generation) < generation:
        return True
    desired = status.get("updateRevision")
    actual = pod.get("metadata", {}).get("labels", {}).get("controller-revision-hash")
    return desired is not None and actual is not None and desired != actual


def can_be_left_alone(statefulset: Object | None, pod: Object | None) -> bool:
    """Whether the pod has all that it is to have, so that Kubernetes can go on giving it the template it has.

    Below the partition, Kubernetes makes a lost pod again from `currentRevision`, which becomes the newest one when a
    pod of that one is ready. A pod that still ends to make room for a newer one would come back as it was:
    https://github.com/kubernetes/kubernetes/blob/v1.35.4/pkg/controller/statefulset/stateful_set_utils.go
    """
    if statefulset is None:
        return False
    if ((statefulset.get("spec", {}).get("updateStrategy") or {}).get("rollingUpdate") or {}).get("partition"):
        return True
    status, metadata = statefulset.get("status") or {}, (pod or {}).get("metadata", {})
    observed = status.get("observedGeneration") == statefulset["metadata"].get("generation")
    revisions = {status.get("currentRevision"), status.get("updateRevision")}
    template = metadata.get("labels", {}).get("controller-revision-hash")
    return observed and "deletionTimestamp" not in metadata and template is not None and revisions == {template}


# -- a server that should not run ---------------------------------------------------------------------------


def _deleting(objects: Objects) -> State:
    kept_since = annotation(objects.claim, KEPT_SINCE)
    deletion = deleted_at(objects.statefulset) or deleted_at(objects.pod)
    since = kept_since or deletion or revision_modified_at(objects.releases)
    return State("deleting", _what_keeps_the_pod(objects), since, "deleted")


def _without_workload(objects: Objects, status: str | None) -> State:
    if (status or "").startswith("pending"):
        return State("creating", None, revision_created_at(objects.releases), "running")
    if status == "failed":
        reason = "The install failed. Send the same create again, or delete the server."
        return State("failed", reason, revision_modified_at(objects.releases), "running")
    return State("failed", "The server's StatefulSet is missing. A start creates it again.", None, "running")


def _stopped(objects: Objects, statefulset: Object) -> State:
    idle = _NOBODY_PLAYED if idle_stopped_at(objects) else None
    if (stop := stop_of(statefulset)) is not None:
        if stop.awaited(datetime.now(UTC)):
            return State("stopping", None, stop.at, "stopped")
        return State("stopped", stop.reason or idle, stop.at, "stopped")
    # No replica saw a pod end. If the disk still waits for its first pod, there never was one.
    never_ran = (objects.claim or {}).get("status", {}).get("phase") == "Pending"
    since = created_at(statefulset) if never_ran else stopped_at_creation(statefulset)
    return State("stopped", idle, since, "stopped")


def stopped_at_creation(statefulset: Object) -> str | None:
    """When a stopped server's StatefulSet was created, if it was created without a pod and has not changed since.

    Any change of the spec, such as of its replicas, increases the generation.
    """
    return created_at(statefulset) if statefulset["metadata"].get("generation", 1) == 1 else None


def _what_keeps_the_pod(objects: Objects) -> str | None:
    if failure := reasons.node_failure(objects):
        return f"{failure[0]} Whether the game has stopped is unknown until the node is back or is removed."
    return reasons.overdue_end(objects.pod, datetime.now(UTC))


# -- a server that should run -------------------------------------------------------------------------------


def _should_run(objects: Objects, statefulset: Object) -> State:
    pod, updated_at = objects.pod, revision_created_at(objects.releases) or created_at(statefulset)
    if pod is None:
        if failure := reasons.pod_creation_failure(objects) or reasons.disk_failure(objects):
            # A failure that began before a stop and a start counts from that start.
            return State("failed", failure[0], max(failure[1] or "", updated_at or "") or None, "running")
        # As long as the controller counts a pod, a pod has gone that it replaces: nobody knows when that went.
        replaced = bool(statefulset.get("status", {}).get("replicas"))
        reason = _FORMER if objects.former_pod else None
        if overdue := reasons.overdue_end(objects.former_pod, datetime.now(UTC)):
            reason = f"{_FORMER} {overdue}"
        return State(_initial_state(objects), reason, None if replaced else updated_at, "running")
    if failure := reasons.node_failure(objects):
        evicted = " Kubernetes has given up on the game there. Once the node is back, the game starts again."
        return State("failed", failure[0] + (evicted if deleted_at(pod) else ""), failure[1], "running")
    outdated = is_outdated(statefulset, pod)
    if since := deleted_at(pod):
        cause = reasons.ended_by_node(objects) or reasons.disruption(pod) or (_RESTARTS if outdated else None)
        reason = reasons.overdue_end(pod, datetime.now(UTC)) or cause
        return State("stopping", reason, since, "running")
    if outdated:
        return State("starting", _RESTARTS, updated_at, "running")
    return _with_full_disk(_of_pod(objects, pod), objects, pod)


def _with_full_disk(state: State, objects: Objects, pod: Object) -> State:
    """The same state, with a full disk as its reason, or before it, if the game has run."""
    usage = objects.usage
    if usage is None or usage.fill(datetime.now(UTC)) != "full":
        return state
    if state.state == "running":
        return replace(state, reason=f"{_FULL} The game may be unable to save.")
    container = game_status(pod) or {}
    has_run = termination(pod) or container.get("lastState") or container.get("started")
    return replace(state, reason=f"{_FULL} {state.reason}") if has_run and state.reason else state


def _of_pod(objects: Objects, pod: Object) -> State:
    status = pod.get("status", {})
    since = status.get("startTime") or created_at(pod)
    ready = condition(pod, "Ready")
    if ready.get("status") == "True":
        return State("running", None, ready.get("lastTransitionTime") or since, "running")
    container = game_status(pod)
    if reason := reasons.ended_by_node(objects):
        return State("failed", reason, _failed_at(pod, container) or since, "running")
    scheduled = condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        return _unscheduled(objects, scheduled, pod)
    if container is None:
        return _waiting(objects, pod, _initial_state(objects), since)
    return _of_container(objects, pod, container, since)


def _of_container(objects: Objects, pod: Object, container: Object, since: str | None) -> State:
    current, last = container.get("state") or {}, (container.get("lastState") or {}).get("terminated")
    waiting, end, running = current.get("waiting"), current.get("terminated"), current.get("running")
    if waiting is not None:
        waiting_reason, message = waiting.get("reason", ""), waiting.get("message", "")
        # Once the pod is ready to start containers, the kubelet first pulls the image.
        began = condition(pod, "PodReadyToStartContainers").get("lastTransitionTime") or since
        if waiting_reason in reasons.IMAGE_FAILURES:
            reason = reasons.image_failure(container.get("image") or "the image", waiting_reason, message)
            return State("failed", reason, began, "running")
        if waiting_reason in reasons.CONTAINER_FAILURES:
            return State("failed", f"The container cannot be created: {message or waiting_reason}", began, "running")
        if waiting_reason == "CrashLoopBackOff":
            return _terminated(pod, last or {}, backing_off=True)
        if failure := reasons.other_container_failure(pod):
            return State("failed", failure, began, "running")
        return _waiting(objects, pod, "starting", since)
    if end is not None:
        return _terminated(pod, end, backing_off=False)
    started = (running or {}).get("startedAt") or since
    ready_changed = condition(pod, "Ready").get("lastTransitionTime")
    if container.get("ready"):
        return _held_back(pod, started)
    if container.get("started") and (ready_changed or "") > (started or ""):
        return State("failed", "The game is running, but no longer answers.", ready_changed, "running")
    # A kubelet that restarts takes a game that answers for one that starts, for a moment:
    # https://github.com/kubernetes/kubernetes/issues/125397
    since = max(started or "", ready_changed or "") or None
    return State("starting", _previous_exit(pod, last) if last else None, since, "running")


def _held_back(pod: Object, started: str | None) -> State:
    """The state of a pod that is not ready although its game is: what the cluster has added to the pod is not."""
    ready = condition(pod, "Ready")
    since = max(ready.get("lastTransitionTime") or "", started or "") or None
    if failure := reasons.other_container_failure(pod):
        return State("failed", failure, since, "running")
    if ready.get("reason") == READINESS_GATES:
        cause = f"a readiness gate of the cluster: {str(ready.get('message', ''))[:300]}"
    else:
        cause = "another container of its pod."
    return State("starting", f"The game answers, but waits for {cause}", since, "running")


def _terminated(pod: Object, end: Mapping[str, Any], *, backing_off: bool) -> State:
    reason, since = exit_reason(pod, end), end.get("finishedAt")
    if exited_by_itself(pod, end):
        # For example by its own command. That is no failure, although the customer has to wait if it happens often.
        reason += " Kubernetes starts it again" + (
            ", but waits longer before each new start, up to five minutes." if backing_off else "."
        )
        return State("starting", reason, since, "running")
    if backing_off:
        verb = "ends" if end.get("exitCode") == 0 else "crashes"
        reason += f" It {verb} again and again; Kubernetes waits longer before each new start."
    # The kernel kills a game that runs out of memory at once, and a lost one has not crashed: their logs say no reason.
    crashed = end.get("reason") != "OOMKilled" and not lost_track(end)
    return State("failed", reason, since, "running", crashed=crashed, previous=backing_off)


def _previous_exit(pod: Object, last: Mapping[str, Any]) -> str:
    if exited_by_itself(pod, last):
        return f"{exit_reason(pod, last)} Kubernetes has started it again."
    return f"The last attempt ended: {exit_reason(pod, last)}"


def _unscheduled(objects: Objects, scheduled: Mapping[str, Any], pod: Object) -> State:
    since = scheduled.get("lastTransitionTime")
    # What the scheduler says about room for the disk is newer than an event of an attempt.
    if not reasons.lacks_disk_space(scheduled) and (failure := reasons.disk_failure(objects)):
        return State("failed", failure[0], failure[1] or since, "running")
    if scheduled.get("reason") != "Unschedulable":
        return State(_initial_state(objects), None, since, "running")
    return State("failed", reasons.scheduling_failure(objects, pod), since, "running")


def _waiting(objects: Objects, pod: Object, state: str, since: str | None) -> State:
    if failure := reasons.preparation_failure(objects, pod):
        return State("failed", failure[0], failure[1] or since, "running")
    return State(state, None, since, "running")


# -- helpers ------------------------------------------------------------------------------------------------


def _release_status(objects: Objects) -> str | None:
    for metadata in reversed(objects.releases):
        status = str(metadata.get("labels", {}).get("status", ""))
        return None if status == "uninstalled" else status
    return None


def _initial_state(objects: Objects) -> str:
    """The state before there is a container: "creating" until the disk is bound for the first time."""
    return "starting" if is_bound(objects.claim) else "creating"


def _failed_at(pod: Object, container: Object | None) -> str | None:
    """When a pod failed that its node ended."""
    end = ((container or {}).get("state") or {}).get("terminated") or {}
    at: str | None = end.get("finishedAt") or condition(pod, "DisruptionTarget").get("lastTransitionTime")
    return at or condition(pod, "Ready").get("lastTransitionTime")
