"""The catalogue loads games from folders, and names the file and line of a mistake."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.console.commands import Command, Console, Save
from service.errors import StartupError
from service.games import catalogue
from service.players.query import Query
from service.servers.spec import ServerSpec

METADATA = "name: pong\ntitle: Pong\ndescription: Two bats.\n"
VALUES = """\
ports: [{name: primary, port: 1, protocol: UDP}]
environment:
  SPEED: {{ options.get("speed", 1) | string | tojson }}
{%- if "title" in options %}
  TITLE: {{ options.title | tojson }}
{%- endif %}
"""
CONSOLE = "console: {kind: rcon}\n"
SAVE = (
    CONSOLE
    + """\
save:
  hold:
    - {command: pause}
    - {command: write all, expect: [written, nothing to write]}
  release:
    - {command: go on, expect: going on}
  check: {command: is paused, expect: "yes"}
  seconds: 12.5
"""
)
SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "speed": {"type": "integer", "minimum": 1, "maximum": 9},
        "title": {"type": "string", "pattern": "^[a-z]+$"},
    },
}


def folder(parent: Path, metadata: str = METADATA, values: str = VALUES, schema: object = SCHEMA) -> Path:
    game = parent / "pong"
    game.mkdir()
    (game / "game.yaml").write_text(metadata)
    (game / "values.yaml.j2").write_text(values)
    (game / "options.schema.json").write_text(schema if isinstance(schema, str) else json.dumps(schema, indent=1))
    return parent


def spec(options: Mapping[str, Any]) -> ServerSpec:
    return ServerSpec("pong", 2, 10, options)


def test_a_game_is_a_folder(tmp_path: Path) -> None:
    """Its ports come from the values that it renders."""
    game = catalogue.load(folder(tmp_path))["pong"]
    assert (game.title, game.eula, game.ports) == ("Pong", None, ({"name": "primary", "port": 1, "protocol": "UDP"},))
    assert game.render(1, spec({"speed": 3, "title": "a"})) == {
        "ports": [{"name": "primary", "port": 1, "protocol": "UDP"}],
        "environment": {"SPEED": "3", "TITLE": "a"},
    }


def test_a_mounted_config_map_is_a_folder_of_games(tmp_path: Path) -> None:
    """It has flat files and a folder ..data."""
    (tmp_path / "..data").mkdir()
    (tmp_path / "pong.game.yaml").write_text(METADATA)
    (tmp_path / "pong.values.yaml.j2").write_text(VALUES)
    (tmp_path / "pong.options.schema.json").write_text(json.dumps(SCHEMA))
    assert list(catalogue.load(catalogue.BUILT_IN, tmp_path)) == ["luanti", "minecraft", "pong", "teeworlds"]


def test_a_game_says_how_its_players_are_counted(tmp_path: Path) -> None:
    """By a protocol, at the port `primary` unless it names another; without `query` it cannot be asked."""
    metadata = METADATA + "query: {protocol: teeworlds}\n"
    assert catalogue.load(folder(tmp_path, metadata))["pong"].query == Query("teeworlds", "primary")
    built_in = {name: game.query for name, game in catalogue.load(catalogue.BUILT_IN).items()}
    assert built_in == {"minecraft": Query("minecraft"), "teeworlds": Query("teeworlds"), "luanti": None}


def test_a_game_says_how_its_world_is_held_still(tmp_path: Path) -> None:
    """By commands for its console, each with what its answer must contain: a text, or one of several."""
    game = catalogue.load(folder(tmp_path, METADATA + SAVE))["pong"]
    assert game.console == Console("rcon", "rcon")
    assert game.save == Save(
        hold=(Command("pause"), Command("write all", ("written", "nothing to write"))),
        release=(Command("go on", ("going on",)),),
        check=Command("is paused", ("yes",)),
        seconds=12.5,
    )
    built_in = catalogue.load(catalogue.BUILT_IN)
    assert {name for name, game in built_in.items() if game.save} == {"minecraft"}
    consoles = {name: game.console.kind for name, game in built_in.items() if game.console}
    assert consoles == {"minecraft": "rcon", "teeworlds": "econ"}


def test_a_game_need_not_say_more_than_its_commands(tmp_path: Path) -> None:
    """It may have a console without `save`; the check and the time have defaults, and so has the console's port."""
    short = "console: {kind: rcon, port: primary}\nsave: {hold: [{command: a, expect: b}], release: [{command: c}]}\n"
    tcp = VALUES.replace("UDP", "both")
    game = catalogue.load(folder(tmp_path, METADATA + short, tcp))["pong"]
    assert game.console == Console("rcon", "primary")
    assert game.save == Save((Command("a", ("b",)),), (Command("c"),), None, 30)


@pytest.mark.parametrize(
    ("kind", "needs"), [("econ", {"econ": {"enabled": True, "port": 27000}}), ("stdin", {"stdin": True})]
)
def test_a_console_brings_the_values_that_it_needs(tmp_path: Path, kind: str, needs: dict[str, Any]) -> None:
    """The template need not turn it on, and may say more."""
    values = VALUES + ("econ: {port: 27000}\n" if kind == "econ" else "")
    game = catalogue.load(folder(tmp_path, METADATA + f"console: {{kind: {kind}}}\n", values))["pong"]
    assert game.console is not None
    assert game.console.kind == kind
    rendered = game.render(1, spec({"speed": 3}))
    assert {key: rendered.get(key) for key in needs} == needs
    assert [shape.get("stdin") or shape.get("econ") for shape in game.shapes] == list(needs.values()) * len(game.shapes)


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "yaml": ({"metadata": "name: pong\ntitle: [\n"}, "game.yaml:3: is not YAML"),
    "unknown key": ({"metadata": METADATA + "colour: red\n"}, "game.yaml:4: unknown key 'colour'"),
    "missing key": ({"metadata": "name: pong\ntitle: x\n"}, "game.yaml:1: description is missing"),
    "a query without a protocol": (
        {"metadata": METADATA + "query: {port: primary}\n"},
        "game.yaml:4: query.protocol must be one of minecraft, teeworlds",
    ),
    "a query by another protocol": (
        {"metadata": METADATA + "query:\n  protocol: quake\n"},
        "game.yaml:5: query.protocol must be one of minecraft, teeworlds",
    ),
    "a query with a typo": (
        {"metadata": METADATA + "query: {protocl: teeworlds}\n"},
        "game.yaml:4: query.protocl is unknown; did you mean `protocol`?",
    ),
    "a query with a number": (
        {"metadata": METADATA + "query: {protocol: teeworlds, port: 1}\n"},
        "game.yaml:4: query.port must be a string",
    ),
    "a query at a port that is not there": (
        {"metadata": METADATA + "query: {protocol: teeworlds, port: query}\n"},
        "game.yaml:4: query.port: the game has no UDP port named query",
    ),
    "a query at a port of the other protocol": (
        {"metadata": METADATA + "query: {protocol: minecraft}\n"},
        "game.yaml:4: query.port: the game has no TCP port named primary",
    ),
    "a console of another kind": (
        {"metadata": METADATA + "console: {kind: telnet}\n"},
        "game.yaml:4: console.kind must be one of rcon, econ, stdin",
    ),
    "a console with a port of another kind": (
        {"metadata": METADATA + "console: {kind: stdin, port: primary}\n"},
        "game.yaml:4: console.port is for rcon alone",
    ),
    "an external console that is turned off": (
        {"metadata": METADATA + "console: {kind: econ}\n", "values": VALUES + "econ: {enabled: false}\n"},
        "game.yaml:4: console: values.yaml.j2 turns econ off",
    ),
    "standard input that an option turns off": (
        {
            "metadata": METADATA + "console: {kind: stdin}\n",
            "values": VALUES + '{%- if "title" in options %}\nstdin: false\n{%- endif %}\n',
        },
        "game.yaml:4: console: values.yaml.j2 turns stdin off",
    ),
    "a console with a typo": (
        {"metadata": METADATA + "console:\n  kind: rcon\n  prot: rcon\n"},
        "game.yaml:6: console.prot is unknown; did you mean `port`?",
    ),
    "a console with a number": (
        {"metadata": METADATA + "console: {kind: rcon, port: 1}\n"},
        "game.yaml:4: console.port must be a string",
    ),
    "a console that is turned off": (
        {"metadata": METADATA + CONSOLE, "values": VALUES + "rcon: {enabled: false}\n"},
        "game.yaml:4: console: values.yaml.j2 turns rcon off",
    ),
    "a console that an option turns off": (
        {
            "metadata": METADATA + CONSOLE,
            "values": VALUES + '{%- if "title" in options %}\nrcon: {enabled: false}\n{%- endif %}\n',
        },
        "game.yaml:4: console: values.yaml.j2 turns rcon off",
    ),
    "a console at a port that is not there": (
        {"metadata": METADATA + "console: {kind: rcon, port: primary}\n"},
        "game.yaml:4: console.port: the game has no TCP port named primary",
    ),
    "commands without a console": (
        {"metadata": METADATA + SAVE.replace(CONSOLE, "")},
        "game.yaml:4: save needs console",
    ),
    "commands with a typo": (
        {"metadata": METADATA + SAVE.replace("seconds", "secnods")},
        "game.yaml:12: save.secnods is unknown; did you mean `seconds`?",
    ),
    "nothing that holds": (
        {"metadata": METADATA + CONSOLE + "save: {release: [{command: a}]}\n"},
        "game.yaml:5: save.hold must be a list of 1 to 10 commands",
    ),
    "nothing that lets go": (
        {"metadata": METADATA + CONSOLE + "save:\n  hold: [{command: a, expect: b}]\n  release: []\n"},
        "game.yaml:7: save.release must be a list of 1 to 10 commands",
    ),
    "nothing that says that all is saved": (
        {"metadata": METADATA + SAVE.replace(", expect: [written, nothing to write]", "")},
        "game.yaml:8: save.hold[1] needs expect",
    ),
    "a command that is a text": (
        {"metadata": METADATA + SAVE.replace("{command: pause}", "pause")},
        "game.yaml:7: save.hold[0] must be a mapping with command and expect",
    ),
    "a command with a typo": (
        {"metadata": METADATA + SAVE.replace("{command: pause}", "{comand: pause}")},
        "game.yaml:7: save.hold[0].comand is unknown; did you mean `command`?",
    ),
    "a command without a command": (
        {"metadata": METADATA + SAVE.replace("{command: pause}", "{expect: paused}")},
        "game.yaml:7: save.hold[0].command must be one line of 1 to 1000 bytes",
    ),
    "a command of two lines": (
        {"metadata": METADATA + SAVE.replace("{command: go on,", '{command: "go\\non",')},
        "game.yaml:10: save.release[0].command must be one line",
    ),
    "a command that is too long": (
        {"metadata": METADATA + SAVE.replace("{command: pause}", "{command: " + "é" * 501 + "}")},
        "game.yaml:7: save.hold[0].command must be one line of 1 to 1000 bytes",
    ),
    "an answer that is a number": (
        {"metadata": METADATA + SAVE.replace("[written, nothing to write]", "[written, 1]")},
        "game.yaml:8: save.hold[1].expect must be a text of 1 to 200 bytes, or a list of them",
    ),
    "an empty answer": (
        {"metadata": METADATA + SAVE.replace("going on", '""')},
        "game.yaml:10: save.release[0].expect must be a text",
    ),
    "a check that tells nothing": (
        {"metadata": METADATA + SAVE.replace('{command: is paused, expect: "yes"}', "{command: is paused}")},
        "game.yaml:11: save.check needs expect",
    ),
    "a check that is none": (
        {"metadata": METADATA + SAVE.replace('{command: is paused, expect: "yes"}', "null")},
        "game.yaml:11: save.check must be a mapping",
    ),
    "no time": (
        {"metadata": METADATA + SAVE.replace("12.5", "0.5")},
        "game.yaml:12: save.seconds must be a number from 1 to 120",
    ),
    "a time in words": (
        {"metadata": METADATA + SAVE.replace("12.5", "true")},
        "game.yaml:12: save.seconds must be a number from 1 to 120",
    ),
    "a time without an end": (
        {"metadata": METADATA + SAVE.replace("12.5", ".inf")},
        "game.yaml:12: save.seconds must be a number from 1 to 120",
    ),
    "another name": ({"metadata": METADATA.replace("pong", "ping")}, "game.yaml:1: name is 'ping'"),
    "template syntax": ({"values": VALUES + "\n{% if %}"}, "values.yaml.j2:8:"),
    "without tojson": ({"values": VALUES + "x: {{ server.id }}\n"}, "values.yaml.j2:7: every {{ }} must end"),
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
    "a number instead of a string": (
        {"values": VALUES.replace("| string ", "")},
        "values.yaml.j2:3: environment.SPEED must be a string, not a whole number: write it in quotes",
    ),
    "a typo in a port": (
        {"values": VALUES.replace("protocol", "protocl")},
        "values.yaml.j2:1: ports[0].protocl is unknown; did you mean `protocol`?",
    ),
    "a string instead of a number": (
        {"values": VALUES.replace("port: 1", 'port: "1"')},
        "values.yaml.j2:1: ports[0].port must be a whole number, not a string",
    ),
    "a value from the create": ({"values": VALUES + "ramGb: 4\n"}, "values.yaml.j2:7: ramGb comes from each create"),
    "the console's port": (
        {"values": VALUES.replace("UDP", "TCP") + "rcon: {port: 1}\n"},
        "values.yaml.j2:7: rcon.port uses 1/TCP for both the game and the remote console",
    ),
    "the external console's port": (
        {
            "metadata": METADATA + "console: {kind: econ}\n",
            "values": VALUES.replace("UDP", "TCP") + "econ: {port: 1}\n",
        },
        "values.yaml.j2:7: econ.port uses 1/TCP or the name econ for another port",
    ),
    "the external console's volume": (
        {
            "metadata": METADATA + "console: {kind: econ}\n",
            "values": VALUES + "extraVolumes: [{name: econ, emptyDir: {}}]\n",
        },
        "values.yaml.j2:7: extraVolumes[0] has the name of econ's own volume",
    ),
    "a duplicate key": (
        {"values": VALUES + "environment: {}\n"},
        "values.yaml.j2:5: does not render to YAML: the key environ",
    ),
    "only with one option's value": (
        {"values": VALUES + '{% if options.get("speed") == 9 %}image: {tag: 9}{% endif %}\n'},
        "values.yaml.j2:7: image.tag must be a string, not a whole number: write it in quotes "
        '(with the options {"speed": 9})',
    ),
    "an error only with one option's value": (
        {"values": VALUES + '{% if options.get("speed") == 9 %}x: {{ options.no | tojson }}{% endif %}\n'},
        "values.yaml.j2:7: option no is unknown; expected one of speed, title",
    ),
    "only with little memory": (
        {"values": VALUES + "diskGb: {{ (8 // (server.ram_gb - 1)) | tojson }}\n"},
        "values.yaml.j2:7: ",
    ),
    "a misspelt option in a condition": (
        {"values": VALUES.replace('"title" in', '"titel" in')},
        "values.yaml.j2:4: option titel is unknown; did you mean `title`?",
    ),
    "a misspelt option with a default": (
        {"values": VALUES.replace('"speed"', '"sped"')},
        "values.yaml.j2:3: option sped is unknown; did you mean `speed`?",
    ),
    "a misspelt option in `is defined`": (
        {"values": VALUES.replace('"title" in options', "options.titl is defined")},
        "values.yaml.j2:4: option titl is unknown; did you mean `title`?",
    ),
    "a misspelt field of the server": (
        {"values": VALUES + '{% if server["ram"] %}{% endif %}'},
        "values.yaml.j2:7: server ram is unknown; did you mean `ram_gb`?",
    ),
    "an unknown keyword in the schema": (
        {"schema": {**SCHEMA, "properties": {"speed": {"type": "integer", "minimun": 1}}}},
        "options.schema.json:7: minimun is not a keyword of JSON Schema (at properties.speed); did you mean minimum?",
    ),
    "an unknown keyword further in": (
        {"schema": {**SCHEMA, "properties": {"names": {"type": "array", "items": {"patern": "x"}}}}},
        "options.schema.json:8: patern is not a keyword of JSON Schema (at properties.names.items); "
        "did you mean pattern?",
    ),
    "a regular expression": (
        {"schema": {**SCHEMA, "properties": {"title": {"pattern": "("}}}},
        "options.schema.json:6: is not a JSON Schema: '(' is not a 'regex'",
    ),
    "a default that does not fit": (
        {"schema": {**SCHEMA, "properties": {"speed": {"type": "integer", "default": "4"}}}},
        "options.schema.json:7: default: does not fit the schema: '4' is not of type 'integer'",
    ),
    "an unknown required option": (
        {"schema": {**SCHEMA, "required": ["sped"]}},
        "options.schema.json:15: required: sped is unknown; did you mean `speed`?",
    ),
    "a reference to nothing": (
        {"schema": {**SCHEMA, "properties": {"speed": {"$ref": "#/$defs/none"}}}},
        "options.schema.json:6: $ref: #/$defs/none leads to nothing (at properties.speed); a reference must lead",
    ),
    "a reference to another file": (
        {"schema": {**SCHEMA, "properties": {"speed": {"$ref": "urn:example:speed"}}}},
        "options.schema.json:6: $ref: urn:example:speed is in another file (at properties.speed)",
    ),
    "a dynamic reference to nothing": (
        {"schema": {**SCHEMA, "properties": {"speed": {"$dynamicRef": "#none"}}}},
        "options.schema.json:6: $dynamicRef: #none leads to nothing",
    ),
    "a reference to itself": (
        {"schema": {**SCHEMA, "properties": {"speed": {"$ref": "#/properties/speed"}}}},
        "options.schema.json:6: nests too deeply, or a $ref leads to itself",
    ),
    "deep nesting": ({"schema": "[" * 100_000}, "options.schema.json:1: is not JSON: it nests too deeply"),
    "no choice": (
        {"schema": {**SCHEMA, "properties": {"speed": {"enum": []}}}},
        "options.schema.json:6: enum: names no value, so no value fits (at properties.speed)",
    ),
    "an empty range": (
        {"schema": {**SCHEMA, "properties": {"speed": {"type": "integer", "minimum": 5, "maximum": 2}}}},
        "options.schema.json:7: minimum is above maximum, so no value fits (at properties.speed)",
    ),
    "no number": (
        {"schema": json.dumps(SCHEMA).replace("9}", "NaN}")},
        "options.schema.json:1: NaN is not a number of JSON",
    ),
    "a number that is too large": (
        {"schema": json.dumps(SCHEMA).replace("9}", "1e400}")},
        "options.schema.json:1: 1e400 is not a number of JSON",
    ),
    "a misspelt format": (
        {"schema": {**SCHEMA, "properties": {"title": {"type": "string", "format": "ipv44"}}}},
        "options.schema.json:7: format: ipv44 is not a format of JSON Schema (at properties.title); did you mean ipv4?",
    ),
    "a default of another format": (
        {"schema": {**SCHEMA, "properties": {"title": {"format": "ipv4", "default": "nonsense"}}}},
        "options.schema.json:7: default: does not fit the schema: 'nonsense' is not a 'ipv4'",
    ),
    "a default elsewhere that does not fit": (
        {
            "schema": {
                **SCHEMA,
                "$defs": {"speed": {"type": "integer", "default": 7}},
                "properties": {"speed": {"$ref": "#/$defs/speed", "maximum": 3}},
            }
        },
        "options.schema.json:5: default: does not fit the schema: 7 is greater than the maximum of 3",
    ),
    "a mistake with a value that nobody knows": (
        {
            "values": VALUES + 'args: [{{ {"slow": "1", "fast": "2"}[options.get("title", "slow")] | tojson }}]\n',
            "schema": {**SCHEMA, "properties": {**SCHEMA["properties"], "title": {"pattern": "^(slow|fast)$"}}},
        },
        "values.yaml.j2:7: Object of type StrictUndefined is not JSON serializable "
        '(with the options {"speed": 1, "title": "x"}; what fits options.title is not known: add `examples` to the '
        "schema)",
    ),
    "open schema": ({"schema": {"type": "object"}}, 'options.schema.json:1: must have "additionalProperties": false'),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_mistake_in_a_game_stops_the_start_with_file_and_line(case: str, tmp_path: Path) -> None:
    """So that an operator finds the mistake immediately."""
    parts, message = BROKEN[case]
    with pytest.raises(StartupError) as raised:
        catalogue.load(folder(tmp_path, **parts))
    assert str(tmp_path / "pong" / message) in str(raised.value)


def test_a_schema_may_have_custom_keywords(tmp_path: Path) -> None:
    """A web shop may need more than JSON Schema's keywords. References within the schema are resolved too."""
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
    """Otherwise a typo in a ConfigMap's key would silently leave a game out."""
    (tmp_path / "pong.game.yml").write_text(METADATA)
    message = r"pong\.game\.yml:1: is not a file of a game; did you mean pong\.game\.yaml\?"
    with pytest.raises(StartupError, match=message):
        catalogue.load(tmp_path)


LOOKUP = 'args: [{{ {%s}[options.get("speed", "")] | tojson }}]\n'
WORDS = LOOKUP % '"": "0", "slow": "1", "fast": "2"'
SIX_TO_EIGHT = LOOKUP % '"": "0", 6: "a", 7: "b", 8: "c"'
NEXT = 'args: [{{ (options.get("speed", 0) + 1) | string | tojson }}]\n'
NAMED = 'args: [{{ (options.speed[0].k if "speed" in options else "") | tojson }}]\n'
PAIR = 'args: [{{ (options.title if "speed" in options else "") | tojson }}]\n'
ONE = '{%- if "speed" in options and "title" in options %}\nargs: 1\n{%- endif %}\n'
WORD = {"enum": ["slow", "fast"]}
SPEED = {"type": "integer", "minimum": 5, "maximum": 9}

# A template, the schema of `speed`, and what else the schema has.
VALID: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "a choice elsewhere": (WORDS, {"$ref": "#/$defs/a"}, {"$defs": {"a": WORD}}),
    "a choice at an anchor": (WORDS, {"$ref": "#a"}, {"$defs": {"a": {"$anchor": "a", **WORD}}}),
    "a choice behind two references": (
        WORDS,
        {"$ref": "#/$defs/a"},
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": WORD}},
    ),
    "a range elsewhere": (NEXT, {"$ref": "#/$defs/a"}, {"$defs": {"a": SPEED}}),
    "a range without a type": (NEXT, {"minimum": 5}, {}),
    "choices one by one": (WORDS, {"oneOf": [{"const": "slow", "title": "Slow"}, {"const": "fast"}]}, {}),
    "choices in groups": (WORDS, {"anyOf": [{"enum": ["slow"]}, {"enum": ["fast"]}]}, {}),
    "a choice with more rules": (WORDS, {"allOf": [WORD, {"type": "string"}]}, {}),
    "ends that are left out": (SIX_TO_EIGHT, {"type": "integer", "exclusiveMinimum": 5, "exclusiveMaximum": 9}, {}),
    "a fraction": (NEXT, {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, {}),
    "multiples": (SIX_TO_EIGHT, {"type": "integer", "minimum": 5, "maximum": 8, "multipleOf": 3}, {}),
    "a list of mappings": (
        NAMED,
        {
            "type": "array",
            "minItems": 1,
            "items": {"type": "object", "required": ["k"], "properties": {"k": {"type": "string"}}},
        },
        {},
    ),
    "a schema in itself": (
        'args: [{{ (options.speed.k if "speed" in options else "") | tojson }}]\n',
        {"$ref": "#/$defs/a"},
        {
            "$defs": {
                "a": {
                    "type": "object",
                    "required": ["k"],
                    "properties": {"k": {"type": "string"}, "a": {"$ref": "#/$defs/a"}},
                }
            }
        },
    ),
    "a text of a length": (LOOKUP % '"": "0", "xxxxx": "1"', {"type": "string", "minLength": 5, "maxLength": 5}, {}),
    "digits": ('args: [{{ options.get("speed", "1") | int | string | tojson }}]\n', {"pattern": "^[0-9]{3}$"}, {}),
    "an option that needs another": (PAIR, {"type": "boolean"}, {"dependentRequired": {"speed": ["title"]}}),
    "options that exclude each other": (ONE, SPEED, {"not": {"required": ["speed", "title"]}}),
    "one option at least": (
        'args: [{{ (options.speed if "speed" in options else options.title) | string | tojson }}]\n',
        SPEED,
        {"minProperties": 1},
    ),
    # The image may know more than this schema, so a guess that works is no mistake.
    "a pattern that is hard to fit": (
        "args: [{{ options.speed | tojson }}]\n",
        {"type": "string", "pattern": "^(slow|fast)$"},
        {"required": ["speed"]},
    ),
    "a hint for a form": (WORDS, {"type": "string", "format": "password", **WORD}, {}),
}


@pytest.mark.parametrize("case", VALID)
def test_a_valid_game_is_tried_with_valid_options_alone(case: str, tmp_path: Path) -> None:
    """Whatever the way in which its schema says what fits."""
    template, option, more = VALID[case]
    values = VALUES.split("environment")[0] + template
    title = SCHEMA["properties"]["title"]
    schema = {**SCHEMA, "properties": {"speed": option, "title": title}, **more}
    assert catalogue.load(folder(tmp_path, values=values, schema=schema))["pong"]


WRONG: dict[str, tuple[dict[str, Any], dict[str, list[str]]]] = {
    "valid": ({"speed": 3, "title": "a"}, {}),
    "unknown": ({"spedd": 3, "x": 1}, {"options.spedd": ["unknown option"], "options.x": ["unknown option"]}),
    "true": ({"speed": True}, {"options.speed": ["True is not of type 'integer'"]}),
    "float": ({"speed": 1.0}, {"options.speed": ["1.0 is not of type 'integer'"]}),
    "newline at the end": ({"title": "a\n"}, {"options.title": ["does not match ^[a-z]+$"]}),
    "too large": ({"speed": 10}, {"options.speed": ["10 is greater than the maximum of 9"]}),
}


@pytest.mark.parametrize("case", WRONG)
def test_mistakes_in_options_are_named_by_field(case: str, tmp_path: Path) -> None:
    """Types are strict: an integer is no float and no boolean, and a pattern's `$` matches only at the end."""
    options, expected = WRONG[case]
    assert catalogue.load(folder(tmp_path))["pong"].errors(options) == expected


def test_numbers_and_patterns_are_read_as_in_other_languages(tmp_path: Path) -> None:
    """0.3 is a multiple of 0.1; `\\d` is a digit from 0 to 9; no `$` matches before a newline at the end."""
    properties = {
        "part": {"type": "number", "multipleOf": 0.1},
        "digits": {"type": "string", "pattern": "^\\d+$"},
        "letter": {"type": "string", "pattern": "^(a|b$|c$)|[$]$"},
    }
    values = VALUES.split("environment")[0]
    game = catalogue.load(folder(tmp_path, values=values, schema={**SCHEMA, "properties": properties}))["pong"]
    for options in ({"part": 0.3}, {"part": 0.7}, {"part": 10**30}, {"digits": "09"}, {"letter": "b"}, {"letter": "$"}):
        assert game.errors(options) == {}, options
    for options in ({"part": 0.35}, {"part": 1e-7}, {"digits": "\u0663"}, {"letter": "b\n"}, {"letter": "$\n"}):
        assert list(game.errors(options)) == [f"options.{next(iter(options))}"], options


def test_defaults_apply_to_new_servers_and_to_options_taken_back(tmp_path: Path) -> None:
    """Not to other servers, which may never have had the option."""
    speeds = {"type": "integer", "default": 7}
    schema = {**SCHEMA, "properties": {"speed": speeds, "title": {"type": "string"}}}
    game = catalogue.load(folder(tmp_path, schema=schema))["pong"]

    def speed(options: Mapping[str, Any], **arguments: Any) -> object:
        return game.render(1, spec(options), **arguments)["environment"]["SPEED"]

    assert speed({}, new=True) == speed({}, taken_back={"speed"}) == "7"
    assert speed({}) == speed({}, taken_back={"title"}) == "1"
    assert speed({"speed": 3}, new=True) == "3"


def test_a_default_may_be_where_a_reference_leads(tmp_path: Path) -> None:
    """A default beside the reference counts more."""
    definitions = {"a": {"$ref": "#/$defs/b"}, "b": {"type": "integer", "default": 7}}
    properties: dict[str, Any] = {"speed": {"$ref": "#/$defs/a"}}
    schema = {**SCHEMA, "$defs": definitions, "properties": properties}
    values = VALUES.split("{%-")[0]
    game = catalogue.load(folder(tmp_path, values=values, schema=schema))["pong"]
    assert game.render(1, spec({}), new=True)["environment"] == {"SPEED": "7"}
    assert game.render(1, spec({}), taken_back={"speed"})["environment"] == {"SPEED": "7"}
    assert game.render(1, spec({}))["environment"] == {"SPEED": "1"}
    properties["speed"]["default"] = 4
    (tmp_path / "pong" / "options.schema.json").write_text(json.dumps(schema))
    assert catalogue.load(tmp_path)["pong"].render(1, spec({}), new=True)["environment"] == {"SPEED": "4"}


@pytest.mark.parametrize(
    ("format", "fits", "nonsense"),
    [
        ("ipv4", "192.0.2.1", "192.0.2.256"),
        ("ipv6", "2001:db8::1", "2001:db8::x"),
        ("date", "2026-02-28", "2026-02-30"),
        ("email", "ada@example.com", "ada"),
        ("uuid", "00000000-0000-4000-8000-000000000000", "0"),
        ("regex", "^a$", "("),
    ],
)
def test_a_format_is_checked(format: str, fits: str, nonsense: str, tmp_path: Path) -> None:
    """In an option of a create, and in samples."""
    schema = {**SCHEMA, "properties": {**SCHEMA["properties"], "title": {"type": "string", "format": format}}}
    game = catalogue.load(folder(tmp_path, schema=schema))["pong"]
    assert game.errors({"title": fits}) == {}
    assert game.errors({"title": nonsense}) == {"options.title": [f"{nonsense!r} is not a {format!r}"]}


def test_a_template_knows_which_options_were_taken_back(tmp_path: Path) -> None:
    """This is tested too when the service starts."""
    values = VALUES + '{%- if "title" in taken_back %}\n  TITLE: {{ options.titel | tojson }}\n{%- endif %}\n'
    with pytest.raises(StartupError, match=r"values\.yaml\.j2:8: "):
        catalogue.load(folder(tmp_path, values=values))


@pytest.mark.parametrize("number", [1e-7, 1e21, 1.5e300, -2.5, 0.1, 3, 2**80])
def test_a_number_is_rendered_exactly(number: float, tmp_path: Path) -> None:
    """Whatever its form in JSON."""
    # No value of the chart accepts every number, so this uses a template of its own.
    template = catalogue._ENVIRONMENT.from_string('x: {{ options.get("speed", 1) | tojson }}\n')
    game = replace(catalogue.load(folder(tmp_path))["pong"], template=template)
    assert game.render(1, spec({"speed": number}))["x"] == number
