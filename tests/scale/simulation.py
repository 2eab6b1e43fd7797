"""Simulated nodes and volumes, and an API release of its own for the servers on them.

kwok plays the kubelet of nodes that are nothing but objects: their pods run as soon as they are bound. All else is
real: etcd, the API server, its controllers and scheduler, kube-proxy, and the API with its helm. The product's own
release and servers are left alone.
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

from local.paths import ROOT
from service.errors import Problem
from service.kube.client import Kube, path

NAMESPACE, API_NAMESPACE, RELEASE = "scale-gameservers", "scale-system", "api"
STORAGE_CLASS = "scale"
#: Label, taint and kwok's annotation of the simulated nodes; label of the volumes.
SIMULATED = "gameserver/simulated"
PODS_OF_A_NODE = 110
T = TypeVar("T")
BODY = {"game": "minecraft", "ram_gb": 2, "disk_gb": 10}


class Simulation:
    """The cluster with all that was added to it. To be made by `simulation`."""

    def __init__(self) -> None:
        environment = (ROOT / ".local" / "env").read_text()
        self.environment = {
            **os.environ,
            **dict(re.findall(r"^export (\w+)=(.*)$", environment, re.MULTILINE)),
            "PATH": f"{ROOT / '.local/bin'}:{os.environ['PATH']}",
        }
        os.environ["KUBECONFIG"] = self.environment["KUBECONFIG"]
        self.kube = Kube()
        self.token = secrets.token_urlsafe(32)
        self.url = ""

    def run(self, *command: str, stdin: str | None = None, check: bool = True) -> str:
        """What helm or kubectl prints."""
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, env=self.environment)
        if check and done.returncode != 0:
            raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout

    def kwok(self) -> subprocess.Popen[bytes]:
        """kwok, which ends with this process, however that ends."""
        say("starting kwok")
        arguments = [
            f"--kubeconfig={self.environment['KUBECONFIG']}",
            f"--config={Path(__file__).parent / 'stages.yaml'}",
            f"--manage-nodes-with-annotation-selector={SIMULATED}=true",
            "--node-lease-duration-seconds=40",
            # Of addresses that no real pod has.
            "--cidr=10.200.0.1/16",
        ]
        logs = ROOT / ".local" / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        with (logs / "kwok.log").open("wb") as log:
            return subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", kwok_binary(), *arguments], stdout=log, stderr=log
            )

    def nodes(self, servers: int) -> None:
        """As many nodes as so many servers need."""
        count = -(-servers // 100)
        say(f"{count} simulated nodes")
        capacity = {"cpu": "32", "memory": "256Gi", "pods": str(PODS_OF_A_NODE)}
        for number in range(1, count + 1):
            node = {
                # After the real nodes by name: the first is the one whose address customers are told.
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
        """A volume for each server to be: nobody could provision one on a node that is not there."""
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
        """A release of the API as the product's is, whose servers go to the simulated nodes and volumes."""
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
        self.url = f"http://{self.environment['NODE_IP']}:{service['spec']['ports'][0]['nodePort']}/api/v1"

    # -- what it takes ----------------------------------------------------------------------------------------

    def memory(self) -> float:
        """The largest replica's Python, in MiB."""
        pods = self.kube.all(path("v1", API_NAMESPACE, "pods"), labelSelector="app.kubernetes.io/component=api")
        names = [pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]]
        pages = [self.kube.text(path("v1", API_NAMESPACE, "pods", f"{name}:9090", "proxy/metrics")) for name in names]
        return max(_sum(page or "", "process_resident_memory_bytes") for page in pages) / 2**20

    def etcd(self) -> tuple[float, float]:
        """The sizes in MiB of all objects, of which the API server takes stock once a minute, and of etcd's file, which
        holds the last minutes' old revisions too."""
        page = self.kube.text("/metrics") or ""
        names = ("apiserver_resource_size_estimate_bytes", "apiserver_storage_size_bytes")
        objects, file = (_sum(page, series) / 2**20 for series in names)
        return objects, file

    # -- the end ----------------------------------------------------------------------------------------------

    def clear(self) -> None:
        """Take away all that a simulation made, this one or one that was killed."""
        say("clearing up")
        self.run("helm", "uninstall", RELEASE, "-n", API_NAMESPACE, check=False)
        self.run("kubectl", "delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait=false")
        # A world would be waited for, and Kubernetes' controllers go through thousands at 20 a second; there is none.
        selected = f"labelSelector={SIMULATED}"
        self._delete(path("v1", NAMESPACE, "pods"), "gracePeriodSeconds=0")
        self._delete(path("v1", NAMESPACE, "persistentvolumeclaims"), "", held=True)
        self._delete("/api/v1/persistentvolumes", selected, held=True)
        self._delete("/api/v1/nodes", selected)
        self.kube.delete(f"/apis/storage.k8s.io/v1/storageclasses/{STORAGE_CLASS}")
        # A namespace that still finds pods looks again after half of their grace period, which is a minute here.
        self.run("kubectl", "-n", API_NAMESPACE, "wait", "--for=delete", "pod", "--all", "--timeout=120s", check=False)
        for namespace in (API_NAMESPACE, NAMESPACE):
            self.run("kubectl", "delete", "namespace", namespace, "--ignore-not-found", "--timeout=300s")

    def _delete(self, collection: str, query: str, *, held: bool = False) -> None:
        """Delete a whole collection; where finalizers hold its objects, those too."""
        selector = dict(re.findall(r"(labelSelector)=([^&]+)", query))
        deadline = time.monotonic() + 600
        while time.monotonic() < deadline:
            try:
                names = [item["metadata"]["name"] for item in self.kube.all(collection, metadata=True, **selector)]
                if not names:
                    return
                # The API server ends a request after a minute, whatever it had still to delete.
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
    """An API with room for so many servers; all of it goes at the end."""
    simulated = Simulation()
    simulated.clear()
    kwok = simulated.kwok()
    try:
        simulated.nodes(servers)
        simulated.api()
        yield simulated
    finally:
        simulated.clear()
        kwok.terminate()
        kwok.wait()


def kwok_binary() -> str:
    """The kwok binary, which `local` builds where it is missing."""
    command = [sys.executable, "-m", "local", "kwok"]
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout.split()[-1]


def at_once(count: int, work: Callable[[T], object], items: Iterable[T]) -> None:
    """Do the work for each item, `count` at a time; the first failure, or Ctrl-C, ends it."""
    with ThreadPoolExecutor(count) as pool:
        for _ in pool.map(work, items):
            pass


def say(what: str) -> None:
    """What is going on, for whoever waits."""
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


def _sum(page: str, series: str) -> float:
    """A metric's value in a page of Prometheus', over all of its labels."""
    return sum(float(value) for value in re.findall(rf"^{series}(?:{{.*}})? (\S+)$", page, re.MULTILINE))
