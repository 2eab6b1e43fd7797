"""A customer's way to the server's files: a password, public keys, and the host's fingerprints."""

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
    """The account, the host keys that a client shows at the first login, and a password that was made just now."""

    account: Account
    host_keys: list[str]
    password: str | None = None


def get(context: Context, target: Target) -> FileAccess:
    """How the server's files are reached; raises FileAccessNotInstalled or DiskNotNodeLocal."""
    accounts = reachable(context, target.objects)
    host_keys = accounts.host_keys()
    return FileAccess(_of(target, accounts.account(target.id)), host_keys)


def change(context: Context, target: Target, request: Mapping[str, Any]) -> FileAccess:
    """Set a new password, take it away, or replace the public keys.

    `request` is a loaded schemas.SetAccount. Raises InvalidRequest naming each key that is none, and DiskNotMade or
    DiskNotReady where a credential would be given out that nobody could use yet.
    """
    accounts = reachable(context, target.objects)
    if request.get("password") or request.get("public_keys"):
        check_disk(target.objects)
    host_keys = accounts.host_keys()
    keys = _checked(request["public_keys"]) if "public_keys" in request else None
    password = credentials.new_password() if request.get("password") else None
    password_hash = credentials.password_hash(password) if password else None

    def changed(account: Account) -> Account:
        account = _of(target, account)
        if keys is not None:
            account = replace(account, public_keys=keys)
        if "password" in request:
            account = replace(account, password_hash=password_hash)
        return account

    return FileAccess(accounts.change(target.id, changed), host_keys, password)


def _of(target: Target, account: Account) -> Account:
    """The account, or an empty one where it is that of another server which had this id."""
    uid = own_uid(target.objects)
    mine = uid is None or account.uid in (None, uid)
    return replace(account, uid=uid) if mine else Account(uid=uid)


def reachable(context: Context, objects: Objects) -> Accounts:
    """The accounts, for a server whose disk can be reached; raises FileAccessNotInstalled or DiskNotNodeLocal."""
    if objects.claim is not None and not context.accounts.node_local(objects.claim):
        raise DiskNotNodeLocal()
    return context.accounts


def check_disk(objects: Objects) -> None:
    """Raise DiskNotMade or DiskNotReady where nobody could connect yet: a disk is made by the server's first start."""
    if objects.claim is not None and objects.claim.get("status", {}).get("phase") != "Pending":
        return
    if (objects.statefulset or {}).get("spec", {}).get("replicas", 1):
        raise DiskNotReady()
    raise DiskNotMade()


def _checked(lines: Sequence[str]) -> tuple[str, ...]:
    keys, wrong = [], {}
    for number, line in enumerate(lines):
        try:
            keys.append(credentials.public_key(line))
        except ValueError as error:
            wrong[f"public_keys.{number}"] = [str(error)]
    if wrong:
        raise InvalidRequest(errors=wrong)
    return tuple(dict.fromkeys(keys))
