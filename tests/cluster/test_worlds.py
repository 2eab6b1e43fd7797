"""Worlds that outlive mistakes, by the installed API, controller and store."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.cluster import world
from tests.cluster.conftest import Cluster
from tests.support.waiting import until


def ended(cluster: Cluster, operation: str, seconds: float = 180) -> dict[str, Any]:
    """The operation once it has ended."""
    path = f"/api/v1/operation/{operation}"
    until(lambda: cluster.done("GET", path)["finished"], seconds, lambda: f"{cluster.done('GET', path)}")
    return cluster.done("GET", path)


def done(cluster: Cluster, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """What a call has begun, once it is done."""
    answer = cluster.call(method, path, body)
    assert answer.status_code in (201, 202), answer.text
    operation = ended(cluster, answer.json()["id"])
    assert operation["state"] == "done", operation
    return dict(answer.json())


def test_a_world_is_backed_up_under_play_destroyed_restored_and_the_restore_undone(
    cluster: Cluster, new_server: Callable[[], int]
) -> None:
    """A player stays joined through the backup; the block comes back, its destruction too, and a clone has it."""
    server, other = new_server(), new_server()
    path = f"/api/v1/server/{server}"
    cluster.create(server)
    cluster.until_state(server, "running")
    place = world.mark(cluster, server)
    line = f"setblock {place.replace(',', ' ')} minecraft:%s"

    with ThreadPoolExecutor(1) as player:
        stays = player.submit(world.join, cluster, server, "--stay", "10")
        made = done(cluster, "POST", f"{path}/backup", {"name": "before the mistake"})
        assert stays.result()["ended"] == "left"
    backup = cluster.done("GET", f"{path}/backup/{made['backup']}")
    assert (backup["state"], backup["consistency"]["slug"], backup["where"]["slug"]) == ("done", "game-saved", "store")
    assert backup["unreadable"]["count"] == 0
    assert backup["size_bytes"] > 0

    world.console(cluster, server, line % "air")
    assert world.block(cluster, server, place) == "air"

    done(cluster, "POST", f"{path}/restore", {"backup": made["backup"]})
    cluster.until_state(server, "running")
    assert world.block(cluster, server, place) == world.MARK

    done(cluster, "POST", f"{path}/undo-restore", {})
    cluster.until_state(server, "running")
    assert world.block(cluster, server, place) == "air"

    done(cluster, "POST", f"/api/v1/server/{other}/", {"ram_gb": 2, "disk_gb": 10, "from": {"backup": made["backup"]}})
    cluster.until_state(other, "running")
    assert world.block(cluster, other, place) == world.MARK
