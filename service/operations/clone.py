"""Creates a server with the world of another one, or of a backup. The controller brings the world."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

from service.access import Subject
from service.backups.records import ServerBackups
from service.errors import OtherGame, ReleaseMissing, ServerExists, ServerNotFound
from service.operations import backups
from service.operations.checks import require_not_restoring, require_not_suspended
from service.operations.context import Context
from service.operations.create import install, prepared, require_same
from service.operations.operation import Operation, Server, digest
from service.operations.restore import usable_backup
from service.operations.visibility import require_server
from service.operations.worlds import WAIT_SECONDS, accept_operation, earlier_operation
from service.servers import values
from service.servers.spec import spec_of_values, uid_of_values
from service.servers.state import exists
from service.tokens import Token


def clone(context: Context, caller: Token, id: int, request: Mapping[str, Any], key: str | None) -> Operation:
    """Create the server with the world of another one, or of a backup.

    The server exists from now on, with ports and a uid of its own, but it does not run before its world is there.

    Args:
        context: The operation's collaborators.
        caller: The caller.
        id: The id of the new server.
        request: As for `create`, with `from`: `{"server": <id>}` or `{"backup": "<id>"}`.
        key: The caller's Idempotency-Key; None if the call has none.

    Returns:
        The operation that brings the world. The same request again gets the same operation, as long as it is at work.

    Raises:
        ServerNotFound, BackupNotFound: There is no such server or backup for the caller.
        OtherGame: Its world is of another game.
        BackupNotUsable: The backup is not done.
        Suspended: The other server is suspended.
        OperationInProgress: The other server's world is being restored.
        Problem: See `create`, and `accept_operation`.
    """
    wanted_request = {"action": "clone", "server": id, **request}
    if (earlier := earlier_operation(context, caller, key, wanted_request)) is not None:
        return earlier
    spec, new = prepared(context, caller, id, request)
    argument = _source(context, caller, spec.game, request["from"])
    with context.releases.locked(id, wait=WAIT_SECONDS):
        objects = context.cluster.server(id)
        if exists(objects):
            return _repeated(context, caller, id, new, argument, wanted_request, request.keys(), key)
        uid = uid_of_values(new) or ""
        server = Server(id, uid, spec.customer)
        # First the operation: a server that waits for one that does not exist would wait for ever.
        operation = accept_operation(context, caller, key, "clone", server, argument, wanted_request)
        try:
            restoring = values.restoring(values.without_disk(new), operation.id)
            install(context, caller, objects, spec, restoring, request["disk"])
        except BaseException:
            # If this process is killed instead, the machine finds that the server is not complete, and removes it too.
            context.operations.cancel(operation)
            raise
        return operation


def _repeated(
    context: Context,
    caller: Token,
    id: int,
    new: values.Values,
    argument: Mapping[str, Any],
    wanted_request: Mapping[str, Any],
    named: Set[str],
    key: str | None,
) -> Operation:
    """Handle a clone to a server that exists: the same request gets its operation again."""
    current = context.releases.current(id)
    if current is None:
        raise ReleaseMissing
    existing = spec_of_values(current)
    if not caller.may_see(existing.customer, id):
        raise ServerNotFound
    require_same(id, existing, spec_of_values(new), named)
    uid, wanted = uid_of_values(current), digest(wanted_request)
    for operation in context.operations.all():
        same = operation.target is not None and operation.target.uid == uid and operation.request == wanted
        if same and operation.action == "clone" and (operation.state == "done" or not operation.ended):
            return operation
    if not existing.restoring:
        raise ServerExists
    making = context.operations.get(existing.restoring)
    if making is not None and not making.ended:
        require_not_restoring(existing)
    # The create was broken off, or its operation has failed and could not remove the server.
    server = Server(id, uid or "", existing.customer)
    operation = accept_operation(context, caller, key, "clone", server, argument, wanted_request)
    restoring = values.restoring(values.without_disk(values.with_uid(new, server.uid)), operation.id)
    context.releases.change(id, lambda current: restoring)
    return operation


def _source(context: Context, caller: Token, game: str, named: Mapping[str, Any]) -> dict[str, Any]:
    """What the clone's machine needs to know about where the world comes from."""
    if "backup" in named:
        kept = _of_backup(context, caller, str(named["backup"]))
        _require_game(game, kept.game)
        usable_backup(kept, str(named["backup"]))
        return {"from": {"backup": named["backup"], "uid": kept.uid}}
    try:
        source = require_server(context, caller, int(named["server"]), Subject.SERVER)
    except ServerNotFound:
        raise _no_source(named) from None
    if source.spec is None or source.uid is None:
        raise _no_source(named)
    require_not_suspended(caller, source.suspended)
    require_not_restoring(source.spec)
    _require_game(game, source.spec.game)
    return {"from": {"server": source.id, "uid": source.uid, "customer": source.spec.customer}}


def _of_backup(context: Context, caller: Token, id: str) -> ServerBackups:
    """The record with this backup, if the caller may see it, and may use its server."""
    kept = backups.find(context, caller, id).kept
    backups.require_owner_not_suspended(context, caller, kept)
    return kept


def _no_source(named: Mapping[str, Any]) -> ServerNotFound:
    return ServerNotFound(f"There is no server {named['server']} to clone, or your token may not see it.")


def _require_game(game: str, of_world: str) -> None:
    if of_world and of_world != game:
        raise OtherGame(f"The world is of the game {of_world}, and cannot be one of {game}.")
