"""Runs the servers' schedules when they are due.

What is due stands in the annotations of each server's StatefulSet: its schedules, and the latest run of each
(schedules/runs.py). So nothing has to be remembered here: whichever pod becomes active reads both, ends the runs that
the pod before left unfinished as interrupted, and goes on with what is due from then on.

Each worker does one step of one run at a time. A run that waits is in no worker's hands. A run that has begun goes
before one that has not, so that a server that a run has stopped is started again before others are stopped.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from structlog.contextvars import bound_contextvars

from service.access import Subject
from service.controller.agenda import Agenda
from service.controller.leader import Deposed, Term
from service.errors import (
    ClusterUnavailable,
    OperationInProgress,
    Problem,
    SchedulePaused,
    ServerNotFound,
    TooManyBackups,
    TooManyCommands,
    TooManyOperations,
)
from service.events.event import Event, event_id
from service.kube.times import stamp
from service.kube.types import Object
from service.operations import backups, console, power
from service.operations.context import Context
from service.operations.schedules import Standing, runs_of, schedules_of
from service.operations.visibility import Target, require_server
from service.schedules import runs
from service.schedules.runs import Run
from service.schedules.spec import ACTIONS, Schedule, Step
from service.servers.accessors import annotation, created_at
from service.servers.names import SCHEDULE_RUNS, SCHEDULES
from service.servers.objects import Objects
from service.servers.spec import server_uid, spec_of_objects
from service.servers.state import state_of
from service.telemetry import logs, metrics
from service.tokens import Token

log = logging.getLogger(__name__)

CATCH_UP = timedelta(minutes=5)
"""A run that could not begin when it was due begins later, if it can within this time; otherwise it is missed."""
RETRY = timedelta(seconds=2)
"""The pause before what could not be written is written again, and before a step is tried again; see LONGEST_RETRY."""
LONGEST_RETRY = timedelta(seconds=30)
BACKUP_LOOK = timedelta(seconds=2)
"""How often a run looks whether its backup is done."""
LOOK_AGAIN_SECONDS = 300.0
"""How often all schedules are looked at, besides when they are due or change."""
TOKENS_FOR = timedelta(seconds=5)
"""For how long the tokens are as they were read, as in the API."""
TELL_AGAIN = timedelta(minutes=10)
"""The events of runs that ended this long before a pod became active are told again, because the pod before may not
have written them; their ids are the same."""

Key = tuple[int, str]
"""A server's id and the name of its schedule."""
Players = Callable[[Objects], int | None]


@dataclass
class _Active:
    """A run that is under way.

    Attributes:
        id, uid, name: Its server and its schedule.
        customer: The server's customer.
        schedule: The schedule as it was when the run began.
        due, deadline: When it was due, and when it has to end.
        done: How many steps are done.
        began: When the next step was begun first; None if it was not.
        resume: Until when it waits; None if it does not.
        backup: The operation that makes its backup; None if it waits for none.
        hindrance: Why the last try of the step did not begin; "" if there was none.
        ending: The outcome and the reason with which it ends, once that is known.
    """

    id: int
    uid: str
    name: str
    customer: str
    schedule: Schedule
    due: datetime
    deadline: datetime
    done: int = 0
    began: datetime | None = None
    resume: datetime | None = None
    backup: str | None = None
    hindrance: str = ""
    ending: tuple[str, str | None] | None = None

    @property
    def key(self) -> Key:
        return self.id, self.name

    @property
    def step(self) -> Step:
        return self.schedule.steps[self.done]


class Schedules:
    """The part of the controller.

    Args:
        context: The collaborators of the operations.
        emit: Takes the event of each run that failed.
        players: Returns how many players are on a server; None if that is unknown.
        clock: Returns the current time.
    """

    def __init__(
        self,
        context: Context,
        emit: Callable[[Event], None],
        players: Players = lambda objects: None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._context = context
        self._emit = emit
        self._players = players
        self._clock = clock
        self._agenda: Agenda[Key] = Agenda(clock)
        self._active: dict[Key, _Active] = {}
        self._leading = False
        self._leading_since = clock()
        self._tokens: tuple[datetime, Standing] | None = None
        metrics.show_schedules(lambda: len(self._active), self._agenda.waiting, self._agenda.oldest)

    def start(self) -> None:
        """Listen to changes of schedules and runs."""
        self._context.cluster.subscribe(self._changed)

    def lead(self, term: Term) -> None:
        """Start the threads."""
        self.take_over()
        threading.Thread(target=self._look_at_all, args=(term,), name="schedules", daemon=True).start()
        for _ in range(self._context.settings.controller_operations_at_once):
            threading.Thread(target=self._work, args=(term,), name="schedule", daemon=True).start()

    def take_over(self) -> None:
        """Note that this pod is the active one."""
        self._leading, self._leading_since = True, self._clock()

    # -- what to look at -------------------------------------------------------------------------------------

    def _changed(self, id: int, kind: str, before: Object | None, now: Object, deleted: bool) -> None:
        # The pod that is not active has nothing to look at: it looks at all once it is.
        if self._leading and kind == "statefulset" and (deleted or _texts(before) != _texts(now)):
            self._put(id, before)
            self._put(id, now)

    def _put(self, id: int, statefulset: Object | None) -> None:
        for name in {*schedules_of(statefulset), *runs_of(statefulset)}:
            self._agenda.put((id, name), self._clock())

    def look_at_all(self, first: bool = False) -> None:
        """Look at all schedules of all servers; the `first` time, tell the latest events again."""
        for objects in self._context.cluster.known_servers():
            self._put(objects.id, objects.statefulset)
            if first:
                self._tell_again(objects)

    def _look_at_all(self, term: Term) -> None:
        first = True
        try:
            while True:
                try:
                    self.look_at_all(first)
                    first = False
                except Problem as problem:
                    log.debug("the schedules are looked at later: %s", problem.detail)
                term.sleep(1.0 if first else LOOK_AGAIN_SECONDS)
        except Deposed:
            pass

    # -- the workers -----------------------------------------------------------------------------------------

    def _work(self, term: Term) -> None:
        while True:
            key = self._agenda.take()
            if key is not None and not self.handle(term, key):
                return

    def turn(self, term: Term) -> bool:
        """Handle one key that is due; False if there is none. For tests, which have no threads."""
        key = self._agenda.take(wait=False)
        return key is not None and self.handle(term, key)

    def handle(self, term: Term, key: Key) -> bool:
        """Do what there is to do for a schedule; False if this pod is no longer the active one."""
        id, name = key
        try:
            with bound_contextvars(server=id, schedule=name):
                self._advance(term, id, name)
        except Deposed:
            return False
        except Problem as problem:
            log.warning("schedule %s of server %d is tried again soon: %s", name, id, problem.detail)
            self._agenda.put(key, self._clock() + RETRY, urgent=key in self._active)
        except Exception:
            log.exception("schedule %s of server %d met an error", name, id)
            if (run := self._active.get(key)) is not None and run.ending is None:
                run.ending = ("failed", "The controller met an error; its log has the cause.")
            self._agenda.put(key, self._clock() + LONGEST_RETRY)
        finally:
            self._agenda.done(key)
        return True

    def _advance(self, term: Term, id: int, name: str) -> None:
        objects = self._context.cluster.known(id)
        uid = None if objects is None or objects.statefulset is None else server_uid(objects)
        run = self._active.get((id, name))
        if run is not None and run.uid != uid:
            # The server is gone, and perhaps another has its id.
            del self._active[id, name]
            run = None
        try:
            if run is not None:
                self._go_on(term, run, objects)
            elif objects is not None and uid is not None:
                self._look(term, objects, uid, name)
        except (runs.Gone, ServerNotFound):
            # Interrupted, deleted, or the schedule or the server is another one now.
            self._active.pop((id, name), None)
            self._agenda.put((id, name), self._clock() + RETRY)

    # -- what is due -----------------------------------------------------------------------------------------

    def _look(self, term: Term, objects: Objects, uid: str, name: str) -> None:
        id, now = objects.id, self._clock()
        schedule, run = schedules_of(objects.statefulset).get(name), runs_of(objects.statefulset).get(name)
        ours = run if run is not None and schedule is not None and run.of == schedule.created else None
        # Such a run has begun, but this pod got no answer when it wrote so.
        begun = ours is not None and ours.running and ours.runner == term.holder and ours.step == 0
        if run is not None and run.running and not begun:
            # It is in nobody's hands.
            self._end_broken(term, objects, uid, name, now)
            return
        if schedule is None:
            return
        asked = ours is not None and ours.asked_for
        due = ours.due if ours and (asked or begun) else self._due(objects, schedule, name, ours, now)
        if due is None:
            return
        try:
            if not begun and (passed := self._passed(objects, schedule, ours, due)):
                outcome, reason = passed
                self._pass(term, objects, uid, name, schedule, due, outcome, reason)
                return
            steps = len(schedule.steps)
            self._write(
                term, id, uid, name, lambda run: runs.begun(run, schedule.created, due, term.holder, now, steps)
            )
        except runs.NotDue:
            # The watch has not seen yet that this was dealt with.
            self._agenda.put((id, name), now + RETRY)
            return
        if not (asked or begun):
            metrics.count_schedule_lateness((now - due).total_seconds())
        log.info("schedule %s of server %d begins", name, id)
        deadline = now + timedelta(seconds=schedule.timeout_s)
        active = _Active(id, uid, name, _customer(objects), schedule, due, deadline)
        self._active[active.key] = active
        self._go_on(term, active, objects)

    def _due(self, objects: Objects, schedule: Schedule, name: str, run: Run | None, now: datetime) -> datetime | None:
        """The due time that is to be dealt with now; None if there is none, and then it is looked at when it is due."""
        # Without its StatefulSet a server loses the records of its runs; what was due before is not due again.
        created = created_at(objects.statefulset or {}) or stamp(now)
        since = max(schedule.by.since, datetime.fromisoformat(created))
        after = runs.base(run, schedule.created, since)
        due = schedule.latest_until(objects.id, name, now, after)
        if due is None and (next_run := schedule.next_after(objects.id, name, max(now, after))) is not None:
            self._agenda.put((objects.id, name), next_run)
        return due

    def _passed(self, objects: Objects, schedule: Schedule, run: Run | None, due: datetime) -> tuple[str, str] | None:
        """The outcome and the reason with which a run that is due is passed over; None if it begins."""
        if self._leading_since - due > CATCH_UP:
            return "missed", "No controller was active when it was due, nor within 5 minutes."
        if run is not None and run.finished is not None and run.finished - due > CATCH_UP:
            return "missed", "The run before was still going on, and did not end within 5 minutes."
        spec = spec_of_objects(objects)
        if spec is not None and spec.suspended is not None:
            return "skipped", f"The server is suspended: {spec.suspended.reason}"
        try:
            self._standing().token_of(schedule, _customer(objects), objects.id)
        except SchedulePaused as paused:
            return "skipped", paused.detail
        reason = self._unmet(schedule.only_when, objects)
        return ("skipped", reason) if reason else None

    def _unmet(self, only_when: str | None, objects: Objects) -> str | None:
        """Why the server is not what `only_when` says; None if it is."""
        state = state_of(objects).state
        if only_when is None or only_when == state == "stopped":
            return None
        if state != "running" or only_when == "stopped":
            return f"The server is {state}."
        if only_when == "running":
            return None
        players = self._players(objects)
        if players is None:
            return "Nobody knows whether players are on the server."
        return "Players are on the server." if players else None

    def _pass(
        self,
        term: Term,
        objects: Objects,
        uid: str,
        name: str,
        schedule: Schedule,
        due: datetime,
        outcome: str,
        reason: str,
    ) -> None:
        now = self._clock()
        run = self._write(
            term, objects.id, uid, name, lambda run: runs.passed(run, schedule.created, due, now, outcome, reason)
        )
        self._tell(objects.id, uid, _customer(objects), name, run)
        self._agenda.put((objects.id, name), now)

    def _end_broken(self, term: Term, objects: Objects, uid: str, name: str, now: datetime) -> None:
        """End the run that an earlier controller left unfinished."""
        broken = False

        def transition(run: Run | None) -> Run | None:
            nonlocal broken
            new = runs.interrupted(run, "", now)
            broken = new != run
            return new

        run = self._write(term, objects.id, uid, name, transition)
        if broken:
            self._tell(objects.id, uid, _customer(objects), name, run)
        # If not, the watch has not seen yet that it has ended.
        self._agenda.put((objects.id, name), now if broken else now + RETRY)

    # -- a run -------------------------------------------------------------------------------------------------

    def _go_on(self, term: Term, run: _Active, objects: Objects | None) -> None:
        """Do the steps of the run until it waits or ends."""
        while True:
            now = self._clock()
            if run.ending is None and now >= run.deadline:
                more = f" The last step was hindered: {run.hindrance}" if run.hindrance else ""
                run.ending = ("timed-out", f"It did not end within {run.schedule.timeout_s} seconds.{more}")
            if run.ending is None and run.done == len(run.schedule.steps):
                run.ending = ("succeeded", None)
            if run.ending is not None:
                self._end(term, run, *run.ending)
                return
            if run.resume is not None and now < run.resume:
                if self._undisturbed(term, run, objects):
                    self._agenda.put(run.key, min(run.resume, run.deadline), urgent=True)
                    return
                run.ending = ("aborted", None)
                continue
            if run.resume is not None and run.step.action == "wait":
                run.done, run.began, run.resume = run.done + 1, None, None
                continue
            if run.backup is not None:
                self._look_at_backup(run, run.backup, now)
                continue
            self._do(term, run, now)

    def _undisturbed(self, term: Term, run: _Active, objects: Objects | None) -> bool:
        """Whether a run that waits may go on; False if it was aborted. Raises Gone."""
        record = None if objects is None else runs_of(objects.statefulset).get(run.name)
        if record is not None and record.running and not record.abort and record.due == run.due:
            return True
        # The watch may not have seen yet what this pod has written, so ask the record itself.
        try:
            self._write_step(term, run)
        except runs.Aborted:
            return False
        return True

    def _look_at_backup(self, run: _Active, id: str, now: datetime) -> None:
        """Go on if the backup is done; wait on while it is made. This sends no request."""
        operation = self._context.operations.known(id)
        if operation is None or not operation.ended:
            run.resume = now + BACKUP_LOOK
            return
        run.backup, run.resume = None, None
        if operation.state == "done":
            run.done, run.began, run.hindrance = run.done + 1, None, ""
        else:
            run.ending = ("failed", f"The backup has not been made: {operation.reason or operation.state}")

    def _do(self, term: Term, run: _Active, now: datetime) -> None:
        """Begin the next step and do it, unless it is a wait."""
        run.began, run.resume = run.began or now, None
        try:
            self._write_step(term, run)
        except runs.Aborted:
            run.ending = ("aborted", None)
            return
        if run.step.action == "wait":
            run.resume = now + timedelta(seconds=run.step.seconds)
            return
        try:
            with term.step():
                self._act(run)
        except (OperationInProgress, TooManyOperations, TooManyCommands) as problem:
            # None has done anything.
            run.hindrance = problem.detail
            run.resume = self._clock() + _pause(problem)
        except TooManyBackups as problem:
            # Waiting helps if one is being made, and not if all are locked.
            if "Retry-After" in problem.headers:
                run.hindrance = problem.detail
                run.resume = self._clock() + _pause(problem)
            else:
                run.ending = ("failed", problem.detail)
        except ServerNotFound:
            raise
        except ClusterUnavailable as problem:
            # Nobody knows whether it was done. A restart at the same time is done only once, and so is a backup.
            if run.step.action in ("restart", "backup"):
                run.hindrance = problem.detail
                run.resume = self._clock() + _pause(problem)
            else:
                run.ending = ("failed", f"{problem.detail} Nobody knows whether the step was done.")
        except Problem as problem:
            run.ending = ("failed", problem.detail)
        else:
            if run.backup is None:
                run.done, run.began, run.hindrance = run.done + 1, None, ""

    def _act(self, run: _Active) -> None:
        """Do a step with the rights that the run has now, by the same verb as the API."""
        action, outcome, token = run.step.action, "ok", run.schedule.by.token
        fields = {"command": run.step.text} if run.step.text and self._context.settings.audit_commands else {}
        try:
            caller = self._standing().token_of(run.schedule, run.customer, run.id)
            target = require_server(self._context, caller, run.id, Subject.SERVER)
            if target.uid != run.uid:
                raise ServerNotFound()
            caller.require(ACTIONS[action] or "")
            if action == "backup":
                run.backup = self._back_up(caller, target, run)
            elif action == "start":
                power.start(self._context, caller, target)
            elif action == "command":
                console.output_of(console.send(self._context, caller, target, run.step.text))
            elif action == "stop":
                power.stop(self._context, target)
            else:
                power.restart(self._context, caller, target, run.began)
        except Problem as problem:
            outcome = problem.slug
            raise
        finally:
            logs.audit(
                token=token, action=f"{action}_server", server=run.id, outcome=outcome, schedule=run.name, **fields
            )

    def _back_up(self, caller: Token, target: Target, run: _Active) -> str:
        """Accept the backup of this step; returns the id of its operation, which is the same for each try."""
        key = f"schedule {run.uid} {run.name} {stamp(run.due, micro=True)} {run.done}"
        request = {"name": run.name, "note": "", "locked": False}
        return backups.make(self._context, caller, target, request, key, "schedule").id

    def _end(self, term: Term, run: _Active, outcome: str, reason: str | None) -> None:
        now = self._clock()
        record = self._write(
            term,
            run.id,
            run.uid,
            run.name,
            lambda record: runs.ended(record, run.schedule.created, run.due, term.holder, now, outcome, reason),
        )
        del self._active[run.key]
        log.info("schedule %s of server %d ended: %s", run.name, run.id, outcome)
        self._tell(run.id, run.uid, run.customer, run.name, record)
        self._agenda.put(run.key, now)

    # -- what is written and told --------------------------------------------------------------------------------

    def _write_step(self, term: Term, run: _Active) -> None:
        of, number, action = run.schedule.created, run.done + 1, run.step.action
        self._write(
            term,
            run.id,
            run.uid,
            run.name,
            lambda record: runs.at_step(record, of, run.due, term.holder, number, action),
        )

    def _write(self, term: Term, id: int, uid: str, name: str, transition: runs.Transition) -> Run | None:
        """Change the record of a run; returns it."""
        with term.step():
            text = self._context.cluster.annotate(
                id, uid, SCHEDULE_RUNS, lambda text: runs.changed(text, name, transition)
            )
        return runs.read(text).get(name)

    def _standing(self) -> Standing:
        now, tokens = self._clock(), self._tokens
        if tokens is None or now - tokens[0] > TOKENS_FOR:
            tokens = self._tokens = (now, Standing(self._context))
        return tokens[1]

    def _tell(self, id: int, uid: str, customer: str, name: str, run: Run | None) -> None:
        if run is not None and run.outcome is not None:
            metrics.count_schedule_run(run.outcome)
            if (event := _event(id, uid, customer, name, run)) is not None:
                self._emit(event)

    def _tell_again(self, objects: Objects) -> None:
        uid = server_uid(objects)
        for name, run in runs_of(objects.statefulset).items():
            recent = run.finished is not None and self._leading_since - run.finished < TELL_AGAIN
            if recent and uid and (event := _event(objects.id, uid, _customer(objects), name, run)) is not None:
                self._emit(event)


def _event(id: int, uid: str, customer: str, name: str, run: Run) -> Event | None:
    """The event of a run that failed; None for any other."""
    if run.outcome not in runs.FAILED or run.finished is None:
        return None
    step = {"number": run.step, "of": run.steps, "action": run.action} if run.step else None
    return Event(
        id=event_id(uid, "schedule-failed", name, stamp(run.due, micro=True)),
        type="schedule-failed",
        time=stamp(run.finished),
        server=id,
        uid=uid,
        customer=customer,
        data={
            "schedule": name,
            "due": stamp(run.due),
            "outcome": run.outcome,
            "step": step,
            "reason": run.reason,
        },
    )


def _texts(statefulset: Object | None) -> tuple[str | None, ...]:
    return tuple(annotation(statefulset, name) for name in (SCHEDULES, SCHEDULE_RUNS))


def _customer(objects: Objects) -> str:
    spec = spec_of_objects(objects)
    return spec.customer if spec else ""


def _pause(problem: Problem) -> timedelta:
    seconds = timedelta(seconds=int(problem.headers.get("Retry-After", 0)))
    return min(max(RETRY, seconds), LONGEST_RETRY)
