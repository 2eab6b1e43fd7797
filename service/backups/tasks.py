"""What the controller does for a server's backups by itself, and what follows from it. Pure.

Each is one Job, and a repository has one at a time. It stands in the server's record before it begins, so that the
controller that takes over finds the same Job.

`repository.proof` has `at` (when a proof came to a result last), `backup` (of which), `found` and `since` (what was
wrong and since when; neither if nothing was), `postponed` and `reason` (when there was no room last, and what for).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from service.backups.jobs import JobState
from service.backups.records import MOST, Backup, Repository, ServerBackups
from service.backups.retention import Rules, going
from service.kube.times import stamp
from service.settings import Keep, Settings

FORGET, ERASE, PROVE, CLEAN, INIT = "forget", "erase", "prove", "clean", "init"
POSTPONED = timedelta(hours=6)
"""When a proof is tried again for which there was no room."""
DAMAGED = timedelta(days=1)
"""When what was found damaged is looked at again, at the latest."""
DAMAGE = frozenset(
    {"repository-damaged", "repository-missing", "wrong-key", "backup-missing", "backup-damaged", "restore-differs"}
)
"""The words with which the Jobs' program says that something is wrong with what is stored."""
NO_ROOM = frozenset({"disk-full", "no-room"})
_MOST_PER_SERVER = 50
"""The largest of the operator's bounds."""
WAITS = timedelta(minutes=5)
"""How long a Job may wait for a node and its volumes, or for a node that does not answer."""


@dataclass(frozen=True)
class Task:
    """What is to be done.

    Attributes:
        kind: `forget`: forget what is `unlisted`, prune and check; `erase`: all of the server's; `prove`: restore one
            and compare it; `clean`: remove worlds of before from the disk; `init`: let a new key of the server open
            the repository.
        name: Unique; the name of its Job begins with it.
        since: When it was recorded (RFC 3339).
        backup: The id of the backup that is proven.
        unlisted: What is forgotten; see `Repository.unlisted`.
        operations: Operations whose worlds of before are removed.
    """

    kind: str
    name: str
    since: str
    backup: str = ""
    unlisted: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()


def task_of(repository: Repository) -> Task | None:
    """The task that is recorded; None if there is none."""
    values = repository.task
    if not values.get("kind"):
        return None
    kind, name, since, backup = (str(values.get(key) or "") for key in ("kind", "name", "since", "backup"))
    unlisted, operations = (tuple(values.get(key) or ()) for key in ("unlisted", "operations"))
    return Task(kind, name, since, backup, unlisted, operations)


def with_task(kept: ServerBackups, task: Task | None) -> ServerBackups:
    """With this task recorded, or none."""
    values = {} if task is None else {name: value for name, value in asdict(task).items() if value}
    return replace(kept, repository=replace(kept.repository, task=values))


def due(last: str, every: timedelta, uid: str, now: datetime) -> bool:
    """Whether something that happens once in each period is due: its moment in the period follows from the uid.

    So servers that began at the same time, or waited for the same outage to end, do not come all at once for ever.
    """
    period = every.total_seconds()
    moment = int.from_bytes(hashlib.sha256(uid.encode()).digest()[:8]) / 2**64 * period
    return (now.timestamp() - moment) // period > (_time(last).timestamp() - moment) // period


def is_damaged(kept: ServerBackups) -> bool:
    """Whether a check or a proof has found something wrong."""
    return kept.repository.fault is not None or bool(kept.repository.proof.get("found"))


def with_going(kept: ServerBackups, rules: Rules | None, now: datetime) -> ServerBackups:
    """Without the backups that are to go, or with those marked that are snapshots, which have to be deleted first.

    From a repository that is damaged nothing goes that need not, because an older backup may be the one that is whole.

    Args:
        kept: What is kept of a server.
        rules: The rules for it; None if only those go that are marked.
        now: The current time.
    """
    if rules is not None and is_damaged(kept):
        rules = replace(rules, keep=Keep(last=MOST), most=max(rules.most, _MOST_PER_SERVER), bytes=None)
    for backup in going(kept, rules, now) if rules is not None else ():
        kept = kept.with_backup(replace(backup, state="deleting"))
    for backup in kept.backups:
        if backup.state == "deleting" and backup.where != "node":
            kept = _let_go(kept, backup)
    return kept


def _let_go(kept: ServerBackups, backup: Backup) -> ServerBackups:
    """Without a backup, whose content the next prune removes from the store."""
    repository, kept = kept.repository, kept.without(backup.id)
    if backup.where != "store":
        # It has failed, and its operation has said what it may have left.
        return kept
    unlisted = tuple(dict.fromkeys((*repository.unlisted, backup.snapshot or backup.id)))
    return replace(kept, repository=replace(repository, unlisted=unlisted))


def is_over(kept: ServerBackups, settings: Settings, now: datetime) -> bool:
    """Whether the server is gone, and its backups have to follow."""
    if kept.deleted is None:
        return False
    ends = _time(kept.deleted) + timedelta(days=settings.backup_days_after_delete)
    return kept.erase or now >= ends


def next_task(kept: ServerBackups, settings: Settings, now: datetime, *, disk: bool) -> Task | None:
    """What is due for a server that nothing else is at work with; None for nothing.

    Args:
        kept: What is kept of it.
        settings: The settings.
        now: The current time.
        disk: Whether the server has a disk.
    """
    begun = _begun(kept, now)
    stored = settings.backup_store is not None and kept.repository.made is not None
    if stored and is_over(kept, settings, now):
        return replace(begun, kind=ERASE)
    if stored and (forget := _forget(kept, settings, begun, now)):
        return forget
    if disk and (operations := _old_in_disk(kept, settings, now)):
        return replace(begun, kind=CLEAN, operations=operations)
    if stored and disk and kept.deleted is None and (backup := _to_prove(kept, settings, now)):
        return replace(begun, kind=PROVE, backup=backup.id)
    return None


def _begun(kept: ServerBackups, now: datetime) -> Task:
    name = hashlib.sha256(f"{kept.uid} {now.timestamp()}".encode()).hexdigest()[:16]
    return Task("", f"keep-{name}", stamp(now))


def _forget(kept: ServerBackups, settings: Settings, begun: Task, now: datetime) -> Task | None:
    repository = kept.repository
    every = timedelta(hours=settings.backup_prune_hours)
    if is_damaged(kept):
        every = min(every, DAMAGED)
    last = max(filter(None, (repository.made, repository.pruned_at, repository.fault_at)))
    if repository.unlisted or due(last, every, kept.uid, now):
        return replace(begun, kind=FORGET, unlisted=repository.unlisted)
    return None


def _old_in_disk(kept: ServerBackups, settings: Settings, now: datetime) -> tuple[str, ...]:
    return tuple(
        before.operation for before in kept.befores if before.where == "disk" and is_old(before.at, settings, now)
    )


def is_old(at: str, settings: Settings, now: datetime) -> bool:
    """Whether a world of before that was replaced at `at` is not kept any longer."""
    return now >= _time(at) + timedelta(days=settings.backup_undo_days)


def _to_prove(kept: ServerBackups, settings: Settings, now: datetime) -> Backup | None:
    """The backup that is proven now: the one that was damaged last time, or else the newest good one."""
    proof, made = kept.repository.proof, kept.repository.made
    if not settings.backup_proof_days:
        return None
    if (postponed := proof.get("postponed")) and now < _time(postponed) + POSTPONED:
        return None
    damaged = next((each for each in kept.backups if proof.get("found") and each.id == proof.get("backup")), None)
    good = [each for each in kept.backups if each.good and each.where == "store"]
    backup = damaged if damaged is not None and damaged.state == "done" else good[-1] if good else None
    every = timedelta(days=settings.backup_proof_days)
    if proof.get("found"):
        every = min(every, DAMAGED)
    return backup if due(proof.get("at") or str(made), every, kept.uid, now) else None


def outcome(task: Task, state: JobState, now: datetime) -> tuple[str, str]:
    """What has become of a task whose Job is in this state, and why.

    Returns:
        `running`, `done`, `damaged`, `no-room` (of a proof), `wrong-key` (which a task `init` mends), or `failed` (it
        is tried again later); and the reason in plain words.
    """
    no_room = "no-room" if task.kind == PROVE else "failed"
    if state.lost_for(now) > WAITS:
        return no_room, "The node of its pod does not answer."
    if state.state == "missing" or (state.state == "running" and (state.started or now - _time(task.since) <= WAITS)):
        return "running", ""
    if state.state == "running":
        return no_room, state.waits or "Its pod does not start."
    if task.kind == ERASE and (state.code == "repository-missing" or state.answer.get("error")):
        error = str(state.answer.get("error") or "")
        return ("damaged" if error else "done"), error
    if state.state == "done":
        return "done", ""
    if state.code == "wrong-key" and task.kind != INIT:
        return "wrong-key", state.message
    if state.code in DAMAGE:
        return "damaged", state.message
    return ("no-room" if state.code in NO_ROOM and task.kind == PROVE else "failed"), state.message


# -- what follows -------------------------------------------------------------------------------------------


def after(kept: ServerBackups, task: Task, answer: Mapping[str, Any], now: datetime) -> ServerBackups:
    """What is kept once a task's Job has done it."""
    if task_of(kept.repository) != task:
        return kept
    kept = with_task(kept, None)
    match task.kind:
        case "forget":
            return _forgotten(kept, task, answer, now)
        case "erase":
            stored = [backup for backup in kept.backups if backup.where == "node"]
            return replace(kept, repository=Repository(), backups=tuple(stored))
        case "prove":
            return _proven(kept, task.backup, now)
        case "init":
            return kept
        case _:
            left = tuple(before for before in kept.befores if before.operation not in task.operations)
            return replace(kept, befores=left)


def damaged(kept: ServerBackups, task: Task, reason: str, now: datetime) -> ServerBackups:
    """What is kept once a task's Job has found something wrong."""
    if task_of(kept.repository) != task:
        return kept
    kept, at = with_task(kept, None), stamp(now)
    if task.kind == PROVE:
        proof = kept.repository.proof
        since = proof.get("since") if proof.get("backup") == task.backup else None
        found = {"at": at, "backup": task.backup, "found": reason, "since": since or at}
        return replace(kept, repository=replace(kept.repository, proof=found))
    return replace(kept, repository=_with_fault(kept.repository, reason, at))


def postponed(kept: ServerBackups, task: Task, reason: str, now: datetime) -> ServerBackups:
    """What is kept if there was no room for a proof."""
    if task_of(kept.repository) != task:
        return kept
    kept = with_task(kept, None)
    proof = {**kept.repository.proof, "postponed": stamp(now), "reason": reason}
    return replace(kept, repository=replace(kept.repository, proof=proof))


def dropped(kept: ServerBackups, task: Task) -> ServerBackups:
    """What is kept if a task could not be done now, and is decided on again."""
    return with_task(kept, None) if task_of(kept.repository) == task else kept


def with_init(kept: ServerBackups, task: Task, now: datetime) -> ServerBackups:
    """What is kept if the server's key does not open the repository: that is mended next."""
    if task_of(kept.repository) != task:
        return kept
    return with_task(kept, replace(_begun(kept, now), kind=INIT))


def _forgotten(kept: ServerBackups, task: Task, answer: Mapping[str, Any], now: datetime) -> ServerBackups:
    at, error = stamp(now), answer.get("error")
    unlisted = tuple(id for id in kept.repository.unlisted if id not in task.unlisted)
    repository = replace(kept.repository, unlisted=unlisted)
    if error:
        return replace(kept, repository=_with_fault(repository, str(error), at))
    stored = answer.get("stored_bytes")
    repository = replace(
        repository,
        pruned_at=at,
        checked_at=at,
        fault=None,
        fault_since=None,
        fault_at=None,
        stored_bytes=stored if isinstance(stored, int) else repository.stored_bytes,
    )
    backups = tuple(replace(each, checked_at=at) if _was_checked(each, task) else each for each in kept.backups)
    return replace(kept, repository=repository, backups=backups)


def _was_checked(backup: Backup, task: Task) -> bool:
    return backup.state == "done" and backup.where == "store" and str(backup.finished) <= task.since


def _proven(kept: ServerBackups, id: str, now: datetime) -> ServerBackups:
    at, backup = stamp(now), kept.backup(id)
    if backup is not None:
        kept = kept.with_backup(replace(backup, proven_at=at))
    return replace(kept, repository=replace(kept.repository, proof={"at": at, "backup": id}))


def _with_fault(repository: Repository, reason: str, at: str) -> Repository:
    return replace(repository, fault=reason, fault_since=repository.fault_since or at, fault_at=at)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
