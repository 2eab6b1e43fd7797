"""A short Lease per server, so that one operation at a time works on it, on whichever replica.

The holder renews its Lease while it works, and stops working before the Lease can expire (`Lease.remaining`). So an
expired Lease belongs to a dead holder, and another may take it over, under its resourceVersion. The holder deletes the
Lease when the work is done: without a Lease, no operation runs. The replicas' clocks have to agree within two seconds:
that is the time between the moment a holder gives up and the moment its Lease expires.

Callers that are refused may try again, and one of many that do so all the time can be unlucky for minutes. A caller
that must not be kept out waits instead: it writes its name into the Lease, and the holder passes the Lease on to it.

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
# Seconds before the expiry at which the holder gives up: 2 s to end its helm (helm/command.py), 2 s for clocks that
# disagree.
MARGIN = 4.0

NEXT = "gameserver/next"
"""The annotation with the identity that waits for the Lease, and gets it next."""
LOOK_EVERY = 0.1
_TRIES = 3


def now() -> float:
    """Seconds of CLOCK_BOOTTIME, which all processes of a machine share.

    Unlike time.monotonic(), it continues while the machine sleeps, as the other replicas' clocks do.
    """
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Lease:
    """A Lease that this replica holds.

    Args:
        held: The Lease object.
        requested_at: When the request for it was sent (`now()`).
        taken_over: Whether it expired under another holder, who did not release it.
    """

    def __init__(self, held: Object, requested_at: float, taken_over: bool) -> None:
        self.held = held
        self.taken_over = taken_over
        self._good_until = requested_at + DURATION - MARGIN
        self._lost = False
        self._abandoned = False

    def until(self) -> float:
        """When the work must end if the Lease is not renewed again, by `now`; long ago if the Lease was lost."""
        return 0.0 if self._lost else self._good_until

    def remaining(self) -> float:
        """For how many seconds the work may continue if the Lease is not renewed again."""
        return 0.0 if self._lost else self._good_until - now()

    def abandon(self) -> None:
        """Let the Lease expire, because the next holder has to recover the work that was done under it."""
        self._abandoned = True

    @property
    def abandoned(self) -> bool:
        """Whether the Lease is left to expire, or was lost."""
        return self._abandoned or self.remaining() <= 0

    def extend(self, held: Object, requested_at: float) -> None:
        """Note a renewal: its Lease object, and when its request was sent."""
        self.held = held
        self._good_until = requested_at + DURATION - MARGIN

    def lose(self) -> None:
        """Note that another has the Lease: the work must not continue."""
        self._lost = True


class Leases:
    """The Leases in one namespace, held in the name of `holder` (this pod)."""

    def __init__(self, kube: Kube, namespace: str, holder: str) -> None:
        self._kube = kube
        self._namespace = namespace
        self._holder = holder

    @contextmanager
    def hold(self, name: str, wait: float = 0.0) -> Iterator[Lease]:
        """Hold Lease `name`, and renew it from a thread.

        Args:
            name: The Lease's name.
            wait: For how many seconds to wait if another holds it. Who waits gets it before all who do not.

        Raises:
            OperationInProgress: Another holds it, and has not released it within that time.
        """
        lease = self._acquire_within(name, wait)
        done = threading.Event()
        # In a copy of this thread's context, so that its log lines belong to the same request.
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

    def is_open_to(self, name: str, since: datetime, head_start: float) -> bool:
        """Whether somebody who has watched `since` then may try to take the Lease; may raise ClusterUnavailable.

        Who began after the holder's last renewal has to leave it to others until it has been over for `head_start`
        seconds.
        """
        spec = (self._kube.get(self._path(name)) or {}).get("spec") or {}
        try:
            is_new = since > datetime.fromisoformat(spec["renewTime"])
        except (KeyError, TypeError, ValueError):
            # There is none, or one that anybody may take.
            return True
        return not is_new or _seconds_until_expiry(spec) <= -head_start

    def confirm(self, name: str, lease: Lease) -> None:
        """Check with Kubernetes that the Lease is still held: a holder that was frozen cannot know otherwise.

        Raises:
            ClusterUnavailable: Another holds the Lease now.
        """
        if not self._still_ours(name, lease):
            lease.lose()
            raise ClusterUnavailable("The operation took too long and was stopped. Send it again.")

    # -- one Lease -----------------------------------------------------------------------------------------

    def _acquire_within(self, name: str, wait: float) -> Lease:
        identity = f"{self._holder}/{uuid.uuid4()}"
        until = now() + wait
        while True:
            try:
                return self._acquire(name, identity)
            except OperationInProgress:
                if now() >= until:
                    if wait:
                        self._stop_waiting(name, identity)
                    raise
            self._wait_for(name, identity)
            time.sleep(LOOK_EVERY)

    def _acquire(self, name: str, identity: str) -> Lease:
        requested_at = now()
        try:
            new_lease = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": name, "labels": {"app.kubernetes.io/part-of": "gameserver-cluster"}},
                "spec": self._spec(identity, 0),
            }
            return Lease(self._kube.create(self._path(), new_lease), requested_at, False)
        except Conflict:
            return self._take_over(name, identity)

    def _take_over(self, name: str, identity: str) -> Lease:
        current = self._kube.get(self._path(name))
        if current is None:  # It was released just now: the next try gets it.
            raise OperationInProgress
        spec = current.get("spec") or {}
        holder = spec.get("holderIdentity")
        passed_on = holder == identity
        if holder and not passed_on and (seconds := _seconds_until_expiry(spec)) > 0:
            # A live holder renews every few seconds, and is done in about one. A dead holder's Lease has to expire.
            dead = seconds < DURATION - 2 * RENEW_EVERY
            raise OperationInProgress(retry_after=math.ceil(seconds) if dead else 1)
        requested_at = now()
        spec = self._spec(identity, int(spec.get("leaseTransitions") or 0) + 1)
        try:
            held = self._kube.replace(self._path(name), {**_without_next(current, identity), "spec": spec})
        except Conflict as conflict:
            raise OperationInProgress from conflict
        dead = bool(holder) and not passed_on
        if dead:
            log.warning("took over the Lease %s, which %s did not release", name, holder)
        return Lease(held, requested_at, dead)

    def _wait_for(self, name: str, identity: str) -> None:
        """Ask the Lease's holder to pass it on, unless another has asked for that."""
        current = self._kube.get(self._path(name))
        if current is None or _next(current) is not None:
            return
        metadata = current["metadata"]
        annotations = {**(metadata.get("annotations") or {}), NEXT: identity}
        # A conflict means that the Lease was renewed or released just now.
        with suppress(Conflict):
            self._kube.replace(self._path(name), {**current, "metadata": {**metadata, "annotations": annotations}})

    def _stop_waiting(self, name: str, identity: str) -> None:
        """Take the request back. If that fails, the Lease may be passed on to nobody, and expires."""
        for _ in range(_TRIES):
            current = self._kube.get(self._path(name))
            if current is None:
                return
            with suppress(Conflict):
                if (current.get("spec") or {}).get("holderIdentity") == identity:
                    self._kube.delete(self._path(name), version=current["metadata"]["resourceVersion"])
                elif _next(current) == identity:
                    self._kube.replace(self._path(name), _without_next(current, identity))
                return

    def _renew(self, name: str, lease: Lease, done: threading.Event) -> None:
        wait = RENEW_EVERY
        while not done.wait(wait):
            requested_at = now()
            if lease.remaining() <= 0:
                log.warning("the Lease %s could not be renewed in time", name)
                lease.lose()
                return
            spec = {**lease.held["spec"], "renewTime": stamp(datetime.now(UTC), micro=True)}
            try:
                lease.extend(self._kube.replace(self._path(name), {**lease.held, "spec": spec}), requested_at)
                wait = RENEW_EVERY
            except Conflict:
                # The write may have been our own: a renewal whose response was lost. The holder's name shows it.
                with suppress(Problem):
                    if not self._still_ours(name, lease):
                        log.warning("another holder has taken the Lease %s", name)
                        lease.lose()
                        return
                wait = RETRY_EVERY
            except Problem:
                wait = RETRY_EVERY

    def _still_ours(self, name: str, lease: Lease) -> bool:
        current = self._kube.get(self._path(name))
        if current is None or current["spec"].get("holderIdentity") != lease.held["spec"]["holderIdentity"]:
            return False
        lease.held = current
        return True

    def _release(self, name: str, lease: Lease) -> None:
        try:
            try:
                self._delete(name, lease)
            except Conflict:
                # Somebody waits for it, or a renewal's response was lost. Otherwise it is no longer ours.
                if self._still_ours(name, lease):
                    self._pass_on(name, lease)
        except (Conflict, ClusterUnavailable):
            # It expires by itself. Until then, clients get a 409 that says how long to wait.
            log.warning("the Lease %s could not be released", name)

    def _pass_on(self, name: str, lease: Lease) -> None:
        """Give the Lease to whoever waits for it; delete it if nobody does. Raises Conflict."""
        identity = _next(lease.held)
        if identity is None:
            self._delete(name, lease)
            return
        spec = self._spec(identity, int(lease.held["spec"].get("leaseTransitions") or 0) + 1)
        self._kube.replace(self._path(name), {**_without_next(lease.held, identity), "spec": spec})

    def _delete(self, name: str, lease: Lease) -> None:
        metadata = lease.held["metadata"]
        self._kube.delete(self._path(name), uid=metadata["uid"], version=metadata["resourceVersion"])

    def _path(self, name: str = "") -> str:
        return path("coordination.k8s.io/v1", self._namespace, "leases", name)

    @staticmethod
    def _spec(identity: str, transitions: int) -> Object:
        acquired_at = stamp(datetime.now(UTC), micro=True)
        return {
            "holderIdentity": identity,
            "leaseDurationSeconds": DURATION,
            "acquireTime": acquired_at,
            "renewTime": acquired_at,
            "leaseTransitions": transitions,
        }


def _next(lease: Object) -> str | None:
    """The identity that waits for the Lease."""
    identity: str | None = (lease["metadata"].get("annotations") or {}).get(NEXT)
    return identity


def _without_next(lease: Object, identity: str) -> Object:
    """The Lease, for which `identity` no longer waits."""
    if _next(lease) != identity:
        return lease
    metadata = lease["metadata"]
    annotations = {key: text for key, text in metadata["annotations"].items() if key != NEXT}
    return {**lease, "metadata": {**metadata, "annotations": annotations}}


def _seconds_until_expiry(spec: Object) -> float:
    """Seconds until the Lease expires, by this machine's clock; 0 if its times are malformed."""
    try:
        renewed = datetime.fromisoformat(spec["renewTime"])
        until = renewed + timedelta(seconds=int(spec["leaseDurationSeconds"]))
        return (until - datetime.now(UTC)).total_seconds()
    except (KeyError, TypeError, ValueError):
        return 0.0
