"""/metrics as Debian's Prometheus sees it, with the scrape configuration that docs/operations.md recommends.

Debian builds it without the discovery of pods, so the test gives it what the discovery would find.
"""

import json
import math
import re
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from local import nodes, packages
from local.paths import ROOT
from tests.cluster.conftest import SERVERS_NAMESPACE, Cluster
from tests.cluster.replicas import NAMESPACE, get, pods
from tests.support.waiting import until

_PORT = 19090
Labels = tuple[str, ...]


@dataclass
class Prometheus:
    """A running Prometheus that scrapes `pods`; `tools` is the folder of its promtool."""

    url: str
    tools: Path
    pods: set[str]

    def query(self, text: str, *labels: str) -> dict[Labels, float]:
        """The current value of each series, by the values of these labels."""
        answer = requests.get(f"{self.url}/api/v1/query", params={"query": text}, timeout=10).json()
        assert answer["status"] == "success", answer
        return {
            tuple(series["metric"].get(label, "") for label in labels): float(series["value"][1])
            for series in answer["data"]["result"]
        }

    def check(self, kind: str, *files: Path, stdin: str | None = None) -> None:
        """Run `promtool check`. Raises AssertionError with its complaints."""
        command: list[str | Path] = [self.tools / "promtool", "check", kind, *files]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def recommended() -> dict[str, Any]:
    """The scrape configuration in docs/operations.md."""
    text = (ROOT / "docs" / "operations.md").read_text().split("## Monitoring")[1]
    match = re.search(r"^```yaml\n(scrape_configs:.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert match is not None
    configuration: dict[str, Any] = yaml.safe_load(match[1])
    return configuration


def discovered(cluster: Cluster) -> list[dict[str, Any]]:
    """What Prometheus' discovery of pods would give for each port of each pod in the API's namespace.

    https://prometheus.io/docs/prometheus/latest/configuration/configuration/#pod
    """
    meta = "__meta_kubernetes_pod"
    return [
        {
            "targets": [f"{pod['status']['podIP']}:{port['containerPort']}"],
            "labels": {
                f"{meta}_name": pod["metadata"]["name"],
                f"{meta}_container_port_number": str(port["containerPort"]),
                **{
                    f"{meta}_annotation_{re.sub('[^a-zA-Z0-9]', '_', name)}": text
                    for name, text in pod["metadata"]["annotations"].items()
                },
            },
        }
        for pod in get(cluster, "pods")["items"]
        # Of an earlier test, and about to end.
        if "deletionTimestamp" not in pod["metadata"]
        and ("Ready", "True") in [(each["type"], each["status"]) for each in pod["status"]["conditions"]]
        for container in pod["spec"]["containers"]
        for port in container["ports"]
    ]


@pytest.fixture
def prometheus(cluster: Cluster, tmp_path: Path) -> Iterator[Prometheus]:
    """Prometheus in the first node's network, from which it reaches the pods. It scrapes every second."""
    configuration = recommended()
    (job,) = configuration["scrape_configs"]
    assert job.pop("kubernetes_sd_configs") == [{"role": "pod", "namespaces": {"names": [NAMESPACE]}}]
    job["static_configs"] = discovered(cluster)
    configuration["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s"}
    file = tmp_path / "prometheus.yml"
    file.write_text(yaml.safe_dump(configuration))
    tools = packages.unpacked("prometheus") / "usr" / "bin"
    pods = {target["labels"]["__meta_kubernetes_pod_name"] for target in job["static_configs"]}
    server = Prometheus(f"http://{cluster.node_ip}:{_PORT}", tools, pods)
    server.check("config", file)
    network = f"--net=/proc/{nodes.running()[1]}/ns/net"
    command: list[str | Path] = [
        tools / "prometheus",
        f"--config.file={file}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
    ]
    command += [f"--web.listen-address={cluster.node_ip}:{_PORT}", "--log.level=warn"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(["nsenter", network, "--", *command], stdout=log, stderr=log)
    try:

        def ready() -> bool:
            assert process.poll() is None, (tmp_path / "log").read_text()
            return requests.get(f"{server.url}/-/ready", timeout=1).ok

        until(ready, 30, "Prometheus does not come up", not_yet=(requests.ConnectionError, requests.Timeout))
        yield server
    finally:
        process.terminate()
        process.wait(10)


def left_by_a_dead_replica(cluster: Cluster, server: int) -> None:
    """Leave the release as a replica does that died in the middle of a change long ago."""
    release = f"sh.helm.release.v1.server-{server}.v1"
    cluster.run("kubectl", "-n", SERVERS_NAMESPACE, "label", "--overwrite", "secret", release, "status=pending-upgrade")
    lease = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": f"server-{server}", "namespace": SERVERS_NAMESPACE},
        "spec": {
            "holderIdentity": "dead",
            "leaseDurationSeconds": 15,
            "renewTime": "2026-01-01T00:00:00.000000Z",
        },
    }
    cluster.run("kubectl", "create", "-f", "-", stdin=json.dumps(lease))


def test_prometheus_sees_every_replica(cluster: Cluster, prometheus: Prometheus, new_server: Callable[[], int]) -> None:
    """Prometheus counts requests, helm's runs, servers and recovered releases correctly."""
    pods = {(name,) for name in prometheus.pods}
    assert len(pods) > 1
    until(
        lambda: prometheus.query("up", "pod") == dict.fromkeys(pods, 1.0),
        30,
        lambda: f"{prometheus.query('up', 'pod')}, not each of {pods}",
    )
    answered = "sum by (route, method, code) (gameserver_api_request_duration_seconds_count)", "route", "method", "code"
    helm = ("sum by (kind, outcome) (gameserver_api_helm_duration_seconds_count)", "kind", "outcome")
    recovered = ("sum(gameserver_api_recovered_releases_total)",)
    before = [Counter(prometheus.query(*query)) for query in (answered, helm, recovered)]

    def more(number: int, query: tuple[str, ...]) -> Counter[Labels]:
        return Counter(prometheus.query(*query)) - before[number]

    server = new_server()
    path = f"/api/v1/server/{server}/"
    cluster.create(server, start=False)
    # Each replica counts all servers, so the maximum is right, not the sum.
    shown = ("max by (game, state) (gameserver_servers)", "game", "state")

    def listed() -> set[Labels]:
        """The games and states of all servers now: those of other tests change meanwhile. An unknown game is ""."""
        servers = cluster.done("GET", "/api/v1/server/?limit=500")["servers"]
        return {(entry["game"] or "", entry["state"]) for entry in servers}

    assert ("minecraft", "stopped") in listed()
    until(
        lambda: listed() <= prometheus.query(*shown).keys(), 10, lambda: f"{prometheus.query(*shown)}, not {listed()}"
    )
    left_by_a_dead_replica(cluster, server)
    cluster.done("PATCH", path, {"ram_gb": 2})
    assert cluster.call("GET", f"{path}nothing").status_code == 404
    cluster.done("DELETE", f"{path}?disk=erase")

    route = "/api/v1/server/<id:id>/"
    expected: dict[tuple[str, ...], set[Labels]] = {
        answered: {(route, "POST", "201"), (route, "PATCH", "200"), (route, "DELETE", "200"), ("none", "GET", "404")},
        helm: {("install", "success"), ("change", "success"), ("uninstall", "success")},
        recovered: {()},
    }
    for number, (query, labels) in enumerate(expected.items()):
        until(lambda: labels <= more(number, query).keys(), 10, lambda: f"{more(number, query)}, not {labels}")  # noqa: B023
    assert not [labels for labels in prometheus.query(*answered) if str(server) in labels[0]]

    for family in ("request", "helm"):
        name = f"gameserver_api_{family}_duration_seconds"
        slow = prometheus.query(f"histogram_quantile(0.95, sum by (le) ({name}_bucket))")[()]
        mean = prometheus.query(f"sum({name}_sum) / sum({name}_count)")[()]
        assert 0 < slow < 60
        assert 0 < mean < 60
        assert not math.isnan(slow)


def test_promtool_finds_no_fault(cluster: Cluster) -> None:
    """promtool accepts the names, units, types and help texts of each replica's metrics."""
    promtool = packages.unpacked("prometheus") / "usr" / "bin" / "promtool"
    for pod in pods(cluster):
        address = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}:9090/proxy/metrics"
        text = cluster.run("kubectl", "get", "--raw", address)
        assert "gameserver_servers" in text
        done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout + done.stderr) == (0, "")
