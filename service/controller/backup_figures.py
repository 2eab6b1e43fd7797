"""How the backups of all servers are, in numbers for Prometheus. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache

from service.backups.records import ServerBackups
from service.backups.tasks import is_damaged, task_of
from service.schedules.spec import Schedule, of_annotation
from service.servers.accessors import annotation
from service.servers.names import SCHEDULES
from service.servers.objects import Objects
from service.servers.spec import server_uid, spec_of_objects
from service.settings import Settings


@dataclass(frozen=True)
class BackupFigures:
    """The numbers.

    Attributes:
        states: How many backups are in each state.
        stored_bytes: What all of them take in the store, as it was measured after each prune.
        overdue: For how many seconds the server has waited that has waited longest, by what for: `backup` (one of its
            schedules was due and has made no good one), `proof` and `prune` (which checks, too).
        damaged: Of how many servers the last check or proof has found damage.
        postponed: Of how many servers the last proof found no room.
        tasks: How many Jobs are at work, by what they do (`backups/tasks.py`).
    """

    states: Counter[str]
    stored_bytes: int
    overdue: dict[str, float]
    damaged: int
    postponed: int
    tasks: Counter[str]


def figures(
    all_kept: Iterable[ServerBackups], servers: Iterable[Objects], settings: Settings, now: datetime
) -> BackupFigures:
    """The numbers now.

    Args:
        all_kept: What is kept of all servers.
        servers: The objects of all servers.
        settings: The settings.
        now: The current time.
    """
    by_uid = {kept.uid: kept for kept in all_kept}
    overdue = {"backup": 0.0, "proof": 0.0, "prune": 0.0}

    def waits(what: str, due: datetime | None) -> None:
        if due is not None:
            overdue[what] = max(overdue[what], (now - due).total_seconds())

    for objects in servers:
        waits("backup", _backup_due(objects, by_uid.get(server_uid(objects) or "")))
    # Nothing is due in a store that is switched off.
    for kept in by_uid.values() if settings.backup_store is not None else ():
        waits("proof", _proof_due(kept, settings))
        waits("prune", _prune_due(kept, settings))
    return BackupFigures(
        states=Counter(backup.state for kept in by_uid.values() for backup in kept.backups),
        stored_bytes=sum(kept.repository.stored_bytes or 0 for kept in by_uid.values()),
        overdue=overdue,
        damaged=sum(map(is_damaged, by_uid.values())),
        postponed=sum("postponed" in kept.repository.proof for kept in by_uid.values()),
        tasks=Counter(task.kind for kept in by_uid.values() if (task := task_of(kept.repository)) is not None),
    )


def _backup_due(objects: Objects, kept: ServerBackups | None) -> datetime | None:
    """When a schedule first should have made a backup since the last good one; None without such a schedule.

    One that runs only under a condition may rightly have made none.
    """
    spec = spec_of_objects(objects)
    if spec is None or spec.suspended is not None:
        return None
    good = max((backup.created for backup in (kept.backups if kept else ()) if backup.good), default=None)
    moments = []
    for name, schedule in of_annotation(annotation(objects.statefulset, SCHEDULES)).items():
        if schedule.only_when is None and any(step.action == "backup" for step in schedule.steps):
            since = schedule.by.since if good is None else max(schedule.by.since, datetime.fromisoformat(good))
            if (due := _next_after(schedule, objects.id, name, since)) is not None:
                moments.append(due)
    return min(moments, default=None)


@lru_cache(maxsize=8192)
def _next_after(schedule: Schedule, id: int, name: str, moment: datetime) -> datetime | None:
    return schedule.next_after(id, name, moment)


def _proof_due(kept: ServerBackups, settings: Settings) -> datetime | None:
    stored = [backup for backup in kept.backups if backup.good and backup.where == "store"]
    if not settings.backup_proof_days or kept.deleted is not None or not stored:
        return None
    last = kept.repository.proof.get("at") or kept.repository.made
    return datetime.fromisoformat(last) + timedelta(days=settings.backup_proof_days) if last else None


def _prune_due(kept: ServerBackups, settings: Settings) -> datetime | None:
    last = kept.repository.pruned_at or kept.repository.made
    return datetime.fromisoformat(last) + timedelta(hours=settings.backup_prune_hours) if last else None
