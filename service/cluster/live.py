"""One server read live from Kubernetes, part by part."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

from service.kube.types import Object
from service.servers.names import server_name, service_names

Part = TypeVar("Part")


class Reads(Protocol):
    """What one server is read with: `ClusterReader`, which makes the LiveServers."""

    @property
    def nodes(self) -> Mapping[str, Object]: ...
    def get_all(self, wanted: Sequence[tuple[str, str, str]]) -> list[Object | None]: ...
    def service(self, name: str) -> Object | None: ...
    def events(self, id: int) -> tuple[Object, ...]: ...
    def releases(self, id: int, *, current: bool) -> tuple[Object, ...]: ...


class once(Generic[Part]):
    """An attribute computed when it is first asked for.

    functools.cached_property holds one lock for all objects of a class until Python 3.12, so that reads of different
    servers would wait for each other: https://docs.python.org/3/library/functools.html#functools.cached_property
    """

    def __init__(self, compute: Callable[[Any], Part]) -> None:
        self._compute = compute

    def __get__(self, instance: object, owner: type) -> Part:
        # From now on the attribute is found in the instance, and this is not asked.
        part = instance.__dict__[self._compute.__name__] = self._compute(instance)
        return part


class LiveServer:
    """One server's objects, read when one is first looked at.

    StatefulSet, pod, claim and Services are read together, side by side: most calls look at several of them, and all
    five take hardly longer than one.
    """

    def __init__(self, cluster: Reads, id: int) -> None:
        self.id = id
        self._cluster = cluster
        self._name = server_name(id)

    @property
    def statefulset(self) -> Object | None:
        return self._parts[0]

    @property
    def pod(self) -> Object | None:
        return self._parts[1]

    @property
    def claim(self) -> Object | None:
        return self._parts[2]

    @property
    def services(self) -> Mapping[str, Object]:
        return self._parts[3]

    @once
    def releases(self) -> tuple[Object, ...]:
        # Whether there is a server at all must be current; where a StatefulSet shows it, its history may lag.
        return self._cluster.releases(self.id, current=self.statefulset is None)

    @once
    def events(self) -> tuple[Object, ...]:
        return self._cluster.events(self.id)

    @property
    def nodes(self) -> Mapping[str, Object]:
        return self._cluster.nodes

    @once
    def _parts(self) -> tuple[Object | None, Object | None, Object | None, Mapping[str, Object]]:
        own, rcon, sftp = service_names(self.id)
        wanted = [
            ("apps/v1", "statefulsets", self._name),
            ("v1", "pods", f"{self._name}-0"),
            ("v1", "persistentvolumeclaims", self._name),
            ("v1", "services", own),
            ("v1", "services", sftp),
        ]
        statefulset, pod, claim, game, files = self._cluster.get_all(wanted)
        found = {own: game, sftp: files}
        # RCON has a Service of its own only where the game has RCON and the server's Service shows none of it.
        if game is not None and not _has_rcon(game["spec"]) and _may_have_rcon(statefulset):
            found[rcon] = self._cluster.service(rcon)
        return statefulset, pod, claim, {name: service for name, service in found.items() if service is not None}


def _may_have_rcon(statefulset: Object | None) -> bool:
    template = (statefulset or {}).get("spec", {}).get("template")
    return template is None or any(_has_rcon(container) for container in template["spec"]["containers"])


def _has_rcon(spec: Mapping[str, Any]) -> bool:
    """Whether a Service or a container has the port."""
    return any(port.get("name") == "rcon" for port in spec.get("ports", []))
