"""A short Lease per server, so that one operation at a time touches it, whichever replica it came to.

The holder renews its Lease while it works and stops working before the Lease can run out (`Lease.remaining`), so a
Lease that has run out belongs to a dead holder and may be taken over, under its resourceVersion. It is deleted when
the work is done: no Lease, no operation. Between replicas this needs clocks that agree within two seconds, the slack
between the moment a holder gives up and the moment its Lease runs out.

https://kubernetes.io/docs/concepts/architecture/leases/
"""

from __future__ import annotations

import logging
import math
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from datetime import UTC, datetime, timedelta

from service.errors import ClusterUnavailable, OperationInProgress, Problem
from service.kube.client import Conflict, Kube, path
from service.kube.times import stamp
from service.kube.types import Object

log = logging.getLogger(__name__)

DURATION = 15
RENEW_EVERY = 3.0
RETRY_EVERY = 1.0
# From here on the holder has to be finished: 2 s to end its helm (see helm/command.py), 2 s for clocks that disagree.
MARGIN = 4.0


def _now() -> float:
    # Unlike time.monotonic() this goes on while the machine sleeps, and so does everybody else's clock.
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Lease:
    """A Lease that is held. `taken_over` says that its last holder did not come to give it back."""

    def __init__(self, held: Object, asked: float, taken_over: bool) -> None:
        self.held = held
        self.taken_over = taken_over
        self._good_until = asked + DURATION - MARGIN
        self._lost = False
        self._abandoned = False

    def remaining(self) -> float:
        """The seconds for which the work may go on as things stand; renewals lengthen them."""
        return 0.0 if self._lost else self._good_until - _now()

    def abandon(self) -> None:
        """Leave the Lease to run out, as what was done under it needs recovery by whoever takes it over."""
        self._abandoned = True

    @property
    def abandoned(self) -> bool:
        return self._abandoned or self.remaining() <= 0

    def renewed(self, held: Object, asked: float) -> None:
        self.held = held
        self._good_until = asked + DURATION - MARGIN

    def lose(self) -> None:
        self._lost = True


class Leases:
    """The Leases in one namespace, held in the name of `holder` (this pod)."""

    def __init__(self, kube: Kube, namespace: str, holder: str) -> None:
        self._kube = kube
        self._namespace = namespace
        self._holder = holder

    @contextmanager
    def hold(self, name: str) -> Iterator[Lease]:
        """Hold Lease `name`, renewed by a thread meanwhile. Raises OperationInProgress where another holds it."""
        lease = self._acquire(name)
        done = threading.Event()
        # In a copy of this thread's context: what it logs belongs to whoever holds the Lease.
        work = (self._renew, name, lease, done)
        renewing = threading.Thread(target=copy_context().run, args=work, name=f"lease {name}", daemon=True)
        renewing.start()
        try:
            yield lease
        finally:
            done.set()
            renewing.join()
            if not lease.abandoned:
                self._release(name, lease)

    def confirm(self, name: str, lease: Lease) -> None:
        """Raises ClusterUnavailable where the Lease has gone to another by now, which a frozen holder cannot know."""
        if not self._still_ours(name, lease):
            lease.lose()
            raise ClusterUnavailable("The operation took too long and was ended; send it again.")

    # -- one Lease -----------------------------------------------------------------------------------------

    def _acquire(self, name: str) -> Lease:
        identity = f"{self._holder}/{uuid.uuid4()}"
        asked = _now()
        try:
            fresh = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": name, "labels": {"app.kubernetes.io/part-of": "gameserver-cluster"}},
                "spec": self._spec(identity, 0),
            }
            return Lease(self._kube.create(self._path(), fresh), asked, False)
        except Conflict:
            return self._take_over(name, identity)

    def _take_over(self, name: str, identity: str) -> Lease:
        found = self._kube.get(self._path(name))
        if found is None:  # Given back just now: the next try gets it.
            raise OperationInProgress
        spec = found.get("spec") or {}
        holder = spec.get("holderIdentity")
        if holder and (left := _seconds_left(spec)) > 0:
            # A live holder renews every few seconds and is done in about one; a dead one's Lease has to run out.
            dead = left < DURATION - 2 * RENEW_EVERY
            raise OperationInProgress(retry_after=math.ceil(left) if dead else 1)
        asked = _now()
        spec = self._spec(identity, int(spec.get("leaseTransitions") or 0) + 1)
        try:
            held = self._kube.replace(self._path(name), {**found, "spec": spec})
        except Conflict as conflict:
            raise OperationInProgress from conflict
        if holder:
            log.warning("took over the Lease %s, which %s did not give back", name, holder)
        return Lease(held, asked, bool(holder))

    def _renew(self, name: str, lease: Lease, done: threading.Event) -> None:
        wait = RENEW_EVERY
        while not done.wait(wait):
            asked = _now()
            if lease.remaining() <= 0:
                log.warning("the Lease %s could not be renewed in time", name)
                lease.lose()
                return
            spec = {**lease.held["spec"], "renewTime": stamp(datetime.now(UTC), micro=True)}
            try:
                lease.renewed(self._kube.replace(self._path(name), {**lease.held, "spec": spec}), asked)
                wait = RENEW_EVERY
            except Conflict:
                # Ours may have been the write: a renewal whose answer was lost. The holder's name tells.
                with suppress(Problem):
                    if not self._still_ours(name, lease):
                        log.warning("the Lease %s was taken by another", name)
                        lease.lose()
                        return
                wait = RETRY_EVERY
            except Problem:
                wait = RETRY_EVERY

    def _still_ours(self, name: str, lease: Lease) -> bool:
        found = self._kube.get(self._path(name))
        if found is None or found["spec"].get("holderIdentity") != lease.held["spec"]["holderIdentity"]:
            return False
        lease.held = found
        return True

    def _release(self, name: str, lease: Lease) -> None:
        about = lease.held["metadata"]
        try:
            self._kube.delete(self._path(name), uid=about["uid"], version=about["resourceVersion"])
        except (Conflict, ClusterUnavailable):
            # It runs out by itself. A client that asks again before that is told how long to wait.
            log.warning("the Lease %s could not be given back", name)

    def _path(self, name: str = "") -> str:
        return path("coordination.k8s.io/v1", self._namespace, "leases", name)

    @staticmethod
    def _spec(identity: str, transitions: int) -> Object:
        begun = stamp(datetime.now(UTC), micro=True)
        return {
            "holderIdentity": identity,
            "leaseDurationSeconds": DURATION,
            "acquireTime": begun,
            "renewTime": begun,
            "leaseTransitions": transitions,
        }


def _seconds_left(spec: Object) -> float:
    """How long the Lease still holds, by this machine's clock; 0 where its times make no sense."""
    try:
        renewed = datetime.fromisoformat(spec["renewTime"])
        until = renewed + timedelta(seconds=int(spec["leaseDurationSeconds"]))
        return (until - datetime.now(UTC)).total_seconds()
    except (KeyError, TypeError, ValueError):
        return 0.0
