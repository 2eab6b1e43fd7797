"""The format of the tokens that the API issues."""

from __future__ import annotations

import re

import pytest

from service.errors import Unauthorized
from service.tokenformat import is_mistyped, looks_like_token, new_secret
from service.tokens import digest_of


def test_a_token_has_a_prefix_and_a_checksum() -> None:
    """Secret scanners find it by these, and no two tokens are equal."""
    tokens = {new_secret() for _ in range(100)}
    assert len(tokens) == 100
    for token in tokens:
        assert re.fullmatch("gs_[0-9A-Za-z]{36}", token)
        assert looks_like_token(token)
        assert not is_mistyped(token)


def test_the_checksum_is_crc32_in_base62() -> None:
    """Scanners compute it so. The known CRC-32 of `123456789` is 0xCBF43926."""
    from service.tokenformat import _checksum

    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    number = 0
    for digit in _checksum("123456789"):
        number = number * 62 + digits.index(digit)
    assert number == 0xCBF43926


def test_one_wrong_character_is_noticed() -> None:
    """It is refused before any hash is compared. Operators' tokens may have another format."""
    token = new_secret()
    for at in range(3, len(token)):
        other = token[:at] + ("a" if token[at] != "a" else "b") + token[at + 1 :]
        assert is_mistyped(other), at
        with pytest.raises(Unauthorized):
            digest_of(f"Bearer {other}")
    for other in ("", "gs_", "gs_mine", token + "x", token[:-1], "shop-secret"):
        assert not is_mistyped(other)
        assert not looks_like_token(other)
