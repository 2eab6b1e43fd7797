"""Operations that take longer than a call, as records.

An operation is one record (kind `operation`), and its servers are in further ones (kind `operation-part`), because a
record has at most 64 KiB. The parts are created first: the operation begins to exist with its own record. The API
creates records, and asks for a cancellation by the key `cancel`. All else is written by the active controller.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from service.kube.client import Conflict
from service.kube.times import now
from service.records.store import Record, RecordStore, RecordWatch
from service.tokens import Token

if TYPE_CHECKING:
    from service.operations.interfaces import RecordStores

log = logging.getLogger(__name__)

ID = re.compile(r"op-[0-9a-f]{26}")
"""An operation's id."""
ACTIONS = {
    "start": "server:power",
    "stop": "server:power",
    "restart": "server:power",
    "suspend": "server:suspend",
    "unsuspend": "server:suspend",
    "upgrade": "server:write",
}
"""What can be done in bulk, and the scope that it needs."""
WORLD_ACTIONS = {
    "backup": "backup:create",
    "delete-backup": "backup:create",
    "restore": "backup:restore",
    "undo-restore": "backup:restore",
    "clone": "server:create",
}
"""What can be done with one server's world, and the scope that it needs; `controller/worlds.py` does it."""
RESTORES = ("restore", "undo-restore", "clone")
"""Those of them that bring a world to the server's disk."""
WHEN = {"now": tuple(ACTIONS), "idle": ("stop", "restart", "suspend", "upgrade"), "next-stop": ("suspend", "upgrade")}
"""When each server's turn comes, and the actions for which that makes sense."""
STATES = ("pending", "running", "done", "failed", "cancelled")
FINAL = STATES[2:]
OUTCOMES = ("pending", "waiting", "running", "done", "unchanged", "failed", "cancelled", "gone")
"""What has become of one server. `gone`: it was deleted meanwhile, even if another has its id now."""
ENDED = OUTCOMES[3:]

_OPERATION, _PART = "operation", "operation-part"
# Servers of a part: each takes up to 310 bytes.
_SERVERS = 200
_REASON_BYTES = 120


@dataclass(frozen=True)
class Server:
    """A server of an operation.

    Attributes:
        id, uid, customer: The server, as it was when the operation was accepted.
        outcome: One of OUTCOMES.
        reason: Why, or None.
        at: When its step began (RFC 3339), or None.
    """

    id: int
    uid: str
    customer: str
    outcome: str = "pending"
    reason: str | None = None
    at: str | None = None


@dataclass(frozen=True)
class Part:
    """Some of an operation's servers, as a record has them."""

    record: Record
    servers: tuple[Server, ...]


@dataclass(frozen=True)
class Progress:
    """How many of the servers are done (or needed nothing, or are gone), failed, and wait for their moment."""

    total: int
    done: int = 0
    failed: int = 0
    waiting: int = 0


@dataclass(frozen=True)
class Operation:
    """An operation.

    Attributes:
        id: Its id.
        action: One of ACTIONS or WORLD_ACTIONS.
        when: One of WHEN.
        argument: What the action needs besides the server, as JSON: the reason of a suspension, or None.
        maker: Who asked for it: the token's name and rights, without its hash.
        request: A hash of what was asked for.
        customer: The customer of all its servers; None if there are several. Without servers, the maker's.
        parts: The names of the records of its servers.
        created: When it was accepted (RFC 3339).
        state: One of STATES.
        step: What it is doing now, in plain words, or None.
        reason: Why it failed, or None.
        finished: When it ended (RFC 3339), or None.
        progress: How far it is, some seconds old.
        cancelling: Whether somebody has asked to cancel it.
        target: The server of one of WORLD_ACTIONS, which has no parts; None for one in bulk.
        work: How far one of WORLD_ACTIONS is, as JSON, for the controller.
        record: Its record; None before it is created.
    """

    id: str
    action: str
    when: str
    argument: Any
    maker: Token
    request: str
    customer: str | None
    parts: tuple[str, ...]
    created: str
    progress: Progress
    state: str = "pending"
    step: str | None = None
    reason: str | None = None
    finished: str | None = None
    cancelling: bool = False
    target: Server | None = None
    work: Mapping[str, Any] = field(default_factory=dict)
    record: Record | None = field(default=None, compare=False)

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in FINAL


OperationWatch = RecordWatch[Operation]
"""The operations in memory, some moments old, without their servers."""


class OperationStore:
    """The records of operations. Thread-safe. Every method may raise ClusterUnavailable."""

    def __init__(self, records: RecordStores) -> None:
        self._records = records
        self._lock = threading.Lock()
        self._watch: OperationWatch | None = None

    def create(self, operation: Operation, servers: Sequence[Server]) -> Operation:
        """Keep a new operation, and return it; returns the existing one if there is one with its id."""
        parts = self._parts()
        created = []
        ranges = range(0, len(servers), _SERVERS) if operation.parts else ()
        for name, start in zip(operation.parts, ranges, strict=True):
            some = [[server.id, server.uid, server.customer] for server in servers[start : start + _SERVERS]]
            created.append(parts.create(name, {"servers": _json(some)}))
        try:
            return _operation(self._operations().create(operation.id, {"about": _about(operation), **_now(operation)}))
        except Conflict:
            for record in created:
                parts.delete(record)
            return self.get(operation.id) or self.create(operation, servers)

    def get(self, id: str) -> Operation | None:
        """The operation with this id; None if there is none."""
        record = self._operations().get(id)
        return None if record is None else _operation(record)

    def known(self, id: str) -> Operation | None:
        """The operation from memory, some moments old; None if none is known. The first call starts a watch."""
        with self._lock:
            if self._watch is None:
                self._watch = self.watch()
                self._watch.start()
        return self._watch.get(id)

    def all(self) -> list[Operation]:
        """All operations, newest first."""
        operations = [_operation(record) for record in self._operations().all()]
        return sorted(operations, key=lambda operation: (operation.created, operation.id), reverse=True)

    def parts(self, operation: Operation) -> list[Part]:
        """All servers of an operation in bulk."""
        store = self._parts()
        records = [store.get(name) for name in operation.parts]
        return [_part(record) for record in records if record is not None]

    def cancel(self, operation: Operation) -> Operation:
        """Ask the controller to begin no further step of the operation."""
        while not operation.ended and not operation.cancelling and operation.record is not None:
            try:
                return _operation(self._operations().change(operation.record, {"cancel": now()}))
            except Conflict:
                # The controller writes to it too.
                operation = self.get(operation.id) or replace(operation, state="done")
        return operation

    def show(self, operation: Operation, require: Callable[[], None]) -> Operation:
        """Write what the operation is doing now: state, step, reason, finished, progress, work.

        Args:
            operation: The operation.
            require: Raises if this process may not write it any more; called before it is written over another write.
        """
        try:
            return self._show(operation)
        except Conflict:
            # Somebody has asked to cancel it, or has deleted it; the answer to an earlier write was lost; or this pod
            # has been frozen, and another one writes here.
            require()
            current = self.get(operation.id)
            return operation if current is None else self._show(replace(operation, record=current.record))

    def _show(self, operation: Operation) -> Operation:
        assert operation.record is not None
        return _operation(self._operations().change(operation.record, _now(operation)))

    def note(self, part: Part, servers: Sequence[Server]) -> Part:
        """Write what has become of some of its servers; raises Conflict."""
        texts = {str(each.id): _json([each.outcome, _shortened(each.reason), each.at]) for each in servers}
        return _part(self._parts().change(part.record, texts))

    def refresh(self, part: Part) -> Part | None:
        """The part as it is stored now; None if it was deleted."""
        record = self._parts().get(part.record.name)
        return None if record is None else _part(record)

    def delete(self, operation: Operation) -> None:
        """Delete an operation and its parts; may raise Conflict."""
        for part in self.parts(operation):
            self._parts().delete(part.record)
        if operation.record is not None:
            self._operations().delete(operation.record)

    def delete_strays(self, operations: Sequence[Operation], before: str) -> None:
        """Delete the parts of no operation that were created before a time: their creation was broken off."""
        wanted = {name for operation in operations for name in operation.parts}
        for record in self._parts().all():
            if record.name not in wanted and record.created < before:
                self._parts().delete(record)

    def watch(self, listener: Callable[[Operation, bool], None] = lambda operation, deleted: None) -> OperationWatch:
        """The operations in memory, kept up to date; the listener gets each change, and whether it was deleted."""
        return self._operations().watch_as(_operation, listener)

    def _operations(self) -> RecordStore:
        return self._records(_OPERATION)

    def _parts(self) -> RecordStore:
        return self._records(_PART)


def new_operation(
    maker: Token, key: str | None, action: str, when: str, argument: Any, request: Any, servers: Sequence[Server]
) -> Operation:
    """An operation that is not kept yet.

    Args:
        maker: Who asks for it.
        key: Its Idempotency-Key, from which its id follows; None for an id of its own.
        action, when, argument: See `Operation`.
        request: What was asked for, as JSON.
        servers: Its servers; of one of WORLD_ACTIONS the only one.
    """
    id = _id(maker, key)
    # Each attempt to create it has parts of its own, so that two at once do not take each other's.
    attempt = secrets.token_hex(4)
    customers = {server.customer for server in servers}
    alone = action in WORLD_ACTIONS
    return Operation(
        id=id,
        action=action,
        when=when,
        argument=argument,
        maker=replace(maker, sha256="", expires=None),
        request=digest(request),
        customer=customers.pop() if len(customers) == 1 else maker.customer,
        parts=() if alone else tuple(f"{id}-{attempt}-{number}" for number in range(-(-len(servers) // _SERVERS))),
        created=now(),
        progress=Progress(len(servers)),
        target=servers[0] if alone else None,
    )


def digest(request: Any) -> str:
    """A hash that tells one request from another."""
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()


def id_of_key(maker: Token, key: str) -> str:
    """The id of the operation that a token creates with this Idempotency-Key."""
    named = "\n".join([maker.name, key])
    return f"op-{hashlib.sha256(named.encode()).hexdigest()[:26]}"


def progress_of(servers: Sequence[Server]) -> Progress:
    """The progress of an operation with these servers."""
    count = Counter(server.outcome for server in servers)
    done = count["done"] + count["unchanged"] + count["gone"]
    return Progress(len(servers), done, count["failed"], count["waiting"])


def _id(maker: Token, key: str | None) -> str:
    return f"op-{secrets.token_hex(13)}" if key is None else id_of_key(maker, key)


# -- as texts -----------------------------------------------------------------------------------------------


def _about(operation: Operation) -> str:
    maker = operation.maker
    return _json(
        {
            "action": operation.action,
            "when": operation.when,
            "argument": operation.argument,
            "maker": {
                "name": maker.name,
                "scopes": sorted(maker.scopes),
                "customer": maker.customer,
                "servers": None if maker.servers is None else sorted(maker.servers),
            },
            "request": operation.request,
            "customer": operation.customer,
            "parts": operation.parts,
            "created": operation.created,
            "target": operation.target and [operation.target.id, operation.target.uid, operation.target.customer],
        }
    )


def _now(operation: Operation) -> dict[str, str]:
    fields = {name: getattr(operation, name) for name in ("state", "step", "reason", "finished")}
    return {"now": _json({**fields, "progress": vars(operation.progress), "work": operation.work})}


def _operation(record: Record) -> Operation:
    """The operation of a record. One that somebody has broken by hand has failed."""
    try:
        about, current = json.loads(record.data["about"]), json.loads(record.data["now"])
        maker, target = about.pop("maker"), about.pop("target", None)
        servers = None if maker["servers"] is None else frozenset(maker["servers"])
        return Operation(
            **{**about, "parts": tuple(about["parts"])},
            **{**current, "progress": Progress(**current["progress"])},
            id=record.name,
            maker=Token(maker["name"], "", frozenset(maker["scopes"]), maker["customer"], servers),
            cancelling="cancel" in record.data,
            target=None if target is None else Server(*target),
            record=record,
        )
    except (KeyError, TypeError, ValueError):
        log.warning("the record of the operation %s cannot be read", record.name)
        nobody = Token("", "", frozenset(), "", frozenset())
        reason = "The record of this operation cannot be read."
        return Operation(
            record.name, "", "now", None, nobody, "", None, (), record.created, Progress(0), "failed", reason=reason,
            finished=record.created, record=record,
        )  # fmt: skip


def _part(record: Record) -> Part:
    servers = []
    for id, uid, customer in _list(record.data.get("servers", "")):
        server = Server(id, uid, customer)
        if noted := _list(record.data.get(str(id), "")):
            server = Server(id, uid, customer, *noted)
        servers.append(server)
    return Part(record, tuple(servers))


def _list(text: str) -> list[Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return []
    return value if isinstance(value, list) else []


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _shortened(reason: str | None) -> str | None:
    """A reason whose JSON has at most so many bytes that a part stays within its size."""
    while reason is not None and len(_json(reason).encode()) > _REASON_BYTES:
        reason = reason.rstrip("…")[:-1].rstrip() + "…"
    return reason


def shown(operation: Operation) -> Mapping[str, Any]:
    """The operation in the shape of schemas.Operation, without its servers."""
    names = ("id", "action", "when", "state", "step", "reason", "created", "finished")
    fields = {**{name: getattr(operation, name) for name in names}, "progress": vars(operation.progress)}
    backup = operation.argument.get("backup") if isinstance(operation.argument, Mapping) else None
    return fields if backup is None else {**fields, "backup": backup}
