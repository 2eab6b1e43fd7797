"""Who may do what; and what is written down about it."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import TestResponse

from service.app import create_app
from service.errors import OperationFailed
from service.settings import Settings
from service.telemetry import logs
from service.tokens import TokensFile
from service.web.routes import access
from tests.api.conftest import Client
from tests.support import tokens
from tests.support.fakes import FakeAccounts, FakeCluster, FakeReleases, FakeTokens, World

OK = {"ram_gb": 2, "disk_gb": 10}
CALLS = {
    "GET /api/v1/server/": "server:read",
    "POST /api/v1/server/1/": "server:create",
    "GET /api/v1/server/1/": "server:read",
    "PATCH /api/v1/server/1/": "server:write",
    "DELETE /api/v1/server/1/": "server:delete",
    "PATCH /api/v1/server/1/start": "server:power",
    "PATCH /api/v1/server/1/stop": "server:power",
    "PATCH /api/v1/server/1/restart": "server:power",
    "GET /api/v1/server/1/port/primary": "server:read",
    "PATCH /api/v1/server/1/port/primary": "server:read",
    "GET /api/v1/server/1/rcon": "rcon:read",
    "GET /api/v1/server/1/sftp": "server:read",
    "PUT /api/v1/server/1/sftp": "files",
    "GET /api/v1/disk/": "server:read",
    "GET /api/v1/game": "server:read",
}
TOKEN_CALLS = {
    "GET /api/v1/token": "token",
    "POST /api/v1/token": "token",
    "DELETE /api/v1/token/<name>": "token",
    "POST /api/v1/login-link": "token",
}
"""In test_tokens.py."""
BODIES = {"POST": OK, "PUT /api/v1/server/1/sftp": {"password": True}, "PATCH /api/v1/server/1/": {}}
READ = {"server:read"}
OPERATE = {"server:create", "server:write", "server:power", "rcon:read", "files"}
HOLDERS = {"reader": READ, "operator": READ | OPERATE, "shop": READ | OPERATE | {"server:delete"}}


@pytest.fixture
def client(world: World, settings: Settings) -> Client:
    """An API with file access."""
    settings = replace(settings, sftp_namespace="gameserver-sftp")
    return Client(create_app(settings, FakeCluster(world), FakeReleases(world), FakeAccounts()).test_client())


def send(client: Client, call: str, token: str = "shop", id: int = 1, **more: Any) -> TestResponse:
    """One of CALLS, with a body that suits it, about server `id`."""
    method, path = call.split()
    body = BODIES.get(call, BODIES.get(method) if method == "POST" else None)
    return client.call(method, path.replace("/1/", f"/{id}/"), body, token=token, **more)


def test_no_call_is_missing_here(client: Client) -> None:
    """Each route and method that needs a token, and the scope it asks for."""
    found = {
        f"{method} {re.sub('<any[^>]*>', 'primary', route.rule.replace('<id:id>', '1'))}": route.access.scope
        for route in client.flask.application.extensions["routes"]
        if route.access.scope is not None
        for method in route.methods
    }
    assert found == CALLS | TOKEN_CALLS


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("holder", HOLDERS)
def test_each_call_needs_its_scope(client: Client, call: str, holder: str) -> None:
    """403 that names it; with it, whatever the call says."""
    client.post("/api/v1/server/1/", OK)
    answer = send(client, call, holder)
    if CALLS[call] in HOLDERS[holder]:
        assert answer.status_code == 200
    else:
        assert answer.json is not None
        assert (answer.status_code, answer.json["type"]) == (403, "/problems/missing-scope")
        assert f"`{CALLS[call]}`" in answer.json["detail"]


@pytest.mark.parametrize("call", [*CALLS, *TOKEN_CALLS, "GET /nope", "PUT /api/v1/server/1/", "GET /api/v1/server/0/"])
@pytest.mark.parametrize("header", [None, "Bearer wrong", "Basic c2hvcDpzaG9w", "Bearer "])
def test_without_a_token_nothing_is_told(client: Client, call: str, header: str | None) -> None:
    """401 for every address that is not public, the unknown ones too."""
    method, path = call.split()
    answer = client.flask.open(path, method=method, headers={"Authorization": header} if header else {})
    assert answer.json is not None
    assert (answer.status_code, answer.json["type"]) == (401, "/problems/unauthorized")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_a_customers_token_sees_that_customers_servers_alone(client: Client, world: World) -> None:
    """Others' are not found, whatever the call."""
    client.post("/api/v1/server/1/", {**OK, "customer": "other"})
    assert client.post("/api/v1/server/2/", OK, token="acme").status_code == 201
    assert world.values[2]["server"]["customer"] == "acme"
    listed = client.get("/api/v1/server/", token="acme").json
    assert listed is not None
    assert [server["id"] for server in listed["servers"]] == [2]
    world.history.clear()
    for call in CALLS:
        if "/1/" in call:
            others = send(client, call, "acme")
            assert (call, others.status_code) == (call, 404)
            # Nor does the answer tell that there is something.
            assert call.startswith("POST") or others.json == send(client, call, "acme", 3).json
    assert world.history == []


def test_a_customers_token_cannot_create_for_another(client: Client, world: World) -> None:
    """403; naming its own customer is fine."""
    assert client.post("/api/v1/server/1/", {**OK, "customer": "other"}, token="acme").status_code == 403
    assert world.history == []
    assert client.post("/api/v1/server/1/", {**OK, "customer": "acme"}, token="acme").status_code == 201


def test_a_customers_token_touches_no_other_customers_disk(client: Client, world: World) -> None:
    """Neither listed, nor reused, nor erased; its own is."""
    client.post("/api/v1/server/1/", {**OK, "customer": "other"})
    client.post("/api/v1/server/2/", OK, token="acme")
    client.delete("/api/v1/server/1/")
    client.delete("/api/v1/server/2/")
    disks = client.get("/api/v1/disk/", token="acme").json
    assert disks is not None
    assert [disk["id"] for disk in disks["disks"]] == [2]
    world.history.clear()
    assert client.post("/api/v1/server/1/", {**OK, "disk": "reuse"}, token="acme").status_code == 404
    assert client.delete("/api/v1/server/1/?disk=erase", token="acme").status_code == 404
    assert world.history == []
    assert client.delete("/api/v1/server/2/?disk=erase", token="acme").status_code == 200


def test_every_change_leaves_an_audit_line(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """Who, what, which server, how it ended; reads leave none."""
    caplog.set_level(logging.INFO, "service.audit")
    client.post("/api/v1/server/1/", OK)
    client.get("/api/v1/server/1/")
    client.patch("/api/v1/server/1/port/primary")
    client.patch("/api/v1/server/1/stop", token="reader")
    client.patch("/api/v1/server/1/stop", token="unknown")
    client.delete("/api/v1/server/2/")
    assert [record.fields for record in caplog.records if record.name == "service.audit"] == [  # type: ignore[attr-defined]
        {"token": "shop", "action": "create_server", "server": 1, "outcome": "ok"},
        {"token": "reader", "action": "stop_server", "server": 1, "outcome": "missing-scope"},
        {"token": "", "action": "stop_server", "server": 1, "outcome": "unauthorized"},
        {"token": "shop", "action": "delete_server", "server": 2, "outcome": "server-not-found"},
    ]


@pytest.mark.parametrize("call", CALLS)
def test_each_change_is_audited_with_its_request(
    client: Client, call: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is no read, and the one read that gives a password away; the line carries the request's id."""
    client.post("/api/v1/server/1/", OK)
    caplog.set_level(logging.INFO, "service.audit")
    monkeypatch.setattr(caplog.handler, "formatter", logs.JsonFormatter())
    caplog.clear()
    assert send(client, call, headers={"X-Request-Id": "shop-17"}).status_code == 200
    lines = [json.loads(line) for line in caplog.text.splitlines()]
    lines = [line for line in lines if line["logger"] == "service.audit"]
    audited = "rcon" in call or not (call.startswith("GET") or "port" in call)
    assert [(line["request_id"], line["server"], line["outcome"]) for line in lines] == [("shop-17", 1, "ok")] * audited


def test_each_line_of_a_request_names_its_server(
    client: Client, world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that an operator finds all that was about one; what comes after it is not about that one."""
    client.post("/api/v1/server/1/", OK)
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(caplog.handler, "formatter", logs.JsonFormatter())
    world.failure = OperationFailed()
    world.failure.__cause__ = OSError("no helm")
    caplog.clear()
    assert client.patch("/api/v1/server/1/stop").status_code == 500
    assert client.get("/api/v1/game").status_code == 200
    logging.getLogger("some.module").info("afterwards")
    lines = [json.loads(line) for line in caplog.text.splitlines()]
    # Other tests leave watches behind.
    lines = [line for line in lines if line["logger"] != "service.kube.watch"]
    assert [(line["logger"], line.get("server"), "request_id" in line) for line in lines] == [
        ("service.web.problems", 1, True),
        ("service.audit", 1, True),
        ("service.access", 1, True),
        ("service.access", None, True),
        ("some.module", None, False),
    ]
    # Ids are used again.
    uid = world.values[1]["server"]["uid"]
    assert [line.get("uid") for line in lines] == [uid, uid, uid, None, None]


def test_a_request_id_is_taken_or_made(client: Client) -> None:
    """A harmless one comes back; another gives way to a new one, so that no log line can be forged."""
    assert client.get("/api/v1/game", headers={"X-Request-Id": "shop-17"}).headers["X-Request-Id"] == "shop-17"
    for odd in ("a b", "x" * 129, '"}', ""):
        assert len(client.get("/api/v1/game", headers={"X-Request-Id": odd}).headers["X-Request-Id"]) == 16


def test_no_secret_is_logged(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the token nor the RCON password, nor a text that a customer wrote."""
    caplog.set_level(logging.DEBUG)
    client.post("/api/v1/server/1/", {**OK, "options": {"motd": "hush"}})
    assert client.get("/api/v1/server/1/rcon").json == {
        "success": True,
        "host": "203.0.113.7",
        "port": 31002,
        "password": "password-1",
    }
    # A token where none belongs.
    for path in (
        "/shop-secret",
        "/api/v1/server/shop-secret/",
        "/api/v1/server/1/port/shop-secret",
        "/problems/shop-secret",
    ):
        assert client.get(f"{path}?token=shop-secret").status_code == 404
    client.post("/api/v1/server/2/", {**OK, "customer": "shop-secret", "shop-secret": "shop-secret"})
    assert caplog.records
    for secret in ("shop-secret", "password-1", "hush"):
        assert secret not in caplog.text


def test_tokens_change_without_a_restart(client: Client, settings: Settings) -> None:
    """An operator edits the Secret."""
    assert client.get("/api/v1/game", token="reader").status_code == 200
    path = Path(settings.tokens_file)
    kept = [entry for entry in json.loads(path.read_text())["tokens"] if entry["name"] != "reader"]
    path.write_text(json.dumps({"tokens": kept}))
    assert client.get("/api/v1/game", token="reader").status_code == 401
    assert client.get("/api/v1/game").status_code == 200


def test_a_route_that_names_no_scope_cannot_start(make_app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in Pterodactyl's CVE-2025-49132: a forgotten route without authentication."""
    from service.api import games

    monkeypatch.setattr(games.blueprint, "deferred_functions", list(games.blueprint.deferred_functions))
    monkeypatch.setattr(games.blueprint, "_got_registered_once", False)
    games.blueprint.record(lambda state: state.add_url_rule("/forgotten", "forgotten", lambda: "hi"))
    with pytest.raises(AssertionError, match=r"/forgotten declares neither a scope"):
        make_app()


def test_a_route_with_an_id_says_what_that_is_about(make_app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else nobody would ask whether the caller may see it."""
    from service.api import games

    view = access("server:read")(lambda id: "hi")
    monkeypatch.setattr(games.blueprint, "deferred_functions", list(games.blueprint.deferred_functions))
    monkeypatch.setattr(games.blueprint, "_got_registered_once", False)
    games.blueprint.record(lambda state: state.add_url_rule("/forgotten/<id:id>", "forgotten", view))
    with pytest.raises(AssertionError, match=r"/forgotten/<id:id> does not declare what its id refers to"):
        make_app()


@pytest.fixture
def confined(tmp_path: Path, world: World, settings: Settings) -> Client:
    """An API with file access, for `acme`'s tokens: of all its servers, of server 2, and with single scopes."""
    entries = [
        tokens.entry("shop", "shop-secret"),
        tokens.entry("acme", "acme-secret", customer="acme"),
        tokens.entry("one", "one-secret", customer="acme", servers=[2]),
        tokens.entry("deletes", "deletes-secret", scopes=["server:delete", "server:create"]),
        tokens.entry("erases", "erases-secret", scopes=["server:delete", "server:create", "disk:erase"]),
    ]
    file = tokens.write(tmp_path / "confined.json", *entries)
    settings = replace(settings, sftp_namespace="gameserver-sftp")
    edges = FakeCluster(world), FakeReleases(world), FakeAccounts(), FakeTokens(TokensFile(file))
    return Client(create_app(settings, *edges).test_client())


def test_a_token_of_some_servers_sees_no_other(confined: Client, world: World) -> None:
    """Neither its customer's other ones, nor their disks, nor ids that nobody has; on no route that there is."""
    other, nobodys = 4711001, 4711003
    for id in (other, 2):
        assert confined.post(f"/api/v1/server/{id}/", OK, token="acme").status_code == 201
    named = {"name": f"of-{other}", "scopes": ["read"], "customer": "acme", "servers": [other]}
    assert confined.post("/api/v1/token", named).status_code == 201
    world.history.clear()
    routes = confined.flask.application.extensions["routes"]
    asked = {(method, _filled(route.rule)) for route in routes for method in route.methods}
    assert len(asked) > 15
    for method, path in asked:
        body = BODIES.get(f"{method} {path.format(1)}", OK if method == "POST" else None)
        if "{}" not in path:
            assert str(other) not in confined.call(method, path, body, token="one").text, path
            continue
        found = {id: confined.call(method, path.format(id), body, token="one") for id in (other, nobodys)}
        assert [answer.status_code for answer in found.values()] == [404, 404], path
        # Nor does the answer tell that there is something.
        assert found[other].json == found[nobodys].json
        assert found[other].json["type"] == "/problems/server-not-found"
    listed = confined.get("/api/v1/server/", token="one").json
    assert listed is not None
    assert [server["id"] for server in listed["servers"]] == [2]
    assert world.history == []
    for id in (other, 2):
        confined.delete(f"/api/v1/server/{id}/")
    disks = confined.get("/api/v1/disk/", token="one").json
    assert disks is not None
    assert [disk["id"] for disk in disks["disks"]] == [2]
    assert confined.post(f"/api/v1/server/{other}/", {**OK, "disk": "erase"}, token="one").status_code == 404
    assert confined.post("/api/v1/server/2/", {**OK, "disk": "reuse"}, token="one").status_code == 201


def _filled(rule: str) -> str:
    """A route's rule as an address, with `{}` for a server's id."""
    return re.sub("<[^>]*>", "some", re.sub("<any[^>]*>", "primary", rule.replace("<id:id>", "{}")))


def test_a_token_of_some_servers_of_a_customer_sees_them_only_while_they_are_his(confined: Client) -> None:
    """An id is given to another customer once its first one has gone."""
    confined.post("/api/v1/server/2/", {**OK, "customer": "other"})
    assert confined.get("/api/v1/server/2/", token="one").status_code == 404


def test_an_erase_asks_for_a_scope_of_its_own(confined: Client, world: World) -> None:
    """Beside that of the delete or the create; what keeps the disk does not."""
    confined.post("/api/v1/server/1/", OK)
    world.history.clear()
    erase = "/api/v1/server/1/?disk=erase"
    for answer in (
        confined.delete(erase, token="deletes"),
        confined.post("/api/v1/server/1/", {**OK, "disk": "erase"}, token="deletes"),
    ):
        assert answer.json is not None
        assert (answer.status_code, answer.json["type"]) == (403, "/problems/missing-scope")
        assert "`disk:erase`" in answer.json["detail"]
    assert world.history == []
    assert confined.delete("/api/v1/server/1/", token="deletes").status_code == 200
    assert confined.post("/api/v1/server/1/", {**OK, "disk": "erase"}, token="erases").status_code == 201
    assert confined.delete(erase, token="erases").status_code == 200
