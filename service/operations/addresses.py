"""Where a server is reached: its ports, and RCON with its password."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from service.errors import ObjectMissing, PortNotFound, PortNotReady, Problem, RconPasswordReplaced
from service.operations.context import Context
from service.operations.file_access import check_disk, reachable
from service.operations.visibility import Target
from service.servers.addresses import address_in
from service.servers.names import PortName, rcon_name, services_with
from service.servers.objects import Objects, RconPassword


@dataclass(frozen=True)
class Endpoint:
    """A port as customers are told of it; `host` is None before the server's disk has a node."""

    port: int
    protocol: str
    host: str | None


def endpoint_of(context: Context, objects: Objects, name: PortName) -> Endpoint | None:
    """Where the port is reached; None where there is none, or not yet."""
    address = address_in(name, objects.id, objects.services)
    if address is None:
        return None
    # What a customer enters as the host: the Service's own, else the operator's, else that of the disk's node.
    host = address.host or context.settings.external_host or context.cluster.host(objects)
    return Endpoint(address.port, address.protocol, host)


def port(context: Context, target: Target, name: PortName) -> Endpoint:
    """Where the port is reached; raises PortNotReady, PortNotFound, ObjectMissing or a problem of the files' disk."""
    if name == "sftp":
        reachable(context, target.objects).host_keys()
    endpoint = endpoint_of(context, target.objects, name)
    if endpoint is None:
        raise _no_port(context, target.objects, name)
    if name == "sftp":
        check_disk(target.objects)
    return endpoint


def rcon(context: Context, target: Target) -> tuple[Endpoint, str]:
    """Where RCON is reached, and its password; raises RconPasswordReplaced while the game knows another."""
    objects = target.objects
    endpoint = endpoint_of(context, objects, "rcon")
    password = context.cluster.rcon_password(target.id)
    if endpoint is None or password is None:
        raise _no_port(context, objects, "rcon")
    if not _knows(objects.pod, password):
        raise RconPasswordReplaced()
    return endpoint, password.text


def _no_port(context: Context, objects: Objects, name: PortName) -> Problem:
    names = {f"Service {service}" for service in services_with(name, objects.id)}
    needed = names | {f"Secret {rcon_name(objects.id)}"} if name == "rcon" else names
    if missing := sorted(needed.intersection(context.releases.missing(objects.id))):
        return ObjectMissing(f"The cluster has no {' and no '.join(missing)}. A start of the server restores it.")
    there = any(
        port.get("name") == name for service in objects.services.values() for port in service["spec"].get("ports", [])
    )
    return PortNotReady() if there or objects.statefulset is None else PortNotFound()


def _knows(pod: Mapping[str, Any] | None, password: RconPassword) -> bool:
    """Whether the game, if it runs, has read this password; it reads it when its container starts."""
    if pod is None or pod["metadata"]["creationTimestamp"] >= password.since:
        return True
    containers = pod.get("status", {}).get("containerStatuses", [])
    started = [container.get("state", {}).get("running", {}).get("startedAt", "") for container in containers]
    # The kubelet may bring the new Secret into the pod as late as this.
    read_by = datetime.fromisoformat(password.since) + timedelta(minutes=2)
    return not any(started) or all(datetime.fromisoformat(time) > read_by for time in started if time)
