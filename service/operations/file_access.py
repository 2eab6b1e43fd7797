"""Read and change a server's SFTP account: its password, its public keys and the fingerprints of the host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from service.errors import DiskNotMade, DiskNotNodeLocal, DiskNotReady, InvalidRequest
from service.files import credentials
from service.files.accounts import Account
from service.operations.context import Context
from service.operations.interfaces import Accounts
from service.operations.visibility import Target
from service.servers.objects import Objects
from service.servers.spec import own_uid


@dataclass(frozen=True)
class FileAccess:
    """What the API says about a server's SFTP account.

    Attributes:
        account: The account, with a hash of its password.
        host_keys: The fingerprints that a client shows at the first login.
        password: The password, if this call has set it.
    """

    account: Account
    host_keys: list[str]
    password: str | None = None


def get(context: Context, target: Target) -> FileAccess:
    """Read the server's account; raises FileAccessNotInstalled or DiskNotNodeLocal."""
    accounts = accounts_for(context, target.objects)
    host_keys = accounts.host_keys()
    return FileAccess(_account_of(target, accounts.account(target.id)), host_keys)


def change(context: Context, target: Target, request: Mapping[str, Any]) -> FileAccess:
    """Set a new password, remove it, or replace the public keys.

    Args:
        context: The operation's collaborators.
        target: The server.
        request: A loaded schemas.SetAccount.

    Returns:
        The new account, with the password if the request asks for one.

    Raises:
        InvalidRequest: A public key is not valid; `errors` names each.
        DiskNotMade, DiskNotReady: Nobody could use the new credentials yet.
        FileAccessNotInstalled, DiskNotNodeLocal: File access is not possible.
    """
    accounts = accounts_for(context, target.objects)
    if request.get("password") or request.get("public_keys"):
        check_disk(target.objects)
    host_keys = accounts.host_keys()
    keys = _parse_keys(request["public_keys"]) if "public_keys" in request else None
    password = credentials.new_password() if request.get("password") else None
    password_hash = credentials.password_hash(password) if password else None

    def new_account(account: Account) -> Account:
        account = _account_of(target, account)
        if keys is not None:
            account = replace(account, public_keys=keys)
        if "password" in request:
            account = replace(account, password_hash=password_hash)
        return account

    return FileAccess(accounts.change(target.id, new_account), host_keys, password)


def _account_of(target: Target, account: Account) -> Account:
    """The account, or an empty one if it belongs to an earlier server with this id."""
    uid = own_uid(target.objects)
    same_server = uid is None or account.uid in (None, uid)
    return replace(account, uid=uid) if same_server else Account(uid=uid)


def accounts_for(context: Context, objects: Objects) -> Accounts:
    """The accounts, after a check that SFTP can reach the server's disk; raises DiskNotNodeLocal if it cannot.

    May raise FileAccessNotInstalled.
    """
    if objects.claim is not None and not context.accounts.node_local(objects.claim):
        raise DiskNotNodeLocal()
    return context.accounts


def check_disk(objects: Objects) -> None:
    """Raises DiskNotMade or DiskNotReady if the server has no disk yet; its first start creates one."""
    if objects.claim is not None and objects.claim.get("status", {}).get("phase") != "Pending":
        return
    if (objects.statefulset or {}).get("spec", {}).get("replicas", 1):
        raise DiskNotReady()
    raise DiskNotMade()


def _parse_keys(lines: Sequence[str]) -> tuple[str, ...]:
    """The public keys, each once; raises InvalidRequest, which names each line that is not a key."""
    keys, messages = [], {}
    for number, line in enumerate(lines):
        try:
            keys.append(credentials.public_key(line))
        except ValueError as error:
            messages[f"public_keys.{number}"] = [str(error)]
    if messages:
        raise InvalidRequest(errors=messages)
    return tuple(dict.fromkeys(keys))
