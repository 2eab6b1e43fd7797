"""One server, or the Job that makes its disk, read live from Kubernetes on demand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

from service.kube.types import Object
from service.servers.accessors import owner_uid, uid
from service.servers.names import disk_job_name, server_name, service_names
from service.servers.objects import own_and_former
from service.servers.usage import Usage
from service.servers.volumes import DiskNode

Value = TypeVar("Value")


class Reader(Protocol):
    """The part of `ClusterReader` that a LiveServer uses."""

    @property
    def nodes(self) -> Mapping[str, Object]: ...
    def node_of(self, claim: Object) -> DiskNode | None: ...
    def get_all(self, targets: Sequence[tuple[str, str, str]]) -> list[Object | None]: ...
    def service(self, name: str) -> Object | None: ...
    def events(self, id: int) -> tuple[Object, ...]: ...
    def events_of(self, names: Sequence[str]) -> tuple[Object, ...]: ...
    def pods_of(self, job: str) -> list[Object]: ...
    def releases(self, id: int, *, current: bool) -> tuple[Object, ...]: ...
    def usage(self, claim: Object | None) -> Usage | None: ...


class cached(Generic[Value]):
    """An attribute that is computed on first access.

    Until Python 3.12, functools.cached_property holds one lock for all objects of a class, so reads of different
    servers would wait for each other: https://docs.python.org/3/library/functools.html#functools.cached_property
    """

    def __init__(self, compute: Callable[[Any], Value]) -> None:
        self._compute = compute

    def __get__(self, instance: object, owner: type) -> Value:
        # Python finds later accesses in the instance's dict, and no longer calls this.
        value = instance.__dict__[self._compute.__name__] = self._compute(instance)
        return value


class LiveServer:
    """One server's objects, each read on first access. It implements `servers.objects.Objects`.

    StatefulSet, pod, claim and Services are read together and in parallel: most calls need several of them, and reading
    all five takes hardly longer than reading one.
    """

    def __init__(self, reader: Reader, id: int) -> None:
        self.id = id
        self._reader = reader
        self._name = server_name(id)

    @property
    def statefulset(self) -> Object | None:
        return self._main_objects[0]

    @property
    def pod(self) -> Object | None:
        return own_and_former(*self._main_objects[:2])[0]

    @property
    def former_pod(self) -> Object | None:
        return own_and_former(*self._main_objects[:2])[1]

    @property
    def claim(self) -> Object | None:
        return self._main_objects[2]

    @property
    def services(self) -> Mapping[str, Object]:
        return self._main_objects[3]

    @cached
    def releases(self) -> tuple[Object, ...]:
        # Without a StatefulSet, the releases decide whether the server exists, so they have to be current.
        return self._reader.releases(self.id, current=self.statefulset is None)

    @cached
    def events(self) -> tuple[Object, ...]:
        return self._reader.events(self.id)

    @property
    def nodes(self) -> Mapping[str, Object]:
        return self._reader.nodes

    @property
    def node_of(self) -> Callable[[Object], DiskNode | None]:
        return self._reader.node_of

    @property
    def usage(self) -> Usage | None:
        return self._reader.usage(self.claim)

    @cached
    def _main_objects(self) -> tuple[Object | None, Object | None, Object | None, Mapping[str, Object]]:
        game_name, rcon_name, sftp_name = service_names(self.id)
        targets = [
            ("apps/v1", "statefulsets", self._name),
            ("v1", "pods", f"{self._name}-0"),
            ("v1", "persistentvolumeclaims", self._name),
            ("v1", "services", game_name),
            ("v1", "services", sftp_name),
        ]
        statefulset, pod, claim, game, sftp = self._reader.get_all(targets)
        services = {game_name: game, sftp_name: sftp}
        # RCON has a Service of its own only if the game has RCON and the game's Service does not have its port.
        if game is not None and not _has_rcon(game["spec"]) and _may_have_rcon(statefulset):
            services[rcon_name] = self._reader.service(rcon_name)
        return statefulset, pod, claim, {name: service for name, service in services.items() if service is not None}


class LiveDiskJob:
    """The Job that makes a server's disk, in the place of the StatefulSet, with its pod and the server's claim.

    It implements `servers.objects.Objects`, so that `servers.reasons` explains this pod as it explains the game's.
    """

    services: Mapping[str, Object] = {}
    releases: tuple[Object, ...] = ()
    former_pod: Object | None = None
    # It is of interest only until the disk exists.
    usage: Usage | None = None

    def __init__(self, reader: Reader, id: int) -> None:
        self.id = id
        self._reader = reader
        self._name = disk_job_name(id)
        claim = ("v1", "persistentvolumeclaims", server_name(id))
        self.statefulset, self.claim = reader.get_all([("batch/v1", "jobs", self._name), claim])

    @cached
    def pod(self) -> Object | None:
        if self.statefulset is None:
            return None
        pods = self._reader.pods_of(self._name)
        return next((pod for pod in pods if owner_uid(pod) == uid(self.statefulset)), None)

    @cached
    def events(self) -> tuple[Object, ...]:
        names = [server_name(self.id), self._name]
        return self._reader.events_of([*names, self.pod["metadata"]["name"]] if self.pod else names)

    @property
    def nodes(self) -> Mapping[str, Object]:
        return self._reader.nodes

    @property
    def node_of(self) -> Callable[[Object], DiskNode | None]:
        return self._reader.node_of


def _may_have_rcon(statefulset: Object | None) -> bool:
    template = (statefulset or {}).get("spec", {}).get("template")
    return template is None or any(_has_rcon(container) for container in template["spec"]["containers"])


def _has_rcon(spec: Mapping[str, Any]) -> bool:
    """Whether the spec of a Service or a container has RCON's port."""
    return any(port.get("name") == "rcon" for port in spec.get("ports", []))
