"""Who plays on a server, as `GET` and the list show it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

from service.players import known
from service.players.query import Crowd
from service.servers.consumption import Consumption
from tests.api.conftest import SIZES, Client
from tests.docs.snippets import block
from tests.support.fakes import World
from tests.support.waiting import until

PATH = "/api/v1/server/4/"


def shown(client: Client) -> Any:
    """What GET says; the list says the same."""
    one: dict[str, Any] = client.get(PATH).json or {}
    [listed] = client.get("/api/v1/server/").json["servers"]  # type: ignore[index]
    assert listed["players"] == one["players"]
    return one["players"]


def runs(client: Client, world: World) -> None:
    """Let a server run whose pod has an address, which nobody answers."""
    client.post(PATH, {**SIZES, "game": "teeworlds"})
    pod = world.pods[4]
    pod["metadata"]["uid"] = "pod"
    pod["status"]["podIP"] = "127.0.0.1"
    pod["spec"]["containers"][0]["ports"] = [{"name": "primary", "containerPort": 1, "protocol": "UDP"}]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What the game was asked; it answers."""
    questions: list[tuple[Any, ...]] = []

    def answer(*question: Any) -> Crowd:
        questions.append(question)
        return Crowd(1, 16, ("nameless tee",))

    monkeypatch.setattr(known, "crowd", answer)
    return questions


def test_who_plays_is_shown(asked: list[tuple[Any, ...]], client: Client, world: World) -> None:
    """Both calls make one question."""
    runs(client, world)
    until(lambda: client.get(PATH).get_json()["players"] is not None, 20)
    players = shown(client)
    assert players == {"online": 1, "max": 16, "names": ["nameless tee"], "as_of": players["as_of"]}
    assert asked == [("teeworlds", "127.0.0.1", 1, known.ASK_SECONDS)]
    client.patch(f"{PATH}stop")
    assert shown(client) is None


def test_who_plays_is_shown_as_written(
    monkeypatch: pytest.MonkeyPatch, make_app: Callable[..., Flask], world: World
) -> None:
    """In docs/api.md."""
    documented = json.loads("{" + block("docs/api.md", '"players": {"online"') + "}")["players"]
    said = Crowd(documented["online"], documented["max"], tuple(documented["names"]))
    monkeypatch.setattr(known, "crowd", lambda *question: said)
    monkeypatch.setattr(known, "stamp", lambda moment: documented["as_of"])
    client = Client(make_app().test_client())
    runs(client, world)
    until(lambda: client.get(PATH).get_json()["players"] is not None, 20)
    assert shown(client) == documented


def test_what_the_game_uses_is_shown(client: Client, world: World) -> None:
    """As docs/api.md shows it; null while it is unknown."""
    documented = json.loads("{" + block("docs/api.md", '"usage": {"memory_gb"') + "}")["usage"]
    runs(client, world)
    for stored, expected in ((None, None), (Consumption(**documented), documented)):
        if stored is not None:
            world.consumption[4] = stored
        [listed] = client.get("/api/v1/server/").get_json()["servers"]
        assert client.get(PATH).get_json()["usage"] == listed["usage"] == expected


def test_a_game_that_does_not_answer_is_unknown(client: Client, world: World) -> None:
    """Never 0: nobody listens at that port."""
    runs(client, world)
    for _ in range(3):
        assert shown(client) is None


def test_a_game_that_cannot_be_asked_is_unknown(client: Client) -> None:
    """As one that has no `query`."""
    client.post(PATH, {**SIZES, "game": "luanti"})
    assert shown(client) is None
