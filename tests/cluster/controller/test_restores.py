"""Restores, undos and clones on the real cluster: real games, real disks, and a real S3 store."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from local.paths import ROOT
from service.backups.records import Backup
from service.operations.operation import Operation, Server
from tests.cluster.conftest import Cluster
from tests.cluster.controller.worlds import Worlds, worlds_of
from tests.support.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.own_namespace]


@pytest.fixture(scope="module")
def worlds(shared_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worlds]:
    """A place with a store, and its controller."""
    folder = tmp_path_factory.mktemp("worlds")
    with (
        worlds_of(shared_cluster, folder) as worlds,
        worlds.place.controller("one") as process,
    ):
        yield worlds
        process.terminate()
        process.wait(30)


def inside(worlds: Worlds, id: int, *command: str) -> str:
    """The output of a command in the game's container."""
    return worlds.kubectl("exec", f"server-{id}-0", "--", *command).strip()


def accepted(worlds: Worlds, path: str, body: dict[str, Any], seconds: float = 240) -> dict[str, Any]:
    """The operation that a call is accepted as, when it has ended."""
    id = worlds.place.call("POST", path, body)["id"]
    operation: dict[str, Any] = {}

    def ended() -> bool:
        nonlocal operation
        operation = worlds.place.call("GET", f"/operation/{id}")
        return operation["state"] in ("done", "failed", "cancelled")

    until(ended, seconds, lambda: f"{operation} {worlds.jobs()}")
    return operation


def world_backed_up(worlds: Worlds, server: Server) -> Backup:
    """A new backup of the server."""
    ended = worlds.ended(worlds.accept(server))
    assert (ended.state, ended.reason) == ("done", None)
    return worlds.backup(ended)


def until_running(worlds: Worlds, id: int) -> None:
    until(
        lambda: worlds.place.call("GET", f"/server/{id}/")["state"] == "running",
        180,
        lambda: str(worlds.place.call("GET", f"/server/{id}/")),
    )


def block(worlds: Worlds, id: int) -> str:
    """Which block stands where the tests build."""
    for kind in ("gold_block", "stone", "air"):
        if "Test passed" in inside(worlds, id, "rcon-cli", "execute", "if", "block", "1", "70", "0", kind):
            return kind
    return "another"


def build(worlds: Worlds, id: int, kind: str) -> None:
    assert inside(worlds, id, "rcon-cli", "setblock", "1", "70", "0", kind).startswith("Changed the block")


@pytest.mark.long
def test_what_was_built_comes_back_and_goes_again(worlds: Worlds) -> None:
    """Build, back up under play, destroy, restore, see it; undo, and see the destruction."""
    worlds.place.call("POST", "/server/1/", {"game": "minecraft", "ram_gb": 1, "disk_gb": 1})
    until_running(worlds, 1)
    build(worlds, 1, "gold_block")
    backup = world_backed_up(worlds, worlds.server(1))
    assert backup.consistency == "game-saved"
    build(worlds, 1, "stone")
    began = time.monotonic()
    operation = accepted(worlds, "/server/1/restore", {"backup": backup.id})
    took = time.monotonic() - began
    assert (operation["state"], operation["reason"]) == ("done", None)
    until_running(worlds, 1)
    assert block(worlds, 1) == "gold_block"
    began = time.monotonic()
    operation = accepted(worlds, "/server/1/undo-restore", {})
    print(f"restored in {took:.1f} s, undone in {time.monotonic() - began:.1f} s")
    assert (operation["state"], operation["reason"]) == ("done", None)
    until_running(worlds, 1)
    assert block(worlds, 1) == "stone"
    worlds.until_tidy()


def mark(worlds: Worlds, id: int) -> str:
    return inside(worlds, id, "cat", "/data/mark")


def write(worlds: Worlds, id: int, text: str) -> None:
    inside(worlds, id, "sh", "-c", f"echo {text} > /data/mark")


@pytest.fixture(scope="module")
def backed_up(worlds: Worlds) -> Backup:
    """A server with a world `new`, and a backup of a world `old`."""
    server = worlds.create(2)
    write(worlds, 2, "old")
    backup = world_backed_up(worlds, server)
    write(worlds, 2, "new")
    return backup


@pytest.mark.long
def test_a_clone_has_the_world_and_ports_of_its_own(worlds: Worlds, backed_up: Backup) -> None:
    """Of a server by a copy of its disk, in seconds; of a backup from the store."""
    body = {"ram_gb": 1, "disk_gb": 1, "game": "teeworlds"}
    began = time.monotonic()
    operation = accepted(worlds, "/server/3/", {**body, "from": {"server": 2}})
    print(f"cloned in {time.monotonic() - began:.1f} s")
    assert (operation["state"], operation["reason"]) == ("done", None)
    until_running(worlds, 3)
    assert mark(worlds, 3) == "new"
    servers = [worlds.place.call("GET", f"/server/{id}/") for id in (2, 3)]
    assert servers[0]["ports"]["primary"]["port"] != servers[1]["ports"]["primary"]["port"]
    assert worlds.server(2).uid != worlds.server(3).uid
    worlds.place.call("DELETE", "/server/3/?disk=erase")
    operation = accepted(worlds, "/server/4/", {**body, "from": {"backup": backed_up.id}})
    assert (operation["state"], operation["reason"]) == ("done", None)
    until_running(worlds, 4)
    assert mark(worlds, 4) == "old"
    worlds.place.call("DELETE", "/server/4/?disk=erase")


def test_no_game_runs_under_a_restore_and_a_delete_cancels_it(worlds: Worlds, backed_up: Backup) -> None:
    """Neither by a call nor by `helm upgrade`; and a second restore at the same time is refused."""
    first = worlds.place.call("POST", "/server/2/restore", {"backup": backed_up.id})["id"]
    operation = worlds.found(first)
    again = worlds.place.send("POST", "/server/2/restore", {"backup": backed_up.id})
    assert (again.status_code, first in again.json()["detail"]) == (409, True)
    worlds.until_phase(operation, "lay-out", "place", "start")
    refused = worlds.place.send("PATCH", "/server/2/start")
    assert refused.status_code == 409
    values = ("--reuse-values", "--set", "replicas=1")
    with suppress(AssertionError):
        # It is refused while the controller's own upgrade is at work.
        worlds.place.cluster.run(
            "helm", "-n", worlds.place.namespace, "upgrade", "server-2", str(ROOT / "charts" / "gameserver"), *values
        )
    assert worlds.ended(operation).state == "done"
    until_running(worlds, 2)
    assert mark(worlds, 2) == "old"
    write(worlds, 2, "new")


def test_a_damaged_backup_is_refused_and_the_game_runs_on(worlds: Worlds, backed_up: Backup) -> None:
    assert worlds.store is not None
    server = worlds.server(2)
    pod = worlds.get("pod", "server-2-0")["metadata"]["uid"]
    packs = [file for file in (worlds.store.objects / server.uid / "data").rglob("*") if file.is_file()]
    texts = {file: file.read_bytes() for file in packs}
    try:
        for file in packs:
            file.unlink()
        operation = accepted(worlds, "/server/2/restore", {"backup": backed_up.id})
    finally:
        for file, text in texts.items():
            file.write_bytes(text)
    assert operation["state"] == "failed"
    assert worlds.get("pod", "server-2-0")["metadata"]["uid"] == pod
    assert mark(worlds, 2) == "new"
    assert not worlds.kept(server).befores or worlds.kept(server).befores[-1].operation != operation["id"]


def kill_at_each_phase(worlds: Worlds, operation: Operation, controllers: ExitStack, process: Any) -> Any:
    """Kill the controller, and the pods of the operation's Jobs, once at each phase; returns the last controller."""
    seen: set[str] = set()
    while not (now := worlds.operation(operation)).ended:
        phase = str(now.work.get("phase"))
        if phase not in seen:
            seen.add(phase)
            worlds.replaced(process)
            pods = ("pods", "-l", f"gameserver/operation={operation.id}")
            worlds.kubectl("delete", *pods, "--force", "--grace-period=0", "--ignore-not-found", "--wait=false")
            process = controllers.enter_context(worlds.place.controller(f"{operation.id[-4:]}-{len(seen)}"))
        time.sleep(0.1)
    print(f"{len(seen)} kills: {', '.join(seen)}")
    return process


@pytest.mark.long
def test_no_world_is_lost_at_any_kill(shared_cluster: Cluster, tmp_path: Path) -> None:
    """A restore and its undo, with a kill at each of their phases."""
    killed(shared_cluster, tmp_path, 1)


@pytest.mark.long
def test_no_world_is_lost_at_a_hundred_kills(shared_cluster: Cluster, tmp_path: Path) -> None:
    killed(shared_cluster, tmp_path, 8)


def killed(cluster: Cluster, folder: Path, rounds: int) -> None:
    with worlds_of(cluster, folder) as worlds, ExitStack() as controllers:
        process = controllers.enter_context(worlds.place.controller("one"))
        server = worlds.create(1)
        write(worlds, 1, "old")
        backup = world_backed_up(worlds, server)
        write(worlds, 1, "new")
        for _ in range(rounds):
            for path, body, world in (
                ("restore", {"backup": backup.id}, "old"),
                ("undo-restore", {}, "new"),
            ):
                operation = worlds.found(worlds.place.call("POST", f"/server/1/{path}", body)["id"])
                process = kill_at_each_phase(worlds, operation, controllers, process)
                ended = worlds.operation(operation)
                assert (ended.state, ended.reason) == ("done", None)
                until_running(worlds, 1)
                assert mark(worlds, 1) == world
        assert "restoring" not in worlds.kubectl("get", "statefulset", "server-1", "-o", "json")
