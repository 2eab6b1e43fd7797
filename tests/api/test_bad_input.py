"""Each wrong input gets its own clear 4xx that names the field, and nothing is made."""

from __future__ import annotations

from typing import Any

import pytest

from service.games import catalogue as games
from tests.api.conftest import Client
from tests.support.fakes import World

OK = {"ram_gb": 2, "disk_gb": 10}
WHOLE, RAM, DISK = "must be a whole number", "must be from 1 to 64", "must be from 1 to 1000"
UNKNOWN_GAME = f"is unknown; expected one of {', '.join(games.load(games.BUILT_IN))}"
CUSTOMER = "must be 1 to 63 letters, digits, dots, dashes or underscores, starting with a letter or digit"

FIELDS: dict[str, tuple[dict[str, Any], dict[str, list[str]]]] = {
    "nothing": ({}, {"ram_gb": ["is required"], "disk_gb": ["is required"]}),
    "null": ({**OK, "ram_gb": None}, {"ram_gb": ["must not be null"]}),
    "zero": ({**OK, "ram_gb": 0}, {"ram_gb": [RAM]}),
    "negative": ({**OK, "disk_gb": -1}, {"disk_gb": [DISK]}),
    "string": ({**OK, "ram_gb": "2"}, {"ram_gb": [WHOLE]}),
    "float": ({**OK, "ram_gb": 1.5}, {"ram_gb": [WHOLE]}),
    "whole float": ({**OK, "ram_gb": 2.0}, {"ram_gb": [WHOLE]}),
    "true": ({**OK, "ram_gb": True}, {"ram_gb": [WHOLE]}),
    "list": ({**OK, "ram_gb": [2]}, {"ram_gb": [WHOLE]}),
    "too much": ({**OK, "ram_gb": 65, "disk_gb": 1001}, {"ram_gb": [RAM], "disk_gb": [DISK]}),
    "huge": ({**OK, "ram_gb": 10**400}, {"ram_gb": [RAM]}),
    "unknown field": ({**OK, "cpu": 1, "a\nb": 2}, {"cpu": ["unknown field"], "a\nb": ["unknown field"]}),
    "unknown game": ({**OK, "game": "doom"}, {"game": [UNKNOWN_GAME]}),
    "game of a path": ({**OK, "game": "../minecraft"}, {"game": [UNKNOWN_GAME]}),
    "game number": ({**OK, "game": 1}, {"game": ["must be a string"]}),
    "unknown option": ({**OK, "options": {"moon": 1}}, {"options.moon": ["unknown option"]}),
    "options list": ({**OK, "options": []}, {"options": ["must be an object"]}),
    "options null": ({**OK, "options": None}, {"options": ["must not be null"]}),
    "option of null": ({**OK, "options": {"motd": None}}, {"options.motd": ["None is not of type 'string'"]}),
    "start": ({**OK, "start": "yes"}, {"start": ["must be true or false"]}),
    "rcon": ({**OK, "rcon": "open"}, {"rcon": ["must be public or private"]}),
    "disk": ({**OK, "disk": "keep"}, {"disk": ["must be reuse or erase"]}),
    "customer": ({**OK, "customer": "-x"}, {"customer": [CUSTOMER]}),
    "customer newline": ({**OK, "customer": "x\n"}, {"customer": [CUSTOMER]}),
    "nul": ({**OK, "options": {"motd": "a\0"}}, {"options": ["contains a character that cannot be stored"]}),
    "control": ({**OK, "options": {"motd": "a\x80"}}, {"options": ["contains a character that cannot be stored"]}),
    "no character": ({**OK, "options": {"a\uffff": 1}}, {"options": ["contains a character that cannot be stored"]}),
    "surrogate": ({**OK, "customer": "\ud800"}, {"customer": ["contains a character that cannot be stored"]}),
    "surrogate field": ({**OK, "\ud800": 1}, {"?": ["contains a character that cannot be stored"]}),
}


@pytest.mark.parametrize("case", FIELDS)
def test_a_wrong_field_is_named(client: Client, world: World, case: str) -> None:
    """422 with the messages by field."""
    body, expected = FIELDS[case]
    answer = client.post("/api/v1/server/1/", body)
    assert (answer.status_code, answer.mimetype) == (422, "application/problem+json")
    assert answer.json is not None
    assert answer.json["errors"] == expected
    assert (answer.json["success"], answer.json["type"]) == (False, "/problems/invalid-request")
    assert world.history == []


BODIES: dict[str, tuple[bytes, str | None, int, str]] = {
    "empty": (b"", "application/json", 400, "malformed-body"),
    "no json": (b"ram_gb=2", "application/json", 400, "malformed-body"),
    "half": (b'{"ram_gb": 2', "application/json", 400, "malformed-body"),
    "nan": (b'{"ram_gb": NaN, "disk_gb": 10}', "application/json", 400, "malformed-body"),
    "infinity": (b'{"ram_gb": 1, "disk_gb": -Infinity}', "application/json", 400, "malformed-body"),
    "no double": (b'{"ram_gb": 1, "options": {"x": 1e400}}', "application/json", 400, "malformed-body"),
    "latin-1": (b'{"game": "\xe4"}', "application/json", 400, "malformed-body"),
    "deep": (b"[" * 30_000, "application/json", 400, "malformed-body"),
    "many digits": (b'{"ram_gb": ' + b"9" * 9_000 + b"}", "application/json", 400, "malformed-body"),
    "list": (b"[1]", "application/json", 422, "invalid-request"),
    "null": (b"null", "application/json", 422, "invalid-request"),
    "text": (b'"x"', "application/json", 422, "invalid-request"),
    "form": (b"ram_gb=2", "application/x-www-form-urlencoded", 415, "unsupported-media-type"),
    "plain": (b'{"ram_gb": 2, "disk_gb": 10}', "text/plain", 415, "unsupported-media-type"),
    "no type": (b'{"ram_gb": 2, "disk_gb": 10}', None, 415, "unsupported-media-type"),
    "10 MB": (b'"' + b"a" * 10_000_000 + b'"', "application/json", 413, "body-too-large"),
}


@pytest.mark.parametrize("case", BODIES)
@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_a_wrong_body_is_refused(client: Client, world: World, case: str, method: str) -> None:
    """Before anything else looks at it."""
    data, type_, status, slug = BODIES[case]
    answer = client.call(method, "/api/v1/server/1/", data=data, content_type=type_)
    assert answer.json is not None
    assert (answer.status_code, answer.json["type"]) == (status, f"/problems/{slug}")
    assert world.history == []


IDS = ["0", "-1", "9223372036854775808", "01", "١", "abc", "1e3", "../x", "--debug", "1;ls", "1%00", "%2e%2e", "1%0a"]


@pytest.mark.parametrize("id", IDS)
@pytest.mark.parametrize("method", ["GET", "POST", "PATCH", "DELETE"])
def test_what_is_no_id_is_not_found(client: Client, world: World, id: str, method: str) -> None:
    """404 for every method, and nothing of it reaches helm or Kubernetes."""
    answer = client.call(method, f"/api/v1/server/{id}/", OK)
    assert answer.json is not None
    assert (answer.status_code, answer.json["type"]) == (404, "/problems/not-found")
    assert world.history == []


def test_the_largest_id_is_one(client: Client) -> None:
    """2⁶³−1."""
    assert client.post(f"/api/v1/server/{2**63 - 1}/", OK).status_code == 201


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/api/v1/server/1/", {"DELETE", "GET", "HEAD", "PATCH", "POST"}),
        ("POST", "/api/v1/server/1/start", {"PATCH"}),
        ("GET", "/api/v1/server/1/stop", {"PATCH"}),
        ("OPTIONS", "/api/v1/server/1/restart", {"PATCH"}),
        ("DELETE", "/api/v1/server/1/port/primary", {"GET", "HEAD", "PATCH"}),
        ("POST", "/api/v1/server/", {"GET", "HEAD"}),
        ("POST", "/healthcheck", {"GET", "HEAD"}),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(client: Client, method: str, path: str, allow: set[str]) -> None:
    """405 with Allow."""
    answer = client.call(method, path)
    assert (answer.status_code, set(answer.headers["Allow"].split(", "))) == (405, allow)


@pytest.mark.parametrize("type", ["ftp", "", "primary/x", "PRIMARY"])
def test_an_unknown_port_type_is_not_found(client: Client, type: str) -> None:
    """404."""
    client.post("/api/v1/server/1/", OK)
    assert client.patch(f"/api/v1/server/1/port/{type}").status_code == 404


@pytest.mark.parametrize(
    ("query", "errors"),
    [
        ("limit=0", {"limit": ["must be from 1 to 500"]}),
        ("limit=501", {"limit": ["must be from 1 to 500"]}),
        ("limit=x", {"limit": [WHOLE]}),
        ("limit=١", {"limit": [WHOLE]}),
        ("continue=x", {"continue": ["must be the `continue` of an earlier answer"]}),
        ("page=2", {"page": ["unknown field"]}),
    ],
)
def test_a_wrong_query_is_named(client: Client, query: str, errors: dict[str, list[str]]) -> None:
    """422, as in a body."""
    answer = client.get(f"/api/v1/server/?{query}")
    assert answer.json is not None
    assert (answer.status_code, answer.json["errors"]) == (422, errors)


def test_an_unknown_way_to_delete_deletes_nothing(client: Client, world: World) -> None:
    """`disk=wipe` could have meant either."""
    client.post("/api/v1/server/1/", OK)
    assert client.delete("/api/v1/server/1/?disk=wipe").status_code == 422
    assert client.delete("/api/v1/server/1/?dsik=erase").status_code == 422
    assert world.history == [("install", 1)]


def test_a_licence_has_to_be_accepted_first(make_app: Any, world: World) -> None:
    """409 that says by whom and where."""
    answer = Client(make_app(accepted_eulas=frozenset()).test_client()).post("/api/v1/server/1/", OK)
    assert answer.json is not None
    assert (answer.status_code, answer.json["type"]) == (409, "/problems/eula-not-accepted")
    assert "acceptedEulas" in answer.json["detail"]
    assert world.history == []
