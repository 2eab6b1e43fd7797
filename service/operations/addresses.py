"""The host and port under which a server, its RCON and its files can be reached, and RCON's password."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from service.errors import (
    ObjectMissing,
    PortNotFound,
    PortNotReady,
    PortWithoutAddress,
    Problem,
    RconPasswordReplaced,
)
from service.operations.checks import require_not_suspended
from service.operations.context import Context
from service.operations.file_access import accounts_for, check_disk
from service.operations.visibility import Target
from service.servers.accessors import created_at
from service.servers.addresses import Address, address_in, address_of
from service.servers.names import PortName, rcon_name, services_with
from service.servers.objects import Objects, RconPassword
from service.tokens import Token

# Longer than clouds usually take to give a load balancer its address.
_PATIENCE = timedelta(minutes=5)


@dataclass(frozen=True)
class Endpoint:
    """A port as customers see it.

    Attributes:
        port: The port number.
        protocol: TCP, UDP or both.
        host: A host name or an IP address; None until the server's disk has a node, or its load balancer an address.
    """

    port: int
    protocol: str
    host: str | None


def endpoint_of(context: Context, objects: Objects, name: PortName) -> Endpoint | None:
    """The endpoint of the port; None if the server has no such port or it is not ready yet."""
    address = address_in(name, objects.id, objects.services)
    return None if address is None else _endpoint_at(context, objects, address)


def _endpoint_at(context: Context, objects: Objects, address: Address) -> Endpoint:
    if address.pending:
        return Endpoint(address.port, address.protocol, None)
    # The host that a customer enters: the Service's, else the operator's, else that of the disk's node.
    host = address.host or context.settings.external_host or context.cluster.host(objects, address.families)
    # Of several, the node's own stays the same for as long as the disk does, whatever nodes come and go.
    if address.others and (own := context.cluster.host(objects, address.families)) in address.others:
        host = own
    return Endpoint(address.port, address.protocol, host)


def port(context: Context, target: Target, name: PortName) -> Endpoint:
    """The endpoint of the port.

    Raises PortNotReady, PortWithoutAddress, PortNotFound or ObjectMissing. For `sftp`, it also raises
    FileAccessNotInstalled, DiskNotNodeLocal, DiskNotMade or DiskNotReady.
    """
    # Of a target that was found for its address, only the game's own Service is certainly of now.
    objects = target.objects if name == "primary" else context.cluster.server(target.id)
    if name == "sftp":
        accounts_for(context, objects).host_keys()
    endpoint = _reachable(context, objects, name)
    if name == "sftp":
        check_disk(objects)
    return endpoint


def rcon(context: Context, caller: Token, target: Target) -> tuple[Endpoint, str]:
    """The endpoint of RCON and its password.

    Raises Suspended, RconPasswordReplaced while the game uses an older password, and otherwise the same as `port`.
    """
    require_not_suspended(caller, target.suspended)
    objects = target.objects
    endpoint = _reachable(context, objects, "rcon")
    password = context.cluster.rcon_password(target.id)
    if password is None:
        raise _port_problem(context, objects, "rcon")
    if not _game_knows(objects.pod, password):
        raise RconPasswordReplaced()
    return endpoint, password.text


def _reachable(context: Context, objects: Objects, name: PortName) -> Endpoint:
    """The endpoint of the port, once there is an address; raises as `port`."""
    address = address_in(name, objects.id, objects.services)
    if address is None or address.pending:
        raise _port_problem(context, objects, name)
    return _endpoint_at(context, objects, address)


def _port_problem(context: Context, objects: Objects, name: PortName) -> Problem:
    """Why the server does not have the port."""
    names = {f"Service {service}" for service in services_with(name, objects.id)}
    needed = names | {f"Secret {rcon_name(objects.id)}"} if name == "rcon" else names
    if missing := sorted(needed.intersection(context.releases.missing(objects.id))):
        return ObjectMissing(
            f"The cluster has no {' and no '.join(missing)}. A start of the server restores what is missing."
        )
    declared = [
        service
        for service in objects.services.values()
        if any(port.get("name") == name for port in service["spec"].get("ports", []))
    ]
    for service in declared:
        address, made_at = address_of(name, service), created_at(service)
        if address and address.pending and made_at and datetime.fromisoformat(made_at) < datetime.now(UTC) - _PATIENCE:
            return PortWithoutAddress(
                f"Nothing in the cluster has given the Service {service['metadata']['name']}, which exists since "
                f"{made_at}, the address of a load balancer."
            )
    return PortNotReady() if declared or objects.statefulset is None else PortNotFound()


def _game_knows(pod: Mapping[str, Any] | None, password: RconPassword) -> bool:
    """Whether the game, if it is running, has read this password. A game reads it when its container starts."""
    if pod is None or pod["metadata"]["creationTimestamp"] >= password.since:
        return True
    containers = pod.get("status", {}).get("containerStatuses", [])
    started = [container.get("state", {}).get("running", {}).get("startedAt", "") for container in containers]
    # The kubelet may take this long to bring the new Secret into the pod.
    read_by = datetime.fromisoformat(password.since) + timedelta(minutes=2)
    return not any(started) or all(datetime.fromisoformat(time) > read_by for time in started if time)
