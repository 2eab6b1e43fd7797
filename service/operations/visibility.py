"""Which server a call is about, and whether its caller may see it: settled before the operation begins."""

from __future__ import annotations

from dataclasses import dataclass

from service.access import Subject
from service.errors import ServerNotFound
from service.operations.context import Context
from service.servers.objects import Objects
from service.servers.spec import Record, customer_of_claim, record_of_objects, record_of_values, server_uid
from service.servers.state import exists
from service.tokens import Token


@dataclass(frozen=True)
class Target:
    """The server that a call is about, as it was when the call came in; `record` is None where it is gone."""

    id: int
    objects: Objects
    record: Record | None

    @property
    def uid(self) -> str | None:
        """What tells it from others that had its id."""
        return server_uid(self.objects)


def require_server(context: Context, caller: Token, id: int, subject: Subject) -> Target:
    """The server `id`; raises ServerNotFound where it is not what `subject` asks for, or is not the caller's."""
    objects = context.cluster.server(id)
    ending = subject is Subject.ENDING and objects.statefulset is None and objects.pod is not None
    kept = subject is Subject.REMAINS and objects.claim is not None
    if not (exists(objects) or ending or kept):
        raise ServerNotFound()
    record = record_of(context, objects)
    if not may_see(caller, objects, record):
        raise ServerNotFound()
    return Target(id, objects, record)


def may_see(caller: Token, objects: Objects, record: Record | None) -> bool:
    """Whether this server, or the disk that is kept of it, is any of the caller's business."""
    return caller.may_see(record.customer if record else customer_of_claim(objects.claim or {}), objects.id)


def record_of(context: Context, objects: Objects) -> Record | None:
    """The record of a server: from its StatefulSet, or from its release where none was ever made."""
    record = record_of_objects(objects)
    if record is None and exists(objects):
        values = context.releases.current(objects.id)
        record = None if values is None else record_of_values(values)
    return record
