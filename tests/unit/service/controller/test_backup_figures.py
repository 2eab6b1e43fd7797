"""How backups are, in numbers."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.backups.records import Backup, Repository, ServerBackups
from service.controller.backup_figures import figures
from service.kube.times import stamp
from service.servers.objects import ServerObjects
from service.settings import Settings
from service.telemetry import metrics

NOW = datetime(2026, 11, 27, 12, 30, tzinfo=UTC)


def ago(**time: float) -> str:
    return stamp(NOW - timedelta(**time))


def server(id: int, since: str, suspended: bool = False, **schedule: Any) -> ServerObjects:
    """A server with a schedule that backs it up at each full hour."""
    values = {
        "cron": "0 * * * *",
        "timezone": "UTC",
        "steps": [{"backup": {}}],
        "onlyWhen": "",
        "enabled": True,
        "by": {"token": "shop", "since": since, "scopes": ["backup:create"]},
        **schedule,
    }
    record = {"uid": f"uid-{id}", "game": "teeworlds", "ram_gb": 1, "disk_gb": 1, "options": {}, "customer": ""}
    if suspended:
        record["suspended"] = {"reason": "Unpaid.", "since": since}
    annotations = {"gameserver/server": json.dumps(record), "gameserver/schedules": json.dumps({"hourly": values})}
    return ServerObjects(id, {"metadata": {"name": f"server-{id}", "annotations": annotations}})


def kept(id: int, *backups: Backup, deleted: str | None = None, **repository: Any) -> ServerBackups:
    return ServerBackups(f"uid-{id}", id, "", deleted=deleted, repository=Repository(**repository), backups=backups)


def backup(at: str, **fields: Any) -> Backup:
    return Backup(f"b-{at}", at, **{"state": "done", "where": "store", "finished": at, **fields})


@pytest.mark.parametrize(
    ("objects", "backups", "hours"),
    [
        # The one of 09:00 was due first.
        (server(1, ago(hours=4)), [], 3.5),
        (server(1, ago(hours=4)), [backup(ago(hours=1.4))], 0.5),
        (server(1, ago(hours=4)), [backup(ago(hours=1.4), suspicious="empty")], 3.5),
        (server(1, ago(hours=4)), [backup(ago(hours=1.4), suspicious="empty", accepted=True)], 0.5),
        (server(1, ago(hours=4)), [backup(ago(hours=1.4), state="failed")], 3.5),
        (server(1, ago(hours=4)), [backup(ago(minutes=10))], 0.0),
        (server(1, ago(hours=4), suspended=True), [], 0.0),
        (server(1, ago(hours=4), enabled=False), [], 0.0),
        (server(1, ago(hours=4), onlyWhen="running"), [], 0.0),
        (server(1, ago(hours=4), steps=[{"restart": {}}]), [], 0.0),
    ],
)
def test_how_long_a_backup_is_overdue(objects: ServerObjects, backups: list[Backup], hours: float) -> None:
    found = figures([kept(1, *backups)], [objects], Settings(), NOW)
    assert max(0.0, found.overdue["backup"]) == pytest.approx(hours * 3600)


def test_all_numbers() -> None:
    good = backup(ago(days=50))
    all_kept = [
        kept(1, good, made=ago(days=40), pruned_at=ago(days=2), stored_bytes=5, fault="Damaged."),
        kept(2, good, made=ago(days=40), proof={"at": ago(days=32), "found": "It differs."}, pruned_at=ago(hours=1)),
        kept(3, good, made=ago(days=40), proof={"at": ago(days=1), "postponed": ago(hours=1)}, pruned_at=ago(hours=1)),
        # Nobody needs the proof of a server that is gone, or of one without a good backup.
        kept(4, good, made=ago(days=90), pruned_at=ago(hours=1), deleted=ago(days=1), stored_bytes=7),
        kept(6, backup(ago(days=1), state="cancelled")),
        kept(5, made=ago(days=90), pruned_at=ago(hours=1), task={"kind": "forget", "name": "keep-1", "since": ago()}),
    ]
    found = figures(all_kept, [], Settings(backup_store={"kind": "folder"}), NOW)
    # The store was switched off.
    assert figures(all_kept, [], Settings(), NOW).overdue == {"backup": 0.0, "proof": 0.0, "prune": 0.0}
    assert found.states == {"done": 4, "cancelled": 1}
    assert found.stored_bytes == 12
    assert found.overdue == {"backup": 0.0, "proof": 10 * 86400, "prune": 86400}
    assert (found.damaged, found.postponed, found.tasks) == (2, 1, {"forget": 1})
    metrics.show_backups(lambda: found)
    assert metrics.REGISTRY.get_sample_value("gameserver_backups", {"state": "done"}) == 4
    assert metrics.REGISTRY.get_sample_value("gameserver_backups", {"state": "cancelled"}) == 1
    assert metrics.REGISTRY.get_sample_value("gameserver_backups_overdue_seconds", {"what": "prune"}) == 86400
    assert metrics.REGISTRY.get_sample_value("gameserver_backups_damaged") == 2
    assert metrics.REGISTRY.get_sample_value("gameserver_backups_jobs", {"kind": "forget"}) == 1
    assert metrics.REGISTRY.get_sample_value("gameserver_backup_events_total", {"type": "backup-failed"}) is not None
