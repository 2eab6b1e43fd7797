"""How backups are kept on the real cluster: pruned, checked, proven, found damaged, and gone with their server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from service.backups.records import Backup, ServerBackups
from service.kube.times import stamp
from service.operations.operation import Server
from service.settings import Keep
from tests.cluster.conftest import Cluster
from tests.cluster.controller.worlds import Worlds, worlds_of
from tests.support.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.own_namespace]


@pytest.fixture(scope="module")
def worlds(shared_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worlds]:
    """A place with a store, and its controller."""
    with worlds_of(shared_cluster, tmp_path_factory.mktemp("worlds")) as worlds:
        worlds.place.environment |= {"BACKUP_KEEP": json.dumps(vars(Keep(1, 0, 0, 0))), "BACKUP_PROOF_DAYS": "365"}
        with worlds.place.controller("one") as process:
            yield worlds
            process.terminate()
            process.wait(30)


def long_ago() -> str:
    """A time at which everything was done last that is due now."""
    return stamp(datetime.now(UTC) - timedelta(days=1000))


def backed_up(worlds: Worlds, server: Server) -> Backup:
    """A new backup of the server."""
    ended = worlds.ended(worlds.accept(server))
    assert ended.state == "done", f"{ended} {worlds.place.logged()}"
    return worlds.backup(ended)


def changed(worlds: Worlds, server: Server, **repository: Any) -> None:
    """Change what is kept about the server's repository."""
    worlds._backups.change(server.uid, lambda kept: replace(kept, repository=replace(kept.repository, **repository)))


def packs(worlds: Worlds, server: Server) -> list[Path]:
    """The files in the store that have the server's worlds."""
    assert worlds.store is not None
    return [file for file in (worlds.store.objects / server.uid / "data").rglob("*") if file.is_file()]


def jobs(worlds: Worlds) -> list[str]:
    """The Jobs that keep backups, and their pods."""
    return [job for job in worlds.jobs() if "/keep-" in job]


def until_kept(
    worlds: Worlds, server: Server, wanted: Callable[[ServerBackups], object], seconds: float = 120
) -> ServerBackups:
    """Wait until what is kept about the server's backups is as wanted."""
    until(lambda: wanted(worlds.kept(server)), seconds, lambda: f"{worlds.kept(server)} {worlds.place.logged()}")
    return worlds.kept(server)


def test_backups_are_kept(worlds: Worlds) -> None:
    server = worlds.create(1)
    first, second = backed_up(worlds, server), backed_up(worlds, server)

    # What the schedule does not keep is forgotten, and the rest is checked.
    def scheduled(kept: ServerBackups) -> ServerBackups:
        return replace(kept, backups=tuple(replace(each, trigger="schedule") for each in kept.backups))

    worlds._backups.change(server.uid, scheduled)
    kept = until_kept(worlds, server, lambda kept: kept.repository.pruned_at and not kept.repository.task)
    assert [each.id for each in kept.backups] == [second.id]
    assert [each["id"] for each in worlds.stored(server)] == [second.snapshot]
    assert first.snapshot != second.snapshot
    assert kept.repository.fault is None
    assert kept.repository.checked_at == kept.backups[0].checked_at is not None
    stored = sum(pack.stat().st_size for pack in packs(worlds, server))
    assert 0 < (kept.repository.stored_bytes or 0) <= stored * 1.1

    # A backup is restored on trial.
    changed(worlds, server, made=long_ago())
    kept = until_kept(worlds, server, lambda kept: kept.repository.proof.get("at"))
    assert kept.repository.proof == {"at": kept.backups[0].proven_at, "backup": second.id}

    # Without room for another disk that is postponed, and said.
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "full"},
        "spec": {"hard": {"persistentvolumeclaims": "1"}},
    }
    worlds.kubectl("apply", "-f", "-", stdin=json.dumps(quota))
    until(lambda: worlds.get("resourcequota", "full").get("status", {}).get("used"), 30)
    changed(worlds, server, proof={**kept.repository.proof, "at": long_ago()})
    kept = until_kept(worlds, server, lambda kept: kept.repository.task and jobs(worlds))
    changed(worlds, server, task={**kept.repository.task, "since": long_ago()})
    kept = until_kept(worlds, server, lambda kept: kept.repository.proof.get("postponed"))
    assert kept.repository.proof["reason"]
    assert kept.repository.task == {}
    worlds.kubectl("delete", "resourcequota", "full")

    # Damage is found.
    packs(worlds, server)[0].unlink()
    changed(worlds, server, pruned_at=long_ago())
    until_kept(worlds, server, lambda kept: kept.repository.fault)
    until(lambda: "proof-failed" in worlds.place.types(), 20, worlds.place.logged)
    assert [event["uid"] for event in worlds.place.events() if event["type"] == "proof-failed"] == [server.uid]
    until(lambda: not jobs(worlds), 60, lambda: f"{worlds.jobs()}")


@pytest.mark.long
def test_a_deleted_servers_backups_go_after_their_days(worlds: Worlds) -> None:
    server = worlds.create(2)
    backed_up(worlds, server)
    worlds.place.call("DELETE", "/server/2/?disk=erase")
    kept = until_kept(worlds, server, lambda kept: kept.deleted)
    assert len(kept.backups) == len(worlds.stored(server)) == 1
    until(lambda: not worlds.get("pods", "-l", "gameserver/id=2")["items"], 60)
    other = worlds.create(2)
    worlds._backups.change(server.uid, lambda kept: replace(kept, deleted=long_ago()))
    until(lambda: worlds._backups.of(server.uid) is None, 120, worlds.place.logged)
    assert worlds.stored(server) == []
    assert worlds.kubectl("get", "secret", f"backup-key-{server.uid}", "--ignore-not-found") == ""
    assert server.uid not in {each["hostname"] for each in worlds.stored(Server(0, "catalogue", ""))}
    assert worlds.server(2) == other
    assert worlds.kept(other).backups == ()
