"""The call that brings a server back which a lost cluster had. backup/backup_job/recovery.py makes it."""

from __future__ import annotations

from typing import Any

from flask import jsonify, url_for

from service import errors
from service.access import Subject
from service.api.context import caller, context, note
from service.api.recovery_schemas import Recover, RecoverAnswer
from service.api.servers import HELM_PROBLEMS
from service.operations.recover import recover
from service.web.parsing import Blueprint
from service.web.routes import access, problems

blueprint = Blueprint("recovery", __name__, url_prefix="/api/v1", description="Bringing back a lost cluster")


@blueprint.route("/server/<id:id>/_recover", methods=["POST"])
@access("recover", Subject.NEW, audited=True)
@blueprint.arguments(Recover)
@blueprint.response(202, RecoverAnswer)
@blueprint.alt_response(200, schema=RecoverAnswer, description="The server is there already")
@problems(
    errors.InvalidRequest,
    errors.BackupsNotPossible,
    errors.ServerExists,
    errors.DiskKept,
    errors.DiskBeingErased,
    *HELM_PROBLEMS,
)
def recover_server(body: dict[str, Any], id: int) -> Any:
    """Create a server again that a lost cluster had, from its backups in the store

    The Job that brings a whole cluster back makes this call. The server gets its old uid, its settings and the world of
    its newest backup, which the controller restores. Needs a token that is not confined.
    """
    note(uid=body["uid"])
    operation = recover(context(), caller(), id, body)
    if operation is None:
        return jsonify({"success": True, "operation": None}), 200
    location = url_for("operations.get_operation", operation=operation.id)
    return {"success": True, "operation": operation.id}, 202, {"Location": location}
