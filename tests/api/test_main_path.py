"""The main calls and their exact answers."""

from __future__ import annotations

from unittest.mock import ANY

from tests.api.conftest import SIZES, Client
from tests.support.fakes import TIME, World
from tests.support.games import MINECRAFT


def test_healthcheck_is_exactly_alive(client: Client) -> None:
    """It needs no token and does not touch the cluster."""
    answer = client.flask.get("/healthcheck")
    assert (answer.status_code, answer.json) == (200, {"alive": True})


def test_a_server_from_creation_to_deletion(client: Client, world: World) -> None:
    """A server can be created, read, stopped, started, restarted and deleted."""
    answer = client.post("/api/v1/server/4711/", SIZES)
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
        "stop": {"delayVariable": "STOP_SERVER_ANNOUNCE_DELAY", "durationVariable": "STOP_DURATION"},
        "environment": {**MINECRAFT, "VERSION": "1.21.4"},
    }
    assert client.get("/api/v1/server/4711/").json == {
        "success": True,
        "id": 4711,
        "game": "minecraft",
        "ram_gb": 2,
        "disk_gb": 10,
        "disk": {"size_gb": 10, "used_gb": None, "as_of": None, "enforced": None},
        "options": {},
        "wanted": "running",
        "state": "running",
        "reason": None,
        "since": TIME,
        "suspended": None,
        "operation": None,
        "notes": [],
        "idle_stop_minutes": None,
        "backup_keep": None,
        "players": None,
        "usage": None,
        "idle": None,
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


def test_repeating_a_create_changes_nothing_even_if_the_server_was_stopped(client: Client, world: World) -> None:
    """It works with and without the last slash, and without a redirect."""
    client.post("/api/v1/server/1/", SIZES)
    client.patch("/api/v1/server/1/stop")
    world.history.clear()
    for path in ("/api/v1/server/1/", "/api/v1/server/1"):
        answer = client.post(path, SIZES)
        assert (answer.status_code, answer.json) == (200, {"success": True})
    assert (world.history, world.values[1]["replicas"]) == ([], 0)


def test_repeating_a_start_or_a_stop_does_nothing(client: Client, world: World) -> None:
    """Both calls are idempotent."""
    client.post("/api/v1/server/1/", SIZES)
    client.patch("/api/v1/server/1/start")
    client.patch("/api/v1/server/1/stop")
    client.patch("/api/v1/server/1/stop")
    assert world.history == [("install", 1), ("change", 1)]
