"""Backups on the real cluster: real games, real snapshots, and a real S3 store."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

import pytest

from service.operations.operation import Operation, Server
from tests.cluster.conftest import Cluster
from tests.cluster.controller.worlds import Worlds, give, worlds_of
from tests.support.waiting import until

pytestmark = [pytest.mark.cluster]

PHASES = ("begin", "repository", "snapshot", "ready", "copy", "record", "tidy")


@pytest.fixture
def worlds(cluster: Cluster, tmp_path: Path) -> Iterator[Worlds]:
    """A place with a store; the test starts its controllers."""
    with worlds_of(cluster, tmp_path) as worlds:
        yield worlds


def write(worlds: Worlds, id: int, text: str) -> None:
    """Have the server's disk say this."""
    worlds.kubectl("exec", f"server-{id}-0", "--", "sh", "-c", f"echo {text} > /data/mark && sync /data/mark")


def said(worlds: Worlds, server: Server, operation: Operation) -> str:
    """What the disk said when the backup was made."""
    snapshot = worlds.backup(operation).snapshot
    (path,) = [path for path in worlds.files(server, snapshot) if path.endswith("/mark")]
    return worlds.restic(server, "dump", snapshot, path).strip()


@pytest.mark.own_namespace
@pytest.mark.parametrize("kills", [10])
def test_backups_through_kills(worlds: Worlds, kills: int) -> None:
    _through_kills(worlds, kills, servers=1)


@pytest.mark.long
def test_backups_through_a_hundred_kills(worlds: Worlds) -> None:
    _through_kills(worlds, 100, servers=2)


def _through_kills(worlds: Worlds, kills: int, servers: int) -> None:
    """The controller is killed at each phase. Each backup is made, once, of the right moment, and nothing is left."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    targets = [worlds.create(id) for id in range(1, servers + 1)]
    made: list[tuple[Server, Operation, str]] = []
    with ExitStack() as stack:
        active = stack.enter_context(worlds.place.controller("active"))
        until(worlds.place.active, 60, worlds.place.logged)
        # The next one has started already, so that a kill costs no start.
        standby = stack.enter_context(worlds.place.controller("standby"))
        killed = 0
        while killed < kills:
            for server in targets:
                text = f"{len(made)}"
                write(worlds, server.id, text)
                made.append((server, worlds.accept(server), text))
            for phase in sorted(chance.sample(PHASES, k=min(kills - killed, 5)), key=PHASES.index):
                worlds.until_phase(made[-1][1], *PHASES[PHASES.index(phase) :])
                time.sleep(chance.uniform(0, 1.0))
                worlds.replaced(active)
                killed += 1
                active, standby = standby, stack.enter_context(worlds.place.controller(f"after-{killed}"))
            for _, operation, _ in made:
                assert worlds.ended(operation).state == "done"
        for server, operation, text in made:
            backup = worlds.backup(operation)
            assert (backup.state, backup.where, backup.suspicious) == ("done", "store", None)
            assert said(worlds, server, operation) == text
            (stored,) = worlds.stored(server, f"backup={backup.id}")
            assert stored["id"] == backup.snapshot
        worlds.until_tidy()


@pytest.mark.long
@pytest.mark.own_namespace
def test_a_game_is_saved_and_goes_on_at_once(worlds: Worlds) -> None:
    """Minecraft holds still for less than two seconds, and what was built before is in the backup."""
    server = worlds.create(1, "minecraft")
    with worlds.place.controller("one") as process:
        operation = worlds.accept(server)
        assert worlds.ended(operation).state == "done"
        backup = worlds.backup(operation)
        assert (backup.consistency, backup.why) == ("game-saved", None)
        assert any(path.endswith("/level.dat") for path in worlds.files(server, backup.snapshot))
        assert worlds.debt(1) is None
        log = worlds.kubectl("logs", "server-1-0", "--timestamps")
        commands = [line for line in log.splitlines() if "RCON: save-" in line]
        began, ended_at = (
            datetime.fromisoformat(re.sub(r"(\.\d{6})\d*Z", r"\1+00:00", line.split()[0]))
            for line in (commands[0], commands[-1])
        )
        assert commands[0].endswith("save-off"), log
        assert commands[-1].endswith("save-on"), log
        assert (ended_at - began).total_seconds() < 2
        # Stopped, nobody is asked.
        worlds.place.call("PATCH", "/server/1/stop")
        until(lambda: worlds.place.call("GET", "/server/1/")["state"] == "stopped", 90)
        operation = worlds.accept(server)
        assert worlds.ended(operation).state == "done"
        assert worlds.backup(operation).consistency == "stopped"
        # Wrong credentials are named, and nothing is left.
        for namespace in (worlds.place.namespace, worlds.place.environment["BACKUP_NAMESPACE"]):
            wrong = "[default]\naws_access_key_id = backups\naws_secret_access_key = wrong\n"
            give(worlds.place.cluster, namespace, "store", credentials=wrong)
        operation = worlds.accept(server)
        ended = worlds.ended(operation)
        assert (ended.state, ended.reason) == (
            "failed",
            "The store of the backups refuses the operator's credentials.",
        )
        assert worlds.backup(operation).reason == ended.reason
        worlds.until_tidy()
        process.terminate()
        process.wait(30)


@pytest.mark.own_namespace
def test_without_a_store_the_snapshot_is_the_backup(cluster: Cluster, tmp_path: Path) -> None:
    """It lives on the node, and goes when it is deleted."""
    with worlds_of(cluster, tmp_path, stored=False) as worlds, worlds.place.controller("one") as process:
        server = worlds.create(1)
        operation = worlds.accept(server)
        assert worlds.ended(operation).state == "done"
        backup = worlds.backup(operation)
        assert backup.where == "node"
        worlds.until_tidy(snapshots=1)
        assert worlds.snapshots() == [f"volumesnapshot.snapshot.storage.k8s.io/{backup.snapshot}"]
        # It does not go with its server.
        worlds.place.call("DELETE", "/server/1/?disk=erase")
        until(lambda: not worlds.get("pvc")["items"], 60)
        assert len(worlds.snapshots()) == 1
        assert worlds.ended(worlds.accept(server, "delete-backup", backup.id)).state == "done"
        assert worlds.kept(server).backups == ()
        worlds.until_tidy()
        process.terminate()
        process.wait(30)


@pytest.mark.long
def test_a_disk_without_snapshots_is_read_in_two_passes(cluster: Cluster, tmp_path: Path) -> None:
    """The game holds still for the second pass alone, which brings what has changed."""
    values = {"storage": {"className": "local-path"}}
    with worlds_of(cluster, tmp_path, values=values) as worlds, worlds.place.controller("one") as process:
        server = worlds.create(1, "minecraft")
        operation = worlds.accept(server)
        worlds.until_phase(operation, "hold", "read")
        assert worlds.ended(operation).state == "done"
        backup = worlds.backup(operation)
        assert (backup.where, backup.consistency, backup.why) == ("store", "game-saved", None)
        assert worlds.snapshots() == []
        assert worlds.debt(1) is None
        worlds.until_tidy()
        process.terminate()
        process.wait(30)


@pytest.mark.long
def test_a_store_that_is_away_is_named_and_the_game_goes_on(worlds: Worlds) -> None:
    """A store that does not answer costs no game a moment more, and its return heals everything."""
    assert worlds.store is not None
    server = worlds.create(1, "minecraft")
    with worlds.place.controller("one") as process:
        operation = worlds.accept(server)
        assert worlds.ended(operation).state == "done"
        worlds.store.stop()
        operation = worlds.accept(server)
        worlds.until_phase(operation, "copy")
        assert worlds.debt(1) is None
        ended = worlds.ended(operation, 600)
        assert (ended.state, ended.reason) == ("failed", "The store of the backups does not answer.")
        worlds.until_tidy()
        worlds.store.start()
        operation = worlds.accept(server)
        worlds.until_phase(operation, "copy")
        worlds.store.stop()
        time.sleep(5)
        worlds.store.start()
        assert worlds.ended(operation, 300).state == "done"
        assert len(worlds.stored(server, f"backup={worlds.backup(operation).id}")) == 1
        process.terminate()
        process.wait(30)


@pytest.mark.long
def test_twenty_at_once_and_those_whose_server_goes(worlds: Worlds) -> None:
    """Eight are at work, the others wait. One is cancelled, a pod is killed, a server is deleted meanwhile."""
    servers = [worlds.create(id) for id in range(1, 5)]
    with worlds.place.controller("one") as process:
        operations = [worlds.accept(servers[number % 4]) for number in range(20)]
        worlds.cancel(operations[-1])
        worlds.until_phase(operations[0], "copy", seconds=900)
        for pod in worlds.kubectl("get", "pods", "-l", "gameserver/backup-job=1", "-o", "name").split():
            worlds.kubectl("delete", pod, "--grace-period=0", "--force", "--wait=false")
        worlds.until_phase(operations[3], "copy", seconds=900)
        worlds.place.call("DELETE", "/server/4/?disk=erase")
        ended = [worlds.ended(operation, 900) for operation in operations]
        states = [each.state for each in ended]
        assert states[-1] == "cancelled"
        whole = [state for number, state in enumerate(states[:-1]) if number % 4 != 3]
        assert whole == ["done"] * len(whole), [each.reason for each in ended if each.state == "failed"]
        for number, operation in enumerate(operations):
            backup = worlds.backup(operation)
            assert backup.state == states[number]
            if backup.state == "done":
                assert len(worlds.stored(servers[number % 4], f"backup={backup.id}")) == 1
        worlds.until_tidy()
        process.terminate()
        process.wait(30)
