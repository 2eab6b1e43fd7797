"""What has happened to a server, from what was told of it and what its objects say now. Pure.

An event's id follows from its cause alone, such as a pod's uid and the number of a run. So it does not matter who tells
an event, or how often: a controller that goes on after another was killed computes the same ids, and the log takes each
id once. Facts that are older than what was told change nothing, so they may be gone through again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from service.events.event import Event, event_id
from service.events.facts import End, Facts, PodFacts

TOMBSTONE_SECONDS = 600.0
"""For how long a deleted server is remembered, so that old facts do not bring it back."""


@dataclass(frozen=True, slots=True)
class Told:
    """What was told of a server.

    Attributes:
        uid, customer: The server's.
        number: The number of its last event.
        workload, seen, wanted: The uid of its StatefulSet, the newest version of that, and the desired state it had.
        version: The version of the newest pod that was told of.
        pod: The uid of the last pod that was told as started; "" if there was none.
        ended: Whether the end of that pod was told.
        ends: How many ended runs of the game were told of that pod.
        ran: How many of its runs were told as running, counted up to the last one.
        waits: Whether it was told that no node takes that pod.
        lost, losses: Whether the pod's node is lost, and how often it was.
        refused: Whether it was told that the cluster refuses its pod.
        full, fills, looked: Whether the disk is full, how often it was, and when the node's agent last looked.
        suspended: Since when the server is suspended, or another word for this suspension; "" if it is not.
        idle_stopped: When it was last stopped because nobody played.
        deleted: When its end was told; "" while it exists.
    """

    uid: str
    customer: str = ""
    number: int = 0
    workload: str = ""
    seen: int = 0
    wanted: str = ""
    version: int = 0
    pod: str = ""
    ended: bool = False
    ends: int = 0
    ran: int = 0
    waits: bool = False
    lost: bool = False
    losses: int = 0
    refused: bool = False
    full: bool = False
    fills: int = 0
    looked: str = ""
    suspended: str = ""
    idle_stopped: str = ""
    deleted: str = ""


def changes(told: Sequence[Told], facts: Facts) -> tuple[list[Event], tuple[Told, ...]]:
    """What has happened since `told`.

    Args:
        told: What was told of the servers with this id: the one that has it, and earlier ones.
        facts: What the objects with this id say.

    Returns:
        The events in their order, without numbers and positions, and what is told once they are.
    """
    outdated = None
    if any(each.seen > facts.version for each in told) and facts.uid is not None:
        # They are older than what was told, but may show a pod that nobody has told of.
        outdated = facts.uid
        facts = replace(facts, uid=None, exists=True, sure=False)
    telling = _Telling(facts, outdated)
    after = [telling.of_earlier(each) for each in told if each.uid != facts.uid]
    if facts.uid is not None:
        current = next((each for each in told if each.uid == facts.uid), None)
        after.append(telling.of_current(current or telling.created(facts.uid)))
    return telling.events, tuple(after)


def missing(told: Sequence[Told], facts: Facts) -> set[str]:
    """The uids of servers and pods that were told of, have not been told as ended, and are not in the facts.

    A server is missing only once its pod has ended.
    """
    pod, owner = (facts.pod.uid, facts.pod.owner) if facts.pod else (None, None)
    gone = set()
    for each in told:
        if each.deleted:
            continue
        if each.pod and not each.ended:
            gone |= {each.pod} - {pod}
        elif each.uid != facts.uid and (pod == each.pod or owner is None or owner != each.workload):
            gone.add(each.uid)
    return gone


class _Telling:
    """Goes through the facts of one moment and collects the events.

    Args:
        facts: The facts.
        outdated: The uid of the server whose StatefulSet is there, if a newer version of that was told of.
    """

    def __init__(self, facts: Facts, outdated: str | None = None) -> None:
        self.facts = facts
        self.outdated = outdated
        self.events: list[Event] = []

    def created(self, uid: str) -> Told:
        """Tell of a new server."""
        facts, (game, ram_gb, disk_gb) = self.facts, self.facts.spec
        told = Told(uid, facts.customer)
        self._tell(told, "created", facts.created, "created", game=game, ram_gb=ram_gb, disk_gb=disk_gb)
        return told

    def of_earlier(self, told: Told) -> Told:
        """Tell of a server whose StatefulSet is not there."""
        if told.deleted:
            return told
        facts, pod = self.facts, self._pod_of(told)
        told = self._pod(told, pod)
        if facts.uid is None and (facts.exists or not facts.sure):
            # While there is a release, a start brings the StatefulSet back.
            return told
        if (pod is None and not facts.sure) or (told.pod and not told.ended):
            # Its pod may still be ending.
            return told
        self._tell(told, "deleted", facts.at, "deleted")
        return replace(told, deleted=facts.at)

    def of_current(self, told: Told) -> Told:
        """Tell of the server that the StatefulSet belongs to."""
        if told.deleted:
            # These facts are older than its end.
            return told
        facts = self.facts
        told = replace(
            told, customer=facts.customer, workload=facts.workload or "", seen=facts.version, wanted=facts.wanted
        )
        pod = self._pod_of(told)
        if told.suspended and facts.suspended is None:
            # It has stopped before it was unsuspended, and starts after it.
            told = self._missed_end(told, pod)
        told = self._disk(self._idle(self._suspension(told)))
        return self._refusal(self._pod(told, pod))

    # -- the server --------------------------------------------------------------------------------------------

    def _suspension(self, told: Told) -> Told:
        facts = self.facts
        since, reason = facts.suspended or ("", "")
        cause = since or (told.suspended or f"generation {facts.generation}" if facts.suspended else "")
        if cause == told.suspended:
            return told
        if told.suspended:
            self._tell(told, "unsuspended", facts.at, "unsuspended", told.suspended)
        if cause:
            self._tell(told, "suspended", since or facts.at, "suspended", cause, reason=reason)
        return replace(told, suspended=cause)

    def _idle(self, told: Told) -> Told:
        at = self.facts.idle_stopped
        if at is None or at == told.idle_stopped:
            return told
        self._tell(told, "idle-stopped", at, "idle-stopped", at)
        return replace(told, idle_stopped=at)

    def _disk(self, told: Told) -> Told:
        full, looked = self.facts.full, self.facts.looked
        if full is None or full == told.full or looked < told.looked:
            return told
        if full:
            told = replace(told, fills=told.fills + 1)
            self._tell(told, "disk-full", looked, "disk-full", told.fills)
        return replace(told, full=full, looked=looked)

    def _refusal(self, told: Told) -> Told:
        refused = self.facts.refused
        if self.facts.pod is not None or self.facts.wanted != "running":
            return replace(told, refused=False)
        if refused is None or told.refused or (told.pod and not told.ended):
            return told
        reason, since = refused
        self._tell(told, "unschedulable", since, "refused", self.facts.generation, told.pod, reason=reason)
        return replace(told, refused=True)

    # -- its pod -----------------------------------------------------------------------------------------------

    def _pod_of(self, told: Told) -> PodFacts | None:
        """The server's pod; None if the pod is an earlier or later server's."""
        pod = self.facts.pod
        return pod if pod is not None and (pod.uid == told.pod or pod.owner in (told.workload, None)) else None

    def _pod(self, told: Told, pod: PodFacts | None) -> Told:
        if pod is not None and pod.version < told.version:
            return told
        told = self._missed_end(told, pod)
        if pod is None:
            return told
        told = replace(told, version=pod.version)
        if pod.uid != told.pod:
            self._tell(told, "started", pod.created, pod.uid, "started")
            told = replace(told, pod=pod.uid, ended=False, ends=0, ran=0, waits=False, lost=False, losses=0)
        if told.ended:
            return told
        told = self._place(told, pod)
        told = self._runs(told, pod)
        told = self._node(told, pod)
        return told if pod.stop is None else self._ended(told, pod.stop)

    def _missed_end(self, told: Told, pod: PodFacts | None) -> Told:
        """Tell the end of a pod that is gone, unless it was told. Nobody saw it, so only its record says more."""
        if not told.pod or told.ended or (pod is not None and pod.uid == told.pod):
            return told
        if pod.version < told.version if pod is not None else not self.facts.sure:
            return told
        stop = self.facts.last_stop
        if stop is None or stop.pod != told.pod:
            return self._ended(told, End("stopped", self.facts.at))
        return self._ended(told, End("killed" if stop.killed else "stopped", stop.at, reason=stop.reason))

    def _ended(self, told: Told, end: End) -> Told:
        if self.facts.uid == told.uid:
            wanted = self.facts.wanted
        else:
            wanted = told.wanted if self.outdated == told.uid else "deleted"
        self._tell(told, end.type, end.at, told.pod, "stopped", exit_code=end.code, reason=end.reason, wanted=wanted)
        return replace(told, ended=True)

    def _place(self, told: Told, pod: PodFacts) -> Told:
        if pod.waits is None or told.waits:
            return told
        reason, since = pod.waits
        self._tell(told, "unschedulable", since, pod.uid, "unschedulable", reason=reason)
        return replace(told, waits=True)

    def _runs(self, told: Told, pod: PodFacts) -> Told:
        known = dict(pod.known)
        for run in range(told.ends, pod.ends):
            end = known.get(run)
            if end is None:
                # Kubernetes has overwritten how it ended: it was before the next run of which something is known.
                later = (known[number].began for number in sorted(known) if number > run and known[number].began)
                end = End("crashed", next(later, pod.answers or self.facts.at))
            self._tell(
                told, end.type, end.at or self.facts.at, pod.uid, "end", run,
                restarts=run, exit_code=end.code, reason=end.reason,
            )  # fmt: skip
        told = replace(told, ends=max(told.ends, pod.ends))
        if pod.answers is None or told.ran > pod.run:
            return told
        self._tell(told, "running", pod.answers, pod.uid, "running", pod.run, restarts=pod.run)
        return replace(told, ran=pod.run + 1)

    def _node(self, told: Told, pod: PodFacts) -> Told:
        if pod.lost is None:
            return replace(told, lost=False) if pod.well else told
        if told.lost:
            return told
        told = replace(told, lost=True, losses=told.losses + 1)
        reason, since = pod.lost
        self._tell(told, "node-lost", since, pod.uid, "node-lost", told.losses, reason=reason)
        return told

    # -- events ------------------------------------------------------------------------------------------------

    def _tell(self, told: Told, type_: str, time: str, *cause: str | int, **data: Any) -> None:
        id = event_id(told.uid, *cause)
        # An operator may have written one by hand.
        time = time if _is_time(time) else self.facts.at
        self.events.append(Event(id, type_, time, self.facts.id, told.uid, told.customer, data=data))


def _is_time(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def tell_apart(events: Sequence[Event], is_logged: Callable[[str], bool]) -> list[Event]:
    """The events of a server that the log lacks, where another controller may have written some of them.

    What comes before an event that the log has is left out as well: the other one has not seen it and has told what
    came after it, and the log keeps the order.
    """
    logged = [index for index, event in enumerate(events) if is_logged(event.id)]
    return list(events[logged[-1] + 1 :]) if logged else list(events)
