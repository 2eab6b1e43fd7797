"""Kubernetes goes away, whole or in part, and comes back: the API says so meanwhile, and goes on by itself."""

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

#: The ways in which Kubernetes as a whole does not answer. Each gives a context manager.
ABSENCES: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "the API server is silent": lambda: absence.frozen(Node(1), "kube-apiserver"),
    "the API server is gone": lambda: absence.stopped(Node(1), "kube-apiserver"),
    "etcd is silent": lambda: absence.frozen(Node(1), "etcd"),
    "etcd is gone": lambda: absence.stopped(Node(1), "etcd"),
}


def calls(server: int, other: int) -> list[tuple[str, str, Any]]:
    """Every call that needs Kubernetes: of a server that is there, and a create of another."""
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
    """What shows of each replica, by its uid, whether it was restarted, or out of the Service for a moment."""
    return {
        pod["metadata"]["uid"]: {
            "restarts": [one["restartCount"] for one in pod["status"]["containerStatuses"]],
            "ready": [
                (one["status"], one["lastTransitionTime"])
                for one in pod["status"]["conditions"]
                if one["type"] == "Ready"
            ],
        }
        for pod in pods(cluster).values()
        # One that the autoscaler has just made has none yet.
        if "containerStatuses" in pod["status"]
    }


def game(cluster: Cluster, server: int) -> tuple[str, int, str]:
    """The game's pod, how often it was restarted, and when its present process began."""
    pod = cluster.get("pod", f"server-{server}-0")
    status = pod["status"]["containerStatuses"][0]
    return pod["metadata"]["uid"], status["restartCount"], status["state"]["running"]["startedAt"]


def as_before(replicas: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Each replica is as it was. The autoscaler may have ended those that an earlier test's load had called up."""
    kept = {uid: now[uid] for uid in replicas if uid in now}
    assert kept == {uid: replicas[uid] for uid in kept}
    assert len(kept) >= 2


def alive(cluster: Cluster) -> bool:
    """Whether /healthcheck answers on a connection of its own, at once."""
    answer = requests.get(f"{cluster.api_url}/healthcheck", timeout=1)
    return answer.status_code == 200 and answer.json() == {"alive": True}


def says_away(cluster: Cluster, method: str, path: str, body: Any) -> str | None:
    """What is wrong with the answer to a call, sent while Kubernetes is away; None where nothing is."""
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
    """Each call, on connections of their own and so at all replicas, and /healthcheck beside them."""
    said = [pool.submit(says_away, cluster, *call) for call in calls(server, other)]
    while not all(one.done() for one in said):
        assert alive(cluster)
        time.sleep(0.1)
    assert [problem for one in said if (problem := one.result())] == []
    # What needs no Kubernetes is answered as ever.
    assert cluster.call("GET", "/api/v1/game").status_code == 200


def kubernetes_is_back(cluster: Cluster) -> bool:
    """Whether the API server says that it is ready."""
    try:
        cluster.run("kubectl", "get", "--raw", "/readyz", "--request-timeout=2s")
    except AssertionError:
        return False
    return True


def goes_on(cluster: Cluster, server: int, other: int) -> None:
    """With no hand on it: writes go through, and the list of each replica shows at once what they did."""
    # An API server that has ended again and again for lack of its etcd is started again after a minute or two.
    until(lambda: kubernetes_is_back(cluster), 300, "Kubernetes does not come back")
    until(lambda: cluster.call("GET", "/readyz").status_code == 200, 60, "the API does not see that Kubernetes is back")
    cluster.create(other, start=False)

    def listed() -> list[bool]:
        servers = cluster.done("GET", "/api/v1/server/?limit=500")["servers"]
        return [one["wanted"] == "stopped" for one in servers if one["id"] == other]

    until(lambda: [listed() for _ in range(10)] == [[True]] * 10, 30, "the lists are not current")
    cluster.done("PATCH", f"/api/v1/server/{other}/start")
    # Its controllers and kubelets are back as well.
    cluster.until_state(other, "running")
    cluster.done("DELETE", f"/api/v1/server/{other}/?disk=erase")


def away(
    cluster: Cluster, new_server: Callable[[], int], how: AbstractContextManager[None], seconds: float, server: int
) -> None:
    other, replicas, before = new_server(), api_replicas(cluster), game(cluster, server)
    assert len(replicas) > 1
    with ThreadPoolExecutor(len(calls(server, other))) as pool:
        with how:
            until_ = time.monotonic() + seconds
            all_say_away(cluster, server, other, pool)
            while time.monotonic() < until_:
                all_say_away(cluster, server, other, pool)
        goes_on(cluster, server, other)
    as_before(replicas, api_replicas(cluster))
    assert game(cluster, server) == before
    assert cluster.status(server)["state"] == "running"


def test_a_silent_api_server_is_said_in_time(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """503 to every read and write in under 5 seconds, with replicas and games left as they are."""
    server = new_server()
    cluster.create(server)
    cluster.until_state(server, "running")
    away(cluster, new_server, ABSENCES["the API server is silent"](), 5, server)


@pytest.mark.long
@pytest.mark.parametrize("how", ABSENCES)
def test_kubernetes_may_be_away_for_a_minute(cluster: Cluster, new_server: Callable[[], int], how: str) -> None:
    """The same all through that minute, and for as long as the kubelets take to bring back what was stopped."""
    server = new_server()
    cluster.create(server)
    cluster.until_state(server, "running")
    away(cluster, new_server, ABSENCES[how](), 60, server)


def made_on(cluster: Cluster, server: int, node: str, other: str) -> None:
    """A server on this node."""
    cluster.run("kubectl", "cordon", other)
    try:
        cluster.create(server)
        cluster.until_state(server, "running")
    finally:
        cluster.run("kubectl", "uncordon", other)
    assert cluster.get("pod", f"server-{server}-0")["spec"]["nodeName"] == node


def asked(cluster: Cluster, server: int, times: int, pool: ThreadPoolExecutor) -> list[str]:
    """The state of a server, as said on new connections; "" for each that nobody answers within 5 seconds."""

    def one(_: int) -> str:
        headers = {"Authorization": f"Bearer {cluster.api_token}"}
        try:
            answer = requests.get(f"{cluster.api_url}/api/v1/server/{server}/", headers=headers, timeout=5)
        except requests.Timeout:
            return ""
        assert answer.status_code == 200, answer.text
        return str(answer.json()["state"])

    return list(pool.map(one, range(times)))


def restarts(cluster: Cluster) -> dict[str, list[int]]:
    """The API's pods, and how often they were restarted."""
    return {uid: one["restarts"] for uid, one in api_replicas(cluster).items()}


@pytest.mark.long
def test_a_frozen_node_takes_only_its_own_replica_along(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """The other answers; once Kubernetes has given the node up, it alone is asked. Thawed, all is as before."""
    here, there, later = new_server(), new_server(), new_server()
    made_on(cluster, here, "node1", "node2")
    made_on(cluster, there, "node2", "node1")
    games, replicas = [game(cluster, server) for server in (here, there)], restarts(cluster)
    with ThreadPoolExecutor(12) as pool:
        with absence.frozen(Node(2)):
            first = asked(cluster, here, 12, pool)
            assert set(first) == {"running", ""}
            until(lambda: node_given_up(cluster, "node2"), 120, "Kubernetes does not notice")
            until(lambda: asked(cluster, here, 12, pool) == ["running"] * 12, 30, "the frozen replica is still asked")
            status = cluster.status(there)
            assert status["state"] == "failed"
            assert status["reason"].startswith("Its node node2 has not answered since ")
            assert status["wanted"] == "running"
            cluster.create(later)
            cluster.until_state(later, "running")
        until(lambda: not node_given_up(cluster, "node2"), 60, "the node does not come back")
        cluster.until_state(there, "running")
        until(lambda: all(one["ready"][0][0] == "True" for one in api_replicas(cluster).values()), 60, "lost")
        assert asked(cluster, there, 12, pool) == ["running"] * 12
    assert [game(cluster, server) for server in (here, there)] == games
    as_before(replicas, restarts(cluster))


#: What Kubernetes gives a node by default, and a node on which a server was set to be given up sooner.
PATIENCE = {"as it comes": ([], 540.0), "soon": (["tolerationSeconds"], 60.0)}


@pytest.mark.long
@pytest.mark.parametrize("patience", PATIENCE)
def test_a_lost_node_is_said_for_as_long_as_it_is_lost(
    cluster: Cluster, new_server: Callable[[], int], patience: str
) -> None:
    """Of a server that is to run, one to stop and one to go, before and after Kubernetes has given up their pods.

    What docs/operations.md promises comes true when the node is back: what was given up starts anew, and the others
    have come to their end.
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
    said = "Its node node2 has not answered since "

    def state(server: int) -> tuple[str, str]:
        status = cluster.status(server)
        return status["state"], str(status["reason"])[: len(said)]

    with ThreadPoolExecutor(12) as pool, absence.frozen(Node(2)):
        frozen = time.monotonic()
        until(lambda: node_given_up(cluster, "node2"), 120, "Kubernetes does not notice")
        until(lambda: asked(cluster, runs, 12, pool) == ["failed"] * 12, 30, "the frozen replica is still asked")
        assert [state(server) for server in servers] == [("failed", said)] * 3
        since = cluster.status(runs)["since"]
        cluster.done("PATCH", f"/api/v1/server/{stops}/stop")
        cluster.done("DELETE", f"/api/v1/server/{goes}/")
        until(lambda: "deletionTimestamp" in cluster.get("pod", f"server-{runs}-0")["metadata"], 420, "not given up")
        while True:
            wanted = [("failed", said), ("stopping", said), ("deleting", said)]
            assert [state(server) for server in servers] == wanted
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
    """Whether the cluster holds the node for lost."""
    conditions = json.loads(cluster.run("kubectl", "get", "node", node, "-o", "json"))["status"]["conditions"]
    return next(one["status"] for one in conditions if one["type"] == "Ready") != "True"
