"""Simulated nodes and volumes, and a separate release of the API for the servers on them.

kwok acts as the kubelet of nodes that exist only as objects: their pods run as soon as they are bound. Everything else
is real: etcd, the API server, its controllers and scheduler, kube-proxy, and the API with its helm. The product's own
release and servers are not touched.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import yaml

from local.paths import ROOT
from service.errors import Problem
from service.kube.client import Kube, path
from tests.support.environment import local_environment

NAMESPACE, API_NAMESPACE, RELEASE = "scale-gameservers", "scale-system", "api"
STORAGE_CLASS = "scale"
#: The label, the taint and kwok's annotation of the simulated nodes, and the label of the volumes.
SIMULATED = "gameserver/simulated"
PODS_OF_A_NODE = 110
#: kube-proxy's minSyncPeriod, as docs/scale.md recommends it for this many servers.
PERIOD = "5s"
T = TypeVar("T")
BODY = {"game": "minecraft", "ram_gb": 2, "disk_gb": 10}


class Simulation:
    """The cluster with everything that was added to it. Use `simulation` to create one."""

    def __init__(self) -> None:
        self.environment = {
            **os.environ,
            **local_environment(),
            "PATH": f"{ROOT / '.local/bin'}:{os.environ['PATH']}",
        }
        os.environ["KUBECONFIG"] = self.environment["KUBECONFIG"]
        self.kube = Kube()
        self.token = secrets.token_urlsafe(32)
        self.url = ""

    def run(self, *command: str, stdin: str | None = None, check: bool = True) -> str:
        """Run helm or kubectl and return what it prints. Raises SystemExit with its stderr, if `check` is set."""
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, env=self.environment)
        if check and done.returncode != 0:
            raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout

    def kwok(self) -> subprocess.Popen[bytes]:
        """Start kwok. It ends with this process, however that ends."""
        say("starting kwok")
        arguments = [
            f"--kubeconfig={self.environment['KUBECONFIG']}",
            f"--config={Path(__file__).parent / 'stages.yaml'}",
            f"--manage-nodes-with-annotation-selector={SIMULATED}=true",
            "--node-lease-duration-seconds=40",
            # Addresses that no real pod has.
            "--cidr=10.200.0.1/16",
        ]
        logs = ROOT / ".local" / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        with (logs / "kwok.log").open("wb") as log:
            return subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", kwok_binary(), *arguments], stdout=log, stderr=log
            )

    def nodes(self, servers: int) -> None:
        """Create as many nodes as this many servers need."""
        count = -(-servers // 100)
        say(f"{count} simulated nodes")
        capacity = {"cpu": "32", "memory": "256Gi", "pods": str(PODS_OF_A_NODE)}
        for number in range(1, count + 1):
            node = {
                "metadata": {
                    "name": f"simulated-{number:03}",
                    "labels": {SIMULATED: "true"},
                    "annotations": {SIMULATED: "true"},
                },
                "spec": {"taints": [{"key": SIMULATED, "effect": "NoSchedule"}]},
                "status": {"capacity": capacity, "allocatable": capacity},
            }
            self.kube.create("/api/v1/nodes", node)

    def volumes(self, ids: Iterable[int]) -> None:
        """Create a volume for each server, because none can be provisioned on a simulated node."""
        at_once(8, self._volume, ids)

    def _volume(self, id: int) -> None:
        volume = {
            "metadata": {"name": f"simulated-{id}", "labels": {SIMULATED: "true"}},
            "spec": {
                "capacity": {"storage": f"{BODY['disk_gb']}Gi"},
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": STORAGE_CLASS,
                "persistentVolumeReclaimPolicy": "Retain",
                "claimRef": {"namespace": NAMESPACE, "name": f"server-{id}"},
                "hostPath": {"path": f"/simulated/{id}"},
            },
        }
        self.kube.create("/api/v1/persistentvolumes", volume)

    def api(self) -> None:
        """Install a release of the API like the product's, whose servers use the simulated nodes and volumes."""
        say("installing an API of its own")
        storage = {"metadata": {"name": STORAGE_CLASS}, "provisioner": "kubernetes.io/no-provisioner"}
        self.kube.create("/apis/storage.k8s.io/v1/storageclasses", storage)
        product = json.loads(self.run("helm", "get", "values", "api", "-n", "gameserver-system", "-o", "json"))
        digest = hashlib.sha256(self.token.encode()).hexdigest()
        values = {
            "image": product["image"],
            "replicaCount": 2,
            "autoscaling": {"enabled": False},
            "serversNamespace": NAMESPACE,
            "tokens": {"hashes": [{"name": "scale", "sha256": digest, "scopes": ["read", "operate", "admin"]}]},
            "acceptedEulas": ["minecraft"],
            "serverValues": {
                "all": {
                    "nodeSelector": {SIMULATED: "true"},
                    "tolerations": [{"key": SIMULATED, "operator": "Exists"}],
                    "storage": {"className": STORAGE_CLASS},
                }
            },
            "service": {"type": "NodePort"},
        }
        install = ("helm", "upgrade", "--install", RELEASE, str(ROOT / "charts" / "api"), "-n", API_NAMESPACE)
        more = ("--create-namespace", "--values", "-", "--wait", "--timeout=3m")
        self.run(*install, *more, stdin=json.dumps(values))
        service = self.kube.get(path("v1", API_NAMESPACE, "services", RELEASE))
        assert service is not None
        self.url = f"http://{self.environment['NODE_IP']}:{service['spec']['ports'][0]['nodePort']}"

    def proxies(self, period: str) -> None:
        """Let kube-proxy write its rules at most once in a `period` such as "5s"; "0s" is its default, a second."""
        config_map = path("v1", "kube-system", "configmaps", "kube-proxy")
        found = self.kube.get(config_map)
        assert found is not None
        configuration = yaml.safe_load(found["data"]["config.conf"])
        if configuration["nftables"]["minSyncPeriod"] == period:
            return
        say(f"kube-proxy's minSyncPeriod: {period}")
        configuration["nftables"]["minSyncPeriod"] = period
        self.kube.merge(config_map, {"data": {"config.conf": yaml.safe_dump(configuration)}})
        rollout, proxies = ("kubectl", "-n", "kube-system", "rollout"), "daemonset/kube-proxy"
        self.run(*rollout, "restart", proxies)
        self.run(*rollout, "status", proxies, "--timeout=120s")

    # -- what it costs ----------------------------------------------------------------------------------------

    def memory(self) -> float:
        """The memory of the largest replica's Python, in MiB."""
        pods = self.kube.all(path("v1", API_NAMESPACE, "pods"), labelSelector="app.kubernetes.io/component=api")
        names = [pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]]
        pages = [self.kube.text(path("v1", API_NAMESPACE, "pods", f"{name}:9090", "proxy/metrics")) for name in names]
        return max(_sum(page or "", "process_resident_memory_bytes") for page in pages) / 2**20

    def etcd(self) -> tuple[float, float]:
        """The sizes of all objects and of etcd's file, in MiB.

        The API server measures the objects once a minute. The file also has the old revisions of the last minutes.
        """
        page = self.kube.text("/metrics") or ""
        names = ("apiserver_resource_size_estimate_bytes", "apiserver_storage_size_bytes")
        objects, file = (_sum(page, series) / 2**20 for series in names)
        return objects, file

    # -- the end ----------------------------------------------------------------------------------------------

    def clear(self) -> None:
        """Delete everything that this simulation, or one that was killed, has created."""
        say("clearing up")
        self.proxies("0s")
        self.run("helm", "uninstall", RELEASE, "-n", API_NAMESPACE, check=False)
        self.run("kubectl", "delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait=false")
        # Deleted directly: there are no worlds to save, and Kubernetes' controllers delete only 20 objects a second.
        selected = f"labelSelector={SIMULATED}"
        self._delete(path("v1", NAMESPACE, "pods"), "gracePeriodSeconds=0")
        self._delete(path("v1", NAMESPACE, "persistentvolumeclaims"), "", held=True)
        self._delete("/api/v1/persistentvolumes", selected, held=True)
        self._delete("/api/v1/nodes", selected)
        self.kube.delete(f"/apis/storage.k8s.io/v1/storageclasses/{STORAGE_CLASS}")
        # A namespace that still has pods is checked again only after half of their grace period, a minute here.
        self.run("kubectl", "-n", API_NAMESPACE, "wait", "--for=delete", "pod", "--all", "--timeout=120s", check=False)
        for namespace in (API_NAMESPACE, NAMESPACE):
            self.run("kubectl", "delete", "namespace", namespace, "--ignore-not-found", "--timeout=300s")

    def _delete(self, collection: str, query: str, *, held: bool = False) -> None:
        """Delete a whole collection, and with `held` the finalizers of its objects."""
        selector = dict(re.findall(r"(labelSelector)=([^&]+)", query))
        deadline = time.monotonic() + 600
        while time.monotonic() < deadline:
            try:
                names = [item["metadata"]["name"] for item in self.kube.all(collection, metadata=True, **selector)]
                if not names:
                    return
                # The API server ends a request after a minute, even if it has not deleted everything.
                self.run("kubectl", "delete", "--raw", f"{collection}?{query}", check=False)
                if held:
                    at_once(8, lambda name: self._free(f"{collection}/{name}"), names)
            except Problem as problem:
                say(f"{collection}: {problem.detail}")
            time.sleep(1)
        raise SystemExit(f"{collection} is not empty; the next run goes on")

    def _free(self, object_path: str) -> None:
        self.kube.merge(object_path, {"metadata": {"finalizers": None}})


@contextmanager
def simulation(servers: int) -> Iterator[Simulation]:
    """An API with room for this many servers. Everything is deleted at the end."""
    simulated = Simulation()
    simulated.clear()
    kwok = simulated.kwok()
    try:
        simulated.proxies(PERIOD)
        simulated.nodes(servers)
        simulated.api()
        yield simulated
    finally:
        simulated.clear()
        kwok.terminate()
        kwok.wait()


def kwok_binary() -> str:
    """The path of the kwok binary, which `local` builds if it is missing."""
    command = [sys.executable, "-m", "local", "kwok"]
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout.split()[-1]


def at_once(count: int, work: Callable[[T], object], items: Iterable[T]) -> None:
    """Call `work` for each item, `count` at a time. The first failure, or Ctrl-C, ends it."""
    with ThreadPoolExecutor(count) as pool:
        for _ in pool.map(work, items):
            pass


def say(message: str) -> None:
    """Print progress."""
    print(f"{time.strftime('%H:%M:%S')} {message}", file=sys.stderr, flush=True)


def _sum(page: str, series: str) -> float:
    """The sum of a metric over all of its labels, in a page in Prometheus' format."""
    return sum(float(value) for value in re.findall(rf"^{series}(?:{{.*}})? (\S+)$", page, re.MULTILINE))
