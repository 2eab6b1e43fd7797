"""Wrong input, sent raw to the real API: each gets its own clear 4xx and creates nothing."""

import json
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.cluster.conftest import SERVERS_NAMESPACE, Cluster

OK = {"ram_gb": 1, "disk_gb": 1, "start": False}
JSON = "application/json"
WHOLE = "must be a whole number"


class Answer:
    """The status, headers and JSON of a raw response."""

    def __init__(self, raw: bytes) -> None:
        head, _, body = raw.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        self.status = int(lines[0].split()[1])
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        self.json: dict[str, Any] = json.loads(body) if "json" in self.headers.get("content-type", "") else {}


def raw(
    cluster: Cluster,
    method: str,
    target: str,
    body: bytes | None = None,
    *,
    type: str | None = JSON,
    authorization: str | None = "",
) -> Answer:
    """Send a request exactly as given: no client normalises the path, the method or the body."""
    url = urlsplit(cluster.api_url)
    assert url.hostname is not None
    lines = [f"{method} {target} HTTP/1.1", f"Host: {url.netloc}", "Connection: close"]
    if authorization is not None:
        lines.append(f"Authorization: {authorization or f'Bearer {cluster.api_token}'}")
    if body is not None:
        lines += [f"Content-Length: {len(body)}"] + ([f"Content-Type: {type}"] if type else [])
    with socket.create_connection((url.hostname, url.port or 80), timeout=30) as connection:
        connection.sendall("\r\n".join(lines).encode("utf-8") + b"\r\n\r\n" + (body or b""))
        received = b""
        while part := connection.recv(65536):
            received += part
    return Answer(received)


def everything(cluster: Cluster, server: int) -> str:
    """The names of all objects of a server."""
    kinds = "statefulsets,services,persistentvolumeclaims,secrets"
    return cluster.run("kubectl", "-n", SERVERS_NAMESPACE, "get", kinds, "-o", "name", "-l", f"gameserver/id={server}")


def releases(cluster: Cluster) -> set[str]:
    """The Helm releases whose names come from no valid id, or from one that no test session uses."""
    names = cluster.run("kubectl", "-n", SERVERS_NAMESPACE, "get", "secrets", "-l", "owner=helm", "-o", "name").split()
    unversioned = {name.removeprefix("secret/sh.helm.release.v1.").rsplit(".v", 1)[0] for name in names}
    return {name for name in unversioned if not name.removeprefix("server-").isdigit() or len(name) > 20}


def sizes(text: str) -> list[tuple[str, bytes]]:
    """A body with this size as `ram_gb`, and one with it as `disk_gb`."""
    others = {"ram_gb": "disk_gb", "disk_gb": "ram_gb"}
    return [(name, f'{{"start": false, "{name}": {text}, "{other}": 1}}'.encode()) for name, other in others.items()]


SIZES = {
    "null": ("null", "must not be null"),
    "zero": ("0", "must be from 1 to"),
    "negative": ("-1", "must be from 1 to"),
    "text": ('"2"', WHOLE),
    "float": ("1.5", WHOLE),
    "whole float": ("2.0", WHOLE),
    "exponent": ("1e0", WHOLE),
    "true": ("true", WHOLE),
    "list": ("[1]", WHOLE),
    "object": ("{}", WHOLE),
    "beyond the limits": ("1001", "must be from 1 to"),
    "beyond all": ("9" * 400, "must be from 1 to"),
}
FIELDS: dict[str, tuple[dict[str, Any], str]] = {
    "unknown field": ({"cpu": 1}, "cpu"),
    "unknown game": ({"game": "doom"}, "game"),
    "path as game": ({"game": "../minecraft"}, "game"),
    "flag as game": ({"game": "--debug"}, "game"),
    "number as game": ({"game": 1}, "game"),
    "unknown option": ({"options": {"moon": 1}}, "options.moon"),
    "wrong option": ({"options": {"difficulty": "$(id)"}}, "options.difficulty"),
    "options list": ({"options": []}, "options"),
    "start": ({"start": "no"}, "start"),
    "rcon": ({"rcon": "open"}, "rcon"),
    "disk": ({"disk": "keep"}, "disk"),
    "customer": ({"customer": "--x"}, "customer"),
    "nul": ({"options": {"motd": "a\0"}}, "options"),
    "control": ({"options": {"motd": "a\x80"}}, "options"),
    "no character": ({"options": {"motd": "a\uffff"}}, "options"),
    "surrogate": ({"options": {"motd": "\ud800"}}, "options"),
}
BODIES: dict[str, tuple[bytes, str | None, int, str]] = {
    "empty": (b"", JSON, 400, "malformed-body"),
    "form": (b"ram_gb=2&disk_gb=10", "application/x-www-form-urlencoded", 415, "unsupported-media-type"),
    "no type": (json.dumps(OK).encode(), None, 415, "unsupported-media-type"),
    "no json": (b"ram_gb=2", JSON, 400, "malformed-body"),
    "half": (b'{"ram_gb": 1, "disk_gb"', JSON, 400, "malformed-body"),
    "NaN": (b'{"ram_gb": NaN, "disk_gb": 1}', JSON, 400, "malformed-body"),
    "Infinity": (b'{"ram_gb": 1, "disk_gb": Infinity}', JSON, 400, "malformed-body"),
    "no UTF-8": (b'{"ram_gb": 1, "disk_gb": 1, "game": "\xff"}', JSON, 400, "malformed-body"),
    "deep": (b"[" * 30_000, JSON, 400, "malformed-body"),
    "list": (b"[]", JSON, 422, "invalid-request"),
    "text": (b'"x"', JSON, 422, "invalid-request"),
    "null": (b"null", JSON, 422, "invalid-request"),
    "10 MB": (b'{"game": "' + b"a" * 10_000_000 + b'"}', JSON, 413, "body-too-large"),
}
IDS = [
    "0",
    "-1",
    str(2**63),
    "01",
    "%D9%A1",
    "abc",
    "1e3",
    "../x",
    "..%2fx",
    "--debug",
    "-",
    "1;id",
    "1%00",
    "1%0a",
]
IDS += ["$(id)", "{{1}}", "1.0", "+1", "%201", "1%20", "server-1", "9" * 300, "1/../2"]
METHODS = [
    ("PUT", "/", {"DELETE", "GET", "HEAD", "PATCH", "POST"}),
    ("POST", "/start", {"PATCH"}),
    ("GET", "/stop", {"PATCH"}),
    ("BREW", "/restart", {"PATCH"}),
    ("DELETE", "/port/primary", {"GET", "HEAD", "PATCH"}),
    ("PATCH", "/rcon", {"GET", "HEAD"}),
]


@pytest.fixture
def server(cluster: Cluster, new_server: Callable[[], int]) -> int:
    """An id without a server."""
    return new_server()


@pytest.mark.parametrize("case", SIZES)
def test_a_wrong_size_is_named(cluster: Cluster, server: int, case: str) -> None:
    """A create and a change answer 422 with the field and what is wrong with it."""
    text, message = SIZES[case]
    for field, body in sizes(text):
        if case == "beyond the limits" and field == "ram_gb":
            body = body.replace(b"1001", b"65")
        answer = raw(cluster, "POST", f"/api/v1/server/{server}/", body)
        assert (answer.status, answer.json["type"]) == (422, "/problems/invalid-request")
        assert set(answer.json["errors"]) == {field}
        assert answer.json["errors"][field][0].startswith(message)
        assert raw(cluster, "PATCH", f"/api/v1/server/{server}/", body).status == 422
    assert everything(cluster, server) == ""


def test_a_missing_size_is_named(cluster: Cluster, server: int) -> None:
    """A create without `ram_gb` and `disk_gb` answers 422 and names both."""
    answer = raw(cluster, "POST", f"/api/v1/server/{server}/", b"{}")
    assert (answer.status, answer.json["errors"]) == (
        422,
        {"ram_gb": ["is required"], "disk_gb": ["is required"]},
    )
    assert everything(cluster, server) == ""


def test_every_other_wrong_field_is_named(cluster: Cluster, server: int) -> None:
    """A create answers 422, and its errors name exactly the wrong field."""
    answers = {
        case: raw(cluster, "POST", f"/api/v1/server/{server}/", json.dumps({**OK, **more}).encode())
        for case, (more, _) in FIELDS.items()
    }
    seen = {case: (answer.status, list(answer.json.get("errors", {}))) for case, answer in answers.items()}
    assert seen == {case: (422, [field]) for case, (_, field) in FIELDS.items()}
    assert everything(cluster, server) == ""


def test_a_wrong_body_is_refused(cluster: Cluster, server: int) -> None:
    """POST and PATCH answer 400, 413, 415 or 422, each with its own type, and never break the connection."""
    for method in ("POST", "PATCH"):
        seen = {}
        for case, (body, type, _, _) in BODIES.items():
            answer = raw(cluster, method, f"/api/v1/server/{server}/", body, type=type)
            seen[case] = (answer.status, answer.json["type"])
        assert seen == {case: (status, f"/problems/{slug}") for case, (_, _, status, slug) in BODIES.items()}
    assert everything(cluster, server) == ""


def test_an_invalid_id_is_not_found(cluster: Cluster) -> None:
    """Every method answers 404 for an invalid id, and no release with such a name appears."""
    before = releases(cluster)
    body = json.dumps(OK).encode()
    seen = {
        (method, id): raw(cluster, method, f"/api/v1/server/{id}{tail}", body if tail == "/" else None).status
        for id in IDS
        for method, tail in [("POST", "/"), ("GET", "/"), ("DELETE", "/"), ("PATCH", "/start")]
    }
    assert {call: status for call, status in seen.items() if status != 404} == {}
    assert releases(cluster) == before


def test_a_raw_path_that_is_not_ascii_is_a_bad_request(cluster: Cluster) -> None:
    """A raw non-ASCII path, which HTTP forbids, answers 400. The encoded path answers 404, see above."""
    for method in ("GET", "POST"):
        assert raw(cluster, method, "/api/v1/server/١/", json.dumps(OK).encode()).status == 400


def test_an_unknown_port_type_is_not_found(cluster: Cluster) -> None:
    """An unknown port type answers 404 for an existing server."""
    servers = cluster.done("GET", "/api/v1/server/?limit=1")["servers"]
    id = servers[0]["id"] if servers else 1
    types = ["ftp", "PRIMARY", "primary%20", "..%2fprimary", "primary;id", "", "--help"]
    assert {type: raw(cluster, "PATCH", f"/api/v1/server/{id}/port/{type}").status for type in types} == dict.fromkeys(
        types, 404
    )


def test_a_wrong_method_gets_a_list_of_the_right_ones(cluster: Cluster, server: int) -> None:
    """A wrong method answers 405, and `Allow` lists the right ones."""
    for method, tail, allow in METHODS:
        answer = raw(cluster, method, f"/api/v1/server/{server}{tail}")
        assert (answer.status, set(answer.headers["allow"].split(", "))) == (405, allow), (method, tail)


def test_without_a_valid_token_nothing_else_is_checked(cluster: Cluster, server: int) -> None:
    """No token, another scheme and a wrong token answer 401, before the body is checked."""
    for authorization in (None, "Bearer", "Bearer wrong", f"Basic {cluster.api_token}", f"Bearer {cluster.api_token}x"):
        for body in (json.dumps(OK).encode(), b"no json"):
            answer = raw(cluster, "POST", f"/api/v1/server/{server}/", body, authorization=authorization)
            assert (answer.status, answer.json["type"]) == (401, "/problems/unauthorized"), authorization
            assert "www-authenticate" in answer.headers
    assert everything(cluster, server) == ""


def test_a_wrong_query_is_named_and_deletes_nothing(cluster: Cluster, server: int) -> None:
    """A wrong query answers 422 with the field. `disk=wipe` or a misspelt `dsik=erase` deletes nothing."""
    cluster.create(server, start=False)
    for tail, field in [("disk=wipe", "disk"), ("dsik=erase", "dsik"), ("disk=", "disk"), ("disk=ERASE", "disk")]:
        answer = raw(cluster, "DELETE", f"/api/v1/server/{server}/?{tail}")
        assert (answer.status, list(answer.json["errors"])) == (422, [field])
    for tail, field in [("limit=0", "limit"), ("limit=x", "limit"), ("continue=x", "continue"), ("page=2", "page")]:
        answer = raw(cluster, "GET", f"/api/v1/server/?{tail}")
        assert (answer.status, list(answer.json["errors"])) == (422, [field])
    assert cluster.status(server)["state"] in ("creating", "stopped")
