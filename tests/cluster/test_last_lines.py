"""The last lines of a real game that has ended, as an agent of the installed chart keeps them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from local.deploy import SFTP_NAMESPACE
from tests.cluster.conftest import Cluster
from tests.cluster.replicas import first_process
from tests.cluster.test_log_following import following
from tests.support.waiting import until

NOTE = "--- these are the last lines of a run that ended at "


def kill(cluster: Cluster, server: int) -> None:
    """Somebody kills the game; Kubernetes starts it again in the same pod."""
    os.kill(first_process(cluster.get("pod", f"server-{server}-0"), "teeworlds"), signal.SIGKILL)


def kept_secrets(cluster: Cluster, server: int) -> list[str]:
    """The Secrets with lines of servers with this id."""
    label = f"app.kubernetes.io/component=kept-log,gameserver/id={server}"
    names = cluster.run("kubectl", "-n", SFTP_NAMESPACE, "get", "secrets", "-l", label, "-o", "name")
    return names.split()


def test_a_stopped_game_still_answers(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """After a crash and a stop, with the lines of its last run. An erase deletes them; the next server has none."""
    server = new_server()
    log = f"/api/v1/server/{server}/log"
    cluster.create(server, game="teeworlds", options={"name": f"mark of {server}"})
    cluster.until_state(server, "running")
    kill(cluster, server)
    pod = f"server-{server}-0"
    until(lambda: cluster.get("pod", pod)["status"]["containerStatuses"][0]["restartCount"] == 1, 60)
    cluster.until_state(server, "running")
    until(lambda: f"mark of {server}" in cluster.call("GET", log).text, 30)
    before = cluster.call("GET", f"{log}?tail=5000").text.splitlines()
    uid = cluster.get("pod", pod)["metadata"]["uid"]

    cluster.done("PATCH", f"/api/v1/server/{server}/stop")
    until(lambda: cluster.call("GET", log).text.startswith(NOTE), 60, lambda: cluster.call("GET", log).text)
    _, *lines = cluster.call("GET", f"{log}?tail=5000").text.splitlines()
    assert lines[: len(before)] == before
    assert lines[-1] == "The server has ended, with code 0"

    followed = following(cluster, server)
    head = [next(followed) for _ in range(5)]
    assert head[1].startswith("data: these are the last lines")
    assert head[3].startswith(f"id: {uid}.1.")
    assert head[4] == f"data: {lines[0]}"

    assert len(kept_secrets(cluster, server)) == 1
    cluster.done("DELETE", f"/api/v1/server/{server}/?disk=erase")
    assert kept_secrets(cluster, server) == []
    cluster.create(server, game="teeworlds", start=False)
    assert cluster.call("GET", log).json()["type"] == "/problems/no-log"
