"""Delete: the server goes, its disk stays unless it is to be erased."""

from __future__ import annotations

from service.access import Subject
from service.errors import ReleaseMissing
from service.kube.times import now
from service.operations.context import Context, erase_disk
from service.operations.visibility import require_server
from service.servers.state import exists
from service.tokens import Token


def delete(context: Context, caller: Token, id: int, *, erase: bool) -> None:
    """Remove the server, and with `erase` its disk; works on a kept disk too.

    Raises ServerNotFound where there is neither, or neither is the caller's, and ReleaseMissing of a server whose
    release something else has removed.
    """
    if erase:
        caller.require("disk:erase")
    with context.releases.locked(id):
        # Once more, under the Lease: by now it may be another customer's.
        objects = require_server(context, caller, id, Subject.REMAINS).objects
        lives = objects.statefulset is not None and "deletionTimestamp" not in objects.statefulset["metadata"]
        if lives and context.releases.current(id) is None:
            raise ReleaseMissing()
        # First of all, as a repeated DELETE that finds neither server nor disk would not come here again.
        context.accounts.remove(id)
        if exists(objects):
            context.cluster.keep_disk(id, now())
            context.releases.uninstall(id)
        if objects.claim is not None:
            # A disk that never was is no disk to keep.
            erase_disk(context, id, unless_used=not erase)
