"""An event: something that happened to a server; and its text in the log. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Type = Literal[
    "created",
    "started",
    "running",
    "stopped",
    "killed",
    "exited",
    "crashed",
    "out-of-memory",
    "unschedulable",
    "disk-full",
    "idle-stopped",
    "suspended",
    "unsuspended",
    "deleted",
    "schedule-failed",
    "node-lost",
    "backup-done",
    "backup-failed",
    "backup-suspicious",
    "restored",
    "restore-failed",
    "proof-failed",
    "dropped",
]
TYPES: tuple[str, ...] = get_args(Type)
LONGEST_REASON = 1000


@dataclass(frozen=True, slots=True)
class Event:
    """An event.

    Attributes:
        id: Follows from what happened (`event_id`), so it is the same whoever tells the event, and however often.
        type: What happened, one of TYPES.
        time: When (RFC 3339).
        server: The server's id. Ids are used again; `uid` and `customer` say whose event it is.
        uid: The server's uid.
        customer: The server's customer; "" for none.
        number: The event's place among those of its server, from 1; 0 until the log gives it one.
        position: The event's place in the log, from 1; 0 until the log gives it one.
        data: More about it, by type; `reason` is a sentence or None.
    """

    id: str
    type: str
    time: str
    server: int
    uid: str
    customer: str
    number: int = 0
    position: int = 0
    data: Mapping[str, Any] = field(default_factory=dict)


def dropped(position: int, last: int, time: str) -> Event:
    """The event that says that the log no longer has the events after `position`, up to `last`. It is in no log."""
    return Event(
        id=event_id("", "dropped", position, last),
        type="dropped",
        time=time,
        server=0,
        uid="",
        customer="",
        position=last,
        data={"reason": "The log no longer has these events.", "events": last - position},
    )


def event_id(uid: str, *cause: str | int) -> str:
    """The id of the event with this cause, such as a pod's uid and `running`, at the server with this uid."""
    text = json.dumps([uid, *cause], separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def written(event: Event) -> str:
    """An event's text in the log, where its key is its position."""
    fields = {
        "id": event.id,
        "type": event.type,
        "time": event.time,
        "server": event.server,
        "uid": event.uid,
        "customer": event.customer,
        "number": event.number,
        "data": event.data,
    }
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))


def read(position: int, text: str) -> Event:
    """The event with this text at this position of the log; raises ValueError if it is not one."""
    try:
        fields = json.loads(text)
        event = Event(position=position, **fields)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError("it is not an event") from error
    texts = (event.id, event.type, event.time, event.uid, event.customer)
    numbers = (event.server, event.number)
    are_valid = all(isinstance(each, str) for each in texts) and all(isinstance(each, int) for each in numbers)
    if not (are_valid and isinstance(event.data, dict)):
        raise ValueError("it is not an event")
    return event
