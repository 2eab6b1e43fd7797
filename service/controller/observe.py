"""Observes the servers: turns what the watches receive into facts. Both pods of the controller do this.

The facts of the last minutes are kept. So a pod that becomes the active one knows what the other one saw and had no
time to write, such as how a pod ended that is gone.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace

from service.errors import Problem
from service.events.facts import Facts, facts_of
from service.kube.times import now
from service.kube.types import Object
from service.operations.interfaces import Cluster
from service.servers.accessors import (
    condition,
    deleted_at,
    lost_by_node,
    owner_uid,
    removed_at,
    termination,
    uid,
    version,
)
from service.servers.exits import runs
from service.servers.objects import Objects, ServerObjects, pod_on_disk
from service.servers.volumes import selected_node

log = logging.getLogger(__name__)

KEPT_SECONDS = 300.0
"""For how long a pod that is not the active one keeps facts: the other one writes them within seconds."""
MAX_CHANGES = 50_000
MAX_FACTS = 20_000
SWEEP_SECONDS = 15.0
"""Within this time the active pod looks at each server: a disk fills without a change of the server's objects."""
_RETRY_SECONDS = 0.5

Change = tuple[int, str, Object, bool]
"""What a watch received: the server's id, `statefulset`, `pod` or another kind, the object, and whether it is gone."""


@dataclass(slots=True)
class _View:
    """The objects of a server as far as this thread has heard of them, which is their order.

    `going` is the metadata of the pod's first version whose deletion was requested: the last version claims that it was
    requested just then. `ran` is whether the game ran in that version.
    """

    statefulset: Object | None = None
    pod: Object | None = None
    going: Object | None = None
    ran: bool = False
    last: Facts | None = None


class Observer:
    """Collects facts in a thread of its own. Thread-safe.

    Args:
        cluster: The cluster, whose watches have not started yet.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._changed = threading.Condition()
        self._changes: deque[Change] = deque()
        self._views: dict[int, _View] = {}
        self._facts: deque[tuple[float, Facts]] = deque()
        self._has_facts = threading.Event()
        self._overflowed = False
        self._leads = False
        self._sweep: list[int] = []
        self._swept_at = 0.0
        self.dropped = 0

    def start(self) -> None:
        """Start to observe."""
        self._cluster.subscribe(self._heard)
        threading.Thread(target=self._run, name="observe", daemon=True).start()

    def lead(self) -> None:
        """From now on look at each server now and then, and keep facts until they are taken."""
        self._leads = True

    def look(self, ids: Iterable[int]) -> None:
        """Tell the facts of these servers soon."""
        with self._changed:
            self._changes.extend((id, "look", {}, False) for id in ids)
            self._changed.notify()

    def ids(self) -> list[int]:
        """The ids of all servers that this pod knows."""
        return list(self._views)

    def is_complete(self) -> bool:
        """Whether the watches have received all that exists, and this pod has gone through it."""
        if self._changes:
            return False
        for known in self._cluster.known_servers():
            view = self._views.get(known.id) or _View()
            if (uid(known.statefulset), uid(pod_on_disk(known))) != (uid(view.statefulset), uid(view.pod)):
                return False
        return True

    def take(self, seconds: float) -> list[Facts]:
        """All facts since the last call, oldest first; waits up to `seconds` for the first."""
        self._has_facts.wait(seconds)
        with self._changed:
            facts = [each for _, each in self._facts]
            self._facts.clear()
            self._has_facts.clear()
        return facts

    def oldest(self) -> float:
        """The age in seconds of the oldest facts that nobody has taken; 0 without any."""
        try:
            return time.monotonic() - self._facts[0][0]
        except IndexError:
            return 0.0

    # -- the watches' threads ----------------------------------------------------------------------------------

    def _heard(self, id: int, kind: str, before: Object | None, now: Object, deleted: bool) -> None:
        if kind in ("claim", "service"):
            return
        with self._changed:
            if len(self._changes) >= MAX_CHANGES:
                self._changes.popleft()
                self._overflowed = True
                self.dropped += 1
            self._changes.append((id, kind, now, deleted))
            self._changed.notify()

    # -- this class's thread -----------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            try:
                self.turn(1.0)
            except Problem as problem:
                log.debug("cannot observe the servers: %s", problem.detail)
                time.sleep(_RETRY_SECONDS)
            except Exception:
                log.exception("cannot observe the servers")
                time.sleep(_RETRY_SECONDS)

    def turn(self, seconds: float) -> None:
        """Go through all changes, after waiting up to `seconds` for one; then look at some of the servers."""
        with self._changed:
            self._changed.wait_for(lambda: self._changes, seconds)
        while self._changes:
            # A change is kept until it has been gone through, because a version of a pod comes only once.
            id, kind, item, gone = self._changes[0]
            try:
                self._change(id, kind, item, gone)
            except Problem:
                # The watches are not complete.
                raise
            except Exception:
                # One server must not keep the events of all others up.
                log.exception("cannot observe server %d", id)
            self._changes.popleft()
        if self._overflowed:
            self._overflowed = False
            self._views.clear()
            self.look(self._cluster.known_ids())
        if self._leads:
            self._sweep_some()

    def _change(self, id: int, kind: str, item: Object, gone: bool) -> None:
        view = self._views.get(id)
        if kind == "release" and (view is None or view.statefulset is not None):
            return
        if kind == "event" and (view is None or view.pod is not None):
            return
        known = self._cluster.known(id)
        if view is None:
            view = self._views[id] = _View()
            if kind == "look" and known is not None:
                view.statefulset, pod = known.statefulset, pod_on_disk(known)
                if pod is not None:
                    self._pod_changed(view, pod, False)
            elif kind == "pod" and known is not None and owner_uid(item) == uid(known.statefulset):
                # Each kind has a watch of its own, so the StatefulSet's change may still come.
                view.statefulset = known.statefulset
        last_pod = None
        if kind == "statefulset":
            if view.statefulset is not None and version(item) < version(view.statefulset):
                return
            view.statefulset = None if gone else item
        elif kind == "pod":
            last_pod = self._pod_changed(view, item, gone)
        removed = removed_at(item) if last_pod else None
        facts = self._facts_of(id, view, known, last_pod, removed, thorough=kind == "look")
        if view.statefulset is None and view.pod is None and not facts.exists:
            self._views.pop(id, None)
        if kind == "look" or _news(facts, view.last):
            view.last = facts
            self._keep(facts)

    @staticmethod
    def _pod_changed(view: _View, pod: Object, gone: bool) -> Object | None:
        """Take a version of the pod; returns it if it is the last one."""
        if removed_at(pod) and uid(view.pod) != uid(pod):
            pod = _requested_earlier(pod)
        if deleted_at(pod):
            if view.going is None or view.going["uid"] != uid(pod):
                view.going, view.ran = pod["metadata"], runs(pod)
            requested = {key: view.going[key] for key in _REQUEST if key in view.going}
            pod = {**pod, "metadata": {**pod["metadata"], **requested}}
        if not gone:
            view.pod = pod
            return None
        if view.pod is None or uid(view.pod) == uid(pod):
            view.pod = view.going = None
        return pod

    def _facts_of(
        self,
        id: int,
        view: _View,
        known: Objects | None,
        last_pod: Object | None = None,
        removed: str | None = None,
        *,
        thorough: bool,
    ) -> Facts:
        pod = last_pod or view.pod
        objects = ServerObjects(
            id,
            statefulset=view.statefulset,
            pod=pod,
            claim=known.claim if known else None,
            events=tuple(known.events) if known else (),
            releases=tuple(known.releases) if known else (),
            # Nodes are read from Kubernetes, so only for a pod that may have lost its node, or that gets none.
            nodes=known.nodes if known and pod and (thorough or lost_by_node(pod) or _waits(pod)) else {},
            node_of=known.node_of if known else selected_node,
            usage=known.usage if known else None,
        )
        return facts_of(objects, now(), pod_gone=last_pod is not None, pod_removed=removed, pod_ran=view.ran)

    def _keep(self, facts: Facts) -> None:
        seen = time.monotonic()
        with self._changed:
            self._facts.append((seen, facts))
            while self._facts and (
                len(self._facts) > MAX_FACTS or (not self._leads and self._facts[0][0] < seen - KEPT_SECONDS)
            ):
                self.dropped += self._leads
                self._facts.popleft()
            self._has_facts.set()

    def _sweep_some(self) -> None:
        """Look at as many servers as the time since the last call asks for."""
        at = time.monotonic()
        if not self._sweep:
            self._sweep, self._swept_at = sorted(self._views, reverse=True), at
        count = int(len(self._views) * (at - self._swept_at) / SWEEP_SECONDS)
        if count:
            self._swept_at = at
            self._sweep, some = self._sweep[:-count], self._sweep[-count:]
            for id in some:
                view = self._views.get(id)
                if view is None:
                    continue
                facts = self._facts_of(id, view, self._cluster.known(id), thorough=True)
                if _news(facts, view.last):
                    view.last = facts
                    self._keep(facts)


_REQUEST = ("deletionTimestamp", "deletionGracePeriodSeconds")


def _waits(pod: Object) -> bool:
    return condition(pod, "PodScheduled").get("status") == "False"


def _requested_earlier(pod: Object) -> Object:
    """A pod of which nobody has seen an earlier version than that which Kubernetes removes.

    Its deletion was requested at an unknown time, which is taken for that of its game's end.
    """
    ended = (termination(pod) or {}).get("finishedAt")
    request = {"deletionTimestamp": ended or pod["metadata"]["deletionTimestamp"], "deletionGracePeriodSeconds": None}
    return {**pod, "metadata": {**pod["metadata"], **request}}


def _news(facts: Facts, last: Facts | None) -> bool:
    """Whether the facts differ from the last ones in more than their age."""
    if last is None:
        return True
    pod = facts.pod and last.pod and replace(facts.pod, version=last.pod.version)
    looked = last.looked if facts.full == last.full else facts.looked
    return replace(facts, at=last.at, version=last.version, looked=looked, pod=pod or facts.pod) != last
