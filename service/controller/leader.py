"""Makes one of the controller's pods the active one, by a Lease that it keeps.

The active pod renews the Lease every 3 seconds (`kube/leases.py`). A pod that is killed, frozen or cut off loses it 15
seconds after its last renewal, and the other pod takes it within a second. Four seconds before, the active pod itself
gives up: its process ends, so nothing that it has started can go on. A pod that is told to end finishes its running
steps and gives the Lease back.

A pod whose watches are not complete yet does not try to take the Lease. One whose watches were completed after the last
renewal leaves the Lease of a dead pod to the others for some seconds: they have watched while the dead one could not,
and know what has happened since (`controller/observe.py`).
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime

from service.errors import Problem
from service.kube.leases import Lease, Leases

log = logging.getLogger(__name__)

NAME = "gameserver-controller"
"""The Lease's name."""
RETRY_SECONDS = 1.0
LOOK_SECONDS = 0.5
HEAD_START_SECONDS = 3.0
"""For how long after its end a dead pod's Lease is for pods that have watched since the last renewal."""
STEP_SECONDS = 25.0
"""How long a pod that is told to end waits for its running steps."""


class Deposed(Exception):
    """This pod is no longer the active one, or is about to end: it must not begin another step."""


class Term:
    """The time in which this pod is the active one. Thread-safe.

    Args:
        lease: The Lease that it holds.
        holder: The identity with which it holds the Lease, unique to this term.
    """

    def __init__(self, lease: Lease, holder: str) -> None:
        self.holder = holder
        self._lease = lease
        self._ending = threading.Event()
        self._idle = threading.Condition()
        self._steps = 0

    def remaining(self) -> float:
        """For how many seconds this pod is surely the active one; 0 if it is not, or is about to end."""
        return 0.0 if self._ending.is_set() else max(0.0, self._lease.remaining())

    def require(self) -> None:
        """Raises Deposed unless this pod is the active one and not about to end."""
        if self.remaining() <= 0:
            raise Deposed

    @contextmanager
    def step(self) -> Iterator[None]:
        """Hold the end of this pod up for a step, which writes something. Raises Deposed instead of beginning it."""
        with self._idle:
            self.require()
            self._steps += 1
        try:
            yield
        finally:
            with self._idle:
                self._steps -= 1
                self._idle.notify_all()

    def sleep(self, seconds: float) -> None:
        """Wait. Raises Deposed as soon as this pod is about to end, or if it is not the active one afterwards."""
        self._ending.wait(seconds)
        self.require()

    def end(self) -> None:
        """Begin no further step, and wait up to STEP_SECONDS until the running ones are done."""
        self._ending.set()
        with self._idle:
            if not self._idle.wait_for(lambda: self._steps == 0, STEP_SECONDS):
                log.warning("ending although %d steps are still running", self._steps)

    @property
    def held(self) -> bool:
        """Whether the Lease is still held."""
        return self._lease.remaining() > 0


def repeat(work: Callable[[], None], what: str) -> None:
    """Do the work again and again, until this pod is no longer the active one.

    Args:
        work: One turn of it. It raises Deposed if this pod is not the active one.
        what: Whose work it is, in the plural, for the log.
    """
    while True:
        try:
            work()
        except Deposed:
            return
        except Problem as problem:
            log.warning("%s wait: %s", what, problem.detail)
            time.sleep(1)
        except Exception:
            log.exception("%s go on after an unexpected error", what)
            time.sleep(1)


@contextmanager
def apart(what: str) -> Iterator[None]:
    """Log what goes wrong with one of many, so that the others go on; it is tried again with the next turn.

    Args:
        what: Which one it is, in the singular, for the log.

    Raises:
        Deposed: This pod is not the active one.
    """
    try:
        yield
    except Deposed:
        raise
    except Problem as problem:
        log.warning("%s waits: %s", what, problem.detail)
    except Exception:
        log.exception("%s goes on after an unexpected error", what)


class Leader:
    """Waits for the Lease and holds it.

    Args:
        leases: The Leases of the servers' namespace, in this pod's name.
        stop: Set when this pod is told to end.
        sees_all: Whether this pod's watches have received all that exists.
        exit: Ends the process; it is called when the Lease is lost.
    """

    def __init__(
        self,
        leases: Leases,
        stop: threading.Event,
        sees_all: Callable[[], bool],
        exit: Callable[[int], object] = os._exit,
    ) -> None:
        self._leases = leases
        self._stop = stop
        self._sees_all = sees_all
        self._exit = exit

    def run(self, lead: Callable[[Term], None]) -> None:
        """Wait until this pod is the active one, call `lead`, and hold the Lease until the pod is told to end."""
        while not self._sees_all():
            if self._stop.wait(LOOK_SECONDS):
                return
        since = datetime.now(UTC)
        log.info("this pod watches all servers")
        with ExitStack() as stack:
            while not self._stop.is_set():
                try:
                    if self._leases.is_open_to(NAME, since, HEAD_START_SECONDS):
                        lease = stack.enter_context(self._leases.hold(NAME))
                        break
                except Problem as problem:
                    # Another holds the Lease, or Kubernetes does not answer.
                    log.debug("this pod is not the active controller: %s", problem.detail)
                self._stop.wait(RETRY_SECONDS)
            else:
                return
            term = Term(lease, lease.held["spec"]["holderIdentity"])
            log.info("this pod is the active controller now")
            lead(term)
            self._keep(term)

    def _keep(self, term: Term) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            if not term.held:
                log.error("the Lease %s is lost: this process ends, and another pod goes on", NAME)
                logging.shutdown()
                self._exit(1)
                return
        term.end()
