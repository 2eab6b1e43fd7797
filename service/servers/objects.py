"""What the cluster holds of one server. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from service.kube.types import Object


class Objects(Protocol):
    """All that the cluster knows of one server; parts that do not exist are None or empty."""

    @property
    def id(self) -> int: ...
    @property
    def statefulset(self) -> Object | None: ...
    @property
    def pod(self) -> Object | None: ...
    @property
    def claim(self) -> Object | None: ...
    @property
    def services(self) -> Mapping[str, Object]:
        """The Services by object name."""

    @property
    def events(self) -> Sequence[Object]:
        """Those events of pod, StatefulSet and claim that a state may be read from, newest last."""

    @property
    def releases(self) -> Sequence[Object]:
        """The metadata of the release Secrets, oldest first; labels `status` and `version`."""

    @property
    def nodes(self) -> Mapping[str, Object]:
        """The nodes of the cluster by name, as of some seconds ago; empty where nobody knows them."""


class RconPassword(NamedTuple):
    """RCON's password, and when the Secret that holds it was made (RFC 3339)."""

    text: str
    since: str


@dataclass(frozen=True)
class ServerObjects:
    """The objects of one server, as plain JSON; parts that do not exist are None or empty.

    `services` are by object name, `events` (of pod, StatefulSet and claim) have the newest last, `releases` is the
    metadata of the release Secrets, oldest first, whose labels say `status` and `version`. `nodes` are those of the
    cluster, by name; empty where nobody knows them.
    """

    id: int
    statefulset: Object | None = None
    pod: Object | None = None
    claim: Object | None = None
    services: Mapping[str, Object] = field(default_factory=dict)
    events: tuple[Object, ...] = ()
    releases: tuple[Object, ...] = ()
    nodes: Mapping[str, Object] = field(default_factory=dict)


# Where each kind of object of the chart gameserver is found: its API group and its name in a path.
KINDS = {
    "NetworkPolicy": ("networking.k8s.io/v1", "networkpolicies"),
    "PersistentVolumeClaim": ("v1", "persistentvolumeclaims"),
    "Secret": ("v1", "secrets"),
    "Service": ("v1", "services"),
    "StatefulSet": ("apps/v1", "statefulsets"),
}
