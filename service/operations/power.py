"""Start, stop and restart."""

from __future__ import annotations

from datetime import UTC, datetime

from service.operations.context import Context
from service.operations.visibility import Target
from service.servers import values
from service.servers.backoff import in_backoff
from service.servers.objects import Objects


def start(context: Context, target: Target) -> None:
    """See to it that the server runs; one that runs goes on running."""
    with context.releases.locked(target.id):
        ensure_running(context, context.cluster.server(target.id))


def stop(context: Context, target: Target) -> None:
    """Let the game save its world and end; one that is stopped stays so."""
    context.releases.change(target.id, lambda current: values.started(current, False))


def restart(context: Context, target: Target) -> None:
    """A new pod with all that it has to take; one that is stopped starts."""

    def restarted(current: values.Values) -> values.Values:
        return values.reachable(values.restarted(current, datetime.now(UTC)), context.settings.external_host)

    context.releases.change(target.id, restarted)


def ensure_running(context: Context, objects: Objects) -> None:
    """See to it that the server runs, under the Lease that this thread holds."""
    again = in_backoff(objects)

    def started(current: values.Values) -> values.Values:
        running = values.started(current, True)
        new = values.restarted(running, datetime.now(UTC)) if again else running
        return values.reachable(new, context.settings.external_host) if new != current else current

    context.releases.change(objects.id, started)
