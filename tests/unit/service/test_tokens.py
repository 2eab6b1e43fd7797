"""The file of tokens: parsing it, reloading it and finding the caller."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from service.errors import StartupError, Unauthorized
from service.tokens import SCOPES, Token, TokensFile, parse


def entry(secret: str, **more: Any) -> dict[str, Any]:
    """An entry of the file; its name is the token."""
    return {"name": secret, "sha256": hashlib.sha256(secret.encode()).hexdigest(), "scopes": ["read"], **more}


def write(path: Path, *entries: dict[str, Any]) -> None:
    """Write a file with these entries."""
    path.write_text(json.dumps({"tokens": entries}))


def test_a_token_is_found_by_its_hash(tmp_path: Path) -> None:
    """The scheme `Bearer` may have any case; any other header is unauthorized."""
    write(tmp_path / "t", entry("one"), entry("two", customer="acme", scopes=["read", "operate"]))
    tokens = TokensFile(tmp_path / "t")
    assert tokens.caller("bearer two") == Token(
        "two", hashlib.sha256(b"two").hexdigest(), frozenset({"read", "operate"}), "acme"
    )
    for wrong in (None, "", "Bearer", "Bearer three", "Basic one", "Bearer one two", "Bearer " + "ä", "one"):
        with pytest.raises(Unauthorized) as raised:
            tokens.caller(wrong)
        assert raised.value.headers["WWW-Authenticate"].startswith("Bearer")


def test_each_token_is_compared_in_constant_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them are compared, so that the duration reveals neither how close a guess is nor which token it is."""
    write(tmp_path / "t", entry("one"), entry("two"), entry("three"))
    tokens, compared = TokensFile(tmp_path / "t"), []

    def compare(digest: str, other: str) -> bool:
        compared.append(digest)
        return digest == other

    monkeypatch.setattr("service.tokens.hmac.compare_digest", compare)
    assert tokens.caller("Bearer one").name == "one"
    with pytest.raises(Unauthorized):
        tokens.caller("Bearer four")
    assert compared == [entry(name)["sha256"] for name in ("one", "two", "three")] * 2


def test_tokens_are_reloaded_without_a_restart(tmp_path: Path) -> None:
    """Kubernetes replaces the file; if the new file is broken or missing, the old tokens stay valid."""
    path = tmp_path / "t"
    write(path, entry("one"))
    tokens = TokensFile(path)
    write(tmp_path / "new", entry("two"))
    (tmp_path / "new").replace(path)
    assert tokens.caller("Bearer two").name == "two"
    with pytest.raises(Unauthorized):
        tokens.caller("Bearer one")
    path.write_text("{")
    assert tokens.caller("Bearer two").name == "two"
    path.unlink()
    assert tokens.caller("Bearer two").name == "two"


SECRET = "Zm9y/c29tZWJvZHkgZWxzZQ=="
BROKEN: dict[str, tuple[str, str]] = {
    "not json": ("{\n]", r"tokens\.json:2: is not JSON"),
    "no list": ("{}", 'must be {"tokens"'),
    "clear text": (json.dumps({"tokens": [{"name": "a", "token": "x"}]}), r"tokens\[0\]: must be an object with"),
    "short hash": (json.dumps({"tokens": [{**entry("a"), "sha256": "abc"}]}), r"tokens\[0\]: sha256 must be 64"),
    "no scope": (json.dumps({"tokens": [entry("a"), {**entry("b"), "scopes": []}]}), r"tokens\[1\]: scopes must be"),
    "unknown scope": (json.dumps({"tokens": [{**entry("a"), "scopes": ["root"]}]}), "scopes must be"),
    "no name": (json.dumps({"tokens": [{**entry("a"), "name": ""}]}), "name must be a string"),
    "misspelt key": (
        json.dumps({"tokens": [{**entry("a"), "scope": ["read"]}]}),
        r"tokens\[0\]: must be an object .* \(did you mean scopes\?\)",
    ),
    "more beside them": (json.dumps({"tokens": [entry("a")], "token": "b"}), "and nothing else"),
    "a key twice": ('{"tokens": [], "tokens": []}', r"tokens\.json:1: a key appears twice"),
    "a name twice": (
        json.dumps({"tokens": [entry("a"), {**entry("b"), "name": "a"}]}),
        r"tokens\[1\]: has the same name as",
    ),
    "a hash twice": (
        json.dumps({"tokens": [entry("a"), {**entry("a"), "name": "b"}]}),
        r"tokens\[1\]: has the same sha256 as",
    ),
    "the token itself": (json.dumps({"tokens": [{**entry("a"), "sha256": SECRET}]}), "never the token"),
    "an upper-case hash": (json.dumps({"tokens": [{**entry("a"), "sha256": "AB" * 32}]}), "lowercase"),
    "an empty token": (json.dumps({"tokens": [entry("a", sha256=entry("")["sha256"])]}), "the token was empty"),
    "a key that is the token": (json.dumps({"tokens": [{**entry("a"), SECRET: 1}]}), "must be an object with"),
    "a scope that is the token": (json.dumps({"tokens": [{**entry("a"), "scopes": [SECRET]}]}), "scopes must be"),
    "a customer that is the token": (json.dumps({"tokens": [{**entry("a"), "customer": SECRET}]}), "customer must be"),
    "no such customer": (
        json.dumps({"tokens": [{**entry("a"), "customer": "A & B"}]}),
        "customer must be null or 1 to 63",
    ),
    "servers of no id": (json.dumps({"tokens": [{**entry("a"), "servers": [True]}]}), "servers must be null or a list"),
    "no servers at all": (json.dumps({"tokens": [{**entry("a"), "servers": []}]}), "servers must be null or a list"),
    "empty customer": (json.dumps({"tokens": [{**entry("a"), "customer": ""}]}), "customer must be"),
}


def test_a_bundle_never_grows() -> None:
    """With a new version, tokens can do no more than before; only `admin` gets the new scopes, but not `recover`."""
    actions = {scope: Token("a", "", frozenset({scope})).actions for scope in SCOPES}
    assert actions["read"] == {"server:read"}
    assert actions["operate"] == {
        *("server:power", "server:write", "server:create", "rcon:read", "files", "disk:erase"),
    }
    single = actions.keys() - {"read", "operate", "admin"}
    assert actions["admin"] == single - actions["read"] - actions["operate"] - {"recover"} | {"disk:erase"}
    assert all(actions[scope] == {scope} for scope in single)


def test_a_token_may_be_confined_to_servers(tmp_path: Path) -> None:
    """It sees only those ids, and only while they belong to its customer."""
    write(tmp_path / "t", entry("one", customer="acme", servers=[4711, 4712]), entry("two", servers=None))
    confined, other = (TokensFile(tmp_path / "t").caller(f"Bearer {name}") for name in ("one", "two"))
    assert confined.servers == frozenset({4711, 4712})
    assert [confined.may_see(customer, id) for customer, id in (("acme", 4711), ("other", 4711), ("acme", 1))] == [
        True,
        False,
        False,
    ]
    assert other.may_see("other", 1)


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_tokens_file_is_reported(case: str) -> None:
    """The message names the wrong entry and does not quote the file."""
    text, message = BROKEN[case]
    with pytest.raises(StartupError, match=message) as raised:
        parse(text, "tokens.json")
    assert SECRET not in str(raised.value)


def test_a_missing_tokens_file_stops_the_start(tmp_path: Path) -> None:
    """Otherwise every call would get 401."""
    with pytest.raises(StartupError, match="cannot be read"):
        TokensFile(tmp_path / "none")
