"""What is written down of a token that the API has given out, and of a link that one comes from. Pure.

Each is a text by its key: of a token its name, of a link a part of its code's hash. Of both there are hashes alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from service.configfile import json_of
from service.errors import StartupError
from service.kube.times import stamp
from service.tokens import Token, token_of

TOKEN, LINK = "token.", "link."
_TIMES = ("expires", "created", "last_used", "until")

Records = Mapping[str, str]
Change = Callable[[Records], Mapping[str, str | None]]
"""From the records as they are: those to write, and None for each to remove."""


@dataclass(frozen=True)
class Issued:
    """A token that was given out, or what a link will give out: then its hash is that of the link's code.

    All times are RFC 3339; `last_used` is to the hour, None before the first use. What a link gives out does not
    outlive `until`.
    """

    token: Token
    created: str
    made_by: str
    last_used: str | None = None
    until: datetime | None = None


def token_key(name: str) -> str:
    """Where the record of a token is."""
    return f"{TOKEN}{name}"


def link_key(code: str) -> str:
    """Where the record of a link is."""
    return f"{LINK}{hash_of(code)[:32]}"


def hash_of(secret: str) -> str:
    """What is kept of a token, or of a link's code."""
    return hashlib.sha256(secret.encode()).hexdigest()


def written(issued: Issued) -> str:
    """The text of a record."""
    token = issued.token
    said = {
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
    return json.dumps({key: value for key, value in said.items() if value is not None}, separators=(",", ":"))


def read(key: str, text: str) -> Issued:
    """The record of this key; raises ValueError, without a word of what it says."""
    try:
        said = json_of(key, text)
        if not isinstance(said, dict):
            raise ValueError(f"{key} is not an object")
        expires, created, last_used, until = (_time(key, said.pop(name, None)) for name in _TIMES)
        made_by = str(said.pop("made_by", ""))
        token = token_of({"name": key.partition(".")[2], **said}, key)
    except (StartupError, RecursionError) as error:
        raise ValueError(str(error)) from error
    return Issued(
        replace(token, expires=expires),
        stamp(created) if created else "",
        made_by,
        stamp(last_used) if last_used else None,
        until,
    )


def all_of(records: Records, bad: Callable[[str, str], None] = lambda key, why: None) -> dict[str, Issued]:
    """The records that can be used, by key; of each other one `bad` is told its key, and what is wrong."""
    found = {}
    for key, text in records.items():
        if key.startswith((TOKEN, LINK)):
            try:
                found[key] = read(key, text)
            except ValueError as error:
                bad(key, str(error))
    return found


def _time(key: str, text: Any) -> datetime | None:
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        time = None
    if time is None or time.tzinfo is None:
        raise ValueError(f"{key} has an invalid time")
    return time
