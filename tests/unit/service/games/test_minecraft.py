"""Each option becomes variables of itzg/minecraft-server. docs/games.md says what that image does with them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.games import catalogue
from service.servers.spec import ServerSpec
from tests.support.games import MINECRAFT as ALWAYS

MINECRAFT = catalogue.load(catalogue.BUILT_IN)["minecraft"]


def rendered(options: Mapping[str, Any], **arguments: Any) -> dict[str, Any]:
    return MINECRAFT.render(1, ServerSpec("minecraft", 2, 10, options), **arguments)


def sent(options: Mapping[str, Any], **arguments: Any) -> dict[str, str]:
    """The environment without the variables that are always in it."""
    environment: dict[str, str] = rendered(options, **arguments)["environment"]
    assert environment.items() >= ALWAYS.items()
    return {name: text for name, text in environment.items() if name not in ALWAYS}


def test_options_become_the_images_variables() -> None:
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
    assert rendered(options) == {
        "ports": [{"name": "primary", "port": 25565, "protocol": "TCP"}],
        "heap": {"environmentVariable": "MEMORY"},
        "terminationGracePeriodSeconds": 120,
        "stop": {"delayVariable": "STOP_SERVER_ANNOUNCE_DELAY", "durationVariable": "STOP_DURATION"},
        "environment": {
            **ALWAYS,
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
            "EXISTING_OPS_FILE": "SYNCHRONIZE",
            "ENABLE_WHITELIST": "TRUE",
            "ENFORCE_WHITELIST": "TRUE",
            "WHITELIST": "ada,bob",
            "EXISTING_WHITELIST_FILE": "SYNCHRONIZE",
        },
    }


def test_an_option_that_was_never_set_is_not_sent() -> None:
    """So server.properties stays as it is. But a new server gets the default version."""
    assert sent({}) == {}
    assert sent({}, new=True) == {"VERSION": "1.21.4"}
    assert sent({"version": "LATEST"}, new=True) == {"VERSION": "LATEST"}


DEFAULTS: dict[str, dict[str, str]] = {
    "version": {"VERSION": "1.21.4"},
    "type": {"TYPE": "VANILLA"},
    "difficulty": {"DIFFICULTY": "easy"},
    "mode": {"MODE": "survival"},
    "motd": {"MOTD": "A Minecraft Server"},
    "max_players": {"MAX_PLAYERS": "20"},
    "whitelist": {
        "ENABLE_WHITELIST": "FALSE",
        "ENFORCE_WHITELIST": "FALSE",
        "WHITELIST": "",
        "EXISTING_WHITELIST_FILE": "SYNCHRONIZE",
    },
    "ops": {"OPS": "", "EXISTING_OPS_FILE": "SYNCHRONIZE"},
    "seed": {"SEED": ""},
    "level_type": {"LEVEL_TYPE": "minecraft:normal"},
    "view_distance": {"VIEW_DISTANCE": "10"},
    "simulation_distance": {"SIMULATION_DISTANCE": "10"},
    "spawn_protection": {"SPAWN_PROTECTION": "16"},
    "hardcore": {"HARDCORE": "FALSE"},
    "pvp": {"PVP": "TRUE"},
    "online_mode": {"ONLINE_MODE": "TRUE"},
    "allow_flight": {"ALLOW_FLIGHT": "FALSE"},
    "allow_nether": {"ALLOW_NETHER": "TRUE"},
    "command_blocks": {"ENABLE_COMMAND_BLOCK": "FALSE"},
}


@pytest.mark.parametrize("option", MINECRAFT.schema["properties"])
def test_an_option_taken_back_is_sent_as_the_games_default(option: str) -> None:
    """Without the variable, the image would leave server.properties alone."""
    assert sent({}, taken_back={option}) == DEFAULTS[option]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"ops": []}, {"OPS": "", "EXISTING_OPS_FILE": "SYNCHRONIZE"}),
        (
            {"whitelist": []},
            {
                "ENABLE_WHITELIST": "TRUE",
                "ENFORCE_WHITELIST": "TRUE",
                "WHITELIST": "",
                "EXISTING_WHITELIST_FILE": "SYNCHRONIZE",
            },
        ),
        ({"ops": ["Ada", "ada", "Bob"]}, {"OPS": "Ada,Bob", "EXISTING_OPS_FILE": "SYNCHRONIZE"}),
    ],
)
def test_a_list_is_the_whole_list(options: dict[str, Any], expected: dict[str, str]) -> None:
    """Players who are not in it are removed, while the image itself only adds. An empty whitelist admits nobody."""
    assert sent(options) == expected


EVE = "4dca2802-6411-3946-8684-5bbfa38f452b"


def test_a_server_without_online_mode_gets_the_uuids_that_it_makes_of_the_names() -> None:
    """The image would look the names up at Mojang and list UUIDs by which such a server knows nobody."""
    offline = {"online_mode": False, "ops": ["Eve"], "whitelist": ["Eve", "eve", ".Steve", EVE, "0" * 32]}
    assert MINECRAFT.errors(offline) == {}
    environment = sent(offline)
    assert environment["OPS"] == EVE
    eve = "dfb32744-b932-3aef-984d-acbd34578003"
    assert environment["WHITELIST"] == f"{EVE},{eve},.Steve,{'0' * 32}"


@pytest.mark.parametrize(
    "options", [{}, {"online_mode": True}, {"online_mode": False, "version": "1.6.4"}, {"version": "LATEST"}]
)
def test_names_are_sent_as_names_where_the_server_knows_them_so(options: dict[str, Any]) -> None:
    """Up to 1.7.2, the image's lists are of names, and it refuses a UUID."""
    assert sent({**options, "ops": ["Eve"]})["OPS"] == "Eve"


def test_the_lists_follow_the_online_mode() -> None:
    """A change of `online_mode` alone sends the lists anew."""
    lists = {"ops": ["Eve"], "whitelist": ["Eve"]}
    assert sent({**lists, "online_mode": False, "version": "1.13"})["OPS"] == EVE
    assert sent(lists, taken_back={"online_mode"})["WHITELIST"] == "Eve"


def read_by_the_image(environment: Mapping[str, str], name: str) -> str:
    r"""What the image writes into server.properties for a variable.

    Its helper decodes `\u0041`. Then it replaces `%NAME%` and `%env:NAME%` by variables, in which a backslash escapes
    the next character, and `%date:…%` by today's date.
    """

    def replacement(match: re.Match[str]) -> str:
        value = environment.get(match["name"]) if match["kind"] in (None, "env") else "today"
        return match[0] if value is None else re.sub(r"\\(.)", r"\1", value)

    text = re.sub(r"\\u([0-9a-fA-F]{4})", lambda match: chr(int(match[1], 16)), environment[name])
    return re.sub(r"%(?:(?P<kind>[A-Za-z0-9_]+):)?(?P<name>.+?)%", replacement, text)


SURROGATES: tuple[Literal["Cs"]] = ("Cs",)
CHARACTERS = st.characters(exclude_categories=SURROGATES) | st.sampled_from("%\\:u0n$_{}")


@settings(deadline=None)
@given(st.text(alphabet=CHARACTERS, max_size=256))
def test_any_text_arrives_unchanged(text: str) -> None:
    """Quotes, newlines, braces, `$(…)`, emojis, `%RCON_PASSWORD%`: all are data in one scalar, and nothing else."""
    plain = rendered({})
    values = rendered({"motd": text, "seed": text})
    environment = {"RCON_PASSWORD": "secret", **values["environment"]}
    assert read_by_the_image(environment, "MOTD") == read_by_the_image(environment, "SEED") == text
    added = values["environment"].keys() - plain["environment"].keys()
    assert added <= {f"{name}{suffix}" for name in ("MOTD", "SEED") for suffix in ("", "_PERCENT", "_BACKSLASH")}
    assert values == {**plain, "environment": {**values["environment"], **plain["environment"]}}


@pytest.mark.parametrize(
    "text",
    [
        "{{ 7*7 }}", "{% raw %}", "$(RCON_PASSWORD)", 'a"\nports: []', "😀\u2028\x7f", "<&'",
        "%RCON_PASSWORD%", "%env:RCON_PASSWORD%", "%date:YYYY%", "100 % of 50%", "%%", "%MOTD%", "%MOTD_PERCENT%",
        r"\u0041", r"C:\new", "\\", "\\%\\", " # ${CFG_X} § $1 ",
    ],
)  # fmt: skip
def test_a_customers_text_is_never_evaluated(text: str) -> None:
    """Unlike in Wings' CVE-2026-52855, where a customer's placeholder leaked a token."""
    environment = {"RCON_PASSWORD": "secret", **rendered({"motd": text})["environment"]}
    assert read_by_the_image(environment, "MOTD") == text
    if not {"%", "\\"} & set(text):
        assert environment["MOTD"] == text


@pytest.mark.parametrize(
    "options",
    [
        {"motd": "a\0"},
        {"motd": "\x1b[0m"},
        {"version": "../x"},
        {"version": "-h"},
        {"whitelist": ["a,b"]},
        {"ops": ["*"]},
        {"ops": ["-h"]},
        {"ops": ["@/etc/passwd"]},
        {"ops": ["069A79F4-44E9-4726-A5BE-FCA90E38AAF5"]},
        {"ops": ["a" * 17]},
    ],
)
def test_texts_that_the_image_would_misread_are_refused(options: dict[str, Any]) -> None:
    """A comma would separate two players, a path could lead elsewhere, and a minus would start an option."""
    assert MINECRAFT.errors(options) != {}


@pytest.mark.parametrize(
    "name",
    [
        "Ada",
        "_x_",
        ".Steve",
        ".Steve_the_Great",
        "069a79f4-44e9-4726-a5be-fca90e38aaf5",
        "069a79f444e94726a5befca90e38aaf5",
    ],
)
def test_every_form_of_a_players_name_is_accepted(name: str) -> None:
    """Bedrock players have a dot before their name. A UUID stays the same when a player changes the name."""
    assert MINECRAFT.errors({"ops": [name], "whitelist": [name]}) == {}
    assert sent({"ops": [name]})["OPS"] == name
