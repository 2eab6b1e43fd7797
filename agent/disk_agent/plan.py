"""What this node should offer, from what Kubernetes holds. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from disk_agent.objects import Account, Claim, Service, Slice, Volume
from disk_agent.settings import Settings

# The name under which the agents write; a slice without it belongs to somebody else.
MANAGER = "sftp-agent.gameserver"
PORT = 2022


@dataclass(frozen=True)
class Access:
    """One customer's access to one folder of this node."""

    account: Account
    folder: str


@dataclass(frozen=True)
class View:
    """All that the watches know at one moment."""

    accounts: Iterable[Account]
    claims: Iterable[Claim]
    volumes: Iterable[Volume]
    services: Iterable[Service]
    slices: Iterable[Slice]


@dataclass(frozen=True)
class Plan:
    """The accesses to offer by server, the Services to point here, and the slices to take back."""

    accesses: Mapping[str, Access]
    publish: tuple[Service, ...]
    retract: tuple[Slice, ...]


def plan(view: View, settings: Settings) -> Plan:
    """Decide. A server's port leads here when its disk is here, whether it has an account yet or not.

    An account of another server that had this id before lets nobody in. A disk without a Service is one that was kept
    after its server was removed: nobody gets in either.
    A slice that leads here for a disk which is elsewhere is taken back, unless its new node was faster.
    """
    volumes = {volume.name: volume for volume in view.volumes}
    folders, uids = {}, {}
    for claim in view.claims:
        volume = volumes.get(claim.volume)
        if (
            volume is not None
            and volume.node == settings.node
            and volume.claim == f"{settings.servers_namespace}/server-{claim.server}"
            and allowed(volume.folder, settings.volume_folders)
        ):
            folders[claim.server], uids[claim.server] = volume.folder, claim.uid
    services = {service.server: service for service in view.services if service.server in folders}
    accounts = {
        account.server: account
        for account in view.accounts
        if account.server in services and _same(account.uid, uids[account.server])
    }
    slices = {endpoint_slice.name: endpoint_slice for endpoint_slice in view.slices}
    here = {service.name for service in services.values()}
    return Plan(
        accesses={server: Access(account, folders[server]) for server, account in accounts.items()},
        publish=tuple(
            service for service in services.values() if not _leads_here(slices.get(service.name), service, settings)
        ),
        retract=tuple(found for found in slices.values() if found.node == settings.node and found.name not in here),
    )


def _same(uid: str, other: str) -> bool:
    """Whether both are of one server, as far as anybody has said."""
    return uid == other or not uid or not other


def allowed(folder: str, volume_folders: Iterable[str]) -> bool:
    """Whether a folder lies strictly inside one of the operator's folders for volumes."""
    return posixpath.normpath(folder) == folder.rstrip("/") and any(
        folder.startswith(root.rstrip("/") + "/") and folder.rstrip("/") != root.rstrip("/") for root in volume_folders
    )


def endpoint_slice(service: Service, settings: Settings) -> dict[str, Any]:
    """The EndpointSlice that leads a server's port to this pod; it goes when its Service goes."""
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


def _leads_here(found: Slice | None, service: Service, settings: Settings) -> bool:
    return (
        found is not None
        and found.owner == service.uid
        and found.addresses == (settings.pod_ip,)
        and found.node == settings.node
        and found.pod == settings.pod
    )
