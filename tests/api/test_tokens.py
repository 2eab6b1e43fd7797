"""Tokens that the API issues, and login links."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from service.app import create_app
from service.assembly import build_context
from service.operations import tokens as operations
from service.settings import Settings
from service.tokenformat import is_mistyped, looks_like_token
from service.tokens import SCOPES, TokensFile
from service.tokenstore.records import LINK, all_of, written
from tests.api.conftest import SIZES, Client
from tests.support import kept_tokens, tokens
from tests.support.fakes import FakeCluster, FakeReleases, FakeTokens, World
from tests.support.waiting import until

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
    """The operator's tokens: those of ENTRIES."""
    entries = [tokens.entry(name, f"{name}-secret", **more) for name, more in ENTRIES.items()]
    return TokensFile(tokens.write(tmp_path / "operators.json", *entries))


@pytest.fixture
def store(file: TokensFile) -> FakeTokens:
    """The operator's tokens and the issued ones."""
    return FakeTokens(file)


@pytest.fixture
def client(world: World, settings: Settings, store: FakeTokens) -> Client:
    """A client of an API that issues tokens."""
    return Client(
        create_app(build_context(settings, FakeCluster(world), FakeReleases(world), tokens=store)).test_client()
    )


def issue(client: Client, name: str = "mine", token: str = "shop", **more: Any) -> dict[str, Any]:
    """Issue a token; returns the answer."""
    answer = client.post(TOKEN, {"name": name, "scopes": ["read"], **more}, token=token)
    assert answer.status_code == 201, answer.json
    assert answer.json is not None
    return dict(answer.json)


def status_with(client: Client, secret: str, path: str = "/api/v1/game") -> int:
    """The status of a call with an issued token."""
    return client.flask.get(path, headers={"Authorization": f"Bearer {secret}"}).status_code


def names(client: Client, token: str = "shop") -> list[str]:
    """The names of the issued tokens that `token` may list."""
    answer = client.get(TOKEN, token=token)
    assert answer.json is not None
    return [issued["name"] for issued in answer.json["tokens"]]


def test_a_token_is_shown_once_and_works_until_it_is_revoked(client: Client) -> None:
    """The list shows neither the token nor its hash."""
    answer = issue(client, scopes=["read", "operate"], customer="acme", servers=[2, 1])
    secret = answer.pop("token")
    assert looks_like_token(secret)
    assert not is_mistyped(secret)
    grant = {"name": "mine", "scopes": ["operate", "read"], "customer": "acme", "servers": [1, 2], "expires": None}
    assert answer == {"success": True, **grant}
    assert status_with(client, secret) == 200
    listed = client.get(TOKEN)
    assert listed.json is not None
    (entry,) = listed.json["tokens"]
    assert {key: entry[key] for key in grant} == grant
    assert entry.keys() - grant.keys() == {"created", "made_by", "last_used"}
    assert (entry["made_by"], entry["last_used"]) == ("shop", None)
    assert abs(datetime.fromisoformat(entry["created"]) - datetime.now(UTC)) < timedelta(minutes=1)
    assert secret not in listed.text
    assert "sha256" not in listed.text
    assert client.delete(f"{TOKEN}/mine").status_code == 200
    assert status_with(client, secret) == 401
    assert names(client) == []
    assert client.delete(f"{TOKEN}/mine").status_code == 404


def test_a_name_is_unique(client: Client) -> None:
    """The names of the operator's tokens are taken too; the name of a revoked token is free again."""
    issue(client)
    for name in ("mine", "reader"):
        answer = client.post(TOKEN, {"name": name, "scopes": ["read"]})
        assert answer.json is not None
        assert (answer.status_code, answer.json["type"]) == (409, "/problems/token-exists")
    client.delete(f"{TOKEN}/mine")
    issue(client)


#: Requests for more than the maker may do: the maker, and what it asks for.
TOO_MUCH: dict[str, tuple[str, dict[str, Any]]] = {
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


@pytest.mark.parametrize("case", TOO_MUCH)
def test_no_token_may_do_more_than_its_maker(client: Client, store: FakeTokens, case: str) -> None:
    """A token and a login link both get 403, and nothing is issued."""
    maker, excess = TOO_MUCH[case]
    body = {"name": "mine", "scopes": ["token"], **excess}
    answer = client.post(TOKEN, body, token=maker)
    assert answer.json is not None
    assert (answer.status_code, answer.json["type"]) == (403, "/problems/missing-scope")
    link = {"customer": "acme", "minutes": 5, "scopes": ["token"], **excess}
    assert client.post(LOGIN, link, token=maker).status_code == 403
    assert store.records == {}


@pytest.mark.parametrize("maker", [name for name in ENTRIES if name != "reader"])
def test_a_token_inherits_its_makers_limits(client: Client, store: FakeTokens, maker: str) -> None:
    """It inherits customer and servers, and the maker covers it; so does the token of a login link."""
    scopes = ["token"]
    issue(client, "mine", maker, scopes=scopes)
    client.post(LOGIN, {"customer": "acme", "minutes": 5, "scopes": scopes}, token=maker)
    (operator,) = (token for token in store.operators() if token.name == maker)
    records = all_of(store.records)
    assert len(records) == 2
    for record in records.values():
        assert operator.covers(record.token)
    assert records["token.mine"].token.customer == operator.customer
    assert records["token.mine"].token.servers == operator.servers


def test_a_maker_with_only_the_parts_of_a_bundle_grants_only_those(
    client: Client, file: TokensFile, store: FakeTokens
) -> None:
    """The token must not gain scopes that a later version adds to the bundle."""
    read = issue(client, "part", "parts", scopes=["read"])
    assert read["scopes"] == ["server:read"]
    assert issue(client, "whole", "shop", scopes=["admin", "server:read"])["scopes"] == ["admin", "server:read"]


def test_a_token_does_not_outlive_its_maker(client: Client, store: FakeTokens) -> None:
    """This holds whether or not the request names a duration."""
    short = issue(client, "short", scopes=["token", "read"], expires_in_s=600)
    assert abs(datetime.fromisoformat(short["expires"]) - datetime.now(UTC) - timedelta(minutes=10)).seconds < 60
    headers = {"Authorization": f"Bearer {short['token']}"}

    def request(**more: Any) -> Any:
        return client.flask.post(TOKEN, json={"scopes": ["read"], **more}, headers=headers)

    assert request(name="child").json["expires"] == short["expires"]
    assert request(name="brief", expires_in_s=60).json["expires"] < short["expires"]
    assert request(name="longer", expires_in_s=700).status_code == 403
    link: Any = client.flask.post(LOGIN, json={"customer": "acme", "minutes": 60}, headers=headers).json
    assert link["expires"] == short["expires"]
    opened: Any = client.flask.get(link["link"]).json
    assert opened["expires"] == short["expires"]


def test_an_expired_token_is_removed_by_the_next_write(client: Client, store: FakeTokens) -> None:
    """Until then it does not work, is not listed and cannot be revoked."""
    secret = issue(client, "late", scopes=["read"])["token"]
    issue(client, "other")
    late = all_of(store.records)["token.late"]
    past = datetime.now(UTC) - timedelta(seconds=1)
    store.records["token.late"] = written(replace(late, token=replace(late.token, expires=past)))
    assert status_with(client, secret) == 401
    assert names(client) == ["other"]
    assert client.delete(f"{TOKEN}/late").status_code == 404
    client.delete(f"{TOKEN}/other")
    assert store.records == {}


def test_a_token_can_list_and_revoke_only_what_it_could_issue(client: Client) -> None:
    """Tokens for other customers or servers, or with more scopes, are not found."""
    issue(client, "everything", scopes=["read", "operate", "admin"])
    issue(client, "acmes", customer="acme")
    issue(client, "others", customer="other")
    issue(client, "firsts", customer="acme", servers=[1])
    issue(client, "thirds", customer="acme", servers=[3])
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
def test_each_call_about_tokens_needs_the_scope_token(client: Client, method: str, path: str) -> None:
    """Without it, the answer is 403 and names the scope."""
    answer = client.call(method, path, {} if method == "POST" else None, token="reader")
    assert answer.json is not None
    assert (answer.status_code, answer.json["type"]) == (403, "/problems/missing-scope")
    assert "`token`" in answer.json["detail"]


def test_the_number_of_records_is_limited(client: Client, store: FakeTokens, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit counts tokens and login links together."""
    monkeypatch.setattr(operations, "MAX_RECORDS", 2)
    issue(client)
    link = client.post(LOGIN, {"customer": "acme", "minutes": 5}).json
    assert link is not None
    for answer in (
        client.post(TOKEN, {"name": "other", "scopes": ["read"]}),
        client.post(LOGIN, {"customer": "acme", "minutes": 5}),
    ):
        assert answer.json is not None
        assert (answer.status_code, answer.json["type"]) == (409, "/problems/too-many-tokens")
    # The new token takes the place of the link.
    assert client.flask.get(link["link"]).status_code == 200


def test_the_largest_record_is_small(client: Client, store: FakeTokens) -> None:
    """A thousand of them fit into a Secret, which holds at most 1 MiB."""
    servers = list(range(2**63 - 20, 2**63))
    scopes = [scope for scope in SCOPES if scope != "recover"]  # Which the shop lacks.
    issue(client, "n" * 63, scopes=scopes, customer="c" * 63, servers=servers, expires_in_s=10**8)
    (largest,) = all_of(store.records).values()
    text = written(replace(largest, made_by="m" * 63, last_used=largest.created))
    assert len(text) * operations.MAX_RECORDS < 2**20


INVALID: dict[str, tuple[dict[str, Any], str]] = {
    "no name": ({"scopes": ["read"]}, "name"),
    "a name with a sign": ({"name": "a/b", "scopes": ["read"]}, "name"),
    "a name that is a token": ({"name": "gs_" + "a" * 36, "scopes": ["read"]}, "name"),
    "no scopes": ({"name": "a"}, "scopes"),
    "an empty list": ({"name": "a", "scopes": []}, "scopes"),
    "an unknown scope": ({"name": "a", "scopes": ["root"]}, "scopes.0"),
    "an invalid customer": ({"name": "a", "scopes": ["read"], "customer": "A & B"}, "customer"),
    "no server": ({"name": "a", "scopes": ["read"], "servers": []}, "servers"),
    "an invalid server": ({"name": "a", "scopes": ["read"], "servers": [0]}, "servers.0"),
    "too many servers": ({"name": "a", "scopes": ["read"], "servers": list(range(1, 22))}, "servers"),
    "no time": ({"name": "a", "scopes": ["read"], "expires_in_s": 0}, "expires_in_s"),
    "something else": ({"name": "a", "scopes": ["read"], "sha256": "a"}, "sha256"),
}


@pytest.mark.parametrize("case", INVALID)
def test_an_invalid_request_is_named(client: Client, store: FakeTokens, case: str) -> None:
    """The answer is 422 and names the field, and nothing is issued."""
    body, field = INVALID[case]
    answer = client.post(TOKEN, body)
    assert answer.json is not None
    assert answer.status_code == 422
    assert list(answer.json["errors"]) == [field]
    assert store.records == {}


def test_a_login_link_opens_once(client: Client, store: FakeTokens) -> None:
    """It gives out a token for the customer, with `read` and `operate`, for twelve hours."""
    client.post("/api/v1/server/1/", {**SIZES, "customer": "acme"})
    client.post("/api/v1/server/2/", {**SIZES, "customer": "other"})
    answer = client.post(LOGIN, {"customer": "acme", "minutes": 5})
    assert answer.json is not None
    assert answer.status_code == 201
    assert answer.headers["Cache-Control"] == "no-store"
    link, expires = answer.json["link"], datetime.fromisoformat(answer.json["expires"])
    assert abs(expires - datetime.now(UTC) - timedelta(minutes=5)) < timedelta(minutes=1)
    # A HEAD request does not use the link up.
    assert client.flask.head(link).status_code == 405
    opened = client.flask.get(link)
    assert opened.json is not None
    assert (opened.status_code, opened.headers["Cache-Control"]) == (200, "no-store")
    assert opened.headers["Referrer-Policy"] == "no-referrer"
    assert (opened.json["customer"], opened.json["scopes"]) == ("acme", ["operate", "read"])
    remaining = datetime.fromisoformat(opened.json["expires"]) - datetime.now(UTC)
    assert timedelta(hours=11, minutes=59) < remaining <= timedelta(hours=12)
    secret = opened.json["token"]
    assert status_with(client, secret, "/api/v1/server/1/") == 200
    assert status_with(client, secret, "/api/v1/server/2/") == 404
    for _ in range(2):
        late = client.flask.get(link)
        assert late.json is not None
        assert (late.status_code, late.json["type"]) == (404, "/problems/login-link-gone")
        assert late.headers["Cache-Control"] == "no-store"
    assert names(client) == [opened.json["name"]]


def test_an_expired_login_link_does_not_work(client: Client, store: FakeTokens) -> None:
    """Nor does one whose maker has been revoked; both look like links that never existed."""
    links = [client.post(LOGIN, {"customer": "acme", "minutes": 1}).json for _ in range(2)]
    key, record = next(iter(all_of(store.records).items()))
    past = datetime.now(UTC) - timedelta(seconds=1)
    store.records[key] = written(replace(record, token=replace(record.token, expires=past)))
    assert links[0] is not None
    assert client.flask.get(links[0]["link"]).status_code == 404
    maker = issue(client, "maker", scopes=["token", "read"])["token"]
    headers = {"Authorization": f"Bearer {maker}"}
    link: Any = client.flask.post(LOGIN, json={"customer": "acme", "minutes": 1}, headers=headers).json
    client.delete(f"{TOKEN}/maker")
    assert client.flask.get(link["link"]).status_code == 404
    assert client.flask.get("/api/v1/login/nothing").status_code == 404
    assert sum(key.startswith(LINK) for key in store.records) == 1


@pytest.mark.parametrize(
    ("maker", "scopes"),
    [("shop", ["operate", "read"]), ("parts", ["server:power", "server:read"]), ("admin", ["disk:erase"])],
)
def test_a_login_link_gives_out_at_most_its_makers_scopes(client: Client, maker: str, scopes: list[str]) -> None:
    """By default these are `read` and `operate`, as far as the maker has them."""
    link = client.post(LOGIN, {"customer": "acme", "minutes": 5}, token=maker).json
    assert link is not None
    opened = client.flask.get(link["link"]).json
    assert opened is not None
    assert opened["scopes"] == scopes


@pytest.mark.parametrize("late", ["begins before", "begins after"])
def test_only_one_of_two_replicas_opens_a_login_link(
    world: World, settings: Settings, late: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second may read before the first writes, or its watch may not have reported the write yet."""
    kube = kept_tokens.kept(tokens.entry("shop", "shop-secret"))
    stores = [kept_tokens.replica(kube) for _ in range(2)]
    apps = [
        create_app(build_context(settings, FakeCluster(world), FakeReleases(world), tokens=store)) for store in stores
    ]
    first, second = (Client(app.test_client()) for app in apps)
    link = first.post(LOGIN, {"customer": "acme", "minutes": 5}).json
    assert link is not None
    (key,) = stores[0].issued()
    for store in stores:
        until(partial(store.heard_of, key))
    statuses: list[int] = []
    if late == "begins after":
        monkeypatch.setattr(stores[1], "heard_of", lambda key: True)
        statuses.append(first.flask.get(link["link"]).status_code)
    else:

        def open_first(method: str, path: str) -> None:
            if method == "PATCH":
                kube.back()
                statuses.append(first.flask.get(link["link"]).status_code)

        kube.before = open_first
    statuses.append(second.flask.get(link["link"]).status_code)
    assert statuses == [200, 404]
    assert len(stores[0].issued()) == 1


def test_only_one_of_many_clients_opens_a_login_link(world: World, settings: Settings) -> None:
    """The clients open it at the same time, on two replicas."""
    kube = kept_tokens.kept(tokens.entry("shop", "shop-secret"))
    stores = [kept_tokens.replica(kube) for _ in range(2)]
    apps = [
        create_app(build_context(settings, FakeCluster(world), FakeReleases(world), tokens=store)) for store in stores
    ]
    link = Client(apps[0].test_client()).post(LOGIN, {"customer": "acme", "minutes": 5}).json
    assert link is not None
    (key,) = stores[0].issued()
    for store in stores:
        until(partial(store.heard_of, key))
    with ThreadPoolExecutor(8) as threads:
        opened = list(threads.map(lambda n: apps[n % 2].test_client().get(link["link"]).status_code, range(8)))
    assert sorted(opened) == [200] + [404] * 7
    assert len(stores[0].issued()) == 1


def test_tokens_and_codes_are_not_logged_but_audited(
    client: Client, store: FakeTokens, caplog: pytest.LogCaptureFixture
) -> None:
    """The audit lines have the names of the tokens, but neither tokens nor codes of login links."""
    caplog.set_level(logging.DEBUG)
    secret = issue(client, customer="acme")["token"]
    link = client.post(LOGIN, {"customer": "acme", "minutes": 5}).json
    assert link is not None
    opened = client.flask.get(link["link"]).json
    assert opened is not None
    client.flask.get(link["link"])
    client.delete(f"{TOKEN}/{secret}")
    client.delete(f"{TOKEN}/mine")
    audited = [record.fields for record in caplog.records if record.name == "service.audit"]  # type: ignore[attr-defined]
    shop = {"token": "shop", "server": None}
    assert audited == [
        {**shop, "action": "create_token", "outcome": "ok", "name": "mine"},
        {**shop, "action": "create_login_link", "outcome": "ok", "customer": "acme"},
        {
            **{"token": "", "server": None, "action": "open_login_link", "outcome": "ok"},
            **{"name": opened["name"], "made_by": "shop"},
        },
        {"token": "", "server": None, "action": "open_login_link", "outcome": "login-link-gone"},
        {**shop, "action": "delete_token", "outcome": "token-not-found"},
        {**shop, "action": "delete_token", "outcome": "ok", "name": "mine"},
    ]
    log_text = caplog.text + json.dumps([getattr(record, "fields", {}) for record in caplog.records])
    for hidden in (secret, opened["token"], link["link"].rpartition("/")[2]):
        assert hidden not in log_text


def test_an_api_with_a_tokens_file_issues_none(make_app: Callable[..., Any]) -> None:
    """It has nowhere to keep them and answers 501; no login link exists."""
    client = Client(make_app().test_client())
    for answer in (
        client.get(TOKEN),
        client.post(TOKEN, {"name": "a", "scopes": ["read"]}),
        client.delete(f"{TOKEN}/a"),
    ):
        assert answer.json is not None
        assert (answer.status_code, answer.json["type"]) == (501, "/problems/tokens-not-kept")
    assert client.flask.get("/api/v1/login/nothing").status_code == 404
