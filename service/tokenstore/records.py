"""The records of issued tokens and of login links, as text. Pure.

A record's key contains the token's name, or a part of the hash of the link's code. A record never contains a token or a
code, only its hash.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from service.configfile import json_of
from service.errors import StartupError
from service.kube.times import stamp
from service.records.secret import Records
from service.tokens import Token, token_of

TOKEN, LINK = "token.", "link."
"""The prefixes of the keys."""
_TIMES = ("expires", "created", "last_used", "until")


@dataclass(frozen=True)
class Issued:
    """The record of an issued token or of a login link.

    Attributes:
        token: The token. For a link, the token that it will give out, with the hash of the link's code.
        created: When the record was created, in RFC 3339.
        made_by: The name of the token that issued this one, or that made the link.
        last_used: When the token was last used, in RFC 3339 and rounded down to the hour; None before its first use.
        until: For a link, when the token that it gives out must expire at the latest; None for no limit.
    """

    token: Token
    created: str
    made_by: str
    last_used: str | None = None
    until: datetime | None = None


def token_key(name: str) -> str:
    """The key of a token's record."""
    return f"{TOKEN}{name}"


def link_key(code: str) -> str:
    """The key of a login link's record."""
    return f"{LINK}{hash_of(code)[:32]}"


def hash_of(secret: str) -> str:
    """The SHA-256 of a token or of a link's code, in hexadecimal digits."""
    return hashlib.sha256(secret.encode()).hexdigest()


def written(issued: Issued) -> str:
    """The text of a record."""
    token = issued.token
    fields = {
        "sha256": token.sha256,
        "scopes": sorted(token.scopes),
        "customer": token.customer,
        "servers": None if token.servers is None else sorted(token.servers),
        "expires": None if token.expires is None else stamp(token.expires),
        "created": issued.created,
        "made_by": issued.made_by,
        "last_used": issued.last_used,
        "until": None if issued.until is None else stamp(issued.until),
    }
    return json.dumps({key: value for key, value in fields.items() if value is not None}, separators=(",", ":"))


def read(key: str, text: str) -> Issued:
    """Parse a record; raises ValueError, whose message does not quote the text."""
    try:
        fields = json_of(key, text)
        if not isinstance(fields, dict):
            raise ValueError(f"{key} is not an object")
        expires, created, last_used, until = (_parse_time(key, fields.pop(name, None)) for name in _TIMES)
        made_by = str(fields.pop("made_by", ""))
        token = token_of({"name": key.partition(".")[2], **fields}, key)
    except (StartupError, RecursionError) as error:
        raise ValueError(str(error)) from error
    return Issued(
        replace(token, expires=expires),
        stamp(created) if created else "",
        made_by,
        stamp(last_used) if last_used else None,
        until,
    )


def all_of(records: Records, report: Callable[[str, str], None] = lambda key, error: None) -> dict[str, Issued]:
    """Parse the valid records, by key; calls `report(key, error)` for each invalid one."""
    issued = {}
    for key, text in records.items():
        if key.startswith((TOKEN, LINK)):
            try:
                issued[key] = read(key, text)
            except ValueError as error:
                report(key, str(error))
    return issued


def _parse_time(key: str, text: Any) -> datetime | None:
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        time = None
    if time is None or time.tzinfo is None:
        raise ValueError(f"{key} has an invalid time")
    return time
