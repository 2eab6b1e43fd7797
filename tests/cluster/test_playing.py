"""The main path: a server that a player can join, through its whole life."""

import base64
import re
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from mcstatus import JavaServer

from local.paths import ROOT
from service.players.query import Unknown, players
from tests.cluster import world
from tests.cluster.conftest import SERVERS_NAMESPACE, Cluster
from tests.cluster.replicas import NAMESPACE
from tests.support.waiting import until


def test_a_server_is_created_played_stopped_started_and_deleted(
    cluster: Cluster, new_server: Callable[[], int]
) -> None:
    """create → join, and be counted → RCON → stop → saved and not killed → start → same port and world → delete."""
    server = new_server()
    path = f"/api/v1/server/{server}"

    answer = cluster.call("POST", f"{path}/", {"ram_gb": 2, "disk_gb": 10})
    assert (answer.status_code, answer.json()) == (201, {"success": True})
    cluster.until_state(server, "running")

    port = cluster.done("PATCH", f"{path}/port/primary")
    assert port == {
        "success": True,
        "port": port["port"],
        "protocol": "TCP",
        "host": cluster.address_of(server),
    }
    assert JavaServer.lookup(f"{port['host']}:{port['port']}").status().players.max > 0
    with ThreadPoolExecutor(1) as player:
        stays = player.submit(world.join, cluster, server, "--stay", "5")
        until(lambda: players("minecraft", port["host"], port["port"], 2) == 1, 30, not_yet=(Unknown,))
        assert stays.result()["joined"] is True
    until(lambda: players("minecraft", port["host"], port["port"], 2) == 0, not_yet=(Unknown,))

    assert "players online" in world.console(cluster, server, "list")
    place = world.mark(cluster, server)

    pod = f"server-{server}-0"
    with subprocess.Popen(
        [str(ROOT / ".local/bin/kubectl"), f"--kubeconfig={cluster.kubeconfig}"]
        + ["-n", SERVERS_NAMESPACE, "logs", "-f", pod],
        stdout=subprocess.PIPE,
        text=True,
    ) as logs:
        with subprocess.Popen(
            [str(ROOT / ".local/bin/kubectl"), f"--kubeconfig={cluster.kubeconfig}"]
            + ["-n", SERVERS_NAMESPACE, "get", "pod", pod, "-w", "-o", "json"],
            stdout=subprocess.PIPE,
            text=True,
        ) as watch:
            assert logs.stdout is not None
            assert watch.stdout is not None
            # Once the game is stopped, kubectl may find no pod.
            log, seen = logs.stdout.readline(), watch.stdout.readline()
            assert cluster.done("PATCH", f"{path}/stop") == {"success": True}
            cluster.until_state(server, "stopped")
            watch.terminate()
            seen += watch.stdout.read()
        log += logs.stdout.read()
    assert re.search(r"[Ss]aved", log), log
    # The game ended by itself. A killed container has the exit code 137.
    codes = re.findall(r'"terminated": \{[^}]*"exitCode": (\d+)', seen)
    assert codes
    assert set(codes) == {"0"}

    assert cluster.done("PATCH", f"{path}/start") == {"success": True}
    cluster.until_state(server, "running")
    assert cluster.done("PATCH", f"{path}/port/primary") == port
    assert world.block(cluster, server, place) == world.MARK

    assert cluster.done("DELETE", f"{path}/") == {"success": True}
    until(lambda: cluster.call("GET", f"{path}/").status_code == 404, 60)
    claim = cluster.get("pvc", f"server-{server}")
    assert claim["metadata"].get("deletionTimestamp") is None


def test_private_rcon_stays_inside_the_cluster(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """With `rcon: private` the port call gives a host and port inside the cluster, and pods can resolve the host."""
    server = new_server()
    cluster.create(server, rcon="private", start=False)
    answer = cluster.done("PATCH", f"/api/v1/server/{server}/port/rcon")
    assert answer["port"] == 25575
    assert answer["host"] == f"server-{server}-rcon.{SERVERS_NAMESPACE}.svc"
    service = cluster.get("service", f"server-{server}-rcon")
    assert service["spec"]["type"] == "ClusterIP"
    lookup = f"import socket; print(socket.gethostbyname('{answer['host']}'))"
    address = cluster.run("kubectl", "-n", NAMESPACE, "exec", "deployment/api", "--", "python", "-c", lookup)
    assert address.strip() == service["spec"]["clusterIP"]
    public = cluster.get("service", f"server-{server}")
    assert [port["name"] for port in public["spec"]["ports"]] == ["primary"]


def test_the_rcon_password_is_made_in_the_cluster_and_kept(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """A start and a stop do not change the password that the chart made."""
    server = new_server()
    cluster.create(server, start=False)
    before = cluster.get("secret", f"server-{server}-rcon")["data"]["password"]
    cluster.done("PATCH", f"/api/v1/server/{server}/start")
    cluster.done("PATCH", f"/api/v1/server/{server}/stop")
    after = cluster.get("secret", f"server-{server}-rcon")["data"]["password"]
    assert before == after
    assert len(base64.b64decode(before)) >= 24
