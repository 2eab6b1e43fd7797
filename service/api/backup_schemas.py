"""The schemas of requests and answers about backups."""

from __future__ import annotations

from typing import Any

from marshmallow import fields, validate

from service.api.schemas import DEFAULT_LIMIT, LARGEST_LIMIT, KeptBackups, check_customer
from service.backups.records import CONSISTENCIES, PLACES, STATES, SUSPICIONS, TRIGGERS
from service.backups.records import ID as BACKUP_ID
from service.tokens import CUSTOMER
from service.web.fields import Flag, QueryNumber, Schema, Success, Text, one_of

LONGEST_NAME, LONGEST_NOTE = 64, 200
MOST_PATHS = 100
# Printable characters; a server's backups are one record of 64 KiB, so they are few.
_PRINTABLE = r"[^\u0000-\u001f\u007f-\u009f\ufffe\uffff]"
# Relative, without empty parts, `.` and `..`, and not in the folder that is the service's own; see `check_paths`.
_PART = _PRINTABLE.replace("]", "/]")
_PATH = rf"^(?!\.gameserver(/|$))(?!\.{{1,2}}(/|$)){_PART}+(/(?!\.{{1,2}}(/|$)){_PART}+)*$"
_UID = r"[0-9A-Za-z-]{1,63}"


def _text(longest: int, **more: Any) -> Text:
    pattern = f"{_PRINTABLE}{{0,{longest}}}"
    message = f"must be at most {longest} printable characters"
    return Text(validate=validate.Regexp(rf"{pattern}\Z", error=message), metadata={"pattern": f"^{pattern}$"}, **more)


class MakeBackup(Schema):
    name = _text(LONGEST_NAME, load_default="")
    note = _text(LONGEST_NOTE, load_default="")
    locked = Flag(load_default=False)


class ChangeBackup(Schema):
    name = _text(LONGEST_NAME)
    note = _text(LONGEST_NOTE)
    locked = Flag()
    accepted = Flag(metadata={"description": "A suspicious one is as it should be, and counts as a good one."})


class Restore(Schema):
    backup = Text(
        required=True,
        validate=validate.Regexp(rf"{BACKUP_ID.pattern}\Z", error="must be a backup's id"),
        metadata={"pattern": f"^{BACKUP_ID.pattern}$"},
    )
    paths = fields.List(
        Text(metadata={"pattern": _PATH}),
        load_default=list,
        validate=validate.Length(max=MOST_PATHS, error=f"must have at most {MOST_PATHS} paths"),
        error_messages={"null": "must not be null", "invalid": "must be a list"},
        metadata={"description": "Files and folders of the disk, such as world/region. None: the whole world."},
    )


class UndoRestore(Schema):
    restore = Text(
        load_default=None,
        allow_none=True,
        validate=validate.Regexp(r"op-[0-9a-f]{26}\Z", error="must be an operation's id"),
        metadata={"pattern": "^op-[0-9a-f]{26}$", "description": "The restore. null: the latest."},
    )


class BackupsQuery(Schema):
    customer = Text(load_default=None, validate=check_customer, metadata={"pattern": f"^{CUSTOMER.pattern}$"})
    server = Text(
        load_default=None,
        validate=validate.Regexp(r"[1-9][0-9]{0,18}\Z", error="must be a server's id"),
        metadata={"pattern": "^[1-9][0-9]{0,18}$", "description": "Of all servers that have or had this id."},
    )
    uid = Text(
        load_default=None,
        validate=validate.Regexp(rf"{_UID}\Z", error="must be a server's uid"),
        metadata={"pattern": f"^{_UID}$", "description": "Read live; all others are some moments old."},
    )
    limit = QueryNumber(
        load_default=DEFAULT_LIMIT,
        validate=validate.Range(1, LARGEST_LIMIT, error=f"must be from 1 to {LARGEST_LIMIT}"),
        metadata={"description": "How many servers' backups a page has at most."},
    )
    continue_ = Text(
        data_key="continue",
        load_default=None,
        validate=validate.Regexp(rf"{_UID}\Z", error="must be the `continue` of an earlier answer"),
        metadata={"pattern": f"^{_UID}$", "description": "The `continue` of the previous page."},
    )


class Consistency(Schema):
    slug = fields.String(required=True, validate=one_of(*CONSISTENCIES))
    detail = fields.String(required=True)


class BackupPlace(Schema):
    slug = fields.String(required=True, validate=one_of(*PLACES))
    detail = fields.String(required=True)


class Suspicion(Schema):
    slug = fields.String(required=True, validate=one_of(*SUSPICIONS))
    detail = fields.String(required=True)


class BackedUpServer(Schema):
    id = fields.Integer(required=True)
    uid = fields.String(required=True)
    customer = fields.String(required=True)
    game = fields.String(required=True)
    deleted = fields.String(required=True, allow_none=True, metadata={"description": "When it was deleted."})


class UnreadableFiles(Schema):
    count = fields.Integer(required=True)
    paths = fields.List(fields.String(), required=True, metadata={"description": "The first of them."})


class Backup(Schema):
    id = fields.String(required=True)
    server = fields.Nested(BackedUpServer, required=True)
    name = fields.String(required=True)
    note = fields.String(required=True)
    trigger = fields.String(required=True, validate=one_of(*TRIGGERS))
    locked = fields.Boolean(required=True, metadata={"description": "Whether it stays until somebody unlocks it."})
    created = fields.String(required=True)
    finished = fields.String(required=True, allow_none=True)
    operation = fields.String(
        required=True, allow_none=True, metadata={"description": "What makes or deletes it, or has; kept for a day."}
    )
    state = fields.String(required=True, validate=one_of(*STATES))
    reason = fields.String(required=True, allow_none=True, metadata={"description": "Why there is none."})
    consistency = fields.Nested(
        Consistency, required=True, allow_none=True, metadata={"description": "What the world in it is like."}
    )
    where = fields.Nested(BackupPlace, required=True, allow_none=True)
    files = fields.Integer(required=True, allow_none=True)
    size_bytes = fields.Integer(required=True, allow_none=True, metadata={"description": "What a restore writes."})
    added_bytes = fields.Integer(
        required=True, allow_none=True, metadata={"description": "What it added to the store; null on the node."}
    )
    unreadable = fields.Nested(
        UnreadableFiles, required=True, metadata={"description": "Files of the world that it lacks."}
    )
    suspicious = fields.Nested(
        Suspicion, required=True, allow_none=True, metadata={"description": "Why it may not be what you expect."}
    )
    accepted = fields.Boolean(
        required=True, metadata={"description": "Whether somebody said that it is as it should be nevertheless."}
    )
    checked_at = fields.String(
        required=True, allow_none=True, metadata={"description": "When the store was last found whole."}
    )
    proven_at = fields.String(
        required=True, allow_none=True, metadata={"description": "When it was last restored for a test, and compared."}
    )


class BackupAnswer(Backup, Success):
    pass


class Undoable(Schema):
    restore = fields.String(required=True, metadata={"description": "The operation that replaced the world."})
    at = fields.String(required=True)
    until = fields.String(required=True, metadata={"description": "Until when it can be undone."})
    where = fields.String(required=True, validate=one_of("disk", "snapshot", "backup"))
    paths = fields.List(fields.String(), required=True, metadata={"description": "Empty for the whole world."})


class ServerBackupsAnswer(Success):
    backups = fields.List(fields.Nested(Backup), required=True)
    stored_bytes = fields.Integer(
        required=True, allow_none=True, metadata={"description": "What all of them take in the store; null if unknown."}
    )
    most = fields.Integer(required=True, metadata={"description": "How many the server may have."})
    most_gb = fields.Integer(
        required=True, allow_none=True, metadata={"description": "How many GiB they may take in the store."}
    )
    keep = fields.Nested(KeptBackups, required=True)
    undo = fields.List(
        fields.Nested(Undoable), required=True, metadata={"description": "Restores that can be undone, newest first."}
    )


class BackupsAnswer(Success):
    backups = fields.List(fields.Nested(Backup), required=True)
    continue_ = fields.String(data_key="continue", required=True, allow_none=True)
