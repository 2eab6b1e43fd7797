"""Several replicas that work on one server, and replicas that die. Only the real interfaces can show this."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest

from service.cluster.reader import ClusterReader
from service.errors import ClusterUnavailable, OperationInProgress, RefusedByCluster
from service.helm.releases import HelmReleases
from service.kube import leases
from service.kube.client import Kube, path
from service.servers.state import exists
from service.settings import Settings
from tests.contract.conftest import VALUES, Interfaces, statuses
from tests.contract.replica import CREATE, Call, Replica, daemons, helms, replica, serving
from tests.support.proxy import Proxy
from tests.support.waiting import until

pytestmark = pytest.mark.cluster

Held = Callable[[Call, int], AbstractContextManager[Replica]]


@pytest.fixture
def held(ways: Settings, kubeconfig: str, tmp_path: Path) -> Held:
    """A function that starts a replica in the middle of a call, when its helm is about to write the StatefulSet."""
    return lambda call, id: replica(ways, kubeconfig, tmp_path, call, id, "PATCH /apis/apps/v1/namespaces/")


@pytest.mark.long
def test_a_slow_write_is_not_interrupted(real: Interfaces, new_id: Callable[[], int], held: Held) -> None:
    """A write that takes longer than a Lease lasts is not interrupted, and succeeds."""
    id = new_id()
    with held(CREATE, id) as slow:
        until_ = time.monotonic() + leases.DURATION + 3
        while time.monotonic() < until_:
            with pytest.raises(OperationInProgress):
                real.releases.change(id, lambda values: values)
            time.sleep(0.5)
        slow.proxy.let_go()
        assert slow.answered.result(20).status_code == 201
    assert statuses(real, id) == ["deployed"]


@pytest.mark.long
def test_a_frozen_replica_that_thaws_does_no_lasting_harm(
    real: Interfaces, ways: Settings, new_id: Callable[[], int], held: Held
) -> None:
    """Another replica takes over the Lease of a frozen one. What the frozen helm still writes is corrected.

    Its daemon writes nothing more: it knows how long the Lease lasts. The disk stays the same, and the frozen replica
    answers 503, because another call came after its own.
    """
    id = new_id()
    real.releases.install(id, VALUES)
    disk = real.cluster.server(id).claim
    with held(Call("PATCH", body={"ram_gb": 3}), id) as frozen:
        frozen.send_signal(signal.SIGSTOP)
        until(lambda: changed(real, id, 2), leases.DURATION + 10)
        before = statuses(real, id)
        frozen.proxy.let_go()
        # This one request was on its way.
        until(lambda: memory(real, id) == "3Gi", 10)
        if ways.helm_daemon:
            time.sleep(1)
            assert statuses(real, id) == before
        frozen.send_signal(signal.SIGCONT)
        assert frozen.answered.result(20).status_code == 503
        until(lambda: memory(real, id) == "2Gi" and statuses(real, id)[-1] == "deployed", 40)
    current = real.releases.current(id)
    assert current is not None
    assert current["ramGb"] == 2
    now = real.cluster.server(id).claim
    assert disk is not None
    assert now is not None
    assert now["metadata"]["uid"] == disk["metadata"]["uid"]


@pytest.mark.long
def test_a_frozen_erase_that_thaws_spares_the_disk_of_a_new_server(
    real: Interfaces, real_settings: Settings, kubeconfig: str, new_id: Callable[[], int], tmp_path: Path
) -> None:
    """A frozen erase whose last request comes late does not erase the disk, which a new server uses by then."""
    id, request = new_id(), f"DELETE /api/v1/namespaces/{real_settings.servers_namespace}/persistentvolumeclaims/"
    real.releases.install(id, VALUES)
    # A disk that was never used would not be kept for the new server.
    real.use_disk(id)
    disk = real.cluster.server(id).claim
    assert disk is not None
    for folder in (tmp_path / "frozen", tmp_path / "other"):
        folder.mkdir()
    erase, again = Call("DELETE", "/?disk=erase"), Call("POST", body={"ram_gb": 1, "disk_gb": 1, "disk": "reuse"})
    with (
        replica(real_settings, kubeconfig, tmp_path / "frozen", erase, id, request) as frozen,
        serving(real_settings, kubeconfig, tmp_path / "other", "other") as other,
    ):
        frozen.send_signal(signal.SIGSTOP)
        assert other.answer(again, id).status_code == 201
        frozen.proxy.let_go()
        frozen.send_signal(signal.SIGCONT)
        assert frozen.answered.result(20).status_code in (409, 503)
    now = real.cluster.server(id).claim
    assert now is not None
    assert now["metadata"]["uid"] == disk["metadata"]["uid"]
    assert "deletionTimestamp" not in now["metadata"]
    assert statuses(real, id) == ["deployed"]


def changed(interfaces: Interfaces, id: int, ram_gb: int) -> bool:
    """Resize a server; False if another operation is in progress."""
    try:
        return interfaces.releases.change(id, lambda values: {**values, "ramGb": ram_gb})
    except OperationInProgress:
        time.sleep(0.5)
        return False


def memory(interfaces: Interfaces, id: int) -> str:
    """The memory limit in a server's StatefulSet."""
    statefulset = interfaces.cluster.server(id).statefulset
    assert statefulset is not None
    limit: str = statefulset["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"]
    return limit


def test_a_terminated_helm_leaves_a_release_that_can_be_retried(
    real: Interfaces, ways: Settings, new_id: Callable[[], int], held: Held
) -> None:
    """SIGTERM makes helm mark the release as failed; for a daemon that dies, the replica does. A retry succeeds."""
    id = new_id()
    with held(CREATE, id) as ended:
        for pid in daemons(ended.process.pid) if ways.helm_daemon else helms(id):
            os.kill(pid, signal.SIGTERM)
        time.sleep(0.5)
        ended.proxy.let_go()
        assert ended.answered.result(20).status_code == (500 if ways.helm_daemon else 503)
        assert statuses(real, id) == ["failed"]
        assert ended.call(CREATE, id).status_code == 201
    assert statuses(real, id) == ["superseded", "deployed"]


@pytest.mark.long
def test_a_replica_that_loses_kubernetes_ends_its_helm_in_time(
    real: Interfaces, real_settings: Settings, kubeconfig: str, new_id: Callable[[], int], tmp_path: Path, held: Held
) -> None:
    """Without Kubernetes a replica ends its helm before its Lease can expire, and another replica takes over."""
    id, folder = new_id(), tmp_path / "other"
    folder.mkdir()
    with held(CREATE, id) as lonely, serving(real_settings, kubeconfig, folder, "other") as other:
        lonely.proxy.freeze()
        assert lonely.answered.result(leases.DURATION).status_code == 503
        assert helms(id) == []
        assert other.answer(CREATE, id).status_code == 201
    assert statuses(real, id) == ["superseded", "deployed"]


def test_a_terminated_replica_finishes_its_call(real: Interfaces, new_id: Callable[[], int], held: Held) -> None:
    """At SIGTERM, as in a rolling update, a replica answers the current call and then ends."""
    id = new_id()
    with held(CREATE, id) as leaving:
        leaving.process.send_signal(signal.SIGTERM)
        time.sleep(3)  # Longer than it drains.
        assert not leaving.answered.done()
        leaving.proxy.let_go()
        assert leaving.answered.result(20).status_code == 201
        assert leaving.process.wait(20) == 0
    assert statuses(real, id) == ["deployed"]


def test_an_operators_helm_is_not_disturbed(
    real: Interfaces, real_settings: Settings, new_id: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a release is pending without an expired Lease, the API assumes an operator's helm and waits a minute."""
    id = new_id()
    real.releases.install(id, VALUES)
    kube, namespace = Kube(), real_settings.servers_namespace
    secret_path = path("v1", namespace, "secrets", f"sh.helm.release.v1.server-{id}.v1")
    secret = kube.get(secret_path)
    assert secret is not None
    secret["metadata"]["labels"]["status"] = "pending-upgrade"
    kube.replace(secret_path, secret)
    with pytest.raises(OperationInProgress) as problem:
        real.releases.change(id, lambda values: {**values, "ramGb": 2})
    assert 30 < int(problem.value.headers["Retry-After"]) <= 60
    monkeypatch.setattr("service.helm.releases.STRANGER_SECONDS", 0)
    assert real.releases.change(id, lambda values: {**values, "ramGb": 2}) is True
    assert statuses(real, id) == ["superseded", "deployed"]


def test_a_release_whose_history_an_operator_kept_is_gone(
    real: Interfaces, real_settings: Settings, new_id: Callable[[], int], kubeconfig: str
) -> None:
    """After `helm uninstall --keep-history` there is no server, its disk is kept, and a new one can be installed."""
    id = new_id()
    real.releases.install(id, VALUES)
    real.use_disk(id)
    command = [real_settings.helm, "uninstall", f"server-{id}", "--keep-history", "-n", real_settings.servers_namespace]
    subprocess.run(command, env={**os.environ, "KUBECONFIG": kubeconfig}, check=True, capture_output=True)
    assert not exists(real.cluster.server(id))
    assert real.releases.current(id) is None
    assert real.releases.uninstall(id) is False
    assert f"server-{id}" in [disk["metadata"]["name"] for disk in real.cluster.kept_disks()]
    real.releases.install(id, {**VALUES, "ramGb": 2})
    assert real.releases.current(id) == {**VALUES, "ramGb": 2}
    assert exists(real.cluster.server(id))


def test_values_that_the_schema_refuses_reach_nothing(real: Interfaces, new_id: Callable[[], int]) -> None:
    """Values that the chart's schema refuses raise RefusedByCluster and create nothing."""
    id = new_id()
    with pytest.raises(RefusedByCluster):
        real.releases.install(id, {**VALUES, "notAValue": True})
    assert not exists(real.cluster.server(id))


def test_the_absence_of_kubernetes_is_reported_in_time(
    real_settings: Settings, tmp_path: Path, new_id: Callable[[], int], monkeypatch: pytest.MonkeyPatch, kubeconfig: str
) -> None:
    """Reads and writes raise ClusterUnavailable in under 5 seconds, for refused connections and for silence."""
    proxy = Proxy(kubeconfig)
    with proxy.running():
        monkeypatch.setenv("KUBECONFIG", proxy.kubeconfig(tmp_path))
        settings = replace(real_settings, pod_name="away")
        cluster, releases = ClusterReader(settings), HelmReleases(settings)
        assert cluster.ready()
        cluster.servers(1, None)
        proxy.freeze()
        for call in _calls(cluster, releases, new_id()):
            began = time.monotonic()
            with pytest.raises(ClusterUnavailable):
                call()
            assert time.monotonic() - began < 5
    for call in _calls(cluster, releases, new_id()):
        began = time.monotonic()
        with pytest.raises(ClusterUnavailable):
            call()
        assert time.monotonic() - began < 5
    assert not cluster.ready()


def _calls(cluster: ClusterReader, releases: HelmReleases, id: int) -> list[Callable[[], object]]:
    time.sleep(2.5)  # Longer than the list counts as fresh.
    return [
        lambda: cluster.server(id).statefulset,
        lambda: cluster.servers(1, None),
        lambda: releases.install(id, VALUES),
    ]
