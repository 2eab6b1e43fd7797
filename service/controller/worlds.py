"""Carries out the operations on servers' worlds: backups, restores, clones.

Each action has a machine. Where it is stands in the operation's record (`work`) before each phase begins, so that the
controller that takes over calls the same phase again. So each phase must be one that can be repeated.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Protocol

from service.backups.jobs import JobState
from service.controller.leader import Deposed, Term, apart, repeat
from service.controller.marks import mark, unmark
from service.controller.needed import is_needed
from service.errors import ClusterUnavailable, OperationInProgress, Problem
from service.kube.times import now
from service.kube.watch import Watch
from service.operations.context import Context
from service.operations.operation import RESTORES, Operation, Progress, Server
from service.records.store import RecordTooLarge
from service.servers.waiting import WaitingOperation
from service.telemetry import logs

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 900.0
"""How long a phase that fails is tried again before its machine gives up."""
THREADS = 16
TURN_SECONDS = 0.5
LONGEST_PAUSE = 30.0
LOST_SECONDS = 120.0
"""For how long a node may not answer, while the work on it can be given up."""
NO_ROOM = "There is no room to record more about this operation or its server's backups."
RESTORES_TO_A_BACKUP = 4
"""How many restores and clones there may be at once for each backup that there may be: people wait for them."""


@dataclass(frozen=True)
class Run:
    """An operation, as its machine gets it.

    Attributes:
        operation: The operation, with `argument` and `cancelling`.
        server: Its server: id, uid and customer.
        work: What the machine has recorded; {} at the beginning.
    """

    operation: Operation
    server: Server
    work: Mapping[str, Any]


@dataclass(frozen=True)
class Next:
    """What follows a phase.

    Attributes:
        work: What to record before the machine is called again; None to leave it.
        step: What the operation is doing, in plain words; None to leave it.
        seconds: When to call the machine again; 0 for at once.
        state: `running`, or how the operation ends: `done`, `failed` or `cancelled`.
        reason: Why it has failed, in plain words.
    """

    work: Mapping[str, Any] | None = None
    step: str | None = None
    seconds: float = 0.0
    state: str = "running"
    reason: str | None = None


class Machine(Protocol):
    """How an action is carried out."""

    action: str

    def advance(self, run: Run) -> Next:
        """Do the phase that `run.work` names.

        It is called by one thread at a time for each operation, within a step of the term. It takes at most some
        seconds: what takes longer is looked at again (`wait`). A Problem that it raises is tried again.
        """

    def abandon(self, run: Run, reason: str) -> Next:
        """What follows if a phase has failed for PATIENCE_SECONDS: how to leave everything as it was."""


def go(run: Run, phase: str, step: str | None = None, **facts: Any) -> Next:
    """Record the next phase and these facts beside the ones that are known, and go on at once.

    Its attempts are counted from 0 and its time runs from now, unless the facts say otherwise.
    """
    return Next({**run.work, "attempt": 0, "since": time.time(), **facts, "phase": phase}, step)


def seconds_in(run: Run) -> float:
    """For how long the recorded phase has been at work."""
    return time.time() - float(run.work.get("since", time.time()))


def is_lost(state: JobState) -> bool:
    """Whether a Job's node has not answered for so long that an operation no longer waits for it."""
    return state.lost_for(datetime.now(UTC)).total_seconds() > LOST_SECONDS


def wait(seconds: float = 1.0) -> Next:
    """Call the machine again after a moment."""
    return Next(seconds=seconds)


def done() -> Next:
    """The operation has done what it was asked for."""
    return Next(state="done")


def failed(reason: str) -> Next:
    """The operation has failed, and has left everything as it was, or as the reason says."""
    return Next(state="failed", reason=reason)


def cancelled() -> Next:
    """The operation was cancelled before it has changed anything."""
    return Next(state="cancelled")


class Worlds:
    """The part of the controller.

    Args:
        context: The collaborators of the operations.
        machines: The machines, one for each action.
        watches: Makes the watches of what the machines wait for; they call what it is called with.
    """

    def __init__(
        self,
        context: Context,
        machines: Sequence[Machine],
        watches: Callable[[Callable[[], None]], Sequence[Watch]] = lambda wake: (),
    ) -> None:
        self._context = context
        self._machines = {machine.action: machine for machine in machines}
        self._store = context.operations
        self._wake = threading.Event()
        self._watch = self._store.watch(lambda operation, deleted: self._wake.set())
        self._runs: dict[str, _Active] = {}
        self._watches = watches(self.wake)

    def start(self) -> None:
        """Watch the operations, and what their machines wait for."""
        self._watch.start()
        for watch in self._watches:
            watch.start()

    def lead(self, term: Term) -> None:
        """Carry the operations out, and go on with those that another controller has left."""
        threading.Thread(target=self._work, args=(term,), name="worlds", daemon=True).start()

    def wake(self) -> None:
        """Look at the operations soon, because something has changed that they may wait for."""
        for active in list(self._runs.values()):
            active.due = min(active.due, time.monotonic())
        self._wake.set()

    def _work(self, term: Term) -> None:
        with ThreadPoolExecutor(THREADS, "worlds") as pool:

            def turn() -> None:
                self._wake.clear()
                self.turn(term, pool)
                self._wake.wait(TURN_SECONDS)
                term.require()

            repeat(turn, "backups and restores")

    def turn(self, term: Term, pool: Executor) -> None:
        """Look at all operations, and call the machines whose moment has come."""
        self._adopt(term)
        for active in list(self._runs.values()):
            if not active.busy and active.due <= time.monotonic():
                active.busy = True
                pool.submit(self._advance, term, active)

    def _adopt(self, term: Term) -> None:
        """Go on with operations that are new here, oldest first, as many as there are places for.

        Those that another controller has begun need no place: their games may be stopped, or hold still.
        """
        at_once = self._context.settings.backups_at_once
        places = {"backup": at_once, "restore": at_once * RESTORES_TO_A_BACKUP, "needed": math.inf}
        for active in self._runs.values():
            places[_place_of(active.operation)] -= 1
        for known in sorted(self._watch.all(), key=lambda each: (not each.work, each.created, each.id)):
            if known.id in self._runs:
                if known.cancelling:
                    self._runs[known.id].cancelling = True
                continue
            if known.ended or known.target is None or known.action not in self._machines:
                continue
            place = _place_of(known)
            if places[place] <= 0 and not known.work and not known.cancelling:
                continue
            with apart(f"operation {known.id} ({known.action})"), term.step():
                current = self._store.get(known.id)
                if current is None or current.ended or current.target is None:
                    continue
                mark(self._context, current.target, WaitingOperation(current.id, current.action, "is at work"))
                places[place] -= 1
                self._runs[current.id] = _Active(current, current.cancelling)

    def _advance(self, term: Term, active: _Active) -> None:
        operation = active.operation
        try:
            with term.step():
                try:
                    self._record(term, active, self._next(active))
                except RecordTooLarge:
                    self._give_up(term, active)
        except Deposed:
            pass
        except Problem as problem:
            active.pause()
            log.info("operation %s (%s) waits: %s", operation.id, operation.action, problem.detail)
        except Exception:
            active.pause()
            log.exception("operation %s (%s) goes on after an unexpected error", operation.id, operation.action)
        finally:
            active.busy = False
            self._wake.set()

    def _next(self, active: _Active) -> Next:
        machine, run = self._run(active)
        try:
            next_ = machine.advance(run)
        except ClusterUnavailable:
            # Nobody could do it now.
            active.failing_since = None
            raise
        except Exception as error:
            active.failing_since = active.failing_since or time.monotonic()
            if time.monotonic() - active.failing_since < PATIENCE_SECONDS:
                raise
            id, action = run.operation.id, run.operation.action
            log.warning("operation %s (%s) is given up at %s", id, action, run.work, exc_info=True)
            reason = error.detail if isinstance(error, Problem) else f"An unexpected error: {type(error).__name__}."
            next_ = machine.abandon(run, reason)
        active.failing_since, active.tries = None, 0
        return next_

    def _run(self, active: _Active) -> tuple[Machine, Run]:
        """An operation as its machine gets it, and the machine."""
        operation = replace(active.operation, cancelling=active.cancelling)
        assert operation.target is not None
        return self._machines[operation.action], Run(operation, operation.target, operation.work)

    def _give_up(self, term: Term, active: _Active) -> None:
        """Leave everything as it was, because a record has no room for what follows. It will not have any later."""
        machine, run = self._run(active)
        id, action = run.operation.id, run.operation.action
        log.warning("operation %s (%s) is given up: there is no room to record what follows", id, action)
        try:
            self._record(term, active, machine.abandon(run, NO_ROOM))
        except RecordTooLarge:
            self._record(term, active, replace(failed(NO_ROOM), work={}))

    def _record(self, term: Term, active: _Active, next_: Next) -> None:
        """Write what follows, before it begins."""
        operation = active.operation
        assert operation.target is not None
        ended = next_.state != "running"
        after = replace(
            operation,
            state=next_.state,
            step=None if ended else next_.step or operation.step,
            reason=next_.reason,
            work=operation.work if next_.work is None else next_.work,
            finished=now() if ended else None,
            progress=Progress(1, int(next_.state == "done"), int(next_.state == "failed")),
        )
        if ended:
            # What stays because others write there, `bulk.py` takes away.
            with suppress(OperationInProgress):
                unmark(self._context, operation.target, operation.id)
        if after != operation:
            active.operation = self._store.show(after, term.require)
        active.due = time.monotonic() + next_.seconds
        if not ended:
            return
        del self._runs[operation.id]
        logs.audit(
            token=operation.maker.name,
            action=operation.action,
            server=operation.target.id,
            outcome="ok" if next_.state == "done" else next_.state,
            operation=operation.id,
        )


def _place_of(operation: Operation) -> str:
    """Which kind of place an operation takes. What a restore waits for is never short of one: its game is stopped."""
    if operation.action in RESTORES:
        return "restore"
    return "needed" if is_needed(operation) else "backup"


class _Active:
    """An operation that is being carried out."""

    def __init__(self, operation: Operation, cancelling: bool) -> None:
        self.operation = operation
        self.cancelling = cancelling
        self.busy = False
        self.due = 0.0
        self.tries = 0
        self.failing_since: float | None = None

    def pause(self) -> None:
        """Call the machine again after a moment, which grows."""
        self.tries += 1
        self.due = time.monotonic() + min(LONGEST_PAUSE, 0.5 * 2.0 ** min(self.tries, 10))
