"""The calls for a server's ports and for RCON."""

from __future__ import annotations

from typing import Any

from service import errors
from service.access import Subject
from service.api import schemas
from service.api.context import caller, context, target
from service.api.servers import blueprint
from service.operations import addresses
from service.servers.names import PortName
from service.web.routes import access, problems

_PORT_PROBLEMS = (
    errors.ServerNotFound,
    errors.PortNotReady,
    errors.PortWithoutAddress,
    errors.PortNotFound,
    errors.ObjectMissing,
    errors.FileAccessNotInstalled,
    errors.DiskNotNodeLocal,
    errors.DiskNotMade,
    errors.DiskNotReady,
)


@blueprint.route("/<id:id>/port/<any(primary, rcon, sftp):type>", methods=["PATCH"])
@access("server:read", Subject.ADDRESS)
@blueprint.response(200, schemas.PortAnswer)
@problems(*_PORT_PROBLEMS)
def patch_port(id: int, type: PortName) -> dict[str, Any]:
    """Get the host and port of the game, of its RCON or of its files

    They stay the same for the server's life; `host` of a node port is null until the server's disk has a node.
    The port of the files is available from the server's first start.
    """
    return _port_answer(type)


@blueprint.route("/<id:id>/port/<any(primary, rcon, sftp):type>", methods=["GET"])
@access("server:read", Subject.ADDRESS)
@blueprint.response(200, schemas.PortAnswer)
@problems(*_PORT_PROBLEMS)
def get_port(id: int, type: PortName) -> dict[str, Any]:
    """The same as PATCH"""
    return _port_answer(type)


def _port_answer(name: PortName) -> dict[str, Any]:
    return {"success": True, **vars(addresses.port(context(), target(), name))}


@blueprint.route("/<id:id>/rcon", methods=["GET"])
@access("rcon:read", Subject.SERVER, audited=True)
@blueprint.response(200, schemas.RconAnswer)
@problems(
    errors.ServerNotFound,
    errors.PortNotReady,
    errors.PortWithoutAddress,
    errors.PortNotFound,
    errors.ObjectMissing,
    errors.RconPasswordReplaced,
    errors.Suspended,
)
def get_rcon(id: int) -> dict[str, Any]:
    """Get the host, port and password of RCON"""
    endpoint, password = addresses.rcon(context(), caller(), target())
    return {"success": True, "host": endpoint.host, "port": endpoint.port, "password": password}
