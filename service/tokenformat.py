"""What the tokens look like that the API makes, so that scanners for secrets find them. Pure.

As GitHub's, https://github.blog/engineering/behind-githubs-new-authentication-token-formats/: a prefix, 30 random
characters and a checksum of them, which tells a token from what only looks like one.
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
    """A token that nobody has: 178 bits of chance."""
    text = "".join(secrets.choice(_DIGITS) for _ in range(_RANDOM))
    return f"{PREFIX}{text}{_checksum(text)}"


def looks_like_token(text: str) -> bool:
    """Whether the text has the shape of such a token, whatever its checksum."""
    return _SHAPE.fullmatch(text) is not None


def mistyped(text: str) -> bool:
    """Whether the text has the shape of such a token, and not its checksum: then it is nobody's."""
    return looks_like_token(text) and text[-_CHECK:] != _checksum(text[len(PREFIX) : -_CHECK])


def _checksum(text: str) -> str:
    number, found = zlib.crc32(text.encode()), ""
    for _ in range(_CHECK):
        number, digit = divmod(number, len(_DIGITS))
        found = _DIGITS[digit] + found
    return found
