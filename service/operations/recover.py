"""Creates a server again that a lost cluster had: with its old uid and settings, and the world of its newest backup."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from service.backups.records import Backup, Repository, ServerBackups
from service.errors import BackupsNotPossible, InvalidRequest, MissingScope, ReleaseMissing, ServerExists
from service.kube.times import now
from service.operations.context import Context
from service.operations.create import install
from service.operations.operation import Operation, Server
from service.operations.worlds import WAIT_SECONDS, accept_operation
from service.servers import values
from service.servers.spec import spec_of_values, uid_of_values
from service.servers.state import exists
from service.servers.values import Values
from service.tokens import Token


def recover(context: Context, caller: Token, id: int, request: Mapping[str, Any]) -> Operation | None:
    """Create the server again, and let the controller restore its newest backup.

    Args:
        context: The operation's collaborators.
        caller: The caller: an operator.
        id: The server's id.
        request: `uid`, the server's uid; `values`, those of its release when its newest backup was made; `backups`, its
            backups in the store, oldest first: `id`, `snapshot` (restic's id) and `created`.

    Returns:
        The operation that restores it; None if the server is there already.

    Raises:
        MissingScope: The token is confined.
        InvalidRequest: The values are those of another server.
        BackupsNotPossible: There is no store.
        ServerExists: Another server has the id.
        ReleaseMissing: Someone has deleted the release of the server that has the id.
        Problem: See `create` and `accept_operation`: a disk is kept, the cluster refuses it, …
    """
    if caller.confined:
        raise MissingScope(f"The token {caller.name} is confined to a customer or to servers.")
    uid, given = str(request["uid"]), request["values"]
    if (
        not isinstance(given.get("server"), Mapping)
        or uid_of_values(given) != uid
        or given["server"].get("id") != str(id)
    ):
        raise InvalidRequest(errors={"values": ["are those of another server"]})
    if context.settings.backup_store is None:
        raise BackupsNotPossible("This cluster has no store for backups.")
    spec = spec_of_values(given)
    backups = [_backup(each) for each in request["backups"]]
    with context.releases.locked(id, wait=WAIT_SECONDS):
        objects = context.cluster.server(id)
        if exists(objects):
            current = context.releases.current(id)
            if current is None:
                raise ReleaseMissing
            if uid_of_values(current) != uid:
                raise ServerExists("Another server has this id.")
            return None
        kept = ServerBackups(uid, id, spec.customer, spec.game, repository=Repository(made=now()))
        context.backups.change(uid, lambda record: _with(record, backups), kept)
        argument = {"from": {"backup": backups[-1].id, "uid": uid}}
        wanted_request = {"action": "recover", "server": id, "uid": uid}
        # A suspended server comes back too, and stays suspended.
        maker = replace(caller, scopes=caller.scopes | {"server:suspend"})
        operation = accept_operation(
            context, maker, None, "clone", Server(id, uid, spec.customer), argument, wanted_request
        )
        try:
            new = values.restoring(values.without_disk(_portable(given)), operation.id)
            install(context, caller, objects, spec, new, None)
        except BaseException:
            context.operations.cancel(operation)
            raise
        return operation


def _backup(given: Mapping[str, Any]) -> Backup:
    """A backup of which only the store is known."""
    created = str(given["created"])
    return Backup(
        id=str(given["id"]),
        created=created,
        state="done",
        finished=created,
        where="store",
        snapshot=str(given["snapshot"]),
    )


def _with(record: ServerBackups, backups: list[Backup]) -> ServerBackups:
    """The record with those of the backups that it lacks."""
    missing = [backup for backup in backups if record.backup(backup.id) is None]
    return replace(
        record, deleted=None, backups=tuple(sorted((*record.backups, *missing), key=lambda one: one.created))
    )


def _portable(given: Mapping[str, Any]) -> Values:
    """The values without what was about the lost cluster: its snapshots, operations and revisions."""
    kept = values.restored(given)
    kept.pop("keepPodInRevision", None)
    storage = {name: value for name, value in (kept.get("storage") or {}).items() if name != "dataSource"}
    return {**kept, "storage": storage}
