"""The Kubernetes objects of one server. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from service.kube.types import Object
from service.servers.accessors import game_status, owner_uid, uid
from service.servers.usage import Usage
from service.servers.volumes import DiskNode, selected_node


class Objects(Protocol):
    """All objects of one server; those that do not exist are None or empty."""

    @property
    def id(self) -> int: ...
    @property
    def statefulset(self) -> Object | None: ...
    @property
    def pod(self) -> Object | None:
        """The pod of the StatefulSet; without a StatefulSet, the one that is left."""

    @property
    def former_pod(self) -> Object | None:
        """A pod with the server's name that is not its own: an earlier server with its id has left it, and it ends."""

    @property
    def claim(self) -> Object | None: ...
    @property
    def services(self) -> Mapping[str, Object]:
        """The Services by name."""

    @property
    def events(self) -> Sequence[Object]:
        """The events of pod, StatefulSet and claim that a state may depend on, newest last."""

    @property
    def releases(self) -> Sequence[Object]:
        """The metadata of the release's Secrets, oldest first, with the labels `status` and `version`."""

    @property
    def nodes(self) -> Mapping[str, Object]:
        """The cluster's nodes by name, some seconds old; empty if they are unknown."""

    @property
    def node_of(self) -> Callable[[Object], DiskNode | None]:
        """The function that finds the node with a claim's disk; None if no node is known."""

    @property
    def usage(self) -> Usage | None:
        """How full the disk is; None if no agent has said so."""


class RconPassword(NamedTuple):
    """RCON's password, and when it was written to its Secret (RFC 3339)."""

    text: str
    since: str


@dataclass(frozen=True)
class ServerObjects:
    """The objects of one server, as plain JSON; see `Objects`."""

    id: int
    statefulset: Object | None = None
    pod: Object | None = None
    claim: Object | None = None
    services: Mapping[str, Object] = field(default_factory=dict)
    events: tuple[Object, ...] = ()
    releases: tuple[Object, ...] = ()
    nodes: Mapping[str, Object] = field(default_factory=dict)
    node_of: Callable[[Object], DiskNode | None] = selected_node
    usage: Usage | None = None
    former_pod: Object | None = None


def own_and_former(statefulset: Object | None, pod: Object | None) -> tuple[Object | None, Object | None]:
    """`pod` and `former_pod` of `Objects`, from the StatefulSet and the pod that have the server's name.

    A deleted server's pod goes on for as long as its game takes to end. By then a new server, perhaps of another
    customer, may have the id and so the name: the pod's owner says whose it is.
    """
    if pod is None or statefulset is None or owner_uid(pod) == uid(statefulset):
        return pod, None
    return None, pod


def run_of(statefulset: Object | None, pod: Object | None) -> tuple[str, int] | None:
    """The uid of the StatefulSet's own pod, and how often its game has restarted; None if it has none."""
    own, _ = own_and_former(statefulset, pod)
    if statefulset is None or own is None:
        return None
    return uid(own) or "", (game_status(own) or {}).get("restartCount", 0)


def pod_on_disk(objects: Objects) -> Object | None:
    """The pod that may still write to the server's disk, whoever's it is; None if there is none."""
    return objects.pod or objects.former_pod


# Each kind of object in the chart gameserver, with its API group and its plural in a path.
KINDS = {
    "NetworkPolicy": ("networking.k8s.io/v1", "networkpolicies"),
    "PersistentVolumeClaim": ("v1", "persistentvolumeclaims"),
    "Secret": ("v1", "secrets"),
    "Service": ("v1", "services"),
    "StatefulSet": ("apps/v1", "statefulsets"),
}
