"""The tokens that Kubernetes keeps: changes, mistakes, outages, and what is written down of their use."""

from __future__ import annotations

import logging

import pytest

from service.errors import ClusterContended, ClusterUnavailable, OperationFailed, StartupError, Unauthorized
from service.kube import watch
from service.kube.client import Conflict
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
    return [token.name for token in store.operators()]


def give_out(store: WatchedTokens) -> None:
    """MINE, and wait until it is heard of."""
    store.change(lambda records: {"token.mine": written(MINE)})
    until(lambda: store.heard_of("token.mine"))


def test_the_operators_tokens_are_rotated_without_a_restart(caplog: pytest.LogCaptureFixture) -> None:
    """A broken Secret, or none, leaves the tokens of before good, and says so; a good one counts again."""
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
def test_a_replica_does_not_start_with_what_is_broken(data: dict[str, str] | None, message: str) -> None:
    """Nor without any: the replicas of before go on."""
    kube = kept_tokens.kept(entry("one"))
    kube.delete(f"{SECRETS}/{OPERATORS}")
    if data is not None:
        kube.create(SECRETS, {"metadata": {"name": OPERATORS}, "data": data})
    with pytest.raises(StartupError, match=message):
        kept_tokens.replica(kube)


def test_while_kubernetes_is_away_the_last_tokens_stay_good() -> None:
    """The operator's, and those that were given out; only nothing new is given out."""
    kube = kept_tokens.kept(entry("one"))
    store = kept_tokens.replica(kube)
    give_out(store)
    kube.away()
    assert store.caller("Bearer one").name == "one"
    assert store.caller("Bearer secret") == MINE.token
    with pytest.raises(ClusterUnavailable):
        store.change(lambda records: {"token.other": written(MINE)})


def test_a_replica_that_starts_while_kubernetes_is_away_knows_nobody_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says that it cannot know, not that a good token is none; and it knows as soon as it can."""
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

    def known() -> bool:
        try:
            return store.caller("Bearer one").name == "one"
        except ClusterUnavailable:
            return False

    until(known)


def test_a_broken_record_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """With its key and what is wrong, and nothing that it says."""
    kube = kept_tokens.kept(entry("one"))
    store = kept_tokens.replica(kube)
    kept_tokens.put(kube, ISSUED, {"token.odd": "aHVzaA==", "token.bytes": "/w==", "note": "aHVzaA=="})
    until(lambda: kube.asked.count("WATCH /api/v1/namespaces/gameserver-system/secrets") == 2)
    give_out(store)
    for _ in range(3):
        assert store.caller("Bearer secret") == MINE.token
    told = [record.getMessage() for record in caplog.records if "ignoring an issued token" in record.getMessage()]
    assert sorted("token.odd" in line for line in told) == [False, True]
    assert "hush" not in caplog.text


def test_the_last_use_is_written_down_once_an_hour() -> None:
    """By one replica for all of them; a call costs no write."""
    kube = kept_tokens.kept(entry("one"))
    stores = [kept_tokens.replica(kube) for _ in range(2)]
    give_out(stores[0])
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


def test_the_use_of_a_token_that_has_gone_meanwhile_is_not_written_down() -> None:
    """It would come back by that."""
    kube = kept_tokens.kept(entry("one"))
    store = kept_tokens.replica(kube)
    give_out(store)
    store.caller("Bearer secret")
    store.change(lambda records: {"token.mine": None})
    store.write_uses()
    assert store.issued() == {}


def test_the_use_is_lost_while_kubernetes_is_away(caplog: pytest.LogCaptureFixture) -> None:
    """That is in the log, and hurts nobody."""
    kube = kept_tokens.kept(entry("one"))
    store = kept_tokens.replica(kube)
    give_out(store)
    store.caller("Bearer secret")
    kube.away()
    store.write_uses()
    assert "could not save when" in caplog.text


def test_without_its_secret_nothing_is_given_out() -> None:
    """Also where it goes between the look and the write; the operator's tokens go on."""
    kube = kept_tokens.kept(entry("one"))
    store = kept_tokens.replica(kube)

    def lose(method: str, path: str) -> None:
        if method == "PATCH":
            kube.back()
            kube.delete(f"{SECRETS}/{ISSUED}")

    kube.before = lose
    for _ in range(2):
        with pytest.raises(OperationFailed, match="the operator must create it again"):
            give_out(store)
    assert store.caller("Bearer one").name == "one"


def test_who_is_never_first_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """And says that it may be tried again."""
    monkeypatch.setattr(watched, "PAUSE", 0)
    kube: WatchedKube = kept_tokens.kept(entry("one"))
    store = kept_tokens.replica(kube)

    def busy(method: str, path: str) -> None:
        if method == "PATCH":
            raise Conflict(path)

    kube.before = busy
    with pytest.raises(ClusterContended):
        give_out(store)
    assert kube.asked.count(f"PATCH {SECRETS}/{ISSUED}") == watched.TRIES
