"""Accepts an operation on one server's world: a backup, a restore, a clone. The controller carries it out."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any

from service.errors import IdempotencyKeyReused, OperationInProgress, TooManyOperations
from service.operations.context import Context
from service.operations.operation import RESTORES, WORLD_ACTIONS, Operation, Server, digest, id_of_key, new_operation
from service.tokens import Token

MOST_UNFINISHED = 2_000
"""Operations on worlds that have not ended."""
WAIT_SECONDS = 10.0
"""How long a call waits for the server's Lease."""


def at_work_with(operations: Iterable[Operation], uid: str) -> list[Operation]:
    """Those of the operations that are at work with the world of the server with this uid, or will be."""
    return [each for each in operations if each.target is not None and each.target.uid == uid and not each.ended]


def servers_of(operation: Operation) -> set[str]:
    """The uids of the servers whose worlds or backups the operation is at work with: a clone has two."""
    uids = set() if operation.target is None else {operation.target.uid}
    return uids | {str(operation.argument["from"]["uid"])} if operation.action == "clone" else uids


def restore_from(operations: Iterable[Operation], backup: str) -> Operation | None:
    """The restore or clone from the backup with this id that has not ended; None if there is none."""
    for each in operations:
        if each.action in RESTORES and not each.ended:
            source = each.argument["from"] if each.action == "clone" else each.argument
            if source.get("backup") == backup:
                return each
    return None


def require_at_rest(
    operations: Iterable[Operation], uid: str, retry_after: int, actions: Container[str] = WORLD_ACTIONS
) -> None:
    """Raises OperationInProgress, which names it, if one of these actions is at work with the world of the server.

    Asked under the server's Lease, as every backup, restore, undo and clone does, no two that exclude each other can be
    accepted at once.
    """
    for operation in at_work_with(operations, uid):
        if operation.action in actions:
            raise OperationInProgress(
                f"The operation {operation.id} ({operation.action}) is at work with the server's world. Try again when "
                "it has ended.",
                retry_after=retry_after,
            )


def earlier_operation(context: Context, caller: Token, key: str | None, request: Mapping[str, Any]) -> Operation | None:
    """The operation that was accepted with this Idempotency-Key; None if there is none.

    Raises IdempotencyKeyReused if the key was used for something else.
    """
    earlier = None if key is None else context.operations.get(id_of_key(caller, key))
    if earlier is not None and earlier.request != digest(dict(request)):
        raise IdempotencyKeyReused
    return earlier


def accept_operation(
    context: Context,
    caller: Token,
    key: str | None,
    action: str,
    server: Server,
    argument: Mapping[str, Any],
    request: Mapping[str, Any],
    prepare: Callable[[Operation, Sequence[Operation]], Operation] = lambda operation, others: operation,
    *,
    others: Sequence[Operation] | None = None,
) -> Operation:
    """Accept an operation on a server's world.

    Args:
        context: The operation's collaborators.
        caller: The caller, whose rights have been checked.
        key: The caller's Idempotency-Key; None if the call has none.
        action: One of WORLD_ACTIONS.
        server: The server.
        argument: What the machine of the action needs to know, as JSON.
        request: What the caller asked for, with the server's id and the action.
        prepare: Writes down what has to be there before the operation is. It gets the operation and all others, and
            returns the one to keep. With a key it may be called again for the same operation.
        others: All operations, if the caller has asked for them a moment ago.

    Returns:
        The operation; with a key that this token has used before, the one that it got then.

    Raises:
        IdempotencyKeyReused: The key was used for something else.
        TooManyOperations: There are too many operations already.
    """
    others = context.operations.all() if others is None else others
    unfinished = sum(not operation.ended and operation.target is not None for operation in others)
    if unfinished >= MOST_UNFINISHED:
        raise TooManyOperations("There are too many backups and restores already.", retry_after=60)
    operation = prepare(new_operation(caller, key, action, "now", dict(argument), dict(request), [server]), others)
    created = context.operations.create(operation, [server])
    if created.request != operation.request:
        raise IdempotencyKeyReused
    return created
