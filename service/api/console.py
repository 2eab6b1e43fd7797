"""The call that sends a command to a game."""

from __future__ import annotations

from concurrent.futures import wait
from typing import Any

from flask import jsonify

from service import errors
from service.access import Subject
from service.api import schemas
from service.api.context import caller, context, note, target
from service.operations import console
from service.web.parking import parked, require_room
from service.web.parsing import Blueprint
from service.web.routes import access, problems

blueprint = Blueprint("console", __name__, url_prefix="/api/v1/server", description="Console")

_QUICK_SECONDS = 0.1
"""How long a call holds its thread. Games answer within a tick, or else the call waits without a thread."""


@blueprint.route("/<id:id>/command", methods=["POST"])
@access("console:write", Subject.SERVER, audited=True)
@blueprint.arguments(schemas.SendCommand)
@blueprint.response(200, schemas.CommandAnswer)
@problems(
    errors.ServerNotFound,
    errors.Suspended,
    errors.ServerNotRunning,
    errors.NoConsole,
    errors.NoConsoleYet,
    errors.TooManyCommands,
    errors.ConsoleFailed,
    errors.GameDoesNotAnswer,
)
def send_command(body: dict[str, Any], id: int) -> Any:
    """Send a command to the game, as if it were typed into its console

    The answer has what the game said to it, without control characters. A game gets its commands one after the other.
    """
    if context().settings.audit_commands:
        note(command=body["command"])
    require_room()
    sent = console.send(context(), caller(), target(), body["command"])
    wait([sent], _QUICK_SECONDS)

    def answer() -> Any:
        output = console.output_of(sent)
        return jsonify({"success": True, "output": output.text, "truncated": output.truncated})

    return answer() if sent.done() else parked(sent.done, answer, console.LONGEST_SECONDS)
