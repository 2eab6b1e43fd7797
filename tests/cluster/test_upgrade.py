"""An upgrade of the API leaves a server of an earlier chart running. Its next start brings it to the new chart."""

import copy
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.cluster.conftest import SERVERS_NAMESPACE, Cluster
from tests.cluster.replicas import NAMESPACE
from tests.cluster.traffic import upgrade
from tests.support.history import chart_at

#: The first commit of this repository with the chart gameserver.
EARLIER = "f72ae44b14ad0b58a94f9f24cdc16f6abaf30f2e"

#: The values that the API of that time (commit 002b635) gave helm for
#: `{"ram_gb": 1, "disk_gb": 1, "customer": "acme", "options": {"motd": "made long ago", "difficulty": "hard"}}`,
#: except for the server's id and the operator's own image.
VALUES: dict[str, Any] = {
    "ports": [{"name": "primary", "port": 25565, "protocol": "TCP"}],
    "heap": {"environmentVariable": "MEMORY"},
    "terminationGracePeriodSeconds": 120,
    "environment": {
        "EULA": "TRUE",
        "STOP_SERVER_ANNOUNCE_DELAY": "10",
        "STOP_DURATION": "60",
        "DIFFICULTY": "hard",
        "MOTD": "made long ago",
    },
    "game": "minecraft",
    "server": {"customer": "acme", "options": {"motd": "made long ago", "difficulty": "hard"}},
    "ramGb": 1,
    "diskGb": 1,
    "rcon": {"visibility": "public"},
    "replicas": 1,
}


def install_earlier(cluster: Cluster, server: int, folder: Path) -> dict[str, Any]:
    """Install a server with the earlier chart and this cluster's image, and return its values."""
    printed = cluster.run("helm", "-n", NAMESPACE, "get", "values", "api", "-o", "json")
    values = copy.deepcopy(VALUES)
    values["server"]["id"] = str(server)
    values["image"] = json.loads(printed)["serverValues"]["games"]["minecraft"]["image"]
    file = folder / "values.json"
    file.write_text(json.dumps(values))
    chart = chart_at(EARLIER, "gameserver", folder)
    cluster.run("helm", "-n", SERVERS_NAMESPACE, "install", f"server-{server}", str(chart), "-f", str(file))
    return values


def in_game(cluster: Cluster, server: int, script: str) -> str:
    """Run a shell command in the game's container and return what it prints."""
    return cluster.run("kubectl", "-n", SERVERS_NAMESPACE, "exec", f"server-{server}-0", "--", "sh", "-c", script)


def untouched(cluster: Cluster, server: int) -> tuple[str, int, str, int]:
    """What shows that a game was not touched: its pod's uid, restarts and start, and its StatefulSet's generation."""
    pod = cluster.get("pod", f"server-{server}-0")
    status = pod["status"]["containerStatuses"][0]
    generation = cluster.get("statefulset", f"server-{server}")["metadata"]["generation"]
    return pod["metadata"]["uid"], status["restartCount"], status["state"]["running"]["startedAt"], generation


def made_by_todays_chart(cluster: Cluster, server: int) -> bool:
    """Whether today's chart made the server's Service. The earlier one did not publish unready pods."""
    return bool(cluster.get("service", f"server-{server}")["spec"].get("publishNotReadyAddresses"))


def traffic_policy(cluster: Cluster, server: int) -> str:
    """The Service's traffic policy: with "Local" only the server's own node answers at its port."""
    return str(cluster.get("service", f"server-{server}")["spec"]["externalTrafficPolicy"])


def a_quiet_change_leaves_the_game_alone(cluster: Cluster, server: int) -> dict[str, Any]:
    """Check that today's chart restores a missing Service and keeps pod, ports and policy. Returns the API's answer."""
    game = untouched(cluster, server)[:3]
    ports = cluster.status(server)["ports"]
    cluster.run("kubectl", "-n", SERVERS_NAMESPACE, "delete", "service", f"server-{server}-sftp")
    cluster.done("PATCH", f"/api/v1/server/{server}/start")
    status = cluster.status(server)
    assert (status["state"], status["reason"]) == ("running", None)
    assert made_by_todays_chart(cluster, server)
    assert {**status["ports"], "sftp": None} == {**ports, "sftp": None}
    assert traffic_policy(cluster, server) == "Cluster"
    # Long enough for Kubernetes to begin replacing the pod.
    time.sleep(3)
    assert untouched(cluster, server)[:3] == game
    assert cluster.status(server)["state"] == "running"
    return status


def goes_on_with_todays_api(cluster: Cluster, server: int, values: dict[str, Any]) -> None:
    """Check status, stop, start, resize and delete of the earlier server. Port, claim, password and world must stay."""
    path = f"/api/v1/server/{server}"
    status = cluster.status(server)
    assert status["state"] == status["wanted"] == "running"
    assert [status[name] for name in ("game", "ram_gb", "disk_gb", "options")] == [
        "minecraft",
        1,
        1,
        {"motd": "made long ago", "difficulty": "hard"},
    ]
    claim = cluster.get("pvc", f"server-{server}")["metadata"]["uid"]
    password = cluster.done("GET", f"{path}/rcon")["password"]
    in_game(cluster, server, "echo mine > /data/mark")
    # The same create again finds the server and changes nothing.
    body = {"ram_gb": 1, "disk_gb": 1, "customer": "acme", "options": VALUES["server"]["options"]}
    before = untouched(cluster, server)
    assert cluster.call("POST", f"{path}/", body).status_code == 200
    assert cluster.call("PATCH", f"{path}/start").status_code == 200
    assert untouched(cluster, server) == before
    assert not made_by_todays_chart(cluster, server)
    status = a_quiet_change_leaves_the_game_alone(cluster, server)

    cluster.done("PATCH", f"{path}/stop")
    cluster.until_state(server, "stopped")
    cluster.done("PATCH", f"{path}/", {"ram_gb": 2})
    cluster.done("PATCH", f"{path}/start")
    after = cluster.until_state(server, "running")
    assert made_by_todays_chart(cluster, server)
    assert traffic_policy(cluster, server) == "Local"
    assert after["ports"] == status["ports"]
    assert after["ram_gb"] == 2
    assert cluster.get("pvc", f"server-{server}")["metadata"]["uid"] == claim
    assert cluster.done("GET", f"{path}/rcon")["password"] == password
    assert in_game(cluster, server, "cat /data/mark") == "mine\n"
    now = json.loads(cluster.run("helm", "-n", SERVERS_NAMESPACE, "get", "values", f"server-{server}", "-o", "json"))
    assert now == {**values, "ramGb": 2}

    cluster.done("DELETE", f"{path}/")
    # Today's chart writes the customer on the claim. The earlier one did not.
    kept = cluster.get("pvc", f"server-{server}")["metadata"]
    assert json.loads(kept["annotations"]["gameserver/server"])["customer"] == "acme"
    cluster.done("DELETE", f"{path}/?disk=erase")


def test_an_upgrade_of_the_api_restarts_no_game(
    cluster: Cluster, new_server: Callable[[], int], tmp_path: Path
) -> None:
    """An upgrade replaces all of the API's pods, and games of the earlier chart and of today's keep running."""
    old, new = new_server(), new_server()
    values = install_earlier(cluster, old, tmp_path)
    cluster.create(new)
    for server in (old, new):
        cluster.until_state(server, "running")
    before = [untouched(cluster, server) for server in (old, new)]
    upgrade(cluster, "--set-string", f"podAnnotations.upgraded={time.time_ns()}")
    try:
        assert [untouched(cluster, server) for server in (old, new)] == before
        goes_on_with_todays_api(cluster, old, values)
        assert untouched(cluster, new) == before[1]
    finally:
        cluster.run("helm", "-n", NAMESPACE, "rollback", "api", "--wait", "--timeout=4m")
