"""Commands for a game: what reaches it, what comes back, and what is refused."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from service.console import turns
from service.operations import console
from service.telemetry.metrics import REGISTRY
from tests.api.conftest import SIZES, Client
from tests.docs.snippets import block
from tests.support.fakes import World
from tests.support.held_world import console_at
from tests.support.rcon_game import RconGame, rcon_game
from tests.support.waiting import until

PATH = "/api/v1/server/1/command"


@pytest.fixture
def game() -> Iterator[RconGame]:
    with rcon_game() as game:
        yield game


@pytest.fixture
def server(client: Client, world: World, game: RconGame) -> Client:
    """A client, and a Minecraft server whose RCON is `game`."""
    assert client.post("/api/v1/server/1/", SIZES).status_code == 201
    console_at(world, 1, game.port)
    return client


def say(client: Client, command: Any = "say hi", **more: Any) -> TestResponse:
    return client.post(PATH, {"command": command}, **more)


def problem(answer: TestResponse) -> tuple[int, str]:
    assert answer.json is not None
    return answer.status_code, answer.json["type"].removeprefix("/problems/")


def test_a_command_reaches_the_game_and_its_answer_comes_back(server: Client, game: RconGame) -> None:
    """As the game said it, without terminal escapes."""
    game.answers["list"] = "There are \x1b[31m0\x1b[0m players\r\n\tnobody\x07"
    answer = say(server, "list")
    assert answer.status_code == 200
    assert answer.json == {"success": True, "output": "There are 0 players\n\tnobody", "truncated": False}
    assert game.said == ["list"]


def test_a_long_answer_is_cut_and_says_so(server: Client, game: RconGame) -> None:
    """At 64 KiB of UTF-8, whatever the characters are."""
    for text in ("x" * 200_000, "ä" * 100_000):
        game.answers["help"] = text
        answer = say(server, "help").json
        assert answer is not None
        assert answer["truncated"]
        assert 60_000 < len(answer["output"].encode()) <= 64 * 1024
    game.answers["help"] = "x" * 60_000
    assert say(server, "help").json == {"success": True, "output": "x" * 60_000, "truncated": False}


def test_a_command_is_answered_as_written(client: Client, world: World, game: RconGame) -> None:
    """The API takes the call in docs/api.md, and answers as it shows."""
    assert client.post("/api/v1/server/4711/", SIZES).status_code == 201
    console_at(world, 4711, game.port)
    game.password, game.answers["say hi"] = "password-4711", ""
    method, path, body = block("docs/api.md", "POST /api/v1/server/4711/command").split(maxsplit=2)
    expected = json.loads(block("docs/api.md", '{"success": true, "output"'))
    assert client.call(method, path, json.loads(body)).json == expected


@pytest.mark.parametrize(
    "command",
    ["", " ", "say\nstop", "say\rstop", "\x1b[2J", "say \x85", "\0", "\ud800", "x" * 1001, "ä" * 501, None, 7],
)
def test_what_is_not_one_line_is_refused(server: Client, game: RconGame, command: Any) -> None:
    """It is named, and nothing reaches the game."""
    answer = say(server, command)
    assert problem(answer) == (422, "invalid-request")
    assert "command" in str(answer.json)
    assert game.said == []


@pytest.mark.parametrize("command", ["x" * 1000, "ä" * 500, "say ${x} {{ y }} '\"\\ 😀"])
def test_any_other_line_arrives_as_it_is(server: Client, game: RconGame, command: str) -> None:
    assert say(server, command).status_code == 200
    assert game.said == [command]


def test_ten_at_once_and_then_others_wait(server: Client, game: RconGame, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is the server's, whoever sends. Nothing of what is refused reaches the game."""
    monkeypatch.setattr(server.flask.application.extensions["gameserver"].turns, "_clock", lambda: 0.0)
    assert [say(server, f"say {number}").status_code for number in range(10)] == [200] * 10
    refused = say(server)
    assert problem(refused) == (429, "too-many-commands")
    assert refused.headers["Retry-After"] == "1"
    assert len(game.said) == 10


def test_a_game_that_does_not_run_takes_no_command(server: Client, world: World, game: RconGame) -> None:
    """Neither does one that has crashed or is stopped."""
    console_at(world, 1, game.port, terminated={"exitCode": 1})
    assert problem(say(server)) == (409, "server-not-running")
    del world.pods[1]
    assert problem(say(server)) == (409, "server-not-running")
    assert server.patch("/api/v1/server/1/stop").status_code == 200
    assert problem(say(server)) == (409, "server-not-running")
    assert game.said == []


def test_a_pod_that_a_deleted_server_left_gets_no_command(server: Client, world: World, game: RconGame) -> None:
    """It may be another customer's: it has the new server's name until its game has ended."""
    world.statefulsets[1]["metadata"]["uid"] = "new"
    world.pods[1]["metadata"]["ownerReferences"] = [{"controller": True, "uid": "old"}]
    assert problem(say(server)) == (409, "server-not-running")
    assert game.said == []


def test_a_game_that_is_not_ready_yet_does_not_run(server: Client, world: World) -> None:
    """Nobody listens at its RCON. If it is ready all the same, its console is broken."""
    with rcon_game() as ended:
        console_at(world, 1, ended.port)
    assert problem(say(server)) == (502, "console-failed")
    world.pods[1]["status"]["conditions"][0]["status"] = "False"
    assert problem(say(server)) == (409, "server-not-running")


def test_a_game_that_hangs_is_given_up(server: Client, game: RconGame, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller learns that nobody knows whether it was done. The next command is sent again."""
    monkeypatch.setattr(console, "SECONDS", 0.5)
    game.answers["hang"] = None
    answer = say(server, "hang")
    assert problem(answer) == (504, "game-does-not-answer")
    assert answer.json is not None
    assert "Nobody knows" in answer.json["detail"]
    assert say(server, "list").status_code == 200


def test_the_password_must_be_right(server: Client, game: RconGame) -> None:
    """The customer may have changed it in his files."""
    game.password = "another"
    answer = say(server)
    assert problem(answer) == (502, "console-failed")
    assert "another" not in answer.get_data(as_text=True)
    assert game.said == []


def test_commands_are_counted(server: Client, game: RconGame, monkeypatch: pytest.MonkeyPatch) -> None:
    """By outcome, those that were refused too."""

    def count(outcome: str) -> float:
        return REGISTRY.get_sample_value("gameserver_api_command_duration_seconds_count", {"outcome": outcome}) or 0.0

    outcomes = ("success", "console-failed", "too-many-commands")
    before = {outcome: count(outcome) for outcome in outcomes}
    assert say(server).status_code == 200
    game.password = "another"
    assert say(server).status_code == 502
    monkeypatch.setattr(turns, "AT_ONCE", 0)
    assert say(server).status_code == 429
    until(lambda: {outcome: count(outcome) - before[outcome] for outcome in outcomes} == dict.fromkeys(outcomes, 1.0))


def test_a_game_without_a_way_in_says_so(client: Client, world: World, game: RconGame) -> None:
    """By its folder, or because RCON is turned off for this server."""
    assert client.post("/api/v1/server/1/", {**SIZES, "game": "luanti"}).status_code == 201
    console_at(world, 1, game.port)
    assert problem(say(client)) == (501, "no-console")
    assert client.delete("/api/v1/server/1/?disk=erase").status_code == 200
    assert client.post("/api/v1/server/1/", SIZES).status_code == 201
    console_at(world, 1, game.port)
    world.pods[1]["spec"]["containers"][0]["ports"] = []
    assert problem(say(client)) == (501, "no-console")


def test_a_command_needs_its_scope_and_a_server_that_one_may_see(server: Client, game: RconGame) -> None:
    """`admin` has it, `operate` does not; another customer's server is not there."""
    assert problem(say(server, token="operator")) == (403, "missing-scope")
    assert problem(say(server, token="acme")) == (404, "server-not-found")
    assert game.said == []


@pytest.mark.parametrize("told", [False, True])
def test_the_audit_line_has_the_text_only_if_the_operator_says_so(
    server: Client, make_app: Callable[..., Flask], caplog: pytest.LogCaptureFixture, told: bool
) -> None:
    """A command may have a password in it."""
    caplog.set_level(logging.INFO)
    client = Client(make_app(audit_commands=told).test_client())
    assert say(client, "login hunter2").status_code == 200
    [fields] = [record.fields for record in caplog.records if record.name == "service.audit"]  # type: ignore[attr-defined]
    expected = {"token": "shop", "action": "send_command", "server": 1, "outcome": "ok"}
    assert fields == expected | ({"command": "login hunter2"} if told else {})
    if not told:
        assert "hunter2" not in str([vars(record) for record in caplog.records])
