"""A suspended server stays stopped, and its customer can only read it."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from service.app import create_app
from service.assembly import build_context
from service.errors import OperationFailed
from service.records.store import RecordStore
from service.settings import Settings
from service.tokens import SCOPES
from tests.api.conftest import SIZES, Client
from tests.support import tokens
from tests.support.fakes import FakeAccounts, FakeCluster, FakeReleases, World
from tests.support.memory_kube import LabelledKube

SERVER = "/api/v1/server/1/"
SUSPEND, UNSUSPEND = f"{SERVER}suspend", f"{SERVER}unsuspend"
REASON = {"reason": "The invoice 17 is overdue."}
BUNDLES = {"read", "operate", "admin"}
ACME = {**SIZES, "customer": "acme"}
REUSE = {**ACME, "disk": "reuse"}


@pytest.fixture
def accounts() -> FakeAccounts:
    return FakeAccounts()


@pytest.fixture
def client(tmp_path: Path, world: World, settings: Settings, accounts: FakeAccounts) -> Client:
    """A client of an API with file access, and acme's server 1, which runs.

    The token `acme` is the customer's, with every scope but `server:suspend` and `recover`. The token `shop` may do
    everything.
    """
    scopes = sorted(set(SCOPES) - BUNDLES - {"server:suspend", "recover"})
    entries = [
        tokens.entry("shop", "shop-secret"),
        tokens.entry("acme", "acme-secret", customer="acme", scopes=scopes),
    ]
    settings = replace(
        settings,
        tokens_file=tokens.write(tmp_path / "own.json", *entries),
        sftp_namespace="gameserver-sftp",
        backup_store={"kind": "folder"},
    )
    records = partial(RecordStore, LabelledKube(), settings.servers_namespace)
    client = Client(
        create_app(
            build_context(settings, FakeCluster(world), FakeReleases(world), accounts, records=records)
        ).test_client()
    )
    assert client.post(SERVER, ACME, token="acme").status_code == 201
    return client


@pytest.fixture
def suspended(client: Client, world: World) -> Client:
    """The same, after the shop has suspended the server."""
    assert client.patch(SUSPEND, REASON).json == {"success": True}
    world.history.clear()
    return client


def shown(client: Client, token: str = "acme") -> dict[str, Any]:
    """The server as its customer sees it."""
    server: dict[str, Any] = client.get(SERVER, token=token).get_json()
    return server


def test_a_suspended_server_stops_in_the_same_write(client: Client, world: World) -> None:
    """Helm upgrades once. Values, `GET` and the list have the reason and the time; the state keeps its words."""
    world.history.clear()
    assert client.patch(SUSPEND, REASON).json == {"success": True}
    assert world.history == [("change", 1)]
    stored = world.values[1]["server"]["suspended"]
    assert (stored["reason"], world.values[1]["replicas"]) == (REASON["reason"], 0)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", stored["since"])
    server = shown(client)
    assert (server["state"], server["wanted"], server["suspended"]) == ("stopped", "stopped", stored)
    listed = client.get("/api/v1/server/", token="acme").json
    assert listed is not None
    assert [each["suspended"] for each in listed["servers"]] == [stored]


def test_a_server_is_not_suspended_before_and_after(suspended: Client, world: World) -> None:
    """An unsuspended server stays stopped, nothing of the suspension stays, and its customer can start it."""
    assert suspended.patch(UNSUSPEND).json == {"success": True}
    assert world.history == [("change", 1)]
    assert "suspended" not in world.values[1]["server"]
    assert (shown(suspended)["state"], shown(suspended)["suspended"]) == ("stopped", None)
    assert suspended.patch(f"{SERVER}start", token="acme").status_code == 200
    assert shown(suspended)["state"] == "running"


def test_both_calls_are_idempotent(suspended: Client, world: World) -> None:
    """Sent again they write nothing. Another reason replaces the first, and the server stays suspended since then."""
    first = shown(suspended)["suspended"]
    world.values[1]["server"]["suspended"]["since"] = since = "2026-01-01T00:00:00Z"
    assert suspended.patch(SUSPEND, REASON).status_code == 200
    assert world.history == []
    assert suspended.patch(SUSPEND, {"reason": "Abuse."}).status_code == 200
    assert shown(suspended)["suspended"] == {"reason": "Abuse.", "since": since}
    assert first["since"] > since
    for _ in range(2):
        assert suspended.patch(UNSUSPEND).status_code == 200
    assert world.history == [("change", 1)] * 2


def test_a_suspended_server_that_the_shop_has_started_is_stopped_again(suspended: Client, world: World) -> None:
    """The same call brings about the same end."""
    assert suspended.patch(f"{SERVER}start").status_code == 200
    assert (shown(suspended)["state"], shown(suspended)["suspended"]["reason"]) == ("running", REASON["reason"])
    assert suspended.patch(SUSPEND, REASON).status_code == 200
    assert shown(suspended)["state"] == "stopped"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"reason": ""},
        {"reason": "  "},
        {"reason": "x\n"},
        {"reason": "x" * 501},
        {"reason": None},
        {"reason": 7},
        {"why": "x"},
    ],
)
def test_a_suspension_needs_a_reason(client: Client, world: World, body: object) -> None:
    """One line of 1 to 500 characters that are not all spaces; otherwise nothing changes."""
    world.history.clear()
    answer = client.patch(SUSPEND, body)
    assert answer.json is not None
    assert (answer.status_code, answer.json["type"]) == (422, "/problems/invalid-request")
    assert world.history == []
    for reason in ("x" * 500, "  Größer ${x} {{ y }} 😀 '\"\\"):
        assert client.patch(SUSPEND, {"reason": reason}).status_code == 200
        assert shown(client)["suspended"]["reason"] == reason


BODIES: dict[str, Any] = {
    "POST /api/v1/server/<id:id>/": ACME,
    "PATCH /api/v1/server/<id:id>/": {"ram_gb": 3},
    "PUT /api/v1/server/<id:id>/sftp": {"password": True},
    "PATCH /api/v1/server/<id:id>/suspend": REASON,
    "PUT /api/v1/server/<id:id>/schedule/<name:name>": {"cron": "H 4 * * *", "steps": [{"stop": {}}]},
    "POST /api/v1/server/<id:id>/backup/": {},
    "POST /api/v1/server/<id:id>/command": {"command": "list"},
    "PATCH /api/v1/server/<id:id>/backup/<backup:backup>": {"name": "mine"},
    "POST /api/v1/server/<id:id>/restore": {"backup": f"b-{'0' * 20}"},
    "POST /api/v1/server/<id:id>/undo-restore": {},
}
ALLOWED = {
    "GET /api/v1/server/<id:id>/": "read",
    "GET /api/v1/server/<id:id>/port/<any(primary, rcon, sftp):type>": "read",
    "PATCH /api/v1/server/<id:id>/port/<any(primary, rcon, sftp):type>": "read",
    "GET /api/v1/server/<id:id>/sftp": "read",
    "GET /api/v1/server/<id:id>/schedule/": "read",
    "GET /api/v1/server/<id:id>/schedule/<name:name>": "read",
    "GET /api/v1/server/<id:id>/backup/": "read",
    "GET /api/v1/server/<id:id>/backup/<backup:backup>": "read",
    "POST /api/v1/server/<id:id>/": "the same create: nothing changes",
    "PATCH /api/v1/server/<id:id>/stop": "it is stopped",
}
"""What a customer may still call, and why. Everything else is refused."""
SUSPENDERS = {
    "PATCH /api/v1/server/<id:id>/suspend",
    "PATCH /api/v1/server/<id:id>/unsuspend",
    "POST /api/v1/server/<id:id>/_recover",
}


def test_the_customer_can_do_nothing_with_it_on_any_route(suspended: Client, world: World) -> None:
    """A new route is refused too, or is named in ALLOWED. The refusal has the reason, and changes nothing."""
    schedule = "PUT /api/v1/server/<id:id>/schedule/<name:name>"
    assert suspended.call("PUT", f"{SERVER}schedule/some", BODIES[schedule]).status_code == 201
    backup = suspended.post(f"{SERVER}backup", {}).get_json()["backup"]
    world.history.clear()
    before = world.values[1]
    for route in suspended.flask.application.extensions["routes"]:
        if "<id:id>" not in route.rule:
            continue
        for method in sorted(route.methods):
            call = f"{method} {route.rule}"
            path = route.rule.replace("<id:id>", "1").replace("<backup:backup>", backup)
            path = re.sub("<any[^>]*>", "primary", path)
            answer = suspended.call(method, re.sub("<[^>]*>", "some", path), BODIES.get(call), token="acme")
            assert answer.json is not None
            if call in ALLOWED:
                assert (call, answer.status_code) == (call, 200)
            elif call in SUSPENDERS:
                assert (call, answer.json["type"]) == (call, "/problems/missing-scope")
            else:
                refusal = (answer.status_code, answer.json["type"], answer.json.get("detail"))
                expected = (403, "/problems/server-suspended", f"The server is suspended: {REASON['reason']}")
                assert (call, *refusal) == (call, *expected)
    assert (world.values[1], world.history) == (before, [])


def test_a_suspended_server_that_has_lost_its_record_stays_closed(suspended: Client, world: World) -> None:
    """Without its release, and without the annotation of its StatefulSet, its disk still says that it is suspended."""
    del world.values[1]
    world.statefulsets[1]["metadata"]["annotations"] = {}
    calls: list[tuple[str, str, Any]] = [
        ("GET", "rcon", None),
        ("GET", "progress", None),
        ("POST", "backup/", {}),
        ("POST", "command", {"command": "list"}),
    ]
    for method, path, body in calls:
        answer = suspended.call(method, SERVER + path, body, token="acme")
        assert (path, answer.status_code, answer.get_json()["type"]) == (path, 403, "/problems/server-suspended")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", f"{SERVER}start", None),
        ("PATCH", f"{SERVER}restart", None),
        ("PATCH", SERVER, {"ram_gb": 3}),
        ("GET", f"{SERVER}rcon", None),
        ("PUT", f"{SERVER}sftp", {"password": True}),
        ("DELETE", f"{SERVER}?disk=erase", None),
    ],
)
def test_the_shop_can_do_everything_with_it(suspended: Client, method: str, path: str, body: object) -> None:
    """The scope `server:suspend` decides. The server stays suspended."""
    assert suspended.call(method, path, body).status_code == 200
    if method != "DELETE":
        assert shown(suspended)["suspended"]["reason"] == REASON["reason"]


def test_a_customer_can_still_remove_credentials(client: Client, accounts: FakeAccounts) -> None:
    """A password that has leaked must not work once the suspension ends. New ones are refused."""
    assert client.call("PUT", f"{SERVER}sftp", {"password": True}, token="acme").status_code == 200
    client.patch(SUSPEND, REASON)
    for body, status in (
        ({"public_keys": ["ssh-ed25519 x"]}, 403),
        ({"password": True, "public_keys": []}, 403),
        ({"password": False, "public_keys": []}, 200),
    ):
        assert client.call("PUT", f"{SERVER}sftp", body, token="acme").status_code == status
    assert accounts.accounts[1].password_hash is None


def test_the_same_create_leaves_it_suspended(suspended: Client, world: World) -> None:
    """It answers 200 for everyone and starts nothing, even if the shop has started the server or Helm failed."""
    for token in ("acme", "shop"):
        assert suspended.post(SERVER, ACME, token=token).status_code == 200
    assert world.history == []
    suspended.patch(f"{SERVER}start")
    world.history.clear()
    assert suspended.post(SERVER, ACME, token="acme").status_code == 200
    assert world.history == []
    suspended.patch(SUSPEND, REASON)
    world.revisions[1][:] = ["failed"]
    assert suspended.post(SERVER, ACME, token="acme").status_code == 201
    assert (world.values[1]["replicas"], world.values[1]["server"]["suspended"]["reason"]) == (0, REASON["reason"])


def test_a_suspension_that_fails_leaves_the_server_as_it_was(client: Client, world: World) -> None:
    """The shop is told, and sends it again."""
    world.failure = OperationFailed()
    assert client.patch(SUSPEND, REASON).status_code == 500
    assert client.patch(SUSPEND, REASON).status_code == 200
    assert shown(client)["state"] == "stopped"


def test_a_customer_cannot_shed_the_suspension_by_another_create(suspended: Client, world: World) -> None:
    """He can neither delete the server nor, once the shop has, use or erase the disk under its id."""
    for path in (SERVER, f"{SERVER}?disk=erase"):
        assert suspended.delete(path, token="acme").status_code == 403
    # The world is on the disk.
    world.claims[1]["status"]["phase"] = "Bound"
    assert suspended.delete(SERVER).status_code == 200
    world.history.clear()
    for answer in (
        suspended.post(SERVER, ACME, token="acme"),
        suspended.post(SERVER, REUSE, token="acme"),
        suspended.post(SERVER, {**ACME, "disk": "erase"}, token="acme"),
        suspended.delete(f"{SERVER}?disk=erase", token="acme"),
    ):
        assert answer.json is not None
        assert (answer.status_code, answer.json["type"]) == (403, "/problems/server-suspended")
    assert (world.history, 1 in world.claims) == ([], True)


def test_a_new_server_with_the_same_id_is_not_suspended(suspended: Client, world: World) -> None:
    """Not even over the old disk. Only the shop can create it."""
    world.claims[1]["status"]["phase"] = "Bound"
    suspended.delete(SERVER)
    assert suspended.post(SERVER, REUSE).status_code == 201
    assert shown(suspended)["suspended"] is None
    assert suspended.patch(f"{SERVER}restart", token="acme").status_code == 200


def test_a_suspension_by_hand_counts_as_one(client: Client, world: World) -> None:
    """An operator may set the value with helm, without a time, or even wrongly."""
    for value, expected in (
        ({"reason": "Abuse."}, {"reason": "Abuse.", "since": None}),
        ("yes", {"reason": "", "since": None}),
    ):
        world.values[1]["server"]["suspended"] = value
        world.apply(1, world.values[1])
        assert shown(client)["suspended"] == expected
        assert client.patch(f"{SERVER}restart", token="acme").status_code == 403
    nothings: list[dict[str, str] | None] = [{}, None]
    for nothing in nothings:
        world.values[1]["server"]["suspended"] = nothing
        world.apply(1, world.values[1])
        assert shown(client)["suspended"] is None
        assert client.patch(f"{SERVER}restart", token="acme").status_code == 200
