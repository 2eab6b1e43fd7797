"""The contract of the token store, for the fake of the API's tests and for Secrets of an in-memory Kubernetes.

tests/cluster/test_access.py checks that a real cluster's replicas notice changes in time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from service.errors import TokenExists, Unauthorized
from service.operations.interfaces import Tokens
from service.records.secret import Records
from service.tokens import Token, TokensFile
from service.tokenstore.records import Issued, hash_of, token_key, written
from tests.support import kept_tokens, tokens
from tests.support.fakes import FakeTokens
from tests.support.waiting import until

NOW = "2026-11-26T12:00:00Z"
Two = tuple[Tokens, Tokens]


@pytest.fixture(params=["fake", "real"])
def two(request: pytest.FixtureRequest, tmp_path: Path) -> Two:
    """The stores of two replicas. Each test with this fixture runs against both kinds."""
    operators = tokens.entry("shop")
    if request.param == "fake":
        file, records = TokensFile(tokens.write(tmp_path / "tokens.json", operators)), dict[str, str]()
        return FakeTokens(file, records), FakeTokens(file, records)
    kube = kept_tokens.kept(operators)
    return kept_tokens.replica(kube), kept_tokens.replica(kube)


def issued(name: str, secret: str, **more: Any) -> Issued:
    """A token that the API has created."""
    return Issued(replace(Token(name, hash_of(secret), frozenset({"read"})), **more), NOW, "shop")


def give_out(store: Tokens, *given: Issued) -> None:
    """Store tokens that the API has created."""
    store.change(lambda records: {token_key(record.token.name): written(record) for record in given})


def works(store: Tokens, secret: str) -> Callable[[], bool]:
    """A check that a replica accepts a token."""

    def accepted() -> bool:
        try:
            store.caller(f"Bearer {secret}")
        except Unauthorized:
            return False
        return True

    return accepted


def gone(store: Tokens, secret: str) -> Callable[[], bool]:
    """A check that a replica does not accept a token."""
    return lambda: not works(store, secret)()


def test_the_operators_tokens_are_accepted(two: Two) -> None:
    """Every replica accepts the operator's tokens, and no unknown one."""
    for store in two:
        assert [token.name for token in store.operators()] == ["shop"]
        assert store.caller("Bearer shop").name == "shop"
        assert not works(store, "nobody")()


def test_a_created_token_comes_and_goes_on_every_replica(two: Two) -> None:
    """Every replica soon accepts a created token with its customer, servers and expiry, and soon notices its end."""
    mine = issued("mine", "secret", customer="acme", servers=frozenset({1}), expires=datetime(2100, 1, 1, tzinfo=UTC))
    give_out(two[0], mine)
    for store in two:
        until(works(store, "secret"))
        assert store.caller("Bearer secret") == mine.token
        assert store.heard_of("token.mine")
        assert store.issued() == {"token.mine": written(mine)}
    two[1].change(lambda records: {"token.mine": None})
    for store in two:
        until(gone(store, "secret"))
        assert not store.heard_of("token.mine")
        assert store.issued() == {}


def test_an_expired_token_is_not_accepted(two: Two) -> None:
    """An expired token is not accepted, although its record still exists."""
    late = datetime.now(UTC) - timedelta(seconds=1)
    give_out(two[0], issued("late", "secret", expires=late), issued("mine", "other"))
    until(works(two[1], "other"))
    assert not works(two[1], "secret")()


def test_a_broken_record_is_skipped(two: Two) -> None:
    """Broken records do not affect other tokens."""
    give_out(two[0], issued("mine", "secret"))
    broken = ("{", "[]", '{"sha256": "x"}', written(issued("x", "x")).replace("read", "root"), '{"expires": 1}')
    two[0].change(lambda records: {f"token.broken-{number}": text for number, text in enumerate(broken)})
    until(works(two[1], "secret"))


def test_a_refused_change_writes_nothing(two: Two) -> None:
    """An error in a change reaches the caller, and nothing is written."""

    def refuse(records: Records) -> dict[str, str | None]:
        raise TokenExists

    with pytest.raises(TokenExists):
        two[0].change(refuse)
    assert two[1].issued() == {}


def test_no_concurrent_write_is_lost(two: Two) -> None:
    """Changes by two replicas at the same time are all kept."""
    begin = threading.Barrier(4)

    def add(number: int) -> None:
        begin.wait()
        give_out(two[number % 2], issued(f"t{number}", f"secret-{number}"))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(add, range(4)))
    assert sorted(two[0].issued()) == [f"token.t{number}" for number in range(4)]
