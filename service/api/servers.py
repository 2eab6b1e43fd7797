"""The calls that list, create, read, change, start, stop, restart and delete servers."""

from __future__ import annotations

from typing import Any

from flask import Response, jsonify

from service import errors
from service.access import Subject
from service.api import schemas
from service.api.context import caller, context, target
from service.api.operations import accepted
from service.api.states import require_room_to_wait, started, state_now
from service.operations import power
from service.operations.addresses import endpoint_of
from service.operations.change import change
from service.operations.clone import clone
from service.operations.create import create
from service.operations.delete import delete
from service.operations.idle import can_be_asked
from service.operations.suspend import suspend, unsuspend
from service.operations.visibility import may_see
from service.servers import state
from service.servers.disks import disk_of
from service.servers.idle import idle_of
from service.servers.names import PORTS
from service.servers.notes import notes_of
from service.servers.objects import Objects
from service.servers.spec import ServerSpec, spec_of_objects
from service.servers.waiting import waiting_operation
from service.web.fields import Success
from service.web.parsing import Blueprint
from service.web.routes import access, problems

blueprint = Blueprint("servers", __name__, url_prefix="/api/v1/server", description="Game servers")

_SUCCESS: dict[str, Any] = {"success": True}
WRITE_PROBLEMS = (
    errors.ServerNotFound,
    errors.OperationInProgress,
    errors.RefusedByCluster,
    errors.FieldConflict,
    errors.TooManyOperations,
    errors.OperationFailed,
    errors.ReleaseMissing,
    errors.NoNodePortLeft,
    errors.ClusterContended,
)
"""What every call may answer that writes a server's release."""


@blueprint.route("/", methods=["GET"])
@access("server:read")
@blueprint.arguments(schemas.ListQuery, location="query")
@blueprint.response(200, schemas.ServersAnswer)
@problems(errors.InvalidRequest)
def list_servers(query: dict[str, Any]) -> Response:
    """List the servers, page by page

    A confined token gets only the servers that it may see.
    """
    token = caller()

    def wanted(objects: Objects) -> bool:
        return token.reaches(objects.id) and may_see(token, objects, spec_of_objects(objects))

    page, continue_ = context().cluster.servers(query["limit"], query["continue_"], wanted if token.confined else None)
    servers = [_server_fields(objects, spec_of_objects(objects), state.state_of(objects)) for objects in page]
    # Without marshmallow, which for a few hundred servers takes as long as everything else together.
    return jsonify({"success": True, "servers": servers, "continue": continue_})


@blueprint.route("/<id:id>/", methods=["POST"])
@access("server:create", Subject.NEW, audited=True)
@blueprint.arguments(schemas.CreateServer)
@blueprint.arguments(schemas.WaitQuery, location="query")
@blueprint.arguments(schemas.IdempotencyHeaders, location="headers")
@blueprint.response(201, schemas.Started)
@blueprint.alt_response(
    200, schema=schemas.Started, description="The server already existed; or it does not run yet, and the time is over"
)
@blueprint.alt_response(202, schema=schemas.OperationAnswer, description="With `from`: its world is being brought")
@problems(
    *WRITE_PROBLEMS,
    errors.ServerExists,
    errors.EulaNotAccepted,
    errors.DiskKept,
    errors.DiskNotUsable,
    errors.DiskBeingErased,
    errors.DiskBeingDeleted,
    errors.DiskCannotShrink,
    errors.DiskCannotGrow,
    errors.Suspended,
    errors.BackupNotFound,
    errors.BackupNotUsable,
    errors.OtherGame,
    errors.IdempotencyKeyReused,
)
def create_server(body: dict[str, Any], query: dict[str, Any], headers: dict[str, Any], id: int) -> Any:
    """Create a server

    Sending the same request again changes nothing, even if the server has been stopped since. With `from`, the answer
    is an operation at once, whatever `wait` says, and the server starts when it has its world.
    """
    if "from" in body:
        return accepted(clone(context(), caller(), id, body, headers["key"]))
    require_room_to_wait(query)
    created = create(context(), caller(), id, body)
    return started(query, id, 201 if created else 200)


@blueprint.route("/<id:id>/", methods=["GET"])
@access("server:read", Subject.ENDING)
@blueprint.response(200, schemas.ServerAnswer)
@problems(errors.ServerNotFound)
def get_server(id: int) -> dict[str, Any]:
    """Get a server: its spec, its state and the reason for that state"""
    objects = target().objects
    return {"success": True, **_server_fields(objects, target().spec, state_now(objects))}


@blueprint.route("/<id:id>/", methods=["PATCH"])
@access("server:write", Subject.SERVER, audited=True)
@blueprint.arguments(schemas.UpdateServer)
@blueprint.response(200, schemas.Changed)
@problems(*WRITE_PROBLEMS, errors.Suspended, errors.DiskCannotShrink, errors.DiskCannotGrow, errors.DiskBeingDeleted)
def update_server(body: dict[str, Any], id: int) -> dict[str, Any]:
    """Resize a server or change its options

    Of `options`, only those that you send change; null resets one to the game's default. A running server restarts
    if its pod must apply the change; `restarting` says whether it does.
    """
    return {"success": True, "restarting": change(context(), caller(), target(), body)}


@blueprint.route("/<id:id>/", methods=["DELETE"])
@access("server:delete", Subject.REMAINS, audited=True)
@blueprint.arguments(schemas.DeleteQuery, location="query")
@blueprint.response(200, Success)
@problems(errors.InvalidRequest, *WRITE_PROBLEMS, errors.Suspended)
def delete_server(query: dict[str, Any], id: int) -> dict[str, Any]:
    """Delete a server; its disk is kept unless `disk=erase`

    This works on a kept disk too. It answers 404 only if there is neither a server nor a kept disk. Its backups stay
    for some days, unless `backups=erase`.
    """
    delete(context(), caller(), id, erase=query["disk"] == "erase", erase_backups=query["backups"] == "erase")
    return _SUCCESS


@blueprint.route("/<id:id>/start", methods=["PATCH"])
@access("server:power", Subject.SERVER, audited=True)
@blueprint.arguments(schemas.WaitQuery, location="query")
@blueprint.response(200, schemas.Started)
@problems(errors.InvalidRequest, *WRITE_PROBLEMS, errors.Suspended, errors.DiskBeingDeleted)
def start_server(query: dict[str, Any], id: int) -> Any:
    """Start a server; a running server keeps running

    This creates missing objects of the server again. If Kubernetes is in a back-off, because the game crashed or the
    pod was refused, this tries again at once.
    """
    require_room_to_wait(query)
    power.start(context(), caller(), target())
    return started(query, id)


@blueprint.route("/<id:id>/stop", methods=["PATCH"])
@access("server:power", Subject.SERVER, audited=True)
@blueprint.response(200, Success)
@problems(*WRITE_PROBLEMS, errors.DiskBeingDeleted)
def stop_server(id: int) -> dict[str, Any]:
    """Stop a server; the game saves its world first"""
    power.stop(context(), target())
    return _SUCCESS


@blueprint.route("/<id:id>/restart", methods=["PATCH"])
@access("server:power", Subject.SERVER, audited=True)
@blueprint.arguments(schemas.WaitQuery, location="query")
@blueprint.response(200, schemas.Started)
@problems(errors.InvalidRequest, *WRITE_PROBLEMS, errors.Suspended, errors.DiskBeingDeleted)
def restart_server(query: dict[str, Any], id: int) -> Any:
    """Restart a server; a stopped server starts"""
    require_room_to_wait(query)
    power.restart(context(), caller(), target())
    return started(query, id)


@blueprint.route("/<id:id>/suspend", methods=["PATCH"])
@access("server:suspend", Subject.SERVER, audited=True)
@blueprint.arguments(schemas.SuspendServer)
@blueprint.response(200, Success)
@problems(*WRITE_PROBLEMS)
def suspend_server(body: dict[str, Any], id: int) -> dict[str, Any]:
    """Suspend a server: it stops, and its customer cannot use it

    Tokens without the scope `server:suspend` can still read and stop it. All else that they could do with it answers
    403 `server-suspended` with the reason. Sessions on its files end within seconds. Suspending it again replaces the
    reason.
    """
    suspend(context(), target(), body["reason"])
    return _SUCCESS


@blueprint.route("/<id:id>/unsuspend", methods=["PATCH"])
@access("server:suspend", Subject.SERVER, audited=True)
@blueprint.response(200, Success)
@problems(*WRITE_PROBLEMS)
def unsuspend_server(id: int) -> dict[str, Any]:
    """End a server's suspension; the server stays stopped"""
    unsuspend(context(), target())
    return _SUCCESS


def _server_fields(objects: Objects, spec: ServerSpec | None, now: state.State) -> dict[str, Any]:
    """A server in the shape of schemas.Server."""
    players = context().players.of(objects, running=now.state == "running")
    usage = context().cluster.consumption(objects)
    names = PORTS if context().settings.sftp_namespace else ("primary", "rcon")
    endpoints = {name: endpoint_of(context(), objects, name) for name in names}
    ports = {name: vars(endpoint) for name, endpoint in endpoints.items() if endpoint is not None}
    return {
        "id": objects.id,
        "game": spec.game if spec else None,
        "ram_gb": spec.ram_gb if spec else None,
        "disk_gb": spec.disk_gb if spec else None,
        "disk": vars(disk_of(objects.claim, objects.usage)),
        "options": spec.options if spec else None,
        "wanted": now.wanted,
        "state": now.state,
        "reason": now.reason,
        "since": now.since,
        "suspended": vars(spec.suspended) if spec and spec.suspended else None,
        "operation": vars(waits) if (waits := waiting_operation(objects)) else None,
        "notes": [vars(note) for note in notes_of(objects)],
        "idle_stop_minutes": (spec.idle_stop_minutes or None) if spec else None,
        "backup_keep": vars(spec.backup_keep) if spec and spec.backup_keep else None,
        "players": vars(players) if players else None,
        "usage": vars(usage) if usage else None,
        "idle": idle_of(objects, spec, now, can_be_asked(context(), spec)),
        "host": ports["primary"]["host"] if "primary" in ports else None,
        "ports": ports,
    }
