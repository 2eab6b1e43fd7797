"""One server read live from Kubernetes, part by part."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from service.edges import Object
from service.objects import service_names

if TYPE_CHECKING:
    from service.cluster import Cluster


class LiveServer:
    """One server's objects, each read when it is first looked at: most calls look at two or three of them.

    The pod and the Services are read together, side by side; who looks at one of them mostly looks at all.
    """

    events: tuple[Object, ...] = ()

    def __init__(self, cluster: Cluster, id: int) -> None:
        self.id = id
        self._cluster = cluster
        self._name = f"server-{id}"

    @cached_property
    def statefulset(self) -> Object | None:
        return self._cluster.get("apps/v1", "statefulsets", self._name)

    @cached_property
    def claim(self) -> Object | None:
        return self._cluster.get("v1", "persistentvolumeclaims", self._name)

    @property
    def pod(self) -> Object | None:
        return self._pod_and_services[0]

    @property
    def services(self) -> Mapping[str, Object]:
        return self._pod_and_services[1]

    @cached_property
    def releases(self) -> tuple[Object, ...]:
        # Whether there is a server at all must be current; where a StatefulSet shows it, its history may lag.
        return self._cluster.releases(self.id, current=self.statefulset is None)

    @cached_property
    def _pod_and_services(self) -> tuple[Object | None, Mapping[str, Object]]:
        own, rcon, sftp = service_names(self.id)
        wanted = [("pods", f"{self._name}-0"), ("services", own), ("services", sftp)]
        pod, *services = self._cluster.get_all("v1", wanted)
        found = dict(zip((own, sftp), services, strict=True))
        # RCON has a Service of its own only where the server's shows none of it.
        if not any(port.get("name") == "rcon" for port in (found[own] or {}).get("spec", {}).get("ports", [])):
            found[rcon] = self._cluster.service(rcon)
        return pod, {name: service for name in (own, rcon, sftp) if (service := found.get(name)) is not None}
