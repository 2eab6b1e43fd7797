"""The catalogue: what a folder yields, and how a broken one is named."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import games
from service.errors import StartupError
from service.records import Record

ABOUT = "name: pong\ntitle: Pong\ndescription: Two bats.\n"
VALUES = """\
ports: [{name: primary, port: 1, protocol: UDP}]
environment:
  SPEED: {{ options.get("speed", 1) | string | tojson }}
{%- if "title" in options %}
  TITLE: {{ options.title | tojson }}
{%- endif %}
"""
SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "speed": {"type": "integer", "minimum": 1, "maximum": 9},
        "title": {"type": "string", "pattern": "^[a-z]+$"},
    },
}


def folder(where: Path, about: str = ABOUT, values: str = VALUES, schema: object = SCHEMA) -> Path:
    game = where / "pong"
    game.mkdir()
    (game / "game.yaml").write_text(about)
    (game / "values.yaml.j2").write_text(values)
    (game / "options.schema.json").write_text(schema if isinstance(schema, str) else json.dumps(schema, indent=1))
    return where


def record(options: Mapping[str, Any]) -> Record:
    return Record("pong", 2, 10, options)


def test_a_game_is_a_folder(tmp_path: Path) -> None:
    """Its ports come from what it renders."""
    game = games.load(folder(tmp_path))["pong"]
    assert (game.title, game.eula, game.ports) == ("Pong", None, ({"name": "primary", "port": 1, "protocol": "UDP"},))
    assert game.render(1, record({"speed": 3, "title": "a"})) == {
        "ports": [{"name": "primary", "port": 1, "protocol": "UDP"}],
        "environment": {"SPEED": "3", "TITLE": "a"},
    }


def test_a_mounted_config_map_is_a_folder_of_games(tmp_path: Path) -> None:
    """With its ..data beside flat files."""
    (tmp_path / "..data").mkdir()
    (tmp_path / "pong.game.yaml").write_text(ABOUT)
    (tmp_path / "pong.values.yaml.j2").write_text(VALUES)
    (tmp_path / "pong.options.schema.json").write_text(json.dumps(SCHEMA))
    assert list(games.load(games.BUILT_IN, tmp_path)) == ["luanti", "minecraft", "pong", "teeworlds"]


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "yaml": ({"about": "name: pong\ntitle: [\n"}, "game.yaml:3: is not YAML"),
    "unknown key": ({"about": ABOUT + "colour: red\n"}, "game.yaml:4: unknown key 'colour'"),
    "missing key": ({"about": "name: pong\ntitle: x\n"}, "game.yaml:1: description is missing"),
    "another name": ({"about": ABOUT.replace("pong", "ping")}, "game.yaml:1: name is 'ping'"),
    "template syntax": ({"values": VALUES + "\n{% if %}"}, "values.yaml.j2:8:"),
    "without tojson": ({"values": VALUES + "x: {{ server.id }}\n"}, "values.yaml.j2:7: every {{ }} has to end"),
    "tojson not last": ({"values": VALUES + "x: {{ server.id | tojson | upper }}\n"}, "values.yaml.j2:7: every {{ }}"),
    "misspelt option": ({"values": VALUES + "x: {{ options.sped | tojson }}\n"}, "values.yaml.j2:7:"),
    "not yaml": ({"values": VALUES + "x: ]\n"}, "values.yaml.j2:5: does not render to YAML"),
    "no primary port": ({"values": "ports: []\n"}, "values.yaml.j2:1: has no port named primary"),
    "schema json": ({"schema": '{\n"type": }'}, "options.schema.json:2: is not JSON"),
    "schema": (
        {"schema": {**SCHEMA, "properties": {"speed": {"type": "fast"}}}},
        "options.schema.json:",
    ),
    "open schema": ({"schema": {"type": "object"}}, 'options.schema.json:1: must have "additionalProperties": false'),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_game_stops_the_start_with_file_and_line(case: str, tmp_path: Path) -> None:
    """So that an operator finds the slip at once."""
    parts, message = BROKEN[case]
    with pytest.raises(StartupError) as raised:
        games.load(folder(tmp_path, **parts))
    assert str(tmp_path / "pong" / message) in str(raised.value)


def test_a_stray_file_among_flat_games_is_named(tmp_path: Path) -> None:
    """A typo in a ConfigMap's key would otherwise just leave a game out."""
    (tmp_path / "pong.game.yml").write_text(ABOUT)
    with pytest.raises(StartupError, match=r"pong\.game\.yml:1: is no file of a game"):
        games.load(tmp_path)


WRONG: dict[str, tuple[dict[str, Any], dict[str, list[str]]]] = {
    "fine": ({"speed": 3, "title": "a"}, {}),
    "unknown": ({"spedd": 3, "x": 1}, {"options.spedd": ["unknown option"], "options.x": ["unknown option"]}),
    "true": ({"speed": True}, {"options.speed": ["True is not of type 'integer'"]}),
    "float": ({"speed": 1.0}, {"options.speed": ["1.0 is not of type 'integer'"]}),
    "newline at the end": ({"title": "a\n"}, {"options.title": ["does not match ^[a-z]+$"]}),
    "too large": ({"speed": 10}, {"options.speed": ["10 is greater than the maximum of 9"]}),
}


@pytest.mark.parametrize("case", WRONG)
def test_options_are_judged_by_field(case: str, tmp_path: Path) -> None:
    """And strictly: an integer is no float, no truth, and a pattern ends at the end."""
    options, expected = WRONG[case]
    assert games.load(folder(tmp_path))["pong"].errors(options) == expected


MINECRAFT = games.load(games.BUILT_IN)["minecraft"]


def test_minecraft_speaks_the_images_variables() -> None:
    """https://docker-minecraft-server.readthedocs.io/en/latest/variables/"""
    options = {
        "version": "1.21.4",
        "type": "PAPER",
        "difficulty": "hard",
        "mode": "creative",
        "motd": "Hi",
        "max_players": 5,
        "seed": "-1",
        "whitelist": ["ada", "bob"],
        "ops": ["ada"],
        "pvp": False,
        "hardcore": True,
    }
    assert MINECRAFT.errors(options) == {}
    assert MINECRAFT.render(1, Record("minecraft", 2, 10, options)) == {
        "ports": [{"name": "primary", "port": 25565, "protocol": "TCP"}],
        "heap": {"environmentVariable": "MEMORY"},
        "terminationGracePeriodSeconds": 120,
        "environment": {
            "EULA": "TRUE",
            "STOP_SERVER_ANNOUNCE_DELAY": "10",
            "STOP_DURATION": "60",
            "VERSION": "1.21.4",
            "TYPE": "PAPER",
            "DIFFICULTY": "hard",
            "MOTD": "Hi",
            "MODE": "creative",
            "MAX_PLAYERS": "5",
            "SEED": "-1",
            "HARDCORE": "TRUE",
            "PVP": "FALSE",
            "OPS": "ada",
            "ENABLE_WHITELIST": "TRUE",
            "ENFORCE_WHITELIST": "TRUE",
            "WHITELIST": "ada,bob",
        },
    }


@given(st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=256))
def test_any_text_arrives_as_that_text(text: str) -> None:
    """Quotes, newlines, braces, `$(…)` and emoji: data, in one scalar, and nothing beside it."""
    plain = MINECRAFT.render(1, Record("minecraft", 2, 10, {}))
    values = MINECRAFT.render(1, Record("minecraft", 2, 10, {"motd": text}))
    assert values == {**plain, "environment": {**plain["environment"], "MOTD": text}}


@pytest.mark.parametrize("text", ["{{ 7*7 }}", "{% raw %}", "$(RCON_PASSWORD)", 'a"\nports: []', "😀\u2028\x7f", "<&'"])
def test_no_text_of_a_customer_is_evaluated(text: str) -> None:
    """As in Wings' CVE-2026-52855, where a placeholder of a customer's leaked a token."""
    assert MINECRAFT.render(1, Record("minecraft", 2, 10, {"motd": text}))["environment"]["MOTD"] == text


@pytest.mark.parametrize("options", [{"motd": "a\0"}, {"motd": "\x1b[0m"}, {"version": "../x"}, {"whitelist": ["a,b"]}])
def test_minecraft_refuses_what_the_image_would_misread(options: dict[str, Any]) -> None:
    """A comma would make two players of one, a path could lead elsewhere."""
    assert MINECRAFT.errors(options) != {}
