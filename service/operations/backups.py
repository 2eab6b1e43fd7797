"""Make, show, rename, lock and delete backups: of a server, and of one that is gone. The controller does the work.

A backup is its customer's, whoever has its server's id now. So it is found by the server's uid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from service.backups import retention
from service.backups.records import MOST, Backup, BackupWatch, ServerBackups, id_of
from service.errors import (
    BackupLocked,
    BackupNotFound,
    BackupsNotPossible,
    ClusterUnavailable,
    DiskNotMade,
    InvalidRequest,
    OperationFailed,
    OperationInProgress,
    ReleaseMissing,
    ServerNotFound,
    TooManyBackups,
)
from service.kube.times import stamp
from service.operations.bulk import uid_of
from service.operations.checks import require_not_suspended, require_same_server
from service.operations.context import Context
from service.operations.operation import RESTORES, Operation, Server
from service.operations.visibility import Target, spec_of, suspension_of
from service.operations.worlds import (
    WAIT_SECONDS,
    accept_operation,
    earlier_operation,
    require_at_rest,
    restore_from,
)
from service.records.store import RecordTooLarge
from service.servers.accessors import is_bound
from service.servers.objects import Objects
from service.servers.spec import (
    ServerSpec,
    server_uid,
    suspension_of_claim,
    uid_of_claim,
    uid_of_values,
)
from service.tokens import Token

MOST_RECENT, RECENT = 2, timedelta(minutes=10)
"""So many backups of a server may be created within so long."""
BUSY_SECONDS = 30
"""When to try again what has to wait for a backup."""
SYNC_SECONDS = 3.0
"""How long to wait for the records of all servers, which are read when they are first needed."""
GAP_SECONDS = 3.0
"""For how long the watch of the records may be interrupted; the API server ends each now and then."""
STRAY = timedelta(minutes=1)
"""Nothing makes a backup that is older and has no operation: the process that accepted it has ended in between."""
_NOT_MADE = "Nothing makes it any more."


@dataclass(frozen=True)
class KeptBackup:
    """A backup, and what is kept of its server."""

    kept: ServerBackups
    backup: Backup


def make(
    context: Context,
    caller: Token,
    target: Target,
    request: Mapping[str, Any],
    key: str | None,
    trigger: str = "manual",
) -> Operation:
    """Accept a backup of the server's world.

    Args:
        context: The operation's collaborators.
        caller: The caller.
        target: The server.
        request: `name`, `note` and `locked` of the backup.
        key: The caller's Idempotency-Key; None if the call has none.
        trigger: `manual` or `schedule`.

    Returns:
        The operation; with a key that this token has used before, the one that it got then. Its `argument` has the
        backup's id.

    Raises:
        Suspended: The server is suspended.
        DiskNotMade: The server has no disk yet.
        BackupsNotPossible: There is no store, and its disk can have no snapshots.
        TooManyBackups: One is being made, or there are as many as there may be.
        OperationInProgress: Another operation is at work with the world.
        ServerNotFound: The server is gone; there may be another one with its id.
        ReleaseMissing: Someone has deleted its release.
        IdempotencyKeyReused, TooManyOperations: See `accept_operation`.
    """
    uid = uid_of(context, target.objects)
    wanted_request = {"action": "backup", "server": target.id, "uid": uid, **request}
    if (earlier := earlier_operation(context, caller, key, wanted_request)) is not None:
        return earlier
    require_not_suspended(caller, target.suspended)
    _require_possible(context, target.objects)
    # Under the Lease, as every restore: so nothing replaces the world between this check and the next one of it.
    with context.releases.locked(target.id, wait=WAIT_SECONDS):
        spec = _current_spec(context, caller, target, uid)

        def keep(operation: Operation, others: Sequence[Operation]) -> Operation:
            require_at_rest(others, uid, BUSY_SECONDS, RESTORES)
            fields = {name: request[name] for name in ("name", "note", "locked")}
            backup = Backup(id_of(operation.id), operation.created, operation=operation.id, trigger=trigger, **fields)
            rules = retention.rules(context.settings, spec.backup_keep)
            nothing = ServerBackups(uid, target.id, spec.customer, spec.game)
            try:
                context.backups.change(uid, lambda kept: _with(kept, backup, others, rules), nothing)
            except RecordTooLarge as error:
                raise _no_room() from error
            return replace(operation, argument={"backup": backup.id})

        server = Server(target.id, uid, spec.customer)
        return accept_operation(context, caller, key, "backup", server, {}, wanted_request, keep)


def of_server(context: Context, target: Target) -> ServerBackups:
    """What is kept of this server, read live."""
    uid = uid_of(context, target.objects)
    kept = context.backups.of(uid) if uid else None
    if kept is not None:
        return kept
    spec = target.spec
    return ServerBackups(uid, target.id, spec.customer if spec else "", spec.game if spec else "")


def of_target(context: Context, target: Target, id: str) -> KeptBackup:
    """A backup of this server, read live; raises BackupNotFound."""
    return _require_backup(of_server(context, target), id)


def find(context: Context, caller: Token, id: str) -> KeptBackup:
    """The backup with this id, of whichever server; raises BackupNotFound if the caller may not see it.

    One that was made moments ago, by another process, may not be known yet: see `heard_of`.
    """
    known = _watch(context).of_backup(id)
    if known is None or not may_see(context, caller, known):
        raise BackupNotFound
    kept = context.backups.of(known.uid)
    if kept is None:
        raise BackupNotFound
    return _require_backup(kept, id)


def heard_of(context: Context, id: str) -> bool:
    """Whether this process knows the backup; this sends no request."""
    return _watch(context).of_backup(id) is not None


def may_see(context: Context, caller: Token, kept: ServerBackups) -> bool:
    """Whether the caller may see the backups of this server, which may be gone."""
    if not caller.may_see(kept.customer, kept.id):
        return False
    if caller.servers is None or caller.customer is not None:
        return True
    # Another customer may have had a server with the same id.
    objects = context.cluster.known(kept.id)
    return objects is not None and server_uid(objects) == kept.uid


def page(
    context: Context,
    caller: Token,
    *,
    customer: str | None = None,
    server: int | None = None,
    uid: str | None = None,
    limit: int,
    after: str | None = None,
) -> tuple[list[ServerBackups], str | None]:
    """The backups of all servers that the caller may see, gone ones too, in the order of their uids.

    Args:
        context: The operation's collaborators.
        caller: The caller.
        customer, server, uid: If given, only those of this customer, of servers with this id, of the server with this
            uid. With `uid` they are read live, otherwise they are some moments old.
        limit: How many servers a page has at most.
        after: What the page before returned.

    Returns:
        The page, and what to pass as `after` for the next one; None after the last.
    """
    if uid is not None:
        one = context.backups.of(uid)
        servers = [] if one is None else [one]
    else:
        servers = [kept for kept in _watch(context).all() if after is None or kept.uid > after]
    wanted = [
        kept
        for kept in servers
        if customer in (None, kept.customer)
        and server in (None, kept.id)
        and kept.backups
        and may_see(context, caller, kept)
    ]
    return wanted[:limit], wanted[limit - 1].uid if len(wanted) > limit else None


def change(context: Context, caller: Token, kept: ServerBackups, id: str, request: Mapping[str, Any]) -> KeptBackup:
    """Change a backup's name, note or lock, or accept it; what the request does not name stays.

    Raises:
        InvalidRequest: There is nothing to accept, because the backup is not suspicious.
        Suspended: Its server is suspended.
        BackupNotFound: It is gone.
        OperationInProgress: It is being deleted.
    """
    require_owner_not_suspended(context, caller, kept)

    def changed(kept: ServerBackups) -> ServerBackups:
        backup = _require_backup(kept, id).backup
        if backup.state == "deleting":
            raise OperationInProgress("The backup is being deleted.")
        if request.get("accepted") and backup.suspicious is None:
            # Nobody accepts a backup that is still being made: what is in it is not known yet.
            raise InvalidRequest(errors={"accepted": ["can be true only of a backup that is suspicious"]})
        return kept.with_backup(replace(backup, **request))

    try:
        return _require_backup(context.backups.change(kept.uid, changed), id)
    except KeyError:
        raise BackupNotFound from None
    except RecordTooLarge as error:
        raise _no_room() from error


def delete(context: Context, caller: Token, kept: ServerBackups, id: str) -> Operation:
    """Accept the deletion of a backup.

    Returns:
        The operation; if it is being deleted already, the one that does it.

    Raises:
        Suspended: Its server is suspended.
        BackupNotFound: It is gone.
        BackupLocked: It is locked.
        OperationInProgress: It is still being made, or is on the node and is being restored or cloned.
        TooManyOperations: See `accept_operation`.
    """
    require_owner_not_suspended(context, caller, kept)
    backup = _require_backup(kept, id).backup
    if backup.state == "deleting" and backup.operation is not None:
        going = context.operations.get(backup.operation)
        if going is not None and not going.ended and going.action == "delete-backup":
            return going
    wanted_request = {"action": "delete-backup", "uid": kept.uid, "backup": id}

    def mark(operation: Operation, others: Sequence[Operation]) -> Operation:
        def marked(kept: ServerBackups) -> ServerBackups:
            current = _require_backup(settled(kept, others), id).backup
            if current.unfinished:
                raise OperationInProgress(
                    f"The backup is being made. Wait until the operation {current.operation} has ended, or cancel it.",
                    retry_after=BUSY_SECONDS,
                )
            if current.locked:
                raise BackupLocked
            # What is in the store stays there until the next prune, which waits for this.
            reading = restore_from(others, id) if current.where == "node" else None
            if reading is not None:
                raise OperationInProgress(
                    f"The operation {reading.id} ({reading.action}) reads the backup. Wait until it has ended, or "
                    "cancel it.",
                    retry_after=BUSY_SECONDS,
                )
            return kept.with_backup(replace(current, state="deleting", operation=operation.id))

        try:
            context.backups.change(kept.uid, marked)
        except KeyError:
            raise BackupNotFound from None
        return replace(operation, argument={"backup": id})

    server = Server(kept.id, kept.uid, kept.customer)
    return accept_operation(context, caller, None, "delete-backup", server, {}, wanted_request, mark)


def erase_all(context: Context, uid: str) -> None:
    """Ask the controller to delete all backups of a server, locked ones too, once the server is deleted."""
    if context.backups.of(uid) is not None:
        context.backups.change(uid, lambda kept: replace(kept, erase=True))


def require_owner_not_suspended(context: Context, caller: Token, kept: ServerBackups) -> None:
    """Raises Suspended if the backups' server is suspended, or was when it was deleted and its disk kept."""
    objects = context.cluster.server(kept.id)
    if server_uid(objects) == kept.uid:
        require_not_suspended(caller, suspension_of(objects, spec_of(context, objects)))
    elif objects.claim is not None and uid_of_claim(objects.claim) == kept.uid:
        require_not_suspended(caller, suspension_of_claim(objects.claim))


def _require_possible(context: Context, objects: Objects) -> None:
    """Raises DiskNotMade or BackupsNotPossible if there can be no backup of this server."""
    claim = objects.claim
    if claim is None or not is_bound(claim):
        raise DiskNotMade("The server has no disk yet, so there is no world. Its first start makes the disk.")
    if context.settings.backup_store is None and not context.cluster.disk_has_snapshots(claim):
        raise BackupsNotPossible


def _current_spec(context: Context, caller: Token, target: Target, uid: str) -> ServerSpec:
    """The server's spec now. The calling thread must hold its Lease."""
    current = context.releases.current(target.id)
    if current is None:
        raise ReleaseMissing
    spec = require_same_server(target, current)
    # Without a StatefulSet, `uid` is from the release as it was before the Lease.
    if not uid or uid_of_values(current) not in (None, uid):
        raise ServerNotFound
    require_not_suspended(caller, spec.suspended)
    return spec


def _with(
    kept: ServerBackups, backup: Backup, operations: Sequence[Operation], rules: retention.Rules
) -> ServerBackups:
    """What is kept with the new backup; raises TooManyBackups. A repeated call finds it there."""
    if kept.backup(backup.id) is not None:
        return kept
    kept = settled(kept, operations)
    if any(each.unfinished for each in kept.backups):
        raise TooManyBackups("A backup of this server is being made.", retry_after=BUSY_SECONDS)
    now = datetime.fromisoformat(backup.created)
    since = stamp(now - RECENT)
    recent = {each.id: each.created for each in kept.backups if each.trigger in ("manual", "schedule")}
    # One that was deleted since counts too, by its operation.
    recent |= {
        id_of(each.id): each.created
        for each in operations
        if each.action == "backup" and each.target is not None and each.target.uid == kept.uid
    }
    times = sorted(time for time in recent.values() if time > since)
    if len(times) >= MOST_RECENT:
        again = datetime.fromisoformat(times[-MOST_RECENT]) + RECENT - now
        raise TooManyBackups(
            f"A server has at most {MOST_RECENT} new backups in 10 minutes.", retry_after=int(again.total_seconds()) + 1
        )
    if retention.is_full(kept, rules):
        raise TooManyBackups(
            "The server has as many backups as it may, and all are locked. Unlock or delete one, or wait until none is "
            "being deleted."
        )
    if len(kept.backups) >= MOST:
        raise _no_room()
    return kept.with_backup(backup)


def settled(kept: ServerBackups, operations: Sequence[Operation]) -> ServerBackups:
    """What is kept; backups that no operation makes, because the process that made them has ended, have failed."""
    known = {operation.id for operation in operations}
    old = stamp(datetime.now(UTC) - STRAY)
    for backup in kept.backups:
        if backup.unfinished and backup.created < old and backup.operation not in known:
            kept = kept.with_backup(replace(backup, state="failed", reason=_NOT_MADE, finished=backup.created))
    return kept


def _no_room() -> TooManyBackups:
    return TooManyBackups("There is no room to remember more about this server's backups. Delete some of them.")


def _require_backup(kept: ServerBackups, id: str) -> KeptBackup:
    backup = kept.backup(id)
    if backup is None:
        raise BackupNotFound
    return KeptBackup(kept, backup)


def _watch(context: Context) -> BackupWatch:
    """All records in memory; raises ClusterUnavailable while they are not known, or out of date."""
    watch = context.backup_watch
    if watch is None:
        raise OperationFailed("This API has nowhere to keep records.")
    watch.start()
    if not watch.wait(SYNC_SECONDS):
        raise ClusterUnavailable("The backups are not known yet. Kubernetes has not answered.")
    if (lost := watch.lost_for()) > GAP_SECONDS:
        raise ClusterUnavailable(f"The backups have not been up to date for {round(lost)} seconds.")
    return watch
