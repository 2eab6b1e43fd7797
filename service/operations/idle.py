"""Stop a server because nobody plays on it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from service.operations.context import Context
from service.servers import values
from service.servers.disks import ends_with_pod
from service.servers.objects import Objects
from service.servers.spec import ServerSpec, server_uid


def can_be_asked(context: Context, spec: ServerSpec | None) -> bool:
    """Whether the server's game can be asked for its players."""
    game = context.games.get(spec.game) if spec else None
    return game is not None and game.query is not None


def stop_idle(context: Context, id: int, uid: str, confirm: Callable[[Objects], bool], now: datetime) -> bool:
    """Stop the server, as `power.stop`, and record that nobody played on it.

    Args:
        context: The operation's collaborators.
        id: The server's id.
        uid: The server's uid; a server that has the id since then is left alone.
        confirm: Takes the server's objects, under its Lease, and returns whether still nobody plays.
        now: The current time.

    Returns:
        Whether this call has stopped it. A server whose disk would not outlive that is left alone.

    Raises:
        ServerNotFound: There is no such server.
    """
    with context.releases.locked(id):
        objects = context.cluster.server(id)
        if server_uid(objects) != uid or ends_with_pod(objects.claim, objects.pod) or not confirm(objects):
            return False
        return context.releases.change(
            id,
            lambda current: values.idle_stopped(current, now) if values.runs(current) else current,
            force_conflicts=True,
        )
