"""The call that reads the log of a server's game."""

from __future__ import annotations

from typing import Any

from flask import Response

from service import errors
from service.access import Subject
from service.api.context import caller, context, target
from service.api.log_schemas import LogQuery
from service.api.servers import blueprint
from service.logs.lines import text_of
from service.operations.log import read_log
from service.web.routes import access, problems

CUT = "--- what was before is left out: an answer has at most 1 MiB ---\n"


@blueprint.route("/<id:id>/log", methods=["GET"])
@access("console:read", Subject.SERVER)
@blueprint.arguments(LogQuery, location="query")
@blueprint.response(200, {"type": "string"}, content_type="text/plain")
@problems(errors.InvalidRequest, errors.ServerNotFound, errors.Suspended, errors.NoLog)
def get_log(query: dict[str, Any], id: int) -> Response:
    """Get the last lines of the game's log

    They are plain text, of the game's current run, or of its last one while it does not run. Colours are removed, and
    other control characters are replaced.
    """
    lines, cut = read_log(context(), caller(), target(), query["tail"], query["since"])
    return Response((CUT if cut else "") + text_of(lines), mimetype="text/plain")
