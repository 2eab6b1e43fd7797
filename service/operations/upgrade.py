"""Bring a server to the chart that came with this API."""

from __future__ import annotations

from service.errors import ReleaseMissing
from service.operations.checks import require_disk_stays, require_not_suspended, require_same_server
from service.operations.context import Context
from service.operations.visibility import Target
from service.tokens import Token


def upgrade(context: Context, caller: Token, target: Target) -> bool:
    """Bring the server to today's chart, which its next start would do too. A running game restarts if its pod changes.

    Returns False if it has that chart already. May raise Suspended, DiskBeingDeleted, and ServerNotFound if the server
    is gone, even if there is another one with its id.
    """
    with context.releases.locked(target.id):
        current = context.releases.current(target.id)
        if current is None:
            raise ReleaseMissing
        require_not_suspended(caller, require_same_server(target, current).suspended)
        require_disk_stays(target.objects)
        return context.releases.upgrade(target.id)
