"""What a server's objects say at one moment, reduced to what events follow from. Pure except for the clock.

Both pods of the controller keep the facts of the last minutes, so they are small.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from service.events.event import LONGEST_REASON
from service.kube.types import Object
from service.servers.accessors import (
    condition,
    created_at,
    deleted_at,
    game_status,
    owner_uid,
    termination,
    uid,
    version,
    wants_pod,
)
from service.servers.exits import (
    exit_code,
    exit_reason,
    exited_before_deletion,
    failed_stop_reason,
    killed_by_stop,
    runs,
    startup_timeout,
)
from service.servers.names import SERVER
from service.servers.objects import Objects
from service.servers.reasons import disruption, ended_by_node, node_failure, pod_creation_failure
from service.servers.spec import server_uid, spec_of_objects
from service.servers.state import exists, state_of
from service.servers.stops import Stop, stop_of


@dataclass(frozen=True, slots=True)
class End:
    """How a run of the game ended, or how it stopped.

    Attributes:
        type: The type of the event.
        at: When (RFC 3339).
        began: When the run began; "" if that is unknown.
        code: The exit code; None if it is unknown, or if there was no game to stop.
        reason: Why, as a sentence; None if there is nothing to say.
    """

    type: str
    at: str
    began: str = ""
    code: int | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class PodFacts:
    """A version of a server's pod.

    Attributes:
        uid: The pod's uid.
        owner: The uid of its StatefulSet.
        version: The pod's resourceVersion: a later version of any pod has a larger one.
        created: When it was created.
        run: The number of its newest run of the game, from 0.
        ends: How many runs have ended, apart from one that was ended by the pod's deletion.
        known: How those ended that Kubernetes still knows, by the run's number.
        answers: Since when the newest run answers; None while it does not.
        waits: Why no node takes the pod, and since when.
        lost: Why its node does not manage it, and since when.
        well: Whether the pod is ready, so its node manages it.
        stop: How the pod ended; None while it has not.
    """

    uid: str
    owner: str | None
    version: int
    created: str
    run: int = 0
    ends: int = 0
    known: tuple[tuple[int, End], ...] = ()
    answers: str | None = None
    waits: tuple[str, str] | None = None
    lost: tuple[str, str] | None = None
    well: bool = False
    stop: End | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What a server's objects say at one moment.

    Attributes:
        id: The server's id.
        at: When the objects were seen (RFC 3339).
        exists: Whether there is a server: a release or a StatefulSet.
        uid, customer, created: Of the server that the StatefulSet belongs to; the uid is None without a StatefulSet.
        workload: The StatefulSet's uid.
        version: The StatefulSet's resourceVersion: a later version, or a later StatefulSet, has a larger one.
        sure: Whether Kubernetes was asked, so that what is missing is surely gone. Otherwise a watch may be behind what
            another controller has told.
        spec: Game and sizes, for the event `created`.
        wanted: The desired state, one of `servers.state.WANTED`.
        refused: Why the cluster refuses its pod, and since when.
        generation: The StatefulSet's generation.
        suspended: Since when it is suspended ("" if that is unknown), and why.
        idle_stopped: When it was stopped because nobody played.
        full: Whether its disk is full; None if that is unknown or on the edge.
        looked: When the node's agent looked at the disk; "" if it has not.
        last_stop: What the StatefulSet's annotation says about the last stop.
        pod: The pod.
    """

    id: int
    at: str
    exists: bool
    uid: str | None = None
    customer: str = ""
    created: str = ""
    workload: str | None = None
    version: int = 0
    sure: bool = False
    spec: tuple[str, int, int] = ("", 0, 0)
    wanted: str = "deleted"
    generation: int = 0
    refused: tuple[str, str] | None = None
    suspended: tuple[str, str] | None = None
    idle_stopped: str | None = None
    full: bool | None = None
    looked: str = ""
    last_stop: Stop | None = None
    pod: PodFacts | None = None


def facts_of(
    objects: Objects, at: str, *, pod_gone: bool = False, pod_removed: str | None = None, pod_ran: bool = False
) -> Facts:
    """The facts in a server's objects, seen at `at` (RFC 3339).

    Args:
        objects: The objects. Nodes are read only for a pod that is not ready.
        at: When they were seen.
        pod_gone: Whether the pod is the last version of one that is gone.
        pod_removed: When Kubernetes removed the pod, if it is the version that was removed.
        pod_ran: Whether the pod's game was seen running when its deletion had been requested.
    """
    statefulset, pod = objects.statefulset, objects.pod
    pod_facts = None if pod is None else _pod_facts(objects, pod, at, gone=pod_gone, removed=pod_removed, ran=pod_ran)
    if statefulset is None:
        return Facts(objects.id, at, exists(objects), pod=pod_facts)
    spec = spec_of_objects(objects)
    suspended = spec.suspended if spec else None
    should_run = wants_pod(statefulset)
    refusal = pod_creation_failure(objects) if should_run and pod is None else None
    fill = objects.usage.fill(datetime.now(UTC)) if objects.usage else None
    return Facts(
        id=objects.id,
        at=at,
        exists=True,
        uid=server_uid(objects),
        customer=spec.customer if spec else "",
        created=created_at(statefulset) or at,
        workload=uid(statefulset),
        version=version(statefulset),
        spec=(spec.game, spec.ram_gb, spec.disk_gb) if spec else ("", 0, 0),
        wanted="deleted" if deleted_at(statefulset) else "running" if should_run else "stopped",
        generation=int(statefulset["metadata"].get("generation") or 0),
        refused=(_short(refusal[0]), refusal[1] or at) if refusal else None,
        suspended=(suspended.since or "", _short(suspended.reason)) if suspended else None,
        idle_stopped=_idle_stopped(statefulset),
        # A disk that is freed a little is full again at once.
        full={"full": True, "ok": False}.get(fill or ""),
        looked=objects.usage.as_of if objects.usage else "",
        last_stop=stop_of(statefulset),
        pod=pod_facts,
    )


def _pod_facts(objects: Objects, pod: Object, at: str, *, gone: bool, removed: str | None, ran: bool) -> PodFacts:
    metadata, ready, status = pod["metadata"], condition(pod, "Ready"), game_status(pod) or {}
    going = deleted_at(pod)
    run = int(status.get("restartCount") or 0)
    known = _known_ends(objects, pod, status, run)
    newest_ended = max(known, default=-1) == run
    # Kubernetes does not start a game again whose pod is being deleted, so its end is the stop.
    by_stop = bool(going and newest_ended and not exited_before_deletion(pod, ran=ran))
    ends = run + (newest_ended and not by_stop)
    scheduled = condition(pod, "PodScheduled")
    waits = scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable"
    lost = node_failure(objects)
    stopped = gone or bool(going and termination(pod) is not None)
    return PodFacts(
        uid=metadata.get("uid") or "",
        owner=owner_uid(pod),
        version=version(pod),
        created=created_at(pod) or at,
        run=run,
        ends=ends,
        known=tuple((number, end) for number, end in sorted(known.items()) if number < ends),
        answers=str(ready.get("lastTransitionTime") or at) if runs(pod) and ready.get("status") == "True" else None,
        waits=(_waits(objects, scheduled), str(scheduled.get("lastTransitionTime") or at)) if waits else None,
        lost=(_short(lost[0]), lost[1] or at) if lost else None,
        well=ready.get("status") == "True",
        stop=_stop(objects, pod, going or at, removed, by_stop=by_stop) if stopped else None,
    )


def _known_ends(objects: Objects, pod: Object, status: Mapping[str, Any], run: int) -> dict[int, End]:
    """How runs of the pod ended, as far as its status shows it, by their number.

    In a back-off, the kubelet shows the newest container's end as `lastState`, although `restartCount` is still that
    container's own. https://github.com/kubernetes/kubernetes/blob/v1.35.4/pkg/kubelet/kubelet_pods.go
    """
    current = status.get("state") or {}
    last = (status.get("lastState") or {}).get("terminated")
    ends = {}
    if end := current.get("terminated"):
        ends[run] = _end(pod, end, ended_by_node(objects))
    if last:
        waits_after = "waiting" in current and last.get("containerID") == status.get("containerID")
        # A kubelet that evicts a pod may no longer find its container, and then counts one more, which never was.
        lost = run > 0 and last.get("reason") == "ContainerStatusUnknown" and not deleted_at(pod)
        number = run if waits_after and not lost else run - 1
        if number >= 0:
            ends[number] = _end(pod, last, ended_by_node(objects) if lost else None)
    return ends


def _end(pod: Object, end: Mapping[str, Any], evicted: str | None = None) -> End:
    if end.get("reason") == "OOMKilled":
        type_ = "out-of-memory"
    elif end.get("exitCode") == 0 and startup_timeout(pod, end) is None and not evicted:
        type_ = "exited"
    else:
        type_ = "crashed"
    reason = _short(evicted or exit_reason(pod, end))
    return End(type_, end.get("finishedAt") or "", end.get("startedAt") or "", exit_code(end), reason)


def _stop(objects: Objects, pod: Object, requested: str, removed: str | None, *, by_stop: bool) -> End:
    """How a pod ended that was deleted."""
    end = termination(pod) or {} if by_stop else {}
    at = end.get("finishedAt") or (removed if runs(pod) else None) or requested
    reason = failed_stop_reason(pod, removed=removed is not None) if by_stop or runs(pod) else None
    reason = reason or ended_by_node(objects) or disruption(pod)
    type_ = "killed" if by_stop and killed_by_stop(pod) else "stopped"
    return End(type_, at, code=exit_code(end), reason=reason and _short(reason))


def _waits(objects: Objects, scheduled: Mapping[str, Any]) -> str:
    state = state_of(objects)
    known = state.state == "failed" and state.reason
    return _short(known or str(scheduled.get("message") or "No node can take the server."))


def _idle_stopped(statefulset: Object) -> str | None:
    try:
        at = json.loads(statefulset["metadata"]["annotations"][SERVER])["idle_stopped"]
    except (KeyError, TypeError, ValueError):
        return None
    return at if isinstance(at, str) and at else None


def _short(reason: str) -> str:
    return reason[:LONGEST_REASON]
