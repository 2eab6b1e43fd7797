"""The catalogue: what a folder yields, and how a broken one is named."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.errors import StartupError
from service.games import catalogue
from service.servers.spec import ServerSpec

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


def spec(options: Mapping[str, Any]) -> ServerSpec:
    return ServerSpec("pong", 2, 10, options)


def test_a_game_is_a_folder(tmp_path: Path) -> None:
    """Its ports come from what it renders."""
    game = catalogue.load(folder(tmp_path))["pong"]
    assert (game.title, game.eula, game.ports) == ("Pong", None, ({"name": "primary", "port": 1, "protocol": "UDP"},))
    assert game.render(1, spec({"speed": 3, "title": "a"})) == {
        "ports": [{"name": "primary", "port": 1, "protocol": "UDP"}],
        "environment": {"SPEED": "3", "TITLE": "a"},
    }


def test_a_mounted_config_map_is_a_folder_of_games(tmp_path: Path) -> None:
    """With its ..data beside flat files."""
    (tmp_path / "..data").mkdir()
    (tmp_path / "pong.game.yaml").write_text(ABOUT)
    (tmp_path / "pong.values.yaml.j2").write_text(VALUES)
    (tmp_path / "pong.options.schema.json").write_text(json.dumps(SCHEMA))
    assert list(catalogue.load(catalogue.BUILT_IN, tmp_path)) == ["luanti", "minecraft", "pong", "teeworlds"]


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
    "a typo in the values": (
        {"values": VALUES + "probe:\n  comand: [x]\n"},
        "values.yaml.j2:8: probe.comand is unknown; did you mean `command`?",
    ),
    "a number where text belongs": (
        {"values": VALUES.replace("| string ", "")},
        "values.yaml.j2:3: environment.SPEED must be a string, not a whole number: write it in quotes",
    ),
    "a typo in a port": (
        {"values": VALUES.replace("protocol", "protocl")},
        "values.yaml.j2:1: ports[0].protocl is unknown; did you mean `protocol`?",
    ),
    "text where a number belongs": (
        {"values": VALUES.replace("port: 1", 'port: "1"')},
        "values.yaml.j2:1: ports[0].port must be a whole number, not a string",
    ),
    "what the create says": ({"values": VALUES + "ramGb: 4\n"}, "values.yaml.j2:7: ramGb comes from each create"),
    "the console's port": (
        {"values": VALUES.replace("UDP", "TCP") + "rcon: {port: 1}\n"},
        "values.yaml.j2:7: rcon.port uses 1/TCP for both the game and the remote console",
    ),
    "a key twice": (
        {"values": VALUES + "environment: {}\n"},
        "values.yaml.j2:5: does not render to YAML: the key environ",
    ),
    "with one option's value alone": (
        {"values": VALUES + '{% if options.get("speed") == 9 %}image: {tag: 9}{% endif %}\n'},
        "values.yaml.j2:7: image.tag must be a string, not a whole number: write it in quotes "
        '(with the options {"speed": 9})',
    ),
    "an error with one option's value alone": (
        {"values": VALUES + '{% if options.get("speed") == 9 %}x: {{ options.no | tojson }}{% endif %}\n'},
        "values.yaml.j2:7: option no is unknown; known are speed, title",
    ),
    "with little memory alone": (
        {"values": VALUES + "diskGb: {{ (8 // (server.ram_gb - 1)) | tojson }}\n"},
        "values.yaml.j2:7: ",
    ),
    "a misspelt option that is asked for": (
        {"values": VALUES.replace('"title" in', '"titel" in')},
        "values.yaml.j2:4: option titel is unknown; did you mean `title`?",
    ),
    "a misspelt option that has a default": (
        {"values": VALUES.replace('"speed"', '"sped"')},
        "values.yaml.j2:3: option sped is unknown; did you mean `speed`?",
    ),
    "a misspelt option that may be defined": (
        {"values": VALUES.replace('"title" in options', "options.titl is defined")},
        "values.yaml.j2:4: option titl is unknown; did you mean `title`?",
    ),
    "a misspelt field of the server": (
        {"values": VALUES + '{% if server["ram"] %}{% endif %}'},
        "values.yaml.j2:7: server ram is unknown; did you mean `ram_gb`?",
    ),
    "a word of the schema": (
        {"schema": {**SCHEMA, "properties": {"speed": {"type": "integer", "minimun": 1}}}},
        "options.schema.json:7: minimun is no word of JSON Schema (at properties.speed); did you mean minimum?",
    ),
    "a word further in": (
        {"schema": {**SCHEMA, "properties": {"names": {"type": "array", "items": {"patern": "x"}}}}},
        "options.schema.json:8: patern is no word of JSON Schema (at properties.names.items); did you mean pattern?",
    ),
    "an expression": (
        {"schema": {**SCHEMA, "properties": {"title": {"pattern": "("}}}},
        "options.schema.json:6: is no JSON Schema: '(' is not a 'regex'",
    ),
    "a default that does not fit": (
        {"schema": {**SCHEMA, "properties": {"speed": {"type": "integer", "default": "4"}}}},
        "options.schema.json:7: default: does not fit: '4' is not of type 'integer'",
    ),
    "required and not there": (
        {"schema": {**SCHEMA, "required": ["sped"]}},
        "options.schema.json:15: required: sped is unknown; did you mean `speed`?",
    ),
    "open schema": ({"schema": {"type": "object"}}, 'options.schema.json:1: must have "additionalProperties": false'),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_game_stops_the_start_with_file_and_line(case: str, tmp_path: Path) -> None:
    """So that an operator finds the slip at once."""
    parts, message = BROKEN[case]
    with pytest.raises(StartupError) as raised:
        catalogue.load(folder(tmp_path, **parts))
    assert str(tmp_path / "pong" / message) in str(raised.value)


def test_words_of_ones_own_can_stand_in_a_schema(tmp_path: Path) -> None:
    """A web shop may need more than JSON Schema has words for; and a reference to a part of the schema is followed."""
    schema = {
        **SCHEMA,
        "$defs": {"title": {"type": "string"}},
        "properties": {
            "speed": {"type": "integer", "default": 4, "x-label": "Speed"},
            "title": {"$ref": "#/$defs/title", "default": "a"},
        },
    }
    assert catalogue.load(folder(tmp_path, schema=schema))["pong"].schema == schema


def test_a_stray_file_among_flat_games_is_named(tmp_path: Path) -> None:
    """A typo in a ConfigMap's key would otherwise just leave a game out."""
    (tmp_path / "pong.game.yml").write_text(ABOUT)
    with pytest.raises(StartupError, match=r"pong\.game\.yml:1: is no file of a game; did you mean pong\.game\.yaml\?"):
        catalogue.load(tmp_path)


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
    assert catalogue.load(folder(tmp_path))["pong"].errors(options) == expected


def test_a_default_is_for_new_servers_and_for_options_taken_back(tmp_path: Path) -> None:
    """And for no other, as a server that is there may know nothing of it."""
    speeds = {"type": "integer", "default": 7}
    schema = {**SCHEMA, "properties": {"speed": speeds, "title": {"type": "string"}}}
    game = catalogue.load(folder(tmp_path, schema=schema))["pong"]

    def speed(options: Mapping[str, Any], **how: Any) -> object:
        return game.render(1, spec(options), **how)["environment"]["SPEED"]

    assert speed({}, new=True) == speed({}, taken_back={"speed"}) == "7"
    assert speed({}) == speed({}, taken_back={"title"}) == "1"
    assert speed({"speed": 3}, new=True) == "3"


def test_a_template_hears_what_was_taken_back(tmp_path: Path) -> None:
    """And it is tried so when the service starts."""
    values = VALUES + '{%- if "title" in taken_back %}\n  TITLE: {{ options.titel | tojson }}\n{%- endif %}\n'
    with pytest.raises(StartupError, match=r"values\.yaml\.j2:8: "):
        catalogue.load(folder(tmp_path, values=values))


@pytest.mark.parametrize("number", [1e-7, 1e21, 1.5e300, -2.5, 0.1, 3, 2**80])
def test_a_number_is_rendered_as_that_number(number: float, tmp_path: Path) -> None:
    """However JSON writes it."""
    # No value of the chart is any number whatever; how one is rendered shows in any template.
    template = catalogue._ENVIRONMENT.from_string('x: {{ options.get("speed", 1) | tojson }}\n')
    game = replace(catalogue.load(folder(tmp_path))["pong"], template=template)
    assert game.render(1, spec({"speed": number}))["x"] == number
