"""A server is reached at its own node, the game sees its players' addresses, and other nodes do not matter."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from local import nodes
from local.paths import ROOT
from tests.clients.teeworlds import SILENCE
from tests.cluster.conftest import SERVERS_NAMESPACE, Cluster
from tests.support.waiting import until

#: The machine's own address. Players that the tests start outside the nodes come from it.
MACHINE = "10.77.0.1"


def node_of(cluster: Cluster, server: int) -> str:
    """The name of the node that the server runs on."""
    return str(cluster.get("pod", f"server-{server}-0")["spec"]["nodeName"])


@contextmanager
def players(host: str, port: int, number: int, on: nodes.Node | None = None) -> Iterator[list[str]]:
    """Players from one address, the machine's or a node's. Yields why the server refused each of them, or ""."""
    enter = ["nsenter", "-t", str(nodes.running()[on.number]), "-n", "--"] if on else []
    command = [*enter, sys.executable, "-m", "tests.clients.teeworlds", host, str(port), str(number)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(10) == 0


@contextmanager
def another_node(cluster: Cluster, name: str, address: str) -> Iterator[None]:
    """A ready node on which nothing runs, like one that has just joined."""
    taint = {"key": "test", "value": "none", "effect": "NoExecute"}
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {"taints": [taint]}}
    cluster.run("kubectl", "apply", "-f", "-", stdin=json.dumps(node))
    try:
        status = {
            "addresses": [{"type": "InternalIP", "address": address}, {"type": "ExternalIP", "address": address}],
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
        }
        patch = json.dumps({"status": status})
        cluster.run("kubectl", "patch", "node", name, "--subresource=status", "--type=merge", "-p", patch)
        yield
    finally:
        cluster.run("kubectl", "delete", "node", name)


def test_the_game_sees_its_players_addresses_at_a_host_that_stays(
    cluster: Cluster, new_server: Callable[[], int]
) -> None:
    """Three players from each of two addresses join, though Teeworlds allows four from one, and a ban hits one address.

    The host stays the same when a node joins whose name sorts first.
    """
    server = new_server()
    path = f"/api/v1/server/{server}"
    cluster.create(server, game="teeworlds", options={"max_players": 16})
    assert cluster.done("PATCH", f"{path}/port/primary")["host"] in (None, "10.77.0.2", "10.77.0.3")
    cluster.until_state(server, "running")
    port = cluster.done("PATCH", f"{path}/port/primary")
    own = next(nodes.Node(number) for number in nodes.running() if nodes.Node(number).name == node_of(cluster, server))
    other = next(nodes.Node(number) for number in nodes.running() if number != own.number)
    assert port["host"] == own.address

    with players(own.address, port["port"], 3) as local, players(own.address, port["port"], 3, on=other) as remote:
        assert (local, remote) == ([""] * 3, [""] * 3)
        # Teeworlds bans players who leave within a second.
        time.sleep(1.5)
    kubectl = ("kubectl", "-n", SERVERS_NAMESPACE)

    def logged() -> str:
        return cluster.run(*kubectl, "logs", f"server-{server}-0")

    until(lambda: all(f"{address}:" in logged() for address in (MACHINE, other.address)), 20, logged)

    with another_node(cluster, "a-node-that-sorts-first", "10.77.0.99"):
        # New connections reach every replica.
        hosts = {cluster.done("PATCH", f"{path}/port/primary")["host"] for _ in range(12)}
        listed = next(
            entry
            for entry in cluster.done("GET", f"/api/v1/server/?limit=1&continue={server - 1}")["servers"]
            if entry["id"] == server
        )
    assert hosts == {listed["host"], listed["ports"]["primary"]["host"]} == {own.address}

    ban = f"echo 'ban {MACHINE} 60' > /data/teeworlds/server.cfg"
    cluster.run(*kubectl, "exec", f"server-{server}-0", "--", "sh", "-c", ban)
    cluster.done("PATCH", f"{path}/restart")
    cluster.until_state(server, "running")
    assert cluster.done("PATCH", f"{path}/port/primary") == port
    with players(own.address, port["port"], 1) as local, players(own.address, port["port"], 1, on=other) as remote:
        assert "ban" in local[0] or local == [SILENCE]
        assert remote == [""]
        time.sleep(1.5)
