"""What is kept about a server's backups: one record for each server's uid, which outlives the server.

The record's keys: `server` says whose the backups are, `repository` how the server's part of the store is, and each
backup has a key of its own, its id. All texts are JSON.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, TypeVar

from service.errors import OperationInProgress
from service.kube.client import Conflict
from service.records.store import Record, RecordStore, RecordWatch

log = logging.getLogger(__name__)

KIND = "backups"
"""The kind of the records."""
ID = re.compile(r"b-[0-9a-f]{20}")
"""A backup's id."""
TRIGGERS = ("manual", "schedule", "before-restore", "clone")
"""Why a backup was made: a call, a schedule, to keep the world that a restore replaces, or to clone the server."""
STATES = ("queued", "running", "done", "failed", "cancelled", "deleting")
CONSISTENCIES = ("game-saved", "stopped", "crash-like")
"""What the world is like in the backup: the game had saved it and held still, or was stopped, or neither."""
PLACES = ("store", "node")
"""Where a backup is: in the operator's store, or as a snapshot that lives and dies with its node."""
SUSPICIONS = ("empty", "smaller", "incomplete")
"""Why a backup may not be what its server's owner wants to have back."""
MOST = 64
"""A server's record has room for so many backups."""
_TRIES = 20
_T = TypeVar("_T")


@dataclass(frozen=True)
class Unreadable:
    """Files that the backup does not have: how many, and the first paths."""

    count: int = 0
    paths: tuple[str, ...] = ()


@dataclass(frozen=True)
class Backup:
    """A backup.

    Attributes:
        id: Its id.
        created: When it was asked for (RFC 3339).
        name, note: Its owner's texts.
        trigger: One of TRIGGERS.
        locked: Whether only its owner may delete it.
        operation: The id of the operation that makes it; None if it is not kept any more.
        state: One of STATES.
        reason: Why there is none, or None.
        finished: When it was done, failed or cancelled (RFC 3339), or None.
        consistency: One of CONSISTENCIES, or None before it is known.
        why: Why it is only crash-like, in plain words, or None.
        where: One of PLACES, or None before it is known.
        snapshot: restic's id of it; of one on the node, the VolumeSnapshot's name. "" before it is known.
        size_bytes, files: What is in it; None if nobody has counted.
        added_bytes: What it added to the store, packed; None for one on the node.
        unreadable: What it lacks.
        suspicious: One of SUSPICIONS, or None.
        accepted: Whether its owner has said that it is as it should be, although it is suspicious.
        checked_at: When the structure of its repository was last found whole (RFC 3339), or None.
        proven_at: When it was last restored and compared with its list (RFC 3339), or None.
    """

    id: str
    created: str
    name: str = ""
    note: str = ""
    trigger: str = "manual"
    locked: bool = False
    operation: str | None = None
    state: str = "queued"
    reason: str | None = None
    finished: str | None = None
    consistency: str | None = None
    why: str | None = None
    where: str | None = None
    snapshot: str = ""
    size_bytes: int | None = None
    files: int | None = None
    added_bytes: int | None = None
    unreadable: Unreadable = Unreadable()
    suspicious: str | None = None
    accepted: bool = False
    checked_at: str | None = None
    proven_at: str | None = None

    @property
    def unfinished(self) -> bool:
        """Whether it is still being made."""
        return self.state in STATES[:2]

    @property
    def not_made(self) -> bool:
        """Whether there is none: it has failed, or somebody has cancelled it."""
        return self.state in ("failed", "cancelled")

    @property
    def doubtful(self) -> bool:
        """Whether it is suspicious, and its owner has not accepted it."""
        return self.suspicious is not None and not self.accepted

    @property
    def good(self) -> bool:
        """Whether it is done, and not doubtful."""
        return self.state == "done" and not self.doubtful


@dataclass(frozen=True)
class Repository:
    """A server's repository in the store.

    Attributes:
        made: When it was made (RFC 3339), or None.
        pruned_at: When it was last pruned, or None.
        checked_at: When its structure was last found whole, or None.
        fault: What the last check or prune found wrong, or None.
        fault_since, fault_at: When that was found first, and last (RFC 3339), or None.
        stored_bytes: The packed size of all its backups, or None.
        proof: What proofs said; see `backups/tasks.py`. {} before the first.
        unlisted: What the next prune forgets: restic's ids of backups that are deleted, and the ids of backups that may
            have been stored although nobody knows restic's.
        task: What the controller is doing for it now (`controller/keep.py`), written before it begins; {} for nothing.
    """

    made: str | None = None
    pruned_at: str | None = None
    checked_at: str | None = None
    fault: str | None = None
    fault_since: str | None = None
    fault_at: str | None = None
    stored_bytes: int | None = None
    proof: Mapping[str, Any] = field(default_factory=dict)
    unlisted: tuple[str, ...] = ()
    task: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Before:
    """A world that a restore has replaced, and that can be had back.

    Attributes:
        operation: The restore, or the undo.
        at: When it was replaced (RFC 3339).
        where: `disk` (a folder beside it), `snapshot` or `backup`.
        reference: The VolumeSnapshot's name or the backup's id; "" in the disk.
        paths: The paths that were restored; empty for the whole world.
    """

    operation: str
    at: str
    where: str
    reference: str = ""
    paths: tuple[str, ...] = ()


@dataclass(frozen=True)
class ServerBackups:
    """All that is kept about a server's backups.

    Attributes:
        uid, id, customer, game: The server.
        deleted: When the server was deleted (RFC 3339), or None.
        erase: Whether somebody has asked to erase all of them once the server is deleted.
        repository: Its repository.
        backups: Its backups, oldest first.
        befores: Worlds of before restores, oldest first.
    """

    uid: str
    id: int
    customer: str
    game: str = ""
    deleted: str | None = None
    erase: bool = False
    repository: Repository = Repository()
    backups: tuple[Backup, ...] = ()
    befores: tuple[Before, ...] = ()

    def backup(self, id: str) -> Backup | None:
        """The backup with this id; None if there is none."""
        return next((backup for backup in self.backups if backup.id == id), None)

    def with_backup(self, backup: Backup) -> ServerBackups:
        """With this backup in the place of the one with its id, or as a new one."""
        if self.backup(backup.id) is None:
            return replace(self, backups=(*self.backups, backup))
        return replace(self, backups=tuple(backup if each.id == backup.id else each for each in self.backups))

    def without(self, id: str) -> ServerBackups:
        """Without the backup with this id."""
        return replace(self, backups=tuple(backup for backup in self.backups if backup.id != id))


Change = Callable[[ServerBackups], ServerBackups]


def id_of(operation: str) -> str:
    """The id of the backup that this operation makes."""
    return f"b-{hashlib.sha256(operation.encode()).hexdigest()[:20]}"


class BackupStore:
    """The records. Thread-safe. Every method may raise ClusterUnavailable.

    Args:
        records: The store of the kind KIND.
    """

    def __init__(self, records: RecordStore) -> None:
        self._records = records

    def of(self, uid: str) -> ServerBackups | None:
        """What is kept of the server with this uid; None if nothing is."""
        record = self._records.get(uid)
        return None if record is None else server_backups(record)

    def change(self, uid: str, change: Change, new: ServerBackups | None = None) -> ServerBackups:
        """Write `change(what is kept)`, and return it. After a conflict, `change` is called again.

        Args:
            uid: The server's uid.
            change: What to write; it may raise, and then nothing is written. If it returns what is there, nothing is
                written either.
            new: What `change` starts from if nothing is kept yet.

        Raises:
            KeyError: Nothing is kept of this server, and there is no `new`.
            OperationInProgress: Others kept writing at the same time.
            RecordTooLarge: There is no more room.
        """
        for _ in range(_TRIES):
            record = self._records.get(uid)
            if record is None and new is None:
                raise KeyError(uid)
            before = server_backups(record) if record is not None else new
            assert before is not None
            after = change(before)
            if record is not None and after == before:
                return after
            try:
                if record is None:
                    self._records.create(uid, _texts(after))
                else:
                    texts = _texts(after)
                    removed = dict.fromkeys(key for key in record.data if key not in texts)
                    changed = {key: text for key, text in texts.items() if record.data.get(key) != text}
                    self._records.change(record, {**changed, **removed})
                return after
            except Conflict:
                continue
        raise OperationInProgress("Others are writing about the backups of this server.")

    def delete(self, uid: str) -> None:
        """Delete what is kept of a server; nothing kept is no error. Raises OperationInProgress if others write."""
        record = self._records.get(uid)
        try:
            if record is not None:
                self._records.delete(record)
        except Conflict as conflict:
            raise OperationInProgress("Others are writing about the backups of this server.") from conflict

    def watch(self, listener: Callable[[ServerBackups, bool], None] = lambda backups, deleted: None) -> BackupWatch:
        """What is kept, in memory and up to date; the listener gets each change, and whether it was deleted."""
        return BackupWatch(self._records.watch_as(server_backups, listener))


class BackupWatch:
    """What is kept of all servers, by uid, in memory and so some moments old. Thread-safe."""

    def __init__(self, watch: RecordWatch[ServerBackups]) -> None:
        self.start = watch.start
        self.wait = watch.wait
        self.lost_for = watch.lost_for
        self.of = watch.get
        self.all = watch.all

    def of_backup(self, id: str) -> ServerBackups | None:
        """What is kept of the server that this is a backup of, some moments old; None if nothing is known."""
        return next((kept for kept in self.all() if kept.backup(id) is not None), None)


# -- as texts -----------------------------------------------------------------------------------------------


def _texts(kept: ServerBackups) -> dict[str, str]:
    server: dict[str, Any] = {"id": kept.id, "customer": kept.customer, "game": kept.game, "deleted": kept.deleted}
    if kept.erase:
        server["erase"] = True
    texts = {"server": _json(server), "repository": _json(asdict(kept.repository))}
    if kept.befores:
        texts["befores"] = _json([asdict(before) for before in kept.befores])
    for backup in kept.backups:
        texts[backup.id] = _json({key: value for key, value in asdict(backup).items() if key != "id"})
    return texts


def server_backups(record: Record) -> ServerBackups:
    """What a record says. What somebody has broken by hand is left out, and logged."""
    server = _mapping(record, "server")
    kept = ServerBackups(
        uid=record.name,
        id=int(server.get("id") or 0),
        customer=str(server.get("customer") or ""),
        game=str(server.get("game") or ""),
        deleted=server.get("deleted") or None,
        erase=server.get("erase") is True,
        repository=_made(Repository, _mapping(record, "repository")) or Repository(),
    )
    befores = _value(record, "befores") or []
    backups = [_made(Backup, {**_mapping(record, key), "id": key}) for key in record.data if ID.fullmatch(key)]
    return replace(
        kept,
        backups=tuple(sorted(filter(None, backups), key=lambda backup: (backup.created, backup.id))),
        befores=tuple(filter(None, (_made(Before, before) for before in befores if isinstance(before, Mapping)))),
    )


def _made(kind: type[_T], values: Mapping[str, Any]) -> _T | None:
    """An object of a dataclass from JSON; fields of a later version are left out."""
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    values = {name: value for name, value in values.items() if name in known}
    try:
        if isinstance(values.get("unreadable"), Mapping):
            unreadable = values["unreadable"]
            values["unreadable"] = Unreadable(unreadable["count"], tuple(unreadable["paths"]))
        for name in ("unlisted", "paths"):
            if name in values:
                values[name] = tuple(values[name])
        return kind(**values)
    except (KeyError, TypeError) as error:
        log.warning("a record of backups cannot be read: %s", error)
        return None


def _mapping(record: Record, key: str) -> Mapping[str, Any]:
    value = _value(record, key)
    return value if isinstance(value, Mapping) else {}


def _value(record: Record, key: str) -> Any:
    try:
        return json.loads(record.data.get(key, "null"))
    except ValueError:
        log.warning("the record %s-%s is not JSON at %s", KIND, record.name, key)
        return None


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
