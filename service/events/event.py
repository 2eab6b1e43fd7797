"""An event: something that happened to a server. Pure."""

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
    "dropped",
]
TYPES: tuple[str, ...] = get_args(Type)


@dataclass(frozen=True)
class Event:
    """An event.

    Attributes:
        id: Follows from what happened (`event_id`), so it is the same whoever tells the event, and however often.
        type: What happened.
        time: When (RFC 3339).
        server: The server's id. Ids are used again; `uid` and `customer` say whose event it is.
        uid: The server's uid.
        customer: The server's customer; "" for none.
        number: The event's place among those of its server, from 1; 0 until the log gives it one.
        data: More about it, by type; `reason` is a sentence or None.
    """

    id: str
    type: str
    time: str
    server: int
    uid: str
    customer: str
    number: int = 0
    data: Mapping[str, Any] = field(default_factory=dict)


def event_id(uid: str, *cause: str | int) -> str:
    """The id of the event with this cause, such as a pod's uid and `running`, at the server with this uid."""
    text = json.dumps([uid, *cause], separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
