"""Tokens that the API gives out: none may more than its maker, nor for longer."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from service.errors import LoginLinkGone, MissingScope, TokenExists, TokenNotFound, TooManyTokens
from service.kube.times import stamp
from service.operations.context import Context
from service.tokenformat import new_secret
from service.tokens import BUNDLES, Token
from service.tokenstore.records import (
    LINK,
    TOKEN,
    Issued,
    Records,
    all_of,
    hash_of,
    link_key,
    token_key,
    written,
)

MOST = 1000
"""Tokens and links together: their Secret holds 1 MiB."""
LOGIN = timedelta(hours=12)
"""For so long a token is valid that came from a link."""


def create(context: Context, maker: Token, request: Mapping[str, Any]) -> tuple[Issued, str]:
    """Give out a token: its record, and the token itself, which nobody is ever shown again.

    `request` is a loaded CreateToken. Raises MissingScope where it asks for more than the maker has, TokenExists and
    TooManyTokens.
    """
    name, now, secret = request["name"], datetime.now(UTC), new_secret()
    granted = _granted(maker, request["scopes"], request["customer"], request["servers"])
    expires = _expiry(maker, request["expires_in_s"], now)
    issued = Issued(replace(granted, name=name, sha256=hash_of(secret), expires=expires), stamp(now), maker.name)
    if any(token.name == name for token in context.tokens.operators()):
        raise TokenExists()

    def added(records: Records) -> dict[str, str | None]:
        gone = _expired(records, now)
        if token_key(name) in records.keys() - gone.keys():
            raise TokenExists()
        _check_room(records, gone)
        return {**gone, token_key(name): written(issued)}

    context.tokens.change(added)
    return issued, secret


def given_out(context: Context, caller: Token) -> list[Issued]:
    """The tokens within the caller's reach that the API has given out and that have not expired, by name."""
    now = datetime.now(UTC)
    found = [one for key, one in all_of(context.tokens.issued()).items() if key.startswith(TOKEN)]
    mine = [one for one in found if one.token.lives(now) and caller.covers(one.token)]
    return sorted(mine, key=lambda one: one.token.name)


def end(context: Context, caller: Token, name: str) -> None:
    """End a token, and the links that it has made; raises TokenNotFound unless it is within the caller's reach."""
    now = datetime.now(UTC)

    def ended(records: Records) -> dict[str, str | None]:
        known, gone = all_of(records), _expired(records, now)
        there = known.get(token_key(name))
        if there is None or token_key(name) in gone or not caller.covers(there.token):
            raise TokenNotFound()
        links = {key: None for key, one in known.items() if key.startswith(LINK) and one.made_by == name}
        return {**gone, **links, token_key(name): None}

    context.tokens.change(ended)


def login_link(context: Context, maker: Token, request: Mapping[str, Any]) -> tuple[str, datetime]:
    """Make a link that gives out a token for a customer once: its code, and until when it works.

    `request` is a loaded CreateLoginLink. Raises MissingScope where it asks for more than the maker has, and
    TooManyTokens.
    """
    now, code = datetime.now(UTC), secrets.token_urlsafe(32)
    scopes = request["scopes"] if request["scopes"] is not None else _usual(maker)
    granted = _granted(maker, scopes, request["customer"], request["servers"])
    expires = now + timedelta(minutes=request["minutes"])
    if maker.expires is not None:
        expires = min(expires, maker.expires)
    link = replace(granted, sha256=hash_of(code), expires=expires)
    text = written(Issued(link, stamp(now), maker.name, until=maker.expires))

    def added(records: Records) -> dict[str, str | None]:
        gone = _expired(records, now)
        _check_room(records, gone)
        return {**gone, link_key(code): text}

    context.tokens.change(added)
    return code, expires


def open_link(context: Context, code: str) -> tuple[Issued, str]:
    """Give out the token that a link was made for, and end the link; raises LoginLinkGone unless it works.

    Link and token change places in one write, so of two that open it at once one is late.
    """
    key, now, secret = link_key(code), datetime.now(UTC), new_secret()
    # Anybody may ask this, so what is no link costs Kubernetes nothing.
    if not context.tokens.heard_of(key):
        raise LoginLinkGone()
    name = f"login-{secrets.token_hex(6)}"
    given: list[Issued] = []

    def opened(records: Records) -> dict[str, str | None]:
        link = all_of({key: records[key]} if key in records else {}).get(key)
        if link is None or link.token.sha256 != hash_of(code) or not link.token.lives(now):
            raise LoginLinkGone()
        expires = min(now + LOGIN, link.until) if link.until else now + LOGIN
        token = replace(link.token, name=name, sha256=hash_of(secret), expires=expires)
        given[:] = [Issued(token, stamp(now), link.made_by)]
        return {key: None, token_key(name): written(given[0])}

    context.tokens.change(opened)
    return given[0], secret


def _granted(maker: Token, scopes: Collection[str], customer: str | None, servers: Collection[int] | None) -> Token:
    """What the maker can give of that, without name and hash; raises MissingScope naming what it cannot."""
    asked = Token(
        "",
        "",
        frozenset(scopes),
        maker.customer if customer is None else customer,
        maker.servers if servers is None else frozenset(servers),
    )
    if lacking := sorted(asked.actions - maker.actions):
        raise MissingScope(f"The token {maker.name} cannot grant scopes that it lacks itself: {', '.join(lacking)}.")
    if not maker.covers(asked):
        raise MissingScope(f"The token {maker.name} is confined, and cannot issue one for other customers or servers.")
    # A bundle may hold more one day, which is no reason that those who made it up of parts have more.
    parts = ({scope} if scope in maker.scopes else BUNDLES.get(scope, {scope}) for scope in asked.scopes)
    return replace(asked, scopes=frozenset().union(*parts))


def _usual(maker: Token) -> Collection[str]:
    """What a customer does with his servers, as far as the maker may."""
    allowed = (BUNDLES["read"] | BUNDLES["operate"]) & maker.actions
    if not allowed:
        raise MissingScope(f"The token {maker.name} has no scope of `read` or `operate` to grant.")
    held = [bundle for bundle in ("read", "operate") if bundle in maker.scopes]
    return {*held, *(allowed - frozenset().union(*(BUNDLES[bundle] for bundle in held)))}


def _expiry(maker: Token, seconds: int | None, now: datetime) -> datetime | None:
    if seconds is None:
        return maker.expires
    expires = now + timedelta(seconds=seconds)
    if maker.expires is not None and expires > maker.expires:
        raise MissingScope(f"The token {maker.name} expires before then, and cannot issue a token that outlives it.")
    return expires


def _expired(records: Records, now: datetime) -> dict[str, None]:
    return {key: None for key, one in all_of(records).items() if not one.token.lives(now)}


def _check_room(records: Records, gone: Collection[str]) -> None:
    if len(records) - len(gone) >= MOST:
        raise TooManyTokens()
