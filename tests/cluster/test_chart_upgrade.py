"""`helm upgrade` from the charts of an earlier commit: Kubernetes accepts it, and every object stays.

Both releases get a namespace of their own. Their pods match no node, so nothing starts, and the API and the agents of
`make run` are not disturbed.
"""

import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.charts.installed import EARLIER, facts
from tests.charts.rendering import CHARTS, RELEASES, at
from tests.cluster.conftest import Cluster
from tests.support.history import chart_at
from tests.support.waiting import until

NOWHERE = {"nodeSelector": {"gameserver/no-such-node": "true"}}
TOKENS = {"hashes": [{"name": "shop", "sha256": "0" * 64, "scopes": ["read"]}]}
#: Chart → its values, without those that depend on the namespace.
VALUES: dict[str, dict[str, Any]] = {
    "api": {
        **NOWHERE,
        "tokens": TOKENS,
        "replicaCount": 1,
        "autoscaling": {"enabled": False},
        "createServersNamespace": False,
    },
    "sftp-daemonset": NOWHERE,
}
#: Chart → kind of its workload.
WORKLOADS = {"api": "Deployment", "sftp-daemonset": "DaemonSet"}


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A new namespace; deleted with everything in it, and with the cluster-wide objects of its releases."""
    name = f"upgrade-{secrets.token_hex(4)}"
    cluster.run("kubectl", "create", "namespace", name)
    yield name
    for release in json.loads(cluster.run("helm", "list", "-n", name, "-o", "json")):
        cluster.run("helm", "uninstall", release["name"], "-n", name, "--no-hooks")
    cluster.run("kubectl", "delete", "namespace", name, "--wait=false")


def objects(cluster: Cluster, namespace: str, release: str) -> dict[str, dict[str, Any]]:
    """The objects of a release, by kind and name."""
    selector = ("-l", f"app.kubernetes.io/instance={release}")
    kinds = "deployment,daemonset,service,serviceaccount,configmap,secret,role,rolebinding,poddisruptionbudget"
    items = cluster.get(kinds, "-n", namespace, *selector)["items"]
    items += [
        item
        for item in cluster.get("clusterrole,clusterrolebinding", *selector)["items"]
        if item["metadata"]["name"].startswith(namespace)
    ]
    return {f"{item['kind']}/{item['metadata']['name']}": item for item in items}


def identity(manifests: dict[str, Any]) -> dict[str, Any]:
    """What must not change: the objects themselves, what Kubernetes cannot change of them, and their pods' identity."""
    return {name: at(manifest, "metadata.uid") for name, manifest in manifests.items()} | facts(manifests)


def charts_of(manifests: dict[str, Any]) -> set[str]:
    """The charts that the objects are from."""
    return {str(at(manifest, "metadata/labels/helm.sh~chart")) for manifest in manifests.values()}


@pytest.mark.parametrize("chart", VALUES)
def test_an_upgrade_keeps_every_object(cluster: Cluster, namespace: str, chart: str, tmp_path: Path) -> None:
    """With `--reuse-values`; after a rollback, also with the values given once more."""
    release, kind = RELEASES[chart][0], WORKLOADS[chart]
    values = {**VALUES[chart], "serversNamespace": namespace}
    if chart == "sftp-daemonset":
        values["api"] = {"namespace": namespace}

    def helm(*arguments: str | Path, stdin: str = "") -> None:
        cluster.run("helm", *map(str, arguments), "-n", namespace, "--no-hooks", stdin=stdin)

    def pods() -> list[dict[str, Any]]:
        # The controller is a workload that the earlier charts did not have.
        others = ("-l", "app.kubernetes.io/component!=controller")
        items: list[dict[str, Any]] = cluster.get("pods", "-n", namespace, *others)["items"]
        return items

    helm("install", release, chart_at(EARLIER, chart, tmp_path), "--values", "-", stdin=json.dumps(values))
    before = objects(cluster, namespace, release)
    assert charts_of(before) == {f"{chart}-0.1.0"}
    selector = at(before[f"{kind}/{release}"], "spec.selector.matchLabels")

    for step in (["--reuse-values"], ["--values", "-"]):
        helm("upgrade", release, CHARTS / chart, *step, stdin=json.dumps(values))
        after = objects(cluster, namespace, release)
        assert {name: value for name, value in identity(after).items() if name in identity(before)} == identity(before)
        assert len(charts_of(after)) == 1
        assert charts_of(after) != charts_of(before)
        if kind == "Deployment":
            until(lambda: bool(pods()), 20, "the Deployment has a pod")
        for pod in pods():
            assert pod["metadata"]["name"].startswith(f"{release}-")
            assert selector.items() <= pod["metadata"]["labels"].items()
        helm("rollback", release, "1")
        assert charts_of(objects(cluster, namespace, release)) == charts_of(before)


def test_a_second_protocol_shares_the_node_port_that_players_know(cluster: Cluster, namespace: str) -> None:
    """And keeps it over later upgrades; see "Change a value" in docs/operations.md. The server is stopped."""
    values = {"replicas": 0, "rcon": {"enabled": False}, "sftp": {"enabled": False}, "storage": {"deferred": True}}

    def ports(verb: str, protocol: str, *more: str) -> dict[str, int]:
        values["ports"] = [{"name": "primary", "port": 30000, "protocol": protocol}]
        command = ("helm", verb, "server-1", str(CHARTS / "gameserver"), "-n", namespace, "-f", "-", *more)
        cluster.run(*command, stdin=json.dumps(values))
        service = cluster.get("service", "server-1", "-n", namespace)
        return {port["protocol"]: port["nodePort"] for port in service["spec"]["ports"]}

    number = ports("install", "UDP")["UDP"]
    both = {"TCP": number, "UDP": number}
    assert ports("upgrade", "both", "--reuse-values") == both
    assert ports("upgrade", "both", "--reuse-values") == both
    assert ports("upgrade", "UDP", "--reuse-values") == {"UDP": number}
