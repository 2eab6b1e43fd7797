"""A backup that another operation needs, as an operation of its own: for a restore without room, or for a clone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace

from service.backups.records import Backup, ServerBackups, id_of
from service.operations.context import Context
from service.operations.operation import Operation, Server, new_operation

TRIGGERS = ("before-restore", "clone")


def needed_backup(context: Context, operation: Operation, server: Server, trigger: str) -> Backup:
    """The backup that the operation needs; it is asked for unless it has been.

    Args:
        context: The collaborators of the operations.
        operation: The operation that needs it, and whose maker asks for it.
        server: The server.
        trigger: One of TRIGGERS.
    """
    id = _id(operation)
    backup = Backup(id_of(id), operation.created, trigger=trigger, operation=id)
    kept = context.backups.of(server.uid)
    made = None if kept is None else kept.backup(backup.id)
    if made is not None and not made.unfinished:
        return made
    if (making := context.operations.get(id)) is not None:
        failed = making.ended and made is not None
        return replace(made or backup, state="failed", reason=making.reason) if failed else made or backup
    nothing = ServerBackups(server.uid, server.id, server.customer)
    context.backups.change(server.uid, lambda kept: _with(kept, backup), nothing)
    request = {"action": "backup", "server": server.id, "for": operation.id}
    argument = {"backup": backup.id, "trigger": trigger}
    asked = new_operation(operation.maker, None, "backup", "now", argument, request, [server])
    context.operations.create(replace(asked, id=id), [server])
    return backup


def is_needed(operation: Operation) -> bool:
    """Whether another operation waits for this one, which `needed_backup` has asked for."""
    return isinstance(operation.argument, Mapping) and operation.argument.get("trigger") in TRIGGERS


def cancel_needed(context: Context, operation: Operation) -> None:
    """Cancel the backup that the operation needs no more, if it is still being made."""
    making = context.operations.get(_id(operation))
    if making is not None and not making.ended:
        context.operations.cancel(making)


def _id(operation: Operation) -> str:
    return f"op-{hashlib.sha256(f'{operation.id} backup'.encode()).hexdigest()[:26]}"


def _with(kept: ServerBackups, backup: Backup) -> ServerBackups:
    return kept if kept.backup(backup.id) is not None else kept.with_backup(backup)
