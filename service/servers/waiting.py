"""The operation that waits for its moment with a server, as an annotation of the StatefulSet. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass

from service.servers.accessors import annotation
from service.servers.names import OPERATION
from service.servers.objects import Objects


@dataclass(frozen=True)
class WaitingOperation:
    """An operation that will do something with a server.

    Attributes:
        id: The operation's id.
        action: What it will do, such as `restart`.
        step: What it waits for, in plain words.
    """

    id: str
    action: str
    step: str

    def as_text(self) -> str:
        """The annotation's text, which `waiting_operation` reads."""
        return json.dumps(vars(self))


def waiting_operation(objects: Objects) -> WaitingOperation | None:
    """The operation that waits with the server; None if there is none."""
    return operation_of_text(annotation(objects.statefulset, OPERATION))


def operation_of_text(text: str | None) -> WaitingOperation | None:
    """The operation in the annotation's text; None if there is none."""
    try:
        fields = json.loads(text or "")
        return WaitingOperation(str(fields["id"]), str(fields["action"]), str(fields["step"]))
    except (KeyError, TypeError, ValueError):
        return None
