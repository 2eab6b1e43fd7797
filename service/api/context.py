"""What the endpoints know of the present request."""

from __future__ import annotations

from flask import current_app, g

from service.operations.context import Context
from service.operations.visibility import Target
from service.tokens import Token


def context() -> Context:
    """What the operations work with."""
    found: Context = current_app.extensions["gameserver"]
    return found


def caller() -> Token:
    """Whose request it is."""
    token: Token = g.token
    return token


def note(**more: str) -> None:
    """Add to the audit line of the present request."""
    g.noted = {**g.get("noted", {}), **more}


def target() -> Target:
    """The server that the request's path names. The caller may see it: the gate has settled that."""
    found: Target = g.target
    return found
