"""Suspend a server, so that its customer cannot use it, and end the suspension."""

from __future__ import annotations

from service.kube.times import now
from service.operations.checks import require_same_server
from service.operations.context import Context
from service.operations.visibility import Target
from service.servers import values
from service.servers.spec import Suspension

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
        before = require_same_server(target, current).suspended
        since = before.since if before and before.since else now()
        return values.suspended(current, Suspension(reason, since))

    with context.releases.locked(target.id, wait=WAIT_SECONDS):
        return context.releases.change(target.id, new_values, force_conflicts=True)


def unsuspend(context: Context, target: Target) -> bool:
    """End the server's suspension; a stopped server stays stopped.

    Returns:
        False if it was not suspended.

    Raises:
        ServerNotFound: The server is gone; there may be another one with its id.
    """

    def new_values(current: values.Values) -> values.Values:
        require_same_server(target, current)
        return values.unsuspended(current)

    return context.releases.change(target.id, new_values)
