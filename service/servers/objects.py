"""What the cluster holds of one server, and what its parts are called. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from service.operations.interfaces import Object

_NAME = re.compile(r"server-[1-9][0-9]{0,18}")


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


def service_names(id: int) -> tuple[str, str, str]:
    """The Services that a server may have: the game's own, and those of a private RCON and of file access."""
    return f"server-{id}", f"server-{id}-rcon", f"server-{id}-sftp"


# Where each kind of object of the chart gameserver is found: its API group and its name in a path.
KINDS = {
    "NetworkPolicy": ("networking.k8s.io/v1", "networkpolicies"),
    "PersistentVolumeClaim": ("v1", "persistentvolumeclaims"),
    "Secret": ("v1", "secrets"),
    "Service": ("v1", "services"),
    "StatefulSet": ("apps/v1", "statefulsets"),
}


def release_name(id: int) -> str:
    """The release of server `id`. Nothing that helm could take for an option or a path ever gets past here."""
    name = f"server-{id}"
    if isinstance(id, bool) or not isinstance(id, int) or not _NAME.fullmatch(name) or id >= 2**63:
        raise ValueError(f"not a server's id: {id!r}")
    return name
