"""Read and change a server's SFTP account: its password, its public keys and the fingerprints of the host."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from service.errors import DiskNotMade, DiskNotNodeLocal, DiskNotReady, InvalidRequest
from service.files import credentials
from service.files.accounts import Account
from service.operations.checks import RESTORE_SECONDS, require_not_suspended
from service.operations.context import Context
from service.operations.interfaces import Accounts
from service.operations.visibility import Target
from service.servers.accessors import wants_pod
from service.servers.diskjob import disk_is_made, disk_is_missing, disk_job, hindrance
from service.servers.objects import Objects
from service.servers.spec import own_uid, spec_of_objects
from service.tokens import Token

WAIT_SECONDS, PATIENCE_SECONDS = 8.0, 2.0
"""How long a call waits for a new disk at most, and how long if something is known to keep it from being made."""
_PAUSE_SECONDS = 0.25
# A node that has no room now rarely has some two seconds later.
_RETRY_SECONDS = 10


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


def change(context: Context, caller: Token, target: Target, request: Mapping[str, Any]) -> FileAccess:
    """Set a new password, remove it, or replace the public keys.

    Args:
        context: The operation's collaborators.
        caller: The caller.
        target: The server.
        request: A loaded schemas.SetAccount.

    Returns:
        The new account, with the password if the request asks for one.

    A new password or key makes the disk, if the server has never had one.

    Raises:
        InvalidRequest: A public key is not valid; `errors` names each.
        DiskNotMade, DiskNotReady: Nobody could use the new credentials yet.
        FileAccessNotInstalled, DiskNotNodeLocal: File access is not possible.
        Suspended: The server is suspended. Its credentials can still be removed.
    """
    adds = bool(request.get("password") or request.get("public_keys"))
    if adds:
        require_not_suspended(caller, target.suspended)
    accounts = accounts_for(context, target.objects)
    host_keys = accounts.host_keys()
    keys = _parse_keys(request["public_keys"]) if "public_keys" in request else None
    if adds:
        _ensure_disk(context, target.objects)
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
    """Raises DiskNotMade if the server has no disk yet, and DiskNotReady if its first start is creating one."""
    if objects.claim is not None and objects.claim.get("status", {}).get("phase") != "Pending":
        return
    if wants_pod(objects.statefulset):
        raise DiskNotReady()
    raise DiskNotMade()


def _ensure_disk(context: Context, objects: Objects) -> None:
    """Make the disk of a server that has never started, as far as that takes a few seconds only.

    Raises:
        DiskNotReady: It takes longer. The same call later finds the Job that makes the disk, or makes a new one.
        DiskNotMade: The API cannot make it: the claim or the StatefulSet is missing, or the API has no image for that.
        DiskNotNodeLocal: The disk is there now, and SFTP cannot reach it.
    """
    claim, statefulset = objects.claim, objects.statefulset
    spec = spec_of_objects(objects)
    if spec is not None and spec.restoring and not (claim or {}).get("spec", {}).get("volumeName"):
        # A clone's disk may have to be made on the node that has its snapshot: only the controller knows.
        raise DiskNotReady("The server's disk is being filled.", retry_after=RESTORE_SECONDS)
    phase = (claim or {}).get("status", {}).get("phase")
    stopped = statefulset is not None and not wants_pod(statefulset)
    if statefulset is None or not stopped or phase not in ("Pending", "Bound") or not context.settings.disk_image:
        check_disk(objects)
        return
    began = time.monotonic()
    disk = context.cluster.disk_job(objects.id)
    if disk_is_made(disk):
        return
    if disk_is_missing(disk):
        settings = context.settings
        context.cluster.make_disk(
            disk_job(objects.id, statefulset, settings.disk_image, settings.disk_image_pull_secrets)
        )
    while not disk_is_made(disk):
        waited = time.monotonic() - began
        # What keeps the disk from being made is often over in a moment, such as another pod's end.
        reason = hindrance(disk) if waited > PATIENCE_SECONDS else None
        if reason:
            raise DiskNotReady(f"The cluster cannot create the server's disk yet. {reason}", retry_after=_RETRY_SECONDS)
        if waited > WAIT_SECONDS:
            raise DiskNotReady()
        time.sleep(_PAUSE_SECONDS)
        disk = context.cluster.disk_job(objects.id)
    accounts_for(context, disk)


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
