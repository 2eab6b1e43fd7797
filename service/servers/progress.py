"""The steps of a server's start, from its objects. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from service.kube.types import Object
from service.servers.accessors import condition, deleted_at, game_status, is_bound, uid
from service.servers.objects import Objects
from service.servers.state import State, exists, is_outdated, state_of

STEPS = ("disk", "scheduled", "image", "loading", "running")
"""What a start passes, in this order."""
ENDS = ("running", "stopped", "deleted")
"""The steps after which nothing more is told."""

_ID = re.compile(
    r"([0-9a-z-]{1,8})\.([0-9a-z-]{1,8})\.([0-9]{1,18})\.([0-5])(?:\.(failed-[0-9a-f]{8}|stopped|deleted))?"
)
# Reasons of a container that waits although its image is there: the kubelet first pulls it, then makes the container.
_AFTER_THE_IMAGE = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "CrashLoopBackOff"}


class Mark(NamedTuple):
    """What the id of a step says about it.

    Attributes:
        claim: The disk, by its claim's uid.
        run: The pod, by its uid; of a step without one, the StatefulSet. "-" for the disk.
        restarts: How often the game has restarted in the pod; of a StatefulSet, its generation.
        done: How many of STEPS the start had passed.
        end: "" for one of STEPS; or else `failed-` with a digest of the reason, `stopped` or `deleted`.
    """

    claim: str
    run: str
    restarts: int
    done: int
    end: str = ""

    @property
    def id(self) -> str:
        """The id of the step's event."""
        return f"{self.claim}.{self.run}.{self.restarts}.{self.done}" + (f".{self.end}" if self.end else "")

    def had_by(self, last: Mark) -> bool:
        """Whether a client that was told `last` last needs to hear of this no more."""
        if self == last or self.end in ("stopped", "deleted"):
            return self == last
        if self.end:
            # Of the same run, `last` may be the start that went before this failure.
            return self.run == last.run and self.restarts < last.restarts
        if self.done == 1:
            return self.claim == last.claim and last.done >= 1
        return self.run == last.run and (self.restarts, self.done) <= (last.restarts, last.done)


@dataclass(frozen=True)
class Step:
    """One step of a start.

    Attributes:
        name: One of STEPS, or `failed`, `stopped` or `deleted`.
        at: When it was reached (RFC 3339); None where Kubernetes does not keep the time.
        state: The server's state with this step, one of `state.STATES`.
        reason: Why the server is in that state, as a sentence, if there is something to say.
        mark: What distinguishes it from other steps.
    """

    name: str
    at: str | None
    state: str
    reason: str | None
    mark: Mark


def steps_of(objects: Objects) -> tuple[Step, ...]:
    """The steps that the server's current start has behind it, and then how it has ended, if it has.

    Empty while a server stops or is being deleted, and before a start has reached anything.
    """
    now, claim = state_of(objects), _short(objects.claim)
    metadata = (objects.statefulset or {}).get("metadata", {})
    workload = Mark(claim, _short(objects.statefulset), int(metadata.get("generation") or 0), 0)
    if not exists(objects) and objects.pod is None:
        return (Step("deleted", None, "deleting", None, workload._replace(end="deleted")),)
    if now.wanted == "stopped" and now.state == "stopped":
        return (_ending("stopped", now, workload._replace(end="stopped")),)
    if now.wanted != "running":
        return ()
    pod = _current_pod(objects)
    reached = _reached(objects, pod, now)
    restarts = _restarts(pod)
    runs = [Mark(claim, "-", 0, 1), *(Mark(claim, _short(pod), restarts if n > 3 else 0, n) for n in range(2, 6))]
    last = len(reached) - 1
    steps = [
        Step(STEPS[n], at, now.state, now.reason, runs[n])
        if n == last and now.state != "failed"
        else Step(STEPS[n], at, "starting", None, runs[n])
        for n, at in enumerate(reached)
    ]
    if now.state == "failed":
        run = workload if pod is None else Mark(claim, _short(pod), restarts, 0)
        digest = hashlib.sha256((now.reason or "").encode()).hexdigest()[:8]
        steps.append(_ending("failed", now, run._replace(done=len(reached), end=f"failed-{digest}")))
    return tuple(steps)


def new_steps(steps: Iterable[Step], last: Mark | None) -> list[Step]:
    """Those of the steps that a client does not have that was told `last` last; None for nothing."""
    return [step for step in steps if last is None or not step.mark.had_by(last)]


def mark_of(id: str) -> Mark | None:
    """What the id of a step says; None if it is malformed."""
    parts = _ID.fullmatch(id)
    return None if parts is None else Mark(parts[1], parts[2], int(parts[3]), int(parts[4]), parts[5] or "")


def _ending(name: str, now: State, mark: Mark) -> Step:
    return Step(name, now.since, now.state, now.reason, mark)


def _current_pod(objects: Objects) -> Object | None:
    """The pod of the current start; None while there is none, or only one of before."""
    pod, statefulset = objects.pod, objects.statefulset
    if pod is None or statefulset is None or deleted_at(pod) or is_outdated(statefulset, pod):
        return None
    return pod


def _reached(objects: Objects, pod: Object | None, now: State) -> list[str | None]:
    """When each of STEPS was reached, as far as they were. A step is reached if a later one is."""
    bound = is_bound(objects.claim)
    scheduled = condition(pod or {}, "PodScheduled")
    container = game_status(pod or {}) or {}
    run = _run(container)
    steps: list[tuple[bool, str | None]] = [
        (bound, None),
        (scheduled.get("status") == "True", scheduled.get("lastTransitionTime")),
        (_has_image(container), None),
        (bool(run), run.get("startedAt")),
        (now.state == "running", now.since),
    ]
    passed = max((number for number, (reached, _) in enumerate(steps, 1) if reached), default=0)
    return [at if reached else None for reached, at in steps[:passed]]


def _has_image(container: Mapping[str, Any]) -> bool:
    waiting = (container.get("state") or {}).get("waiting") or {}
    return bool(container.get("imageID")) or waiting.get("reason") in _AFTER_THE_IMAGE


def _run(container: Mapping[str, Any]) -> Mapping[str, Any]:
    """The container's current run, or its last one; {} if it has never run."""
    state, last = container.get("state") or {}, container.get("lastState") or {}
    run: Mapping[str, Any] = state.get("running") or state.get("terminated") or last.get("terminated") or {}
    return run


def _restarts(pod: Object | None) -> int:
    return int((game_status(pod or {}) or {}).get("restartCount") or 0)


def _short(object_: Object | None) -> str:
    """Enough of an object's uid to tell it from others of the same server."""
    return (uid(object_) or "-")[:8]
