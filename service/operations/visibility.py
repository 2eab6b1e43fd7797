"""Which server a call is about, and whether its caller may see it: settled before the operation begins."""

from __future__ import annotations

from dataclasses import dataclass

from service.access import Subject
from service.errors import ServerNotFound
from service.operations.context import Context
from service.servers.objects import Objects
from service.servers.spec import ServerSpec, customer_of_claim, server_uid, spec_of_objects, spec_of_values
from service.servers.state import exists
from service.tokens import Token


@dataclass(frozen=True)
class Target:
    """The server that a call is about, as it was when the call came in; `spec` is None where it is gone."""

    id: int
    objects: Objects
    spec: ServerSpec | None

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
    spec = spec_of(context, objects)
    if not may_see(caller, objects, spec):
        raise ServerNotFound()
    return Target(id, objects, spec)


def may_see(caller: Token, objects: Objects, spec: ServerSpec | None) -> bool:
    """Whether this server, or the disk that is kept of it, is any of the caller's business."""
    return caller.may_see(spec.customer if spec else customer_of_claim(objects.claim or {}), objects.id)


def spec_of(context: Context, objects: Objects) -> ServerSpec | None:
    """The spec of a server: from its StatefulSet, or from its release where none was ever made."""
    spec = spec_of_objects(objects)
    if spec is None and exists(objects):
        values = context.releases.current(objects.id)
        spec = None if values is None else spec_of_values(values)
    return spec
