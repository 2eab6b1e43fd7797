"""The calls about backups, of a server and of servers that are gone; and the restores from them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from flask import Response, jsonify

from service import errors
from service.access import Subject
from service.api import backup_schemas as schemas
from service.api.context import caller, context, note, target
from service.api.operations import accepted
from service.api.schemas import IdempotencyHeaders, OperationAnswer
from service.backups.records import Backup, ServerBackups
from service.backups.retention import stored_bytes
from service.kube.times import stamp
from service.operations import backups
from service.operations.restore import restore, undo_restore
from service.web.parking import parked, require_room
from service.web.parsing import Blueprint
from service.web.routes import access, problems

blueprint = Blueprint("backups", __name__, url_prefix="/api/v1", description="Backups")

_NEW_SECONDS = 1.0
"""How long a call waits for a backup that another replica may just have accepted."""
_RECORD_PROBLEMS = (errors.OperationFailed,)
_READ_PROBLEMS = (errors.ServerNotFound, *_RECORD_PROBLEMS)
_BACKUP_PROBLEMS = (errors.BackupNotFound, errors.OperationInProgress, errors.Suspended)
_WORLD_PROBLEMS = (
    *_READ_PROBLEMS,
    errors.OperationInProgress,
    errors.ReleaseMissing,
    errors.Suspended,
    errors.IdempotencyKeyReused,
)
_CONSISTENT = {
    "game-saved": "The game had saved its world, and held still.",
    "stopped": "The server was stopped.",
    "crash-like": "The game was running, so the world is as after a power cut.",
}
_PLACES = {
    "store": "It is in the operator's store.",
    "node": "It is on the node of the server's disk: it lives and dies with that node.",
}
_SUSPICIONS = {
    "empty": "There are no files in it.",
    "smaller": "It has less than half of what the last good one has.",
    "incomplete": "It lacks files that could not be read.",
}


@blueprint.route("/server/<id:id>/backup/", methods=["POST"])
@access("backup:create", Subject.SERVER, audited=True)
@blueprint.arguments(schemas.MakeBackup)
@blueprint.arguments(IdempotencyHeaders, location="headers")
@blueprint.response(202, OperationAnswer)
@problems(*_WORLD_PROBLEMS, errors.DiskNotMade, errors.BackupsNotPossible, errors.TooManyBackups)
def make_backup(body: dict[str, Any], headers: dict[str, Any], id: int) -> Any:
    """Back up a server

    It answers at once with an operation, whose `backup` is the id of the new backup. The game goes on: it holds still
    for a moment, and so is saved, if its folder says how.
    """
    return accepted(backups.make(context(), caller(), target(), body, headers["key"]))


@blueprint.route("/server/<id:id>/backup/", methods=["GET"])
@access("backup:read", Subject.SERVER)
@blueprint.response(200, schemas.ServerBackupsAnswer)
@problems(*_READ_PROBLEMS)
def list_server_backups(id: int) -> dict[str, Any]:
    """List the server's backups, newest first; its bounds, and the restores that can be undone"""
    settings, spec = context().settings, target().spec
    kept = backups.of_server(context(), target())
    return {
        "success": True,
        "backups": [_fields(kept, backup) for backup in reversed(kept.backups)],
        "stored_bytes": stored_bytes(kept),
        "most": settings.backups_per_server,
        "most_gb": settings.backup_gb_per_server or None,
        "keep": vars((spec and spec.backup_keep) or settings.backup_keep),
        "undo": _undoable(kept, settings.backup_undo_days),
    }


@blueprint.route("/server/<id:id>/backup/<backup:backup>", methods=["GET"])
@access("backup:read", Subject.SERVER)
@blueprint.response(200, schemas.BackupAnswer)
@problems(errors.BackupNotFound, *_READ_PROBLEMS)
def get_server_backup(id: int, backup: str) -> dict[str, Any]:
    """Get a backup of the server"""
    return _answer(backups.of_target(context(), target(), backup))


@blueprint.route("/server/<id:id>/backup/<backup:backup>", methods=["PATCH"])
@access("backup:create", Subject.SERVER, audited=True)
@blueprint.arguments(schemas.ChangeBackup)
@blueprint.response(200, schemas.BackupAnswer)
@problems(errors.InvalidRequest, *_BACKUP_PROBLEMS, errors.TooManyBackups, *_READ_PROBLEMS)
def change_server_backup(body: dict[str, Any], id: int, backup: str) -> dict[str, Any]:
    """Rename, annotate, lock, unlock or accept a backup

    A locked one is deleted neither by a call nor to make room for others. A suspicious one that is accepted counts as a
    good one, so that older ones go for it.
    """
    note(backup=backup)
    kept = backups.of_server(context(), target())
    return _answer(backups.change(context(), caller(), kept, backup, body))


@blueprint.route("/server/<id:id>/backup/<backup:backup>", methods=["DELETE"])
@access("backup:create", Subject.SERVER, audited=True)
@blueprint.response(202, OperationAnswer)
@problems(*_BACKUP_PROBLEMS, errors.BackupLocked, *_READ_PROBLEMS)
def delete_server_backup(id: int, backup: str) -> Any:
    """Delete a backup

    It answers at once with an operation; sent again meanwhile, with the same one.
    """
    note(backup=backup)
    kept = backups.of_server(context(), target())
    return accepted(backups.delete(context(), caller(), kept, backup))


@blueprint.route("/server/<id:id>/restore", methods=["POST"])
@access("backup:restore", Subject.SERVER, audited=True)
@blueprint.arguments(schemas.Restore)
@blueprint.arguments(IdempotencyHeaders, location="headers")
@blueprint.response(202, OperationAnswer)
@problems(
    errors.InvalidRequest, errors.BackupNotFound, errors.BackupNotUsable, *_WORLD_PROBLEMS, errors.DiskBeingDeleted
)
def restore_server(body: dict[str, Any], headers: dict[str, Any], id: int) -> Any:
    """Restore the server's world from one of its backups, or some of its files and folders

    It answers at once with an operation. The game stops for it, and starts as it was. The world of before is kept, so
    that the restore can be undone.
    """
    note(backup=body["backup"])
    return accepted(restore(context(), caller(), target(), body, headers["key"]))


@blueprint.route("/server/<id:id>/undo-restore", methods=["POST"])
@access("backup:restore", Subject.SERVER, audited=True)
@blueprint.arguments(schemas.UndoRestore)
@blueprint.arguments(IdempotencyHeaders, location="headers")
@blueprint.response(202, OperationAnswer)
@problems(errors.NothingToUndo, *_WORLD_PROBLEMS, errors.DiskBeingDeleted)
def undo_server_restore(body: dict[str, Any], headers: dict[str, Any], id: int) -> Any:
    """Undo a restore: the world of before comes back

    What the restore has brought is kept in its stead, so an undo can be undone too.
    """
    return accepted(undo_restore(context(), caller(), target(), body, headers["key"]))


@blueprint.route("/backup/", methods=["GET"])
@access("backup:read")
@blueprint.arguments(schemas.BackupsQuery, location="query")
@blueprint.response(200, schemas.BackupsAnswer)
@problems(errors.InvalidRequest, *_RECORD_PROBLEMS)
def list_backups(query: dict[str, Any]) -> Response:
    """List the backups of all servers, those of deleted ones too

    A page has the backups of at most `limit` servers, of each newest first.
    """
    page, continue_ = backups.page(
        context(),
        caller(),
        customer=query["customer"],
        server=None if query["server"] is None else int(query["server"]),
        uid=query["uid"],
        limit=query["limit"],
        after=query["continue_"],
    )
    listed = [_fields(kept, backup) for kept in page for backup in reversed(kept.backups)]
    return jsonify({"success": True, "backups": listed, "continue": continue_})


@blueprint.route("/backup/<backup:backup>", methods=["GET"])
@access("backup:read")
@blueprint.response(200, schemas.BackupAnswer)
@problems(errors.BackupNotFound, *_RECORD_PROBLEMS)
def get_backup(backup: str) -> Any:
    """Get a backup, also of a deleted server"""

    def answer() -> Any:
        return jsonify(_answer(backups.find(current, token, backup)))

    current, token = context(), caller()
    if backups.heard_of(current, backup):
        return answer()
    require_room()
    return parked(lambda: backups.heard_of(current, backup), answer, _NEW_SECONDS)


@blueprint.route("/backup/<backup:backup>", methods=["DELETE"])
@access("backup:create", audited=True)
@blueprint.response(202, OperationAnswer)
@problems(*_BACKUP_PROBLEMS, errors.BackupLocked, *_RECORD_PROBLEMS)
def delete_backup(backup: str) -> Any:
    """Delete a backup, also of a deleted server"""
    note(backup=backup)
    found = backups.find(context(), caller(), backup)
    return accepted(backups.delete(context(), caller(), found.kept, backup))


def _answer(found: backups.Found) -> dict[str, Any]:
    return {"success": True, **_fields(found.kept, found.backup)}


def _fields(kept: ServerBackups, backup: Backup) -> dict[str, Any]:
    """A backup in the shape of schemas.Backup."""
    names = ("id", "name", "note", "trigger", "locked", "created", "finished", "operation", "state", "reason")
    numbers = ("files", "size_bytes", "added_bytes", "checked_at", "proven_at")
    why = {"crash-like": backup.why} if backup.why else {}
    return {
        **{name: getattr(backup, name) for name in (*names, *numbers)},
        "server": {name: getattr(kept, name) for name in ("id", "uid", "customer", "game", "deleted")},
        "consistency": _said(backup.consistency, {**_CONSISTENT, **why}),
        "where": _said(backup.where, _PLACES),
        "unreadable": {"count": backup.unreadable.count, "paths": list(backup.unreadable.paths)},
        "suspicious": _said(backup.suspicious, _SUSPICIONS),
        "accepted": backup.accepted,
    }


def _said(slug: str | None, words: dict[str, str]) -> dict[str, str] | None:
    return None if slug is None else {"slug": slug, "detail": words.get(slug, "")}


def _undoable(kept: ServerBackups, days: int) -> list[dict[str, Any]]:
    """The restores that can be undone, newest first, in the shape of schemas.Undoable."""
    now, result = datetime.now(UTC), []
    for before in reversed(kept.befores):
        until = datetime.fromisoformat(before.at) + timedelta(days=days)
        if until > now:
            fields = {"restore": before.operation, "at": before.at, "until": stamp(until), "where": before.where}
            result.append({**fields, "paths": list(before.paths)})
    return result
