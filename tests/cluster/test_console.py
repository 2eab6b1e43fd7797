"""Commands for real games."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.cluster import world
from tests.cluster.conftest import Cluster
from tests.support.waiting import until


def command(cluster: Cluster, server: int, line: str) -> dict[str, Any]:
    """The API's answer to a command."""
    return cluster.done("POST", f"/api/v1/server/{server}/command", {"command": line})


def test_a_joined_player_sees_what_a_command_does(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """The game says who is joined, and the player reads what `say` says. A game without a console says so."""
    server, other = new_server(), new_server()
    cluster.create(other, game="luanti")
    refused = cluster.call("POST", f"/api/v1/server/{other}/command", {"command": "say hi"})
    assert (refused.status_code, refused.json()["type"]) == (501, "/problems/no-console")
    cluster.create(server)
    cluster.until_state(server, "running")
    with ThreadPoolExecutor(1) as player:
        stays = player.submit(world.join, cluster, server, "--stay", "10")
        until(lambda: "visitor" in command(cluster, server, "list")["output"], 30)
        said = command(cluster, server, "say the server restarts soon")
        assert (said["success"], said["truncated"]) == (True, False)
        seen = stays.result()
    assert "the server restarts soon" in str(seen["messages"])
    assert cluster.done("PATCH", f"/api/v1/server/{server}/stop")
    cluster.until_state(server, "stopped")
    refused = cluster.call("POST", f"/api/v1/server/{server}/command", {"command": "say hi"})
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/server-not-running")
