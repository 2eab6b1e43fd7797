"""Minecraft's options and the files that the game keeps: an option that is removed has no effect any more."""

import json
from collections.abc import Callable

from mcstatus import JavaServer

from tests.cluster import world
from tests.cluster.conftest import SERVERS_NAMESPACE, Cluster
from tests.support.waiting import until


def file(cluster: Cluster, server: int, name: str, text: str | None = None) -> str:
    """The content of a file in /data of a running server, written first if `text` is given."""
    game = ["kubectl", "-n", SERVERS_NAMESPACE, "exec", "-i", f"server-{server}-0", "--"]
    if text is not None:
        cluster.run(*game, "tee", f"/data/{name}", stdin=text)
    return cluster.run(*game, "cat", f"/data/{name}")


def names(cluster: Cluster, server: int, name: str) -> list[str]:
    """The names in one of the game's JSON lists of players."""
    return [entry["name"] for entry in json.loads(file(cluster, server, name))]


def properties(cluster: Cluster, server: int) -> dict[str, str]:
    """The settings in the game's server.properties."""
    lines = file(cluster, server, "server.properties").splitlines()
    return dict(line.split("=", 1) for line in lines if not line.startswith("#"))


def max_players(cluster: Cluster, server: int) -> int:
    """How many may play, as a player's client sees it."""
    port = cluster.done("PATCH", f"/api/v1/server/{server}/port/primary")
    seen: list[int] = []

    def answered() -> bool:
        seen.append(JavaServer(port["host"], port["port"], timeout=5).status().players.max)
        return True

    # A busy machine may need several tries.
    until(answered, 30, "the game does not answer", not_yet=(OSError,))
    return seen[0]


def test_removed_options_have_no_effect_and_other_settings_stay(
    cluster: Cluster, new_server: Callable[[], int]
) -> None:
    """A player taken off a list loses its rights, a removed switch gets the game's default, and the whitelist is off.

    Other settings stay as the customer wrote them, except address and port, which could shut players out.
    """
    server = new_server()
    options = {"ops": ["Ada", "Eve"], "whitelist": ["Ada", "Steve"], "pvp": False, "max_players": 5}
    cluster.create(server, options=options)
    cluster.until_state(server, "running")
    assert (names(cluster, server, "ops.json"), names(cluster, server, "whitelist.json")) == (
        ["Ada", "Eve"],
        ["Ada", "Steve"],
    )
    first = properties(cluster, server)
    assert (first["pvp"], first["max-players"], first["white-list"]) == ("false", "5", "true")

    mine = "allow-flight=true\nserver-ip=127.0.0.1\nserver-port=4\nenable-status=false\nrcon.port=5\n"
    file(cluster, server, "server.properties", mine + "pvp=false\nmax-players=5\nwhite-list=true\nmine=kept\n")
    path = f"/api/v1/server/{server}"
    changes = {"ops": ["Ada"], "whitelist": None, "pvp": None, "max_players": None}
    assert cluster.done("PATCH", f"{path}/", {"options": changes}) == {"success": True, "restarting": True}
    until(lambda: cluster.status(server)["state"] != "running", 30)
    cluster.until_state(server, "running")

    assert (names(cluster, server, "ops.json"), names(cluster, server, "whitelist.json")) == (["Ada"], [])
    now = properties(cluster, server)
    assert (now["pvp"], now["max-players"], now["white-list"]) == ("true", "20", "false")
    assert (now["allow-flight"], now["mine"]) == ("true", "kept")
    assert max_players(cluster, server) == 20
    assert "players online" in world.console(cluster, server, "list")
