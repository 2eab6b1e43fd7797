"""A change of which Kubernetes refuses a part changes nothing, in both ways of running helm; a stop gets through."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from threading import Event
from typing import Any

import pytest

from service.errors import FieldConflict, OperationInProgress, Problem, RefusedByCluster
from service.helm.releases import HelmReleases
from service.kube.client import Kube, path
from service.servers.values import Values
from service.settings import Settings
from tests.contract.conftest import VALUES
from tests.support.waiting import until

pytestmark = pytest.mark.cluster

#: No node takes the pod, because a game would take time.
RUNNING = {**VALUES, "replicas": 1, "nodeSelector": {"no-such-node": "here"}}
KINDS = {"services": "v1", "persistentvolumeclaims": "v1", "secrets": "v1", "statefulsets": "apps/v1"}


@dataclass
class Server:
    """A server that is wanted running, and what others do to its objects."""

    releases: HelmReleases
    kube: Kube
    namespace: str
    id: int

    def path(self, kind: str, suffix: str = "") -> str:
        return path(KINDS[kind], self.namespace, kind, f"server-{self.id}{suffix}")

    def object(self, kind: str) -> dict[str, Any]:
        found = self.kube.get(self.path(kind))
        assert found is not None
        return found

    def change(self, **values: Any) -> bool:
        return self.releases.change(self.id, lambda current: {**current, **values})

    def stop(self) -> bool:
        return self.releases.change(self.id, lambda current: {**current, "replicas": 0}, force_conflicts=True)

    def state(self) -> tuple[Values | None, list[Any]]:
        """The values, and all objects without what controllers write when they like."""
        objects = [
            {**found, "status": None, "metadata": {**found["metadata"], "resourceVersion": "", "managedFields": None}}
            for kind, group in KINDS.items()
            for found in self.kube.all(path(group, self.namespace, kind), labelSelector=f"gameserver/id={self.id}")
        ]
        revisions = self.kube.all(path("v1", self.namespace, "secrets"), labelSelector=f"name=server-{self.id}")
        return self.releases.current(self.id), [*objects, *(each["metadata"]["labels"] for each in revisions)]

    def edit_service(self) -> None:
        """As `kubectl edit` does: the chart says Local."""
        self.kube.merge(self.path("services"), {"spec": {"externalTrafficPolicy": "Cluster"}})

    def set_image(self) -> None:
        """As `kubectl set image` does."""
        template = self.object("statefulsets")["spec"]["template"]
        template["spec"]["containers"][0]["image"] = "registry.example/another:1"
        self.kube.merge(self.path("statefulsets"), {"spec": {"template": template}})

    def hold_service(self) -> None:
        """Somebody deletes the Service, which a load balancer's controller keeps."""
        self.kube.merge(self.path("services"), {"metadata": {"finalizers": ["example.com/load-balancer"]}})
        self.kube.delete(self.path("services"))

    def free_service(self) -> None:
        self.kube.merge(self.path("services"), {"metadata": {"finalizers": None}})
        until(lambda: self.kube.get(self.path("services")) is None)


@pytest.fixture(scope="module", params=["daemon", "helm"])
def releases(request: pytest.FixtureRequest, real_settings: Settings) -> HelmReleases:
    """Those of a replica whose helm-daemon runs, and those of one that has none."""
    if request.param == "helm":
        return HelmReleases(replace(real_settings, helm_daemon=""))
    runs = Event()
    releases = HelmReleases(real_settings, daemon_runs=lambda running: runs.set() if running else runs.clear())
    assert runs.wait(120)
    return releases


@pytest.fixture
def server(releases: HelmReleases, real_settings: Settings, new_id: Callable[[], int]) -> Iterator[Server]:
    made = Server(releases, Kube(), real_settings.servers_namespace, new_id())
    made.releases.install(made.id, RUNNING)
    yield made
    if (service := made.kube.get(made.path("services"))) and service["metadata"].get("finalizers"):
        made.free_service()
    made.releases.uninstall(made.id)


REFUSED: dict[str, tuple[Callable[[Server], object], dict[str, Any], type[Problem]]] = {
    # Kubernetes grows no disk that has never been used.
    "a larger disk, with more memory": (lambda server: None, {"ramGb": 2, "diskGb": 2}, RefusedByCluster),
    "more memory, and a Service of somebody else's": (Server.edit_service, {"ramGb": 2}, FieldConflict),
    "a restart, and a Service of somebody else's": (Server.edit_service, {"restartedAt": "now"}, FieldConflict),
    "other options, and a pod of somebody else's": (Server.set_image, {"server": {"options": {}}}, FieldConflict),
}


@pytest.mark.parametrize(("taken", "values", "problem"), REFUSED.values(), ids=REFUSED)
def test_a_change_that_is_refused_in_part_changes_nothing(
    server: Server, taken: Callable[[Server], object], values: dict[str, Any], problem: type[Problem]
) -> None:
    """No object has been touched: above all, the game goes on. And no revision has been written."""
    taken(server)
    before = server.state()
    with pytest.raises(problem):
        server.change(**values)
    assert server.state() == before


@pytest.mark.parametrize("take", [Server.edit_service, Server.set_image])
def test_a_stop_takes_fields_back(server: Server, take: Callable[[Server], None]) -> None:
    """An overdue server can be stopped, whoever has taken over which of its fields; and it can be started then."""
    made = server.object("services"), server.object("statefulsets")
    take(server)
    assert server.stop() is True
    service, workload = server.object("services"), server.object("statefulsets")
    assert service["spec"] == made[0]["spec"]
    assert workload["spec"] == {**made[1]["spec"], "replicas": 0}
    assert server.change(replicas=1) is True
    assert server.object("statefulsets")["spec"] == made[1]["spec"]


def test_no_game_starts_without_a_service_that_is_being_deleted(server: Server) -> None:
    """Kubernetes would take an apply to it, and remove it later: the game would have no port. A stop goes on."""
    server.hold_service()
    changes: list[Callable[[], bool]] = [
        lambda: server.change(ramGb=2),
        lambda: server.change(),
        lambda: server.releases.upgrade(server.id),
    ]
    for change in changes:
        before = server.state()
        with pytest.raises(OperationInProgress) as raised:
            change()
        assert raised.value.headers == {"Retry-After": "5"}
        assert server.state() == before
    assert server.stop() is True
    with pytest.raises(OperationInProgress):
        server.change(replicas=1)
    assert server.object("statefulsets")["spec"]["replicas"] == 0
    server.free_service()
    assert server.change(replicas=1) is True
    assert server.object("services")["spec"]["ports"]
