"""Accepts a restore of a server's world from a backup, and its undo. The controller carries them out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from service.backups.records import Backup, Before, ServerBackups
from service.errors import (
    BackupNotFound,
    BackupNotUsable,
    InvalidRequest,
    NothingToUndo,
    OperationInProgress,
    ReleaseMissing,
    ServerNotFound,
)
from service.kube.times import stamp
from service.operations.checks import RESTORE_SECONDS, require_disk_stays, require_not_suspended
from service.operations.context import Context
from service.operations.operation import Operation, Server
from service.operations.visibility import Target
from service.operations.worlds import WAIT_SECONDS, accept_operation, at_work_with, earlier_operation, require_at_rest
from service.servers.spec import own_uid, spec_of_values, uid_of_values
from service.tokens import Token

MOST_PATHS = 100
MOST_PATH_BYTES = 8 * 1024
"""How long all paths may be together, as JSON: they stand several times in the records of the operation and the server,
each of which has 64 KiB."""
_LONGEST_PATH = 4096
_OWN_FOLDER = ".gameserver"
_WHY_NOT = {
    "queued": "The backup has not been made yet.",
    "running": "The backup is still being made.",
    "failed": "The backup has failed, so there is nothing to restore.",
    "cancelled": "The backup was cancelled, so there is nothing to restore.",
    "deleting": "The backup is being deleted.",
}


def restore(context: Context, caller: Token, target: Target, request: Mapping[str, Any], key: str | None) -> Operation:
    """Accept a restore of the server's world.

    Args:
        context: The operation's collaborators.
        caller: The caller.
        target: The server.
        request: `backup`, the backup's id; and `paths`, the files and folders to restore, all if there are none.
        key: The caller's Idempotency-Key; None if the call has none.

    Returns:
        The operation; with a key that this token has used before, the one that it got then.

    Raises:
        ServerNotFound: The server is gone; there may be another one with its id.
        ReleaseMissing: Someone has deleted its release.
        Suspended: The server is suspended.
        OperationInProgress: An operation is at work with its world.
        DiskBeingDeleted: The disk would not outlive the end of the game.
        BackupNotFound, BackupNotUsable: The server has no such backup, or it is not done.
        InvalidRequest: A path is not one that can be in a world.
        IdempotencyKeyReused, TooManyOperations: See `accept_operation`.
    """
    backup, paths = str(request["backup"]), list(request.get("paths") or ())
    asked = {"action": "restore", "server": target.id, "backup": backup, "paths": paths}
    if (earlier := earlier_operation(context, caller, key, asked)) is not None:
        return earlier
    check_paths(paths)
    with context.releases.locked(target.id, wait=WAIT_SECONDS):
        others = context.operations.all()
        server = _idle_server(context, caller, target, others)
        usable_backup(context.backups.of(server.uid), backup)
        argument = {"backup": backup, "paths": paths}
        return accept_operation(context, caller, key, "restore", server, argument, asked, others=others)


def undo_restore(
    context: Context, caller: Token, target: Target, request: Mapping[str, Any], key: str | None
) -> Operation:
    """Accept the undo of a restore: the world of before comes back, and the restored one is kept in its stead.

    Args:
        context, caller, target, key: As for `restore`.
        request: `restore`, the id of the restore (or of an undo); the latest by default.

    Raises:
        NothingToUndo: No world of before is kept, or not any more.
        ServerNotFound, ReleaseMissing, Suspended, OperationInProgress, IdempotencyKeyReused, TooManyOperations: As for
            `restore`.
    """
    wanted = request.get("restore")
    asked = {"action": "undo-restore", "server": target.id, "restore": wanted}
    if (earlier := earlier_operation(context, caller, key, asked)) is not None:
        return earlier
    with context.releases.locked(target.id, wait=WAIT_SECONDS):
        others = context.operations.all()
        server = _idle_server(context, caller, target, others)
        before = latest_before(context, context.backups.of(server.uid), wanted)
        argument = {"restore": before.operation}
        return accept_operation(context, caller, key, "undo-restore", server, argument, asked, others=others)


def usable_backup(kept: ServerBackups | None, id: str) -> Backup:
    """The backup with this id; raises BackupNotFound, or BackupNotUsable if it cannot be restored."""
    backup = None if kept is None else kept.backup(id)
    if backup is None:
        raise BackupNotFound
    if backup.state != "done":
        raise BackupNotUsable(_WHY_NOT.get(backup.state))
    return backup


def latest_before(context: Context, kept: ServerBackups | None, operation: str | None) -> Before:
    """The newest world of before that is still kept, or that of this operation; raises NothingToUndo."""
    oldest = stamp(datetime.now(UTC) - timedelta(days=context.settings.backup_undo_days))
    befores = [before for before in (kept.befores if kept else ()) if before.at >= oldest]
    found = [before for before in befores if operation in (None, before.operation)]
    if not found:
        raise NothingToUndo
    return found[-1]


def cancel_restore(context: Context, uid: str, *, erase: bool = False) -> None:
    """Cancel what is at work with the server's world, because the server goes. The calling thread must hold its Lease.

    With `erase` the disk goes too, so no world on it is worth waiting for.

    Raises:
        OperationInProgress: A world is on its way into its place. controller/placing.py writes that down before it
            begins it, under the Lease.
    """
    for operation in at_work_with(context.operations.all(), uid):
        if operation.work.get("placing") and not erase:
            raise OperationInProgress(
                f"The operation {operation.id} is putting a world into its place, which takes seconds.", retry_after=3
            )
        context.operations.cancel(operation)


def check_paths(paths: Sequence[str]) -> None:
    """Raises InvalidRequest unless all are relative paths that can be in a world, and not too many or too long."""
    if len(paths) > MOST_PATHS:
        raise InvalidRequest(errors={"paths": [f"must be at most {MOST_PATHS}"]})
    for path in paths:
        parts = path.split("/")
        if any(part in ("", ".", "..") for part in parts) or "\0" in path or len(path.encode()) > _LONGEST_PATH:
            raise InvalidRequest(errors={"paths": ["must be relative, such as world/region, without . and .."]})
        if parts[0] == _OWN_FOLDER:
            raise InvalidRequest(errors={"paths": [f"must not be in {_OWN_FOLDER}, which belongs to the service"]})
    if len(json.dumps(paths, ensure_ascii=False, separators=(",", ":")).encode()) > MOST_PATH_BYTES:
        raise InvalidRequest(errors={"paths": [f"must have at most {MOST_PATH_BYTES} bytes together; name folders"]})


def _idle_server(context: Context, caller: Token, target: Target, operations: Sequence[Operation]) -> Server:
    """The server, with which none of the operations is at work. The calling thread must hold its Lease."""
    current = context.releases.current(target.id)
    if current is None:
        raise ReleaseMissing
    if target.uid is None or uid_of_values(current) != own_uid(target.objects):
        raise ServerNotFound
    spec = spec_of_values(current)
    require_not_suspended(caller, spec.suspended)
    require_disk_stays(target.objects)
    require_at_rest(operations, target.uid, RESTORE_SECONDS)
    return Server(target.id, target.uid, spec.customer)
