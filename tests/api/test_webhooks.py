"""The calls about webhooks."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import TestResponse

from service.app import create_app
from service.assembly import build_context
from service.errors import ClusterUnavailable
from service.events.event import TYPES
from service.kube.client import path
from service.operations import webhooks as operations
from service.records.store import RecordStore
from service.settings import Settings
from service.telemetry import logs
from service.webhooks import deliveries, records, signing
from service.webhooks.deliveries import Deliveries, Try, Waiting
from tests.api.conftest import Client
from tests.support import tokens
from tests.support.fakes import FakeCluster, FakeReleases, World
from tests.support.waiting import until
from tests.support.webhooks import CONFIG, SECRETS, SYSTEM, Place

URL = "https://shop.example.com/events"
PATH = "/api/v1/webhook"
ENTRIES: dict[str, dict[str, Any]] = {
    "shop": {},
    "reader": {"scopes": ["read", "operate"]},
    "acme": {"customer": "acme"},
    "few": {"customer": "acme", "servers": [7, 8]},
    "other": {"customer": "other"},
    "servers": {"servers": [7]},
}


@pytest.fixture
def place() -> Place:
    return Place()


@pytest.fixture
def make(world: World, place: Place, tmp_path: Path) -> Callable[..., Client]:
    """A client of an API, with some settings changed."""
    file = tokens.write(
        tmp_path / "tokens.json", *(tokens.entry(name, f"{name}-secret", **e) for name, e in ENTRIES.items())
    )

    def client(**changes: Any) -> Client:
        settings = replace(Settings(), tokens_file=file, **changes)
        store = partial(RecordStore, place.kube, settings.servers_namespace)
        cluster, releases = FakeCluster(world), FakeReleases(world)
        app = create_app(build_context(settings, cluster, releases, records=store, webhooks=place.webhooks))
        events = app.extensions["gameserver"].events
        events.start()
        until(lambda: events.wait(0) and events.newest == place.log.count)
        return Client(app.test_client())

    return client


@pytest.fixture
def client(make: Callable[..., Client]) -> Client:
    return make()


@pytest.fixture
def open_(make: Callable[..., Client]) -> Client:
    """An API whose operator lets customers have webhooks."""
    return make(webhooks_for_customers=True)


def put(client: Client, name: str = "shop", token: str = "shop", **more: Any) -> TestResponse:
    return client.call("PUT", f"{PATH}/{name}", {"url": URL, **more}, token=token)


def problem(answer: TestResponse) -> tuple[int, str]:
    assert answer.json is not None
    return answer.status_code, answer.json["type"].removeprefix("/problems/")


def secrets_of(place: Place) -> dict[str, list[str]]:
    """The kept secrets by the webhooks' uids."""
    kept = place.webhooks.secrets.read()
    return {uid: [secret.text for secret in signing.read(text)] for uid, text in kept.items()}


def kept(place: Place, key: str = "shop") -> records.Webhook:
    return records.read(key, place.webhooks.config.read()[key])


def test_a_secret_is_shown_once(client: Client, place: Place) -> None:
    """By the call that makes the webhook; it stands apart from all else."""
    answer = put(client, types=["crashed", "stopped"])
    assert answer.status_code == 201
    assert answer.json is not None
    secret, created = answer.json["secret"], answer.json["created"]
    shown = {
        "name": "shop", "owner": None, "url": URL, "types": ["crashed", "stopped"], "customer": None, "server": None,
        "enabled": True, "created": created, "made_by": "shop",
    }  # fmt: skip
    assert answer.json == {"success": True, **shown, "secret": secret}
    assert secrets_of(place) == {kept(place).uid: [secret]}
    again = put(client, types=["stopped", "crashed"])
    assert (again.status_code, again.json) == (200, {"success": True, **shown})
    known = {**shown, "state": "ok", "reason": None, "waiting": 0}
    assert client.get(f"{PATH}/shop").json == {"success": True, **known}
    assert client.get(PATH).json == {"success": True, "webhooks": [known]}
    assert client.get(f"{PATH}/shop/delivery").json == {"success": True, "deliveries": [], "waiting": 0}
    config = place.kube.get(path("v1", SYSTEM, "secrets", CONFIG))
    assert config is not None
    assert secret not in "".join(base64.b64decode(text).decode() for text in config["data"].values())


def test_no_secret_is_logged_or_answered_again(
    client: Client, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is a URL, which may contain a receiver's own key."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(caplog.handler, "formatter", logs.JsonFormatter())
    made: Any = put(client, url=f"{URL}?key=hush").json
    rotated: Any = client.post(f"{PATH}/shop/rotate").json
    client.post(f"{PATH}/shop/test")
    put(client, url="https://10.0.0.1/hush")
    answers = [
        client.get(f"{PATH}/shop").text, client.get(PATH).text, client.get(f"{PATH}/shop/delivery").text,
        put(client, url=f"{URL}?key=hush").text, client.delete(f"{PATH}/shop").text,
    ]  # fmt: skip
    for secret in (made["secret"], rotated["secret"]):
        assert secret.startswith("whsec_")
        for text in (caplog.text, *answers):
            assert secret.removeprefix("whsec_") not in text
    assert "hush" not in caplog.text
    lines = [json.loads(line) for line in caplog.text.splitlines()]
    audited = [(line["action"], line["name"], line["outcome"]) for line in lines if line["logger"] == "service.audit"]
    assert audited == [
        ("put_webhook", "shop", "ok"),
        ("rotate_webhook_secret", "shop", "ok"),
        ("test_webhook", "shop", "ok"),
        ("put_webhook", "shop", "invalid-request"),
        ("put_webhook", "shop", "ok"),
        ("delete_webhook", "shop", "ok"),
    ]


def test_a_webhook_begins_where_the_log_is(make: Callable[..., Client], place: Place) -> None:
    """A change leaves that as it is, unless it switches the webhook on again."""
    place.happen(3)
    client = make()
    put(client)
    assert (kept(place).after, kept(place).starts) == (3, 1)
    place.happen(2)
    client = make()
    put(client, types=["crashed"])
    assert (kept(place).after, kept(place).starts) == (3, 1)
    put(client, enabled=False)
    assert (kept(place).after, kept(place).starts, kept(place).enabled) == (3, 1, False)
    put(client)
    assert (kept(place).after, kept(place).starts, kept(place).enabled) == (5, 2, True)


def test_a_webhook_that_410_has_ended_is_switched_on_by_a_put(client: Client, place: Place) -> None:
    """`GET` says that it is off, and why."""
    put(client)
    uid = kept(place).uid
    place.store.create(uid, deliveries.written(Deliveries(1, 0, ended="The receiver answered 410.")))
    shown = client.get(f"{PATH}/shop").json
    assert shown is not None
    assert (shown["state"], shown["reason"], shown["enabled"]) == ("disabled", "The receiver answered 410.", True)
    put(client)
    assert kept(place).starts == 2
    shown = client.get(f"{PATH}/shop").json
    assert shown is not None
    assert (shown["state"], shown["reason"]) == ("ok", None)
    # Sent again, it changes nothing more.
    place.store.change(place.store.all()[0], deliveries.written(Deliveries(2)))
    put(client)
    assert kept(place).starts == 2


def test_deliveries_are_shown(client: Client, place: Place) -> None:
    """As the controller has written them."""
    put(client)
    failed = Try(
        "id",
        "crashed",
        7,
        1,
        "2026-11-27T12:00:00Z",
        "refused",
        500,
        "The answer was 500.",
        "no",
        12,
        "2026-11-27T12:00:05Z",
    )
    test = Try("test-1", "test", None, 1, "2026-11-27T11:00:00Z", "delivered", 204, "", "", 8, None)
    known = Deliveries(1, 9, {9: Waiting(9, 1, 0, 0)}, [failed, test], failures=1)
    place.store.create(kept(place).uid, deliveries.written(known))
    assert client.get(f"{PATH}/shop/delivery").json == {
        "success": True,
        "deliveries": [
            {
                "id": "id", "type": "crashed", "server": 7, "attempt": 1, "time": "2026-11-27T12:00:00Z",
                "outcome": "refused", "status": 500, "detail": "The answer was 500.", "answer": "no", "ms": 12,
                "next": "2026-11-27T12:00:05Z",
            },
            {
                "id": "test-1", "type": "test", "server": None, "attempt": 1, "time": "2026-11-27T11:00:00Z",
                "outcome": "delivered", "status": 204, "detail": None, "answer": "", "ms": 8, "next": None,
            },
        ],
        "waiting": 1,
    }  # fmt: skip
    shown = client.get(f"{PATH}/shop").json
    assert shown is not None
    assert (shown["state"], shown["reason"], shown["waiting"]) == ("failing", "The answer was 500.", 1)


def test_a_damaged_record_of_deliveries_is_as_none(client: Client, place: Place) -> None:
    """The controller writes it again."""
    put(client)
    place.store.create(kept(place).uid, {"state": "x"})
    assert client.get(f"{PATH}/shop").status_code == 200


def test_rotating_keeps_the_old_secret_for_a_day(client: Client, place: Place) -> None:
    """Only the new one is shown."""
    made: Any = put(client).json
    answer: Any = client.post(f"{PATH}/shop/rotate").json
    assert answer.keys() == {"success", "secret"}
    uid = kept(place).uid
    assert secrets_of(place) == {uid: [answer["secret"], made["secret"]]}
    _, old = signing.read(place.webhooks.secrets.read()[uid])
    assert old.until is not None
    assert abs(old.until - datetime.now(UTC) - timedelta(hours=24)) < timedelta(minutes=1)
    # One that someone has damaged is repaired by it.
    place.webhooks.secrets.change(lambda records: {uid: "x"})
    repaired: Any = client.post(f"{PATH}/shop/rotate").json
    assert secrets_of(place) == {uid: [repaired["secret"]]}


def test_a_delete_leaves_nothing(client: Client, place: Place) -> None:
    """No secret and no record. One with the same name is another."""
    put(client)
    uid = kept(place).uid
    place.store.create(uid, deliveries.written(Deliveries()))
    assert client.delete(f"{PATH}/shop").json == {"success": True}
    assert (place.webhooks.config.read(), secrets_of(place), place.store.all()) == ({}, {}, [])
    assert problem(client.delete(f"{PATH}/shop")) == (404, "webhook-not-found")
    put(client)
    assert kept(place).uid != uid


def test_a_test_is_asked_for(client: Client, place: Place) -> None:
    """The controller makes it."""
    put(client)
    answer = client.post(f"{PATH}/shop/test")
    assert answer.status_code == 202
    assert answer.json == {"success": True, "id": kept(place).test}
    assert kept(place).test.startswith("test-")
    assert kept(place).test_asked


def test_secrets_of_webhooks_that_were_never_made_are_removed(client: Client, place: Place) -> None:
    """By the next one that is made, after an hour: a replica was killed between two writes."""
    old = (datetime.now(UTC) - timedelta(hours=2)).isoformat()
    new = datetime.now(UTC).isoformat()
    place.webhooks.secrets.change(
        lambda records: {"old": signing.written([], old), "new": signing.written([], new), "damaged": "x"}
    )
    put(client)
    assert secrets_of(place).keys() == {"new", kept(place).uid}
    # Those of living webhooks stay, also when they have been rotated.
    client.post(f"{PATH}/shop/rotate")
    put(client, "second")
    assert kept(place).uid in secrets_of(place)


INVALID: dict[str, tuple[dict[str, Any], str]] = {
    "no url": ({"url": None}, "url"),
    "http": ({"url": "http://shop.example.com/"}, "url"),
    "inside": ({"url": "https://10.0.0.1/"}, "url"),
    "a password": ({"url": "https://a:b@shop.example.com/"}, "url"),
    "too long": ({"url": URL + "a" * 2000}, "url"),
    "an unknown type": ({"types": ["exploded"]}, "types.0"),
    "no type": ({"types": []}, "types"),
    "types that are no list": ({"types": "crashed"}, "types"),
    "a customer's name": ({"customer": "a b"}, "customer"),
    "server 0": ({"server": 0}, "server"),
    "a server as text": ({"server": "7"}, "server"),
    "enabled as text": ({"enabled": "yes"}, "enabled"),
    "an unknown field": ({"secret": "whsec_mine"}, "secret"),
}


@pytest.mark.parametrize("case", INVALID)
def test_mistakes_are_named(client: Client, place: Place, case: str) -> None:
    """By the field; nothing is written."""
    body, field = INVALID[case]
    answer = put(client, **body)
    assert problem(answer) == (422, "invalid-request")
    assert answer.json is not None
    assert answer.json["errors"].keys() == {field}
    assert (place.webhooks.config.read(), secrets_of(place)) == ({}, {})


@pytest.mark.parametrize("name", ["A", "a_b", "-a", "a-", "x" * 33, "a b", "..", "gs_x", ".a"])
def test_other_names_are_no_paths(client: Client, name: str) -> None:
    """They are not found, whatever the call."""
    assert put(client, name).status_code == 404


def test_every_type_can_be_asked_for(client: Client, place: Place) -> None:
    """All that an event may have."""
    assert put(client, types=list(TYPES)).status_code == 201
    assert kept(place).types == tuple(sorted(TYPES))


def test_what_the_operator_lists_may_be_named(make: Callable[..., Client], place: Place) -> None:
    """By http, too; but not by customers."""
    client = make(webhook_allowed=place.settings.webhook_allowed, webhooks_for_customers=True)
    assert put(client, url="http://127.0.0.1:8080/").status_code == 201
    assert put(client, token="acme", url="http://127.0.0.1:8080/").status_code == 422
    assert put(client, token="acme", url="https://127.0.0.1:8080/").status_code == 422
    assert put(client, url="http://10.0.0.1:8080/").status_code == 422


def test_the_number_of_webhooks_is_limited(open_: Client, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """In all, and of one customer. Those that exist can be changed."""
    monkeypatch.setattr(operations, "MOST", 4)
    monkeypatch.setattr(operations, "MOST_OF_A_CUSTOMER", 2)
    assert [put(open_, name, "acme").status_code for name in "ab"] == [201, 201]
    assert problem(put(open_, "c", "acme")) == (409, "too-many-webhooks")
    assert [put(open_, name).status_code for name in "de"] == [201, 201]
    assert problem(put(open_, "f")) == (409, "too-many-webhooks")
    assert problem(put(open_, "f", "other")) == (409, "too-many-webhooks")
    assert put(open_, "a", "acme").status_code == 200
    assert len(secrets_of(place)) == 4


def test_the_largest_webhooks_fit(place: Place) -> None:
    """A hundred of them into a Secret, which holds at most 1 MiB."""
    largest = records.Webhook(
        "0" * 20, "c" * 63, "n" * 32, "u" * 2000, tuple(TYPES), "c" * 63, 2**63 - 1, tuple(range(2**63 - 20, 2**63)),
        False, 10**6, 10**12, "2026-11-27T12:00:00Z", "m" * 63, "test-" + "0" * 16, "2026-11-27T12:00:00Z",
    )  # fmt: skip
    assert len(records.written(largest)) * records.MOST * 4 / 3 < 2**20


def test_two_calls_at_once_make_one_webhook(client: Client, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The later one is told to send its call again; the secret that was shown is the one that signs."""
    shown: list[Any] = []
    real = operations._write_secrets

    def slow(*arguments: Any) -> None:
        real(*arguments)
        monkeypatch.setattr(operations, "_write_secrets", real)
        shown.append(put(client).json)

    monkeypatch.setattr(operations, "_write_secrets", slow)
    late = put(client)
    assert (late.status_code, "Retry-After" in late.headers) == (503, True)
    assert shown[0]["secret"] in secrets_of(place)[kept(place).uid]
    assert put(client).status_code == 200


def test_while_the_log_is_not_known_none_is_made(
    world: World, place: Place, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would not be known from where on it gets events."""
    monkeypatch.setattr(operations, "SYNC_SECONDS", 0.1)
    place.kube.away()
    store = partial(RecordStore, place.kube, settings.servers_namespace)
    app = create_app(
        build_context(settings, FakeCluster(world), FakeReleases(world), records=store, webhooks=place.webhooks)
    )
    answer = Client(app.test_client()).call("PUT", f"{PATH}/shop", {"url": URL})
    assert problem(answer) == (503, "cluster-unavailable")


def test_without_secrets_there_are_no_webhooks(world: World, settings: Settings) -> None:
    """On a developer's machine."""
    client = Client(create_app(build_context(settings, FakeCluster(world), FakeReleases(world))).test_client())
    for answer in (put(client), client.get(PATH), client.get(f"{PATH}/shop"), client.delete(f"{PATH}/shop")):
        assert problem(answer) == (501, "webhooks-not-kept")


def test_a_missing_secret_is_said(client: Client, place: Place) -> None:
    """The operator has to create it again."""
    place.kube.delete(path("v1", SYSTEM, "secrets", SECRETS))
    assert problem(put(client)) == (500, "operation-failed")


def test_an_outage_is_said(client: Client, place: Place) -> None:
    """Nothing is lost."""
    put(client)
    place.kube.away()
    assert problem(client.get(f"{PATH}/shop")) == (503, "cluster-unavailable")
    place.kube.back()

    def refuse(method: str, at: str) -> None:
        if method == "PATCH" and at.endswith(CONFIG):
            raise ClusterUnavailable

    place.kube.before = refuse
    assert problem(put(client, "second")) == (503, "cluster-unavailable")
    place.kube.back()
    assert put(client, "second").status_code == 201


# -- customers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", ["acme", "few", "servers"])
def test_customers_have_no_webhooks_unless_the_operator_opens_them(client: Client, place: Place, token: str) -> None:
    """Every call says so."""
    put(client)
    for method, rest, body in (
        ("PUT", "/shop", {"url": URL}), ("GET", "/shop", None), ("GET", "", None), ("DELETE", "/shop", None),
        ("POST", "/shop/rotate", None), ("POST", "/shop/test", None), ("GET", "/shop/delivery", None),
    ):  # fmt: skip
        assert problem(client.call(method, f"{PATH}{rest}", body, token=token)) == (403, "missing-scope")
    assert place.webhooks.config.read().keys() == {"shop"}


def test_a_customers_names_are_his_own(open_: Client, place: Place) -> None:
    """Each has his own `shop`, and gets only events about his servers."""
    assert [put(open_, token=token).status_code for token in ("shop", "acme", "other")] == [201, 201, 201]
    assert place.webhooks.config.read().keys() == {"shop", "acme.shop", "other.shop"}
    assert (kept(place, "acme.shop").customer, kept(place, "acme.shop").owner) == ("acme", "acme")
    shown = open_.get(f"{PATH}/shop", token="acme").json
    assert shown is not None
    assert (shown["name"], shown["owner"], shown["customer"]) == ("shop", "acme", "acme")
    # By its whole name it is the same one; another customer's is not found.
    assert open_.get(f"{PATH}/acme.shop", token="acme").json == shown
    for call in ("GET", "DELETE"):
        assert problem(open_.call(call, f"{PATH}/other.shop", token="acme")) == (404, "webhook-not-found")
    assert problem(put(open_, "other.shop", "acme")) == (404, "webhook-not-found")
    listed: Any = open_.get(PATH, token="acme").json
    assert [(one["name"], one["owner"]) for one in listed["webhooks"]] == [("shop", "acme")]
    assert open_.delete(f"{PATH}/shop", token="acme").status_code == 200
    assert place.webhooks.config.read().keys() == {"shop", "other.shop"}


def test_the_provider_sees_customers_webhooks(open_: Client, place: Place) -> None:
    """By their whole names. He can change and delete them, but not make one."""
    put(open_, token="acme")
    listed: Any = open_.get(PATH).json
    assert [(one["name"], one["owner"], one["made_by"]) for one in listed["webhooks"]] == [
        ("acme.shop", "acme", "acme")
    ]
    assert put(open_, "acme.shop", enabled=False).status_code == 200
    assert (kept(place, "acme.shop").enabled, kept(place, "acme.shop").customer) == (False, "acme")
    assert put(open_, "acme.shop", customer="other").status_code == 422
    assert problem(put(open_, "acme.new")) == (404, "webhook-not-found")
    assert open_.delete(f"{PATH}/acme.shop").status_code == 200


def test_a_confined_token_makes_none_for_others(open_: Client, place: Place) -> None:
    """Neither for another customer nor for another server; one that is confined to servers alone makes none."""
    assert problem(put(open_, token="acme", customer="other")) == (403, "missing-scope")
    assert problem(put(open_, token="few", server=9)) == (403, "missing-scope")
    assert problem(put(open_, token="servers")) == (403, "missing-scope")
    assert place.webhooks.config.read() == {}
    assert put(open_, token="few", server=8).status_code == 201
    assert kept(place, "acme.shop").servers == (7, 8)


def test_a_token_for_some_servers_sees_only_their_webhooks(open_: Client) -> None:
    """One that gets all of its customer's events is not found, and cannot be replaced."""
    put(open_, "all", "acme")
    put(open_, "some", "few")
    listed: Any = open_.get(PATH, token="few").json
    assert [one["name"] for one in listed["webhooks"]] == ["some"]
    assert problem(open_.get(f"{PATH}/all", token="few")) == (404, "webhook-not-found")
    assert problem(put(open_, "all", "few")) == (404, "webhook-not-found")
    assert open_.get(f"{PATH}/some", token="acme").status_code == 200


def test_when_the_operator_closes_them_customers_webhooks_are_off(make: Callable[..., Client], open_: Client) -> None:
    """The provider sees that."""
    put(open_, token="acme")
    shown = make().get(f"{PATH}/acme.shop").json
    assert shown is not None
    assert (shown["state"], shown["reason"]) == ("disabled", "The operator has not opened webhooks to customers.")


@pytest.mark.parametrize(
    ("method", "rest"),
    [
        ("PUT", "/a"),
        ("GET", "/a"),
        ("GET", ""),
        ("DELETE", "/a"),
        ("POST", "/a/rotate"),
        ("POST", "/a/test"),
        ("GET", "/a/delivery"),
    ],
)
def test_each_call_needs_the_scope_webhook(client: Client, method: str, rest: str) -> None:
    """Without it, the answer is 403 and names the scope."""
    answer = client.call(method, f"{PATH}{rest}", {"url": URL} if method == "PUT" else None, token="reader")
    assert problem(answer) == (403, "missing-scope")
    assert answer.json is not None
    assert "`webhook`" in answer.json["detail"]
