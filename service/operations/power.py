"""Start, stop and restart a server."""

from __future__ import annotations

from datetime import UTC, datetime

from service.operations.checks import require_not_suspended
from service.operations.context import Context
from service.operations.visibility import Target
from service.servers import values
from service.servers.backoff import in_backoff
from service.servers.objects import Objects
from service.servers.spec import spec_of_values
from service.tokens import Token


def start(context: Context, caller: Token, target: Target) -> None:
    """Start the server; a running server keeps running. May raise Suspended."""
    with context.releases.locked(target.id):
        ensure_running(context, caller, context.cluster.server(target.id))


def stop(context: Context, target: Target) -> None:
    """Stop the server, after the game has saved its world; a stopped server stays stopped."""
    context.releases.change(target.id, lambda current: values.started(current, False))


def restart(context: Context, caller: Token, target: Target) -> None:
    """Restart the server with a new pod; a stopped server starts. May raise Suspended."""

    def new_values(current: values.Values) -> values.Values:
        require_not_suspended(caller, spec_of_values(current).suspended)
        return values.reachable(values.restarted(current, datetime.now(UTC)), context.settings.external_host)

    context.releases.change(target.id, new_values)


def ensure_running(context: Context, caller: Token, objects: Objects) -> None:
    """Start the server unless it is running. The calling thread must hold the server's Lease.

    If the server is in a back-off, it gets a new pod at once. May raise Suspended.
    """
    waits = in_backoff(objects)

    def new_values(current: values.Values) -> values.Values:
        require_not_suspended(caller, spec_of_values(current).suspended)
        running = values.started(current, True)
        new = values.restarted(running, datetime.now(UTC)) if waits else running
        return values.reachable(new, context.settings.external_host) if new != current else current

    context.releases.change(objects.id, new_values)
