"""Starts restore a server, and answers name what is missing."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.conftest import SIZES, Client
from tests.support.fakes import TIME, World

URL = "/api/v1/server/1/"
CRASHED = {"containerStatuses": [{"name": "game", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}
REFUSED = {"reason": "FailedCreate", "message": "create Pod failed error: exceeded quota: small"}


def start_with(client: Client, way: str) -> None:
    """Start the server, with a start or with a repeated create."""
    answer = client.patch(f"{URL}start") if way == "start" else client.post(URL, SIZES)
    assert (answer.status_code, answer.json) == (200, {"success": True})


ways = pytest.mark.parametrize("way", ["start", "create"])


@ways
def test_a_start_ends_a_back_off(client: Client, world: World, way: str) -> None:
    """After a crash or a refusal, the pod's template changes, so Kubernetes creates a new pod at once."""
    client.post(URL, SIZES)
    world.pods[1]["status"] = CRASHED
    start_with(client, way)
    assert world.values[1]["restartedAt"].endswith("Z")
    assert world.history == [("install", 1), ("change", 1)]
    world.values[1].pop("restartedAt")
    del world.pods[1]
    world.events[1] = [REFUSED]
    start_with(client, way)
    assert "restartedAt" in world.values[1]


@ways
def test_a_start_does_not_touch_a_running_server(client: Client, world: World, way: str) -> None:
    """This includes a server whose game hangs or does not answer yet."""
    client.post(URL, SIZES)
    start_with(client, way)
    container = {"name": "game", "started": True, "state": {"running": {"startedAt": "2026-01-31T11:00:00Z"}}}
    world.pods[1]["status"] = {
        "conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": TIME}],
        "containerStatuses": [container],
    }
    status: Any = client.get(URL).json
    assert status["state"] == "failed"
    start_with(client, way)
    container["started"] = False
    start_with(client, way)
    assert world.history == [("install", 1)]


def test_a_start_of_a_server_that_somebody_else_has_scaled_is_a_conflict(client: Client, world: World) -> None:
    """With `kubectl scale` or by a tool: a 200 would say that the server runs."""
    client.post(URL, SIZES)
    client.patch(URL + "start")
    world.statefulsets[1]["spec"]["replicas"] = 0
    answer: Any = client.patch(URL + "start")
    assert (answer.status_code, answer.json["type"]) == (409, "/problems/field-conflict")


def test_a_stop_gets_through_what_somebody_else_has_scaled(client: Client, world: World) -> None:
    """A server whose customer does not pay can always be stopped."""
    client.post(URL, SIZES)
    client.patch(URL + "stop")
    world.statefulsets[1]["spec"]["replicas"] = 1
    assert client.patch(URL + "stop").status_code == 200
    assert world.statefulsets[1]["spec"]["replicas"] == 0


@ways
@pytest.mark.parametrize("name", ["server-1", "server-1-sftp"])
def test_a_start_restores_missing_objects(client: Client, world: World, way: str, name: str) -> None:
    """It restores any object, and a running game keeps running."""
    client.post(URL, SIZES)
    del world.services[name]
    start_with(client, way)
    assert name in world.services
    assert "restartedAt" not in world.values[1]


def test_a_repeated_create_restores_missing_objects_of_a_stopped_server(client: Client, world: World) -> None:
    """The server stays stopped."""
    client.post(URL, SIZES)
    client.patch(f"{URL}stop")
    del world.services["server-1"]
    start_with(client, "create")
    assert "server-1" in world.services
    assert world.values[1]["replicas"] == 0


@pytest.mark.parametrize("type", ["primary", "rcon"])
def test_a_missing_service_is_named_with_its_fix(client: Client, world: World, type: str) -> None:
    """There is no `Retry-After`, because waiting does not help."""
    client.post(URL, SIZES)
    del world.services["server-1"]
    answer: Any = client.patch(f"{URL}port/{type}")
    assert (answer.status_code, answer.json["type"]) == (409, "/problems/object-missing")
    assert (
        answer.json["detail"] == "The cluster has no Service server-1. A start of the server restores what is missing."
    )
    assert "Retry-After" not in answer.headers
    client.patch(f"{URL}start")
    assert client.patch(f"{URL}port/{type}").status_code == 200


def test_an_rcon_password_is_hidden_until_the_game_knows_it(client: Client, world: World) -> None:
    """If its Secret is created again while the game runs, the game reads it at the next start of its container."""
    client.post(URL, SIZES)
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
def test_a_missing_release_is_reported(client: Client, world: World, call: str) -> None:
    """The server exists without its release, so calls do not answer 404 and change nothing."""
    client.post(URL, SIZES)
    del world.values[1], world.revisions[1]
    method, path = call.split(" ")
    answer: Any = client.call(method, f"{URL}{path}", SIZES if method == "POST" or call == "PATCH " else None)
    assert (answer.status_code, answer.json["type"]) == (409, "/problems/release-missing")
    assert "docs/operations.md" in answer.json["detail"]
