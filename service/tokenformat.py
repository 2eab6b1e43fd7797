"""The format of the tokens that the API issues, which lets secret scanners find them. Pure.

It follows GitHub's format: a prefix, 30 random characters and their checksum, which rules out false positives.
https://github.blog/engineering/behind-githubs-new-authentication-token-formats/
"""

from __future__ import annotations

import re
import secrets
import string
import zlib

PREFIX = "gs_"
_DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase
_RANDOM, _CHECK = 30, 6
_SHAPE = re.compile(rf"{PREFIX}[0-9A-Za-z]{{{_RANDOM + _CHECK}}}")


def new_secret() -> str:
    """A new random token, with 178 bits of entropy."""
    text = "".join(secrets.choice(_DIGITS) for _ in range(_RANDOM))
    return f"{PREFIX}{text}{_checksum(text)}"


def looks_like_token(text: str) -> bool:
    """Whether the text has the format of such a token; the checksum may be wrong."""
    return _SHAPE.fullmatch(text) is not None


def is_mistyped(text: str) -> bool:
    """Whether the text has the format of such a token, but a wrong checksum; then no such token exists."""
    return looks_like_token(text) and text[-_CHECK:] != _checksum(text[len(PREFIX) : -_CHECK])


def _checksum(text: str) -> str:
    """The CRC-32 of `text` in base 62."""
    number, checksum = zlib.crc32(text.encode()), ""
    for _ in range(_CHECK):
        number, digit = divmod(number, len(_DIGITS))
        checksum = _DIGITS[digit] + checksum
    return checksum
