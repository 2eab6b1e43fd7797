"""What is kept about backups, over the in-memory Kubernetes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from service.backups.records import KIND, Backup, BackupStore, Before, Repository, ServerBackups, Unreadable
from service.records.store import RecordStore
from tests.support.backup_world import new_id
from tests.support.memory_kube import LabelledKube

NEW = ServerBackups("uid-1", 4711, "c1", "minecraft")


@pytest.fixture
def records() -> RecordStore:
    return RecordStore(LabelledKube(), "gameservers", KIND)


def test_everything_comes_back(records: RecordStore) -> None:
    backup = Backup(
        new_id(), "2026-11-27T04:00:00Z", name="before the update", unreadable=Unreadable(2, ("a\nb", "ü")), files=3
    )
    kept = replace(
        NEW.with_backup(backup),
        repository=Repository(made="2026-11-27T04:00:00Z", unlisted=("abc",)),
        befores=(Before("op-1", "2026-11-27T05:00:00Z", "disk", paths=("world",)),),
    )
    store = BackupStore(records)
    assert store.change("uid-1", lambda _: kept, NEW) == kept
    assert store.of("uid-1") == kept


def test_a_backup_is_removed(records: RecordStore) -> None:
    store = BackupStore(records)
    first, second = Backup(new_id(), "1"), Backup(new_id(), "2")
    store.change("uid-1", lambda kept: kept.with_backup(first).with_backup(second), NEW)
    store.change("uid-1", lambda kept: kept.without(first.id))
    assert store.of("uid-1") == NEW.with_backup(second)


def test_a_change_is_made_again_after_a_conflict(records: RecordStore) -> None:
    store = BackupStore(records)
    store.change("uid-1", lambda kept: kept, NEW)
    others = [Backup(new_id(), "1"), Backup(new_id(), "2")]

    def change(kept: ServerBackups) -> ServerBackups:
        if len(kept.backups) < len(others):
            # Another replica writes between this one's read and its write.
            store.change("uid-1", lambda now: now.with_backup(others[len(kept.backups)]))
        return kept.with_backup(Backup(mine, "3"))

    mine = new_id()
    assert {backup.id for backup in store.change("uid-1", change).backups} == {mine, *(other.id for other in others)}


def test_nothing_is_written_without_a_start(records: RecordStore) -> None:
    with pytest.raises(KeyError):
        BackupStore(records).change("uid-1", lambda kept: kept)
    assert BackupStore(records).of("uid-1") is None


def test_what_somebody_has_broken_is_left_out(records: RecordStore) -> None:
    store = BackupStore(records)
    good, bad = Backup(new_id(), "1"), new_id()
    store.change("uid-1", lambda kept: kept.with_backup(good), NEW)
    record = records.get("uid-1")
    assert record is not None
    records.change(record, {bad: "{", "repository": "[]"})
    assert store.of("uid-1") == NEW.with_backup(good)
