"""Tokens that the API gives out, and links that give them out once."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from service.app import create_app
from service.operations import tokens as operations
from service.settings import Settings
from service.tokenformat import is_mistyped, looks_like_token
from service.tokens import SCOPES, TokensFile
from service.tokenstore.records import LINK, all_of, written
from tests.api.conftest import Client
from tests.support import kept_tokens, tokens
from tests.support.fakes import FakeCluster, FakeReleases, FakeTokens, World
from tests.support.waiting import until

OK = {"ram_gb": 2, "disk_gb": 10}
TOKEN = "/api/v1/token"
LOGIN = "/api/v1/login-link"
ENTRIES: dict[str, dict[str, Any]] = {
    "shop": {},
    "acme": {"customer": "acme"},
    "few": {"customer": "acme", "servers": [1, 2]},
    "parts": {"scopes": ["token", "server:read", "server:power"]},
    "reader": {"scopes": ["read"]},
    "admin": {"scopes": ["admin"]},
}


@pytest.fixture
def file(tmp_path: Path) -> TokensFile:
    entries = [tokens.entry(name, f"{name}-secret", **more) for name, more in ENTRIES.items()]
    return TokensFile(tokens.write(tmp_path / "operators.json", *entries))


@pytest.fixture
def store(file: TokensFile) -> FakeTokens:
    return FakeTokens(file)


@pytest.fixture
def client(world: World, settings: Settings, store: FakeTokens) -> Client:
    return Client(create_app(settings, FakeCluster(world), FakeReleases(world), tokens=store).test_client())


def make(client: Client, name: str = "mine", token: str = "shop", **more: Any) -> dict[str, Any]:
    """A token that is given out, as the answer has it."""
    answer = client.post(TOKEN, {"name": name, "scopes": ["read"], **more}, token=token)
    assert answer.status_code == 201, answer.json
    assert answer.json is not None
    return dict(answer.json)


def status(client: Client, secret: str, path: str = "/api/v1/game") -> int:
    """What a call with a token as it was given out comes to."""
    return client.flask.get(path, headers={"Authorization": f"Bearer {secret}"}).status_code


def names(client: Client, token: str = "shop") -> list[str]:
    answer = client.get(TOKEN, token=token)
    assert answer.json is not None
    return [one["name"] for one in answer.json["tokens"]]


def test_a_token_is_shown_once_and_works_until_it_is_ended(client: Client) -> None:
    """Of its hash nothing is ever shown, nor of the token a second time."""
    made = make(client, scopes=["read", "operate"], customer="acme", servers=[2, 1])
    secret = made.pop("token")
    assert looks_like_token(secret)
    assert not is_mistyped(secret)
    about = {"name": "mine", "scopes": ["operate", "read"], "customer": "acme", "servers": [1, 2], "expires": None}
    assert made == {"success": True, **about}
    assert status(client, secret) == 200
    listed = client.get(TOKEN)
    assert listed.json is not None
    (one,) = listed.json["tokens"]
    assert {key: one[key] for key in about} == about
    assert one.keys() - about.keys() == {"created", "made_by", "last_used"}
    assert (one["made_by"], one["last_used"]) == ("shop", None)
    assert abs(datetime.fromisoformat(one["created"]) - datetime.now(UTC)) < timedelta(minutes=1)
    assert secret not in listed.text
    assert "sha256" not in listed.text
    assert client.delete(f"{TOKEN}/mine").status_code == 200
    assert status(client, secret) == 401
    assert names(client) == []
    assert client.delete(f"{TOKEN}/mine").status_code == 404


def test_a_name_is_given_once(client: Client) -> None:
    """An operator's too is taken; one that has ended is free again."""
    make(client)
    for name in ("mine", "reader"):
        answer = client.post(TOKEN, {"name": name, "scopes": ["read"]})
        assert answer.json is not None
        assert (answer.status_code, answer.json["type"]) == (409, "/problems/token-exists")
    client.delete(f"{TOKEN}/mine")
    make(client)


#: What a token asks for beyond itself, by who asks.
ABOVE: dict[str, tuple[str, dict[str, Any]]] = {
    "a scope that it lacks": ("parts", {"scopes": ["server:read", "server:delete"]}),
    "a bundle of which it has a part": ("parts", {"scopes": ["operate"]}),
    "the operator's bundle": ("admin", {"scopes": ["read"]}),
    "all": ("parts", {"scopes": ["read", "operate", "admin"]}),
    "another customer": ("acme", {"customer": "other"}),
    "another customer, with the same servers": ("few", {"customer": "other", "servers": [1]}),
    "another server": ("few", {"servers": [3]}),
    "a server more": ("few", {"servers": [1, 2, 3]}),
    "another customer's server": ("few", {"customer": "acme", "servers": [4]}),
}


@pytest.mark.parametrize("case", ABOVE)
def test_no_token_rises_above_its_maker(client: Client, store: FakeTokens, case: str) -> None:
    """403 for a token and for a link, and nothing is given out."""
    maker, asked = ABOVE[case]
    body = {"name": "mine", "scopes": ["token"], **asked}
    answer = client.post(TOKEN, body, token=maker)
    assert answer.json is not None
    assert (answer.status_code, answer.json["type"]) == (403, "/problems/missing-scope")
    link = {"customer": "acme", "minutes": 5, "scopes": ["token"], **asked}
    assert client.post(LOGIN, link, token=maker).status_code == 403
    assert store.records == {}


@pytest.mark.parametrize("maker", [name for name in ENTRIES if name != "reader"])
def test_what_is_not_asked_for_is_the_makers(client: Client, store: FakeTokens, maker: str) -> None:
    """Customer and servers; and whatever is given out is covered by its maker, a link's token too."""
    scopes = ["token"]
    make(client, "mine", maker, scopes=scopes)
    client.post(LOGIN, {"customer": "acme", "minutes": 5, "scopes": scopes}, token=maker)
    (operator,) = (token for token in store.operators() if token.name == maker)
    found = all_of(store.records)
    assert len(found) == 2
    for one in found.values():
        assert operator.covers(one.token)
    assert found["token.mine"].token.customer == operator.customer
    assert found["token.mine"].token.servers == operator.servers


def test_a_bundle_made_of_parts_stays_those_parts(client: Client, file: TokensFile, store: FakeTokens) -> None:
    """What a later version adds to a bundle is not in a token whose maker has not the bundle itself."""
    read = make(client, "part", "parts", scopes=["read"])
    assert read["scopes"] == ["server:read"]
    assert make(client, "whole", "shop", scopes=["admin", "server:read"])["scopes"] == ["admin", "server:read"]


def test_a_token_does_not_outlive_its_maker(client: Client, store: FakeTokens) -> None:
    """Whether a time is asked for or none is."""
    short = make(client, "short", scopes=["token", "read"], expires_in_s=600)
    assert abs(datetime.fromisoformat(short["expires"]) - datetime.now(UTC) - timedelta(minutes=10)).seconds < 60
    headers = {"Authorization": f"Bearer {short['token']}"}

    def asks(**more: Any) -> Any:
        return client.flask.post(TOKEN, json={"scopes": ["read"], **more}, headers=headers)

    assert asks(name="child").json["expires"] == short["expires"]
    assert asks(name="brief", expires_in_s=60).json["expires"] < short["expires"]
    assert asks(name="longer", expires_in_s=700).status_code == 403
    link = client.flask.post(LOGIN, json={"customer": "acme", "minutes": 60}, headers=headers).json
    assert link["expires"] == short["expires"]
    assert client.flask.get(link["link"]).json["expires"] == short["expires"]


def test_an_expired_token_does_nothing_and_goes_with_the_next_write(client: Client, store: FakeTokens) -> None:
    """It is not listed any more, and its name is free."""
    secret = make(client, "late", scopes=["read"])["token"]
    make(client, "other")
    late = all_of(store.records)["token.late"]
    past = datetime.now(UTC) - timedelta(seconds=1)
    store.records["token.late"] = written(replace(late, token=replace(late.token, expires=past)))
    assert status(client, secret) == 401
    assert names(client) == ["other"]
    assert client.delete(f"{TOKEN}/late").status_code == 404
    client.delete(f"{TOKEN}/other")
    assert store.records == {}


def test_a_token_reaches_only_what_it_could_give_out(client: Client) -> None:
    """Neither in the list nor to end it: one of another customer, of other servers, or that may do more."""
    make(client, "everything", scopes=["read", "operate", "admin"])
    make(client, "acmes", customer="acme")
    make(client, "others", customer="other")
    make(client, "firsts", customer="acme", servers=[1])
    make(client, "thirds", customer="acme", servers=[3])
    assert names(client) == ["acmes", "everything", "firsts", "others", "thirds"]
    assert names(client, "acme") == ["acmes", "firsts", "thirds"]
    assert names(client, "few") == ["firsts"]
    for name in ("others", "everything", "thirds", "acmes", "shop", "nobody"):
        answer = client.delete(f"{TOKEN}/{name}", token="few")
        assert answer.json is not None
        assert (answer.status_code, answer.json["type"]) == (404, "/problems/token-not-found")
    assert client.delete(f"{TOKEN}/firsts", token="few").status_code == 200


@pytest.mark.parametrize(
    ("method", "path"), [("GET", TOKEN), ("POST", TOKEN), ("DELETE", f"{TOKEN}/a"), ("POST", LOGIN)]
)
def test_each_call_about_tokens_needs_their_scope(client: Client, method: str, path: str) -> None:
    """403 that names it."""
    answer = client.call(method, path, {} if method == "POST" else None, token="reader")
    assert answer.json is not None
    assert (answer.status_code, answer.json["type"]) == (403, "/problems/missing-scope")
    assert "`token`" in answer.json["detail"]


def test_the_records_are_bounded(client: Client, store: FakeTokens, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens and links together."""
    monkeypatch.setattr(operations, "MAX_RECORDS", 2)
    make(client)
    link = client.post(LOGIN, {"customer": "acme", "minutes": 5}).json
    assert link is not None
    for answer in (
        client.post(TOKEN, {"name": "other", "scopes": ["read"]}),
        client.post(LOGIN, {"customer": "acme", "minutes": 5}),
    ):
        assert answer.json is not None
        assert (answer.status_code, answer.json["type"]) == (409, "/problems/too-many-tokens")
    # Its token comes in the link's place.
    assert client.flask.get(link["link"]).status_code == 200


def test_the_largest_record_is_small(client: Client, store: FakeTokens) -> None:
    """A thousand of them fit into a Secret, whose values may have 1 MiB together."""
    servers = list(range(2**63 - 20, 2**63))
    make(client, "n" * 63, scopes=list(SCOPES), customer="c" * 63, servers=servers, expires_in_s=10**8)
    (largest,) = all_of(store.records).values()
    text = written(replace(largest, made_by="m" * 63, last_used=largest.created))
    assert len(text) * operations.MAX_RECORDS < 2**20


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no name": ({"scopes": ["read"]}, "name"),
    "a name with a sign": ({"name": "a/b", "scopes": ["read"]}, "name"),
    "a name that is a token": ({"name": "gs_" + "a" * 36, "scopes": ["read"]}, "name"),
    "no scopes": ({"name": "a"}, "scopes"),
    "an empty list": ({"name": "a", "scopes": []}, "scopes"),
    "an unknown scope": ({"name": "a", "scopes": ["root"]}, "scopes.0"),
    "a customer that is none": ({"name": "a", "scopes": ["read"], "customer": "A & B"}, "customer"),
    "no server": ({"name": "a", "scopes": ["read"], "servers": []}, "servers"),
    "a server that is none": ({"name": "a", "scopes": ["read"], "servers": [0]}, "servers.0"),
    "too many servers": ({"name": "a", "scopes": ["read"], "servers": list(range(1, 22))}, "servers"),
    "no time": ({"name": "a", "scopes": ["read"], "expires_in_s": 0}, "expires_in_s"),
    "something else": ({"name": "a", "scopes": ["read"], "sha256": "a"}, "sha256"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_named(client: Client, store: FakeTokens, case: str) -> None:
    """422, and nothing is given out."""
    body, field = WRONG[case]
    answer = client.post(TOKEN, body)
    assert answer.json is not None
    assert answer.status_code == 422
    assert list(answer.json["errors"]) == [field]
    assert store.records == {}


def test_a_link_hands_out_a_token_once(client: Client, store: FakeTokens) -> None:
    """Of the customer, with read and operate, for twelve hours; the second time there is nothing."""
    client.post("/api/v1/server/1/", {**OK, "customer": "acme"})
    client.post("/api/v1/server/2/", {**OK, "customer": "other"})
    made = client.post(LOGIN, {"customer": "acme", "minutes": 5})
    assert made.json is not None
    assert made.status_code == 201
    assert made.headers["Cache-Control"] == "no-store"
    link, expires = made.json["link"], datetime.fromisoformat(made.json["expires"])
    assert abs(expires - datetime.now(UTC) - timedelta(minutes=5)) < timedelta(minutes=1)
    # Who only looks does not use it up.
    assert client.flask.head(link).status_code == 405
    opened = client.flask.get(link)
    assert opened.json is not None
    assert (opened.status_code, opened.headers["Cache-Control"]) == (200, "no-store")
    assert opened.headers["Referrer-Policy"] == "no-referrer"
    assert (opened.json["customer"], opened.json["scopes"]) == ("acme", ["operate", "read"])
    lasts = datetime.fromisoformat(opened.json["expires"]) - datetime.now(UTC)
    assert timedelta(hours=11, minutes=59) < lasts <= timedelta(hours=12)
    secret = opened.json["token"]
    assert status(client, secret, "/api/v1/server/1/") == 200
    assert status(client, secret, "/api/v1/server/2/") == 404
    for _ in range(2):
        again = client.flask.get(link)
        assert again.json is not None
        assert (again.status_code, again.json["type"]) == (404, "/problems/login-link-gone")
        assert again.headers["Cache-Control"] == "no-store"
    assert names(client) == [opened.json["name"]]


def test_a_link_works_for_its_minutes(client: Client, store: FakeTokens) -> None:
    """Then as one that never was; so does one whose maker has been ended."""
    links = [client.post(LOGIN, {"customer": "acme", "minutes": 1}).json for _ in range(2)]
    key, link = next(iter(all_of(store.records).items()))
    past = datetime.now(UTC) - timedelta(seconds=1)
    store.records[key] = written(replace(link, token=replace(link.token, expires=past)))
    assert links[0] is not None
    assert client.flask.get(links[0]["link"]).status_code == 404
    maker = make(client, "maker", scopes=["token", "read"])["token"]
    headers = {"Authorization": f"Bearer {maker}"}
    link = client.flask.post(LOGIN, json={"customer": "acme", "minutes": 1}, headers=headers).json
    client.delete(f"{TOKEN}/maker")
    assert client.flask.get(link["link"]).status_code == 404
    assert client.flask.get("/api/v1/login/nothing").status_code == 404
    assert sum(key.startswith(LINK) for key in store.records) == 1


@pytest.mark.parametrize(
    ("maker", "scopes"),
    [("shop", ["operate", "read"]), ("parts", ["server:power", "server:read"]), ("admin", ["disk:erase"])],
)
def test_a_link_gives_what_its_maker_has(client: Client, maker: str, scopes: list[str]) -> None:
    """Of read and operate, where nothing else is asked for."""
    made = client.post(LOGIN, {"customer": "acme", "minutes": 5}, token=maker).json
    assert made is not None
    opened = client.flask.get(made["link"]).json
    assert opened is not None
    assert opened["scopes"] == scopes


@pytest.mark.parametrize("late", ["begins before", "begins after"])
def test_of_two_replicas_one_opens_a_link(
    world: World, settings: Settings, late: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the second looks before the first has written, or has not heard of it afterwards."""
    kube = kept_tokens.kept(tokens.entry("shop", "shop-secret"))
    stores = [kept_tokens.replica(kube) for _ in range(2)]
    apps = [create_app(settings, FakeCluster(world), FakeReleases(world), tokens=store) for store in stores]
    one, other = (Client(app.test_client()) for app in apps)
    made = one.post(LOGIN, {"customer": "acme", "minutes": 5}).json
    assert made is not None
    (key,) = stores[0].issued()
    for store in stores:
        until(lambda store=store: store.heard_of(key))
    found: list[int] = []
    if late == "begins after":
        monkeypatch.setattr(stores[1], "heard_of", lambda key: True)
        found.append(one.flask.get(made["link"]).status_code)
    else:

        def meanwhile(method: str, path: str) -> None:
            if method == "PATCH":
                kube.back()
                found.append(one.flask.get(made["link"]).status_code)

        kube.before = meanwhile
    found.append(other.flask.get(made["link"]).status_code)
    assert found == [200, 404]
    assert len(stores[0].issued()) == 1


def test_of_many_that_open_a_link_at_once_one_gets_a_token(world: World, settings: Settings) -> None:
    """On two replicas."""
    kube = kept_tokens.kept(tokens.entry("shop", "shop-secret"))
    stores = [kept_tokens.replica(kube) for _ in range(2)]
    apps = [create_app(settings, FakeCluster(world), FakeReleases(world), tokens=store) for store in stores]
    made = Client(apps[0].test_client()).post(LOGIN, {"customer": "acme", "minutes": 5}).json
    assert made is not None
    (key,) = stores[0].issued()
    for store in stores:
        until(lambda store=store: store.heard_of(key))
    with ThreadPoolExecutor(8) as threads:
        opened = list(threads.map(lambda n: apps[n % 2].test_client().get(made["link"]).status_code, range(8)))
    assert sorted(opened) == [200] + [404] * 7
    assert len(stores[0].issued()) == 1


def test_no_secret_is_logged_and_each_grant_is_audited(
    client: Client, store: FakeTokens, caplog: pytest.LogCaptureFixture
) -> None:
    """Who gave out what to whom, or ended it; neither tokens, nor codes of links."""
    caplog.set_level(logging.DEBUG)
    secret = make(client, customer="acme")["token"]
    made = client.post(LOGIN, {"customer": "acme", "minutes": 5}).json
    assert made is not None
    opened = client.flask.get(made["link"]).json
    assert opened is not None
    client.flask.get(made["link"])
    client.delete(f"{TOKEN}/{secret}")
    client.delete(f"{TOKEN}/mine")
    audited = [record.fields for record in caplog.records if record.name == "service.audit"]  # type: ignore[attr-defined]
    by = {"token": "shop", "server": None}
    assert audited == [
        {**by, "action": "create_token", "outcome": "ok", "name": "mine"},
        {**by, "action": "create_login_link", "outcome": "ok", "customer": "acme"},
        {
            **{"token": "", "server": None, "action": "open_login_link", "outcome": "ok"},
            **{"name": opened["name"], "made_by": "shop"},
        },
        {"token": "", "server": None, "action": "open_login_link", "outcome": "login-link-gone"},
        {**by, "action": "delete_token", "outcome": "token-not-found"},
        {**by, "action": "delete_token", "outcome": "ok", "name": "mine"},
    ]
    written_down = caplog.text + json.dumps([getattr(record, "fields", {}) for record in caplog.records])
    for hidden in (secret, opened["token"], made["link"].rpartition("/")[2]):
        assert hidden not in written_down


def test_an_api_with_a_file_of_tokens_gives_out_none(make_app: Callable[..., Any]) -> None:
    """It has nowhere to keep them, and says so; a link is none."""
    client = Client(make_app().test_client())
    for answer in (
        client.get(TOKEN),
        client.post(TOKEN, {"name": "a", "scopes": ["read"]}),
        client.delete(f"{TOKEN}/a"),
    ):
        assert answer.json is not None
        assert (answer.status_code, answer.json["type"]) == (501, "/problems/tokens-not-kept")
    assert client.flask.get("/api/v1/login/nothing").status_code == 404
