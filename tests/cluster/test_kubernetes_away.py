"""Kubernetes goes away, whole or in part, and comes back. The API says so meanwhile, and recovers by itself."""

import json
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import pytest
import requests

from local.nodes import Node
from local.paths import ROOT
from tests.cluster import absence
from tests.cluster.conftest import SERVERS_NAMESPACE, Cluster
from tests.cluster.replicas import pods
from tests.support.waiting import until

#: The ways in which all of Kubernetes can be away, as functions that return a context manager.
ABSENCES: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "the API server is silent": lambda: absence.frozen(Node(1), "kube-apiserver"),
    "the API server is gone": lambda: absence.stopped(Node(1), "kube-apiserver"),
    "etcd is silent": lambda: absence.frozen(Node(1), "etcd"),
    "etcd is gone": lambda: absence.stopped(Node(1), "etcd"),
}


def calls(server: int, other: int) -> list[tuple[str, str, Any]]:
    """Every call that needs Kubernetes: calls of an existing server, and a create of another one."""
    path = f"/api/v1/server/{server}"
    return [
        ("GET", "/readyz", None),
        ("GET", "/api/v1/server/", None),
        ("GET", "/api/v1/disk/", None),
        ("GET", "/api/v1/token", None),
        ("POST", "/api/v1/token", {"name": f"away-{other}", "scopes": ["read"]}),
        ("DELETE", f"/api/v1/token/away-{other}", None),
        ("POST", "/api/v1/login-link", {"customer": "acme", "minutes": 1}),
        ("GET", f"{path}/", None),
        ("GET", f"{path}/rcon", None),
        ("GET", f"{path}/sftp", None),
        ("PUT", f"{path}/sftp", {"password": True}),
        ("PATCH", f"{path}/port/primary", None),
        ("PATCH", f"{path}/port/sftp", None),
        ("PATCH", f"{path}/", {"ram_gb": 2}),
        ("PATCH", f"{path}/start", None),
        ("PATCH", f"{path}/stop", None),
        ("PATCH", f"{path}/restart", None),
        ("DELETE", f"{path}/", None),
        ("POST", f"/api/v1/server/{other}/", {"ram_gb": 1, "disk_gb": 1}),
    ]


def api_replicas(cluster: Cluster) -> dict[str, dict[str, Any]]:
    """Of each replica, by its uid: how often it was restarted, and since when it is ready."""
    return {
        pod["metadata"]["uid"]: {
            "restarts": [entry["restartCount"] for entry in pod["status"]["containerStatuses"]],
            "ready": [
                (entry["status"], entry["lastTransitionTime"])
                for entry in pod["status"]["conditions"]
                if entry["type"] == "Ready"
            ],
        }
        for pod in pods(cluster).values()
        # A replica that the autoscaler has just made has no status yet.
        if "containerStatuses" in pod["status"]
    }


def game(cluster: Cluster, server: int) -> tuple[str, int, str]:
    """The uid of the game's pod, how often it was restarted, and when its current process started."""
    pod = cluster.get("pod", f"server-{server}-0")
    status = pod["status"]["containerStatuses"][0]
    return pod["metadata"]["uid"], status["restartCount"], status["state"]["running"]["startedAt"]


def unchanged(replicas: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Check that each replica is as before. The autoscaler may have ended some that an earlier test needed."""
    kept = {uid: now[uid] for uid in replicas if uid in now}
    assert kept == {uid: replicas[uid] for uid in kept}
    assert len(kept) >= 2


def alive(cluster: Cluster) -> bool:
    """Whether /healthcheck answers within a second, on a new connection."""
    answer = requests.get(f"{cluster.api_url}/healthcheck", timeout=1)
    return answer.status_code == 200 and answer.json() == {"alive": True}


def says_away(cluster: Cluster, method: str, path: str, body: Any) -> str | None:
    """What is wrong with the answer to a call while Kubernetes is away; None if it is right."""
    began = time.monotonic()
    answer = cluster.call(method, path, body)
    seconds = time.monotonic() - began
    right = (
        answer.status_code == 503
        and answer.json()["type"] == "/problems/cluster-unavailable"
        and int(answer.headers["Retry-After"]) > 0
        and seconds < 5
    )
    return None if right else f"{method} {path}: {answer.status_code} after {seconds:.1f} s, {answer.text}"


def all_say_away(cluster: Cluster, server: int, other: int, pool: ThreadPoolExecutor) -> None:
    """Send each call on a new connection, so that all replicas take part, and /healthcheck meanwhile."""
    pending = [pool.submit(says_away, cluster, *call) for call in calls(server, other)]
    while not all(future.done() for future in pending):
        assert alive(cluster)
        time.sleep(0.1)
    assert [problem for future in pending if (problem := future.result())] == []
    # A call that needs no Kubernetes is answered as usual.
    assert cluster.call("GET", "/api/v1/game").status_code == 200


def kubernetes_is_back(cluster: Cluster) -> bool:
    """Whether the API server says that it is ready. Raises AssertionError if it does not answer."""
    return cluster.run("kubectl", "get", "--raw", "/readyz", "--request-timeout=2s") != ""


def goes_on(cluster: Cluster, server: int, other: int) -> None:
    """Check that writes work again without an operator, and that the list of each replica shows them at once."""
    # The kubelet restarts an API server that kept failing without its etcd after a minute or two.
    message = "Kubernetes does not come back"
    until(lambda: kubernetes_is_back(cluster), 300, message, not_yet=(AssertionError,))
    until(lambda: cluster.call("GET", "/readyz").status_code == 200, 60, "the API does not see that Kubernetes is back")
    cluster.create(other, start=False)

    def listed() -> list[bool]:
        servers = cluster.done("GET", "/api/v1/server/?limit=500")["servers"]
        return [server["wanted"] == "stopped" for server in servers if server["id"] == other]

    until(lambda: [listed() for _ in range(10)] == [[True]] * 10, 30, "the lists are not current")
    cluster.done("PATCH", f"/api/v1/server/{other}/start")
    # The controllers and kubelets are back as well.
    cluster.until_state(other, "running")
    cluster.done("DELETE", f"/api/v1/server/{other}/?disk=erase")


def away(
    cluster: Cluster, new_server: Callable[[], int], how: AbstractContextManager[None], seconds: float, server: int
) -> None:
    """Check all calls while Kubernetes is away for `seconds`, and that nothing has changed afterwards."""
    other, replicas, before = new_server(), api_replicas(cluster), game(cluster, server)
    assert len(replicas) > 1
    with ThreadPoolExecutor(len(calls(server, other))) as pool:
        with how:
            until_ = time.monotonic() + seconds
            all_say_away(cluster, server, other, pool)
            while time.monotonic() < until_:
                all_say_away(cluster, server, other, pool)
        goes_on(cluster, server, other)
    unchanged(replicas, api_replicas(cluster))
    assert game(cluster, server) == before
    assert cluster.status(server)["state"] == "running"


@pytest.mark.alone
def test_a_silent_api_server_is_reported_in_time(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """Every read and write answers 503 in under 5 seconds, and no replica or game is restarted."""
    server = new_server()
    cluster.create(server)
    cluster.until_state(server, "running")
    away(cluster, new_server, ABSENCES["the API server is silent"](), 5, server)


@pytest.mark.long
@pytest.mark.parametrize("how", ABSENCES)
def test_kubernetes_may_be_away_for_a_minute(cluster: Cluster, new_server: Callable[[], int], how: str) -> None:
    """The same is true for a minute without Kubernetes, and until the kubelets have restarted what was stopped."""
    server = new_server()
    cluster.create(server)
    cluster.until_state(server, "running")
    away(cluster, new_server, ABSENCES[how](), 60, server)


def made_on(cluster: Cluster, server: int, node: str, other: str) -> None:
    """Create a server on `node`, and wait until it runs."""
    cluster.run("kubectl", "cordon", other)
    try:
        cluster.create(server)
        cluster.until_state(server, "running")
    finally:
        cluster.run("kubectl", "uncordon", other)
    assert cluster.get("pod", f"server-{server}-0")["spec"]["nodeName"] == node


def states(cluster: Cluster, server: int, times: int, pool: ThreadPoolExecutor) -> list[str]:
    """The state of a server in the answers on new connections; "" for each without an answer within 5 seconds."""

    def state(_: int) -> str:
        headers = {"Authorization": f"Bearer {cluster.api_token}"}
        try:
            answer = requests.get(f"{cluster.api_url}/api/v1/server/{server}/", headers=headers, timeout=5)
        except requests.Timeout:
            return ""
        assert answer.status_code == 200, answer.text
        return str(answer.json()["state"])

    return list(pool.map(state, range(times)))


def all_ready(cluster: Cluster) -> bool:
    """Whether all of the API's pods are ready."""
    return all(replica["ready"][0][0] == "True" for replica in api_replicas(cluster).values())


def restarts(cluster: Cluster) -> dict[str, list[int]]:
    """How often each of the API's pods was restarted, by uid."""
    return {uid: replica["restarts"] for uid, replica in api_replicas(cluster).items()}


@pytest.mark.long
def test_a_frozen_node_takes_only_its_own_replica_along(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """The other replica keeps answering, alone once Kubernetes has given the node up. The thaw restores all."""
    first, second, later = new_server(), new_server(), new_server()
    made_on(cluster, first, "node1", "node2")
    made_on(cluster, second, "node2", "node1")
    games, replicas = [game(cluster, server) for server in (first, second)], restarts(cluster)
    with ThreadPoolExecutor(12) as pool:
        with absence.frozen(Node(2)):
            assert set(states(cluster, first, 12, pool)) == {"running", ""}
            until(lambda: node_given_up(cluster, "node2"), 120, "Kubernetes does not notice")
            until(
                lambda: states(cluster, first, 12, pool) == ["running"] * 12, 30, "the frozen replica still gets calls"
            )
            status = cluster.status(second)
            assert status["state"] == "failed"
            assert status["reason"].startswith("Its node node2 has not answered since ")
            assert status["wanted"] == "running"
            cluster.create(later)
            cluster.until_state(later, "running")
        until(lambda: not node_given_up(cluster, "node2"), 60, "the node does not come back")
        cluster.until_state(second, "running")
        until(lambda: all_ready(cluster), 60, "a replica is not ready again")
        assert states(cluster, second, 12, pool) == ["running"] * 12
    assert [game(cluster, server) for server in (first, second)] == games
    unchanged(replicas, restarts(cluster))


#: Kubernetes' default toleration of a lost node, and a shorter one, each with the time for which the test checks the
#: servers, in seconds after the loss.
PATIENCE = {"as it comes": ([], 540.0), "soon": (["tolerationSeconds"], 60.0)}


@pytest.mark.long
@pytest.mark.parametrize("patience", PATIENCE)
def test_a_lost_node_is_the_reason_for_as_long_as_it_is_lost(
    cluster: Cluster, new_server: Callable[[], int], patience: str
) -> None:
    """Three servers on the node, one running, one stopped and one deleted meanwhile, say that it does not answer.

    They say so before and after Kubernetes gives up their pods. When the node is back, the first starts anew and the
    others end, as docs/operations.md promises.
    """
    runs, stops, goes = servers = [new_server() for _ in range(3)]
    given, seconds = PATIENCE[patience]
    taint = {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"}
    tolerations = [{**taint, **dict.fromkeys(given, 15)}] if given else []
    cluster.run("kubectl", "cordon", "node1")
    try:
        for server in servers:
            cluster.create(server, game="teeworlds", start=False)
            more = ["--set-json", f"tolerations={json.dumps(tolerations)}", "--set", "replicas=1"]
            chart = str(ROOT / "charts" / "gameserver")
            cluster.run("helm", "-n", SERVERS_NAMESPACE, "upgrade", f"server-{server}", chart, "--reuse-values", *more)
        for server in servers:
            cluster.until_state(server, "running")
    finally:
        cluster.run("kubectl", "uncordon", "node1")
    before = game(cluster, runs)[0]
    reason = "Its node node2 has not answered since "

    def state(server: int) -> tuple[str, str]:
        status = cluster.status(server)
        return status["state"], str(status["reason"])[: len(reason)]

    with ThreadPoolExecutor(12) as pool, absence.frozen(Node(2)):
        frozen = time.monotonic()
        until(lambda: node_given_up(cluster, "node2"), 120, "Kubernetes does not notice")
        until(lambda: states(cluster, runs, 12, pool) == ["failed"] * 12, 30, "the frozen replica still gets calls")
        assert [state(server) for server in servers] == [("failed", reason)] * 3
        since = cluster.status(runs)["since"]
        cluster.done("PATCH", f"/api/v1/server/{stops}/stop")
        cluster.done("DELETE", f"/api/v1/server/{goes}/")
        until(lambda: "deletionTimestamp" in cluster.get("pod", f"server-{runs}-0")["metadata"], 420, "not given up")
        while True:
            expected = [("failed", reason), ("stopping", reason), ("deleting", reason)]
            assert [state(server) for server in servers] == expected
            assert cluster.status(runs)["since"] == since
            assert "starts anew" in cluster.status(runs)["reason"]
            page = cluster.done("GET", f"/api/v1/server/?limit=1&continue={runs - 1}")["servers"]
            assert (page[0]["state"], page[0]["reason"]) == ("failed", cluster.status(runs)["reason"])
            if time.monotonic() > frozen + seconds:
                break
            time.sleep(5)
    cluster.until_state(runs, "running", seconds=120)
    assert game(cluster, runs)[0] != before
    cluster.until_state(stops, "stopped", seconds=120)
    until(lambda: cluster.call("GET", f"/api/v1/server/{goes}/").status_code == 404, 120)
    assert goes in [disk["id"] for disk in cluster.done("GET", "/api/v1/disk/")["disks"]]


def node_given_up(cluster: Cluster, node: str) -> bool:
    """Whether the node is not ready."""
    conditions = json.loads(cluster.run("kubectl", "get", "node", node, "-o", "json"))["status"]["conditions"]
    ready: str = next(condition["status"] for condition in conditions if condition["type"] == "Ready")
    return ready != "True"
