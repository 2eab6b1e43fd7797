"""All writes: one Helm release per server, through pyhelm3, with one call of helm-daemon or one helm process per write.

Each write holds the server's Lease (`leases.py`) and repairs a release that a dead holder left unfinished. Only then
does it take a slot for a helm process, so that callers that are refused anyway take none.

Rights that this needs in the servers' namespace, in addition to those of `cluster/reader.py` (measured with a proxy):

    leases (coordination.k8s.io)                create get update delete
    secrets                                     get list create update patch delete
    services, statefulsets (apps),
    networkpolicies (networking.k8s.io)         get create patch delete
    persistentvolumeclaims                      get create patch
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from copy import deepcopy

from structlog.contextvars import bound_contextvars

from service.errors import (
    ClusterContended,
    FieldConflict,
    NoNodePortLeft,
    OperationFailed,
    OperationInProgress,
    Problem,
    RefusedByCluster,
    ReleaseMissing,
    ServerNotFound,
    TooManyOperations,
)
from service.helm import revisions
from service.helm.client import Done, HelmClient
from service.helm.revisions import KEEPS_POD, Release, Revisions
from service.kube.client import Kube, path
from service.kube.leases import Lease, Leases
from service.kube.types import Object
from service.servers.accessors import deleted_at, wants_pod
from service.servers.names import pod_name, release_name
from service.servers.objects import KINDS
from service.servers.spec import same
from service.servers.state import can_be_left_alone
from service.servers.values import Values, restarts, runs
from service.settings import Settings

log = logging.getLogger(__name__)
# The system's randomness, as in watch.py.
_random = random.SystemRandom()

STRANGER_SECONDS = 60.0
"""If no expired Lease explains an unfinished release, an operator may be running `helm`: it is left alone this long."""
CONVERGE_TRIES, CONVERGE_PAUSE = 40, 5.0
CONTENDED_TRIES, CONTENDED_PAUSE = 6, 0.4
"""How often helm is run at most while others write to the same object; the longest pause before the first retry, in
seconds. Each further pause may be longer."""

_STATEFULSET_ENDS = (
    "Somebody has deleted the server's StatefulSet, and its game is still ending. A start makes it again after that."
)


class HelmReleases:
    """The Helm releases of the game servers. Create it after a fork: it has a thread and sockets.

    Every method may raise ClusterUnavailable, and every write also OperationInProgress (another holds the server's
    Lease) and the problems of `HelmClient.upgrade`.

    Args:
        settings: The API's settings.
        kube: The Kubernetes client; a new one by default.
        helm_done: Called after each helm operation, for the metrics; see `Done`.
        recovered: Called after each recovery of a release, for the metrics.
        daemon_runs: Called when helm-daemon starts or ends, for the metrics.
    """

    def __init__(
        self,
        settings: Settings,
        kube: Kube | None = None,
        *,
        helm_done: Done = lambda kind, outcome, seconds: None,
        recovered: Callable[[], None] = lambda: None,
        daemon_runs: Callable[[bool], None] = lambda runs: None,
    ) -> None:
        self._namespace = settings.servers_namespace
        self._kube = kube or Kube()
        self._leases = Leases(self._kube, self._namespace, settings.pod_name)
        self._revisions = Revisions(self._kube, self._namespace)
        self._helm = HelmClient(settings, self._kube, helm_done, daemon_runs)
        self._recovered = recovered
        self._held = _Held()
        self._converging: set[int] = set()

    @contextmanager
    def locked(self, id: int, wait: float = 0.0) -> Iterator[None]:
        """Hold the server's Lease: within the context, this thread may write to the server.

        With `wait`, wait for it up to so many seconds, and get it before all who do not wait.
        """
        with self._lease(id, wait):
            yield

    def confirm(self, id: int) -> None:
        """Check with Kubernetes that this thread still holds the server's Lease; raises ClusterUnavailable if not."""
        self._leases.confirm(release_name(id), self._held.by_id[id])

    def install(self, id: int, values: Values) -> None:
        """Install the release, or upgrade an existing one to these values."""
        with self._lease(id) as lease:
            self._finished_revision(id, lease)
            self._upgrade("install", id, values, lease)

    def current(self, id: int) -> Values | None:
        """The values of the newest revision, as `helm get values` shows them; None without a release."""
        release = self._read(self._newest(id))
        return None if release is None else release.values

    def missing(self, id: int) -> list[str]:
        """The objects of the newest revision that do not exist in the cluster, such as `Service server-4711`.

        One that is being deleted counts as one that is gone.
        """
        newest = self._newest(id)
        if newest is None or revisions.status(newest) in revisions.UNFINISHED:
            return []  # They may be created right now.
        release = self._read(newest)
        return [] if release is None else self._missing(release)

    def change(self, id: int, change: Callable[[Values], Values], *, force_conflicts: bool = False) -> bool:
        """Upgrade the release to `change(current values)`.

        A change that does not concern the pod leaves a running pod alone, unless an earlier change is still on its way
        to the pod. What the cluster would refuse is not begun. If it refuses a part all the same, the previous values
        are restored.

        Args:
            id: The server's id.
            change: Takes the current values and returns the new ones.
            force_conflicts: Take back the fields that others have taken over from Helm, if they are in the way.

        Returns:
            False if nothing would change, no object is missing, and nobody else has started or stopped the server; then
            nothing is written.

        Raises:
            ServerNotFound: There is no release.
            ReleaseMissing: There is no release, but a StatefulSet.
            OperationInProgress: The server is to run, and somebody has deleted one of its objects, which is not gone
                yet.
            FieldConflict: Somebody else has taken over a field, such as by starting or stopping the server.
        """
        with self._lease(id) as lease:
            newest = self._finished_revision(id, lease)
            release = self._read(newest)
            if newest is None or release is None:
                raise ReleaseMissing if self._has_workload(id) else ServerNotFound
            values = change(deepcopy(release.values))
            deployed = revisions.status(newest) == "deployed"
            workload, pod = self._workload_and_pod(id)
            if runs(values) and deleted_at(workload):
                raise OperationInProgress(_STATEFULSET_ENDS, retry_after=5)
            unchanged = deployed and same(values, release.values)
            if unchanged and not self._missing(release) and wants_pod(workload) == runs(values):
                return False
            # The pod may not have been updated yet to a revision that was not deployed, or to one that was just now.
            up_to_date = (deployed or release.keeps_pod) and can_be_left_alone(workload, pod)
            as_it_was = up_to_date and runs(release.values)
            unaffected = runs(values) and not restarts(release.values, values)
            try:
                self._change(id, values, lease, as_it_was and unaffected, force_conflicts)
            except (RefusedByCluster, NoNodePortLeft, OperationFailed, ClusterContended, FieldConflict):
                self._restore(id, newest, release.values, lease, as_it_was)
                raise
            return True

    def upgrade(self, id: int) -> bool:
        """Bring the release to this API's chart, with the same values; a running pod is replaced if it must change.

        Returns:
            False if the newest revision has this chart, its pod too, and no object is missing; then nothing is written.

        Raises:
            ServerNotFound: There is no release.
            ReleaseMissing: There is no release, but a StatefulSet.
        """
        with self._lease(id) as lease:
            newest = self._finished_revision(id, lease)
            release = self._read(newest)
            if newest is None or release is None:
                raise ReleaseMissing if self._has_workload(id) else ServerNotFound
            current = revisions.status(newest) == "deployed" and release.chart.makes_the_same(self._helm.chart)
            if current and not release.keeps_pod and not self._missing(release):
                return False
            # The values are the old ones, so there is nothing to restore if the cluster refuses them now.
            self._upgrade("upgrade", id, release.values, lease)
            return True

    def uninstall(self, id: int) -> bool:
        """Uninstall the release, without waiting for its pod to end; returns False if there is none."""
        with self._lease(id) as lease:
            if self._finished_revision(id, lease) is None:
                return False
            self._uninstall(id, lease)
            return True

    # -- Lease and recovery --------------------------------------------------------------------------------

    @contextmanager
    def _lease(self, id: int, wait: float = 0.0) -> Iterator[Lease]:
        held = self._held.by_id
        if id in held:
            yield held[id]
            return
        with bound_contextvars(server=id), self._leases.hold(release_name(id), wait) as lease:
            held[id] = lease
            try:
                if lease.taken_over:
                    self._recover_after_death(id, lease)
                yield lease
            finally:
                del held[id]
                if lease.abandoned and id not in self._converging:
                    self._converging.add(id)
                    # In a copy of the context, so that its log lines belong to this request.
                    work = (self._converge, id)
                    threading.Thread(target=copy_context().run, args=work, name=f"converge {id}", daemon=True).start()

    def _converge(self, id: int) -> None:
        """After a write that was broken off, bring the server's objects to its newest revision.

        A process that was frozen may have changed objects after another had taken over its Lease. And a write that was
        broken off because Kubernetes was unreachable is finished once Kubernetes is back.
        """
        try:
            for _ in range(CONVERGE_TRIES):
                time.sleep(CONVERGE_PAUSE * _random.uniform(0.5, 1))
                try:
                    with self._lease(id) as lease:
                        release = self._read(self._finished_revision(id, lease))
                        if release is not None:
                            keep_pod = release.keeps_pod and can_be_left_alone(*self._workload_and_pod(id))
                            self._upgrade("converge", id, release.values, lease, keep_pod)
                        return
                except Problem as problem:
                    log.warning("release %s has not converged yet: %s", release_name(id), problem.detail)
        finally:
            self._converging.discard(id)

    def _recover_after_death(self, id: int, lease: Lease) -> None:
        try:
            self._recover(id, lease, self._newest(id))
        except BaseException:
            # The next holder has to know too that the previous one died.
            lease.abandon()
            raise

    def _finished_revision(self, id: int, lease: Lease) -> Object | None:
        """The metadata of the newest revision, recovered if it was unfinished; None without a release.

        Raises:
            OperationInProgress: An operator may be running helm on it.
        """
        newest = self._newest(id)
        if newest is None or revisions.status(newest) not in revisions.UNFINISHED:
            return newest
        # No holder of the Lease died, so no replica left it: an operator's helm did, and may still be running.
        if (seconds := STRANGER_SECONDS - revisions.age(newest)) > 0:
            raise OperationInProgress(retry_after=max(1, round(seconds)))
        self._recover(id, lease, newest)
        return self._newest(id)

    def _recover(self, id: int, lease: Lease, newest: Object | None) -> None:
        """As Flux's helm-controller does: mark an unfinished revision as failed, so that helm can continue from it."""
        if newest is None or (status := revisions.status(newest)) not in revisions.UNFINISHED:
            return
        log.warning("release %s was left %s; recovering it", release_name(id), status)
        if status == "uninstalling":
            self._uninstall(id, lease)
        else:
            self._revisions.fail(newest)
        self._recovered()

    def _newest(self, id: int) -> Object | None:
        all_revisions = self._revisions.of(release_name(id))
        # `helm uninstall --keep-history` leaves the revisions of an uninstalled release.
        return all_revisions[-1] if all_revisions and revisions.status(all_revisions[-1]) != "uninstalled" else None

    def _has_workload(self, id: int) -> bool:
        return self._workload_and_pod(id)[0] is not None

    def _workload_and_pod(self, id: int) -> tuple[Object | None, Object | None]:
        workload = path("apps/v1", self._namespace, "statefulsets", release_name(id))
        pod = path("v1", self._namespace, "pods", pod_name(id))
        found = self._kube.get_all([workload, pod])
        return found[0], found[1]

    def _read(self, revision: Object | None) -> Release | None:
        return None if revision is None else self._revisions.read(revision)

    def _missing(self, release: Release) -> list[str]:
        objects = revisions.objects_of(release.manifest)
        names = [(part["kind"], part["metadata"]["name"]) for part in objects if part["kind"] in KINDS]
        paths = [path(KINDS[kind][0], self._namespace, KINDS[kind][1], name) for kind, name in names]
        found = zip(names, self._kube.get_all(paths, metadata=True), strict=True)
        # A claim that is being deleted is there for as long as a game uses it, and has rules of its own.
        return [
            f"{kind} {name}"
            for (kind, name), object_ in found
            if object_ is None or (kind != "PersistentVolumeClaim" and deleted_at(object_))
        ]

    # -- helm ----------------------------------------------------------------------------------------------

    def _change(self, id: int, values: Values, lease: Lease, keep_pod: bool, force_conflicts: bool) -> None:
        try:
            self._upgrade("change", id, values, lease, keep_pod)
        except FieldConflict:
            if not force_conflicts:
                raise
            log.warning("release %s: the fields that others have taken over go back to Helm", release_name(id))
            self._upgrade("change", id, values, lease, keep_pod, force_conflicts=True)

    def _upgrade(
        self,
        kind: str,
        id: int,
        values: Values,
        lease: Lease,
        keep_pod: bool = False,
        *,
        force_conflicts: bool = False,
    ) -> None:
        def upgrade() -> None:
            sent = values
            if keep_pod:
                newest = self._newest(id)
                next_number = 1 if newest is None else revisions.number(newest) + 1
                sent = {**values, KEEPS_POD: next_number}
            with self._cleaned_up(id, lease):
                self._helm.upgrade(kind, release_name(id), sent, lease, force_conflicts=force_conflicts)

        _retry_while_contended(upgrade)

    def _uninstall(self, id: int, lease: Lease) -> None:
        def uninstall() -> None:
            with self._cleaned_up(id, lease):
                self._helm.uninstall(release_name(id), lease)

        _retry_while_contended(uninstall)

    def _restore(self, id: int, before: Object, values: Values, lease: Lease, keep_pod: bool) -> None:
        """After a refused change, restore the previous values: otherwise every later write would be refused too."""
        try:
            newest = self._newest(id)
            if newest is not None and newest["name"] != before["name"]:
                self._upgrade("restore", id, values, lease, keep_pod)
        except Problem:
            log.error("release %s: the refused values could not be replaced by the previous ones", release_name(id))

    @contextmanager
    def _cleaned_up(self, id: int, lease: Lease) -> Iterator[None]:
        """If our own helm failed without noting that in the release, note it, or leave that to recovery."""
        try:
            yield
        except (OperationInProgress, TooManyOperations):
            raise
        except Problem:
            if not lease.abandoned:
                self._clean_up(id, lease)
            raise

    def _clean_up(self, id: int, lease: Lease) -> None:
        try:
            newest = self._newest(id)
            if newest is not None and revisions.status(newest) in revisions.PENDING:
                self._revisions.fail(newest)
            elif newest is not None and revisions.status(newest) == "uninstalling":
                lease.abandon()
        except Problem:
            lease.abandon()


class _Held(threading.local):
    """The Leases that the current thread holds, by server id."""

    def __init__(self) -> None:
        self.by_id: dict[int, Lease] = {}


def _retry_while_contended(work: Callable[[], None]) -> None:
    """Repeat the work while it fails only because others write to the same object at the same time."""
    for attempt in range(1, CONTENDED_TRIES + 1):
        try:
            work()
            return
        except ClusterContended:
            if attempt == CONTENDED_TRIES:
                raise
            time.sleep(CONTENDED_PAUSE * attempt * _random.uniform(0.2, 1))
