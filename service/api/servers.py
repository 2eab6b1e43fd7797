"""Servers: create, look, change, start, stop, restart, delete, and where they are reached."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from flask import Response, jsonify

from service import errors
from service.api import schemas
from service.api.document import problems
from service.api.files import check_disk, forget, reachable
from service.operations.context import Context, caller, context, erase_disk, found, record_of, seen, timestamp
from service.operations.create import check_growth, check_options, create, known_game, start
from service.servers import state, values
from service.servers.addresses import Address, address_in
from service.servers.names import PORTS, PortName, services_with
from service.servers.objects import Objects, RconPassword
from service.servers.spec import Record, customer_of_claim, record_of_objects, record_of_values, same
from service.web.auth import needs
from service.web.parsing import Blueprint

blueprint = Blueprint("servers", __name__, url_prefix="/api/v1/server", description="Game servers")

_SUCCESS: dict[str, Any] = {"success": True}
_WRITES = (
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
_PORT = (
    errors.ServerNotFound,
    errors.PortNotReady,
    errors.PortNotFound,
    errors.ObjectMissing,
    errors.FileAccessNotInstalled,
    errors.DiskNotNodeLocal,
    errors.DiskNotMade,
    errors.DiskNotReady,
)
_LOG_LINES = 5


@blueprint.route("/", methods=["GET"])
@needs("read")
@blueprint.arguments(schemas.ListQuery, location="query")
@blueprint.response(200, schemas.ServersAnswer)
@problems(errors.InvalidRequest)
def list_servers(query: dict[str, Any]) -> Response:
    """All servers, by pages

    A token confined to one customer gets only that customer's, so its pages may be shorter than `limit`.
    """
    page, continue_ = context().cluster.servers(query["limit"], query["continue_"])
    mine = ((objects, record_of_objects(objects)) for objects in page)
    servers = [
        _described(objects, record, state.state_of(objects))
        for objects, record in mine
        if caller().may_see(record.customer if record else customer_of_claim(objects.claim or {}))
    ]
    # Past marshmallow, which takes as long for a few hundred servers as all the rest.
    return jsonify({"success": True, "servers": servers, "continue": continue_})


@blueprint.route("/<id:id>/", methods=["POST"])
@needs("operate")
@blueprint.arguments(schemas.CreateServer)
@blueprint.response(201, schemas.Success)
@blueprint.alt_response(200, schema=schemas.Success, description="It was there already; nothing has changed")
@problems(
    *_WRITES,
    errors.ServerExists,
    errors.EulaNotAccepted,
    errors.DiskKept,
    errors.DiskBeingErased,
    errors.DiskCannotShrink,
    errors.DiskCannotGrow,
)
def create_server(body: dict[str, Any], id: int) -> tuple[dict[str, Any], int]:
    """Create a server

    The same request again changes nothing, even if the server was stopped since.
    """
    made = create(context(), caller(), id, body)
    return _SUCCESS, 201 if made else 200


@blueprint.route("/<id:id>/", methods=["GET"])
@needs("read")
@blueprint.response(200, schemas.ServerAnswer)
@problems(errors.ServerNotFound)
def get_server(id: int) -> dict[str, Any]:
    """A server: what it is, what it does and why"""
    objects = context().cluster.server(id)
    record = seen(objects)
    now = state.state_of(objects)
    if now.crashed:
        now = state.with_log(now, context().cluster.pod_log_tail(id, _LOG_LINES, now.previous))
    return {"success": True, **_described(objects, record, now)}


@blueprint.route("/<id:id>/", methods=["PATCH"])
@needs("operate")
@blueprint.arguments(schemas.UpdateServer)
@blueprint.response(200, schemas.Changed)
@problems(*_WRITES, errors.DiskCannotShrink, errors.DiskCannotGrow)
def update_server(body: dict[str, Any], id: int) -> dict[str, Any]:
    """Resize a server or change its options

    Of `options`, those named change, and null takes one back to the game's default. A running server restarts if
    the change is one that its pod has to take; `restarting` says whether.
    """
    there, claim, restarting = context(), found(id).claim, False

    def change(current: values.Values) -> values.Values:
        nonlocal restarting
        before = record_of_values(current)
        after = _updated(before, body)
        check_growth(there, claim, before.disk_gb, after.disk_gb)
        old, without, wanted = _rendered(there, id, before, after, body.get("options", {}).keys())
        new = values.completed(values.changed(current, old, wanted), without, wanted)
        restarting = values.restarts(current, new)
        return values.reachable(new, there.settings.external_host) if new != current else current

    changed = there.releases.change(id, change)
    return {"success": True, "restarting": changed and restarting}


@blueprint.route("/<id:id>/", methods=["DELETE"])
@needs("admin")
@blueprint.arguments(schemas.DeleteQuery, location="query")
@blueprint.response(200, schemas.Success)
@problems(errors.InvalidRequest, *_WRITES)
def delete_server(query: dict[str, Any], id: int) -> dict[str, Any]:
    """Delete a server; its disk is kept unless `disk=erase`

    Works on a kept disk too: 404 only where there is neither.
    """
    there = context()
    with there.releases.locked(id):
        objects = there.cluster.server(id)
        if objects.claim is None and not state.exists(objects):
            raise errors.ServerNotFound()
        _check_owner(objects)
        lives = objects.statefulset is not None and "deletionTimestamp" not in objects.statefulset["metadata"]
        if lives and there.releases.current(id) is None:
            raise errors.ReleaseMissing()
        # First of all, as a repeated DELETE that finds neither server nor disk would not come here again.
        forget(there.accounts, id)
        if state.exists(objects):
            there.cluster.keep_disk(id, timestamp())
            there.releases.uninstall(id)
        if objects.claim is not None:
            # A disk that never was is no disk to keep.
            erase_disk(there, id, unless_used=query["disk"] != "erase")
    return _SUCCESS


@blueprint.route("/<id:id>/start", methods=["PATCH"])
@needs("operate")
@blueprint.response(200, schemas.Success)
@problems(*_WRITES)
def start_server(id: int) -> dict[str, Any]:
    """Start a server; one that runs goes on running

    What is missing of it is made again. One that Kubernetes would try to run only after a pause, since it has crashed
    or was refused before, is tried at once.
    """
    found(id)
    there = context()
    with there.releases.locked(id):
        start(there, there.cluster.server(id))
    return _SUCCESS


@blueprint.route("/<id:id>/stop", methods=["PATCH"])
@needs("operate")
@blueprint.response(200, schemas.Success)
@problems(*_WRITES)
def stop_server(id: int) -> dict[str, Any]:
    """Stop a server; the game saves its world first"""
    found(id)
    context().releases.change(id, lambda current: values.started(current, False))
    return _SUCCESS


@blueprint.route("/<id:id>/restart", methods=["PATCH"])
@needs("operate")
@blueprint.response(200, schemas.Success)
@problems(*_WRITES)
def restart_server(id: int) -> dict[str, Any]:
    """Restart a server; one that is stopped starts"""
    found(id)
    there = context()

    def restarted(current: values.Values) -> values.Values:
        return values.reachable(values.restarted(current, datetime.now(UTC)), there.settings.external_host)

    there.releases.change(id, restarted)
    return _SUCCESS


def _port(id: int, type: PortName) -> dict[str, Any]:
    objects = found(id)
    if type == "sftp":
        reachable(objects).host_keys()
    address = address_in(type, id, objects.services)
    if address is None:
        raise _no_port(objects, type)
    if type == "sftp":
        check_disk(objects)
    return {"success": True, **_port_entry(objects, address)}


@blueprint.route("/<id:id>/port/<any(primary, rcon, sftp):type>", methods=["PATCH"])
@needs("read")
@blueprint.response(200, schemas.PortAnswer)
@problems(*_PORT)
def patch_port(id: int, type: PortName) -> dict[str, Any]:
    """Where the game, its RCON or its files are reached

    It stays the same for the server's life; `host` is null until the server's disk has a node.
    The files' port is given from the server's first start on.
    """
    return _port(id, type)


@blueprint.route("/<id:id>/port/<any(primary, rcon, sftp):type>", methods=["GET"])
@needs("read")
@blueprint.response(200, schemas.PortAnswer)
@problems(*_PORT)
def get_port(id: int, type: PortName) -> dict[str, Any]:
    """The same as PATCH"""
    return _port(id, type)


@blueprint.route("/<id:id>/rcon", methods=["GET"])
@needs("operate")
@blueprint.response(200, schemas.RconAnswer)
@problems(
    errors.ServerNotFound,
    errors.PortNotReady,
    errors.PortNotFound,
    errors.ObjectMissing,
    errors.RconPasswordReplaced,
)
def get_rcon(id: int) -> dict[str, Any]:
    """Host, port and password of RCON"""
    objects = found(id)
    address = address_in("rcon", id, objects.services)
    password = context().cluster.rcon_password(id)
    if address is None or password is None:
        raise _no_port(objects, "rcon")
    if not _knows(objects.pod, password):
        raise errors.RconPasswordReplaced()
    return {"success": True, "host": _host(objects, address), "port": address.port, "password": password.text}


# -- the parts of the stories above ------------------------------------------------------------------------


def _updated(before: Record, body: Mapping[str, Any]) -> Record:
    options = {**before.options, **body.get("options", {})}
    return replace(
        before,
        ram_gb=body.get("ram_gb", before.ram_gb),
        disk_gb=body.get("disk_gb", before.disk_gb),
        options={name: value for name, value in options.items() if value is not None},
    )


def _rendered(
    there: Context, id: int, before: Record, after: Record, asked: Set[str]
) -> tuple[values.Values, values.Values, values.Values]:
    """The values of the record before, of that after without the options asked for, and after.

    They are as a create would make them today. The first and the last differ in what the change is about; the last
    two in all that belongs to an option, of which an earlier template may have left out a part (how a list goes into
    its file).
    """
    game = known_game(there.games, before.game)
    if not same(before.options, after.options):
        check_options(game, after.options)
    others = {name: value for name, value in after.options.items() if name not in asked}
    # A game may ask for some option: its template is shown nothing without it.
    without = after if game.errors(others) else replace(after, options=others)
    taken_back = before.options.keys() - after.options.keys()

    def made(record: Record, gone: Set[str] = frozenset()) -> values.Values:
        return values.values_of(id, record, game.render(id, record, taken_back=gone), there.operator_values)

    return made(before), made(without), made(after, taken_back)


def _check_owner(objects: Objects) -> None:
    if caller().customer is None:
        return
    record = record_of(objects)
    if not caller().may_see(record.customer if record else customer_of_claim(objects.claim or {})):
        raise errors.ServerNotFound()


def _no_port(objects: Objects, type: PortName) -> errors.Problem:
    names = {f"Service {name}" for name in services_with(type, objects.id)}
    needed = names | {f"Secret server-{objects.id}-rcon"} if type == "rcon" else names
    if missing := sorted(needed.intersection(context().releases.missing(objects.id))):
        return errors.ObjectMissing(f"{' and '.join(missing)} is gone. A start of the server makes it again.")
    there = any(
        port.get("name") == type for service in objects.services.values() for port in service["spec"].get("ports", [])
    )
    return errors.PortNotReady() if there or objects.statefulset is None else errors.PortNotFound()


def _knows(pod: Mapping[str, Any] | None, password: RconPassword) -> bool:
    """Whether the game, if it runs, has read this password; it reads it when its container starts."""
    if pod is None or pod["metadata"]["creationTimestamp"] >= password.since:
        return True
    containers = pod.get("status", {}).get("containerStatuses", [])
    started = [container.get("state", {}).get("running", {}).get("startedAt", "") for container in containers]
    # The kubelet may bring the new Secret into the pod as late as this.
    read_by = datetime.fromisoformat(password.since) + timedelta(minutes=2)
    return not any(started) or all(datetime.fromisoformat(time) > read_by for time in started if time)


def _host(objects: Objects, address: Address) -> str | None:
    """What a customer enters as the host: the Service's own, else the operator's, else that of the disk's node."""
    return address.host or context().settings.external_host or context().cluster.host(objects)


def _described(objects: Objects, record: Record | None, now: state.State) -> dict[str, Any]:
    kinds = PORTS if context().settings.sftp_namespace else ("primary", "rcon")
    found_ = {kind: address_in(kind, objects.id, objects.services) for kind in kinds}
    addresses: dict[PortName, Address] = {kind: address for kind, address in found_.items() if address is not None}
    primary = addresses.get("primary")
    return {
        "id": objects.id,
        "game": record.game if record else None,
        "ram_gb": record.ram_gb if record else None,
        "disk_gb": record.disk_gb if record else None,
        "options": record.options if record else None,
        "wanted": now.wanted,
        "state": now.state,
        "reason": now.reason,
        "since": now.since,
        "host": _host(objects, primary) if primary else None,
        "ports": {kind: _port_entry(objects, address) for kind, address in addresses.items()},
    }


def _port_entry(objects: Objects, address: Address) -> dict[str, Any]:
    return {"port": address.port, "protocol": address.protocol, "host": _host(objects, address)}
