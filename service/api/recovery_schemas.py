"""The schema of the call that brings a server back, and of its answer."""

from __future__ import annotations

from marshmallow import fields, validate

from service.backups.records import ID as BACKUP_ID
from service.web.fields import Options, Schema, Success, Text

_UID = r"[0-9A-Za-z-]{1,63}"
_SNAPSHOT = r"[0-9a-f]{64}"
_TIME = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z"
MOST_BACKUPS = 50


def _matching(pattern: str, what: str) -> Text:
    return Text(
        required=True,
        validate=validate.Regexp(rf"{pattern}\Z", error=f"must be {what}"),
        metadata={"pattern": f"^{pattern}$"},
    )


class StoredBackup(Schema):
    id = _matching(BACKUP_ID.pattern, "a backup's id")
    snapshot = _matching(_SNAPSHOT, "an id of restic's")
    created = _matching(_TIME, "a time such as 2026-11-27T12:00:00Z")


class Recover(Schema):
    uid = _matching(_UID, "a server's uid")
    values = Options(
        required=True,
        metadata={"description": "The values of the server's release when its newest backup was made."},
    )
    backups = fields.List(
        fields.Nested(StoredBackup),
        required=True,
        validate=validate.Length(1, MOST_BACKUPS, error=f"must have from 1 to {MOST_BACKUPS} backups"),
        error_messages={"null": "must not be null", "invalid": "must be a list", "required": "is required"},
        metadata={"description": "The server's backups in the store, oldest first."},
    )


class RecoverAnswer(Success):
    operation = fields.String(
        required=True,
        allow_none=True,
        metadata={"description": "The operation that restores the server; null if it is there already."},
    )
