"""The calls for a server's SFTP account."""

from __future__ import annotations

from typing import Any

from service import errors
from service.access import Subject
from service.api import schemas
from service.api.context import caller, context, target
from service.operations import file_access
from service.servers.names import server_name
from service.web.parsing import Blueprint
from service.web.routes import access, problems

blueprint = Blueprint("sftp", __name__, url_prefix="/api/v1/server", description="Game servers")


@blueprint.route("/<id:id>/sftp", methods=["GET"])
@access("server:read", Subject.SERVER)
@blueprint.response(200, schemas.AccountAnswer)
@problems(errors.ServerNotFound, errors.FileAccessNotInstalled, errors.DiskNotNodeLocal)
def get_sftp(id: int) -> dict[str, Any]:
    """Get the server's SFTP account

    The password itself is never shown again; `password_set` says whether there is one.
    """
    return _account_fields(id, file_access.get(context(), target()))


@blueprint.route("/<id:id>/sftp", methods=["PUT"])
@access("files", Subject.SERVER, audited=True)
@blueprint.arguments(schemas.SetAccount)
@blueprint.response(200, schemas.AccountAnswer)
@problems(
    errors.InvalidRequest,
    errors.ServerNotFound,
    errors.FileAccessNotInstalled,
    errors.DiskNotNodeLocal,
    errors.DiskNotMade,
    errors.DiskNotReady,
    errors.OperationInProgress,
    errors.Suspended,
)
def put_sftp(body: dict[str, Any], id: int) -> dict[str, Any]:
    """Set a new password, remove it, or replace the public keys

    A change takes effect within seconds. Removing a password or a key ends the server's sessions; adding one ends none.
    The first password or key of a server that has never started makes its disk, so that files can be uploaded before
    the first start. That takes seconds. If it takes longer, the answer is `disk-not-ready`: send the call again later.
    You can always remove credentials.
    """
    return _account_fields(id, file_access.change(context(), caller(), target(), body))


def _account_fields(id: int, files: file_access.FileAccess) -> dict[str, Any]:
    """The answer, in the shape of schemas.AccountAnswer."""
    return {
        "success": True,
        "user": server_name(id),
        "password": files.password,
        "password_set": files.account.password_hash is not None,
        "public_keys": list(files.account.public_keys),
        "host_keys": files.host_keys,
    }
