"""Bearer tokens: what a token may do, and the operator's file of tokens.

The file holds only hashes. Usually it is part of a Secret (see tokenstore); TokensFile reads it from disk.
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
from service.tokenformat import is_mistyped

log = logging.getLogger(__name__)

CUSTOMER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
CUSTOMER_WORDS = "1 to 63 letters, digits, dots, dashes or underscores, starting with a letter or digit"

# Scopes that are newer than the bundles belong to `admin` only, so that older tokens cannot do more than before.
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
# The scopes of single actions; BUNDLES combine them.
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
    # In no bundle: who has it installs any values.
    "recover",
)
BUNDLES = {
    "read": frozenset({"server:read"}),
    # `operate` may create a server again over a kept disk, or erase that disk; only `admin` may delete servers.
    "operate": frozenset({"server:power", "server:write", "server:create", "rcon:read", "files", "disk:erase"}),
    "admin": frozenset({"server:delete", "disk:erase", *_LATER}),
}
SCOPES = (*_ACTIONS, *BUNDLES)
_KEYS = ("name", "sha256", "scopes", "customer", "servers")
_BEARER = re.compile(r"[Bb][Ee][Aa][Rr][Ee][Rr] +([A-Za-z0-9._~+/-]+=*) *")


@dataclass(frozen=True)
class Token:
    """A token.

    Attributes:
        name: For logs.
        sha256: The hash of the token itself, in lowercase hexadecimal digits.
        scopes: Scopes and bundles, out of SCOPES.
        customer: The customer to whose servers the token is confined, or None.
        servers: The ids of the servers to which the token is confined, or None.
        expires: When the token stops working, or None.
    """

    name: str
    sha256: str
    scopes: frozenset[str]
    customer: str | None = None
    servers: frozenset[int] | None = None
    expires: datetime | None = None

    @property
    def actions(self) -> frozenset[str]:
        """The scopes, with bundles replaced by the scopes in them."""
        return frozenset().union(*(BUNDLES.get(scope, {scope}) for scope in self.scopes))

    @property
    def confined(self) -> bool:
        """Whether there are servers that the token may not see."""
        return self.customer is not None or self.servers is not None

    @property
    def share(self) -> str:
        """Whose part of what there is the token uses up: its customer's, or its own."""
        return f"token {self.name}" if self.customer is None else f"customer {self.customer}"

    def reaches(self, id: int) -> bool:
        """Whether the token may see the server `id` if it belongs to the right customer."""
        return self.servers is None or id in self.servers

    def may_see(self, customer: str | None, id: int) -> bool:
        """Whether the token may see the server `id` of this customer."""
        return self.reaches(id) and (self.customer is None or self.customer == customer)

    def covers(self, other: Token) -> bool:
        """Whether this token may do everything that `other` may do, regardless of when they expire."""
        return (
            other.actions <= self.actions
            and self.customer in (None, other.customer)
            and (self.servers is None or (other.servers is not None and other.servers <= self.servers))
        )

    def valid_at(self, now: datetime) -> bool:
        """Whether the token has not expired at `now`."""
        return self.expires is None or now < self.expires

    def require(self, scope: str) -> None:
        """Raises MissingScope unless the token has the scope."""
        if scope not in self.actions:
            raise MissingScope(f"This call needs the scope `{scope}`, which the token {self.name} lacks.")


def parse(text: str, source: str) -> tuple[Token, ...]:
    """Parse a file of tokens.

    Args:
        text: The text of the file.
        source: Where it comes from, for the message.

    Raises:
        StartupError: The file is invalid; the message names the entry. It does not quote the file, which may contain
            a token in the clear by mistake.
    """
    document = json_of(source, text)
    entries = document.get("tokens") if isinstance(document, dict) and len(document) == 1 else None
    if not isinstance(entries, list):
        raise StartupError(f'{source}:1: must be {{"tokens": […]}} and nothing else')
    tokens = [token_of(entry, f"{source}: tokens[{number}]") for number, entry in enumerate(entries)]
    for number, token in enumerate(tokens):
        for earlier, other in enumerate(tokens[:number]):
            if token.name == other.name or token.sha256 == other.sha256:
                key = "name" if token.name == other.name else "sha256"
                raise StartupError(
                    f"{source}: tokens[{number}]: has the same {key} as tokens[{earlier}]; each token needs its own"
                )
    return tuple(tokens)


def token_of(entry: Any, source: str) -> Token:
    """The token of one entry; raises StartupError, which names `source` and the mistake but never quotes the entry."""
    shape = "must be an object with name, sha256, scopes and, optionally, customer and servers"
    if not isinstance(entry, dict):
        raise StartupError(f"{source}: {shape}")
    for key in sorted(entry.keys() - set(_KEYS)):
        suggestion = nearest(key, _KEYS)
        hint = f" (did you mean {suggestion}?)" if suggestion else ""
        raise StartupError(f"{source}: {shape}, and no other key{hint}")
    name, digest, scopes, customer, servers = (entry.get(key) for key in _KEYS)
    if not isinstance(name, str) or not name:
        raise StartupError(f"{source}: name must be a string that is not empty")
    if not isinstance(digest, str) or not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise StartupError(
            f"{source}: sha256 must be 64 lowercase hexadecimal digits: the hash of a token, never the token itself"
        )
    if digest == hashlib.sha256(b"").hexdigest():
        raise StartupError(f"{source}: sha256 is the hash of an empty string: the token was empty when it was hashed")
    if not isinstance(scopes, list) or not scopes or not all(scope in SCOPES for scope in scopes):
        raise StartupError(f"{source}: scopes must be a list of at least one of {', '.join(SCOPES)}")
    if customer is not None and not (isinstance(customer, str) and CUSTOMER.fullmatch(customer)):
        raise StartupError(f"{source}: customer must be null or {CUSTOMER_WORDS}")
    if servers is not None and not (isinstance(servers, list) and servers and all(_is_id(id) for id in servers)):
        raise StartupError(f"{source}: servers must be null or a list of server ids: whole numbers from 1")
    return Token(name, digest, frozenset(scopes), customer, None if servers is None else frozenset(servers))


def _is_id(value: Any) -> bool:
    return type(value) is int and value > 0


def digest_of(authorization: str | None) -> str:
    """The hash of the token in an Authorization header; raises Unauthorized if there is none that could be valid."""
    if not authorization:
        raise Unauthorized(headers={"WWW-Authenticate": "Bearer"})
    bearer = _BEARER.fullmatch(authorization)
    # Anyone can check the checksum, so a quick answer to a wrong one reveals nothing.
    if bearer is None or is_mistyped(bearer[1]):
        raise _invalid()
    return hashlib.sha256(bearer[1].encode()).hexdigest()


def holder(tokens: Iterable[Token], digest: str) -> Token:
    """The token with this hash; raises Unauthorized if there is none or it has expired."""
    # Compare every token in constant time, so that the duration does not reveal how close a guess is.
    matches = [token for token in tokens if hmac.compare_digest(token.sha256, digest)]
    if matches and matches[0].valid_at(datetime.now(UTC)):
        return matches[0]
    raise _invalid()


def _invalid() -> Unauthorized:
    return Unauthorized(headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})


class TokensFile:
    """Tokens from a file; it issues none. Safe to use from many threads."""

    def __init__(self, path: Path) -> None:
        """Read the file; raises StartupError if it is missing or invalid."""
        self._path = path
        self._lock = threading.Lock()
        self._stamp = self._read_stamp()
        self._tokens = self._read()

    def caller(self, authorization: str | None) -> Token:
        """The token in an Authorization header; raises Unauthorized without a valid one."""
        return holder(self.operators(), digest_of(authorization))

    def operators(self) -> tuple[Token, ...]:
        """The operator's tokens, read again if the file has changed."""
        stamp = self._read_stamp()
        with self._lock:
            if stamp is not None and stamp != self._stamp:
                self._stamp = stamp
                try:
                    self._tokens = self._read()
                    log.info("reloaded the operator's tokens: %s", ", ".join(token.name for token in self._tokens))
                except StartupError:
                    # A mistake in the file must not lock everyone out, so the old tokens stay valid.
                    log.exception("cannot use the changed tokens file; keeping the previous tokens")
            return self._tokens

    def issued(self) -> Mapping[str, str]:
        """Raises TokensNotKept, because there is nowhere to keep issued tokens."""
        raise TokensNotKept()

    def heard_of(self, key: str) -> bool:
        """Always False, because no tokens are issued."""
        return False

    def change(self, change: object) -> None:
        """Raises TokensNotKept."""
        raise TokensNotKept()

    def _read_stamp(self) -> tuple[int, int, int] | None:
        try:
            stat = self._path.stat()
        except OSError:
            return None
        return stat.st_ino, stat.st_mtime_ns, stat.st_size

    def _read(self) -> tuple[Token, ...]:
        return parse(text_of(self._path), str(self._path))
