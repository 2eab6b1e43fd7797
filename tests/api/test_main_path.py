"""The seed's contract, to the letter."""

from __future__ import annotations

from unittest.mock import ANY

from tests.api.conftest import Client
from tests.support.fakes import TIME, World
from tests.support.games import MINECRAFT

MADE = {"ram_gb": 2, "disk_gb": 10}


def test_healthcheck_is_exactly_alive(client: Client) -> None:
    """Without a token, and touching nothing."""
    answer = client.flask.get("/healthcheck")
    assert (answer.status_code, answer.json) == (200, {"alive": True})


def test_a_server_from_creation_to_deletion(client: Client, world: World) -> None:
    """create, look, port, stop, start, restart, delete."""
    answer = client.post("/api/v1/server/4711/", MADE)
    assert (answer.status_code, answer.json) == (201, {"success": True})
    assert world.values[4711] == {
        "game": "minecraft",
        "server": {"id": "4711", "uid": ANY, "customer": "", "options": {}},
        "replicas": 1,
        "ramGb": 2,
        "diskGb": 10,
        "rcon": {"visibility": "public"},
        "ports": [{"name": "primary", "port": 25565, "protocol": "TCP"}],
        "heap": {"environmentVariable": "MEMORY"},
        "terminationGracePeriodSeconds": 120,
        "environment": {**MINECRAFT, "VERSION": "1.21.4"},
    }
    assert client.get("/api/v1/server/4711/").json == {
        "success": True,
        "id": 4711,
        "game": "minecraft",
        "ram_gb": 2,
        "disk_gb": 10,
        "options": {},
        "wanted": "running",
        "state": "running",
        "reason": None,
        "since": TIME,
        "host": "203.0.113.7",
        "ports": {
            "primary": {"port": 31001, "protocol": "TCP", "host": "203.0.113.7"},
            "rcon": {"port": 31002, "protocol": "TCP", "host": "203.0.113.7"},
        },
    }
    port = {"success": True, "port": 31001, "protocol": "TCP", "host": "203.0.113.7"}
    assert client.patch("/api/v1/server/4711/port/primary").json == port
    assert client.get("/api/v1/server/4711/port/primary").json == port
    assert client.patch("/api/v1/server/4711/stop").json == {"success": True}
    stopped = client.get("/api/v1/server/4711/").json
    assert stopped is not None
    assert (stopped["state"], stopped["wanted"]) == ("stopped", "stopped")
    assert client.patch("/api/v1/server/4711/start").json == {"success": True}
    assert client.patch("/api/v1/server/4711/port/primary").json == port
    assert client.patch("/api/v1/server/4711/restart").json == {"success": True}
    assert world.values[4711]["restartedAt"].endswith("Z")
    assert client.delete("/api/v1/server/4711/").json == {"success": True}
    assert client.get("/api/v1/server/4711/").status_code == 404
    assert list(world.claims) == [4711]


def test_the_same_create_again_changes_nothing_even_if_stopped_since(client: Client, world: World) -> None:
    """With or without the last slash, and without a redirect."""
    client.post("/api/v1/server/1/", MADE)
    client.patch("/api/v1/server/1/stop")
    world.history.clear()
    for path in ("/api/v1/server/1/", "/api/v1/server/1"):
        answer = client.post(path, MADE)
        assert (answer.status_code, answer.json) == (200, {"success": True})
    assert (world.history, world.values[1]["replicas"]) == ([], 0)


def test_start_and_stop_again_do_nothing(client: Client, world: World) -> None:
    """Both are idempotent."""
    client.post("/api/v1/server/1/", MADE)
    client.patch("/api/v1/server/1/start")
    client.patch("/api/v1/server/1/stop")
    client.patch("/api/v1/server/1/stop")
    assert world.history == [("install", 1), ("change", 1)]
