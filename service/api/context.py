"""What the endpoints know about the current request."""

from __future__ import annotations

from flask import current_app, g, request

from service.operations.context import Context
from service.operations.visibility import Target
from service.tokens import Token


def context() -> Context:
    """The context that every operation takes as its first argument."""
    context: Context = current_app.extensions["gameserver"]
    return context


def caller() -> Token:
    """The token that the request was sent with."""
    token: Token = g.token
    return token


def caller_again(scope: str) -> Token:
    """The token of a request that has waited, asked for again: its rights may have changed meanwhile.

    Raises:
        Unauthorized: It was revoked or has expired.
        MissingScope: It lacks the scope now.
    """
    token: Token = context().tokens.caller(request.headers.get("Authorization"))
    token.require(scope)
    g.token = token
    return token


def note(**more: str) -> None:
    """Add fields to the audit line of the current request."""
    g.audit_fields = {**g.get("audit_fields", {}), **more}


def target() -> Target:
    """The server that the request's path names; `web/hooks.py` has checked that the caller may see it."""
    target: Target = g.target
    return target
