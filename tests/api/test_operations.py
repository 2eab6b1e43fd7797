"""The calls about operations: in bulk, how far they are, and cancelling them."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask

from service.controller import bulk as controller_bulk
from service.controller.bulk import Bulk
from service.controller.leader import Term
from service.operations import bulk, operation
from service.settings import Settings
from tests.api.conftest import SIZES, Client
from tests.support import tokens
from tests.support.fakes import FakeCluster, World
from tests.support.waiting import until

BULK = "/api/v1/server/_bulk"
OPERATIONS = "/api/v1/operation/"


class Life:
    """The Lease of a controller, until the test ends."""

    def __init__(self) -> None:
        self.over = False

    def remaining(self) -> float:
        return 0.0 if self.over else 10.0


@pytest.fixture
def app(make_app: Callable[..., Flask]) -> Flask:
    return make_app(bulk_per_minute=6000)


@pytest.fixture
def client(app: Flask) -> Client:
    return Client(app.test_client())


@pytest.fixture
def controller(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Starts the controller, which shares everything with the API."""
    monkeypatch.setattr(controller_bulk, "TURN_SECONDS", 0.05)
    life = Life()

    def start() -> None:
        part = Bulk(app.extensions["gameserver"], lambda objects: False)
        part.start()
        part.lead(Term(life, "controller"))  # type: ignore[arg-type]

    yield start
    life.over = True


def create(client: Client, *ids: int, **more: Any) -> None:
    """Create servers."""
    for id in ids:
        assert client.post(f"/api/v1/server/{id}/", {**SIZES, **more}).status_code == 201


def accepted(client: Client, body: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The operation of a call in bulk that is accepted."""
    answer = client.post(BULK, body, **more)
    assert answer.status_code == 202, answer.json
    operation: dict[str, Any] = answer.json or {}
    assert answer.headers["Location"] == OPERATIONS + operation["id"]
    return operation


def test_many_servers_are_stopped_by_one_call(client: Client, world: World, controller: Callable[[], None]) -> None:
    """The answer is an operation, which says what has become of each server."""
    create(client, 1, 2, 3)
    client.patch("/api/v1/server/3/stop")
    begun = accepted(client, {"ids": [3, 1], "action": "stop"})
    assert begun == {
        "success": True,
        "id": begun["id"],
        "action": "stop",
        "when": "now",
        "state": "pending",
        "step": None,
        "reason": None,
        "created": begun["created"],
        "finished": None,
        "progress": {"total": 2, "done": 0, "failed": 0, "waiting": 0},
        "servers": [{"id": id, "outcome": "pending", "reason": None} for id in (3, 1)],
    }
    controller()
    done = client.get(f"{OPERATIONS}{begun['id']}?wait=20").json or {}
    assert done == begun | {
        "state": "done",
        "finished": done["finished"],
        "progress": {"total": 2, "done": 2, "failed": 0, "waiting": 0},
        "servers": [
            {"id": 3, "outcome": "unchanged", "reason": None},
            {"id": 1, "outcome": "done", "reason": None},
        ],
    }
    assert [client.get(f"/api/v1/server/{id}/").json["state"] for id in (1, 2)] == ["stopped", "running"]  # type: ignore[index]
    listed = (client.get(OPERATIONS).json or {})["operations"]
    assert listed == [{name: value for name, value in done.items() if name not in ("success", "servers")}]


def test_a_wait_for_an_operation_ends_with_its_time(client: Client) -> None:
    """The answer has what is so then."""
    create(client, 1)
    begun = accepted(client, {"all": True, "action": "stop"})
    began = time.monotonic()
    answer = client.get(f"{OPERATIONS}{begun['id']}?wait=1")
    assert (answer.status_code, answer.json) == (200, begun)
    assert 1 <= time.monotonic() - began < 3
    assert client.get(f"{OPERATIONS}{begun['id']}?wait=301").status_code == 422


def test_a_token_that_is_revoked_while_it_waits_gets_no_operation(client: Client, settings: Settings) -> None:
    """401, when the wait is over."""
    create(client, 1)
    begun = accepted(client, {"all": True, "action": "stop"})
    assert settings.tokens_file is not None
    timer = threading.Timer(0.4, tokens.write, [settings.tokens_file, tokens.entry("other")])
    timer.start()
    answer = client.get(f"{OPERATIONS}{begun['id']}?wait=1")
    timer.join()
    assert (answer.status_code, (answer.json or {})["type"]) == (401, "/problems/unauthorized")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"action": "stop"}, None),
        ({"action": "stop", "all": False}, "all"),
        ({"action": "stop", "all": None}, "all"),
        ({"action": "stop", "all": True, "ids": [1]}, None),
        ({"action": "stop", "customer": "acme", "ids": [1]}, None),
        ({"action": "stop", "ids": []}, "ids"),
        ({"action": "stop", "ids": [0]}, "ids.0"),
        ({"action": "stop", "ids": ["1"]}, "ids.0"),
        ({"action": "delete", "all": True}, "action"),
        ({"action": "stop", "all": True, "when": "later"}, "when"),
        ({"action": "start", "all": True, "when": "idle"}, "when"),
        ({"action": "stop", "all": True, "when": "next-stop"}, "when"),
        ({"action": "unsuspend", "all": True, "when": "next-stop"}, "when"),
        ({"action": "suspend", "all": True}, "reason"),
        ({"action": "suspend", "all": True, "reason": ""}, "reason"),
        ({"action": "stop", "all": True, "reason": "no"}, "reason"),
        ({"action": "stop", "all": True, "customer": "a b"}, "customer"),
    ],
)
def test_what_makes_no_sense_is_refused(client: Client, body: dict[str, Any], field: str | None) -> None:
    """422 names the field, and nothing is accepted."""
    create(client, 1)
    answer = client.post(BULK, body)
    assert (answer.status_code, (answer.json or {})["type"]) == (422, "/problems/invalid-request")
    assert list((answer.json or {}).get("errors", {})) == ([field] if field else [])
    assert (client.get(OPERATIONS).json or {})["operations"] == []


def test_servers_that_do_not_exist_are_named(client: Client) -> None:
    """404, and nothing is accepted; not even for those that exist."""
    create(client, 1, customer="acme")
    create(client, 2)
    answer = client.post(BULK, {"ids": [1, 7, 8], "action": "stop"})
    assert (answer.status_code, (answer.json or {})["errors"]) == (404, {"ids": ["there is no server 7, 8"]})
    answer = client.post(BULK, {"ids": [1, 2], "action": "stop"}, token="acme")
    assert (answer.status_code, (answer.json or {})["errors"]) == (404, {"ids": ["there is no server 2"]})
    assert (client.get(OPERATIONS).json or {})["operations"] == []


def test_ids_beyond_those_that_are_named_are_not_looked_for(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is certain, and one call must not make thousands of reads."""
    read: list[int] = []
    server = FakeCluster.server

    def count(self: FakeCluster, id: int) -> Any:
        read.append(id)
        return server(self, id)

    monkeypatch.setattr(FakeCluster, "server", count)
    answer = client.post(BULK, {"ids": list(range(1, 5001)), "action": "stop"})
    named = ", ".join(map(str, range(1, 21)))
    assert (answer.status_code, (answer.json or {})["errors"]) == (404, {"ids": [f"there is no server {named} …"]})
    assert read == list(range(1, 22))


def test_all_are_those_that_the_token_may_see(client: Client) -> None:
    """`customer` selects among them."""
    create(client, 1, 2, customer="acme")
    create(client, 3, customer="other")
    create(client, 4)

    def ids(body: dict[str, Any], token: str = "shop") -> list[int]:
        operation = accepted(client, {"action": "stop", **body}, token=token)
        return [server["id"] for server in operation["servers"]]

    assert ids({"all": True}) == [1, 2, 3, 4]
    assert ids({"customer": "other"}) == [3]
    assert ids({"customer": "nobody"}) == []
    assert ids({"all": True}, "acme") == [1, 2]
    assert ids({"customer": "other"}, "acme") == []


@pytest.mark.parametrize(
    ("action", "scope"), [("stop", "server:power"), ("suspend", "server:suspend"), ("upgrade", "server:write")]
)
def test_the_action_needs_its_scope(client: Client, action: str, scope: str) -> None:
    """A token that may read is not enough."""
    create(client, 1)
    body = {"ids": [1], "action": action, **({"reason": "x"} if action == "suspend" else {})}
    answer = client.post(BULK, body, token="reader")
    assert (answer.status_code, f"`{scope}`" in (answer.json or {})["detail"]) == (403, True)


def test_an_operation_is_seen_by_who_may_see_its_servers(client: Client) -> None:
    """And cancelled only by who could have asked for it."""
    create(client, 1, 2, customer="acme")
    create(client, 3, customer="other")
    shops = accepted(client, {"ids": [1, 2], "action": "stop"})["id"]
    mixed = accepted(client, {"all": True, "action": "stop"})["id"]
    own = accepted(client, {"all": True, "action": "stop"}, token="acme")["id"]
    seen = [each["id"] for each in (client.get(OPERATIONS, token="acme").json or {})["operations"]]
    assert set(seen) == {shops, own}
    assert client.get(f"{OPERATIONS}{mixed}", token="acme").status_code == 404
    assert client.get(f"{OPERATIONS}{shops}", token="acme").status_code == 200
    assert client.post(f"{OPERATIONS}{mixed}/cancel", token="acme").status_code == 404
    assert client.post(f"{OPERATIONS}{shops}/cancel", token="acme").status_code == 403
    assert client.post(f"{OPERATIONS}{own}/cancel", token="reader").status_code == 403
    for id in (own, mixed):
        assert client.post(f"{OPERATIONS}{id}/cancel", token="shop").status_code == 200
    for nonsense in ("op-1", "op-" + "0" * 26, "..%2f..%2fx"):
        assert client.get(f"{OPERATIONS}{nonsense}").status_code == 404


def test_servers_of_others_are_not_read_to_list_operations(
    client: Client, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One cheap call must not make thousands of reads: a token that may see one server sees no operation on two."""
    more_tokens(settings, one={"servers": [1]})
    create(client, 1, 2, 3)
    own = accepted(client, {"ids": [1], "action": "stop"})["id"]
    for ids in ([1, 2], [2, 3], [1, 2, 3]):
        accepted(client, {"ids": ids, "action": "stop"})
    read: list[str] = []
    parts = operation.OperationStore.parts

    def count(self: operation.OperationStore, of: operation.Operation) -> Any:
        read.append(of.id)
        return parts(self, of)

    monkeypatch.setattr(operation.OperationStore, "parts", count)
    listed = (client.get(OPERATIONS, token="one").json or {})["operations"]
    assert [each["id"] for each in listed] == [own] == read


def test_a_key_gives_the_same_operation(client: Client, world: World, controller: Callable[[], None]) -> None:
    """For each token its own; also if a server was created in between. For another request it is refused."""
    create(client, 1, customer="acme")
    key = {"headers": {"Idempotency-Key": "monday's restart"}}
    body = {"all": True, "action": "restart"}
    first = accepted(client, body, **key)
    create(client, 2)
    assert accepted(client, body, **key) == first
    controller()
    until(lambda: accepted(client, body, **key)["state"] == "done")
    assert [change for change in world.history if change[0] == "change"] == [("change", 1)]
    answer = client.post(BULK, {"all": True, "action": "stop"}, **key)
    assert (answer.status_code, (answer.json or {})["type"]) == (409, "/problems/idempotency-key-reused")
    assert accepted(client, body, token="acme", **key)["id"] != first["id"]
    assert accepted(client, body)["id"] != first["id"]
    for wrong in ("", "x" * 256, "ü"):
        answer = client.post(BULK, body, headers={"Idempotency-Key": wrong})
        assert (answer.status_code, list((answer.json or {})["errors"])) == (422, ["Idempotency-Key"])


def test_a_key_that_is_sent_many_times_at_once_gives_one_operation(app: Flask, client: Client) -> None:
    """And nothing else stays of the others."""
    create(client, 1, 2)
    body = {"all": True, "action": "restart"}

    def send(number: int) -> str:
        own = Client(app.test_client())
        id: str = accepted(own, body, headers={"Idempotency-Key": "once"})["id"]
        return id

    with ThreadPoolExecutor(8) as senders:
        assert len(set(senders.map(send, range(16)))) == 1
    context = app.extensions["gameserver"]
    assert len(context.operations.all()) == 1
    assert len(context.records("operation-part").all()) == 1


@pytest.mark.parametrize(("limit", "most"), [("MOST_UNFINISHED", 2), ("MOST_KEPT", 2), ("MOST_SERVERS", 4)])
def test_too_many_operations_are_refused(
    client: Client, monkeypatch: pytest.MonkeyPatch, limit: str, most: int
) -> None:
    """429 with Retry-After."""
    create(client, 1, 2)
    monkeypatch.setattr(bulk, limit, most)
    for _ in range(2):
        accepted(client, {"all": True, "action": "stop"})
    answer = client.post(BULK, {"all": True, "action": "stop"})
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "60")


@pytest.mark.parametrize(
    ("most", "limit"),
    [((2, 9, 9), "2"), ((9, 2, 9), "2"), ((9, 9, 4), "4 in all")],
    ids=["unfinished", "kept", "servers"],
)
def test_a_customer_uses_up_only_a_share(
    client: Client, settings: Settings, monkeypatch: pytest.MonkeyPatch, most: tuple[int, int, int], limit: str
) -> None:
    """Of what all tokens together have. The provider and other customers go on."""
    more_tokens(settings, acme2={"customer": "acme"}, other={"customer": "other"})
    create(client, 1, 2, customer="acme")
    create(client, 3, customer="other")
    monkeypatch.setattr(bulk, "MOST_OF_A_CUSTOMER", most)
    for token in ("acme", "acme2"):
        accepted(client, {"all": True, "action": "stop"}, token=token)
    for token in ("acme", "acme2"):
        answer = client.post(BULK, {"all": True, "action": "stop"}, token=token)
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "60")
        assert (answer.json or {})["detail"].startswith("This customer, or token, has too many operations already")
        assert f"({limit})" in (answer.json or {})["detail"]
    accepted(client, {"all": True, "action": "stop"}, token="other")
    for _ in range(3):
        accepted(client, {"all": True, "action": "stop"})


@pytest.mark.parametrize(("limit", "most"), [("MOST_UNFINISHED", 6), ("MOST_KEPT", 6), ("MOST_SERVERS", 6)])
def test_confined_tokens_together_leave_half_for_the_provider(
    client: Client, settings: Settings, monkeypatch: pytest.MonkeyPatch, limit: str, most: int
) -> None:
    """However many customers, and tokens that are confined to servers, there are."""
    names = ("a", "b", "c", "d")
    more_tokens(settings, **{name: {"servers": [1]} if name == "d" else {"customer": name} for name in names})
    for id, name in enumerate(names, start=1):
        create(client, id, customer=name)
    monkeypatch.setattr(bulk, limit, most)
    for name in names[:3]:
        accepted(client, {"all": True, "action": "stop"}, token=name)
    answer = client.post(BULK, {"all": True, "action": "stop"}, token="d")
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "60")
    assert (answer.json or {})["detail"].startswith("All customers together have too many operations already")
    for _ in range(3):
        accepted(client, {"ids": [1], "action": "stop"})
    assert client.post(BULK, {"ids": [1], "action": "stop"}).status_code == 429


def more_tokens(settings: Settings, **more: dict[str, Any]) -> None:
    """Add tokens with all scopes to the operator's file, by name."""
    assert settings.tokens_file is not None
    entries = json.loads(settings.tokens_file.read_text())["tokens"]
    added = [tokens.entry(name, f"{name}-secret", **fields) for name, fields in more.items()]
    tokens.write(settings.tokens_file, *entries, *added)


def test_thousands_of_servers_fit_into_the_records(app: Flask, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even with the longest ids, customers and reasons."""
    store = app.extensions["gameserver"].operations
    longest = [operation.Server(2**63 - 1 - number, "u" * 36, "c" * 63) for number in range(1001)]
    shop = tokens_of(app)
    made = operation.new_operation(shop, None, "suspend", "now", "r" * 500, {}, longest)
    created = store.create(made, longest)
    for part in store.parts(created):
        reason = '"ü' * 400
        at = "2026-11-27T03:00:00Z"
        ended = [operation.Server(s.id, s.uid, s.customer, "unchanged", reason, at) for s in part.servers]
        noted = store.note(part, ended)
        assert [server.outcome for server in noted.servers] == ["unchanged"] * len(part.servers)
        assert noted.servers[0].reason.endswith("…")
    assert sum(len(part.servers) for part in store.parts(created)) == 1001


def tokens_of(app: Flask) -> Any:
    """The token `shop`."""
    return app.extensions["gameserver"].tokens.caller("Bearer shop-secret")


def test_no_token_and_no_hash_is_kept(app: Flask, client: Client) -> None:
    """The record has the name and the rights of who asked."""
    create(client, 1)
    accepted(client, {"all": True, "action": "stop"})
    (record,) = app.extensions["gameserver"].records("operation").all()
    text = json.dumps(dict(record.data))
    assert "shop" in text
    assert "shop-secret" not in text
    assert tokens.entry("shop", "shop-secret")["sha256"] not in text


def test_a_waiting_operation_is_shown_with_its_server(
    client: Client, world: World, controller: Callable[[], None]
) -> None:
    """In `GET` and in the list, until it is cancelled."""
    create(client, 1)
    assert (client.get("/api/v1/server/1/").json or {})["operation"] is None
    begun = accepted(client, {"ids": [1], "action": "restart", "when": "idle"})
    controller()
    shown = {"id": begun["id"], "action": "restart", "step": "waits until nobody plays on it"}
    until(lambda: (client.get("/api/v1/server/1/").json or {})["operation"] == shown)
    assert (client.get("/api/v1/server/").json or {})["servers"][0]["operation"] == shown
    # Start, stop and all the rest go on.
    assert client.patch("/api/v1/server/1/", {"ram_gb": 3}).status_code == 200
    client.post(f"{OPERATIONS}{begun['id']}/cancel")
    until(lambda: (client.get(f"{OPERATIONS}{begun['id']}").json or {})["state"] == "cancelled")
    assert (client.get("/api/v1/server/1/").json or {})["operation"] is None


def test_the_audit_log_names_the_operation(
    client: Client, caplog: pytest.LogCaptureFixture, controller: Callable[[], None]
) -> None:
    """The call, and each step in the name of who has asked for it."""
    caplog.set_level(logging.INFO)
    create(client, 1)
    caplog.clear()
    begun = accepted(client, {"ids": [1], "action": "stop"}, token="operator")
    controller()
    client.get(f"{OPERATIONS}{begun['id']}?wait=20")
    lines = [record.__dict__["fields"] for record in caplog.records if record.name == "service.audit"]
    assert lines == [
        {"token": "operator", "action": "bulk_servers", "server": None, "outcome": "ok", "operation": begun["id"],
         "bulk": "stop"},
        {"token": "operator", "action": "stop_server", "server": 1, "outcome": "ok", "operation": begun["id"]},
    ]  # fmt: skip


def test_a_broken_record_breaks_no_other(app: Flask, client: Client, controller: Callable[[], None]) -> None:
    """Somebody has written it by hand. The shop sees that it has failed; others go on."""
    create(client, 1)
    threads = threading.active_count()
    id = "op-" + "a" * 26
    app.extensions["gameserver"].records("operation").create(id, {"about": "{", "now": "{}"})
    controller()
    begun = accepted(client, {"ids": [1], "action": "stop"})
    assert (client.get(f"{OPERATIONS}{begun['id']}?wait=20").json or {})["state"] == "done"
    assert (client.get(f"{OPERATIONS}{id}").json or {})["state"] == "failed"
    assert threading.active_count() < threads + 30
