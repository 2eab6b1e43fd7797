"""Issue, list and revoke tokens, and create and open login links.

No token may do more than the token that issued it, nor last longer.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from service.errors import LoginLinkGone, MissingScope, TokenExists, TokenNotFound, TooManyTokens
from service.kube.times import stamp
from service.operations.context import Context
from service.records.secret import Records
from service.tokenformat import new_secret
from service.tokens import BUNDLES, Token
from service.tokenstore.records import (
    LINK,
    TOKEN,
    Issued,
    all_of,
    hash_of,
    link_key,
    token_key,
    written,
)

MAX_RECORDS = 1000
"""How many tokens and login links there may be, together; their Secret holds at most 1 MiB."""
LOGIN_DURATION = timedelta(hours=12)
"""How long a token from a login link is valid."""
LOGIN = "login-"
"""What the name of such a token begins with."""


def create(context: Context, maker: Token, request: Mapping[str, Any]) -> tuple[Issued, str]:
    """Issue a token.

    Args:
        context: The operation's collaborators.
        maker: The caller; the new token may do no more than this one.
        request: A loaded CreateToken.

    Returns:
        The new token's record, and the token itself, which is not kept anywhere.

    Raises:
        MissingScope: The request asks for more than `maker` may do.
        TokenExists: The name is taken.
        TooManyTokens: There is no room for another record.
    """
    name, now, secret = request["name"], datetime.now(UTC), new_secret()
    granted = _grant(maker, request["scopes"], request["customer"], request["servers"])
    expires = _expiry(maker, request["expires_in_s"], now)
    issued = Issued(replace(granted, name=name, sha256=hash_of(secret), expires=expires), stamp(now), maker.name)
    if any(token.name == name for token in context.tokens.operators()):
        raise TokenExists()

    def add_token(records: Records) -> dict[str, str | None]:
        expired = _remove_expired(records, now)
        if token_key(name) in records.keys() - expired.keys():
            raise TokenExists()
        _check_room(records, expired)
        return {**expired, token_key(name): written(issued)}

    context.tokens.change(add_token)
    return issued, secret


def list_issued(context: Context, caller: Token) -> list[Issued]:
    """The issued tokens that the caller covers and that have not expired, by name."""
    now = datetime.now(UTC)
    issued = [record for key, record in all_of(context.tokens.issued()).items() if key.startswith(TOKEN)]
    covered = [record for record in issued if record.token.valid_at(now) and caller.covers(record.token)]
    return sorted(covered, key=lambda record: record.token.name)


def revoke(context: Context, caller: Token, name: str) -> None:
    """Revoke a token and the login links that it made; raises TokenNotFound unless the caller covers it."""
    now = datetime.now(UTC)

    def remove_token(records: Records) -> dict[str, str | None]:
        known, expired = all_of(records), _remove_expired(records, now)
        record = known.get(token_key(name))
        if record is None or token_key(name) in expired or not caller.covers(record.token):
            raise TokenNotFound()
        links = {key: None for key, record in known.items() if key.startswith(LINK) and record.made_by == name}
        return {**expired, **links, token_key(name): None}

    context.tokens.change(remove_token)


def create_login_link(context: Context, maker: Token, request: Mapping[str, Any]) -> tuple[str, datetime]:
    """Make a link that gives out a token for a customer once.

    Args:
        context: The operation's collaborators.
        maker: The caller; the link's token may do no more than this one.
        request: A loaded CreateLoginLink.

    Returns:
        The link's code, and until when it can be opened.

    Raises:
        MissingScope: The request asks for more than `maker` may do.
        TooManyTokens: There is no room for another record.
    """
    now, code = datetime.now(UTC), secrets.token_urlsafe(32)
    scopes = request["scopes"] if request["scopes"] is not None else _default_scopes(maker)
    granted = _grant(maker, scopes, request["customer"], request["servers"])
    expires = now + timedelta(minutes=request["minutes"])
    if maker.expires is not None:
        expires = min(expires, maker.expires)
    link = replace(granted, sha256=hash_of(code), expires=expires)
    text = written(Issued(link, stamp(now), maker.name, until=maker.expires))

    def add_link(records: Records) -> dict[str, str | None]:
        expired = _remove_expired(records, now)
        _check_room(records, expired)
        return {**expired, link_key(code): text}

    context.tokens.change(add_link)
    return code, expires


def open_login_link(context: Context, code: str) -> tuple[Issued, str]:
    """Issue the token that a login link promises, and remove the link.

    One write replaces the link by the token, so of two clients that open it at the same time, one gets nothing.

    Returns:
        The new token's record, and the token itself.

    Raises:
        LoginLinkGone: The link was opened before, has expired or never existed.
    """
    key, now, secret = link_key(code), datetime.now(UTC), new_secret()
    # Anyone may call this, so an invalid link must not cost a request to Kubernetes.
    if not context.tokens.heard_of(key):
        raise LoginLinkGone()
    name = f"{LOGIN}{secrets.token_hex(6)}"
    issued: list[Issued] = []

    def replace_link(records: Records) -> dict[str, str | None]:
        link = all_of({key: records[key]} if key in records else {}).get(key)
        if link is None or link.token.sha256 != hash_of(code) or not link.token.valid_at(now):
            raise LoginLinkGone()
        expires = min(now + LOGIN_DURATION, link.until) if link.until else now + LOGIN_DURATION
        token = replace(link.token, name=name, sha256=hash_of(secret), expires=expires)
        # This function may run more than once; only its last result counts.
        issued[:] = [Issued(token, stamp(now), link.made_by)]
        return {key: None, token_key(name): written(issued[0])}

    context.tokens.change(replace_link)
    return issued[0], secret


def _grant(maker: Token, scopes: Collection[str], customer: str | None, servers: Collection[int] | None) -> Token:
    """A token with these rights, without name and hash; raises MissingScope if `maker` cannot grant them."""
    token = Token(
        "",
        "",
        frozenset(scopes),
        maker.customer if customer is None else customer,
        maker.servers if servers is None else frozenset(servers),
    )
    if lacking := sorted(token.actions - maker.actions):
        raise MissingScope(f"The token {maker.name} cannot grant scopes that it lacks itself: {', '.join(lacking)}.")
    if not maker.covers(token):
        raise MissingScope(f"The token {maker.name} is confined, and cannot issue one for other customers or servers.")
    # A later version may add scopes to a bundle. A maker that has only the parts of a bundle must not grant those.
    parts = ({scope} if scope in maker.scopes else BUNDLES.get(scope, {scope}) for scope in token.scopes)
    return replace(token, scopes=frozenset().union(*parts))


def _default_scopes(maker: Token) -> Collection[str]:
    """The scopes that a customer needs (`read` and `operate`), as far as `maker` has them."""
    allowed = (BUNDLES["read"] | BUNDLES["operate"]) & maker.actions
    if not allowed:
        raise MissingScope(f"The token {maker.name} has no scope of `read` or `operate` to grant.")
    bundles = [bundle for bundle in ("read", "operate") if bundle in maker.scopes]
    return {*bundles, *(allowed - frozenset().union(*(BUNDLES[bundle] for bundle in bundles)))}


def _expiry(maker: Token, seconds: int | None, now: datetime) -> datetime | None:
    """When a token of `maker` expires that is to last for `seconds`; raises MissingScope if it would outlive it."""
    if seconds is None:
        return maker.expires
    expires = now + timedelta(seconds=seconds)
    if maker.expires is not None and expires > maker.expires:
        raise MissingScope(f"The token {maker.name} expires before then, and cannot issue a token that outlives it.")
    return expires


def _remove_expired(records: Records, now: datetime) -> dict[str, None]:
    """The removal of every record that has expired."""
    return {key: None for key, record in all_of(records).items() if not record.token.valid_at(now)}


def _check_room(records: Records, expired: Collection[str]) -> None:
    """Raises TooManyTokens unless there is room for another record, once the expired ones are removed."""
    if len(records) - len(expired) >= MAX_RECORDS:
        raise TooManyTokens()
