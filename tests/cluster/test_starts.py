"""A start makes the server run, whatever was in the way."""

import json
from collections.abc import Callable

import pytest

from tests.cluster import pool
from tests.cluster.commands import on_node
from tests.cluster.conftest import SERVERS_NAMESPACE, Cluster
from tests.support.waiting import until

KUBECTL = ("kubectl", "-n", SERVERS_NAMESPACE)


def pod(cluster: Cluster, server: int) -> dict[str, object]:
    """The uid of the server's pod, and how often its container was restarted."""
    shown = cluster.get("pod", f"server-{server}-0")
    return {"uid": shown["metadata"]["uid"], "restarts": shown["status"]["containerStatuses"][0]["restartCount"]}


@pytest.mark.alone  # The quota is for all pods of the namespace, and other tests make some.
def test_a_start_ends_a_back_off_and_restores_what_is_missing(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """After a repair over SFTP, the loss of Services or the removal of a quota, a start makes the game run at once."""
    server = new_server()
    path = f"/api/v1/server/{server}"
    body = {"ram_gb": 1, "disk_gb": 1, "game": "teeworlds"}
    cluster.done("POST", f"{path}/", body)
    cluster.until_state(server, "running")

    # Replace the folder that the game writes to by a file, and kill all processes of the game. That includes the shell
    # of `kubectl exec`, so the shell has to be gone by then.
    spoil = "sleep 1; rm -rf /data/teeworlds; touch /data/teeworlds; kill -9 -1"
    cluster.run(*KUBECTL, "exec", f"server-{server}-0", "--", "sh", "-c", f"({spoil}) >/dev/null 2>&1 & sleep 0")
    until(
        lambda: "again and again" in (cluster.status(server)["reason"] or ""), 90, lambda: str(cluster.status(server))
    )
    before = pod(cluster, server)
    disk = pool.disk_in(pool.volume_of(cluster, f"server-{server}"))
    on_node(disk.node, f"rm {disk.folder}/teeworlds")
    cluster.done("PATCH", f"{path}/start")
    cluster.until_state(server, "running")
    running = pod(cluster, server)
    assert running["uid"] != before["uid"]
    assert running["restarts"] == 0

    cluster.run(*KUBECTL, "delete", "service", f"server-{server}", f"server-{server}-sftp")
    answer = cluster.call("PATCH", f"{path}/port/primary")
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/object-missing")
    assert f"no Service server-{server}" in answer.json()["detail"]
    cluster.done("PATCH", f"{path}/start")
    assert set(cluster.status(server)["ports"]) == {"primary", "sftp"}
    cluster.run(*KUBECTL, "delete", "service", f"server-{server}-sftp")
    assert cluster.call("POST", f"{path}/", body).status_code == 200
    assert set(cluster.status(server)["ports"]) == {"primary", "sftp"}
    assert pod(cluster, server) == running

    cluster.done("PATCH", f"{path}/stop")
    cluster.until_state(server, "stopped")
    quota = f"no-more-pods-{server}"
    cluster.run(*KUBECTL, "create", "quota", quota, "--hard=pods=0")
    try:
        until(lambda: "used" in cluster.get("quota", quota)["status"], 30)
        cluster.done("PATCH", f"{path}/start")
        assert "quota" in cluster.until_state(server, "failed")["reason"]
    finally:
        cluster.run(*KUBECTL, "delete", "quota", quota)
    cluster.done("PATCH", f"{path}/start")
    cluster.until_state(server, "running")
    values = json.loads(cluster.run("helm", "-n", SERVERS_NAMESPACE, "get", "values", f"server-{server}", "-o", "json"))
    assert "restartedAt" in values
