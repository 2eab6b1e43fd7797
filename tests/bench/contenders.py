"""The contenders: the API, and direct use of helm and kubectl."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from kubernetes import client, config

from local.paths import ROOT
from tests.support.environment import local_environment
from tests.support.shop import Shop

NAMESPACE, API_NAMESPACE = "gameservers", "gameserver-system"
CHART = str(ROOT / "charts" / "gameserver")
#: Teeworlds, because its pod starts at once and idles, so that the game itself hardly affects the times.
BODY = {"game": "teeworlds", "ram_gb": 1, "disk_gb": 1}
FIRST = 8_800_000


class Bench:
    """The cluster, and the servers that were created in it, which `clear` deletes."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = {**environment, "PATH": f"{ROOT / '.local/bin'}:{os.environ['PATH']}"}
        self.shop = Shop(self.environment["API_URL"], self.environment["API_TOKEN"], 64)
        configuration = client.Configuration()
        # The client has no type for this function.
        config.load_kube_config(self.environment["KUBECONFIG"], client_configuration=configuration)  # type: ignore[no-untyped-call]
        self.core = client.CoreV1Api(client.ApiClient(configuration))
        self._next = FIRST + int(time.time()) % 10_000 * 100
        self.by_api: set[int] = set()
        self.by_operator: set[int] = set()

    def id(self, *, api: bool) -> int:
        """An id that no server has."""
        self._next += 1
        (self.by_api if api else self.by_operator).add(self._next)
        return self._next

    # -- the API --------------------------------------------------------------------------------------------

    def call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """The answer to a call of the API, see Shop."""
        return self.shop.call(method, path, body)

    def api_create(self, id: int, *, start: bool = False) -> None:
        """Create a server through the API."""
        self.call("POST", f"server/{id}/", {**BODY, "start": start})

    # -- helm and kubectl --------------------------------------------------------------------------------------------

    def run(self, *command: str, stdin: str | None = None) -> str:
        """Run helm or kubectl and return what it prints. Raises SystemExit with its stderr."""
        result = subprocess.run(
            command, input=stdin, capture_output=True, text=True, env={**os.environ, **self.environment}
        )
        if result.returncode != 0:
            raise SystemExit(f"{' '.join(command)}: {result.stderr.strip()}")
        return result.stdout

    def values(self) -> dict[str, Any]:
        """The values that the API gives to a server."""
        id = self.id(api=True)
        self.api_create(id)
        values: dict[str, Any] = json.loads(
            self.run("helm", "get", "values", f"server-{id}", "-n", NAMESPACE, "-o", "json")
        )
        return values

    def helm(self, id: int, values: Mapping[str, Any], *flags: str) -> None:
        """`helm upgrade --install` of a server."""
        self.run(
            *("helm", "upgrade", "--install", f"server-{id}", CHART, "-n", NAMESPACE, "--values", "-", *flags),
            stdin=json.dumps(_of(id, values)),
        )

    def manifests(self, id: int, values: Mapping[str, Any]) -> str:
        """The manifests that `helm upgrade --install` would send."""
        command = ("helm", "template", f"server-{id}", CHART, "-n", NAMESPACE, "--no-hooks", "--values", "-")
        return self.run(*command, stdin=json.dumps(_of(id, values)))

    def node_of(self, id: int) -> str | None:
        """The address of the node that the game is on, which alone answers at its port; None if it has none yet."""
        try:
            pod = self.core.read_namespaced_pod(f"server-{id}-0", NAMESPACE)
        except client.ApiException:
            return None
        assert pod.status is not None
        return pod.status.host_ip or None

    def node_port(self, id: int) -> int | None:
        """The game's node port, from the Service itself."""
        try:
            service = self.core.read_namespaced_service(f"server-{id}", NAMESPACE)
        except client.ApiException:
            return None
        assert service.spec is not None
        assert service.spec.ports is not None
        return service.spec.ports[0].node_port or None

    # -- the API's replicas ---------------------------------------------------------------------------------

    def few_and_many_replicas(self) -> tuple[int, int]:
        """The smallest and the largest number of replicas that the autoscaler makes."""
        values = json.loads(self.run("helm", "get", "values", "api", "-n", API_NAMESPACE, "--all", "-o", "json"))
        return int(values["replicaCount"]), int(values["autoscaling"]["maxReplicas"])

    def scale_to_at_most(self, most: int) -> None:
        """Limit the autoscaler to `most` replicas, and wait until all others have ended."""
        chart = str(ROOT / "charts" / "api")
        change = ("--reuse-values", "--set", f"autoscaling.maxReplicas={most}", "--wait", "--timeout=3m")
        self.run("helm", "upgrade", "api", chart, "-n", API_NAMESPACE, *change)
        while len(self.replicas(ending=True)) > most:
            time.sleep(0.5)

    # -- the API's own metrics --------------------------------------------------------------------------------

    def replicas(self, *, ending: bool = False) -> list[str]:
        """The names of the API's pods; those that are ending are included only if `ending` is set."""
        selector = "app.kubernetes.io/name=api,app.kubernetes.io/instance=api,app.kubernetes.io/component=api"
        pods = self.core.list_namespaced_pod(API_NAMESPACE, label_selector=selector).items
        metadata = [pod.metadata for pod in pods if pod.metadata is not None]
        return [each.name for each in metadata if each.name and (ending or not each.deletion_timestamp)]

    def metrics(self, pod: str) -> dict[str, float]:
        """A replica's metrics, by series."""
        path = f"/api/v1/namespaces/{API_NAMESPACE}/pods/{pod}:9090/proxy/metrics"
        text = self.run("kubectl", "get", "--raw", path)
        return {name: float(value) for name, value in re.findall(r"^([^#\s]\S*(?: \S*)*) (\S+)$", text, re.MULTILINE)}

    def used(self) -> tuple[float, float]:
        """The CPU seconds that all replicas have used, and the memory of the largest, in MiB; helm-daemon included.

        The kubelets measure every 10 to 15 seconds, so this waits until they have measured again.
        """
        began = time.time()
        while True:
            found = [self._of_replicas(node) for node in ("node1", "node2")]
            measured = [one for each in found for one in each]
            if measured and all(stamp > began for _, _, stamp in measured):
                return sum(cpu for cpu, _, _ in measured), max(memory for _, memory, _ in measured) / 2**20
            time.sleep(1)

    def _of_replicas(self, node: str) -> list[tuple[float, float, float]]:
        """CPU seconds, bytes of memory, and the time of the measurement (since 1970), for each replica on a node."""
        text = self.run("kubectl", "get", "--raw", f"/api/v1/nodes/{node}/proxy/metrics/resource")
        pattern = rf'^{{}}{{{{container="api",namespace="{API_NAMESPACE}",pod="(\S+)"}}}} (\S+) (\d+)$'
        cpu, memory = (
            {
                pod: (float(value), int(stamp) / 1000)
                for pod, value, stamp in re.findall(pattern.format(name), text, re.M)
            }
            for name in ("container_cpu_usage_seconds_total", "container_memory_working_set_bytes")
        )
        return [(cpu[pod][0], memory[pod][0], min(cpu[pod][1], memory[pod][1])) for pod in cpu.keys() & memory.keys()]

    # -- the end ----------------------------------------------------------------------------------------------

    def clear(self) -> None:
        """Delete all servers that were created, with their disks."""
        if self.by_operator:
            # Objects that kubectl applied belong to no release, so they are deleted by label.
            selector = f"gameserver/id in ({','.join(map(str, self.by_operator))})"
            what = "statefulset,service,networkpolicy,secret,pvc"
            self.run("kubectl", "-n", NAMESPACE, "delete", what, "-l", selector, "--wait=false")
            names = ",".join(f"server-{id}" for id in self.by_operator)
            self.run("kubectl", "-n", NAMESPACE, "delete", "secret", "-l", f"owner=helm,name in ({names})")
        self.by_operator.clear()
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda id: self.call("DELETE", f"server/{id}/?disk=erase"), self.by_api))
        self.by_api.clear()


@contextmanager
def prepared() -> Iterator[Bench]:
    """A bench on the local cluster. At the end all of its servers are deleted.

    Meanwhile no replica is added or removed, because a starting replica uses the two cores that the measurements need.
    """
    bench = Bench(local_environment())
    fewest, most = bench.few_and_many_replicas()
    try:
        bench.scale_to_at_most(fewest)
        yield bench
    finally:
        bench.clear()
        bench.scale_to_at_most(most)


def _of(id: int, values: Mapping[str, Any]) -> dict[str, Any]:
    return {**values, "server": {**values["server"], "id": str(id)}}
