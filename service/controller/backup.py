"""How a backup is made, and how one is deleted.

Where the storage takes snapshots, the game holds still only until there is one, and a Job reads a copy of it. Where it
takes none, or has no room for the copy, a Job reads the disk twice: first all of it, and then, while the game holds
still, what has changed. Without a store the snapshot is the backup.

Each phase can be repeated by whoever comes next. Jobs and snapshots have names that follow from the operation, and the
store gets one snapshot for each backup: a repeated Job finds it. What was copied while nobody knows whether the game
held still is copied again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from service.backups import requests
from service.backups.jobs import JobSpec, JobState
from service.backups.records import Backup, ServerBackups, Unreadable
from service.backups.requests import Disk, disk_of
from service.backups.runner import JobRunner
from service.backups.snapshots import SnapshotState, VolumeSnapshots
from service.backups.tasks import ERASE, FORGET
from service.controller.worlds import LOST_SECONDS, Next, Run, cancelled, done, failed, go, is_lost, seconds_in, wait
from service.errors import ServerNotFound
from service.kube.times import now
from service.operations.context import Context
from service.operations.hold import Held, hold, release
from service.operations.worlds import at_work_with, restore_from
from service.servers.accessors import condition, uid, wants_pod
from service.servers.disks import volume_of
from service.servers.objects import Objects, pod_on_disk
from service.servers.spec import server_uid, spec_of_objects

log = logging.getLogger(__name__)

TAKE_SECONDS = 10.0
"""How long a snapshot may take while the game holds still. Most storages need some milliseconds."""
LOOK_SECONDS = 0.05
READY_SECONDS = 900.0
"""How long a snapshot may take until it can be read; some storages copy it first."""
READ_SECONDS = 120.0
"""How long the game holds still at most while its disk is read, where there are no snapshots."""
COPY_SECONDS = 120.0
"""How long the pod that reads a copy of a snapshot may find no place: the storage may have no room for the copy."""
START_SECONDS = 600.0
"""How long a Job's pod may wait for its node, its image or its volumes."""
TIDY_SECONDS = 60.0
"""How long to wait until Jobs and snapshots are gone; Kubernetes goes on without us."""
TRIES = 3
"""How often a Job is tried that the next one may do better."""
LOCKED_TRIES = 16
"""The same for a repository that is locked: a prune that was killed leaves a lock that is dead after 30 minutes."""
PAUSE_SECONDS = 10.0

_AGAIN = ("no-answer", "stopped", "locked", "store-unreachable", "restic-failed")
_RENEW = ("wrong-key", "repository-missing")
_DELETED = "The server was deleted."
_REASONS = {
    "no-answer": "The Job that makes the backup ended without an answer, such as by a failure of its node.",
    "store-unreachable": "The store of the backups does not answer.",
    "store-refused": "The store of the backups refuses the operator's credentials.",
    "store-full": "The store of the backups is full.",
    "disk-full": "A disk of the Job that makes the backup is full.",
    "locked": "The repository of the server's backups stayed locked.",
    "repository-damaged": "The repository of the server's backups is damaged.",
    "wrong-key": "The keys do not open the repository of the server's backups.",
}
_OTHER = "The Job that makes the backup failed."
_NOT_STARTED = "The Job that makes the backup could not start in time."


def snapshot_name(backup: str) -> str:
    """The name of the VolumeSnapshot of a backup."""
    return f"backup-{backup}"


class BackUp:
    """Makes a backup.

    The operation's argument has the backup's id as `backup`. Its record is made if there is none, with the argument's
    `name`, `note`, `locked` and `trigger`.

    Args:
        context: The collaborators of the operations.
        jobs: Runs the Jobs.
        snapshots: Takes the snapshots.
        hold, release: See `operations/hold.py`.
        sleep: Waits, while a game holds still.
    """

    action = "backup"

    def __init__(
        self,
        context: Context,
        jobs: JobRunner,
        snapshots: VolumeSnapshots,
        hold: Callable[[Context, Objects, str, float], Held] = hold,
        release: Callable[[Context, Objects, str], Held] = release,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._context = context
        self._settings = context.settings
        self._jobs = jobs
        self._snapshots = snapshots
        self._hold, self._release = hold, release
        self._sleep = sleep
        # While an operation is at work here, because Helm takes its time.
        self._values_of: dict[str, Mapping[str, Any]] = {}
        self._phases: dict[str, Callable[[Run], Next]] = {
            "begin": self._begin,
            "repository": self._repository,
            "catalogue": self._catalogue,
            "snapshot": self._snapshot,
            "ready": self._ready,
            "copy": self._copy,
            "no-copy": self._no_copy,
            "first-pass": self._first_pass,
            "hold": self._hold_still,
            "read": self._read,
            "record": self._record,
            "tidy": self._tidy,
            "leave": self._leave,
        }

    def advance(self, run: Run) -> Next:
        """See `Machine`."""
        phase = run.work.get("phase", "begin")
        if run.operation.cancelling and phase not in ("record", "tidy", "leave"):
            return _leave_with(run, "It was cancelled.", cancelled=True)
        return self._phases[phase](run)

    def abandon(self, run: Run, reason: str) -> Next:
        """See `Machine`."""
        phase = run.work.get("phase", "begin")
        if phase == "tidy":
            return done()
        return failed(run.work.get("reason", reason)) if phase == "leave" else _leave_with(run, reason)

    # -- before anything is copied --------------------------------------------------------------------------

    def _begin(self, run: Run) -> Next:
        kept = self._context.backups.of(run.server.uid)
        if kept is not None and kept.repository.task.get("kind") in (FORGET, ERASE):
            # A prune locks the repository. No other one begins now: this backup is in the record and unfinished.
            return wait(2.0)
        objects = self._server(run)
        spec = None if objects is None else spec_of_objects(objects)
        if not self._begun(run, spec.game if spec else ""):
            return wait(2.0)
        if objects is None:
            return _leave_with(run, _DELETED)
        disk = disk_of(objects, self._context.cluster.volume(volume_of(objects.claim)))
        if disk is None:
            return _leave_with(run, "The server has no disk yet: it was never started.")
        class_name = self._snapshots.class_for(disk.driver)
        stored = self._settings.backup_store is not None
        if not stored and class_name is None:
            return _leave_with(
                run, "There is nowhere to back it up: no store is set up, and its storage takes no snapshots."
            )
        facts = {"disk": asdict(disk), "claim": uid(objects.claim), "class": class_name}
        return go(run, "repository" if stored else "snapshot", "prepares", **facts)

    def _begun(self, run: Run, game: str) -> bool:
        """Say in the record that this backup is being made; False while another one of the server is.

        Two at once would make the server's repository twice, and each would break the other's.
        """
        others = {each.id for each in at_work_with(self._context.operations.all(), run.server.uid)}

        def running(kept: ServerBackups, backup: Backup) -> Backup:
            at_work = {each.operation for each in kept.backups if each.state == "running" and each.id != backup.id}
            return backup if at_work & others and backup.state != "running" else replace(backup, state="running")

        kept = self._change(run, running, game)
        backup = kept.backup(_backup_of(run))
        return backup is None or backup.state != "queued"

    def _repository(self, run: Run) -> Next:
        kept = self._kept(run)
        made = kept.repository.made and not run.work.get("renew")
        if made and self._jobs.has_key(run.server.uid):
            return self._with_repository(run)

        def answered(answer: Mapping[str, Any]) -> Next:
            self._context.backups.change(
                run.server.uid,
                lambda kept: replace(kept, repository=replace(kept.repository, made=kept.repository.made or now())),
            )
            return self._with_repository(run)

        return self._job(
            run, lambda number: requests.job_for_init(self._settings, kept, run.operation.id, number), answered
        )

    def _with_repository(self, run: Run) -> Next:
        return go(run, run.work.get("renewed") or ("snapshot" if run.work["class"] else "first-pass"), renew=False)

    def _catalogue(self, run: Run) -> Next:
        """Make the catalogue of the store, which is made once. Two Jobs with its name cannot be there at once."""
        spec = requests.job_for_catalogue(self._settings, "backup-catalogue")
        state = self._jobs.run(spec)
        if state.state not in ("done", "failed"):
            if is_lost(state):
                # The next backup has another one made.
                self._jobs.remove(spec)
            return self._waiting(run, state)
        attempt = run.work["attempt"] + 1
        # It may be another operation's, of some minutes ago: one that failed, or for a store that is gone.
        if state.state == "failed" or attempt > 1:
            self._jobs.remove(spec)
        if state.state == "failed" and attempt == TRIES:
            return _leave_with(run, _reason_of(state))
        return go(run, "repository", attempt=attempt)

    # -- with a snapshot ------------------------------------------------------------------------------------

    def _snapshot(self, run: Run) -> Next:
        name = snapshot_name(_backup_of(run))
        if self._snapshots.look(name).state != "missing":
            # Another controller has taken it and has ended since. Nobody knows whether the game held still.
            self._let_go(run)
            gone = self._snapshots.remove(name)
            if not gone and seconds_in(run) > TIDY_SECONDS:
                return self._without_snapshots(run, "an earlier one is not gone")
            return wait(0.0 if gone else 0.2)
        if (objects := self._server(run)) is None:
            return _leave_with(run, _DELETED)
        state, held = self._taken(run, objects, name)
        if not state.taken:
            self._snapshots.remove(name)
            return self._without_snapshots(run, state.why or "it did not answer in time")
        if not self._is_same_disk(run):
            return _leave_with(run, _DELETED)
        return go(run, "ready", "takes a snapshot", consistency=held.consistency, why=held.why)

    def _taken(self, run: Run, objects: Objects, name: str) -> tuple[SnapshotState, _Copied]:
        """Take the snapshot while the game holds still; how far it is, and what it has of the world."""
        stopped = _stopped(objects)
        held = None if stopped else self._hold(self._context, objects, run.operation.id, TAKE_SECONDS)
        after = None
        try:
            labels = {"app.kubernetes.io/managed-by": "gameserver-controller", "gameserver/backup": _backup_of(run)}
            self._snapshots.take(name, run.work["disk"]["claim"], run.work["class"], run.server.uid, labels)
            deadline = time.monotonic() + TAKE_SECONDS
            while not (state := self._snapshots.look(name)).taken and time.monotonic() < deadline:
                self._sleep(LOOK_SECONDS)
        finally:
            if held is not None:
                after = self._release(self._context, objects, run.operation.id)
        return state, self._copied(run, stopped, held, after)

    def _ready(self, run: Run) -> Next:
        state = self._snapshots.look(snapshot_name(_backup_of(run)))
        if state.state == "ready":
            return go(run, "copy" if self._settings.backup_store else "record", "copies the world")
        if state.state == "missing":
            return go(run, "snapshot")
        if seconds_in(run) > READY_SECONDS:
            self._snapshots.remove(snapshot_name(_backup_of(run)))
            return self._without_snapshots(run, state.why or "it was not ready in time")
        return wait(0.5)

    def _without_snapshots(self, run: Run, why: str) -> Next:
        log.warning("the storage took no snapshot for the operation %s: %s", run.operation.id, why)
        if self._settings.backup_store is None:
            return _leave_with(run, "The storage took no snapshot of the server's disk.")
        return go(run, "first-pass", **{"class": None})

    def _copy(self, run: Run) -> Next:
        kept, values = self._kept(run), self._values(run)

        def spec(attempt: int) -> JobSpec:
            return requests.job_for_backup(
                self._settings, kept, _disk_of(run), run.operation.id, _backup_of(run), values,
                snapshot=snapshot_name(_backup_of(run)), attempt=attempt,
            )  # fmt: skip

        return self._job(run, spec, lambda answer: go(run, "record", answer=dict(answer)))

    def _no_copy(self, run: Run) -> Next:
        """Read the disk itself, because no pod gets a copy of the snapshot."""
        # The Job that reads the disk has the same name.
        if not self._jobs.remove_all(run.operation.id):
            return wait(0.5) if seconds_in(run) < TIDY_SECONDS else _leave_with(run, _NOT_STARTED)
        self._snapshots.remove(snapshot_name(_backup_of(run)))
        return go(run, "first-pass", **{"class": None})

    # -- without snapshots ----------------------------------------------------------------------------------

    def _first_pass(self, run: Run) -> Next:
        objects = self._server(run)
        if objects is None:
            return _leave_with(run, _DELETED)
        if _stopped(objects):
            return go(run, "hold")
        spec = self._reading(run, first_pass=True)
        return self._job(run, spec, lambda answer: go(run, "hold"))

    def _hold_still(self, run: Run) -> Next:
        objects = self._server(run)
        if objects is None:
            return _leave_with(run, _DELETED)
        attempt = run.work.get("attempt", 0)
        if attempt and not self._jobs.remove(self._reading(run)(_number(run, attempt - 1))):
            return wait(0.5)
        if _stopped(objects):
            return go(run, "read", "copies the world", attempt=attempt, stopped=_generation(objects))
        held = self._hold(self._context, objects, run.operation.id, READ_SECONDS)
        return go(run, "read", "copies the world", attempt=attempt, stopped=None, held=asdict(held))

    def _read(self, run: Run) -> Next:
        if not self._is_same_disk(run):
            return _leave_with(run, _DELETED)

        def answered(answer: Mapping[str, Any]) -> Next:
            objects = self._server(run)
            if objects is None or not self._is_same_disk(run):
                return _leave_with(run, "The server was deleted while its disk was copied.")
            stopped = run.work.get("stopped")
            held = None if stopped is not None else Held(**run.work["held"])
            after = None if held is None else self._release(self._context, objects, run.operation.id)
            same = stopped is not None and stopped == _generation(objects)
            copied = self._copied(run, same, held, after)
            return go(run, "record", answer=dict(answer), consistency=copied.consistency, why=copied.why)

        return self._job(run, self._reading(run), answered, back="hold")

    def _reading(self, run: Run, *, first_pass: bool = False) -> Callable[[int], JobSpec]:
        kept, values = self._kept(run), self._values(run)
        return lambda attempt: requests.job_for_backup(
            self._settings, kept, _disk_of(run), run.operation.id, _backup_of(run), values,
            first_pass=first_pass, attempt=attempt,
        )  # fmt: skip

    def _copied(self, run: Run, stopped: bool, held: Held | None, after: Held | None) -> _Copied:
        """What a copy of the disk has of the world, now that it is made."""
        if held is None:
            objects = self._server(run)
            if stopped and objects is not None and _stopped(objects):
                return _Copied("stopped")
            return _Copied("crash-like", "The server was started or changed while its disk was copied.")
        for each in (held, after):
            if each is None or each.consistency != "game-saved":
                return _Copied("crash-like", each.why if each else None)
        return _Copied("game-saved")

    # -- when it is made ------------------------------------------------------------------------------------

    def _record(self, run: Run) -> Next:
        answer = run.work.get("answer")

        if self._context.backups.of(run.server.uid) is None:
            return _leave_with(run, _DELETED)

        def change(kept: ServerBackups) -> ServerBackups:
            backup = kept.backup(_backup_of(run)) or _new(run)
            if backup.state == "done":
                return kept
            finished = replace(
                backup,
                state="done",
                finished=now(),
                reason=None,
                consistency=run.work["consistency"],
                why=run.work["why"],
                where="node",
                snapshot=snapshot_name(backup.id),
            )
            return kept.with_backup(finished if answer is None else _stored(kept, finished, answer))

        self._context.backups.change(run.server.uid, change)
        return go(run, "tidy")

    def _tidy(self, run: Run) -> Next:
        """Leave nothing behind but the backup."""
        self._values_of.pop(run.operation.id, None)
        gone = self._jobs.remove_all(run.operation.id)
        if run.work.get("answer") is not None:
            gone &= self._snapshots.remove(snapshot_name(_backup_of(run)))
        return done() if gone or seconds_in(run) > TIDY_SECONDS else wait()

    def _leave(self, run: Run) -> Next:
        """Leave everything as it was before the backup, and say why there is none."""
        self._values_of.pop(run.operation.id, None)
        self._let_go(run)
        gone = self._jobs.remove_all(run.operation.id)
        gone &= self._snapshots.remove(snapshot_name(_backup_of(run)))
        if not gone and seconds_in(run) < TIDY_SECONDS:
            return wait(0.5)
        reason = run.work["reason"]
        state = "cancelled" if run.work.get("cancelled") else "failed"
        self._change(run, lambda kept, backup: replace(backup, state=state, finished=now(), reason=reason))
        return cancelled() if state == "cancelled" else failed(reason)

    # -- Jobs -----------------------------------------------------------------------------------------------

    def _job(
        self,
        run: Run,
        spec: Callable[[int], JobSpec],
        answered: Callable[[Mapping[str, Any]], Next],
        back: str | None = None,
    ) -> Next:
        """Run the Job of a phase.

        Args:
            run: The operation.
            spec: The Job of an attempt with this number.
            answered: What follows its answer.
            back: The phase to begin again with after a failure; None for this one.
        """
        attempt = run.work.get("attempt", 0)
        if attempt and not self._jobs.remove(spec(_number(run, attempt - 1))):
            # Two at once might each bring one snapshot to the store.
            return wait(0.5)
        state = self._jobs.run(spec(_number(run, attempt)))
        if state.state == "done":
            return answered(state.answer)
        if state.state != "failed":
            return self._waiting(run, state)
        log.warning("a Job of the operation %s failed: %s: %s", run.operation.id, state.code, state.message)
        phase = run.work.get("phase", "")
        if back is not None:
            self._let_go(run)
        if state.code == "catalogue-missing" and attempt + 1 < TRIES:
            return go(run, "catalogue", attempt=attempt)
        if state.code in _RENEW and phase != "repository" and not run.work.get("renewed"):
            # Somebody has lost the key, or has emptied the store.
            return go(run, "repository", renew=True, renewed=back or phase)
        if state.code in _AGAIN and attempt + 1 < (LOCKED_TRIES if state.code == "locked" else TRIES):
            again = go(run, back or phase, attempt=attempt + 1)
            return replace(again, seconds=PAUSE_SECONDS * attempt)
        return _leave_with(run, _reason_of(state))

    def _waiting(self, run: Run, state: JobState) -> Next:
        """What follows a Job that has not ended."""
        if self._has_lost_disk(run):
            return _leave_with(run, "The node that has the server's disk does not answer.")
        if is_lost(state):
            return _leave_with(run, "The node of the Job that makes the backup does not answer.")
        copies = run.work.get("phase") == "copy"
        if state.started or seconds_in(run) < (COPY_SECONDS if copies and state.waits else START_SECONDS):
            return wait()
        if copies and self._server(run) is not None:
            log.warning("the operation %s reads the disk, not a copy of it: %s", run.operation.id, state.waits)
            return go(run, "no-copy")
        if seconds_in(run) < START_SECONDS:
            # The snapshot is all that is left of a deleted server.
            return wait()
        log.warning("a Job of the operation %s does not start: %s", run.operation.id, state.waits)
        return _leave_with(run, _NOT_STARTED)

    def _has_lost_disk(self, run: Run) -> bool:
        """Whether the disk's node has not answered for some time, as far as is known."""
        objects = self._context.cluster.known(run.server.id)
        node = (objects.nodes if objects else {}).get(_disk_of(run).node or "")
        if node is None or (ready := condition(node, "Ready")).get("status") == "True":
            return False
        since = ready.get("lastTransitionTime")
        return since is not None and _age(since) > LOST_SECONDS

    # -- what is known --------------------------------------------------------------------------------------

    def _server(self, run: Run) -> Objects | None:
        """The server; None if it was deleted, even if another has its id."""
        try:
            objects = self._context.cluster.server(run.server.id)
        except ServerNotFound:
            return None
        return objects if objects.statefulset and server_uid(objects) == run.server.uid else None

    def _let_go(self, run: Run) -> None:
        """Let the game go if it holds still for the operation."""
        if (objects := self._server(run)) is not None:
            self._release(self._context, objects, run.operation.id)

    def _is_same_disk(self, run: Run) -> bool:
        """Whether the claim is still the one that this began with."""
        claim = uid(self._context.cluster.server(run.server.id).claim)
        return claim is not None and claim == run.work["claim"]

    def _values(self, run: Run) -> Mapping[str, Any]:
        """The values of the server's release; {} if it was deleted."""
        known = self._values_of.get(run.operation.id)
        if known is None:
            values = self._context.releases.current(run.server.id)
            known = self._values_of[run.operation.id] = (values or {}) if self._server(run) else {}
        return known

    def _kept(self, run: Run) -> ServerBackups:
        return self._context.backups.of(run.server.uid) or _nothing(run)

    def _change(self, run: Run, change: Callable[[ServerBackups, Backup], Backup], game: str = "") -> ServerBackups:
        """Change the backup in the record, which is made if there is none; what is kept then."""

        def changed(kept: ServerBackups) -> ServerBackups:
            backup = kept.backup(_backup_of(run)) or _new(run)
            if not backup.unfinished:
                return kept
            after = change(kept, backup)
            repository = kept.repository
            if after.not_made and self._settings.backup_store and run.work.get("disk"):
                # A Job may have brought it to the store nevertheless.
                repository = replace(repository, unlisted=tuple(dict.fromkeys((*repository.unlisted, backup.id))))
            return replace(kept.with_backup(after), game=game or kept.game, repository=repository)

        return self._context.backups.change(run.server.uid, changed, _nothing(run))


class DeleteBackup:
    """Deletes a backup. The operation's argument has its id as `backup`.

    What is in the store goes with the next prune (`controller/keep.py`). So does a snapshot that is not gone after a
    minute, such as one on a lost node: the operation would hold the place of another one for ever. One that a restore
    or a clone reads goes after that.

    Args:
        context: The collaborators of the operations.
        snapshots: The snapshots on the nodes.
    """

    action = "delete-backup"

    def __init__(self, context: Context, snapshots: VolumeSnapshots) -> None:
        self._context = context
        self._snapshots = snapshots

    def advance(self, run: Run) -> Next:
        """See `Machine`."""
        id = _backup_of(run)
        kept = self._context.backups.of(run.server.uid)
        backup = None if kept is None else kept.backup(id)
        if backup is None:
            return done()
        if backup.unfinished:
            return failed("The backup is being made.")

        def marked(kept: ServerBackups) -> ServerBackups:
            return kept.with_backup(replace(backup, state="deleting"))

        def gone(kept: ServerBackups) -> ServerBackups:
            return deleted(kept, id)

        if backup.where == "node":
            if not run.work:
                self._context.backups.change(run.server.uid, marked)
                if restore_from(self._context.operations.all(), id) is not None:
                    # It was accepted at the same moment.
                    return done()
                return go(run, "remove", "is removing the snapshot")
            if not self._snapshots.remove(backup.snapshot):
                over = run.operation.cancelling or seconds_in(run) > TIDY_SECONDS
                return done() if over else wait()
        self._context.backups.change(run.server.uid, gone)
        return done()

    def abandon(self, run: Run, reason: str) -> Next:
        """See `Machine`."""
        return failed(reason)


def deleted(kept: ServerBackups, id: str) -> ServerBackups:
    """Without a backup, whose snapshot the next prune removes from the store. Pure.

    One on the node must be gone already.
    """
    backup = kept.backup(id)
    if backup is None:
        return kept
    repository = kept.repository
    if backup.where != "node":
        # One that failed may have been stored, but nobody knows its snapshot.
        unlisted = dict.fromkeys((*repository.unlisted, backup.snapshot or backup.id))
        repository = replace(repository, unlisted=tuple(unlisted))
    return replace(kept.without(id), repository=repository)


# -- pure ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Copied:
    """What a copy of a disk has of the world: one of records.CONSISTENCIES, and why it is only crash-like."""

    consistency: str
    why: str | None = None


def _leave_with(run: Run, reason: str, *, cancelled: bool = False) -> Next:
    return go(run, "leave", "tidies up", reason=reason, cancelled=cancelled)


def _backup_of(run: Run) -> str:
    return str(run.operation.argument["backup"])


def _disk_of(run: Run) -> Disk:
    return Disk(**run.work["disk"])


def _number(run: Run, attempt: int) -> int:
    """The number of a Job: when the repository was set up again, all begins anew."""
    return attempt + (LOCKED_TRIES if run.work.get("renewed") else 0)


def _age(time: str) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(time)).total_seconds()


def _stopped(objects: Objects) -> bool:
    """Whether no game writes to the disk, nor is about to."""
    return pod_on_disk(objects) is None and not wants_pod(objects.statefulset)


def _generation(objects: Objects) -> int:
    """A number that changes when a stopped server is started."""
    return int((objects.statefulset or {})["metadata"].get("generation", 0))


def _nothing(run: Run) -> ServerBackups:
    return ServerBackups(run.server.uid, run.server.id, run.server.customer)


def _new(run: Run) -> Backup:
    """The backup of an operation whose record is not there yet."""
    given = {
        key: run.operation.argument[key]
        for key in ("name", "note", "trigger", "locked")
        if key in run.operation.argument
    }
    return Backup(_backup_of(run), run.operation.created, operation=run.operation.id, **given)


def _stored(kept: ServerBackups, backup: Backup, answer: Mapping[str, Any]) -> Backup:
    """The backup with what its Job has answered."""
    unreadable = Unreadable(answer["unreadable"]["count"], tuple(answer["unreadable"]["paths"]))
    return replace(
        backup,
        where="store",
        snapshot=answer["snapshot"],
        size_bytes=answer["size_bytes"],
        added_bytes=answer["added_bytes"],
        files=answer["files"],
        unreadable=unreadable,
        suspicious=suspicion(kept, backup.id, answer),
    )


def suspicion(kept: ServerBackups, id: str, answer: Mapping[str, Any]) -> str | None:
    """Why a backup may not be what its server's owner wants to have back; None if nothing looks like it.

    One that is as the last one that the owner has accepted is not suspicious.

    Args:
        kept: The server's backups.
        id: The backup's id.
        answer: What its Job has answered.
    """
    good = [each for each in kept.backups if each.good and each.id != id and each.size_bytes is not None]
    last = good[-1] if good else None
    if answer["empty"]:
        return None if last is not None and last.files == 0 else "empty"
    if last is not None and answer["size_bytes"] < (last.size_bytes or 0) / 2:
        return "smaller"
    lacks = answer["unreadable"]
    known = last.unreadable if last is not None else Unreadable()
    if lacks["count"] <= known.count and set(lacks["paths"]) <= set(known.paths):
        # Nothing, or what the last good one lacks too: its owner has accepted that.
        return None
    return "incomplete"


def _reason_of(state: JobState) -> str:
    return _REASONS.get(state.code, _OTHER)
