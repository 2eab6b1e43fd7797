"""The call that tells how the start of a server goes."""

from __future__ import annotations

from functools import partial
from typing import Any

from flask import Response, request

from service import errors
from service.access import Subject
from service.api.context import caller, context, target
from service.api.following import (
    AS_EVENTS,
    EVENTS,
    ResumeHeaders,
    ResumeQuery,
    last_event_id,
    require_not_draining,
    wants_events,
)
from service.api.servers import blueprint
from service.operations.progress import follow_start
from service.web.routes import access, problems
from service.web.streaming import Streamed


@blueprint.route("/<id:id>/progress", methods=["GET"])
@access("server:read", Subject.ENDING)
@blueprint.arguments(ResumeQuery, location="query")
@blueprint.arguments(ResumeHeaders, location="headers")
@blueprint.response(200, {"type": "string"}, content_type="text/plain")
@blueprint.doc(**AS_EVENTS)
@blueprint.alt_response(204, description="The client has had the last step, and nothing has happened since")
@problems(errors.InvalidRequest, errors.ServerNotFound, errors.Suspended, errors.TooManyFollowers, errors.Draining)
def get_progress(query: dict[str, Any], headers: dict[str, Any], id: int) -> Response:
    """Follow the start of a server

    The answer begins with the steps that the current start has behind it, and goes on with each further one, until the
    server runs, has stopped or is deleted: `disk`, `scheduled`, `image`, `loading`, `running`, `failed`, `stopped`,
    `deleted`. They come as server-sent events if `Accept` is `text/event-stream`, otherwise as lines.
    """
    require_not_draining()
    events = wants_events()
    wish = follow_start(
        context(),
        caller(),
        target(),
        after=last_event_id(headers, query),
        events=events,
        authorization=request.headers.get("Authorization"),
    )
    if wish is None:
        # It keeps an EventSource from connecting again and again.
        return Response(status=204)
    return Streamed(partial(context().starts.add, wish), EVENTS if events else "text/plain")
