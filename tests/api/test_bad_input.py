"""Invalid input gets a 4xx that names the field, and changes nothing."""

from __future__ import annotations

from typing import Any

import pytest

from service.games import catalogue as games
from tests.api.conftest import SIZES, Client
from tests.support.fakes import World

WHOLE, RAM, DISK = "must be a whole number", "must be from 1 to 64", "must be from 1 to 1000"
UNKNOWN_GAME = f"is unknown; expected one of {', '.join(games.load(games.BUILT_IN))}"
CUSTOMER = "must be 1 to 63 letters, digits, dots, dashes or underscores, starting with a letter or digit"

FIELDS: dict[str, tuple[dict[str, Any], dict[str, list[str]]]] = {
    "nothing": ({}, {"ram_gb": ["is required"], "disk_gb": ["is required"]}),
    "null": ({**SIZES, "ram_gb": None}, {"ram_gb": ["must not be null"]}),
    "zero": ({**SIZES, "ram_gb": 0}, {"ram_gb": [RAM]}),
    "negative": ({**SIZES, "disk_gb": -1}, {"disk_gb": [DISK]}),
    "string": ({**SIZES, "ram_gb": "2"}, {"ram_gb": [WHOLE]}),
    "float": ({**SIZES, "ram_gb": 1.5}, {"ram_gb": [WHOLE]}),
    "whole float": ({**SIZES, "ram_gb": 2.0}, {"ram_gb": [WHOLE]}),
    "true": ({**SIZES, "ram_gb": True}, {"ram_gb": [WHOLE]}),
    "list": ({**SIZES, "ram_gb": [2]}, {"ram_gb": [WHOLE]}),
    "too much": ({**SIZES, "ram_gb": 65, "disk_gb": 1001}, {"ram_gb": [RAM], "disk_gb": [DISK]}),
    "huge": ({**SIZES, "ram_gb": 10**400}, {"ram_gb": [RAM]}),
    "unknown field": ({**SIZES, "cpu": 1, "a\nb": 2}, {"cpu": ["unknown field"], "a\nb": ["unknown field"]}),
    "unknown game": ({**SIZES, "game": "doom"}, {"game": [UNKNOWN_GAME]}),
    "game of a path": ({**SIZES, "game": "../minecraft"}, {"game": [UNKNOWN_GAME]}),
    "game number": ({**SIZES, "game": 1}, {"game": ["must be a string"]}),
    "unknown option": ({**SIZES, "options": {"moon": 1}}, {"options.moon": ["unknown option"]}),
    "options list": ({**SIZES, "options": []}, {"options": ["must be an object"]}),
    "options null": ({**SIZES, "options": None}, {"options": ["must not be null"]}),
    "option of null": ({**SIZES, "options": {"motd": None}}, {"options.motd": ["None is not of type 'string'"]}),
    "start": ({**SIZES, "start": "yes"}, {"start": ["must be true or false"]}),
    "rcon": ({**SIZES, "rcon": "open"}, {"rcon": ["must be public or private"]}),
    "disk": ({**SIZES, "disk": "keep"}, {"disk": ["must be reuse or erase"]}),
    "customer": ({**SIZES, "customer": "-x"}, {"customer": [CUSTOMER]}),
    "customer newline": ({**SIZES, "customer": "x\n"}, {"customer": [CUSTOMER]}),
    "nul": ({**SIZES, "options": {"motd": "a\0"}}, {"options": ["contains a character that cannot be stored"]}),
    "control": ({**SIZES, "options": {"motd": "a\x80"}}, {"options": ["contains a character that cannot be stored"]}),
    "no character": ({**SIZES, "options": {"a\uffff": 1}}, {"options": ["contains a character that cannot be stored"]}),
    "surrogate": ({**SIZES, "customer": "\ud800"}, {"customer": ["contains a character that cannot be stored"]}),
    "surrogate field": ({**SIZES, "\ud800": 1}, {"?": ["contains a character that cannot be stored"]}),
}


@pytest.mark.parametrize("case", FIELDS)
def test_an_invalid_field_is_named(client: Client, world: World, case: str) -> None:
    """The answer is 422, with messages by field."""
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
def test_an_invalid_body_is_refused(client: Client, world: World, case: str, method: str) -> None:
    """It is refused before anything else happens."""
    data, type_, status, slug = BODIES[case]
    answer = client.call(method, "/api/v1/server/1/", data=data, content_type=type_)
    assert answer.json is not None
    assert (answer.status_code, answer.json["type"]) == (status, f"/problems/{slug}")
    assert world.history == []


IDS = ["0", "-1", "9223372036854775808", "01", "١", "abc", "1e3", "../x", "--debug", "1;ls", "1%00", "%2e%2e", "1%0a"]


@pytest.mark.parametrize("id", IDS)
@pytest.mark.parametrize("method", ["GET", "POST", "PATCH", "DELETE"])
def test_an_invalid_id_is_not_found(client: Client, world: World, id: str, method: str) -> None:
    """It answers 404 for every method, and does not reach helm or Kubernetes."""
    answer = client.call(method, f"/api/v1/server/{id}/", SIZES)
    assert answer.json is not None
    assert (answer.status_code, answer.json["type"]) == (404, "/problems/not-found")
    assert world.history == []


def test_the_largest_id_is_valid(client: Client) -> None:
    """It is 2⁶³−1."""
    assert client.post(f"/api/v1/server/{2**63 - 1}/", SIZES).status_code == 201


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
def test_a_wrong_method_gets_the_allowed_ones(client: Client, method: str, path: str, allow: set[str]) -> None:
    """The answer is 405 with `Allow`."""
    answer = client.call(method, path)
    assert (answer.status_code, set(answer.headers["Allow"].split(", "))) == (405, allow)


@pytest.mark.parametrize("type", ["ftp", "", "primary/x", "PRIMARY"])
def test_an_unknown_port_type_is_not_found(client: Client, type: str) -> None:
    """It answers 404."""
    client.post("/api/v1/server/1/", SIZES)
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
def test_an_invalid_query_is_named(client: Client, query: str, errors: dict[str, list[str]]) -> None:
    """The answer is 422, as for a body."""
    answer = client.get(f"/api/v1/server/?{query}")
    assert answer.json is not None
    assert (answer.status_code, answer.json["errors"]) == (422, errors)


def test_an_invalid_delete_deletes_nothing(client: Client, world: World) -> None:
    """The API does not guess what `disk=wipe` or `dsik=erase` means."""
    client.post("/api/v1/server/1/", SIZES)
    assert client.delete("/api/v1/server/1/?disk=wipe").status_code == 422
    assert client.delete("/api/v1/server/1/?dsik=erase").status_code == 422
    assert world.history == [("install", 1)]


def test_a_licence_must_be_accepted_first(make_app: Any, world: World) -> None:
    """Otherwise a create answers 409 and names the value that the operator must set."""
    answer = Client(make_app(accepted_eulas=frozenset()).test_client()).post("/api/v1/server/1/", SIZES)
    assert answer.json is not None
    assert (answer.status_code, answer.json["type"]) == (409, "/problems/eula-not-accepted")
    assert "acceptedEulas" in answer.json["detail"]
    assert world.history == []
