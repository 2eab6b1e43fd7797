"""The API's replicas come and go, and no client notices."""

import time
from collections.abc import Callable

import pytest

from tests.cluster.conftest import Cluster
from tests.cluster.replicas import NAMESPACE, pods
from tests.cluster.traffic import Traffic, upgrade
from tests.support.waiting import until


def nodes(cluster: Cluster) -> set[str]:
    """The nodes that run the API's replicas."""
    return {pod["spec"]["nodeName"] for pod in pods(cluster).values()}


def gone(cluster: Cluster, names: set[str]) -> None:
    """Wait until those pods have ended."""
    until(lambda: not names & set(pods(cluster)), 150, lambda: f"still there: {names & set(pods(cluster))}")


@pytest.mark.alone
def test_a_drain_of_a_node_fails_no_request(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """Draining a node with replicas fails no request. A server whose disk is there runs again after the uncordon."""
    node = max(nodes(cluster))
    other = next(name for name in ("node1", "node2") if name != node)
    server = new_server()
    cluster.run("kubectl", "cordon", other)
    try:
        cluster.create(server, game="teeworlds")
        cluster.until_state(server, "running")
    finally:
        cluster.run("kubectl", "uncordon", other)
    try:
        with Traffic(cluster, new_server):
            # With --force, because the pods that make volumes have no controller.
            cluster.run("kubectl", "drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--force")
        assert nodes(cluster) == {other}
        assert cluster.status(server)["state"] != "running"
    finally:
        cluster.run("kubectl", "uncordon", node)
    cluster.until_state(server, "running")


def test_a_rolling_update_and_its_way_back_fail_no_request(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """Neither a `helm upgrade` of all replicas nor a `helm rollback` while the first ones still end fails a request."""
    before = set(pods(cluster))
    with Traffic(cluster, new_server):
        upgrade(cluster, "--set-string", f"podAnnotations.rolled={time.time_ns()}")
        between = set(pods(cluster)) - before
        assert between
        cluster.run("helm", "-n", NAMESPACE, "rollback", "api", "--wait", "--timeout=4m")
        gone(cluster, before | between)
    # One on each node, so that a lost node leaves the other replica.
    assert nodes(cluster) == {"node1", "node2"}
