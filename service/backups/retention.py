"""Which of a server's backups go. Pure.

A schedule's backups go when neither the newest few nor those of the last hours, days and weeks need them. Those that
somebody asked for stay until the operator's bounds push the oldest out, and a schedule's go before them. What a backup
takes in the store shows only once another is gone, because they share what has not changed; so for the bound of bytes
one goes at a time, and the store is measured after each.

Nothing goes while a backup is under way, so that the new one is there first; and never the last good one, a locked one
or one that holds the world of before a restore. Suspicious ones are counted apart, so that they push no good one out,
until their owner has accepted them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from service.backups.records import Backup, ServerBackups
from service.kube.times import stamp
from service.settings import Keep, Settings

SUSPICIOUS_KEPT = 3
"""So many suspicious ones stay: the newest."""
FAILED_KEPT = 5
"""So many failed and cancelled ones are shown: the newest."""
FAILED_DAYS = 7
CLONE_DAYS = 1
"""How long a backup stays that was made to clone the server."""
_OWN = ("manual", "schedule")
"""Triggers of backups that somebody wants to have, rather than an operation."""


@dataclass(frozen=True)
class Rules:
    """What decides which backups of a server stay.

    Attributes:
        keep: How many of a schedule's.
        most: How many good and locked ones there may be at most.
        bytes: How much they may take in the store; None for no limit.
        undo_days: How long the world of before a restore is kept.
    """

    keep: Keep
    most: int
    bytes: int | None
    undo_days: int


def rules(settings: Settings, own: Keep | None) -> Rules:
    """The rules for a server with this `keep` of its own; None if it has none."""
    limit = settings.backup_gb_per_server * 2**30
    return Rules(own or settings.backup_keep, settings.backups_per_server, limit or None, settings.backup_undo_days)


def going(kept: ServerBackups, rules: Rules, now: datetime) -> list[Backup]:
    """The backups that are to go now, oldest first, without those that are going already."""
    if any(backup.unfinished for backup in kept.backups):
        return []
    may_go = _may_go(kept, rules, now)
    chosen = [*_failed(kept, now), *filter(may_go, [*_outlived(kept, rules, now), *_suspicious(kept)])]
    chosen += filter(may_go, _beyond_keep(kept, rules.keep))
    ids = {backup.id for backup in chosen}
    chosen += _beyond_most(kept, rules.most, ids, may_go)
    if not chosen and not kept.repository.unlisted and not any(backup.state == "deleting" for backup in kept.backups):
        chosen = _beyond_bytes(kept, rules.bytes, may_go)
    ids = {backup.id for backup in chosen}
    return [backup for backup in kept.backups if backup.id in ids]


def makes_room(kept: ServerBackups, rules: Rules, now: datetime) -> Backup | None:
    """The backup on the node that goes because the storage takes no further snapshot of the disk; None if none may.

    A backup is under way then: it is the one that finds no room.
    """
    may_go = _may_go(kept, rules, now)
    return next((each for each in _in_turn(kept, may_go) if each.where == "node"), None)


def stored_bytes(kept: ServerBackups) -> int | None:
    """What a server's backups take in the store, packed; None if nobody knows.

    It was measured after the last prune. Since then each backup has added at most what it says.
    """
    repository = kept.repository
    since = repository.pruned_at or ""
    added = [
        backup.added_bytes or 0
        for backup in kept.backups
        if backup.where == "store" and backup.finished is not None and backup.finished > since
    ]
    if repository.stored_bytes is None:
        return sum(added) if added and not since else None
    return repository.stored_bytes + sum(added)


def is_full(kept: ServerBackups, rules: Rules) -> bool:
    """Whether the server may have no further backup, because it has as many as it may and none of them may go."""
    counted = _counted(kept)
    if any(not backup.locked for backup in counted) or any(backup.state == "deleting" for backup in kept.backups):
        return False
    over = (stored_bytes(kept) or 0) > rules.bytes if rules.bytes is not None else False
    return over or len(counted) >= rules.most


def _may_go(kept: ServerBackups, rules: Rules, now: datetime) -> Callable[[Backup], bool]:
    """Says which backups a rule may choose."""
    good = [backup for backup in kept.backups if backup.good]
    last = next((backup for backup in reversed(good) if backup.trigger in _OWN), None) or (good[-1] if good else None)
    held = {before.reference for before in kept.befores if before.where == "backup"}
    # A restore writes down only at its end that it may be undone with this backup.
    recent = _ago(now, rules.undo_days + 1)

    def may_go(backup: Backup) -> bool:
        if backup.state != "done" or backup.locked or backup is last or backup.id in held:
            return False
        return backup.trigger != "before-restore" or backup.created < recent

    return may_go


def _failed(kept: ServerBackups, now: datetime) -> Iterator[Backup]:
    failed = [backup for backup in kept.backups if backup.not_made]
    old = _ago(now, FAILED_DAYS)
    for number, backup in enumerate(reversed(failed)):
        if number >= FAILED_KEPT or (backup.finished or backup.created) < old:
            yield backup


def _outlived(kept: ServerBackups, rules: Rules, now: datetime) -> Iterator[Backup]:
    """Those that an operation made for itself, and needs no more."""
    days = {"before-restore": rules.undo_days + 1, "clone": CLONE_DAYS}
    for backup in kept.backups:
        if backup.trigger in days and backup.created < _ago(now, days[backup.trigger]):
            yield backup


def _suspicious(kept: ServerBackups) -> Sequence[Backup]:
    doubtful = [backup for backup in kept.backups if backup.state == "done" and backup.doubtful and not backup.locked]
    return doubtful[:-SUSPICIOUS_KEPT]


def _beyond_keep(kept: ServerBackups, keep: Keep) -> list[Backup]:
    """The schedule's backups that neither the newest few nor those of the last hours, days and weeks need."""
    scheduled = [
        backup for backup in kept.backups if backup.good and backup.trigger == "schedule" and not backup.locked
    ]
    stays: set[str] = set()
    for number, period in ((keep.last, None), (keep.hourly, "%Y%m%d%H"), (keep.daily, "%Y%m%d"), (keep.weekly, "%G%V")):
        newest: dict[str, str] = {}
        for backup in reversed(scheduled):
            moment = datetime.fromisoformat(backup.created).astimezone(UTC)
            newest.setdefault(moment.strftime(period) if period else backup.id, backup.id)
        stays.update(list(newest.values())[:number])
    return [backup for backup in scheduled if backup.id not in stays]


def _counted(kept: ServerBackups) -> list[Backup]:
    """Those that count against the operator's bound: the good ones and the locked ones that somebody wants."""
    return [
        backup
        for backup in kept.backups
        if backup.state == "done" and backup.trigger in _OWN and (not backup.doubtful or backup.locked)
    ]


def _in_turn(kept: ServerBackups, may_go: Callable[[Backup], bool]) -> list[Backup]:
    """Those that may go, in the order in which they go: suspicious ones, a schedule's, others; each oldest first."""
    return sorted(
        filter(may_go, kept.backups),
        key=lambda backup: (not backup.doubtful, backup.trigger in _OWN, backup.trigger != "schedule"),
    )


def _beyond_most(
    kept: ServerBackups, most: int, chosen: set[str], may_go: Callable[[Backup], bool]
) -> Sequence[Backup]:
    counted = {backup.id for backup in _counted(kept)} - chosen
    candidates = [backup for backup in _in_turn(kept, may_go) if backup.id in counted]
    return candidates[: max(0, len(counted) - most)]


def _beyond_bytes(kept: ServerBackups, most: int | None, may_go: Callable[[Backup], bool]) -> list[Backup]:
    stored = stored_bytes(kept)
    if most is None or stored is None or stored <= most:
        return []
    return [backup for backup in _in_turn(kept, may_go) if backup.where == "store"][:1]


def _ago(now: datetime, days: int) -> str:
    return stamp(now - timedelta(days=days))
