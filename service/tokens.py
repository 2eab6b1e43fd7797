"""Bearer tokens: who calls, and what that token may do.

Only hashes are kept: by the operator in a file of this form, mostly within a Secret (tokenstore), or as it is.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service.configfile import json_of, nearest, text_of
from service.errors import MissingScope, StartupError, TokensNotKept, Unauthorized
from service.tokenformat import mistyped

log = logging.getLogger(__name__)

CUSTOMER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
CUSTOMER_WORDS = "1 to 63 letters, digits, dots, dashes or underscores, starting with a letter or digit"

# What came after the bundles is admin's alone: a token that was given out before can do no more than it could.
_LATER = (
    "server:suspend",
    "console:read",
    "console:write",
    "backup:read",
    "backup:create",
    "backup:restore",
    "schedule",
    "webhook",
    "token",
)
# What each scope allows. Those of an action alone come first; the last three are bundles of them.
_ACTIONS = (
    "server:read",
    "server:power",
    "server:write",
    "server:create",
    "server:delete",
    "rcon:read",
    "files",
    "disk:erase",
    *_LATER,
)
BUNDLES = {
    "read": frozenset({"server:read"}),
    # An operator may make a server anew over a kept disk, or erase that one; what deletes is admin's alone.
    "operate": frozenset({"server:power", "server:write", "server:create", "rcon:read", "files", "disk:erase"}),
    "admin": frozenset({"server:delete", "disk:erase", *_LATER}),
}
SCOPES = (*_ACTIONS, *BUNDLES)
_KEYS = ("name", "sha256", "scopes", "customer", "servers")
_BEARER = re.compile(r"[Bb][Ee][Aa][Rr][Ee][Rr] +([A-Za-z0-9._~+/-]+=*) *")


@dataclass(frozen=True)
class Token:
    """A caller; `customer` and `servers` are those it is confined to, or None for all."""

    name: str
    sha256: str
    scopes: frozenset[str]
    customer: str | None = None
    servers: frozenset[int] | None = None
    expires: datetime | None = None

    @property
    def actions(self) -> frozenset[str]:
        """The scopes with what their bundles hold."""
        return frozenset().union(*(BUNDLES.get(scope, {scope}) for scope in self.scopes))

    def reaches(self, id: int) -> bool:
        """Whether the server `id` can be any of this token's business, whosever it is."""
        return self.servers is None or id in self.servers

    def may_see(self, customer: str | None, id: int) -> bool:
        """Whether that customer's server `id` is any of this token's business."""
        return self.reaches(id) and (self.customer is None or self.customer == customer)

    def covers(self, other: Token) -> bool:
        """Whether this token may do, wherever it may, all that the other may; how long is not asked."""
        return (
            other.actions <= self.actions
            and self.customer in (None, other.customer)
            and (self.servers is None or (other.servers is not None and other.servers <= self.servers))
        )

    def valid_at(self, now: datetime) -> bool:
        """Whether the token has not expired."""
        return self.expires is None or now < self.expires

    def require(self, scope: str) -> None:
        """Raises MissingScope unless the token may do this."""
        if scope not in self.actions:
            raise MissingScope(f"This call needs the scope `{scope}`, which the token {self.name} lacks.")


def parse(text: str, source: str) -> tuple[Token, ...]:
    """The tokens of a tokens file; raises StartupError naming `source` and the entry that is wrong.

    No message repeats what the file says, as that may be a token in the clear.
    """
    document = json_of(source, text)
    entries = document.get("tokens") if isinstance(document, dict) and len(document) == 1 else None
    if not isinstance(entries, list):
        raise StartupError(f'{source}:1: must be {{"tokens": […]}} and nothing else')
    tokens = [token_of(entry, f"{source}: tokens[{number}]") for number, entry in enumerate(entries)]
    for number, token in enumerate(tokens):
        for earlier, other in enumerate(tokens[:number]):
            if token.name == other.name or token.sha256 == other.sha256:
                what = "name" if token.name == other.name else "sha256"
                raise StartupError(
                    f"{source}: tokens[{number}]: has the same {what} as tokens[{earlier}]; each token needs its own"
                )
    return tuple(tokens)


def token_of(entry: Any, where: str) -> Token:
    """The token of one entry; raises StartupError naming `where` and what is wrong, without a word of the entry."""
    shape = "must be an object with name, sha256, scopes and, optionally, customer and servers"
    if not isinstance(entry, dict):
        raise StartupError(f"{where}: {shape}")
    for key in sorted(entry.keys() - set(_KEYS)):
        meant = nearest(key, _KEYS)
        hint = f" (did you mean {meant}?)" if meant else ""
        raise StartupError(f"{where}: {shape}, and no other key{hint}")
    name, digest, scopes, customer, servers = (entry.get(key) for key in _KEYS)
    if not isinstance(name, str) or not name:
        raise StartupError(f"{where}: name must be a string that is not empty")
    if not isinstance(digest, str) or not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise StartupError(
            f"{where}: sha256 must be 64 lowercase hexadecimal digits: the hash of a token, never the token itself"
        )
    if digest == hashlib.sha256(b"").hexdigest():
        raise StartupError(f"{where}: sha256 is the hash of an empty string: the token was empty when it was hashed")
    if not isinstance(scopes, list) or not scopes or not all(scope in SCOPES for scope in scopes):
        raise StartupError(f"{where}: scopes must be a list of at least one of {', '.join(SCOPES)}")
    if customer is not None and not (isinstance(customer, str) and CUSTOMER.fullmatch(customer)):
        raise StartupError(f"{where}: customer must be null or {CUSTOMER_WORDS}")
    if servers is not None and not (isinstance(servers, list) and servers and all(_is_id(id) for id in servers)):
        raise StartupError(f"{where}: servers must be null or a list of server ids: whole numbers from 1")
    return Token(name, digest, frozenset(scopes), customer, None if servers is None else frozenset(servers))


def _is_id(value: Any) -> bool:
    return type(value) is int and value > 0


def digest_of(authorization: str | None) -> str:
    """The hash of the token in an Authorization header; raises Unauthorized where there is none that could be valid."""
    if not authorization:
        raise Unauthorized(headers={"WWW-Authenticate": "Bearer"})
    given = _BEARER.fullmatch(authorization)
    # That a checksum is wrong is known to whoever sends it, so it may be told by a quick answer.
    if given is None or mistyped(given[1]):
        raise _invalid()
    return hashlib.sha256(given[1].encode()).hexdigest()


def holder(tokens: Iterable[Token], digest: str) -> Token:
    """The token of that hash; raises Unauthorized where there is none, or it has expired."""
    # All are compared, in constant time each: the time taken tells nothing of how near a guess was.
    found = [token for token in tokens if hmac.compare_digest(token.sha256, digest)]
    if found and found[0].valid_at(datetime.now(UTC)):
        return found[0]
    raise _invalid()


def _invalid() -> Unauthorized:
    return Unauthorized(headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})


class TokensFile:
    """The tokens in a file, and no others. Safe to use from many threads."""

    def __init__(self, path: Path) -> None:
        """Read the file; raises StartupError if it cannot be used."""
        self._path = path
        self._lock = threading.Lock()
        self._stamp = self._changed()
        self._tokens = self._read()

    def caller(self, authorization: str | None) -> Token:
        """The token in an Authorization header; raises Unauthorized without a valid one."""
        return holder(self.operators(), digest_of(authorization))

    def operators(self) -> tuple[Token, ...]:
        """The tokens that the operator has given out."""
        stamp = self._changed()
        with self._lock:
            if stamp is not None and stamp != self._stamp:
                self._stamp = stamp
                try:
                    self._tokens = self._read()
                    log.info("reloaded the operator's tokens: %s", ", ".join(token.name for token in self._tokens))
                except StartupError:
                    # Locking everybody out over a slip of the pen helps nobody; the old tokens stay good.
                    log.exception("cannot use the changed tokens file; keeping the previous tokens")
            return self._tokens

    def issued(self) -> Mapping[str, str]:
        """None are given out, as there is nowhere to keep them; raises TokensNotKept."""
        raise TokensNotKept()

    def heard_of(self, key: str) -> bool:
        """Nothing was given out."""
        return False

    def change(self, change: object) -> None:
        """Raises TokensNotKept."""
        raise TokensNotKept()

    def _changed(self) -> tuple[int, int, int] | None:
        try:
            stat = self._path.stat()
        except OSError:
            return None
        return stat.st_ino, stat.st_mtime_ns, stat.st_size

    def _read(self) -> tuple[Token, ...]:
        return parse(text_of(self._path), str(self._path))
