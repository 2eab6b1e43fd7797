"""Writes on a server which operation waits for it or is at work with it, and takes that away."""

from __future__ import annotations

from contextlib import suppress

from service.errors import OperationInProgress, ServerNotFound
from service.operations.context import Context
from service.operations.operation import Server
from service.servers.names import OPERATION
from service.servers.waiting import WaitingOperation, operation_of_text


def mark(context: Context, server: Server, operation: WaitingOperation) -> None:
    """Write the operation on the server, unless another one stands there, the server is gone, or others write to it."""
    text = operation.as_text()
    with suppress(ServerNotFound, OperationInProgress):
        context.cluster.annotate(server.id, server.uid, OPERATION, lambda other: other or text)


def unmark(context: Context, server: Server, operation: str) -> None:
    """Take the operation (its id) away from the server, which may be gone. May raise OperationInProgress."""

    def without(text: str | None) -> str | None:
        named = operation_of_text(text)
        return None if named is None or named.id == operation else text

    with suppress(ServerNotFound):
        context.cluster.annotate(server.id, server.uid, OPERATION, without)
