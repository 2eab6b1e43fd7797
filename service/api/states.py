"""The state of a server in an answer: as it is now, or once the server runs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from service.access import Subject
from service.api.context import caller, context
from service.console.plain import plain
from service.errors import ClusterUnavailable
from service.operations.visibility import require_server
from service.servers import state
from service.servers.accessors import uid
from service.servers.objects import Objects
from service.web.draining import draining
from service.web.parking import parked, require_room

_LOG_LINES = 5


def state_now(objects: Objects) -> state.State:
    """The server's state, after a crash with the game's last lines."""
    now = state.state_of(objects)
    if now.crashed:
        tail = context().cluster.pod_log_tail(objects.id, uid(objects.pod) or "", _LOG_LINES, now.previous)
        return state.with_log(now, plain(tail))
    return now


def require_room_to_wait(query: Mapping[str, Any]) -> None:
    """Raises TooManyOperations if the call asks to wait and too many others do, before it changes anything."""
    if query["wait"] is not None:
        require_room()


def started(query: Mapping[str, Any], id: int, code: int = 200) -> Any:
    """The answer of a call that has started a server.

    Args:
        query: A loaded schemas.WaitQuery. If it asks to wait, the answer is given when the server runs or the time is
            over, and says its state.
        id: The server's id.
        code: The status code; 200 if the time is over first.
    """
    if query["wait"] is None:
        return {"success": True}, code
    cluster, until = context().cluster, time.monotonic() + query["timeout_s"]
    written, seen = _version(cluster.server(id)), False

    def ready() -> bool:
        nonlocal seen
        try:
            known = cluster.known(id)
        except ClusterUnavailable:
            return False
        if known is None:
            # It was deleted, or the watches do not have it yet.
            return seen
        uid, generation = _version(known)
        if uid == written[0] and generation < written[1]:
            return False
        seen = True
        now = state.state_of(known)
        return now.state == "running" or now.wanted != "running"

    def answer() -> Any:
        now = state_now(require_server(context(), caller(), id, Subject.ENDING).objects)
        fields = {"success": True, "state": now.state, "reason": now.reason}
        if now.state == "running":
            return fields, code
        if now.wanted == "running" and (left := until - time.monotonic()) > 0 and not draining.is_set():
            # The watches were behind.
            return parked(ready, answer, left)
        return fields, 200

    return parked(ready, answer, query["timeout_s"])


def _version(objects: Objects) -> tuple[str | None, int]:
    """Uid and generation of the server's StatefulSet: what is older does not show the effect of the call."""
    metadata = (objects.statefulset or {}).get("metadata", {})
    return metadata.get("uid"), metadata.get("generation") or 0
