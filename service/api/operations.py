"""The calls about operations that take longer than a call, and the one that begins them: in bulk."""

from __future__ import annotations

from typing import Any

from flask import Response, jsonify, url_for

from service import errors
from service.api import schemas
from service.api.context import caller, caller_again, context, note
from service.operations import bulk
from service.operations.operation import ID, Operation, progress_of, shown
from service.web.draining import draining
from service.web.parking import parked, require_room
from service.web.parsing import Blueprint
from service.web.routes import access, problems

blueprint = Blueprint("operations", __name__, url_prefix="/api/v1", description="What takes longer than a call")


@blueprint.route("/server/_bulk", methods=["POST"])
@access("server:read", audited=True)
@blueprint.arguments(schemas.Bulk)
@blueprint.arguments(schemas.IdempotencyHeaders, location="headers")
@blueprint.response(202, schemas.OperationAnswer)
@problems(errors.ServerNotFound, errors.IdempotencyKeyReused)
def bulk_servers(body: dict[str, Any], headers: dict[str, Any]) -> Any:
    """Start, stop, restart, suspend, unsuspend or upgrade many servers

    Needs the scope of the action too: `server:power`, `server:suspend`, or `server:write` to upgrade. It answers at
    once with an operation, which the controller carries out at the operator's rate. With an `Idempotency-Key`, the
    same request gives the same operation for at least a day.
    """
    operation = bulk.accept(context(), caller(), body, headers["key"])
    note(bulk=operation.action)
    return accepted(operation)


@blueprint.route("/operation/", methods=["GET"])
@access("server:read")
@blueprint.response(200, schemas.OperationsAnswer)
def list_operations() -> Response:
    """List the operations, newest first, without their servers

    A confined token gets those whose servers it may all see. Ended operations are kept for a day.
    """
    operations = bulk.visible(context(), caller())
    return jsonify({"success": True, "operations": [dict(shown(operation)) for operation in operations]})


@blueprint.route("/operation/<operation>", methods=["GET"])
@access("server:read")
@blueprint.arguments(schemas.OperationQuery, location="query")
@blueprint.response(200, schemas.OperationAnswer)
@problems(errors.OperationNotFound, errors.InvalidRequest)
def get_operation(query: dict[str, Any], operation: str) -> Any:
    """Get an operation: how far it is, and what has become of each of its servers"""
    current = bulk.require_operation(context(), caller(), operation)
    if query["wait"] is None or current.ended or draining.is_set():
        return operation_answer(current)
    require_room()
    operations = context().operations

    def ready() -> bool:
        known = operations.known(operation)
        return known is not None and known.ended

    def answer() -> Any:
        return operation_answer(bulk.require_operation(context(), caller_again("server:read"), operation))

    return parked(ready, answer, query["wait"])


@blueprint.route("/operation/<operation>/cancel", methods=["POST"])
@access("server:read", audited=True)
@blueprint.response(200, schemas.OperationAnswer)
@problems(errors.OperationNotFound)
def cancel_operation(operation: str) -> Any:
    """Cancel an operation: no further server's turn comes, and what has been done stays

    Needs the scope of its action too, and a token that could have asked for it. An operation that has ended stays as it
    is.
    """
    note(operation=operation if ID.fullmatch(operation) else "")
    return operation_answer(bulk.cancel(context(), caller(), operation))


def accepted(operation: Operation) -> tuple[Response, int, dict[str, str]]:
    """The answer to a call that an operation carries out: the operation, and where to ask how far it is."""
    note(operation=operation.id)
    location = url_for("operations.get_operation", operation=operation.id)
    return operation_answer(operation), 202, {"Location": location}


def operation_answer(operation: Operation) -> Response:
    """The answer in the shape of schemas.OperationAnswer."""
    servers = bulk.servers_of(context(), operation)
    fields = [{"id": server.id, "outcome": server.outcome, "reason": server.reason} for server in servers]
    # What the operation itself says of its progress is some seconds old.
    whole = {**shown(operation), "progress": vars(progress_of(servers)), "servers": fields}
    # Without marshmallow, as for the list of servers: there may be thousands.
    return jsonify({"success": True, **whole})
