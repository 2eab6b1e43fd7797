"""Writes down how servers stop, as it happens: when the pod is gone, nothing in Kubernetes tells any more.

Each replica watches the pods, and whichever is first writes; the others find that it stands there. What no replica
sees is not made up: then a stop has no reason. What is written counts until the next start, which takes it away.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from structlog.contextvars import bound_contextvars

from service.errors import Problem
from service.kube.client import Conflict, Kube, path
from service.kube.times import now
from service.kube.types import Object
from service.servers.accessors import deleted_at, game_status, owner_uid, termination, uid
from service.servers.exits import exited_before_deletion, failed_stop_reason
from service.servers.names import LAST_STOP, server_name
from service.servers.objects import ServerObjects
from service.servers.reasons import pod_creation_failure
from service.servers.state import start_failure
from service.servers.stops import Stop, stop_of

log = logging.getLogger(__name__)
# The machine's own randomness, as in watch.py.
_random = random.SystemRandom()

# The controller writes to the same object at the same moment.
TRIES, PAUSE = 8, 0.2
# More than a whole cluster's restart; what does not fit is not written down.
LONGEST_QUEUE = 10_000


class StopRecorder:
    """Told by the watches what changed; reads and writes in a thread of its own, so that no watch waits for it."""

    def __init__(self, kube: Kube, namespace: str, server: Callable[[int], ServerObjects | None]) -> None:
        self._kube = kube
        self._namespace = namespace
        self._server = server
        self._work: queue.Queue[tuple[int, Callable[[], None]]] = queue.Queue(LONGEST_QUEUE)
        # Of the pods that are ending, by uid: their metadata as it was when that was asked for.
        self._asked: dict[str | None, Object] = {}

    def start(self) -> None:
        threading.Thread(target=self._run, name="stops", daemon=True).start()

    def pod_changed(self, id: int, before: Object | None, pod: Object, gone: bool) -> None:
        """A pod was seen, or seen last. Called by the watch."""
        if gone or deleted_at(pod):
            self._put(id, lambda: self.pod_ends(id, before, pod, gone))

    def statefulset_changed(self, id: int, before: Object | None, statefulset: Object, gone: bool) -> None:
        """A StatefulSet was seen. Called by the watch."""
        if gone:
            return
        if not _is_stopped(statefulset):
            if stop_of(statefulset) is not None:
                self._put(id, lambda: self._write(id, None))
        elif before is not None and not _is_stopped(before):
            self._put(id, lambda: self.stop_begins(id))

    # -- the thread ----------------------------------------------------------------------------------------

    def _put(self, id: int, work: Callable[[], None]) -> None:
        try:
            self._work.put_nowait((id, work))
        except queue.Full:
            with bound_contextvars(server=id):
                log.warning("server-%d: too much happens at once, its stop is not written down", id)

    def _run(self) -> None:
        while True:
            id, work = self._work.get()
            with bound_contextvars(server=id):
                try:
                    work()
                except Problem as problem:
                    log.warning("server-%d: its stop is not written down: %s", id, problem.detail)
                except Exception:
                    log.exception("server-%d: its stop is not written down", id)

    def pod_ends(self, id: int, before: Object | None, pod: Object, gone: bool) -> None:
        """Write down why a pod had failed that is about to end, and how it ended."""
        # As it goes a pod says that it was to end at this very moment, whenever that had been asked for.
        pod = {**pod, "metadata": self._asked.setdefault(uid(pod), pod["metadata"])}
        if gone:
            del self._asked[uid(pod)]
        if (objects := self._server(id)) is None:
            return
        if before is None or not deleted_at(before):
            reason = start_failure(replace(objects, pod=before or pod))
            due = None if gone or termination(pod) else pod["metadata"].get("deletionTimestamp")
            if due or reason:
                self._write(id, Stop(uid(pod) or "", deleted_at(pod) or now(), reason, due), pod=pod, last=False)
        if gone or termination(pod) is not None:
            self._write(id, _stop_of_pod(pod), pod=pod)

    def stop_begins(self, id: int) -> None:
        """Write down why a server had no pod that is no longer to have one."""
        objects = self._server(id)
        if objects is not None and objects.pod is None and (refused := pod_creation_failure(objects)):
            self._write(id, Stop("", now(), f"Its last start had failed: {refused[0]}"))

    def _write(self, id: int, stop: Stop | None, *, pod: Object | None = None, last: bool = True) -> None:
        """Bring the annotation up to date, unless the server was started, or stopped, meanwhile, or made anew.

        `last` says that the pod has ended, not that it is about to.
        """
        where = path("apps/v1", self._namespace, "statefulsets", server_name(id))
        for _ in range(TRIES):
            statefulset = self._kube.get(where)
            if statefulset is None or _is_stopped(statefulset) != (stop is not None):
                return
            if pod is not None and owner_uid(pod) not in (uid(statefulset), None):
                return
            there = stop_of(statefulset)
            wanted = stop and _merged(there, stop, last=last)
            if wanted == there:
                return
            about = {
                "resourceVersion": statefulset["metadata"]["resourceVersion"],
                "annotations": {LAST_STOP: wanted and wanted.as_text()},
            }
            try:
                self._kube.merge(where, {"metadata": about})
                return
            except Conflict:
                time.sleep(_random.uniform(0, PAUSE))
        log.warning("server-%d: others kept writing to its StatefulSet; its stop is not written down", id)


def _stop_of_pod(pod: Object) -> Stop:
    """What the pod's end says by itself; a start that had failed before it is known from earlier."""
    asked, end = deleted_at(pod) or now(), termination(pod) or {}
    ran = bool((game_status(pod) or {}).get("containerID")) and not exited_before_deletion(pod)
    at = end.get("finishedAt") if ran else None
    return Stop(uid(pod) or "", at or asked, failed_stop_reason(pod) if ran else None)


def _merged(there: Stop | None, new: Stop, *, last: bool) -> Stop:
    """What is to stand there, given what does."""
    if there is None or (there.pod != new.pod and there.at <= new.at):
        return new
    if there.pod != new.pod or not last:
        # Of a pod after this one; or this one's end is known already.
        return there
    return replace(new, reason=new.reason or there.reason)


def _is_stopped(statefulset: Object | None) -> bool:
    return statefulset is not None and int(statefulset.get("spec", {}).get("replicas", 1)) == 0
