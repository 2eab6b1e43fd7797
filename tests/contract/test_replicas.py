"""Several replicas at one server, and one that dies: what only real edges can show."""

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
from tests.contract.conftest import VALUES, Edges, statuses
from tests.contract.replica import CREATE, Call, Replica, helms, replica, serving
from tests.support.proxy import Proxy
from tests.support.waiting import until

pytestmark = pytest.mark.cluster

Held = Callable[[Call, int], AbstractContextManager[Replica]]


@pytest.fixture
def held(real_settings: Settings, kubeconfig: str, tmp_path: Path) -> Held:
    """A replica in the middle of a call: its helm is about to write the StatefulSet."""
    return lambda call, id: replica(real_settings, kubeconfig, tmp_path, call, id, "PATCH /apis/apps/v1/namespaces/")


@pytest.mark.long
def test_a_slow_write_is_not_taken_for_dead(real: Edges, new_id: Callable[[], int], held: Held) -> None:
    """Held for longer than a Lease lasts, it is left alone, and comes to its end."""
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
def test_a_frozen_replica_that_thaws_does_no_lasting_harm(real: Edges, new_id: Callable[[], int], held: Held) -> None:
    """Its Lease was taken over meanwhile; what its helm still writes is put right, and the disk is the same.

    Nor does it say that its call went well, as another's came after it.
    """
    id = new_id()
    real.releases.install(id, VALUES)
    disk = real.cluster.server(id).claim
    with held(Call("PATCH", body={"ram_gb": 3}), id) as frozen:
        frozen.send_signal(signal.SIGSTOP)
        until(lambda: changed(real, id, 2), leases.DURATION + 10)
        frozen.proxy.let_go()
        until(lambda: memory(real, id) == "3Gi", 10)
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
    real: Edges, real_settings: Settings, kubeconfig: str, new_id: Callable[[], int], tmp_path: Path
) -> None:
    """Frozen with its last request on the way, while another made the server again over that disk: it is too late."""
    id, request = new_id(), f"DELETE /api/v1/namespaces/{real_settings.servers_namespace}/persistentvolumeclaims/"
    real.releases.install(id, VALUES)
    # A disk that never was would be nothing to spare: the other would make its server with a new one.
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


def changed(edges: Edges, id: int, ram_gb: int) -> bool:
    try:
        return edges.releases.change(id, lambda values: {**values, "ramGb": ram_gb})
    except OperationInProgress:
        time.sleep(0.5)
        return False


def memory(edges: Edges, id: int) -> str:
    statefulset = edges.cluster.server(id).statefulset
    assert statefulset is not None
    limit: str = statefulset["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"]
    return limit


def test_a_terminated_helm_leaves_a_release_that_goes_on(real: Edges, new_id: Callable[[], int], held: Held) -> None:
    """SIGTERM makes helm mark the release failed; the same call goes through at once after it."""
    id = new_id()
    with held(CREATE, id) as ended:
        for pid in helms(id):
            os.kill(pid, signal.SIGTERM)
        time.sleep(0.5)
        ended.proxy.let_go()
        assert ended.answered.result(20).status_code == 503
        assert statuses(real, id) == ["failed"]
        assert ended.call(CREATE, id).status_code == 201
    assert statuses(real, id) == ["superseded", "deployed"]


@pytest.mark.long
def test_a_replica_that_loses_kubernetes_ends_its_helm_in_time(
    real: Edges, real_settings: Settings, kubeconfig: str, new_id: Callable[[], int], tmp_path: Path, held: Held
) -> None:
    """Nothing of it writes once its Lease can have run out: another replica goes on from there."""
    id, folder = new_id(), tmp_path / "other"
    folder.mkdir()
    with held(CREATE, id) as lonely, serving(real_settings, kubeconfig, folder, "other") as other:
        lonely.proxy.freeze()
        assert lonely.answered.result(leases.DURATION).status_code == 503
        assert helms(id) == []
        assert other.answer(CREATE, id).status_code == 201
    assert statuses(real, id) == ["superseded", "deployed"]


def test_a_terminated_replica_finishes_what_it_does(real: Edges, new_id: Callable[[], int], held: Held) -> None:
    """SIGTERM, as at every rolling update: the call under way is answered, and then the process is gone."""
    id = new_id()
    with held(CREATE, id) as leaving:
        leaving.process.send_signal(signal.SIGTERM)
        time.sleep(3)  # Past its time of draining.
        assert not leaving.answered.done()
        leaving.proxy.let_go()
        assert leaving.answered.result(20).status_code == 201
        assert leaving.process.wait(20) == 0
    assert statuses(real, id) == ["deployed"]


def test_a_hand_at_work_is_not_disturbed(
    real: Edges, real_settings: Settings, new_id: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A release that is pending, with no Lease to say that its holder died, is a hand's for a while."""
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


def test_a_release_of_which_a_hand_kept_the_history_is_gone(
    real: Edges, real_settings: Settings, new_id: Callable[[], int], kubeconfig: str
) -> None:
    """`helm uninstall --keep-history`: no server is there, and the next one begins anew."""
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


def test_values_that_the_schema_refuses_reach_nothing(real: Edges, new_id: Callable[[], int]) -> None:
    """The chart's schema is the last check before the cluster."""
    id = new_id()
    with pytest.raises(RefusedByCluster):
        real.releases.install(id, {**VALUES, "notAValue": True})
    assert not exists(real.cluster.server(id))


def test_kubernetes_away_is_said_in_time(
    real_settings: Settings, tmp_path: Path, new_id: Callable[[], int], monkeypatch: pytest.MonkeyPatch, kubeconfig: str
) -> None:
    """Reads and writes say so in under 5 seconds, whether connections are refused or nothing answers."""
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
    time.sleep(2.5)  # Past what the list takes for fresh.
    return [
        lambda: cluster.server(id).statefulset,
        lambda: cluster.servers(1, None),
        lambda: releases.install(id, VALUES),
    ]
