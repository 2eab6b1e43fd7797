"""Do something with many servers: accept it as an operation, show it, cancel it. The controller does the work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from service.errors import (
    IdempotencyKeyReused,
    InvalidRequest,
    MissingScope,
    OperationNotFound,
    ServerNotFound,
    TooManyOperations,
)
from service.operations.context import Context
from service.operations.operation import (
    ACTIONS,
    ID,
    WHEN,
    WORLD_ACTIONS,
    Operation,
    Server,
    digest,
    id_of_key,
    new_operation,
)
from service.operations.visibility import spec_of
from service.servers.objects import Objects
from service.servers.spec import server_uid, uid_of_values
from service.servers.state import exists
from service.tokens import Token

MOST_UNFINISHED, MOST_KEPT, MOST_SERVERS = 200, 1_000, 50_000
"""Operations that have not ended, operations in all, and servers of all operations together."""
MOST_OF_A_CUSTOMER = 10, 50, 2_000
"""The same of one customer, or of a token that is confined to servers only."""
SELECTORS = ("ids", "customer", "all")
"""The fields of a request of which exactly one names the servers."""
_NAMED = 20


def accept(context: Context, caller: Token, request: Mapping[str, Any], key: str | None) -> Operation:
    """Accept an operation on many servers.

    Args:
        context: The operation's collaborators.
        caller: The caller.
        request: A loaded schemas.Bulk.
        key: The caller's Idempotency-Key; None if the call has none.

    Returns:
        The operation; with a key that this token has used before, the one that it got then.

    Raises:
        InvalidRequest: The fields do not go together.
        MissingScope: The token lacks the scope of the action.
        ServerNotFound: A server does not exist, or the caller may not see it. `errors` names the first 20.
        IdempotencyKeyReused: The key was used for something else.
        TooManyOperations: There are too many operations already.
    """
    action, when = request["action"], request["when"]
    caller.require(ACTIONS[action])
    _check(request)
    if key is not None and (earlier := context.operations.get(id_of_key(caller, key))) is not None:
        return _same(context, caller, earlier, request)
    servers = list(_servers(context, caller, request))
    _require_room(context, caller, len(servers))
    operation = new_operation(caller, key, action, when, request["reason"], dict(request), servers)
    created = context.operations.create(operation, servers)
    return created if created.parts == operation.parts else _same(context, caller, created, request)


def require_operation(context: Context, caller: Token, id: str) -> Operation:
    """The operation; raises OperationNotFound if there is none, or the caller may not see all its servers."""
    operation = context.operations.get(id) if ID.fullmatch(id) else None
    if operation is None or not _may_see(context, caller, operation):
        raise OperationNotFound
    return operation


def visible(context: Context, caller: Token) -> list[Operation]:
    """All operations that the caller may see, newest first."""
    return [operation for operation in context.operations.all() if _may_see(context, caller, operation)]


def servers_of(context: Context, operation: Operation) -> list[Server]:
    """The operation's servers, each with what has become of it."""
    if operation.target is not None:
        return [replace(operation.target, outcome=operation.state, reason=operation.reason)]
    return [server for part in context.operations.parts(operation) for server in part.servers]


def cancel(context: Context, caller: Token, id: str) -> Operation:
    """Begin no further step of the operation; what has been done stays. One that has ended stays as it is.

    Raises:
        OperationNotFound: There is no such operation for the caller.
        MissingScope: The token lacks the action's scope, or is confined more than the one that asked for the operation.
    """
    operation = require_operation(context, caller, id)
    caller.require({**ACTIONS, **WORLD_ACTIONS}.get(operation.action, "server:write"))
    maker = operation.maker
    within = caller.servers is None or (maker.servers is not None and maker.servers <= caller.servers)
    if caller.customer not in (None, maker.customer) or not within:
        raise MissingScope("This operation can be cancelled only by a token that could have asked for it.")
    return context.operations.cancel(operation)


def uid_of(context: Context, objects: Objects) -> str:
    """The server's uid; of one whose StatefulSet is missing, from its release. "" if it has none."""
    return server_uid(objects) or uid_of_values(context.releases.current(objects.id) or {}) or ""


def _check(request: Mapping[str, Any]) -> None:
    """Raises InvalidRequest if the fields do not go together."""
    action, when = request["action"], request["when"]
    if sum(request[name] is not None for name in SELECTORS) != 1:
        raise InvalidRequest("Name the servers by exactly one of `ids`, `customer` and `all`.")
    if action not in WHEN[when]:
        raise InvalidRequest(errors={"when": [f"must be now or another moment that {action} can wait for"]})
    if (action == "suspend") != (request["reason"] is not None):
        message = "is required to suspend servers" if action == "suspend" else "is only for suspend"
        raise InvalidRequest(errors={"reason": [message]})


def most_of_confined() -> tuple[int, int, int]:
    """The bounds of all confined tokens together: a half is left for those that are not confined."""
    return MOST_UNFINISHED // 2, MOST_KEPT // 2, MOST_SERVERS // 2


def _require_room(context: Context, caller: Token, more: int) -> None:
    """Raises TooManyOperations if there is no room for another operation of the caller, on `more` servers."""
    operations = [operation for operation in context.operations.all() if operation.target is None]
    if caller.confined:
        confined = [operation for operation in operations if operation.maker.confined]
        own = [operation for operation in confined if operation.maker.share == caller.share]
        _require_fewer(own, more, MOST_OF_A_CUSTOMER, "This customer, or token, has")
        _require_fewer(confined, more, most_of_confined(), "All customers together have")
    _require_fewer(operations, more, (MOST_UNFINISHED, MOST_KEPT, MOST_SERVERS), "There are")


def _require_fewer(operations: list[Operation], more: int, most: tuple[int, int, int], who: str) -> None:
    """Raises TooManyOperations if there are as many operations as `most` allows; see MOST_UNFINISHED."""
    unfinished, kept, servers = most
    if sum(not operation.ended for operation in operations) >= unfinished:
        too_many = f"that have not ended ({unfinished})"
    elif len(operations) >= kept:
        too_many = f"({kept}). They are kept for a day"
    elif sum(operation.progress.total for operation in operations) + more > servers:
        too_many = f"for so many servers ({servers} in all). They are kept for a day"
    else:
        return
    raise TooManyOperations(f"{who} too many operations already {too_many}.", retry_after=60)


def _servers(context: Context, caller: Token, request: Mapping[str, Any]) -> Iterator[Server]:
    """The servers that the request names; raises ServerNotFound if one of `ids` is not the caller's."""
    ids = request["ids"]
    missing = []
    for id in dict.fromkeys(context.cluster.known_ids() if ids is None else ids):
        objects = context.cluster.known(id)
        if objects is None and ids is not None:
            # It may be newer than what the watches know.
            objects = context.cluster.server(id)
        spec = spec_of(context, objects) if objects is not None and exists(objects) else None
        if objects is None or spec is None or not caller.may_see(spec.customer, id):
            missing.append(id)
            if ids is not None and len(missing) > _NAMED:
                # The answer is certain, and each further id could cost reads of the cluster.
                break
        elif request["customer"] in (None, spec.customer):
            yield Server(id, uid_of(context, objects), spec.customer)
    if missing and ids is not None:
        named = ", ".join(map(str, missing[:_NAMED])) + (" …" if len(missing) > _NAMED else "")
        raise ServerNotFound(errors={"ids": [f"there is no server {named}"]})


def _same(context: Context, caller: Token, earlier: Operation, request: Mapping[str, Any]) -> Operation:
    """The earlier operation with the same key; raises IdempotencyKeyReused if it is another one."""
    if earlier.request != digest(dict(request)) or not _may_see(context, caller, earlier):
        raise IdempotencyKeyReused
    return earlier


def _may_see(context: Context, caller: Token, operation: Operation) -> bool:
    """Whether the caller may see all servers of the operation, as they were when it was accepted."""
    if caller.customer not in (None, operation.customer):
        return False
    if caller.servers is None:
        return True
    # The servers of an operation are read from Kubernetes, so not those of one that has more than the caller may see.
    few = operation.progress.total <= len(caller.servers)
    return few and all(server.id in caller.servers for server in servers_of(context, operation))
