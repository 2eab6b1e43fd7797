"""Commands reach games by other ways than RCON: an external console, and standard input."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from service.console import stdin
from service.errors import StartupError
from service.operations import console
from tests.api.conftest import SIZES, Client
from tests.support.econ_game import HERE, EconGame, econ_game
from tests.support.fakes import TIME, World
from tests.support.stdin_game import StdinGame

PATH = "/api/v1/server/1"
SHELL = {
    "game.yaml": "name: shell\ntitle: Shell\ndescription: It reads lines.\nconsole: {kind: stdin}\n",
    "values.yaml.j2": (
        "ports:\n  - {name: primary, port: 4000, protocol: TCP}\nrcon: {enabled: false}\n"
        "probe: {command: ['true']}\nheap: {environmentVariable: ''}\n"
    ),
    "options.schema.json": json.dumps({"type": "object", "additionalProperties": False, "properties": {}}),
}


def games_dir(folder: Path) -> Path:
    """A folder with a game that reads commands from its standard input."""
    folder = folder / "games"
    folder.mkdir()
    for name, text in SHELL.items():
        (folder / f"shell.{name}").write_text(text)
    return folder


def made_with(world: World, id: int, **container: Any) -> None:
    """The server's game runs, in a container with these fields."""
    world.run(id)
    pod = world.pods[id]
    pod["metadata"]["uid"] = f"pod-{id}"
    pod["spec"]["containers"][0] |= container
    state = {"running": {"startedAt": TIME}}
    status = {"name": "game", "containerID": f"containerd://{id}", "state": state}
    pod["status"] |= {"podIP": HERE, "containerStatuses": [status]}


def say(client: Client, command: str) -> TestResponse:
    return client.post(f"{PATH}/command", {"command": command})


def problem(answer: TestResponse) -> tuple[int, str]:
    assert answer.json is not None
    return answer.status_code, answer.json["type"].removeprefix("/problems/")


def made_before(world: World) -> None:
    """The server's release is one of an earlier version, in which its game had no way in."""
    world.values[1] = {key: value for key, value in world.values[1].items() if key not in ("econ", "stdin")}


# -- an external console ------------------------------------------------------------------------------------


@pytest.fixture
def game() -> Iterator[EconGame]:
    with econ_game() as game:
        yield game


def at(game: EconGame) -> list[dict[str, Any]]:
    """The ports of a container."""
    return [
        {"name": "primary", "containerPort": 8303, "protocol": "UDP"},
        {"name": "econ", "containerPort": game.port, "protocol": "TCP"},
    ]


@pytest.fixture
def teeworlds(client: Client, world: World, game: EconGame) -> Client:
    """A client, and a Teeworlds server whose console is `game`."""
    assert client.post(f"{PATH}/", {**SIZES, "game": "teeworlds"}).status_code == 201
    made_with(world, 1, ports=at(game))
    return client


def test_a_command_reaches_an_external_console(teeworlds: Client, world: World, game: EconGame) -> None:
    """A new server has one, with the password that the chart has made. The answer has no control characters."""
    assert world.values[1]["econ"] == {"enabled": True}
    game.answers["status"] = ["[server]: id=0 name='\x1b[31mAda\x07'"]
    answer = say(teeworlds, "status")
    assert answer.json == {"success": True, "output": "[15:18:53][server]: id=0 name='Ada'", "truncated": False}
    assert game.said == ["status"]


def test_a_console_that_hangs_is_given_up(teeworlds: Client, game: EconGame, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "SECONDS", 0.5)
    game.hangs = True
    assert problem(say(teeworlds, "status")) == (504, "game-does-not-answer")


def test_a_console_may_refuse_its_password(teeworlds: Client, game: EconGame) -> None:
    """Somebody has changed it in the game."""
    game.password = "another"
    answer = say(teeworlds, "status")
    assert problem(answer) == (502, "console-failed")
    assert "another" not in answer.get_data(as_text=True)


def test_a_pod_made_before_has_a_console_after_its_next_start(teeworlds: Client, world: World, game: EconGame) -> None:
    """Nothing restarts for it: a stop and a start give it one, and so does a restart."""
    made_before(world)
    made_with(world, 1, ports=at(game)[:1])
    answer = say(teeworlds, "status")
    assert problem(answer) == (409, "no-console-yet")
    assert "after the next start" in str(answer.json)
    assert teeworlds.patch(f"{PATH}/start").status_code == 200
    assert "econ" not in world.values[1]
    assert teeworlds.patch(f"{PATH}/stop").status_code == 200
    assert "econ" not in world.values[1]
    assert teeworlds.patch(f"{PATH}/start").status_code == 200
    assert world.values[1]["econ"] == {"enabled": True}
    made_before(world)
    assert teeworlds.patch(f"{PATH}/restart").status_code == 200
    assert world.values[1]["econ"] == {"enabled": True}
    made_with(world, 1, ports=at(game))
    assert say(teeworlds, "status").status_code == 200


def test_an_operator_may_turn_a_console_off(
    teeworlds: Client, world: World, make_app: Callable[..., Flask], game: EconGame, tmp_path: Path
) -> None:
    """For one server or for all of a game; no start turns it on again."""
    made_with(world, 1, ports=at(game)[:1])
    world.values[1]["econ"] = {"enabled": False}
    assert problem(say(teeworlds, "status")) == (501, "no-console")
    assert teeworlds.patch(f"{PATH}/restart").status_code == 200
    assert world.values[1]["econ"] == {"enabled": False}
    made_before(world)
    file = tmp_path / "server-values.yaml"
    file.write_text("games: {teeworlds: {econ: {enabled: false}}}\n")
    client = Client(make_app(server_values_file=file).test_client())
    made_with(world, 1, ports=at(game)[:1])
    assert problem(say(client, "status")) == (501, "no-console")
    assert client.patch(f"{PATH}/restart").status_code == 200
    assert world.values[1]["econ"] == {"enabled": False}
    assert game.said == []


def test_a_console_has_a_port_of_its_own(make_app: Callable[..., Flask], tmp_path: Path) -> None:
    """An operator whose values give it to the game learns that at once, and not at a customer's create."""
    file = tmp_path / "server-values.yaml"
    file.write_text("games: {teeworlds: {rcon: {enabled: true, port: 8304}}}\n")
    with pytest.raises(StartupError, match="uses 8304/TCP or the name econ for another port"):
        make_app(server_values_file=file)


# -- standard input -----------------------------------------------------------------------------------------


@pytest.fixture
def input(world: World) -> StdinGame:
    game = StdinGame()
    world.inputs[1] = game.attach
    return game


@pytest.fixture
def shell(make_app: Callable[..., Flask], world: World, input: StdinGame, tmp_path: Path) -> Client:
    """A client, and a server of an operator's own game, which reads lines."""
    client = Client(make_app(games_dir=games_dir(tmp_path), console_stdin=True).test_client())
    assert client.post(f"{PATH}/", {**SIZES, "game": "shell"}).status_code == 201
    made_with(world, 1, stdin=True)
    return client


def test_a_command_is_a_line_of_standard_input(shell: Client, world: World, input: StdinGame) -> None:
    """What the game writes then is the output. Each command closes its connection."""
    assert world.values[1]["stdin"] is True
    for line in ("say hi", "say {{ x }} $(y) ; z"):
        answer = say(shell, line)
        assert answer.json == {"success": True, "output": f"got {line}\n", "truncated": False}
    assert input.said == ["say hi", "say {{ x }} $(y) ; z"]
    assert input.closed == 2


def test_a_pod_without_standard_input_has_it_after_its_next_start(
    shell: Client, world: World, input: StdinGame
) -> None:
    made_before(world)
    made_with(world, 1)
    assert problem(say(shell, "say hi")) == (409, "no-console-yet")
    assert shell.patch(f"{PATH}/stop").status_code == 200
    assert shell.patch(f"{PATH}/start").status_code == 200
    assert world.values[1]["stdin"] is True
    world.values[1]["stdin"] = False
    made_with(world, 1)
    assert problem(say(shell, "say hi")) == (501, "no-console")
    assert input.said == []


def test_a_game_that_cannot_be_reached_gets_nothing(shell: Client, world: World, input: StdinGame) -> None:
    """Its pod may have become another one meanwhile."""
    del world.inputs[1]
    answer = say(shell, "say hi")
    assert problem(answer) == (502, "console-failed")
    assert input.said == []


def test_kubernetes_may_not_connect_in_time(shell: Client, world: World, input: StdinGame) -> None:
    """Then the game has not got the command, and the answer says so."""

    def hangs(seconds: float) -> Any:
        raise TimeoutError

    world.inputs[1] = hangs
    answer = say(shell, "say hi")
    assert problem(answer) == (504, "game-does-not-answer")
    assert answer.json is not None
    assert "has not got the command" in answer.json["detail"]


def test_a_game_that_reads_nothing_hangs_nobody(
    shell: Client, input: StdinGame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its input takes the line, and it writes nothing: the answer is empty, and soon."""
    monkeypatch.setattr(stdin, "FIRST_SECONDS", 0.05)
    input.answer = lambda line: iter(())
    assert say(shell, "say hi").json == {"success": True, "output": "", "truncated": False}


def test_standard_input_needs_the_operators_consent(make_app: Callable[..., Flask], tmp_path: Path) -> None:
    """The API would otherwise lack the right, and every command would fail."""
    with pytest.raises(StartupError, match=r"CONSOLE_STDIN: the game shell .* console\.stdin"):
        make_app(games_dir=games_dir(tmp_path))


def test_the_text_of_a_line_is_in_no_log(shell: Client, input: StdinGame, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    assert say(shell, "login hunter2").status_code == 200
    assert "hunter2" not in str([vars(record) for record in caplog.records])
