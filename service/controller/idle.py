"""Idle stop: asks the games how many players are on them, and stops servers on which nobody plays.

Every half minute, each running server with the option is asked. Servers whose games did not answer last time are asked
by threads of their own, so that a slow or hostile game delays no other. What follows for a server is in its annotation
`gameserver/idle`, which is written only when it changes. So the time of the last answer is not in it; the record
`idle-asked` has that, for all servers at once, for the controller that takes over.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial

from structlog.contextvars import bound_contextvars

from service.controller.leader import Deposed, Term
from service.errors import Problem, ServerNotFound
from service.kube.client import Conflict
from service.kube.times import stamp
from service.operations.context import Context
from service.operations.idle import can_be_asked, stop_idle
from service.operations.schedules import Standing
from service.operations.visibility import Target
from service.players.query import Unknown
from service.schedules import runs
from service.schedules.spec import Schedule, next_due
from service.servers.accessors import annotation, uid
from service.servers.idle import Answers, Outlook, Pace, answers_of, heard, outlook, outlook_of, running_since
from service.servers.names import IDLE, SCHEDULE_RUNS, SCHEDULES
from service.servers.objects import Objects
from service.servers.spec import ServerSpec, server_uid, spec_of_objects
from service.servers.state import state_of
from service.telemetry import logs, metrics

log = logging.getLogger(__name__)

AT_ONCE = 8
"""How many games are asked at once, of those that answered last time and of those that did not."""
STOPS_AT_ONCE = 4
RECORD = "asked"
ACTOR = "(idle stop)"
"""Who stops servers, in the audit log. No token can have this name."""

Due = tuple[int, str, datetime]
"""A server that is due to be stopped: its id, its uid, and when it is asked for the last time."""


class IdleStop:
    """The part of the controller.

    Args:
        context: The collaborators of the operations.
        clock: Returns the current time.

    Attributes:
        counts: Counts the players of servers.
        due: The servers to stop, each with the time of its last question.
    """

    def __init__(self, context: Context, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._context = context
        self._clock = clock
        self._pace = Pace(timedelta(seconds=context.settings.idle_minute_seconds))
        self.counts = context.counts
        self._records = context.records("idle")
        self._lock = threading.Lock()
        self._answers: dict[int, Answers] = {}
        # Who did not answer last time.
        self._silent: set[int] = set()
        # When a server answered last whose annotation says how many players are on it.
        self._shown: dict[int, datetime] = {}
        self._numbers_written: dict[int, datetime] = {}
        self.due: queue.SimpleQueue[Due] = queue.SimpleQueue()
        self._stopping: set[int] = set()
        # The tokens that schedules stand under; None before they could be read, and then every schedule counts.
        self._standing: Standing | None = None

    def start(self) -> None:
        """Nothing: the watches of the cluster are enough."""

    def lead(self, term: Term) -> None:
        """Start the threads."""
        for work in (self._run, *[self._stop_due] * STOPS_AT_ONCE):
            threading.Thread(target=work, args=(term,), name="idle", daemon=True).start()

    # -- asking --------------------------------------------------------------------------------------------

    def _run(self, term: Term) -> None:
        try:
            asked = self._last_asked(term)
            second = threading.Thread(target=self._lane, args=(term, True, asked), name="idle silent", daemon=True)
            second.start()
            self._lane(term, False, asked)
        except Deposed:
            pass

    def _lane(self, term: Term, silent: bool, asked: datetime | None) -> None:
        """One round after the other."""
        with ThreadPoolExecutor(AT_ONCE, "idle") as pool:
            while True:
                began = self._clock()
                try:
                    self.round(term, pool, silent=silent, asked=asked)
                except Deposed:
                    return
                except Problem as problem:
                    log.debug("no players are counted: %s", problem.detail)
                except Exception:
                    log.exception("counting players failed; it goes on")
                try:
                    term.sleep(max(0.0, (began + self._pace.ask - self._clock()).total_seconds()))
                except Deposed:
                    return

    def round(self, term: Term, pool: Executor, *, silent: bool, asked: datetime | None) -> None:
        """Ask the servers that were silent last time, or those that were not, once.

        Args:
            term: The term of this controller.
            pool: Runs as many questions at once as it has threads.
            silent: Which servers.
            asked: When the controller before this one asked last; None if unknown.
        """
        self._read_standing()
        known = list(self._context.cluster.known_servers())
        servers = [each for each in known if each.statefulset is not None and (each.id in self._silent) == silent]
        list(pool.map(lambda objects: self._look(term, objects, asked), servers))
        if not silent:
            self._forget({objects.id for objects in known})
            self._write_asked(term)

    def _look(self, term: Term, objects: Objects, asked: datetime | None) -> None:
        """Ask one server, and write what follows."""
        term.require()
        with bound_contextvars(server=objects.id):
            try:
                found, due = self._ask(objects, asked)
                self._write(term, objects, found)
                if due:
                    self._queue(objects)
            except ServerNotFound:
                pass
            except Problem as problem:
                log.warning("what idle stop makes of the server could not be written: %s", problem.detail)
                # The annotation is still from the other controller's answers.
                if asked is not None:
                    with self._lock:
                        self._shown.setdefault(objects.id, asked)
            except Deposed:
                raise
            except Exception:
                log.exception("counting the players of the server failed; the others' are counted")

    def _ask(self, objects: Objects, asked: datetime | None = None) -> tuple[Outlook | None, bool]:
        """Ask the server's game.

        Args:
            objects: The server's objects.
            asked: When another controller asked last; what it has written goes on.

        Returns:
            What follows; None if nothing is asked, because the server does not run, has no idle stop, or its game
            cannot be asked. And whether it is due to be stopped, which it is only if the game has answered just now.
        """
        id, spec, pod, since = objects.id, spec_of_objects(objects), uid(objects.pod), running_since(state_of(objects))
        if not _is_asked(self._context, spec) or spec is None or pod is None or since is None:
            with self._lock:
                self._answers.pop(id, None)
                self._silent.discard(id)
            return None, False
        players: int | None = None
        try:
            players = self.counts.on(objects)
        except Unknown as unknown:
            log.debug("the players of the server are unknown: %s", unknown)
        metrics.count_players_asked(known=players is not None)
        with self._lock:
            (self._silent.add if players is None else self._silent.discard)(id)
            now, answers = self._clock(), self._answers.get(id)
            if answers is None and asked is not None:
                answers = answers_of(outlook_of(objects), asked)
            if players is not None:
                answers = heard(answers, pod, players, now, self._pace)
            if answers is not None:
                self._answers[id] = answers
        schedules = partial(_next_due, objects, spec, self._standing)
        found = outlook(spec.idle_stop_minutes, pod, since, answers, now, self._pace, schedules)
        return found, players is not None and found.due(now)

    def _write(self, term: Term, objects: Objects, found: Outlook | None) -> None:
        """Write the outlook to the server's annotation, if it is news."""
        id, server, now = objects.id, server_uid(objects), self._clock()
        written = annotation(objects.statefulset, IDLE)
        if found is not None:
            news = written != found.as_text() and (
                found.differs(outlook_of(objects))
                or now - self._numbers_written.get(id, datetime.min.replace(tzinfo=UTC)) >= self._pace.numbers
            )
        else:
            # A server that does not run keeps it: it names a pod that is gone, so nobody reads it.
            news = written is not None and not _is_asked(self._context, spec_of_objects(objects))
        if news and server is not None:
            text = None if found is None else found.as_text()
            with term.step():
                self._context.cluster.annotate(id, server, IDLE, lambda _: text)
            with self._lock:
                self._numbers_written[id] = now
        with self._lock:
            answers = self._answers.get(id)
            if found is not None and found.players is not None and answers is not None:
                self._shown[id] = answers.asked
            else:
                self._shown.pop(id, None)

    def _forget(self, ids: set[int]) -> None:
        """Forget servers that are gone."""
        with self._lock:
            for known in (self._answers, self._shown, self._numbers_written):
                for id in known.keys() - ids:
                    known.pop(id, None)
            self._silent &= ids

    def _read_standing(self) -> None:
        try:
            self._standing = Standing(self._context)
        except Problem as problem:
            log.debug("the tokens of the schedules are those of the round before: %s", problem.detail)

    # -- the time of the last answers ----------------------------------------------------------------------

    def _last_asked(self, term: Term) -> datetime | None:
        """When all servers had been asked whose annotations say how many players are on them; None if unknown."""
        while True:
            try:
                record = self._records.get(RECORD)
                return datetime.fromisoformat(record.data["at"]) if record else None
            except Problem as problem:
                log.debug("the time of the last answers is not known yet: %s", problem.detail)
                term.sleep(1)
            except (KeyError, ValueError):
                return None

    def _write_asked(self, term: Term) -> None:
        with self._lock:
            text = stamp(min(self._shown.values(), default=self._clock()), micro=True)
        try:
            with term.step():
                record = self._records.get(RECORD)
                if record is None:
                    self._records.create(RECORD, {"at": text})
                else:
                    self._records.change(record, {"at": text})
        except (Conflict, Problem) as error:
            log.warning("the time of the last answers could not be written: %s", error)

    # -- stopping ------------------------------------------------------------------------------------------

    def _queue(self, objects: Objects) -> None:
        server = server_uid(objects)
        with self._lock:
            if server is None or objects.id in self._stopping:
                return
            self._stopping.add(objects.id)
        self.due.put((objects.id, server, self._clock() + self._pace.confirm))

    def _stop_due(self, term: Term) -> None:
        try:
            while True:
                id, server, when = self.due.get()
                term.sleep(max(0.0, (when - self._clock()).total_seconds()))
                self.stop(term, id, server)
        except Deposed:
            pass

    def stop(self, term: Term, id: int, uid: str) -> None:
        """Ask the server once more, under its Lease, and stop it if still nobody plays and it has still this uid."""
        with bound_contextvars(server=id), term.step():
            try:
                if stop_idle(self._context, id, uid, lambda objects: self._ask(objects)[1], self._clock()):
                    metrics.count_idle_stop("success")
                    logs.audit(token=ACTOR, action="idle_stop", server=id, outcome="ok")
            except ServerNotFound:
                pass
            except Problem as problem:
                metrics.count_idle_stop(problem.slug)
                log.warning("the server could not be stopped: %s", problem.detail)
            except Exception:
                log.exception("the server could not be stopped")
            finally:
                self._stopping.discard(id)


def _is_asked(context: Context, spec: ServerSpec | None) -> bool:
    """Whether the server is asked while it runs."""
    return spec is not None and spec.idle_stop_minutes > 0 and can_be_asked(context, spec)


def _next_due(objects: Objects, spec: ServerSpec, standing: Standing | None, moment: datetime) -> datetime | None:
    """When a schedule of the server is due first after a time; of a run that has not ended, when that was due.

    A paused schedule does nothing when it is due, so it does not count.
    """
    target = Target(objects.id, objects, spec)

    def counts(schedule: Schedule) -> bool:
        return standing is None or standing.pause_of(schedule, target) is None

    unfinished = runs.read(annotation(objects.statefulset, SCHEDULE_RUNS)).values()
    running = min((run.due for run in unfinished if run.running), default=None)
    return running or next_due(annotation(objects.statefulset, SCHEDULES), objects.id, moment, counts)
