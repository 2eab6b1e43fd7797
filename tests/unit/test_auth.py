"""Tokens: their file, their rotation, and who is let in."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from service.auth import Token, Tokens, parse
from service.errors import StartupError, Unauthorized


def entry(secret: str, **more: Any) -> dict[str, Any]:
    return {"name": secret, "sha256": hashlib.sha256(secret.encode()).hexdigest(), "scopes": ["read"], **more}


def write(path: Path, *entries: dict[str, Any]) -> None:
    path.write_text(json.dumps({"tokens": entries}))


def test_a_token_is_known_by_its_hash(tmp_path: Path) -> None:
    """Whatever the case of the scheme; anything else is nobody."""
    write(tmp_path / "t", entry("one"), entry("two", customer="acme", scopes=["read", "operate"]))
    tokens = Tokens(tmp_path / "t")
    assert tokens.caller("bearer two") == Token(
        "two", hashlib.sha256(b"two").hexdigest(), frozenset({"read", "operate"}), "acme"
    )
    for wrong in (None, "", "Bearer", "Bearer three", "Basic one", "Bearer one two", "Bearer " + "ä", "one"):
        with pytest.raises(Unauthorized) as raised:
            tokens.caller(wrong)
        assert raised.value.headers["WWW-Authenticate"].startswith("Bearer")


def test_each_token_is_compared_in_constant_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them, whichever it is, so that time tells neither how near a guess was nor which token it was."""
    write(tmp_path / "t", entry("one"), entry("two"), entry("three"))
    tokens, compared = Tokens(tmp_path / "t"), []

    def noted(one: str, other: str) -> bool:
        compared.append(one)
        return one == other

    monkeypatch.setattr("service.auth.hmac.compare_digest", noted)
    assert tokens.caller("Bearer one").name == "one"
    with pytest.raises(Unauthorized):
        tokens.caller("Bearer four")
    assert compared == [entry(name)["sha256"] for name in ("one", "two", "three")] * 2


def test_tokens_are_rotated_without_a_restart(tmp_path: Path) -> None:
    """As Kubernetes does it, a new file in the old one's place; a broken one leaves the old tokens good."""
    path = tmp_path / "t"
    write(path, entry("one"))
    tokens = Tokens(path)
    write(tmp_path / "new", entry("two"))
    (tmp_path / "new").replace(path)
    assert tokens.caller("Bearer two").name == "two"
    with pytest.raises(Unauthorized):
        tokens.caller("Bearer one")
    path.write_text("{")
    assert tokens.caller("Bearer two").name == "two"
    path.unlink()
    assert tokens.caller("Bearer two").name == "two"


BROKEN: dict[str, tuple[str, str]] = {
    "not json": ("{\n]", r"tokens\.json:2: is not JSON"),
    "no list": ("{}", 'must be {"tokens"'),
    "clear text": (json.dumps({"tokens": [{"name": "a", "token": "x"}]}), r"tokens\[0\]: must be an object with"),
    "short hash": (json.dumps({"tokens": [{**entry("a"), "sha256": "abc"}]}), r"tokens\[0\]: sha256 must be 64"),
    "no scope": (json.dumps({"tokens": [entry("a"), {**entry("b"), "scopes": []}]}), r"tokens\[1\]: scopes must be"),
    "unknown scope": (json.dumps({"tokens": [{**entry("a"), "scopes": ["root"]}]}), "scopes must be"),
    "no name": (json.dumps({"tokens": [{**entry("a"), "name": ""}]}), "name must be a text"),
    "empty customer": (json.dumps({"tokens": [{**entry("a"), "customer": ""}]}), "customer must be"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_tokens_file_is_named(case: str) -> None:
    """With the entry that is wrong, and nothing of its secret."""
    text, message = BROKEN[case]
    with pytest.raises(StartupError, match=message):
        parse(text, "tokens.json")


def test_a_missing_tokens_file_stops_the_start(tmp_path: Path) -> None:
    """Rather than answer everybody with 401."""
    with pytest.raises(StartupError, match="cannot be read"):
        Tokens(tmp_path / "none")
