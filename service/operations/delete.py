"""Delete a server, and its disk if the caller says so."""

from __future__ import annotations

from service.access import Subject
from service.errors import ReleaseMissing
from service.kube.times import now
from service.operations.backups import erase_all
from service.operations.checks import require_not_suspended
from service.operations.context import Context, erase_disk
from service.operations.operation import RESTORES
from service.operations.restore import cancel_restore
from service.operations.visibility import require_server
from service.servers.spec import uid_of_claim
from service.servers.state import exists
from service.servers.waiting import waiting_operation
from service.tokens import Token


def delete(context: Context, caller: Token, id: int, *, erase: bool, erase_backups: bool = False) -> None:
    """Delete the server, and with `erase` its disk and the last lines of its log. This works on a kept disk too.

    With `erase_backups` the controller then deletes all its backups, locked ones too. Otherwise they stay for the
    operator's days.

    Raises:
        ServerNotFound: There is neither a server nor a kept disk, or the caller may not see it.
        MissingScope: With `erase`, the token lacks `disk:erase`; with `erase_backups`, `backup:create`.
        ReleaseMissing: The server exists, but someone has deleted its release.
        Suspended: The server is suspended, or was when it was deleted.
        OperationInProgress: A restore is putting a world into its place, which takes seconds. Not with `erase`: if the
            disk's node is lost, that would be for ever.
    """
    if erase:
        caller.require("disk:erase")
    if erase_backups:
        caller.require("backup:create")
    with context.releases.locked(id):
        # Check again under the Lease, because the id may belong to another customer by now.
        target = require_server(context, caller, id, Subject.REMAINS)
        objects = target.objects
        # A create could give the customer the world back.
        require_not_suspended(caller, target.suspended)
        live = objects.statefulset is not None and "deletionTimestamp" not in objects.statefulset["metadata"]
        if live and context.releases.current(id) is None:
            raise ReleaseMissing()
        waits = waiting_operation(objects)
        restoring = target.spec is not None and target.spec.restoring
        if target.uid is not None and (restoring or (waits is not None and waits.action in RESTORES)):
            cancel_restore(context, target.uid, erase=erase)
        # Before everything else, because a repeated DELETE that finds neither server nor disk would not get here.
        context.accounts.remove(id)
        uid = target.uid or uid_of_claim(objects.claim or {})
        if erase and uid is not None:
            context.kept_logs.remove(uid)
        if exists(objects):
            context.cluster.keep_disk(id, now())
            context.releases.uninstall(id)
        # Before the disk is erased, because a repeated DELETE that finds no disk would not get here.
        if erase_backups and uid is not None:
            erase_all(context, uid)
        if objects.claim is not None:
            # A claim that never had a volume is not worth keeping.
            erase_disk(context, id, unless_used=not erase)
