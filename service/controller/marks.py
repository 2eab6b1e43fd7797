"""Writes on a server which operation waits for it or is at work with it, and takes that away."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress

from service.errors import OperationFailed, OperationInProgress, ServerNotFound
from service.operations.context import Context
from service.operations.operation import Server
from service.servers.names import OPERATION
from service.servers.waiting import WaitingOperation, operation_of_text

log = logging.getLogger(__name__)


def mark(context: Context, server: Server, operation: WaitingOperation) -> None:
    """Write the operation on the server.

    Unless another one stands there, the server is gone, others write to it, or Kubernetes refuses it.
    """
    text = operation.as_text()
    with suppress(OperationInProgress):
        _annotate(context, server, lambda other: other or text)


def unmark(context: Context, server: Server, operation: str) -> None:
    """Take the operation (its id) away from the server, which may be gone, unless Kubernetes refuses it.

    May raise OperationInProgress.
    """

    def without(text: str | None) -> str | None:
        named = operation_of_text(text)
        return None if named is None or named.id == operation else text

    _annotate(context, server, without)


def _annotate(context: Context, server: Server, change: Callable[[str | None], str | None]) -> None:
    try:
        context.cluster.annotate(server.id, server.uid, OPERATION, change)
    except ServerNotFound:
        pass
    except OperationFailed as problem:
        # It only tells others what happens with the server. The operation does not need it.
        log.warning("server %d does not show the operation on it: %s", server.id, problem.detail)
