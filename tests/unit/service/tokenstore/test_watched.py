"""Tokens in Secrets: changes, mistakes, outages and the record of their last use."""

from __future__ import annotations

import logging

import pytest

from service.errors import ClusterContended, ClusterUnavailable, OperationFailed, StartupError, Unauthorized
from service.kube import watch
from service.kube.client import Conflict
from service.records import secret
from service.tokens import Token
from service.tokenstore import watched
from service.tokenstore.records import Issued, hash_of, read, token_key, written
from service.tokenstore.watched import WatchedTokens, current_hour
from tests.support import kept_tokens
from tests.support.kept_tokens import ISSUED, OPERATORS, SECRETS
from tests.support.memory_kube import WatchedKube
from tests.support.tokens import entry
from tests.support.waiting import until

MINE = Issued(Token("mine", hash_of("secret"), frozenset({"read"})), "2026-11-26T12:00:00Z", "shop")


def names(store: WatchedTokens) -> list[str]:
    """The names of the operator's tokens."""
    return [token.name for token in store.operators()]


def issue(store: WatchedTokens) -> None:
    """Issue MINE, and wait until the watch has reported it."""
    store.change(lambda records: {"token.mine": written(MINE)})
    until(lambda: store.heard_of("token.mine"))


def test_the_operators_tokens_are_reloaded_without_a_restart(caplog: pytest.LogCaptureFixture) -> None:
    """If the Secret is broken or missing, the old tokens stay valid, and a log line says so."""
    caplog.set_level(logging.INFO, "service.tokenstore")
    kube = kept_tokens.kept(entry("one"))
    store = kept_tokens.replica(kube)
    assert names(store) == ["one"]
    kept_tokens.put(kube, OPERATORS, kept_tokens.file_of(entry("two")))
    until(lambda: names(store) == ["two"])
    assert "reloaded the operator's tokens: two" in caplog.text
    kept_tokens.put(kube, OPERATORS, kept_tokens.file_of({**entry("three"), "scopes": ["root"]}))
    until(lambda: store.operators() and "keeping the previous tokens" in caplog.text)
    assert names(store) == ["two"]
    assert "Secret gameserver-system/api-tokens: tokens.json: tokens[0]: scopes must be" in caplog.text
    kube.delete(f"{SECRETS}/{OPERATORS}")
    assert names(store) == ["two"]
    kube.create(SECRETS, {"metadata": {"name": OPERATORS}, "data": kept_tokens.file_of(entry("four"))})
    until(lambda: names(store) == ["four"])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "api-tokens: tokens.json:1: cannot be read: it does not exist"),
        ({}, "api-tokens: tokens.json:1: cannot be read: it does not exist"),
        ({"tokens.json": "/w=="}, "it is not UTF-8"),
        ({"tokens.json": "e30="}, "must be"),
        (kept_tokens.file_of(entry("a"), entry("a")), r"tokens\[1\]: has the same name as"),
    ],
)
def test_a_replica_does_not_start_with_a_broken_secret(data: dict[str, str] | None, message: str) -> None:
    """Nor does it start without a Secret; older replicas keep running."""
    kube = kept_tokens.kept(entry("one"))
    kube.delete(f"{SECRETS}/{OPERATORS}")
    if data is not None:
        kube.create(SECRETS, {"metadata": {"name": OPERATORS}, "data": data})
    with pytest.raises(StartupError, match=message):
        kept_tokens.replica(kube)


def test_the_last_tokens_stay_valid_while_kubernetes_is_away() -> None:
    """This holds for the operator's and for issued tokens, but no token can be issued."""
    kube = kept_tokens.kept(entry("one"))
    store = kept_tokens.replica(kube)
    issue(store)
    kube.away()
    assert store.caller("Bearer one").name == "one"
    assert store.caller("Bearer secret") == MINE.token
    with pytest.raises(ClusterUnavailable):
        store.change(lambda records: {"token.other": written(MINE)})


def test_a_replica_can_start_while_kubernetes_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers 503 to a valid token, not 401, and accepts it as soon as Kubernetes answers."""
    monkeypatch.setattr(watch, "LONGEST_PAUSE", 0.05)
    monkeypatch.setattr(watched, "SYNC_SECONDS", 0.05)
    kube = kept_tokens.kept(entry("one"))
    kube.away()
    store = kept_tokens.replica(kube)
    with pytest.raises(ClusterUnavailable):
        store.caller("Bearer one")
    with pytest.raises(Unauthorized):
        store.caller(None)
    kube.back()

    def accepted() -> bool:
        try:
            return store.caller("Bearer one").name == "one"
        except ClusterUnavailable:
            return False

    until(accepted)


def test_a_broken_record_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """The line has its key and the mistake, and does not quote the record."""
    kube = kept_tokens.kept(entry("one"))
    store = kept_tokens.replica(kube)
    kept_tokens.put(kube, ISSUED, {"token.odd": "aHVzaA==", "token.bytes": "/w==", "note": "aHVzaA=="})
    until(lambda: kube.asked.count("WATCH /api/v1/namespaces/gameserver-system/secrets") == 2)
    issue(store)
    for _ in range(3):
        assert store.caller("Bearer secret") == MINE.token
    messages = [record.getMessage() for record in caplog.records if "ignoring an issued token" in record.getMessage()]
    assert sorted("token.odd" in line for line in messages) == [False, True]
    assert "hush" not in caplog.text


def test_the_last_use_is_saved_once_an_hour() -> None:
    """One replica saves it for all, and calls do not write."""
    kube = kept_tokens.kept(entry("one"))
    stores = [kept_tokens.replica(kube) for _ in range(2)]
    issue(stores[0])
    until(lambda: stores[1].heard_of("token.mine"))
    kube.asked.clear()
    for store in stores:
        for _ in range(3):
            store.caller("Bearer secret")
        store.caller("Bearer one")
    assert kube.asked == []
    for store in stores:
        store.write_uses()
    assert [request for request in kube.asked if request.startswith("PATCH")] == [f"PATCH {SECRETS}/{ISSUED}"]
    record = read(token_key("mine"), stores[0].issued()["token.mine"])
    assert record == Issued(MINE.token, MINE.created, MINE.made_by, current_hour())
    kube.asked.clear()
    stores[0].write_uses()
    assert [request for request in kube.asked if request.startswith("PATCH")] == []


def test_the_last_use_of_a_revoked_token_is_not_saved() -> None:
    """Otherwise the record would come back."""
    kube = kept_tokens.kept(entry("one"))
    store = kept_tokens.replica(kube)
    issue(store)
    store.caller("Bearer secret")
    store.change(lambda records: {"token.mine": None})
    store.write_uses()
    assert store.issued() == {}


def test_the_last_use_is_lost_while_kubernetes_is_away(caplog: pytest.LogCaptureFixture) -> None:
    """A log line says so, and nothing else fails."""
    kube = kept_tokens.kept(entry("one"))
    store = kept_tokens.replica(kube)
    issue(store)
    store.caller("Bearer secret")
    kube.away()
    store.write_uses()
    assert "could not save when" in caplog.text


def test_no_token_is_issued_without_the_secret() -> None:
    """This holds even if it disappears between the read and the write; the operator's tokens still work."""
    kube = kept_tokens.kept(entry("one"))
    store = kept_tokens.replica(kube)

    def delete_secret(method: str, path: str) -> None:
        if method == "PATCH":
            kube.back()
            kube.delete(f"{SECRETS}/{ISSUED}")

    kube.before = delete_secret
    for _ in range(2):
        with pytest.raises(OperationFailed, match="the operator must create it again"):
            issue(store)
    assert store.caller("Bearer one").name == "one"


def test_a_write_that_always_conflicts_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says that the client may try again."""
    monkeypatch.setattr(secret, "PAUSE", 0)
    kube: WatchedKube = kept_tokens.kept(entry("one"))
    store = kept_tokens.replica(kube)

    def conflict(method: str, path: str) -> None:
        if method == "PATCH":
            raise Conflict(path)

    kube.before = conflict
    with pytest.raises(ClusterContended):
        issue(store)
    assert kube.asked.count(f"PATCH {SECRETS}/{ISSUED}") == secret.TRIES
