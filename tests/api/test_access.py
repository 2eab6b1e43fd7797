"""Scopes, customers and audit lines of every call."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from service.app import create_app
from service.assembly import build_context
from service.errors import OperationFailed
from service.records.store import RecordStore
from service.settings import Settings
from service.telemetry import logs
from service.tokens import TokensFile
from service.web.routes import access
from tests.api.conftest import SIZES, Client
from tests.support import tokens
from tests.support.fakes import FakeAccounts, FakeCluster, FakeReleases, FakeTokens, World
from tests.support.memory_kube import LabelledKube

CALLS = {
    "GET /api/v1/server/": "server:read",
    "POST /api/v1/server/1/": "server:create",
    "GET /api/v1/server/1/": "server:read",
    "PATCH /api/v1/server/1/": "server:write",
    "DELETE /api/v1/server/1/": "server:delete",
    "PATCH /api/v1/server/1/start": "server:power",
    "PATCH /api/v1/server/1/stop": "server:power",
    "PATCH /api/v1/server/1/restart": "server:power",
    "PATCH /api/v1/server/1/suspend": "server:suspend",
    "PATCH /api/v1/server/1/unsuspend": "server:suspend",
    "GET /api/v1/server/1/port/primary": "server:read",
    "PATCH /api/v1/server/1/port/primary": "server:read",
    "GET /api/v1/server/1/rcon": "rcon:read",
    "GET /api/v1/server/1/log": "console:read",
    "GET /api/v1/server/1/progress": "server:read",
    "GET /api/v1/server/1/sftp": "server:read",
    "PUT /api/v1/server/1/sftp": "files",
    "GET /api/v1/disk/": "server:read",
    "GET /api/v1/event/": "server:read",
    "GET /api/v1/game": "server:read",
}
SCHEDULE_CALLS = {
    "GET /api/v1/server/1/schedule/": "schedule",
    "GET /api/v1/server/1/schedule/nightly": "schedule",
    "PUT /api/v1/server/1/schedule/nightly": "schedule",
    "DELETE /api/v1/server/1/schedule/nightly": "schedule",
    "POST /api/v1/server/1/schedule/nightly/run": "schedule",
    "POST /api/v1/server/1/schedule/nightly/abort": "schedule",
}
"""The calls about schedules; test_schedules.py tests them."""
TOKEN_CALLS = {
    "GET /api/v1/token": "token",
    "POST /api/v1/token": "token",
    "DELETE /api/v1/token/<name>": "token",
    "POST /api/v1/login-link": "token",
}
"""The calls about tokens; test_tokens.py tests them."""
OPERATION_CALLS = {
    "POST /api/v1/server/_bulk": "server:read",
    "GET /api/v1/operation/": "server:read",
    "GET /api/v1/operation/<operation>": "server:read",
    "POST /api/v1/operation/<operation>/cancel": "server:read",
}
"""The calls about operations, which need the scope of the action too; test_operations.py tests them."""

RECOVERY_CALLS = {"POST /api/v1/server/1/_recover": "recover"}
"""The call that brings a server back, which no bundle allows; test_recovery.py tests it."""
BACKUP_CALLS = {
    "GET /api/v1/server/1/backup/": "backup:read",
    "POST /api/v1/server/1/backup/": "backup:create",
    "GET /api/v1/server/1/backup/b-0": "backup:read",
    "PATCH /api/v1/server/1/backup/b-0": "backup:create",
    "DELETE /api/v1/server/1/backup/b-0": "backup:create",
    "POST /api/v1/server/1/restore": "backup:restore",
    "POST /api/v1/server/1/undo-restore": "backup:restore",
    "GET /api/v1/backup/": "backup:read",
    "GET /api/v1/backup/b-0": "backup:read",
    "DELETE /api/v1/backup/b-0": "backup:create",
}
"""The calls about backups; test_backups.py tests them."""

CONSOLE_CALLS = {"POST /api/v1/server/1/command": "console:write"}
"""The calls about a game's console; test_console.py tests them."""

WEBHOOK_CALLS = {
    "GET /api/v1/webhook": "webhook",
    "GET /api/v1/webhook/<webhook:name>": "webhook",
    "PUT /api/v1/webhook/<webhook:name>": "webhook",
    "DELETE /api/v1/webhook/<webhook:name>": "webhook",
    "POST /api/v1/webhook/<webhook:name>/rotate": "webhook",
    "POST /api/v1/webhook/<webhook:name>/test": "webhook",
    "GET /api/v1/webhook/<webhook:name>/delivery": "webhook",
}
"""The calls about webhooks; test_webhooks.py tests them."""
BODIES = {
    "PUT /api/v1/server/1/schedule/some": {"cron": "H 4 * * *", "steps": [{"stop": {}}]},
    "POST": SIZES,
    "PUT /api/v1/server/1/sftp": {"password": True},
    "PATCH /api/v1/server/1/": {},
    "PATCH /api/v1/server/1/suspend": {"reason": "The invoice is overdue."},
    "POST /api/v1/server/1/backup/": {},
    "POST /api/v1/server/1/command": {"command": "list"},
    f"PATCH /api/v1/server/1/backup/b-{'0' * 20}": {"name": "mine"},
    "POST /api/v1/server/1/restore": {"backup": f"b-{'0' * 20}"},
    "POST /api/v1/server/1/undo-restore": {},
}
READ = {"server:read"}
OPERATE = {"server:create", "server:write", "server:power", "rcon:read", "files"}
HOLDERS = {
    "reader": READ,
    "operator": READ | OPERATE,
    "shop": READ | OPERATE | {"server:delete", "server:suspend", "console:read"},
}


@pytest.fixture
def client(world: World, settings: Settings) -> Client:
    """A client of an API with file access."""
    settings = replace(settings, sftp_namespace="gameserver-sftp")
    records = partial(RecordStore, LabelledKube(), settings.servers_namespace)
    app = create_app(build_context(settings, FakeCluster(world), FakeReleases(world), FakeAccounts(), records=records))
    return Client(app.test_client())


def send(client: Client, call: str, token: str = "shop", id: int = 1, **more: Any) -> TestResponse:
    """Send one of CALLS to server `id`, with a body that fits."""
    method, path = call.split()
    body = BODIES.get(call, BODIES.get(method) if method == "POST" else None)
    return client.call(method, path.replace("/1/", f"/{id}/"), body, token=token, **more)


def test_the_table_of_calls_is_complete(client: Client) -> None:
    """It has every route and method that needs a token, with the scope."""
    names = {"<id:id>": "1", "<name:name>": "nightly", "<backup:backup>": "b-0"}

    def shown(rule: str) -> str:
        return re.sub(
            "<any[^>]*>", "primary", re.sub("<[a-z]+:[a-z]+>", lambda part: names.get(part[0], part[0]), rule)
        )

    declared = {
        f"{method} {shown(route.rule)}": route.access.scope
        for route in client.flask.application.extensions["routes"]
        if route.access.scope is not None
        for method in route.methods
    }
    assert declared == (
        CALLS
        | BACKUP_CALLS
        | CONSOLE_CALLS
        | OPERATION_CALLS
        | SCHEDULE_CALLS
        | TOKEN_CALLS
        | RECOVERY_CALLS
        | WEBHOOK_CALLS
    )


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("holder", HOLDERS)
def test_each_call_needs_its_scope(client: Client, call: str, holder: str) -> None:
    """Without the scope, a call answers 403 and names it; with the scope, it succeeds."""
    client.post("/api/v1/server/1/", SIZES)
    answer = send(client, call, holder)
    if CALLS[call] in HOLDERS[holder]:
        assert answer.status_code == 200
    else:
        assert answer.json is not None
        assert (answer.status_code, answer.json["type"]) == (403, "/problems/missing-scope")
        assert f"`{CALLS[call]}`" in answer.json["detail"]


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> FlaskClient:
    """A client without a token, of an API that it cannot change: one is enough for all tests that use it."""
    file = tokens.write(tmp_path_factory.mktemp("api") / "tokens.json", tokens.entry("shop"))
    settings = replace(Settings(), tokens_file=file, sftp_namespace="gameserver-sftp")
    return create_app(
        build_context(settings, FakeCluster(World()), FakeReleases(World()), FakeAccounts())
    ).test_client()


@pytest.mark.parametrize(
    "call",
    [
        *(*CALLS, *BACKUP_CALLS, *CONSOLE_CALLS, *TOKEN_CALLS, *OPERATION_CALLS, *WEBHOOK_CALLS),
        *("GET /nope", "PUT /api/v1/server/1/", "GET /api/v1/server/0/"),
    ],
)
@pytest.mark.parametrize("header", [None, "Bearer wrong", "Basic c2hvcDpzaG9w", "Bearer "])
def test_a_call_without_a_valid_token_reveals_nothing(stranger: FlaskClient, call: str, header: str | None) -> None:
    """Every path that is not public answers 401, and so does an unknown path."""
    method, path = call.split()
    answer = stranger.open(path, method=method, headers={"Authorization": header} if header else {})
    assert answer.json is not None
    assert (answer.status_code, answer.json["type"]) == (401, "/problems/unauthorized")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_a_customers_token_sees_only_that_customers_servers(client: Client, world: World) -> None:
    """For every call, other customers' servers are not found."""
    client.post("/api/v1/server/1/", {**SIZES, "customer": "other"})
    assert client.post("/api/v1/server/2/", SIZES, token="acme").status_code == 201
    assert world.values[2]["server"]["customer"] == "acme"
    listed = client.get("/api/v1/server/", token="acme").json
    assert listed is not None
    assert [server["id"] for server in listed["servers"]] == [2]
    world.history.clear()
    for call in CALLS:
        if "/1/" in call:
            others = send(client, call, "acme")
            assert (call, others.status_code) == (call, 404)
            # The answer does not reveal that the server exists.
            assert call.startswith("POST") or others.json == send(client, call, "acme", 3).json
    assert world.history == []


@pytest.mark.parametrize(("token", "own"), [("acme", [2, 4, 6]), ("one", [2]), ("shop", [1, 2, 3, 4, 5, 6, 7])])
def test_the_pages_of_a_list_reveal_no_server_of_another(confined: Client, token: str, own: list[int]) -> None:
    """Each page is full, and `continue` is empty after the token's last server, whoever has the next."""
    for id in range(1, 8):
        confined.post(f"/api/v1/server/{id}/", {**SIZES, "customer": "other" if id % 2 else "acme"})
    pages, continue_ = [], ""
    while continue_ is not None:
        answer = confined.get(
            f"/api/v1/server/?limit=1{continue_ and f'&continue={continue_}'}", token=token
        ).get_json()
        pages.append(([server["id"] for server in answer["servers"]], answer["continue"]))
        continue_ = answer["continue"]
    assert pages == [([id], str(id)) for id in own[:-1]] + [([own[-1]], None)]


def test_a_customers_token_cannot_create_for_another(client: Client, world: World) -> None:
    """It answers 403 for another customer; the token may name its own customer."""
    assert client.post("/api/v1/server/1/", {**SIZES, "customer": "other"}, token="acme").status_code == 403
    assert world.history == []
    assert client.post("/api/v1/server/1/", {**SIZES, "customer": "acme"}, token="acme").status_code == 201


def test_a_customers_token_cannot_touch_another_customers_disk(client: Client, world: World) -> None:
    """It cannot list, reuse or erase that disk, but it can erase its own customer's."""
    client.post("/api/v1/server/1/", {**SIZES, "customer": "other"})
    client.post("/api/v1/server/2/", SIZES, token="acme")
    client.delete("/api/v1/server/1/")
    client.delete("/api/v1/server/2/")
    disks = client.get("/api/v1/disk/", token="acme").json
    assert disks is not None
    assert [disk["id"] for disk in disks["disks"]] == [2]
    world.history.clear()
    assert client.post("/api/v1/server/1/", {**SIZES, "disk": "reuse"}, token="acme").status_code == 404
    assert client.delete("/api/v1/server/1/?disk=erase", token="acme").status_code == 404
    assert world.history == []
    assert client.delete("/api/v1/server/2/?disk=erase", token="acme").status_code == 200


def test_every_change_leaves_an_audit_line(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """The line has the token's name, the action, the server and the outcome; reads leave none."""
    caplog.set_level(logging.INFO, "service.audit")
    client.post("/api/v1/server/1/", SIZES)
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
def test_each_audit_line_has_the_request_id(
    client: Client, call: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call is audited that is not a read, and so is the one read that returns a password."""
    client.post("/api/v1/server/1/", SIZES)
    caplog.set_level(logging.INFO, "service.audit")
    monkeypatch.setattr(caplog.handler, "formatter", logs.JsonFormatter())
    caplog.clear()
    assert send(client, call, headers={"X-Request-Id": "shop-17"}).status_code == 200
    lines = [json.loads(line) for line in caplog.text.splitlines()]
    lines = [line for line in lines if line["logger"] == "service.audit"]
    audited = "rcon" in call or not (call.startswith("GET") or "port" in call)
    assert [(line["request_id"], line["server"], line["outcome"]) for line in lines] == [("shop-17", 1, "ok")] * audited


def test_each_log_line_of_a_request_names_its_server(
    client: Client, world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Operators can filter by server; later lines of the thread do not name that server."""
    client.post("/api/v1/server/1/", SIZES)
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(caplog.handler, "formatter", logs.JsonFormatter())
    world.failure = OperationFailed()
    world.failure.__cause__ = OSError("no helm")
    caplog.clear()
    assert client.patch("/api/v1/server/1/stop").status_code == 500
    assert client.get("/api/v1/game").status_code == 200
    logging.getLogger("some.module").info("afterwards")
    lines = [json.loads(line) for line in caplog.text.splitlines()]
    # Ignore the watches that other tests leave running.
    lines = [line for line in lines if line["logger"] != "service.kube.watch"]
    assert [(line["logger"], line.get("server"), "request_id" in line) for line in lines] == [
        ("service.web.problems", 1, True),
        ("service.audit", 1, True),
        ("service.access", 1, True),
        ("service.access", None, True),
        ("some.module", None, False),
    ]
    # The uid distinguishes servers that have had the same id.
    uid = world.values[1]["server"]["uid"]
    assert [line.get("uid") for line in lines] == [uid, uid, uid, None, None]


def test_a_request_id_is_kept_or_replaced(client: Client) -> None:
    """A harmless id is kept; any other is replaced, so that nobody can forge log lines."""
    assert client.get("/api/v1/game", headers={"X-Request-Id": "shop-17"}).headers["X-Request-Id"] == "shop-17"
    for odd in ("a b", "x" * 129, '"}', ""):
        assert len(client.get("/api/v1/game", headers={"X-Request-Id": odd}).headers["X-Request-Id"]) == 16


def test_no_secret_is_logged(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """Tokens, RCON passwords and customers' texts stay out of the log."""
    caplog.set_level(logging.DEBUG)
    client.post("/api/v1/server/1/", {**SIZES, "options": {"motd": "hush"}})
    assert client.get("/api/v1/server/1/rcon").json == {
        "success": True,
        "host": "203.0.113.7",
        "port": 31002,
        "password": "password-1",
    }
    # Tokens in the wrong place.
    for path in (
        "/shop-secret",
        "/api/v1/server/shop-secret/",
        "/api/v1/server/1/port/shop-secret",
        "/problems/shop-secret",
    ):
        assert client.get(f"{path}?token=shop-secret").status_code == 404
    client.post("/api/v1/server/2/", {**SIZES, "customer": "shop-secret", "shop-secret": "shop-secret"})
    assert caplog.records
    for secret in ("shop-secret", "password-1", "hush"):
        assert secret not in caplog.text


def test_tokens_are_reloaded_without_a_restart(client: Client, settings: Settings) -> None:
    """A token that the operator removes from the file stops working, and the others keep working."""
    assert client.get("/api/v1/game", token="reader").status_code == 200
    path = settings.tokens_file
    assert path is not None
    remaining = [entry for entry in json.loads(path.read_text())["tokens"] if entry["name"] != "reader"]
    path.write_text(json.dumps({"tokens": remaining}))
    assert client.get("/api/v1/game", token="reader").status_code == 401
    assert client.get("/api/v1/game").status_code == 200


def test_a_route_without_a_scope_stops_the_start(make_app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A forgotten route must not be public, as one was in Pterodactyl (CVE-2025-49132)."""
    from service.api import games

    monkeypatch.setattr(games.blueprint, "deferred_functions", list(games.blueprint.deferred_functions))
    monkeypatch.setattr(games.blueprint, "_got_registered_once", False)
    games.blueprint.record(lambda state: state.add_url_rule("/forgotten", "forgotten", lambda: "hi"))
    with pytest.raises(AssertionError, match=r"/forgotten declares neither a scope"):
        make_app()


def test_a_route_with_an_id_declares_its_subject(make_app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise nothing would check that the caller may see the server."""
    from service.api import games

    view = access("server:read")(lambda id: "hi")
    monkeypatch.setattr(games.blueprint, "deferred_functions", list(games.blueprint.deferred_functions))
    monkeypatch.setattr(games.blueprint, "_got_registered_once", False)
    games.blueprint.record(lambda state: state.add_url_rule("/forgotten/<id:id>", "forgotten", view))
    with pytest.raises(AssertionError, match=r"/forgotten/<id:id> does not declare what its id refers to"):
        make_app()


@pytest.fixture
def confined(tmp_path: Path, world: World, settings: Settings) -> Client:
    """A client with tokens that are confined to `acme`, to server 2, or that have single scopes; with file access."""
    entries = [
        tokens.entry("shop", "shop-secret"),
        tokens.entry("acme", "acme-secret", customer="acme"),
        tokens.entry("one", "one-secret", customer="acme", servers=[2]),
        tokens.entry("deletes", "deletes-secret", scopes=["server:delete", "server:create"]),
        tokens.entry("erases", "erases-secret", scopes=["server:delete", "server:create", "disk:erase"]),
    ]
    file = tokens.write(tmp_path / "confined.json", *entries)
    settings = replace(settings, sftp_namespace="gameserver-sftp")
    collaborators = FakeCluster(world), FakeReleases(world), FakeAccounts(), FakeTokens(TokensFile(file))
    records = partial(RecordStore, LabelledKube(), settings.servers_namespace)
    return Client(create_app(build_context(settings, *collaborators, records=records)).test_client())


def test_a_token_for_some_servers_sees_no_others(confined: Client, world: World) -> None:
    """On no route does it see its customer's other servers or their disks; they look like ids without a server."""
    other, unused = 4711001, 4711003
    for id in (other, 2):
        assert confined.post(f"/api/v1/server/{id}/", SIZES, token="acme").status_code == 201
    token = {"name": f"of-{other}", "scopes": ["read"], "customer": "acme", "servers": [other]}
    assert confined.post("/api/v1/token", token).status_code == 201
    world.history.clear()
    routes = confined.flask.application.extensions["routes"]
    calls = {(method, _path_of(route.rule)) for route in routes for method in route.methods}
    assert len(calls) > 15
    for method, path in calls:
        body = BODIES.get(f"{method} {path.format(1)}", SIZES if method == "POST" else None)
        if "{}" not in path:
            assert str(other) not in confined.call(method, path, body, token="one").text, path
            continue
        answers = {id: confined.call(method, path.format(id), body, token="one") for id in (other, unused)}
        if path.endswith("/_recover"):
            # No confined token may make it.
            assert {answer.status_code for answer in answers.values()} == {403}
            continue
        assert [answer.status_code for answer in answers.values()] == [404, 404], path
        # The answer does not reveal that the server exists.
        assert answers[other].json == answers[unused].json
        assert answers[other].json["type"] == "/problems/server-not-found"  # type: ignore[index]
    listed = confined.get("/api/v1/server/", token="one").json
    assert listed is not None
    assert [server["id"] for server in listed["servers"]] == [2]
    assert world.history == []
    for id in (other, 2):
        confined.delete(f"/api/v1/server/{id}/")
    disks = confined.get("/api/v1/disk/", token="one").json
    assert disks is not None
    assert [disk["id"] for disk in disks["disks"]] == [2]
    assert confined.post(f"/api/v1/server/{other}/", {**SIZES, "disk": "erase"}, token="one").status_code == 404
    assert confined.post("/api/v1/server/2/", {**SIZES, "disk": "reuse"}, token="one").status_code == 201


def _path_of(rule: str) -> str:
    """A path that matches the rule, with `{}` in place of a server's id."""
    rule = rule.replace("<id:id>", "{}").replace("<backup:backup>", f"b-{'0' * 20}")
    return re.sub("<[^>]*>", "some", re.sub("<any[^>]*>", "primary", rule))


def test_a_token_for_servers_of_a_customer_does_not_see_them_at_another_customer(confined: Client) -> None:
    """The shop may use an id again for another customer."""
    confined.post("/api/v1/server/2/", {**SIZES, "customer": "other"})
    assert confined.get("/api/v1/server/2/", token="one").status_code == 404


def test_an_erase_needs_its_own_scope(confined: Client, world: World) -> None:
    """A delete or create with `disk=erase` also needs `disk:erase`; one that keeps the disk does not."""
    confined.post("/api/v1/server/1/", SIZES)
    world.history.clear()
    erase = "/api/v1/server/1/?disk=erase"
    for answer in (
        confined.delete(erase, token="deletes"),
        confined.post("/api/v1/server/1/", {**SIZES, "disk": "erase"}, token="deletes"),
    ):
        assert answer.json is not None
        assert (answer.status_code, answer.json["type"]) == (403, "/problems/missing-scope")
        assert "`disk:erase`" in answer.json["detail"]
    assert world.history == []
    assert confined.delete("/api/v1/server/1/", token="deletes").status_code == 200
    assert confined.post("/api/v1/server/1/", {**SIZES, "disk": "erase"}, token="erases").status_code == 201
    assert confined.delete(erase, token="erases").status_code == 200
