"""Computes from Kubernetes' objects which accesses this node should offer. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from disk_agent.objects import Account, Claim, Service, Slice, Volume
from disk_agent.settings import Settings

# The agents' field manager; an EndpointSlice without it is not theirs.
MANAGER = "sftp-agent.gameserver"
PORT = 2022


@dataclass(frozen=True)
class Access:
    """One customer's access to one folder of this node; `is_mount` as in `Volume`."""

    account: Account
    folder: str
    is_mount: bool = False


@dataclass(frozen=True)
class View:
    """All records of the watches at one moment."""

    accounts: Iterable[Account]
    claims: Iterable[Claim]
    volumes: Iterable[Volume]
    services: Iterable[Service]
    slices: Iterable[Slice]


@dataclass(frozen=True)
class Plan:
    """What to do on this node.

    Attributes:
        accesses: The accesses to offer, by server id.
        publish: The Services that should lead to this pod, but do not yet.
        retract: The EndpointSlices of this node to delete.
    """

    accesses: Mapping[str, Access]
    publish: tuple[Service, ...]
    retract: tuple[Slice, ...]


def plan(view: View, settings: Settings) -> Plan:
    """Decide what to do on this node.

    A server's SFTP port leads here if its disk is on this node, whether or not it has an account yet. The account of an
    earlier server with the same id gives no access, and neither does that of a suspended server. A disk without a
    Service is a kept disk, and is not offered either. An EndpointSlice that leads here for a disk on another node is
    retracted, unless that node has replaced it already.
    """
    disks = local_disks(view.claims, view.volumes, settings)
    services = {service.server: service for service in view.services if service.server in disks}
    accounts = {
        account.server: account
        for account in view.accounts
        if account.server in services
        and not services[account.server].suspended
        and _may_match(account.uid, disks[account.server][0].uid)
    }
    slices = {endpoint_slice.name: endpoint_slice for endpoint_slice in view.slices}
    local_names = {service.name for service in services.values()}
    return Plan(
        accesses={
            server: Access(account, disks[server][1].folder, disks[server][1].is_mount)
            for server, account in accounts.items()
        },
        publish=tuple(
            service for service in services.values() if not _leads_here(slices.get(service.name), service, settings)
        ),
        retract=tuple(
            endpoint_slice
            for endpoint_slice in slices.values()
            if endpoint_slice.node == settings.node and endpoint_slice.name not in local_names
        ),
    )


def local_disks(
    claims: Iterable[Claim], volumes: Iterable[Volume], settings: Settings
) -> dict[str, tuple[Claim, Volume]]:
    """The disks of this node by their servers' ids: of servers with and without an account, and kept disks."""
    by_name = {volume.name: volume for volume in volumes}
    disks = {}
    for claim in claims:
        volume = by_name.get(claim.volume)
        if (
            volume is not None
            and volume.node == settings.node
            and volume.claim == f"{settings.servers_namespace}/server-{claim.server}"
            and allowed(volume.folder, settings.volume_folders)
        ):
            disks[claim.server] = claim, volume
    return disks


def _may_match(uid: str, other: str) -> bool:
    """Whether two uids may be of the same server; "" is an unknown uid."""
    return uid == other or not uid or not other


def allowed(folder: str, volume_folders: Iterable[str]) -> bool:
    """Whether a folder is strictly inside one of the operator's folders for volumes."""
    return posixpath.normpath(folder) == folder.rstrip("/") and any(
        folder.startswith(root.rstrip("/") + "/") and folder.rstrip("/") != root.rstrip("/") for root in volume_folders
    )


def endpoint_slice(service: Service, settings: Settings) -> dict[str, Any]:
    """The EndpointSlice that leads a server's SFTP port to this pod. It is deleted with its Service."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": service.name,
            "namespace": settings.servers_namespace,
            "labels": {
                "kubernetes.io/service-name": service.name,
                "endpointslice.kubernetes.io/managed-by": MANAGER,
                "gameserver/id": service.server,
            },
            "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": service.name, "uid": service.uid}],
        },
        "addressType": "IPv6" if ":" in settings.pod_ip else "IPv4",
        "ports": [{"name": "sftp", "port": PORT, "protocol": "TCP"}],
        "endpoints": [
            {
                "addresses": [settings.pod_ip],
                "conditions": {"ready": True},
                "nodeName": settings.node,
                "targetRef": {
                    "kind": "Pod",
                    "name": settings.pod,
                    "namespace": settings.namespace,
                    "uid": settings.pod_uid,
                },
            }
        ],
    }


def _leads_here(existing: Slice | None, service: Service, settings: Settings) -> bool:
    return (
        existing is not None
        and existing.owner == service.uid
        and existing.addresses == (settings.pod_ip,)
        and existing.node == settings.node
        and existing.pod == settings.pod
    )
