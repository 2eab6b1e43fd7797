"""Several replicas at one server, and one that dies: what only real edges can show."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from service import leases
from service.errors import ClusterUnavailable, OperationInProgress, RefusedByCluster, TooManyOperations
from service.kube import Kube, path
from service.releases import Releases
from service.settings import Settings
from service.state import exists
from tests.contract.conftest import ROOT, VALUES, Edges, until
from tests.proxy import Proxy

pytestmark = pytest.mark.cluster


@dataclass
class Replica:
    """A process of its own in the middle of a write, one of whose requests the proxy holds."""

    process: subprocess.Popen[str]
    proxy: Proxy


@contextmanager
def replica(
    settings: Settings, kubeconfig: str, folder: Path, write: str, id: int, hold: str, number: int = 1
) -> Iterator[Replica]:
    proxy = Proxy(kubeconfig)
    with proxy.running():
        proxy.hold(number, hold)
        environment = {
            **os.environ,
            "KUBECONFIG": proxy.kubeconfig(folder),
            "CONTRACT_NAMESPACE": settings.servers_namespace,
            "HELM": settings.helm,
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.contract.replica", write, str(id)],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            # A write may be done before its n-th request.
            until(lambda: proxy.holding.is_set() or process.poll() is not None, 60)
            yield Replica(process, proxy)
        finally:
            process.kill()
            process.communicate()


def helms(id: int) -> list[int]:
    """The helm processes at work on a server."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"server-{id}".encode() in words and any(word.endswith(b"helm") for word in words):
            found.append(int(folder.name))
    return found


def statuses(edges: Edges, id: int) -> list[str]:
    return [one["labels"]["status"] for one in edges.cluster.server(id).releases]


def test_many_creates_at_once_make_one_release(real: Edges, new_id: Callable[[], int]) -> None:
    """Over two replicas, each looking before it installs: one makes it, the others see it or come again later."""
    id, answers = new_id(), Counter[str]()

    def create(edge: object) -> None:
        assert isinstance(edge, Releases)
        try:
            with edge.locked(id):
                if exists(real.cluster.server(id)):
                    answers["there"] += 1
                    return
                edge.install(id, VALUES)
                answers["made"] += 1
        except OperationInProgress:
            answers["busy"] += 1

    threads = [threading.Thread(target=create, args=([real.releases, real.other][n % 2],)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers["made"] == 1
    assert sum(answers.values()) == 20
    assert statuses(real, id) == ["deployed"]


# Points in a write: its n-th request that has the text in it is held, and its process is killed.
POINTS = [
    ("install", "POST /api/v1/namespaces/{namespace}/secrets", 1),
    ("install", "PATCH /api/v1/namespaces/{namespace}/services", 1),
    ("install", "/statefulsets", 2),
    ("install", "PUT /api/v1/namespaces/{namespace}/secrets", 1),
    ("change", "POST /api/v1/namespaces/{namespace}/secrets", 1),
    ("change", "PATCH /apis/apps/v1/namespaces/{namespace}/statefulsets", 1),
    ("change", "PUT /api/v1/namespaces/{namespace}/secrets", 1),
    ("uninstall", "DELETE /apis/apps/v1/namespaces/{namespace}/statefulsets", 1),
    ("uninstall", "DELETE /api/v1/namespaces/{namespace}/secrets/sh.helm", 1),
    ("uninstall", "DELETE /apis/coordination.k8s.io", 1),
]


@dataclass
class Killing:
    """Kills replicas in the middle of writes and sends the writes again, on the cluster that a test has."""

    real: Edges
    settings: Settings
    kubeconfig: str
    folder: Path
    new_id: Callable[[], int]

    def all(self, points: list[tuple[str, str, int]], at_once: int) -> list[str]:
        """What went wrong at each point (a write, which of its requests count, and the number of the fatal one)."""

        def checked(point: tuple[str, str, int]) -> str | None:
            write, hold, number = point
            try:
                self.one(write, hold.format(namespace=self.settings.servers_namespace), number)
            except Exception as problem:
                return f"{write} killed at {hold} {number}: {problem!r}"
            return None

        # Many at once, as each waits for a Lease to run out.
        with ThreadPoolExecutor(at_once) as pool:
            return [problem for problem in pool.map(checked, points) if problem is not None]

    def one(self, write: str, hold: str, number: int) -> None:
        id, real = self.new_id(), self.real
        folder = self.folder / str(id)
        folder.mkdir()
        if write != "install":
            real.releases.install(id, VALUES)
        before = real.cluster.server(id).claim
        with replica(self.settings, self.kubeconfig, folder, write, id, hold, number) as dying:
            dying.process.kill()
            dying.process.wait()
            killed = time.monotonic()
            until(lambda: not helms(id), 2)
            self.again(write, id, killed)
        after = real.cluster.server(id)
        assert exists(after) is (write != "uninstall")
        assert not [status for status in statuses(real, id) if "pending" in status or status == "uninstalling"]
        assert after.claim is not None
        if before is not None:
            assert after.claim["metadata"]["uid"] == before["metadata"]["uid"]
        if write != "uninstall":
            assert statuses(real, id)[-1] == "deployed"
            assert after.statefulset is not None
            assert real.releases.current(id) == (VALUES if write == "install" else {**VALUES, "ramGb": 3})

    def again(self, write: str, id: int, killed: float) -> None:
        """The same write, until it goes through: within 30 seconds, and told to wait until then."""
        while True:
            try:
                if write == "install":
                    self.real.releases.install(id, VALUES)
                elif write == "change":
                    self.real.releases.change(id, lambda values: {**values, "ramGb": 3})
                else:
                    self.real.releases.uninstall(id)
                return
            except (OperationInProgress, TooManyOperations):
                if time.monotonic() - killed > 30:
                    raise
                time.sleep(0.5)


@pytest.fixture
def killing(
    real: Edges, real_settings: Settings, kubeconfig: str, new_id: Callable[[], int], tmp_path: Path
) -> Killing:
    return Killing(real, real_settings, kubeconfig, tmp_path, new_id)


def test_a_killed_replica_leaves_nothing_in_the_way(killing: Killing) -> None:
    """Killed at points all over its write: helm dies with it, and the same write goes through within 30 seconds."""
    assert killing.all(POINTS, len(POINTS)) == []


@pytest.mark.long
def test_a_replica_killed_at_any_request_leaves_nothing_in_the_way(killing: Killing) -> None:
    """At each single request of an install, a change and an uninstall: a hundred kills."""
    writes = {"install": 34, "change": 38, "uninstall": 30}
    points = [(write, "", number) for write, most in writes.items() for number in range(1, most + 1)]
    assert killing.all(points, 8) == []


def test_a_slow_write_is_not_taken_for_dead(
    real: Edges, real_settings: Settings, kubeconfig: str, new_id: Callable[[], int], tmp_path: Path
) -> None:
    """Held for longer than a Lease lasts, it is left alone, and comes to its end."""
    id = new_id()
    hold = "PATCH /apis/apps/v1/namespaces/"
    with replica(real_settings, kubeconfig, tmp_path, "install", id, hold) as slow:
        until_ = time.monotonic() + leases.DURATION + 3
        while time.monotonic() < until_:
            with pytest.raises(OperationInProgress):
                real.releases.change(id, lambda values: values)
            time.sleep(0.5)
        slow.proxy.let_go()
        output, _ = slow.process.communicate(timeout=20)
        assert output.split() == ["ready", "done"]
    assert statuses(real, id) == ["deployed"]


def test_a_frozen_replica_that_thaws_does_no_lasting_harm(
    real: Edges, real_settings: Settings, kubeconfig: str, new_id: Callable[[], int], tmp_path: Path
) -> None:
    """Its Lease was taken over meanwhile; what its helm still writes is put right, and the disk is the same."""
    id = new_id()
    real.releases.install(id, VALUES)
    disk = real.cluster.server(id).claim
    hold = "PATCH /apis/apps/v1/namespaces/"
    with replica(real_settings, kubeconfig, tmp_path, "change", id, hold) as frozen:
        frozen.process.send_signal(signal.SIGSTOP)
        until(lambda: changed(real, id, 2), leases.DURATION + 10)
        frozen.proxy.let_go()
        until(lambda: memory(real, id) == "3Gi", 10)
        frozen.process.send_signal(signal.SIGCONT)
        until(lambda: memory(real, id) == "2Gi" and statuses(real, id)[-1] == "deployed", 40)
    current = real.releases.current(id)
    assert current is not None
    assert current["ramGb"] == 2
    now = real.cluster.server(id).claim
    assert disk is not None
    assert now is not None
    assert now["metadata"]["uid"] == disk["metadata"]["uid"]


def changed(edges: Edges, id: int, ram_gb: int) -> bool:
    try:
        return edges.releases.change(id, lambda values: {**values, "ramGb": ram_gb})
    except OperationInProgress:
        time.sleep(0.5)
        return False


def memory(edges: Edges, id: int) -> str:
    statefulset = edges.cluster.server(id).statefulset
    assert statefulset is not None
    found: str = statefulset["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"]
    return found


def test_a_terminated_helm_leaves_a_release_that_goes_on(
    real: Edges, real_settings: Settings, kubeconfig: str, new_id: Callable[[], int], tmp_path: Path
) -> None:
    """SIGTERM makes helm mark the release failed; the same write goes through at once after it."""
    id = new_id()
    with replica(real_settings, kubeconfig, tmp_path, "install", id, "PATCH /apis/apps/v1/namespaces/") as slow:
        for pid in helms(id):
            os.kill(pid, signal.SIGTERM)
        time.sleep(0.5)
        slow.proxy.let_go()
        slow.process.communicate(timeout=20)
    assert statuses(real, id) == ["failed"]
    real.releases.install(id, VALUES)
    assert statuses(real, id) == ["superseded", "deployed"]


def test_a_hand_at_work_is_not_disturbed(
    real: Edges, real_settings: Settings, new_id: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A release that is pending, with no Lease to say that its holder died, is a hand's for a while."""
    id = new_id()
    real.releases.install(id, VALUES)
    kube, namespace = Kube(), real_settings.servers_namespace
    where = path("v1", namespace, "secrets", f"sh.helm.release.v1.server-{id}.v1")
    secret = kube.get(where)
    assert secret is not None
    secret["metadata"]["labels"]["status"] = "pending-upgrade"
    kube.replace(where, secret)
    with pytest.raises(OperationInProgress) as problem:
        real.releases.change(id, lambda values: {**values, "ramGb": 2})
    assert 30 < int(problem.value.headers["Retry-After"]) <= 60
    monkeypatch.setattr("service.releases.STRANGER_SECONDS", 0)
    assert real.releases.change(id, lambda values: {**values, "ramGb": 2}) is True
    assert statuses(real, id) == ["superseded", "deployed"]


def test_a_release_of_which_a_hand_kept_the_history_is_gone(
    real: Edges, real_settings: Settings, new_id: Callable[[], int], kubeconfig: str
) -> None:
    """`helm uninstall --keep-history`: no server is there, and the next one begins anew."""
    id = new_id()
    real.releases.install(id, VALUES)
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
    from service.cluster import Cluster

    proxy = Proxy(kubeconfig)
    with proxy.running():
        monkeypatch.setenv("KUBECONFIG", proxy.kubeconfig(tmp_path))
        settings = replace(real_settings, pod_name="away")
        cluster, releases = Cluster(settings), Releases(settings)
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


def _calls(cluster: object, releases: Releases, id: int) -> list[Callable[[], object]]:
    from service.cluster import Cluster

    assert isinstance(cluster, Cluster)
    time.sleep(2.5)  # Past what the list takes for fresh.
    return [
        lambda: cluster.server(id).statefulset,
        lambda: cluster.servers(1, None),
        lambda: releases.install(id, VALUES),
    ]
