"""Who may do what; and what is written down about it."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from service.settings import Settings
from tests.api.conftest import Client
from tests.fakes import World

OK = {"ram_gb": 2, "disk_gb": 10}
CALLS = {
    "GET /api/v1/server/": "read",
    "POST /api/v1/server/1/": "operate",
    "GET /api/v1/server/1/": "read",
    "PATCH /api/v1/server/1/": "operate",
    "DELETE /api/v1/server/1/": "admin",
    "PATCH /api/v1/server/1/start": "operate",
    "PATCH /api/v1/server/1/stop": "operate",
    "PATCH /api/v1/server/1/restart": "operate",
    "GET /api/v1/server/1/port/primary": "read",
    "PATCH /api/v1/server/1/port/primary": "read",
    "GET /api/v1/server/1/rcon": "operate",
    "GET /api/v1/disk/": "read",
    "GET /api/v1/game": "read",
}
HOLDERS = {"reader": {"read"}, "operator": {"read", "operate"}, "shop": {"read", "operate", "admin"}}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("holder", HOLDERS)
def test_each_call_needs_its_scope(client: Client, call: str, holder: str) -> None:
    """403 that names it; with it, whatever the call says."""
    client.post("/api/v1/server/1/", OK)
    method, path = call.split()
    answer = client.call(method, path, OK if method == "POST" else {} if path.endswith("/1/") else None, token=holder)
    if CALLS[call] in HOLDERS[holder]:
        assert answer.status_code == 200
    else:
        assert answer.json is not None
        assert (answer.status_code, answer.json["type"]) == (403, "/problems/missing-scope")
        assert f"`{CALLS[call]}`" in answer.json["detail"]


@pytest.mark.parametrize("call", [*CALLS, "GET /nope", "PUT /api/v1/server/1/", "GET /api/v1/server/0/"])
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
        method, path = call.split()
        if "/1/" in path:
            answer = client.call(
                method, path, OK if method == "POST" else {} if path.endswith("/1/") else None, token="acme"
            )
            assert (call, answer.status_code) == (call, 404)
            mine = client.call(method, path.replace("/1/", "/3/"), {} if path.endswith("/3/") else None, token="acme")
            assert mine.status_code in (404, 415, 422), call
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
    client.delete("/api/v1/server/2/")
    assert [record.fields for record in caplog.records if record.name == "service.audit"] == [  # type: ignore[attr-defined]
        {"token": "shop", "action": "create_server", "server": 1, "outcome": "ok"},
        {"token": "reader", "action": "stop_server", "server": 1, "outcome": "missing-scope"},
        {"token": "shop", "action": "delete_server", "server": 2, "outcome": "server-not-found"},
    ]


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
    from service import catalogue

    monkeypatch.setattr(catalogue.blueprint, "deferred_functions", list(catalogue.blueprint.deferred_functions))
    monkeypatch.setattr(catalogue.blueprint, "_got_registered_once", False)
    catalogue.blueprint.record(lambda state: state.add_url_rule("/forgotten", "forgotten", lambda: "hi"))
    with pytest.raises(AssertionError, match=r"/forgotten does not say"):
        make_app()
