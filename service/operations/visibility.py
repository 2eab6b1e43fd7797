"""Finds the server that a call names, and checks that the caller may see it, before the operation starts."""

from __future__ import annotations

from dataclasses import dataclass

from service.access import Subject
from service.errors import ServerNotFound
from service.operations.context import Context
from service.servers.objects import Objects
from service.servers.spec import (
    ServerSpec,
    Suspension,
    customer_of_claim,
    server_uid,
    spec_of_objects,
    spec_of_values,
    suspension_of_claim,
)
from service.servers.state import exists
from service.tokens import Token


@dataclass(frozen=True)
class Target:
    """The server that a call names, as it was when the call arrived; `spec` is None if the server no longer exists."""

    id: int
    objects: Objects
    spec: ServerSpec | None

    @property
    def uid(self) -> str | None:
        """The server's uid, which distinguishes it from earlier servers with its id."""
        return server_uid(self.objects)

    @property
    def suspended(self) -> Suspension | None:
        """The server's suspension, or that of the deleted server whose disk is kept; None if it is not suspended."""
        return suspension_of(self.objects, self.spec)


def require_server(context: Context, caller: Token, id: int, subject: Subject) -> Target:
    """The server `id`; raises ServerNotFound unless it is what `subject` requires and the caller may see it."""
    objects = context.cluster.addressed(id) if subject is Subject.ADDRESS else context.cluster.server(id)
    ending = subject is Subject.ENDING and objects.statefulset is None and objects.pod is not None
    kept = subject is Subject.REMAINS and objects.claim is not None
    if not (exists(objects) or ending or kept):
        raise ServerNotFound()
    spec = spec_of(context, objects)
    if not may_see(caller, objects, spec):
        raise ServerNotFound()
    return Target(id, objects, spec)


def may_see(caller: Token, objects: Objects, spec: ServerSpec | None) -> bool:
    """Whether the caller may see this server, or its kept disk."""
    return caller.may_see(spec.customer if spec else customer_of_claim(objects.claim or {}), objects.id)


def suspension_of(objects: Objects, spec: ServerSpec | None) -> Suspension | None:
    """The suspension of the server with this spec. Without a spec, its disk says so, also that of a deleted server."""
    return suspension_of_claim(objects.claim or {}) if spec is None else spec.suspended


def spec_of(context: Context, objects: Objects) -> ServerSpec | None:
    """The server's spec, from its StatefulSet, or from its release if there is no StatefulSet."""
    spec = spec_of_objects(objects)
    if spec is None and exists(objects):
        values = context.releases.current(objects.id)
        spec = None if values is None else spec_of_values(values)
    return spec
