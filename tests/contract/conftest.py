"""The interfaces in both kinds: the fakes, and the real ones in their own namespace of a real cluster."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest

from local.paths import ROOT
from service.cluster.reader import ClusterReader
from service.errors import RefusedByCluster
from service.helm.releases import HelmReleases
from service.kube.client import Kube, path
from service.operations.interfaces import Cluster, Releases
from service.servers.usage import KEY, LABEL, parse
from service.settings import Settings
from tests.support.fakes import FakeCluster, FakeReleases, World

#: A server without a pod, because these tests only look at what helm and the API server do.
VALUES: dict[str, Any] = {
    "game": "minecraft",
    "replicas": 0,
    "ramGb": 1,
    "diskGb": 1,
    "server": {"customer": "", "options": {"motd": "a 'quoted' {{ text }}"}},
}


@dataclass
class Interfaces:
    """The interfaces `cluster` and `releases`, those of a second replica, and what only an operator can do.

    `other` are the releases of a second replica, `newer` those of an API that came with a newer chart.

    `refuse_next` makes the fake refuse the next write. A real cluster refuses only with a reason, so it does nothing
    there. `use_disk` makes a claim look as if it had a volume, which it gets at the first start otherwise. `report_use`
    does what the agent of a node does: it writes a record, whose entry of the server's disk this is.
    `restore_claim` creates the claim of a server as a person does who restores one, of 1 GiB. `scale` does what
    `kubectl scale` does.
    """

    cluster: Cluster
    releases: Releases
    other: Releases
    newer: Releases
    lose_statefulset: Callable[[int], None]
    lose_service: Callable[[str], None]
    refuse_next: Callable[[], None]
    use_disk: Callable[[int], None]
    report_use: Callable[[int, str, Mapping[str, Any]], None]
    restore_claim: Callable[[int], None]
    scale: Callable[[int, int], None]


def revisions(interfaces: Interfaces, id: int) -> list[tuple[str, str]]:
    """Version and status of each revision of a server's release, oldest first."""
    labels = [release["labels"] for release in interfaces.cluster.server(id).releases]
    return [(each["version"], each["status"]) for each in labels]


def statuses(interfaces: Interfaces, id: int) -> list[str]:
    """The status of each revision of a server's release, oldest first."""
    return [status for _, status in revisions(interfaces, id)]


@pytest.fixture(scope="session")
def kubeconfig() -> str:
    """The kubeconfig of the local cluster."""
    assert "KUBECONFIG" in os.environ, "no cluster: `make test` brings one up"
    return os.environ["KUBECONFIG"]


@pytest.fixture(scope="session")
def real_settings(kubeconfig: str) -> Iterator[Settings]:
    """Settings for a namespace that exists for the session."""
    kube, name = Kube(), f"contract-{secrets.token_hex(4)}"
    kube.create("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    helm, daemon = (str(ROOT / ".local" / "bin" / program) for program in ("helm", "helm-daemon"))
    yield replace(Settings(), servers_namespace=name, helm=helm, helm_daemon=daemon, pod_name="contract-1")
    kube.delete(f"/api/v1/namespaces/{name}")


@pytest.fixture(params=["daemon", "helm"])
def ways(request: pytest.FixtureRequest, real_settings: Settings) -> Settings:
    """Each test with this fixture runs with replicas that have a helm-daemon, and with replicas that run helm."""
    return real_settings if request.param == "daemon" else replace(real_settings, helm_daemon="")


@pytest.fixture(scope="session")
def real(real_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Interfaces:
    """The real interfaces of the API, and those of a second replica."""
    newer = tmp_path_factory.mktemp("chart") / "gameserver"
    shutil.copytree(real_settings.chart_path, newer)
    template = newer / "templates" / "statefulset.yaml"
    template.write_text(template.read_text().replace("  annotations:\n", "  annotations:\n    newer: chart\n", 1))
    kube = Kube()

    def lose_statefulset(id: int) -> None:
        kube.delete(path("apps/v1", real_settings.servers_namespace, "statefulsets", f"server-{id}"))

    def scale(id: int, replicas: int) -> None:
        workload = path("apps/v1", real_settings.servers_namespace, "statefulsets", f"server-{id}")
        kube.merge(workload, {"spec": {"replicas": replicas}})

    def lose_service(name: str) -> None:
        kube.delete(path("v1", real_settings.servers_namespace, "services", name))

    def use_disk(id: int) -> None:
        claim = path("v1", real_settings.servers_namespace, "persistentvolumeclaims", f"server-{id}")
        kube.merge(claim, {"spec": {"volumeName": f"volume-{id}"}})

    def report_use(id: int, as_of: str, entry: Mapping[str, Any]) -> None:
        metadata = {"name": f"disk-usage-node-{id}", "labels": {LABEL: "true"}}
        data = {KEY: json.dumps({"as_of": as_of, "disks": {f"volume-{id}": entry}})}
        collection = path("v1", real_settings.servers_namespace, "configmaps")
        kube.create(collection, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})

    return Interfaces(
        ClusterReader(real_settings),
        HelmReleases(real_settings),
        HelmReleases(replace(real_settings, pod_name="contract-2")),
        HelmReleases(replace(real_settings, pod_name="contract-3", chart_path=newer)),
        lose_statefulset,
        lose_service,
        lambda: None,
        use_disk,
        report_use,
        lambda id: _created(kube, path("v1", real_settings.servers_namespace, "persistentvolumeclaims"), id),
        scale,
    )


def _restored(id: int) -> dict[str, Any]:
    """A claim that only has the right name."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": f"server-{id}"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            # It names a volume, so that no provisioner makes one.
            "storageClassName": "",
            "volumeName": f"volume-{id}",
            "resources": {"requests": {"storage": "1024Mi"}},
        },
    }


def _created(kube: Kube, collection: str, id: int) -> None:
    kube.create(collection, _restored(id))


@pytest.fixture
def fake() -> Interfaces:
    """The fakes of the API's own tests."""
    world = World()

    def lose_statefulset(id: int) -> None:
        world.statefulsets.pop(id)

    def refuse_next() -> None:
        world.failure = RefusedByCluster()

    def lose_service(name: str) -> None:
        world.services.pop(name)

    def use_disk(id: int) -> None:
        world.claims[id]["status"] = {"phase": "Bound"}

    def report_use(id: int, as_of: str, entry: Mapping[str, Any]) -> None:
        world.usage[id] = parse(json.dumps({"as_of": as_of, "disks": {"volume": entry}}))[0]["volume"]

    def scale(id: int, replicas: int) -> None:
        world.statefulsets[id]["spec"]["replicas"] = replicas

    def restore_claim(id: int) -> None:
        world.claims[id] = {**_restored(id), "status": {"phase": "Pending"}}

    releases = FakeReleases(world)
    return Interfaces(
        FakeCluster(world),
        releases,
        releases,
        FakeReleases(world, "newer"),
        lose_statefulset,
        lose_service,
        refuse_next,
        use_disk,
        report_use,
        restore_claim,
        scale,
    )


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.cluster)])
def interfaces(request: pytest.FixtureRequest) -> Interfaces:
    """Each test with this fixture runs against both kinds."""
    chosen: Interfaces = request.getfixturevalue(request.param)
    return chosen


@pytest.fixture(scope="session")
def new_id() -> Callable[[], int]:
    """A function that returns an id that no other test uses."""
    ids = iter(range(1000, 10**6))
    return lambda: next(ids)
