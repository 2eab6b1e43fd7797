"""The call that reads the log of events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from service import errors
from service.api import event_schemas as schemas
from service.api.context import caller, caller_again, context
from service.events.event import Event
from service.events.reader import EventReader
from service.operations.context import Context
from service.servers.spec import server_uid
from service.tokens import Token
from service.web.parking import parked, require_room
from service.web.parsing import Blueprint
from service.web.routes import access, problems

blueprint = Blueprint("events", __name__, url_prefix="/api/v1/event", description="Events")

SYNC_SECONDS = 3.0
# The API server ends every watch now and then, and the next starts immediately.
GAP_SECONDS = 3.0
# Another replica may have given the cursor, and this one may not have received those events yet.
BEHIND, BEHIND_SECONDS = 1000, 2.0


@blueprint.route("/", methods=["GET"])
@access("server:read")
@blueprint.arguments(schemas.EventsQuery, location="query")
@blueprint.response(200, schemas.EventsAnswer)
@problems(errors.InvalidRequest, errors.EventsReset, errors.OperationFailed)
def list_events(query: dict[str, Any]) -> Any:
    """List what happened to the servers, oldest first

    Send the answer's `cursor` as `after` of the next call. With `wait`, the answer comes as soon as there is an event.
    A confined token gets the events of its servers only.
    """
    reader = _reader()
    position = reader.beginning if query["after"] is None else int(query["after"])
    if position > reader.newest + BEHIND or not reader.wait_beyond(position - 1, BEHIND_SECONDS):
        raise errors.EventsReset()
    if not query["wait"]:
        return _answer(reader, query, position, caller())
    require_room()
    wanted, looked = _wanted(context(), caller(), query), position

    def ready() -> bool:
        nonlocal looked
        events, looked = reader.after(looked, 1, wanted)
        return bool(events)

    return parked(ready, lambda: _answer(reader, query, position, caller_again("server:read")), query["wait"])


def _reader() -> EventReader:
    """The log; raises ClusterUnavailable while it is not known, or out of date."""
    reader = context().events
    if reader is None:
        raise errors.OperationFailed("This API has no log of events.")
    reader.start()
    if not reader.wait(SYNC_SECONDS):
        raise errors.ClusterUnavailable("The events are not known yet. Kubernetes has not answered.")
    if (lost := reader.lost_for()) > GAP_SECONDS:
        raise errors.ClusterUnavailable(f"The events have not been up to date for {round(lost)} seconds.")
    return reader


def _answer(reader: EventReader, query: Mapping[str, Any], position: int, token: Token) -> dict[str, Any]:
    wanted = _wanted(context(), token, query)
    events, position = reader.after(position, query["limit"], wanted)
    return {"success": True, "events": [schemas.event_fields(event) for event in events], "cursor": str(position)}


def _wanted(context: Context, token: Token, query: Mapping[str, Any]) -> Callable[[Event], bool]:
    """Which events to answer with: those that the query asks for, out of those that the caller may see."""
    server = None if query["server"] is None else int(query["server"])
    types = None if query["type"] is None else frozenset(query["type"].split(","))
    uids = None
    if token.servers is not None and token.customer is None:
        # Another customer may have had a server with the same id.
        known = [context.cluster.known(id) for id in token.servers]
        uids = {server_uid(objects) for objects in known if objects is not None}

    def wanted(event: Event) -> bool:
        return (
            (server is None or event.server == server)
            and (types is None or event.type in types)
            and token.may_see(event.customer, event.server)
            and (uids is None or event.uid in uids)
        )

    return wanted
