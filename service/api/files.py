"""A customer's way to the server's files: user, password, public keys, and the host's fingerprints."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from marshmallow import fields, validate

from service import errors
from service.api import schemas
from service.api.document import problems
from service.files import credentials
from service.files.accounts import Account
from service.operations.context import context, found
from service.operations.interfaces import Accounts
from service.servers.names import server_name
from service.servers.objects import Objects
from service.web.auth import needs
from service.web.parsing import Blueprint

blueprint = Blueprint("sftp", __name__, url_prefix="/api/v1/server", description="Game servers")

_MOST_KEYS = 20


class SetAccount(schemas.Schema):
    password = schemas.Flag(
        metadata={"description": "true: a new one, shown in this answer alone; false: none; absent: as it is."}
    )
    public_keys = fields.List(
        schemas.Text(metadata={"format": "ssh-public-key"}),
        validate=validate.Length(max=_MOST_KEYS, error=f"must not be more than {_MOST_KEYS}"),
        error_messages={"null": "must not be null", "invalid": "must be a list"},
        metadata={
            "description": "All of them, in OpenSSH's form; they take the place of those before. Absent: as it is."
        },
    )


class AccountAnswer(schemas.Success):
    user = fields.String(required=True)
    password = fields.String(
        required=True, allow_none=True, metadata={"description": "A new password, shown this once; null otherwise."}
    )
    password_set = fields.Boolean(required=True)
    public_keys = fields.List(fields.String(), required=True)
    host_keys = fields.List(
        fields.String(), required=True, metadata={"description": "What a customer's client shows at the first login."}
    )


@blueprint.route("/<id:id>/sftp", methods=["GET"])
@needs("read")
@blueprint.response(200, AccountAnswer)
@problems(errors.ServerNotFound, errors.FileAccessNotInstalled, errors.DiskNotNodeLocal)
def get_sftp(id: int) -> dict[str, Any]:
    """How the server's files are reached

    The password itself is never shown again; `password_set` says whether there is one.
    """
    accounts = reachable(found(id))
    host_keys = accounts.host_keys()
    return _described(id, accounts.account(id), None, host_keys)


@blueprint.route("/<id:id>/sftp", methods=["PUT"])
@needs("operate")
@blueprint.arguments(SetAccount)
@blueprint.response(200, AccountAnswer)
@problems(
    errors.InvalidRequest,
    errors.ServerNotFound,
    errors.FileAccessNotInstalled,
    errors.DiskNotNodeLocal,
    errors.DiskNotMade,
    errors.DiskNotReady,
    errors.OperationInProgress,
)
def put_sftp(body: dict[str, Any], id: int) -> dict[str, Any]:
    """Set a new password, take it away, or replace the public keys

    A change works within seconds. Taking a password or a key away ends the server's sessions; adding one ends none.
    Credentials are given out from the server's first start on, which makes its disk; taking them away works always.
    """
    objects = found(id)
    accounts = reachable(objects)
    if body.get("password") or body.get("public_keys"):
        check_disk(objects)
    host_keys = accounts.host_keys()
    keys = _checked(body["public_keys"]) if "public_keys" in body else None
    password = credentials.new_password() if body.get("password") else None
    password_hash = credentials.password_hash(password) if password else None

    def change(account: Account) -> Account:
        if keys is not None:
            account = replace(account, public_keys=keys)
        if "password" in body:
            account = replace(account, password_hash=password_hash)
        return account

    return _described(id, accounts.change(id, change), password, host_keys)


def reachable(objects: Objects) -> Accounts:
    """The accounts, for a server whose disk can be reached; raises FileAccessNotInstalled or DiskNotNodeLocal."""
    accounts = context().accounts
    if accounts is None:
        raise errors.FileAccessNotInstalled()
    if objects.claim is not None and not accounts.node_local(objects.claim):
        raise errors.DiskNotNodeLocal()
    return accounts


def check_disk(objects: Objects) -> None:
    """Raise DiskNotMade or DiskNotReady where nobody could connect yet: a disk is made by the server's first start."""
    if objects.claim is not None and objects.claim.get("status", {}).get("phase") != "Pending":
        return
    if (objects.statefulset or {}).get("spec", {}).get("replicas", 1):
        raise errors.DiskNotReady()
    raise errors.DiskNotMade()


def forget(accounts: Accounts | None, id: int) -> None:
    """Take a server's access away, where there is file access at all."""
    if accounts is not None:
        accounts.remove(id)


def _checked(lines: list[str]) -> tuple[str, ...]:
    keys, wrong = [], {}
    for number, line in enumerate(lines):
        try:
            keys.append(credentials.public_key(line))
        except ValueError as error:
            wrong[f"public_keys.{number}"] = [str(error)]
    if wrong:
        raise errors.InvalidRequest(errors=wrong)
    return tuple(dict.fromkeys(keys))


def _described(id: int, account: Account, password: str | None, host_keys: list[str]) -> dict[str, Any]:
    return {
        "success": True,
        "user": server_name(id),
        "password": password,
        "password_set": account.password_hash is not None,
        "public_keys": list(account.public_keys),
        "host_keys": host_keys,
    }
