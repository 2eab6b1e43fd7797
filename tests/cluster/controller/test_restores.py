"""Restores, undos and clones on the real cluster: real games, real disks, and a real S3 store."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.conftest import Cluster
from tests.cluster.controller.worlds import Worlds, worlds_of
from tests.support.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.own_namespace]


@pytest.fixture(scope="module")
def worlds(shared_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worlds]:
    """A place with a store, and its controller."""
    folder = tmp_path_factory.mktemp("worlds")
    with (
        worlds_of(shared_cluster, folder, ACCEPTED_EULAS="minecraft") as worlds,
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
    id = worlds.place.call("POST", path, body)["operation"]["id"]
    operation: dict[str, Any] = {}

    def ended() -> bool:
        nonlocal operation
        operation = worlds.place.call("GET", f"/operation/{id}")["operation"]
        return operation["state"] in ("done", "failed", "cancelled")

    until(ended, seconds, lambda: f"{operation} {worlds.jobs()} {worlds.place.logged()[-5000:]}")
    return operation


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


def test_what_was_built_comes_back_and_goes_again(worlds: Worlds) -> None:
    """Build, back up under play, destroy, restore, see it; undo, and see the destruction."""
    worlds.place.call("POST", "/server/1/", {"game": "minecraft", "ram_gb": 1, "disk_gb": 1})
    until_running(worlds, 1)
    build(worlds, 1, "gold_block")
    backup = worlds.backed_up(worlds.server(1))
    assert backup.consistency == "game-saved"
    build(worlds, 1, "stone")
    began = time.monotonic()
    operation = accepted(worlds, "/server/1/restore", {"backup": backup.id})
    took = time.monotonic() - began
    assert operation["state"] == "done", operation
    until_running(worlds, 1)
    assert block(worlds, 1) == "gold_block"
    began = time.monotonic()
    operation = accepted(worlds, "/server/1/undo-restore", {})
    print(f"restored in {took:.1f} s, undone in {time.monotonic() - began:.1f} s")
    assert operation["state"] == "done", operation
    until_running(worlds, 1)
    assert block(worlds, 1) == "stone"
    worlds.until_tidy()
