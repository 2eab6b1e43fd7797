"""Idle stop, as the API shows and sets it. The controller does the rest."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from flask import Flask

from service.servers.values import idle_stopped
from tests.api.conftest import SIZES, Client
from tests.support.fakes import World

PATH = "/api/v1/server/4/"
GAME = {**SIZES, "game": "teeworlds"}
STOPPED_AT = datetime(2026, 11, 27, 2, tzinfo=UTC)
NOTHING = {"players": None, "since": None, "stops_at": None, "kept_up_by": None, "stopped_at": None}


def shown(client: Client) -> dict[str, Any]:
    """What GET says, after the list has said the same."""
    one: dict[str, Any] = client.get(PATH).json or {}
    [listed] = client.get("/api/v1/server/").json["servers"]  # type: ignore[index]
    assert listed["idle"] == one["idle"]
    return one


@pytest.mark.parametrize(
    ("default", "sent", "stored"),
    [(0, ..., None), (0, 30, 30), (30, ..., 30), (30, 60, 60), (30, None, None), (30, 0, None)],
)
def test_a_new_server_states_its_minutes(
    make_app: Callable[..., Flask], world: World, default: int, sent: Any, stored: int | None
) -> None:
    """The operator's default applies if the create does not name them. null and 0 mean never."""
    client = Client(make_app(idle_stop_default=default).test_client())
    body = GAME if sent is ... else {**GAME, "idle_stop_minutes": sent}
    assert client.post(PATH, body).status_code == 201
    assert world.values[4]["server"].get("idleStopMinutes") == stored
    assert shown(client)["idle_stop_minutes"] == stored
    # The same create again changes nothing, whatever the default is by then.
    again = Client(make_app(idle_stop_default=45).test_client())
    assert again.post(PATH, body).status_code == 200
    assert world.values[4]["server"].get("idleStopMinutes") == stored


def test_a_create_that_names_other_minutes_differs(client: Client) -> None:
    """As with every other field."""
    client.post(PATH, {**GAME, "idle_stop_minutes": 30})
    answer = client.post(PATH, {**GAME, "idle_stop_minutes": 60})
    assert answer.status_code == 409
    assert answer.json is not None
    assert list(answer.json["errors"]) == ["idle_stop_minutes"]


def test_a_change_never_restarts_the_game(client: Client, world: World) -> None:
    """It does not concern the pod. What the change does not name stays."""
    client.post(PATH, GAME)
    for sent, stored in ((30, 30), (30, 30), (60, 60), (None, None), (20, 20), (0, None)):
        pod = world.pods[4]
        answer = client.patch(PATH, {"idle_stop_minutes": sent})
        assert answer.json == {"success": True, "restarting": False}
        assert shown(client)["idle_stop_minutes"] == stored
        assert world.values[4]["server"].get("idleStopMinutes") == stored
        assert pod["metadata"] == world.pods[4]["metadata"]
    client.patch(PATH, {"idle_stop_minutes": 30})
    assert client.patch(PATH, {"ram_gb": 3}).json == {"success": True, "restarting": True}
    assert shown(client)["idle_stop_minutes"] == 30


@pytest.mark.parametrize("minutes", [-1, 9, 1441, 30.0, "30", True, 2**70])
def test_minutes_beyond_the_operators_bounds_are_refused(client: Client, minutes: object) -> None:
    """In a create and in a change."""
    client.post(PATH, GAME)
    for answer in (
        client.post("/api/v1/server/5/", {**GAME, "idle_stop_minutes": minutes}),
        client.patch(PATH, {"idle_stop_minutes": minutes}),
    ):
        assert answer.status_code == 422
        assert answer.json is not None
        assert list(answer.json["errors"]) == ["idle_stop_minutes"]
    assert shown(client)["idle_stop_minutes"] is None


def test_the_bounds_are_the_operators(make_app: Callable[..., Flask]) -> None:
    """And the answer names them."""
    client = Client(make_app(idle_stop_min=1, idle_stop_max=5).test_client())
    answer = client.post(PATH, {**GAME, "idle_stop_minutes": 6})
    assert answer.json is not None
    assert answer.json["errors"] == {"idle_stop_minutes": ["must be null, or from 1 to 5"]}
    assert client.post(PATH, {**GAME, "idle_stop_minutes": 1}).status_code == 201


def test_what_keeps_a_server_up_is_shown(client: Client, world: World) -> None:
    """As the controller has written it, for the pod that runs now."""
    client.post(PATH, {**GAME, "idle_stop_minutes": 30})
    world.pods[4]["metadata"]["uid"] = "pod"
    unknown = {"slug": "players-unknown", "detail": "The game has not said how many players are on it."}
    assert shown(client)["idle"] == {**NOTHING, "kept_up_by": unknown}
    keeper = {"slug": "players", "detail": "3 players are on it."}
    text = {"pod": "pod", "players": 3, "since": "2026-11-27T02:00:00Z", "stops_at": None, "kept_up_by": keeper}
    world.statefulsets[4]["metadata"]["annotations"]["gameserver/idle"] = json.dumps(text)
    expected = {**NOTHING, "players": 3, "since": "2026-11-27T02:00:00Z", "kept_up_by": keeper}
    assert shown(client)["idle"] == expected
    client.patch(PATH, {"idle_stop_minutes": None})
    assert shown(client)["idle"] is None


def test_a_game_that_cannot_be_asked_says_so(client: Client) -> None:
    """The option may be set, and does nothing."""
    client.post(PATH, {**SIZES, "game": "luanti", "idle_stop_minutes": 30})
    keeper = {"slug": "cannot-be-asked", "detail": "The game cannot be asked how many players are on it."}
    assert shown(client)["idle"] == {**NOTHING, "kept_up_by": keeper}


def test_a_server_that_was_stopped_for_it_says_so_until_it_starts(client: Client, world: World) -> None:
    """A start, a restart, or a stop by its customer removes the time."""
    client.post(PATH, {**GAME, "idle_stop_minutes": 30})
    for verb in ("start", "restart"):
        world.values[4] = idle_stopped(world.values[4], STOPPED_AT)
        world.apply(4, world.values[4])
        one = shown(client)
        assert (one["state"], one["reason"]) == ("stopped", "It was stopped because nobody was playing.")
        assert one["idle"] == {**NOTHING, "stopped_at": "2026-11-27T02:00:00Z"}
        # It is stopped already, so this changes nothing.
        client.patch(f"{PATH}stop")
        assert shown(client)["idle"] == {**NOTHING, "stopped_at": "2026-11-27T02:00:00Z"}
        client.patch(f"{PATH}{verb}")
        assert "idleStopped" not in world.values[4]["server"]
        client.patch(f"{PATH}stop")
        assert (shown(client)["reason"], shown(client)["idle"]) == (None, NOTHING)
