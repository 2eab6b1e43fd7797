"""Changes leave a running pod alone if they do not concern it; refused and contended writes are handled."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from service.errors import ClusterContended, FieldConflict, OperationInProgress, RefusedByCluster
from service.helm import releases
from service.helm.releases import CONTENDED_TRIES, HelmReleases
from service.servers.values import Values, started
from service.settings import Settings
from tests.support.memory_kube import MemoryKube
from tests.unit.service.helm.test_revisions import secret

SECRETS = "/api/v1/namespaces/gameservers/secrets"
WORKLOAD = "/apis/apps/v1/namespaces/gameservers/statefulsets/server-1"
POD = "/api/v1/namespaces/gameservers/pods/server-1-0"
MANIFEST = """
kind: Service
metadata: {name: server-1}
---
kind: PersistentVolumeClaim
metadata: {name: server-1}
"""
RUNNING: Values = {"replicas": 1, "ramGb": 1, "diskGb": 1}


class Kube(MemoryKube):
    def all(self, path: str, *, metadata: bool = False, **query: str | int) -> list[Any]:
        return [item for item_path, item in self.objects.items() if item_path.startswith(f"{path}/")]


class FakeHelmClient:
    """Writes revisions as helm does. It records kind and values of each write, and raises the `failures` one by one.

    The exceptions in `unbegun` it raises first, before it writes a revision.
    """

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self.written: list[tuple[str, Values]] = []
        self.failures: list[Exception] = []
        self.unbegun: list[Exception] = []
        self.forced: list[bool] = []

    def upgrade(self, kind: str, release: str, values: Values, lease: object, *, force_conflicts: bool = False) -> None:
        self.forced.append(force_conflicts)
        self.written.append((kind, values))
        if self.unbegun:
            raise self.unbegun.pop(0)
        self.store("failed" if self.failures else "deployed", values)
        if self.failures:
            raise self.failures.pop(0)

    def store(self, status: str, values: Values, **more: Any) -> None:
        number = 1 + sum(path.startswith(SECRETS) for path in self._kube.objects)
        self._kube._stored(f"{SECRETS}/sh.helm.release.v1.server-1.v{number}", secret(number, status, values, **more))


@pytest.fixture
def helm(monkeypatch: pytest.MonkeyPatch) -> FakeHelmClient:
    client = FakeHelmClient(Kube())
    monkeypatch.setattr(releases, "HelmClient", lambda settings, kube, done, daemon_runs: client)
    monkeypatch.setattr(releases, "CONTENDED_PAUSE", 0.0)
    client.store("deployed", RUNNING)
    has_pod(client._kube)
    return client


def has_pod(
    kube: Kube, template: str = "a", current: str = "a", newest: str = "a", *, observed: int = 1, partition: int = 0
) -> None:
    """The server has a pod of this template, and the StatefulSet of generation 1 knows these two."""
    kube._stored(
        WORKLOAD,
        {
            "metadata": {"name": "server-1", "generation": 1},
            "spec": {"replicas": 1, "updateStrategy": {"rollingUpdate": {"partition": partition}}},
            "status": {"observedGeneration": observed, "currentRevision": current, "updateRevision": newest},
        },
    )
    kube._stored(POD, {"metadata": {"name": "server-1-0", "labels": {"controller-revision-hash": template}}})


def ends(kube: Kube) -> None:
    """The server's pod still saves, and then ends."""
    kube.merge(POD, {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})


def is_absent(kube: Kube) -> None:
    """A quota refuses the server's pod."""
    kube.delete(POD)


@pytest.fixture
def helm_releases(helm: FakeHelmClient) -> HelmReleases:
    return HelmReleases(Settings(), helm._kube)


@pytest.mark.parametrize(
    ("changes", "keep"),
    [
        ({"diskGb": 2}, True),
        ({"server": {"options": {"motd": "hi"}}}, True),
        ({"rcon": {"visibility": "private"}}, True),
        ({"ramGb": 2}, False),
        ({"replicas": 0}, False),
        ({"restartedAt": "now"}, False),
    ],
)
def test_a_change_that_does_not_concern_the_pod_leaves_it_alone(
    helm: FakeHelmClient, helm_releases: HelmReleases, changes: Values, keep: bool
) -> None:
    """The value names this revision only, so an operator's next `--reuse-values` updates the pod again."""
    assert helm_releases.change(1, lambda values: {**values, **changes}) is True
    keeps_pod = {"keepPodInRevision": 2} if keep else {}
    assert helm.written == [("change", {**RUNNING, **changes, **keeps_pod})]
    assert helm_releases.current(1) == {**RUNNING, **changes}
    helm_releases.change(1, lambda values: {**values, "restartedAt": "later"})
    assert helm.written[-1][1] == {**RUNNING, **changes, "restartedAt": "later"}


def test_a_server_that_somebody_else_has_scaled_is_written_again(
    helm: FakeHelmClient, helm_releases: HelmReleases
) -> None:
    """Although the values are the same. Helm then applies the replicas, or says who owns them."""
    assert helm_releases.change(1, lambda values: values) is False
    helm._kube._stored(WORKLOAD, {"metadata": {"name": "server-1"}, "spec": {"replicas": 0}})
    assert helm_releases.change(1, lambda values: values) is True
    assert [kind for kind, _ in helm.written] == ["change"]


def test_a_statefulset_that_ends_is_waited_for(helm: FakeHelmClient, helm_releases: HelmReleases) -> None:
    """An apply would change what is about to go. A stop does not wait: the server is to have no pod."""
    ended = {"deletionTimestamp": "2026-01-01T00:00:00Z"}
    helm._kube.merge(WORKLOAD, {"metadata": ended})
    with pytest.raises(OperationInProgress) as raised:
        helm_releases.change(1, lambda values: values)
    assert raised.value.headers == {"Retry-After": "5"}
    assert helm.written == []
    assert helm_releases.change(1, lambda values: {**values, "replicas": 0}) is True


def test_a_start_applies_everything(helm: FakeHelmClient, helm_releases: HelmReleases) -> None:
    """There is no pod to leave alone."""
    helm.store("deployed", {**RUNNING, "replicas": 0})
    helm_releases.change(1, lambda values: {**values, "replicas": 1, "diskGb": 2})
    assert "keepPodInRevision" not in helm.written[0][1]


def test_a_change_that_a_dead_replica_began_reaches_the_pod(helm: FakeHelmClient, helm_releases: HelmReleases) -> None:
    """The pod may not have it yet, unless that change left the pod alone too."""
    helm.store("failed", {**RUNNING, "ramGb": 2})
    helm_releases.change(1, lambda values: {**values, "diskGb": 2})
    assert "keepPodInRevision" not in helm.written[-1][1]
    helm.store("failed", {**RUNNING, "diskGb": 3, "keepPodInRevision": 4})
    helm_releases.change(1, lambda values: values)
    assert helm.written[-1][1] == {**RUNNING, "diskGb": 3, "keepPodInRevision": 5}


def test_a_refused_change_is_undone_without_touching_the_pod(helm: FakeHelmClient, helm_releases: HelmReleases) -> None:
    """Undoing it does not bring in a newer chart's pod template."""
    helm.failures = [RefusedByCluster()]
    with pytest.raises(RefusedByCluster):
        helm_releases.change(1, lambda values: {**values, "ramGb": 2})
    assert helm.written == [
        ("change", {**RUNNING, "ramGb": 2}),
        ("restore", {**RUNNING, "keepPodInRevision": 3}),
    ]


def test_a_change_that_is_refused_before_it_begins_leaves_nothing_to_undo(
    helm: FakeHelmClient, helm_releases: HelmReleases
) -> None:
    """Helm has written no revision."""
    helm.unbegun = [RefusedByCluster(), FieldConflict()]
    for problem in (RefusedByCluster, FieldConflict):
        with pytest.raises(problem):
            helm_releases.change(1, lambda values: {**values, "ramGb": 2})
    assert [kind for kind, _ in helm.written] == ["change", "change"]
    assert helm_releases.current(1) == RUNNING


def test_a_conflict_that_comes_in_between_is_undone(helm: FakeHelmClient, helm_releases: HelmReleases) -> None:
    """Somebody has taken a field over after Kubernetes was asked."""
    helm.failures = [FieldConflict()]
    with pytest.raises(FieldConflict):
        helm_releases.change(1, lambda values: {**values, "ramGb": 2})
    assert [kind for kind, _ in helm.written] == ["change", "restore"]
    assert helm_releases.current(1) == RUNNING


def test_fields_are_taken_back_only_if_they_are_in_the_way(helm: FakeHelmClient, helm_releases: HelmReleases) -> None:
    """The first try says whose they are, in the log."""
    helm.unbegun = [FieldConflict()]
    for running in (False, True, False):
        helm_releases.change(1, partial(started, running=running), force_conflicts=True)
    assert helm.forced == [False, True, False, False]


def test_what_is_being_deleted_is_missing(helm: FakeHelmClient, helm_releases: HelmReleases) -> None:
    """A claim is there for as long as a game uses it."""
    kube, namespace = helm._kube, "/api/v1/namespaces/gameservers"
    helm.store("deployed", RUNNING, manifest=MANIFEST)
    for kind in ("services", "persistentvolumeclaims"):
        kube._stored(f"{namespace}/{kind}/server-1", {"metadata": {"name": "server-1"}})
    assert helm_releases.missing(1) == []
    for kind in ("services", "persistentvolumeclaims"):
        kube.merge(f"{namespace}/{kind}/server-1", {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})
    assert helm_releases.missing(1) == ["Service server-1"]


OWED: dict[str, Callable[[Kube], object]] = {
    "the controller has not seen the new template": lambda kube: has_pod(kube, observed=0),
    "the old pod is not yet told to end": lambda kube: has_pod(kube, newest="b"),
    "the old pod still saves": ends,
    "the new pod is not ready yet": lambda kube: has_pod(kube, template="b", newest="b"),
    "there is no new pod yet": is_absent,
    "the StatefulSet says nothing yet": lambda kube: kube.merge(WORKLOAD, {"status": None}),
}


@pytest.mark.parametrize("owed", OWED.values(), ids=OWED)
def test_a_change_that_follows_a_resize_does_not_take_it_back(
    helm: FakeHelmClient, helm_releases: HelmReleases, owed: Callable[[Kube], object]
) -> None:
    """Kubernetes would make the next pod from the template of before."""
    helm_releases.change(1, lambda values: {**values, "ramGb": 2})
    owed(helm._kube)
    helm_releases.change(1, lambda values: {**values, "diskGb": 2})
    assert helm.written[-1] == ("change", {**RUNNING, "ramGb": 2, "diskGb": 2})
    helm.failures = [RefusedByCluster()]
    with pytest.raises(RefusedByCluster):
        helm_releases.change(1, lambda values: {**values, "diskGb": 3})
    assert helm.written[-1] == ("restore", {**RUNNING, "ramGb": 2, "diskGb": 2})


def test_an_older_template_is_left_alone_again_and_again(helm: FakeHelmClient, helm_releases: HelmReleases) -> None:
    """The first change may bring a newer chart's template along. A pod that is lost meanwhile comes back as it was."""
    helm_releases.change(1, lambda values: {**values, "diskGb": 2})
    has_pod(helm._kube, newest="b", partition=1)
    helm_releases.change(1, lambda values: {**values, "diskGb": 3})
    is_absent(helm._kube)
    helm_releases.change(1, lambda values: {**values, "diskGb": 4})
    assert [values.get("keepPodInRevision") for _, values in helm.written] == [2, 3, 4]


def test_objects_that_a_thawed_process_changed_are_brought_back_with_their_pod(
    helm: FakeHelmClient, helm_releases: HelmReleases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest revision left the pod alone, but what was written after it has made another one."""
    monkeypatch.setattr(releases, "CONVERGE_PAUSE", 0.0)
    helm_releases.change(1, lambda values: {**values, "diskGb": 2})
    helm_releases._converge(1)
    has_pod(helm._kube, newest="b")
    helm_releases._converge(1)
    assert [(kind, values.get("keepPodInRevision")) for kind, values in helm.written] == [
        ("change", 2),
        ("converge", 3),
        ("converge", None),
    ]


def test_a_contended_write_is_repeated(helm: FakeHelmClient, helm_releases: HelmReleases) -> None:
    """Each try names its own revision. After many, the client is told to retry."""
    helm.failures = [ClusterContended(), ClusterContended()]
    assert helm_releases.change(1, lambda values: {**values, "diskGb": 2}) is True
    assert [values["keepPodInRevision"] for _, values in helm.written] == [2, 3, 4]
    helm.failures = [ClusterContended()] * CONTENDED_TRIES
    helm.written.clear()
    with pytest.raises(ClusterContended) as raised:
        helm_releases.change(1, lambda values: {**values, "ramGb": 2})
    assert raised.value.headers == {"Retry-After": "2"}
    assert [kind for kind, _ in helm.written] == ["change"] * CONTENDED_TRIES + ["restore"]
    assert helm_releases.current(1) == {**RUNNING, "diskGb": 2}
