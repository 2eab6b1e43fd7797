"""Carries out operations on many servers, at the operator's rate.

What has become of each server is in the operation's records before and after its step, so the controller that takes
over goes on where the other one was. A step that was broken off is done again: all actions can be repeated, and a
restart carries the time at which its step began, so that it is done once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from service.access import Subject
from service.controller.leader import Deposed, Term, apart, repeat
from service.controller.marks import mark, unmark
from service.errors import (
    ClusterContended,
    ClusterUnavailable,
    OperationInProgress,
    Problem,
    ServerNotFound,
    TooManyOperations,
)
from service.kube.client import Conflict
from service.kube.times import now, stamp
from service.operations import power
from service.operations.bulk import uid_of
from service.operations.context import Context
from service.operations.operation import ENDED, Operation, OperationStore, Part, Server, progress_of
from service.operations.suspend import suspend, unsuspend
from service.operations.upgrade import upgrade
from service.operations.visibility import Target, require_server
from service.servers.objects import Objects
from service.servers.spec import server_uid
from service.servers.state import state_of
from service.servers.waiting import WaitingOperation, waiting_operation
from service.telemetry import logs, metrics
from service.tokens import Token

log = logging.getLogger(__name__)

KEPT = timedelta(days=1)
"""How long an operation is kept after its end."""
PATIENCE = timedelta(minutes=15)
"""How long a step is tried again while others work on the server, or while it fails unexpectedly."""
LOOK_SECONDS = 10.0
"""How often all servers are looked at that wait for their moment, and the games asked on which nobody has to play."""
ASKED_AT_ONCE = 8
LONGEST_PAUSE = 30.0
OPEN = ("pending", "waiting")
"""Outcomes of servers whose step has not begun."""
TURN_SECONDS, SHOW_SECONDS, CLEAN_SECONDS = 0.5, 1.0, 60.0
LEASE_SECONDS = 5.0
_STRAY = timedelta(hours=1)
_ANNOTATIONS = 20
_WAITS = {"idle": "waits until nobody plays on it", "next-stop": "waits until it is stopped"}
_BUSY = (OperationInProgress, TooManyOperations, ClusterContended)

Idle = Callable[[Objects], bool]
"""Whether surely nobody plays on the running server with these objects."""


class Bulk:
    """The part of the controller.

    Args:
        context: The collaborators of the operations.
        idle: Whether nobody plays on a server. Called from threads; it may ask the game.
    """

    def __init__(self, context: Context, idle: Idle) -> None:
        self._context = context
        self._idle = idle
        self._store = context.operations
        self._wake = threading.Event()
        self._watch = self._store.watch(lambda operation, deleted: self._wake.set())
        self._runs: dict[str, _Run] = {}
        self._every = 60 / context.settings.bulk_per_minute
        self._next = self._moved = time.monotonic()
        # The ids of servers that have changed since the last turn.
        self._changed: set[int] = set()
        self._cleaned = float("-inf")

    def start(self) -> None:
        """Watch the operations."""
        self._watch.start()

    def lead(self, term: Term) -> None:
        """Carry the operations out, and go on with those that another controller has left."""
        self._context.cluster.subscribe(lambda id, kind, before, item, deleted: self._changed.add(id))
        for work in (self._work, self._look):
            threading.Thread(target=work, args=(term,), name="bulk", daemon=True).start()

    def _work(self, term: Term) -> None:
        with ThreadPoolExecutor(self._context.settings.bulk_at_once, "bulk") as pool:

            def turn() -> None:
                self._wake.clear()
                waits_for_rate = self.turn(term, pool)
                until_next = max(0.0, self._next - time.monotonic()) if waits_for_rate else TURN_SECONDS
                self._wake.wait(min(TURN_SECONDS, until_next))

            repeat(turn, "operations")

    def _look(self, term: Term) -> None:
        """Look again and again which servers have no players."""
        with ThreadPoolExecutor(ASKED_AT_ONCE, "bulk idle") as pool:

            def look() -> None:
                term.sleep(LOOK_SECONDS)
                self.look(pool)

            repeat(look, "operations")

    # -- one turn ------------------------------------------------------------------------------------------

    def turn(self, term: Term, pool: Executor) -> bool:
        """Look at all operations, and begin the steps that the rate allows; returns whether one waits for the rate."""
        with term.step():
            self._adopt(term)
        changed = {self._changed.pop() for _ in range(len(self._changed))}
        for run in list(self._runs.values()):
            with apart(f"operation {run.operation.id}"), term.step():
                if run.cancelling:
                    self._cancel(run)
                elif run.operation.when != "now":
                    self._wait_for_moments(run, changed)
        while (chosen := self._choose()) is not None and self._next <= time.monotonic():
            run, server = chosen
            term.require()
            self._next = max(self._next, time.monotonic()) + self._every
            self._moved = time.monotonic()
            run.busy.add(server.id)
            pool.submit(self._step, term, run, server)
        for run in list(self._runs.values()):
            with apart(f"operation {run.operation.id}"), term.step():
                self._show(run)
        if time.monotonic() - self._cleaned > CLEAN_SECONDS:
            with term.step():
                self._clean()
            self._cleaned = time.monotonic()
        self._measure()
        return chosen is not None

    def _adopt(self, term: Term) -> None:
        """Go on with operations that are new here."""
        for known in self._watch.all():
            if known.target is not None:
                # Those with one server's world are carried out by `worlds.py`.
                continue
            if known.id in self._runs:
                self._runs[known.id].cancelling |= known.cancelling
                continue
            if known.ended:
                continue
            with apart(f"operation {known.id}"):
                if (operation := self._store.get(known.id)) is not None and not operation.ended:
                    self._runs[operation.id] = _Run(self._store, operation, term.require)

    def _cancel(self, run: _Run) -> None:
        """Cancel the servers whose step has not begun, some at a time because their annotations go first."""
        left = [server for server in run.resting() if server.outcome in OPEN]
        waiting = [server for server in left if server.outcome == "waiting"][:_ANNOTATIONS]
        for server in waiting:
            unmark(self._context, server, run.operation.id)
        pending = [server for server in left if server.outcome == "pending"]
        run.note([replace(server, outcome="cancelled") for server in waiting + pending])

    def _wait_for_moments(self, run: _Run, changed: set[int]) -> None:
        """Look which servers do not run, and let the others wait, with an annotation that says so.

        Args:
            run: The operation.
            changed: The ids of servers that have changed. The others are looked at only now and then: each look has its
                cost, and there may be thousands.
        """
        all_of_them = time.monotonic() - run.looked_at >= LOOK_SECONDS
        waits = WaitingOperation(run.operation.id, run.operation.action, _WAITS[run.operation.when])
        waiting, unmarked = [], []
        for server in run.unready():
            if not all_of_them and server.id not in changed:
                continue
            objects = self._known(server)
            if objects is None or state_of(objects).state == "stopped":
                run.ready.add(server.id)
                continue
            if server.outcome == "pending":
                waiting.append(replace(server, outcome="waiting"))
            if waiting_operation(objects) is None:
                unmarked.append(server)
        run.note(waiting)
        for server in unmarked[:_ANNOTATIONS]:
            mark(self._context, server, waits)
        if all_of_them and len(unmarked) <= _ANNOTATIONS:
            run.looked_at = time.monotonic()

    def look(self, pool: Executor) -> None:
        """Ask the games of the servers that wait until nobody plays on them."""
        asked = [
            (run, server, pool.submit(self._is_idle, run, objects))
            for run in list(self._runs.values())
            if run.operation.when == "idle" and not run.cancelling
            for server in run.unready()
            if (objects := self._known(server)) is not None
        ]
        for run, server, idle in asked:
            if idle.result():
                run.ready.add(server.id)
        self._wake.set()

    def _is_idle(self, run: _Run, objects: Objects) -> bool:
        """Whether surely nobody plays on the server. An error of one game does not affect the others."""
        with apart(f"operation {run.operation.id}: the question who plays on server {objects.id}"):
            return self._idle(objects)
        return False

    def _known(self, server: Server) -> Objects | None:
        """The server from memory; None if it is gone."""
        objects = self._context.cluster.known(server.id)
        return objects if objects is not None and server_uid(objects) == server.uid else None

    def _choose(self) -> tuple[_Run, Server] | None:
        """The next server to work on, of each operation in turn; None if there is none."""
        if sum(len(run.busy) for run in self._runs.values()) >= self._context.settings.bulk_at_once:
            return None
        for run in sorted(self._runs.values(), key=lambda run: run.chosen_at):
            server = run.next()
            if server is not None:
                run.chosen_at = time.monotonic()
                return run, server
        return None

    # -- one step ------------------------------------------------------------------------------------------

    def _step(self, term: Term, run: _Run, server: Server) -> None:
        """Do what the operation asks for with one server, and note the outcome."""
        try:
            with term.step():
                self._act(run, server)
        except Deposed:
            pass
        except Problem as problem:
            # Kubernetes is away, or others work on the server: it is tried again.
            run.retry(server.id)
            log.info("operation %s: server %d waits: %s", run.operation.id, server.id, problem.detail)
        except Exception:
            run.retry(server.id)
            log.exception("operation %s: server %d failed unexpectedly", run.operation.id, server.id)
        finally:
            run.busy.discard(server.id)
            self._moved = time.monotonic()
            self._wake.set()

    def _act(self, run: _Run, server: Server) -> None:
        operation = run.operation
        if operation.when == "idle" and server.outcome in OPEN and not self._still_idle(server):
            run.ready.discard(server.id)
            return
        resumed = server.outcome == "running"
        server = replace(server, outcome="running", reason=None, at=server.at or now())
        run.note([server])
        try:
            outcome, reason = self._perform(operation, server), None
        except ServerNotFound:
            outcome, reason = "gone", None
        except _BUSY as problem:
            if datetime.now(UTC) - _time(server.at) < PATIENCE:
                idle = operation.when == "idle"
                if not isinstance(problem, ClusterContended) and (idle or not resumed):
                    # Nothing was done, so it can still be cancelled.
                    if idle:
                        # People may play when it is tried again: the game is asked once more.
                        run.ready.discard(server.id)
                    run.note([replace(server, outcome="pending" if operation.when == "now" else "waiting")])
                raise
            outcome, reason = "failed", problem.detail
        except ClusterUnavailable:
            raise
        except Deposed:
            raise
        except Problem as problem:
            outcome, reason = "failed", problem.detail
        except Exception as error:
            if datetime.now(UTC) - _time(server.at) < PATIENCE:
                raise
            log.exception("operation %s: server %d is given up", operation.id, server.id)
            outcome, reason = "failed", f"An unexpected error: {type(error).__name__}."
        if outcome == "unchanged" and resumed:
            # It was done before the controller changed, or by a try that it heard no answer of.
            outcome = "done"
        if operation.when != "now":
            unmark(self._context, server, operation.id)
        run.note([replace(server, outcome=outcome, reason=reason)])
        metrics.count_bulk_step(operation.action, outcome)
        audited = "ok" if outcome in ("done", "unchanged") else outcome
        logs.audit(
            token=operation.maker.name,
            action=f"{operation.action}_server",
            server=server.id,
            outcome=audited,
            operation=operation.id,
        )

    def _perform(self, operation: Operation, server: Server) -> str:
        """Call the verb; returns `done`, `unchanged` or `gone`."""
        context, maker = self._context, operation.maker
        with context.releases.locked(server.id, LEASE_SECONDS):
            target = require_server(context, maker, server.id, Subject.SERVER)
            if uid_of(context, target.objects) != server.uid:
                return "gone"
            changed = _do(context, maker, target, operation, _time(server.at))
        return "done" if changed else "unchanged"

    def _still_idle(self, server: Server) -> bool:
        objects = self._known(server)
        return objects is None or state_of(objects).state == "stopped" or self._idle(objects)

    # -- what others see -----------------------------------------------------------------------------------

    def _show(self, run: _Run) -> None:
        """Write how far the operation is, and its end."""
        servers = list(run.servers())
        ended = all(server.outcome in ENDED for server in servers) and not run.busy
        if not ended and time.monotonic() - run.shown_at < SHOW_SECONDS:
            return
        shown = _current(run.operation, servers, ended)
        if shown != run.operation:
            run.show(shown)
        run.shown_at = time.monotonic()
        if ended:
            del self._runs[run.operation.id]

    def _clean(self) -> None:
        """Delete operations that ended a day ago, and what a broken-off call or a person has left."""
        operations = self._store.all()
        before = stamp(datetime.now(UTC) - KEPT)
        for operation in operations:
            if operation.ended and (operation.finished or operation.created) < before:
                with suppress(Conflict):
                    self._store.delete(operation)
        self._store.delete_strays(operations, stamp(datetime.now(UTC) - _STRAY))
        running = {operation.id for operation in operations if not operation.ended}
        for objects in self._context.cluster.known_servers():
            if (waits := waiting_operation(objects)) and waits.id not in running:
                with apart(f"server {objects.id}"):
                    unmark(self._context, Server(objects.id, server_uid(objects) or "", ""), waits.id)

    def _measure(self) -> None:
        count = Counter(server.outcome for run in self._runs.values() for server in run.servers())
        due = any(run.next() for run in self._runs.values())
        metrics.show_bulk(
            {outcome: count[outcome] for outcome in (*OPEN, "running")}, time.monotonic() - self._moved if due else 0.0
        )


class _Run:
    """An operation that is being carried out: its servers in memory, as the records have them. Thread-safe.

    Args:
        store: The operations.
        operation: The operation.
        require: Raises Deposed if this pod is no longer the active one.

    Attributes:
        operation: The operation, as its record has it.
        cancelling: Whether somebody has asked to cancel it.
        busy: The ids of the servers whose step is running.
        ready: The ids of the servers whose moment has come.
    """

    def __init__(self, store: OperationStore, operation: Operation, require: Callable[[], None]) -> None:
        self.operation = operation
        self.cancelling = operation.cancelling
        self.busy: set[int] = set()
        self.ready: set[int] = set()
        self.shown_at = self.chosen_at = self.looked_at = float("-inf")
        self._store = store
        self._require = require
        self._lock = threading.Lock()
        self._parts = {part.record.name: part for part in store.parts(operation)}
        self._part_of = {server.id: name for name, part in self._parts.items() for server in part.servers}
        self._not_before: dict[int, float] = {}
        self._tries: Counter[int] = Counter()

    def servers(self) -> Iterator[Server]:
        """All servers."""
        return (server for part in list(self._parts.values()) for server in part.servers)

    def resting(self) -> Iterator[Server]:
        """The servers whose step is not running. Those whose step ends meanwhile are left out: their outcome is old."""
        busy = set(self.busy)
        return (server for server in self.servers() if server.id not in busy)

    def unready(self) -> list[Server]:
        """The servers whose moment has not come."""
        return [server for server in self.servers() if server.outcome in OPEN and server.id not in self.ready]

    def next(self) -> Server | None:
        """A server whose step may begin now."""
        now = time.monotonic()
        for server in self.resting():
            begins = server.outcome in OPEN and not self.cancelling and self._moment_has_come(server)
            if (begins or server.outcome == "running") and self._not_before.get(server.id, now) <= now:
                return server
        return None

    def _moment_has_come(self, server: Server) -> bool:
        return self.operation.when == "now" or server.id in self.ready

    def retry(self, id: int) -> None:
        """Begin the server's step again after a moment, which grows."""
        self._tries[id] += 1
        self._not_before[id] = time.monotonic() + min(LONGEST_PAUSE, 2.0 ** min(self._tries[id], 10))

    def note(self, servers: Iterable[Server]) -> None:
        """Write what has become of these servers."""
        by_part: dict[str, list[Server]] = {}
        for server in servers:
            by_part.setdefault(self._part_of[server.id], []).append(server)
        with self._lock:
            for name, some in by_part.items():
                self._parts[name] = self._noted(self._parts[name], some)

    def _noted(self, part: Part, servers: list[Server]) -> Part:
        try:
            return self._store.note(part, servers)
        except Conflict:
            # The answer to an earlier write was lost; or this pod has been frozen, and another one writes here.
            self._require()
            current = self._store.refresh(part)
            return part if current is None else self._store.note(current, servers)

    def show(self, shown: Operation) -> None:
        """Write how far the operation is."""
        self.operation = self._store.show(shown, self._require)


def _do(context: Context, maker: Token, target: Target, operation: Operation, at: datetime) -> bool:
    """Call the verb of the operation's action; returns whether it has changed anything."""
    if operation.action == "restart":
        return power.restart(context, maker, target, at)
    if operation.action == "suspend":
        return suspend(context, target, operation.argument or "")
    if operation.action == "unsuspend":
        return unsuspend(context, target)
    if operation.action == "upgrade":
        return upgrade(context, maker, target)
    return power.stop(context, target) if operation.action == "stop" else power.start(context, maker, target)


def _current(operation: Operation, servers: list[Server], ended: bool) -> Operation:
    """The operation as it is now, by its servers."""
    progress = progress_of(servers)
    current = replace(operation, progress=progress)
    if not ended:
        left = len([server for server in servers if server.outcome not in ENDED])
        waiting = f", {progress.waiting} of them waiting" if progress.waiting else ""
        return replace(current, state="running", step=f"{left} of {progress.total} servers left{waiting}")
    cancelled = any(server.outcome == "cancelled" for server in servers)
    state = "cancelled" if cancelled else "failed" if progress.failed else "done"
    reason = f"{progress.failed} of {progress.total} servers failed." if progress.failed else None
    return replace(current, state=state, step=None, reason=reason, finished=now())


def _time(text: str | None) -> datetime:
    return datetime.fromisoformat(text or now())
