"""Start, stop and restart a server."""

from __future__ import annotations

from datetime import UTC, datetime

from service.errors import DiskBeingDeleted
from service.operations.checks import (
    require_disk_stays,
    require_not_restoring,
    require_not_suspended,
    require_same_server,
)
from service.operations.console import with_console
from service.operations.context import Context
from service.operations.visibility import Target
from service.servers import values
from service.servers.accessors import deleted_at
from service.servers.backoff import in_backoff
from service.servers.disks import ends_with_pod
from service.servers.objects import Objects
from service.tokens import Token


def start(context: Context, caller: Token, target: Target) -> bool:
    """Start the server; a running server keeps running, which returns False.

    May raise Suspended, DiskBeingDeleted, OperationInProgress while its world is being restored, and ServerNotFound if
    it is gone.
    """
    with context.releases.locked(target.id):
        return ensure_running(context, caller, target, context.cluster.server(target.id))


def stop(context: Context, target: Target) -> bool:
    """Stop the server, after the game has saved its world; a stopped server stays stopped, which returns False.

    May raise DiskBeingDeleted, and ServerNotFound if it is gone, even if there is another one with its id.
    """

    def new_values(current: values.Values) -> values.Values:
        require_same_server(target, current)
        require_disk_stays(target.objects)
        return values.started(current, False)

    return context.releases.change(target.id, new_values, force_conflicts=True)


def restart(context: Context, caller: Token, target: Target, at: datetime | None = None) -> bool:
    """Restart the server with a new pod; a stopped server starts.

    May raise Suspended, DiskBeingDeleted, OperationInProgress while its world is being restored, and ServerNotFound if
    it is gone.

    Args:
        context: The operation's collaborators.
        caller: The caller.
        target: The server.
        at: When the restart was decided on; now by default. A server that has been restarted since is left alone, so
            whoever repeats a restart after a crash cannot restart the server twice.

    Returns:
        False if the server has been restarted since `at`.
    """

    def new_values(current: values.Values) -> values.Values:
        spec = require_same_server(target, current)
        require_not_suspended(caller, spec.suspended)
        require_not_restoring(spec)
        if at is not None and values.restarted_since(current, at):
            return current
        _require_disk(target.objects)
        return _for_a_new_pod(context, target.id, values.restarted(current, at or datetime.now(UTC)))

    return context.releases.change(target.id, new_values)


def ensure_running(context: Context, caller: Token, target: Target, objects: Objects) -> bool:
    """Start the server unless it is running, which returns False. The calling thread must hold the server's Lease.

    If the server is in a back-off, it gets a new pod at once. `objects` are what it has under the Lease. May raise the
    same as `start`.
    """
    waits = in_backoff(objects)

    def new_values(current: values.Values) -> values.Values:
        spec = require_same_server(target, current)
        require_not_suspended(caller, spec.suspended)
        require_not_restoring(spec)
        if waits or not ends_with_pod(objects.claim, objects.pod):
            _require_disk(objects)
        running = values.started(current, True)
        new = values.restarted(running, datetime.now(UTC)) if waits else running
        return _for_a_new_pod(context, target.id, new) if new != current else current

    return context.releases.change(target.id, new_values)


def _require_disk(objects: Objects) -> None:
    """Raises DiskBeingDeleted if a new pod would find no disk: its claim is being deleted."""
    if deleted_at(objects.claim):
        raise DiskBeingDeleted


def _for_a_new_pod(context: Context, id: int, new: values.Values) -> values.Values:
    """The values of a server that gets a new pod: what came since its create, and may not replace a pod, comes now."""
    return values.reachable(with_console(context, id, new), context.settings.external_host)
