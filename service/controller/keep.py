"""Keeps backups: lets old ones go, prunes and checks the repositories, proves one backup of each server now and then.

It also removes worlds of before that are not kept any longer, and everything of a server that was deleted long ago.
What it does with a Job stands in the server's record before it begins (`backups/tasks.py`).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Protocol

from structlog.contextvars import bound_contextvars

from service.backups import tasks
from service.backups.jobs import JobSpec, JobState
from service.backups.records import ID as BACKUP_ID
from service.backups.records import ServerBackups
from service.backups.requests import Disk, disk_of, job_for_clean, job_for_forget, job_for_init, job_for_proof
from service.backups.retention import Rules, makes_room, rules
from service.backups.snapshots import SnapshotState
from service.backups.tasks import CLEAN, ERASE, FORGET, INIT, PROVE, Task, task_of
from service.controller.agenda import Agenda
from service.controller.backup_events import event_of, events_of
from service.controller.backup_figures import BackupFigures, figures
from service.controller.leader import Deposed, Term
from service.errors import Problem, ServerNotFound
from service.events.event import Event
from service.kube.times import stamp
from service.kube.types import Object
from service.operations.backups import STRAY, settled
from service.operations.context import Context
from service.operations.operation import RESTORES, Operation
from service.operations.worlds import servers_of
from service.servers.accessors import annotation
from service.servers.disks import volume_of
from service.servers.names import REUSED_SINCE
from service.servers.objects import Objects
from service.servers.spec import server_uid, spec_of_objects, uid_of_claim, uid_of_values
from service.telemetry import metrics

log = logging.getLogger(__name__)

WORKERS = 2
PLACES = {FORGET: 3, ERASE: 3, CLEAN: 3, INIT: 3, PROVE: 1}
"""How many Jobs of a kind there may be at once; those that are no proofs share theirs."""
LOOK = timedelta(hours=1)
"""How often each server's backups are looked at, besides when something has changed."""
POLL = timedelta(seconds=2)
SOON = timedelta(seconds=1)
NO_PLACE = timedelta(seconds=5)
PAUSE, LONGEST_PAUSE = timedelta(minutes=5), timedelta(hours=6)
"""When something is tried again that could not be done, such as while the store is away; it grows."""
TELL_AGAIN = timedelta(minutes=10)
"""The events of this time are told again when a pod becomes active: the one before may not have written them."""
MOST_TOLD = 10_000
AT_WORK = ("backup", *RESTORES)
"""Operations during which nothing is done for the same server."""


class Jobs(Protocol):
    """What is needed of `backups/runner.py`."""

    def key(self, uid: str) -> str: ...
    def run(self, spec: JobSpec) -> JobState: ...
    def remove(self, spec: JobSpec) -> bool: ...
    def remove_all(self, operation: str) -> bool: ...
    def forget_key(self, uid: str) -> None: ...


class Snapshots(Protocol):
    """What is needed of `backups/snapshots.py`."""

    def look(self, name: str) -> SnapshotState: ...
    def remove(self, name: str) -> bool: ...


class Keep:
    """The part of the controller.

    Args:
        context: The collaborators of the operations.
        jobs: Runs the Jobs.
        snapshots: Deletes VolumeSnapshots.
        tell: Tells an event; see `controller/events.py`.
        clock: Returns the current time.
    """

    def __init__(
        self,
        context: Context,
        jobs: Jobs,
        snapshots: Snapshots,
        tell: Callable[[Event], None],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._context = context
        self._settings = context.settings
        self._has_store = context.settings.backup_store is not None
        self._backups = context.backups
        self._jobs = jobs
        self._snapshots = snapshots
        self._tell_event = tell
        self._clock = clock
        self.agenda: Agenda[str] = Agenda(clock)
        self._watch = self._backups.watch(self._changed)
        self._operations = context.operations.watch(self._operation_changed)
        self._lock = threading.Lock()
        # The uids of the servers that each unfinished operation is at work with.
        self._at_work_with: dict[str, set[str]] = {}
        # The task of each server that has a place here.
        self._active: dict[str, Task] = {}
        self._ended: set[str] = set()
        # When a server's tasks are tried again, and how often they could not be done.
        self._later: dict[str, tuple[datetime, int]] = {}
        # The unfinished backups of each server, and since when they are the same.
        self._unfinished: dict[str, tuple[frozenset[str], datetime]] = {}
        # The deleted servers of which it was said that their backups wait for the store.
        self._unerased: set[str] = set()
        self._leads_since = ""
        # The ids of events in the order in which they were told.
        self._told: dict[str, None] = {}

    def start(self) -> None:
        """Watch what is kept, and the operations."""
        self._context.cluster.subscribe(self._server_changed)
        self._watch.start()
        self._operations.start()

    def lead(self, term: Term) -> None:
        """Start the threads, and tell the latest events again."""
        self._leads_since = stamp(self._clock())
        for kept in self.kept():
            self._tell(events_of(kept, self._tell_since()))
        for operation in self._operations.all():
            self._tell_operation(operation)
        metrics.show_backups(self._figures)
        for _ in range(WORKERS):
            threading.Thread(target=self._work, args=(term,), name="keep", daemon=True).start()

    def kept(self) -> list[ServerBackups]:
        """What is kept of all servers, some moments old."""
        return self._watch.all()

    def _figures(self) -> BackupFigures:
        return figures(self.kept(), self._context.cluster.known_servers(), self._settings, self._clock())

    def _changed(self, kept: ServerBackups, deleted: bool) -> None:
        if deleted:
            with self._lock:
                self._later.pop(kept.uid, None)
                self._unfinished.pop(kept.uid, None)
                self._unerased.discard(kept.uid)
        self.agenda.put(kept.uid, self._clock())
        self._tell(() if deleted else events_of(kept, self._tell_since()))

    def _operation_changed(self, operation: Operation, deleted: bool) -> None:
        self._tell_operation(operation)
        if operation.target is None or operation.action not in AT_WORK:
            return
        uids = servers_of(operation)
        ended = operation.ended or deleted
        with self._lock:
            if ended:
                self._at_work_with.pop(operation.id, None)
            else:
                self._at_work_with[operation.id] = uids
        for uid in uids if ended else ():
            self.agenda.put(uid, self._clock())

    def _server_changed(self, id: int, kind: str, before: Object | None, now: Object, deleted: bool) -> None:
        """Look soon at the backups of a server that may be gone, or its disk."""
        if deleted and kind in ("statefulset", "release", "claim"):
            for kept in self.kept():
                if kept.id == id:
                    self.agenda.put(kept.uid, self._clock() + SOON)

    # -- events --------------------------------------------------------------------------------------------

    def _tell_since(self) -> str:
        return stamp(self._clock() - TELL_AGAIN)

    def _tell_operation(self, operation: Operation) -> None:
        event = event_of(operation)
        if event is not None and event.time >= self._tell_since():
            self._tell([event])

    def _tell(self, events: Iterable[Event]) -> None:
        """Tell events that this pod has not told yet, if it is the active one."""
        if not self._leads_since:
            return
        for event in events:
            with self._lock:
                if event.id in self._told:
                    continue
                self._told[event.id] = None
                if len(self._told) > MOST_TOLD:
                    del self._told[next(iter(self._told))]
            self._tell_event(event)
            if event.time >= self._leads_since:
                metrics.count_backup_event(event.type)

    # -- the workers ---------------------------------------------------------------------------------------

    def _work(self, term: Term) -> None:
        while True:
            uid = self.agenda.take()
            if uid is not None and not self.handle(term, uid):
                return

    def turn(self, term: Term) -> bool:
        """Look at one server that is due; False if there is none. For tests, which have no threads."""
        uid = self.agenda.take(wait=False)
        return uid is not None and self.handle(term, uid)

    def handle(self, term: Term, uid: str) -> bool:
        """Look at the backups of a server; False if this pod is no longer the active one."""
        after = PAUSE
        try:
            kept = self._watch.of(uid)
            if kept is None:
                after = timedelta.max
                self._release(uid)
            else:
                with bound_contextvars(server=kept.id):
                    after = self._look(term, kept)
        except Deposed:
            return False
        except Problem as problem:
            log.warning("the backups of server %s are looked at again soon: %s", uid, problem.detail)
            after = POLL
        except Exception:
            log.exception("the backups of server %s could not be looked at", uid)
        finally:
            if after < timedelta.max:
                self.agenda.put(uid, self._clock() + after)
            self.agenda.done(uid)
        return True

    def _look(self, term: Term, kept: ServerBackups) -> timedelta:
        """Do what there is to do for a server; returns when to look again."""
        task = task_of(kept.repository)
        if task is not None:
            # The watch may not have seen yet that it has ended.
            return SOON if task.name in self._ended else self._go_on(term, kept, task)
        objects = self._objects(kept)
        if self._note_deletion(term, kept, objects):
            return SOON
        self._remove_snapshots(term, kept)
        if self._at_work(kept):
            self._settle(term, kept)
            self._make_room(term, kept, objects)
            return POLL if any(each.where == "node" for each in kept.backups) else LOOK
        if tasks.is_over(kept, self._settings, self._clock()) and not (kept.repository.made and self._has_store):
            return self._end(term, kept)
        self._forget_befores(term, kept)
        return self._begin(term, kept, objects)

    # -- what is to be done --------------------------------------------------------------------------------

    def _begin(self, term: Term, kept: ServerBackups, objects: Objects | None) -> timedelta:
        """Mark the backups that go, and record the task that is due, if there is a place for it."""
        now = self._clock()
        due, _ = self._later.get(kept.uid, (now, 0))
        decided = self._decided(kept, objects, now)
        task = task_of(decided.repository)
        has_place = task is not None and due <= now and self._take_place(kept.uid, task)
        if task is not None and not has_place:
            decided = tasks.with_task(decided, None)
        if decided != kept:
            self._write(term, kept.uid, lambda fresh: self._decided_again(fresh, objects, now, has_place))
        if has_place:
            return SOON
        return LOOK if task is None else max(NO_PLACE, due - now)

    def _decided_again(self, kept: ServerBackups, objects: Objects | None, now: datetime, place: bool) -> ServerBackups:
        if any(backup.unfinished for backup in kept.backups) or task_of(kept.repository) is not None:
            return kept
        decided = self._decided(kept, objects, now)
        return decided if place else tasks.with_task(decided, None)

    def _decided(self, kept: ServerBackups, objects: Objects | None, now: datetime) -> ServerBackups:
        kept = tasks.with_going(kept, None if kept.deleted else self._rules(objects), now)
        left = tuple(
            each for each in kept.befores if each.where != "backup" or not tasks.is_old(each.at, self._settings, now)
        )
        kept = replace(kept, befores=left)
        if objects is None:
            disk = self._is_reused(kept, self._context.cluster.server(kept.id))
        else:
            disk = bool(volume_of(objects.claim))
        return tasks.with_task(kept, tasks.next_task(kept, self._settings, now, disk=disk))

    def _rules(self, objects: Objects | None) -> Rules | None:
        """The server's rules; None while they are unknown: it has no StatefulSet, or none whose spec can be read."""
        spec = None if objects is None else spec_of_objects(objects)
        return None if spec is None else rules(self._settings, spec.backup_keep)

    def _take_place(self, uid: str, task: Task) -> bool:
        with self._lock:
            proof = task.kind == PROVE
            taken = sum((each.kind == PROVE) == proof for each in self._active.values())
            if taken >= PLACES[task.kind]:
                return False
            self._active[uid] = task
            return True

    def _release(self, uid: str) -> None:
        with self._lock:
            self._active.pop(uid, None)

    # -- a task --------------------------------------------------------------------------------------------

    def _go_on(self, term: Term, kept: ServerBackups, task: Task) -> timedelta:
        """Run the task's Job, and record what it has answered."""
        if self._active.get(kept.uid) != task:
            # Another controller has begun it, and may have ended it.
            live = self._backups.of(kept.uid)
            if live is None or task_of(live.repository) != task:
                return SOON
            with self._lock:
                self._active[kept.uid] = task
        spec = self._spec(kept, task)
        if spec is None:
            with term.step():
                self._jobs.remove_all(task.name)
            return self._finish(term, kept, task, None, tasks.dropped)
        with term.step():
            if spec.key:
                self._jobs.key(kept.uid)
            state = self._jobs.run(spec)
        return self._follow(term, kept, task, spec, state)

    def _spec(self, kept: ServerBackups, task: Task) -> JobSpec | None:
        """What the task's Job is to be; None if there is nothing left to do it with."""
        if task.kind != CLEAN and not self._has_store:
            # It is decided on again when there is a store again.
            return None
        if task.kind == INIT:
            return job_for_init(self._settings, kept, task.name)
        if task.kind == ERASE:
            return job_for_forget(self._settings, kept, task.name, [], erase=True)
        if task.kind == FORGET:
            unknown = [id for id in task.unlisted if BACKUP_ID.fullmatch(id)]
            known = [id for id in task.unlisted if id not in unknown]
            return job_for_forget(self._settings, kept, task.name, known, unknown)
        disk = self._disk(kept)
        if disk is None:
            return None
        if task.kind == CLEAN:
            return job_for_clean(self._settings, kept, disk, task.name, task.operations)
        backup = kept.backup(task.backup)
        return None if backup is None else job_for_proof(self._settings, kept, disk, task.name, backup.snapshot)

    def _follow(self, term: Term, kept: ServerBackups, task: Task, spec: JobSpec, state: JobState) -> timedelta:
        """Record what follows from the state of the task's Job."""
        now = self._clock()
        outcome, reason = tasks.outcome(task, state, now)
        match outcome:
            case "running":
                return POLL
            case "done":
                self._later.pop(kept.uid, None)
                return self._finish(term, kept, task, spec, lambda k, t: tasks.after(k, t, state.answer, now))
            case "wrong-key":
                # Somebody has deleted the server's key. The recovery key lets a new one in.
                return self._finish(term, kept, task, spec, lambda k, t: tasks.with_init(k, t, now))
            case "damaged":
                log.error("the backups of server %s are damaged: %s", kept.uid, reason)
                self._later[kept.uid] = now + LONGEST_PAUSE, 0
                # The Job stays for some minutes: its log says more.
                return self._finish(term, kept, task, None, lambda k, t: tasks.damaged(k, t, reason, now))
            case "no-room":
                return self._finish(term, kept, task, spec, lambda k, t: tasks.postponed(k, t, reason, now), first=True)
        log.warning("%s for the backups of server %s is tried again later: %s", task.kind, kept.uid, reason)
        self._put_off(kept.uid, now)
        stuck = spec if state.state == "running" else None
        return self._finish(term, kept, task, stuck, tasks.dropped, first=True)

    def _put_off(self, uid: str, now: datetime) -> None:
        _, tries = self._later.get(uid, (now, 0))
        self._later[uid] = now + min(LONGEST_PAUSE, PAUSE * 2**tries), min(tries + 1, 20)

    def _finish(
        self,
        term: Term,
        kept: ServerBackups,
        task: Task,
        spec: JobSpec | None,
        change: Callable[[ServerBackups, Task], ServerBackups],
        *,
        first: bool = False,
    ) -> timedelta:
        """Record the end of a task, and then delete its Job; or `first` delete it, because it may still run."""
        with term.step():
            if spec is not None and first:
                self._jobs.remove(spec)
            self._write(term, kept.uid, lambda fresh: change(fresh, task))
            self._ended.add(task.name)
            self._release(kept.uid)
            if spec is not None and not first:
                self._jobs.remove(spec)
        return SOON

    # -- what needs no Job ---------------------------------------------------------------------------------

    def _note_deletion(self, term: Term, kept: ServerBackups, objects: Objects | None) -> bool:
        """Write down that the server is gone, or is there again; returns whether it did."""
        if objects is not None:
            deleted = None
        elif kept.deleted is not None or self._exists(kept):
            return False
        else:
            deleted = stamp(self._clock())
        if deleted == kept.deleted:
            return False
        self._write(term, kept.uid, lambda fresh: replace(fresh, deleted=deleted))
        return True

    def _exists(self, kept: ServerBackups) -> bool:
        """Whether the server has a StatefulSet, or a release that brings it back; read live."""
        live = self._context.cluster.server(kept.id)
        if live.statefulset is not None and server_uid(live) == kept.uid:
            return True
        values = self._context.releases.current(kept.id)
        if values is None:
            return False
        uid = uid_of_values(values)
        return uid == kept.uid or (uid is None and live.statefulset is None)

    def _remove_snapshots(self, term: Term, kept: ServerBackups) -> None:
        """Delete the VolumeSnapshots of backups and worlds of before that go, and record those that are gone."""
        now = self._clock()
        names = {each.snapshot for each in kept.backups if each.state == "deleting" and each.where == "node"}
        names |= {
            each.reference
            for each in kept.befores
            if each.where == "snapshot" and tasks.is_old(each.at, self._settings, now)
        }
        if not names:
            return
        if self._is_read(kept.uid):
            self.agenda.put(kept.uid, now + NO_PLACE)
        else:
            self._remove(term, kept, names)

    def _remove(self, term: Term, kept: ServerBackups, names: set[str]) -> None:
        """Delete these VolumeSnapshots, record those that are gone, and look again soon."""
        self.agenda.put(kept.uid, self._clock() + NO_PLACE)
        with term.step():
            gone = {name for name in names if self._snapshots.remove(name)}
        if gone:
            self._write(term, kept.uid, lambda fresh: _without_snapshots(fresh, gone))

    def _settle(self, term: Term, kept: ServerBackups) -> None:
        """Record the end of backups that no operation makes, and that none has begun to make for a minute."""
        now, unfinished = self._clock(), frozenset(each.id for each in kept.backups if each.unfinished)
        seen, since = self._unfinished.get(kept.uid, (frozenset(), now))
        if seen != unfinished:
            self._unfinished[kept.uid] = unfinished, now
        if unfinished and (seen != unfinished or now - since < STRAY):
            self.agenda.put(kept.uid, now + STRAY)
        elif unfinished:
            operations = self._context.operations.all()
            if settled(kept, operations) != kept:
                self._write(term, kept.uid, lambda fresh: settled(fresh, operations))

    def _make_room(self, term: Term, kept: ServerBackups, objects: Objects | None) -> None:
        """If the storage takes no further snapshot of the disk, let the oldest backup go that is one."""
        waiting = next((backup for backup in kept.backups if backup.state == "running"), None)
        of_server = self._rules(objects)
        goes = None if of_server is None else makes_room(kept, of_server, self._clock())
        if waiting is None or goes is None or any(backup.state == "deleting" for backup in kept.backups):
            return
        if self._is_read(kept.uid):
            # The disk itself is read then.
            return
        # The code with which a CSI driver says so; ours does when the snapshots of a disk hold as much as they may.
        if "ResourceExhausted" in self._snapshots.look(f"backup-{waiting.id}").why:
            log.info("backup %s goes to make room for another on its node", goes.id)
            going = replace(goes, state="deleting")
            self._write(
                term, kept.uid, lambda fresh: fresh.with_backup(going) if fresh.backup(goes.id) == goes else fresh
            )

    def _forget_befores(self, term: Term, kept: ServerBackups) -> None:
        """Delete the VolumeSnapshots of worlds of before of a server whose disk is erased: nobody can undo anything."""
        names = {before.reference for before in kept.befores if before.where == "snapshot"}
        if names and kept.deleted is not None and not self._has_disk(kept):
            self._remove(term, kept, names)

    def _has_disk(self, kept: ServerBackups) -> bool:
        """Whether the disk of a server, also of a deleted one, is there; read live. Another server may reuse it."""
        claim = self._context.cluster.server(kept.id).claim
        reused = annotation(claim, REUSED_SINCE) is not None
        return claim is not None and (reused or uid_of_claim(claim) in (None, kept.uid))

    def _end(self, term: Term, kept: ServerBackups) -> timedelta:
        """Delete what is left of a server whose backups have to go: its snapshots, its key, its record.

        The record stays as long as it knows of something that cannot go yet: what a store has that is switched off, or
        worlds of before in a kept disk, which go when another server reuses that.
        """
        names = {backup.snapshot for backup in kept.backups if backup.where == "node"}
        names |= {before.reference for before in kept.befores if before.where == "snapshot"}
        stored = kept.repository.made is not None
        stays = stored or (any(before.where == "disk" for before in kept.befores) and self._has_disk(kept))
        with term.step():
            gone = [self._snapshots.remove(name) for name in names]
            if not all(gone):
                return POLL
            if not stored:
                self._jobs.forget_key(kept.uid)
            if not stays:
                self._backups.delete(kept.uid)
                log.info("all backups of the deleted server %d (%s) are gone", kept.id, kept.uid)
                return SOON
        if stored and kept.uid not in self._unerased:
            self._unerased.add(kept.uid)
            log.warning("the backups of the deleted server %s cannot be erased: there is no store", kept.uid)
        left = _without_snapshots(kept, names)
        left = left if stored else replace(left, backups=())
        if left != kept:
            self._write(term, kept.uid, lambda fresh: left if fresh == kept else fresh)
            return SOON
        return self._begin(term, kept, None)

    # -- what is known -------------------------------------------------------------------------------------

    def _objects(self, kept: ServerBackups) -> Objects | None:
        """The server's objects; None if it has no StatefulSet, or another server has its id now."""
        objects = self._context.cluster.known(kept.id)
        if objects is None or objects.statefulset is None or server_uid(objects) != kept.uid:
            return None
        return objects

    def _disk(self, kept: ServerBackups) -> Disk | None:
        """The server's disk, also one that another server reuses, if nothing is at work with that; None without any.

        Read live: the watches leave out which nodes take the game's pod.
        """
        objects = self._context.cluster.server(kept.id)
        has_disk = server_uid(objects) == kept.uid or self._is_reused(kept, objects)
        name = volume_of(objects.claim) if has_disk else ""
        return disk_of(objects, self._context.cluster.volume(name)) if name else None

    def _is_reused(self, kept: ServerBackups, objects: Objects) -> bool:
        """Whether another server, which nothing is at work with, has the disk in which there are worlds of before.

        `objects` are those of the server that has the id now, read live.
        """
        if kept.deleted is None or all(before.where != "disk" for before in kept.befores):
            return False
        with self._lock:
            at_work = any(server_uid(objects) in uids for uids in self._at_work_with.values())
        reused = annotation(objects.claim, REUSED_SINCE) is not None
        return objects.statefulset is not None and reused and not at_work

    def _at_work(self, kept: ServerBackups) -> bool:
        """Whether a backup or another operation is at work with the server."""
        if any(backup.unfinished for backup in kept.backups):
            return True
        with self._lock:
            return any(kept.uid in uids for uids in self._at_work_with.values())

    def _is_read(self, uid: str) -> bool:
        """Whether a restore, an undo or a clone may read snapshots of the server, or that is unknown yet."""
        found = [each for each in self._operations.all() if each.action in RESTORES and not each.ended]
        return not self._operations.wait(0) or any(uid in servers_of(each) for each in found)

    def _write(self, term: Term, uid: str, change: Callable[[ServerBackups], ServerBackups]) -> None:
        with term.step(), suppress(KeyError, ServerNotFound):
            self._backups.change(uid, change)


def _without_snapshots(kept: ServerBackups, names: set[str]) -> ServerBackups:
    """Without the backups and worlds of before that were VolumeSnapshots with these names."""
    return replace(
        kept,
        backups=tuple(each for each in kept.backups if each.snapshot not in names),
        befores=tuple(each for each in kept.befores if each.reference not in names),
    )
