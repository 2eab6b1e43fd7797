"""Records how servers stop, while they stop: once the pod has gone, nothing in Kubernetes shows how it ended.

Every replica watches the pods. The first one writes the record, and the others find it there. If no replica saw the
stop, it has no record, and so no reason. A record stays until the next start, which removes it.
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
from service.servers.accessors import deleted_at, game_status, owner_uid, removed_at, termination, uid, wants_pod
from service.servers.exits import exited_before_deletion, failed_stop_reason, killed_by_stop, runs
from service.servers.names import LAST_STOP, server_name
from service.servers.objects import ServerObjects
from service.servers.reasons import pod_creation_failure
from service.servers.state import start_failure, stopped_at_creation
from service.servers.stops import Stop, stop_of

log = logging.getLogger(__name__)
# The system's randomness, as in watch.py.
_random = random.SystemRandom()

# The StatefulSet controller writes to the same object at the same time.
TRIES, PAUSE_SECONDS = 8, 0.2
# More than the restart of a whole cluster needs. Changes beyond it are not recorded.
MAX_QUEUE = 10_000


class StopRecorder:
    """Records stops. The watches call it with each change, and a thread of its own writes, so that no watch waits.

    Args:
        kube: The Kubernetes client.
        namespace: The servers' namespace.
        server: Returns the objects of a server by its id; None if it does not exist.
    """

    def __init__(self, kube: Kube, namespace: str, server: Callable[[int], ServerObjects | None]) -> None:
        self._kube = kube
        self._namespace = namespace
        self._server = server
        self._work: queue.Queue[tuple[int, Callable[[], None]]] = queue.Queue(MAX_QUEUE)
        # Of each stopping pod, by uid: its metadata when its deletion was requested, and whether its game ran then.
        self._stopping: dict[str | None, tuple[Object, bool]] = {}

    def start(self) -> None:
        """Start the thread."""
        threading.Thread(target=self._run, name="stops", daemon=True).start()

    def pod_changed(self, id: int, before: Object | None, pod: Object, deleted: bool) -> None:
        """Handle a pod that the watch received; see `kube.watch.Listener`."""
        if deleted or deleted_at(pod):
            self._put(id, lambda: self.record_pod(id, before, pod, deleted))

    def statefulset_changed(self, id: int, before: Object | None, statefulset: Object, deleted: bool) -> None:
        """Handle a StatefulSet that the watch received; see `kube.watch.Listener`."""
        if deleted:
            return
        if not _is_stopped(statefulset):
            if stop_of(statefulset) is not None:
                self._put(id, lambda: self._write(id, None))
        elif before is not None and not _is_stopped(before):
            self._put(id, lambda: self.record_stop(id))
        elif before is None and stop_of(statefulset) is None and (at := stopped_at_creation(statefulset)):
            self._put(id, lambda: self._write(id, Stop("", at, None)))

    # -- the thread ----------------------------------------------------------------------------------------

    def _put(self, id: int, work: Callable[[], None]) -> None:
        try:
            self._work.put_nowait((id, work))
        except queue.Full:
            with bound_contextvars(server=id):
                log.warning("server-%d: its stop is not recorded, because too many changes are waiting", id)

    def _run(self) -> None:
        while True:
            id, work = self._work.get()
            with bound_contextvars(server=id):
                try:
                    work()
                except Problem as problem:
                    log.warning("server-%d: its stop is not recorded: %s", id, problem.detail)
                except Exception:
                    log.exception("server-%d: its stop is not recorded", id)

    def record_pod(self, id: int, before: Object | None, pod: Object, deleted: bool) -> None:
        """Record why a stopping pod had failed, and how it ended."""
        removed = removed_at(pod) if deleted else None
        # A pod's last version claims that its deletion was requested just now, so use the first version's metadata.
        metadata, ran = self._stopping.setdefault(uid(pod), (pod["metadata"], runs(pod)))
        pod = {**pod, "metadata": metadata}
        if deleted:
            del self._stopping[uid(pod)]
        if (objects := self._server(id)) is None:
            return
        if before is None or not deleted_at(before):
            reason = start_failure(replace(objects, pod=before or pod))
            due = None if deleted or termination(pod) else pod["metadata"].get("deletionTimestamp")
            if due or reason:
                self._write(id, Stop(uid(pod) or "", deleted_at(pod) or now(), reason, due), pod=pod, last=False)
        if deleted or termination(pod) is not None:
            self._write(id, _stop_of_pod(pod, removed, ran=ran), pod=pod)

    def record_stop(self, id: int) -> None:
        """Record why a server that is being stopped had no pod."""
        objects = self._server(id)
        if objects is not None and objects.pod is None and (failure := pod_creation_failure(objects)):
            self._write(id, Stop("", now(), f"Its last start failed: {failure[0]}"))

    def _write(self, id: int, stop: Stop | None, *, pod: Object | None = None, last: bool = True) -> None:
        """Update the annotation, unless the server was started, stopped or created again meanwhile.

        Args:
            id: The server's id.
            stop: The record; None to remove it.
            pod: The pod that it is about, if any.
            last: Whether the pod has ended, and is not just ending.
        """
        statefulset_path = path("apps/v1", self._namespace, "statefulsets", server_name(id))
        for _ in range(TRIES):
            statefulset = self._kube.get(statefulset_path)
            if statefulset is None or _is_stopped(statefulset) != (stop is not None):
                return
            if pod is not None and owner_uid(pod) not in (uid(statefulset), None):
                return
            recorded = stop_of(statefulset)
            merged = stop and _merged(recorded, stop, last=last)
            if merged == recorded:
                return
            metadata = {
                "resourceVersion": statefulset["metadata"]["resourceVersion"],
                "annotations": {LAST_STOP: merged and merged.as_text()},
            }
            try:
                self._kube.merge(statefulset_path, {"metadata": metadata})
                return
            except Conflict:
                time.sleep(_random.uniform(0, PAUSE_SECONDS))
        log.warning("server-%d: its stop is not recorded, because others kept writing to its StatefulSet", id)


def _stop_of_pod(pod: Object, removed: str | None, *, ran: bool) -> Stop:
    """How a pod ended, from the pod alone. Whether its start had failed is recorded earlier.

    Args:
        pod: The pod.
        removed: When Kubernetes removed it, if this is the version that it removed.
        ran: Whether its game was seen running when its deletion had been requested.
    """
    requested_at, end = deleted_at(pod) or now(), termination(pod) or {}
    if not (game_status(pod) or {}).get("containerID") or exited_before_deletion(pod, ran=ran):
        return Stop(uid(pod) or "", requested_at, None)
    # The node's clock may be behind.
    at = max(end.get("finishedAt") or removed or "", requested_at)
    reason = failed_stop_reason(pod, removed=removed is not None)
    return Stop(uid(pod) or "", at, reason, killed=killed_by_stop(pod))


def _merged(recorded: Stop | None, new: Stop, *, last: bool) -> Stop:
    """What to record, given what is recorded already."""
    if recorded is None or (recorded.pod != new.pod and recorded.at <= new.at):
        return new
    if recorded.pod != new.pod or not last:
        # The record is about a later pod, or this pod's end is recorded already.
        return recorded
    # A replica whose watch had a gap knows less than another one.
    killed = new.killed or recorded.killed
    return replace(new, at=max(new.at, recorded.at), reason=new.reason or recorded.reason, killed=killed)


def _is_stopped(statefulset: Object | None) -> bool:
    return statefulset is not None and not wants_pod(statefulset)
