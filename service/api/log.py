"""The call that reads the log of a server's game."""

from __future__ import annotations

from functools import partial
from typing import Any

from flask import Response, request

from service import errors
from service.access import Subject
from service.api.context import caller, context, target
from service.api.following import AS_EVENTS, EVENTS, ResumeHeaders, last_event_id, require_not_draining, wants_events
from service.api.log_schemas import LogQuery
from service.api.servers import blueprint
from service.logs.lines import place_of
from service.operations.log import follow_log, read_log
from service.web.routes import access, problems
from service.web.streaming import Streamed


@blueprint.route("/<id:id>/log", methods=["GET"])
@access("console:read", Subject.SERVER)
@blueprint.arguments(LogQuery, location="query")
@blueprint.arguments(ResumeHeaders, location="headers")
@blueprint.response(200, {"type": "string"}, content_type="text/plain")
@blueprint.doc(**AS_EVENTS)
@problems(
    errors.InvalidRequest,
    errors.ServerNotFound,
    errors.Suspended,
    errors.NoLog,
    errors.TooManyFollowers,
    errors.Draining,
)
def get_log(query: dict[str, Any], headers: dict[str, Any], id: int) -> Response:
    """Get the last lines of the game's log

    They are plain text, of the game's current run, or of its last one while it does not run. Once the game has been
    stopped, at most the last 16 KiB (packed) are kept, and the first line says so. Colours are removed, and other
    control characters are replaced. With `follow=true` the answer goes on with each line that the game writes, as
    server-sent events if `Accept` is `text/event-stream`.
    """
    if query["follow"]:
        return _follow(query, last_event_id(headers, query))
    entries = read_log(context(), caller(), target(), query["tail"], query["since"])
    return Response(b"".join(entry.text for entry in entries), mimetype="text/plain")


def _follow(query: dict[str, Any], last: str | None) -> Response:
    require_not_draining()
    events = wants_events()
    after = None if last is None else place_of(last)
    authorization = request.headers.get("Authorization")
    wish = follow_log(
        context(),
        caller(),
        target(),
        query["tail"],
        query["since"],
        after=after,
        events=events,
        authorization=authorization,
    )
    return Streamed(partial(context().logs.add, wish), EVENTS if events else "text/plain")
