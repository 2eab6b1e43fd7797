"""All writes: one Helm release per server, through pyhelm3, one helm process a write.

Each write holds the server's Lease (`leases.py`), mends what a dead holder left behind, and only then takes one of
the places for helm processes, so that callers who would be refused anyway take none.

Rights that this needs in the servers' namespace, besides those of `cluster/reader.py` (a proxy has counted them):

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

import yaml
from structlog.contextvars import bound_contextvars

from service.errors import (
    ClusterContended,
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
from service.servers.names import release_name
from service.servers.objects import KINDS
from service.servers.spec import same
from service.servers.values import Values, restarts, runs
from service.settings import Settings

log = logging.getLogger(__name__)
# The machine's own randomness, as in watch.py.
_random = random.SystemRandom()

STRANGER_SECONDS = 60.0
"""An unfinished release that no Lease speaks for may be an operator's `helm` at work: it is left alone this long."""
CONVERGE_TRIES, CONVERGE_PAUSE = 40, 5.0
CONTENDED_TRIES, CONTENDED_PAUSE = 6, 0.4
"""Helm is run so often while others write to the same object, after pauses of so many seconds and longer."""
# libyaml, where PyYAML was built with it, takes a tenth of the time.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class HelmReleases:
    """The Helm releases of the game servers. To be made after a fork: it has a thread and sockets.

    `helm_done(kind, outcome, seconds)` and `recovered()` are told what happened, for the metrics.
    """

    def __init__(
        self,
        settings: Settings,
        kube: Kube | None = None,
        *,
        helm_done: Done = lambda kind, outcome, seconds: None,
        recovered: Callable[[], None] = lambda: None,
    ) -> None:
        self._namespace = settings.servers_namespace
        self._kube = kube or Kube()
        self._leases = Leases(self._kube, self._namespace, settings.pod_name)
        self._revisions = Revisions(self._kube, self._namespace)
        self._helm = HelmClient(settings, helm_done)
        self._recovered = recovered
        self._held = _Held()
        self._converging: set[int] = set()

    @contextmanager
    def locked(self, id: int) -> Iterator[None]:
        """Hold the server's Lease; this thread's writes to it go through within."""
        with self._lease(id):
            yield

    def confirm(self, id: int) -> None:
        """Raises ClusterUnavailable unless the Lease that this thread holds is still its own, as Kubernetes has it."""
        self._leases.confirm(release_name(id), self._held.by_id[id])

    def install(self, id: int, values: Values) -> None:
        """Install the release, or bring one that is there to these values."""
        with self._lease(id) as lease:
            self._settled(id, lease)
            self._upgrade("install", id, values, lease)

    def current(self, id: int) -> Values | None:
        """The values that the newest revision was given, as `helm get values` shows them; None without a release."""
        release = self._read(self._newest(id))
        return None if release is None else release.values

    def missing(self, id: int) -> list[str]:
        """The objects of the newest revision that the cluster does not have, such as `Service server-4711`."""
        newest = self._newest(id)
        if newest is None or revisions.status(newest) in revisions.UNFINISHED:
            return []  # What is not there may be on its way.
        release = self._read(newest)
        return [] if release is None else self._missing(release)

    def change(self, id: int, change: Callable[[Values], Values]) -> bool:
        """Send `change(current values)` whole; False where nothing would change and nothing is missing.

        A running pod is left as it is by a change that is not about it. A change that the cluster refuses leaves the
        values as they were. Raises ServerNotFound, or ReleaseMissing where there is a server all the same.
        """
        with self._lease(id) as lease:
            newest = self._settled(id, lease)
            release = self._read(newest)
            if newest is None or release is None:
                raise ReleaseMissing if self._has_workload(id) else ServerNotFound
            wanted = change(deepcopy(release.values))
            sound = revisions.status(newest) == "deployed"
            if sound and same(wanted, release.values) and not self._missing(release):
                return False
            # What an unfinished revision was about, its pod may have yet to take.
            quiet = runs(release.values) and runs(wanted) and not restarts(release.values, wanted)
            keep = quiet and (sound or release.keeps_pod)
            try:
                self._upgrade("change", id, wanted, lease, keep)
            except (RefusedByCluster, NoNodePortLeft, OperationFailed, ClusterContended):
                self._restore(id, newest, release.values, lease)
                raise
            return True

    def uninstall(self, id: int) -> bool:
        """Uninstall the release, without waiting for its pod to end; False where there is none."""
        with self._lease(id) as lease:
            if self._settled(id, lease) is None:
                return False
            self._uninstall(id, lease)
            return True

    # -- Lease and recovery --------------------------------------------------------------------------------

    @contextmanager
    def _lease(self, id: int) -> Iterator[Lease]:
        held = self._held.by_id
        if id in held:
            yield held[id]
            return
        with bound_contextvars(server=id), self._leases.hold(release_name(id)) as lease:
            held[id] = lease
            try:
                if lease.taken_over:
                    self._after_death(id, lease)
                yield lease
            finally:
                del held[id]
                if lease.abandoned and id not in self._converging:
                    self._converging.add(id)
                    # Its log lines are this request's too.
                    work = (self._converge, id)
                    threading.Thread(target=copy_context().run, args=work, name=f"converge {id}", daemon=True).start()

    def _converge(self, id: int) -> None:
        """After a write that had to be broken off: bring the server to what its newest revision says.

        A process that was frozen may have touched objects after another had taken its Lease over, and what was broken
        off because Kubernetes was away is finished once it is back.
        """
        try:
            for _ in range(CONVERGE_TRIES):
                time.sleep(CONVERGE_PAUSE * _random.uniform(0.5, 1))
                try:
                    with self._lease(id) as lease:
                        release = self._read(self._settled(id, lease))
                        if release is not None:
                            self._upgrade("converge", id, release.values, lease, release.keeps_pod)
                        return
                except Problem as problem:
                    log.warning("release %s has still to converge: %s", release_name(id), problem.detail)
        finally:
            self._converging.discard(id)

    def _after_death(self, id: int, lease: Lease) -> None:
        try:
            self._recover(id, lease, self._newest(id))
        except BaseException:
            # Should this not come to its end, the next holder has to know too that the one before died.
            lease.abandon()
            raise

    def _settled(self, id: int, lease: Lease) -> Object | None:
        """The metadata of the newest revision, which no helm is working on; None without a release."""
        newest = self._newest(id)
        if newest is None or revisions.status(newest) not in revisions.UNFINISHED:
            return newest
        # Nobody died holding the Lease, so this was no replica: a hand, whose helm may still be at it.
        if (left := STRANGER_SECONDS - revisions.age(newest)) > 0:
            raise OperationInProgress(retry_after=max(1, round(left)))
        self._recover(id, lease, newest)
        return self._newest(id)

    def _recover(self, id: int, lease: Lease, newest: Object | None) -> None:
        """What Flux's helm-controller does: a dead revision is marked failed, and helm goes on from it."""
        found = "" if newest is None else revisions.status(newest)
        if newest is None or found not in revisions.UNFINISHED:
            return
        log.warning("release %s was left %s; recovering it", release_name(id), found)
        if found == "uninstalling":
            self._uninstall(id, lease)
        else:
            self._revisions.fail(newest)
        self._recovered()

    def _newest(self, id: int) -> Object | None:
        found = self._revisions.of(release_name(id))
        # `helm uninstall --keep-history` leaves revisions of a release that is no more.
        return found[-1] if found and revisions.status(found[-1]) != "uninstalled" else None

    def _has_workload(self, id: int) -> bool:
        return self._kube.get(path("apps/v1", self._namespace, "statefulsets", release_name(id))) is not None

    def _read(self, revision: Object | None) -> Release | None:
        return None if revision is None else self._revisions.read(revision)

    def _missing(self, release: Release) -> list[str]:
        documents = [part for part in yaml.load_all(release.manifest, _LOADER) if part]
        names = [(part["kind"], part["metadata"]["name"]) for part in documents if part["kind"] in KINDS]
        places = [path(KINDS[kind][0], self._namespace, KINDS[kind][1], name) for kind, name in names]
        found = self._kube.get_all(places, metadata=True)
        return [f"{kind} {name}" for (kind, name), thing in zip(names, found, strict=True) if thing is None]

    # -- helm ----------------------------------------------------------------------------------------------

    def _upgrade(self, kind: str, id: int, values: Values, lease: Lease, keep_pod: bool = False) -> None:
        def upgrade() -> None:
            wanted = values
            if keep_pod:
                newest = self._newest(id)
                coming = 1 if newest is None else revisions.number(newest) + 1
                wanted = {**values, KEEPS_POD: coming}
            with self._tidied(id, lease):
                self._helm.upgrade(kind, release_name(id), wanted, lease)

        _while_contended(upgrade)

    def _uninstall(self, id: int, lease: Lease) -> None:
        def uninstall() -> None:
            with self._tidied(id, lease):
                self._helm.uninstall(release_name(id), lease)

        _while_contended(uninstall)

    def _restore(self, id: int, before: Object, values: Values, lease: Lease) -> None:
        """After a refused change: back to the values of before, or every later write would be refused for it too."""
        try:
            newest = self._newest(id)
            if newest is not None and newest["name"] != before["name"]:
                self._upgrade("restore", id, values, lease, keep_pod=runs(values))
        except Problem:
            log.error("release %s keeps the values that were refused", release_name(id))

    @contextmanager
    def _tidied(self, id: int, lease: Lease) -> Iterator[None]:
        """Where our own helm failed and could not even say so in the release: say it, or leave it to recovery."""
        try:
            yield
        except (OperationInProgress, TooManyOperations):
            raise
        except Problem:
            if not lease.abandoned:
                self._tidy(id, lease)
            raise

    def _tidy(self, id: int, lease: Lease) -> None:
        try:
            newest = self._newest(id)
            if newest is not None and revisions.status(newest) in revisions.PENDING:
                self._revisions.fail(newest)
            elif newest is not None and revisions.status(newest) == "uninstalling":
                lease.abandon()
        except Problem:
            lease.abandon()


class _Held(threading.local):
    """The Leases that the present thread holds, by server id."""

    def __init__(self) -> None:
        self.by_id: dict[int, Lease] = {}


def _while_contended(work: Callable[[], None]) -> None:
    """Do the work again while it fails only because others write to the same object at the same moment."""
    for attempt in range(1, CONTENDED_TRIES + 1):
        try:
            work()
            return
        except ClusterContended:
            if attempt == CONTENDED_TRIES:
                raise
            time.sleep(CONTENDED_PAUSE * attempt * _random.uniform(0.2, 1))
