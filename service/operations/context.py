"""What every request works with, and the few questions that several endpoints ask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from flask import current_app, g

from service.errors import ServerNotFound
from service.games.catalogue import Game
from service.operations.interfaces import Accounts, Cluster, Releases
from service.servers.objects import Objects
from service.servers.spec import Record, customer_of_claim, record_of_objects, record_of_values
from service.servers.state import exists
from service.settings import Settings
from service.web.auth import Token, Tokens


@dataclass(frozen=True)
class Context:
    settings: Settings
    cluster: Cluster
    releases: Releases
    games: Mapping[str, Game]
    operator_values: Mapping[str, Any]
    tokens: Tokens
    accounts: Accounts | None


def context() -> Context:
    """The collaborators that `create_app` was given."""
    found: Context = current_app.extensions["gameserver"]
    return found


def timestamp() -> str:
    """The present time, as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def erase_disk(there: Context, id: int, *, unless_used: bool = False) -> None:
    """Begin to erase the server's disk, under the Lease that this thread holds; maybe only one that holds nothing."""
    there.cluster.erase_disk(id, lambda: there.releases.confirm(id), unless_used=unless_used)


def caller() -> Token:
    """The token of the present request."""
    token: Token = g.token
    return token


def record_of(objects: Objects) -> Record | None:
    """The record of a server: from its StatefulSet, or from its release where none was ever made."""
    record = record_of_objects(objects)
    if record is None and exists(objects):
        values = context().releases.current(objects.id)
        record = None if values is None else record_of_values(values)
    return record


def seen(objects: Objects) -> Record | None:
    """The record of a server that the caller may see; raises ServerNotFound for any other.

    While a deleted server's pod still ends, it can be seen too; its record may be gone.
    """
    ending = objects.statefulset is None and objects.pod is not None
    if not exists(objects) and not ending:
        raise ServerNotFound()
    record = record_of(objects)
    customer = record.customer if record else customer_of_claim(objects.claim or {})
    if not caller().may_see(customer):
        raise ServerNotFound()
    return record


def found(id: int) -> Objects:
    """A server that is there to be worked on, and that the caller may see; raises ServerNotFound."""
    objects = context().cluster.server(id)
    if not exists(objects):
        raise ServerNotFound()
    seen(objects)
    return objects
