"""A start means: make it run. And answers about what is missing are true."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.conftest import Client
from tests.support.fakes import TIME, World

OK = {"ram_gb": 2, "disk_gb": 10}
URL = "/api/v1/server/1/"
CRASHED = {"containerStatuses": [{"name": "game", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}
REFUSED = {"reason": "FailedCreate", "message": "create Pod failed error: exceeded quota: small"}


def again(client: Client, way: str) -> None:
    answer = client.patch(f"{URL}start") if way == "start" else client.post(URL, OK)
    assert (answer.status_code, answer.json) == (200, {"success": True})


ways = pytest.mark.parametrize("way", ["start", "create"])


@ways
def test_a_pod_that_waits_out_a_back_off_is_tried_at_once(client: Client, world: World, way: str) -> None:
    """Crashed, or refused: the pod's template changes, so Kubernetes makes it anew."""
    client.post(URL, OK)
    world.pods[1]["status"] = CRASHED
    again(client, way)
    assert world.values[1]["restartedAt"].endswith("Z")
    assert world.history == [("install", 1), ("change", 1)]
    world.values[1].pop("restartedAt")
    del world.pods[1]
    world.events[1] = [REFUSED]
    again(client, way)
    assert "restartedAt" in world.values[1]


@ways
def test_a_running_server_is_not_touched(client: Client, world: World, way: str) -> None:
    """Nor is one whose game hangs, or has yet to answer."""
    client.post(URL, OK)
    again(client, way)
    container = {"name": "game", "started": True, "state": {"running": {"startedAt": "2026-01-31T11:00:00Z"}}}
    world.pods[1]["status"] = {
        "conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": TIME}],
        "containerStatuses": [container],
    }
    status: Any = client.get(URL).json
    assert status["state"] == "failed"
    again(client, way)
    container["started"] = False
    again(client, way)
    assert world.history == [("install", 1)]


@ways
@pytest.mark.parametrize("name", ["server-1", "server-1-sftp"])
def test_what_is_missing_is_made_again(client: Client, world: World, way: str, name: str) -> None:
    """Whichever object it is; the game that runs goes on."""
    client.post(URL, OK)
    del world.services[name]
    again(client, way)
    assert name in world.services
    assert "restartedAt" not in world.values[1]


def test_a_stopped_server_gets_back_what_is_missing_and_stays_stopped(client: Client, world: World) -> None:
    """By its create, sent once more."""
    client.post(URL, OK)
    client.patch(f"{URL}stop")
    del world.services["server-1"]
    again(client, "create")
    assert "server-1" in world.services
    assert world.values[1]["replicas"] == 0


@pytest.mark.parametrize("type", ["primary", "rcon"])
def test_a_missing_service_is_named_with_what_mends_it(client: Client, world: World, type: str) -> None:
    """No `Retry-After`, as no waiting brings it back."""
    client.post(URL, OK)
    del world.services["server-1"]
    answer: Any = client.patch(f"{URL}port/{type}")
    assert (answer.status_code, answer.json["type"]) == (409, "/problems/object-missing")
    assert answer.json["detail"] == "The cluster has no Service server-1. A start of the server restores it."
    assert "Retry-After" not in answer.headers
    client.patch(f"{URL}start")
    assert client.patch(f"{URL}port/{type}").status_code == 200


def test_an_rcon_password_that_the_game_does_not_know_is_not_given_out(client: Client, world: World) -> None:
    """Its Secret was made anew while the game ran; a restart, or a crash later on, lets the game read it."""
    client.post(URL, OK)
    world.password_since = "2026-01-31T13:00:00Z"
    world.pods[1]["status"]["containerStatuses"] = [{"name": "game", "state": {"running": {"startedAt": TIME}}}]
    answer: Any = client.get(f"{URL}rcon")
    assert (answer.status_code, answer.json["type"]) == (409, "/problems/rcon-password-replaced")
    assert "restart" in answer.json["detail"]
    running = world.pods[1]["status"]["containerStatuses"][0]["state"]["running"]
    running["startedAt"] = "2026-01-31T13:03:00Z"
    assert client.get(f"{URL}rcon").status_code == 200
    running["startedAt"] = "2026-01-31T13:00:30Z"
    assert client.get(f"{URL}rcon").status_code == 409
    world.pods[1]["metadata"]["creationTimestamp"] = "2026-01-31T13:00:00Z"
    assert client.get(f"{URL}rcon").status_code == 200


@pytest.mark.parametrize("call", ["PATCH start", "PATCH stop", "PATCH restart", "PATCH ", "POST ", "DELETE "])
def test_a_lost_release_is_said_to_be_lost(client: Client, world: World, call: str) -> None:
    """The server is there, only Helm's record is not: no 404, and nothing is guessed."""
    client.post(URL, OK)
    del world.values[1], world.revisions[1]
    method, path = call.split(" ")
    answer: Any = client.call(method, f"{URL}{path}", OK if method == "POST" or call == "PATCH " else None)
    assert (answer.status_code, answer.json["type"]) == (409, "/problems/release-missing")
    assert "docs/operations.md" in answer.json["detail"]
