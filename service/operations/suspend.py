"""Suspend a server, so that its customer cannot use it, and end the suspension."""

from __future__ import annotations

from service.errors import ServerNotFound
from service.kube.times import now
from service.operations.context import Context
from service.operations.visibility import Target
from service.servers import values
from service.servers.spec import Suspension, own_uid, spec_of_values, uid_of_values

WAIT_SECONDS = 10.0
"""How long a suspension waits for another operation on the server to end. A customer who sends one after the other must
not be able to keep it out."""


def suspend(context: Context, target: Target, reason: str) -> bool:
    """Stop the server and suspend it, in one write.

    Args:
        context: The operation's collaborators.
        target: The server.
        reason: What its customer is told. A suspended server gets the new reason, and stays suspended since the same
            time.

    Returns:
        False if the server was already stopped and suspended for this reason.

    Raises:
        ServerNotFound: The server is gone; there may be another one with its id.
    """

    def new_values(current: values.Values) -> values.Values:
        _require_same(target, current)
        before = spec_of_values(current).suspended
        since = before.since if before and before.since else now()
        return values.suspended(current, Suspension(reason, since))

    with context.releases.locked(target.id, wait=WAIT_SECONDS):
        return context.releases.change(target.id, new_values)


def unsuspend(context: Context, target: Target) -> bool:
    """End the server's suspension; a stopped server stays stopped.

    Returns:
        False if it was not suspended.

    Raises:
        ServerNotFound: The server is gone; there may be another one with its id.
    """

    def new_values(current: values.Values) -> values.Values:
        _require_same(target, current)
        return values.unsuspended(current)

    return context.releases.change(target.id, new_values)


def _require_same(target: Target, current: values.Values) -> None:
    """Raises ServerNotFound if the values are those of a later server with the id."""
    uid = own_uid(target.objects)
    if uid is not None and uid_of_values(current) != uid:
        raise ServerNotFound()
