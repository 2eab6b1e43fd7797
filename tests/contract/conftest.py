"""Both kinds of edges: the fakes, and the real ones in a namespace of their own on a real cluster."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from local.paths import ROOT
from service.cluster.reader import ClusterReader
from service.errors import RefusedByCluster
from service.helm.releases import HelmReleases
from service.kube.client import Kube, path
from service.operations.interfaces import Cluster, Releases
from service.settings import Settings
from tests.support.fakes import FakeCluster, FakeReleases, World

#: A server that runs no pod: what helm and the API server do is all that these tests look at.
VALUES: dict[str, Any] = {
    "game": "minecraft",
    "replicas": 0,
    "ramGb": 1,
    "diskGb": 1,
    "server": {"customer": "", "options": {"motd": "a 'quoted' {{ text }}"}},
}


@dataclass
class Edges:
    """The two edges, `other` as a second replica has it, and what only a hand can do.

    `refuse_next` makes the fake refuse the next write; a real cluster needs a reason. `use_disk` gives a claim a
    volume, as far as anybody can tell, which the first start does otherwise.
    """

    cluster: Cluster
    releases: Releases
    other: Releases
    lose_statefulset: Callable[[int], None]
    lose_service: Callable[[str], None]
    refuse_next: Callable[[], None]
    use_disk: Callable[[int], None]


def revisions(edges: Edges, id: int) -> list[tuple[str, str]]:
    """Version and status of each revision of a server's release, oldest first."""
    labels = [release["labels"] for release in edges.cluster.server(id).releases]
    return [(each["version"], each["status"]) for each in labels]


def statuses(edges: Edges, id: int) -> list[str]:
    """The status of each revision of a server's release, oldest first."""
    return [status for _, status in revisions(edges, id)]


@pytest.fixture(scope="session")
def kubeconfig() -> str:
    """The kubeconfig of the local cluster."""
    assert "KUBECONFIG" in os.environ, "no cluster: `make test` brings one up"
    return os.environ["KUBECONFIG"]


@pytest.fixture(scope="session")
def real_settings(kubeconfig: str) -> Iterator[Settings]:
    """Settings for a namespace that lives as long as the session."""
    kube, name = Kube(), f"contract-{secrets.token_hex(4)}"
    kube.create("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    helm = ROOT / ".local" / "bin" / "helm"
    yield replace(Settings(), servers_namespace=name, helm=str(helm), pod_name="contract-1")
    kube.delete(f"/api/v1/namespaces/{name}")


@pytest.fixture(scope="session")
def real(real_settings: Settings) -> Edges:
    """The edges as the API has them, and a second replica's."""
    kube = Kube()

    def lose_statefulset(id: int) -> None:
        kube.delete(path("apps/v1", real_settings.servers_namespace, "statefulsets", f"server-{id}"))

    def lose_service(name: str) -> None:
        kube.delete(path("v1", real_settings.servers_namespace, "services", name))

    def use_disk(id: int) -> None:
        claim = path("v1", real_settings.servers_namespace, "persistentvolumeclaims", f"server-{id}")
        kube.merge(claim, {"spec": {"volumeName": f"volume-{id}"}})

    return Edges(
        ClusterReader(real_settings),
        HelmReleases(real_settings),
        HelmReleases(replace(real_settings, pod_name="contract-2")),
        lose_statefulset,
        lose_service,
        lambda: None,
        use_disk,
    )


@pytest.fixture
def fake() -> Edges:
    """The edges of the API's own tests."""
    world = World()

    def lose_statefulset(id: int) -> None:
        world.statefulsets.pop(id)

    def refuse_next() -> None:
        world.failure = RefusedByCluster()

    def lose_service(name: str) -> None:
        world.services.pop(name)

    def use_disk(id: int) -> None:
        world.claims[id]["status"] = {"phase": "Bound"}

    releases = FakeReleases(world)
    return Edges(FakeCluster(world), releases, releases, lose_statefulset, lose_service, refuse_next, use_disk)


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.cluster)])
def edges(request: pytest.FixtureRequest) -> Edges:
    """Each test that asks for these runs against both kinds."""
    chosen: Edges = request.getfixturevalue(request.param)
    return chosen


@pytest.fixture(scope="session")
def new_id() -> Callable[[], int]:
    """Ids that no other test uses."""
    ids = iter(range(1000, 10**6))
    return lambda: next(ids)
