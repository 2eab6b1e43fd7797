"""States that tell the truth: each one, and each reason, produced for real."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster.conftest import ROOT, SERVERS_NAMESPACE, Cluster, until

#: Put into a world's folder and loaded by the game's Node: it eats memory, up to 1.5 GiB.
EATER = """
const eaten = [];
const timer = setInterval(() => {
  eaten.push(Buffer.alloc(64 << 20, 1));
  if (eaten.length === 24) clearInterval(timer);
}, 20);
timer.unref();
"""


def by_hand(cluster: Cluster, server: int, *arguments: str, chart: Path = ROOT / "charts" / "gameserver") -> None:
    """An operator's `helm upgrade --reuse-values` of one server."""
    cluster.run(
        "helm",
        "-n",
        SERVERS_NAMESPACE,
        "upgrade",
        f"server-{server}",
        str(chart),
        "--reuse-values",
        *arguments,
    )


def test_a_server_goes_through_the_states_in_their_order(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """creating, starting, running, stopping, stopped; `since` is a time, and running means that the game answers."""
    server = new_server()
    cluster.create(server)
    seen: list[str] = []

    def note(*last: str) -> bool:
        state = cluster.status(server)["state"]
        if not seen or seen[-1] != state:
            seen.append(state)
        return state in last

    until(lambda: note("running"), 90, lambda: f"seen {seen}")
    assert set(seen) <= {"creating", "starting", "running"}
    status = cluster.status(server)
    assert (status["wanted"], status["reason"]) == ("running", None)
    assert status["since"].endswith("Z")
    seen.clear()
    cluster.done("PATCH", f"/api/v1/server/{server}/stop")
    until(lambda: note("stopped"), 90, lambda: f"seen {seen}")
    assert seen in (["stopping", "stopped"], ["stopped"])
    assert cluster.status(server)["wanted"] == "stopped"


def test_out_of_memory_is_said_with_the_limit_and_mended_by_a_resize(
    cluster: Cluster, new_server: Callable[[], int]
) -> None:
    """A game that needs more than its limit fails and says so; with more ram it runs."""
    server = new_server()
    cluster.create(server)
    cluster.until_state(server, "running")
    pod = f"server-{server}-0"
    cluster.run(
        "kubectl", "-n", SERVERS_NAMESPACE, "exec", "-i", pod, "--", "sh", "-c", "cat > /data/eat.js", stdin=EATER
    )
    extra = json.dumps([{"name": "NODE_OPTIONS", "value": "--require /data/eat.js"}])
    by_hand(cluster, server, "--set-json", f"extraEnv={extra}")
    failed = cluster.until_state(server, "failed", seconds=120)
    assert "out of memory" in failed["reason"]
    assert "1 GiB" in failed["reason"]
    answer = cluster.done("PATCH", f"/api/v1/server/{server}/", {"ram_gb": 3})
    assert answer["success"] is True
    running = cluster.until_state(server, "running", seconds=120)
    assert running["ram_gb"] == 3


def test_unschedulable_is_said_with_the_resource_and_mended_by_a_resize(
    cluster: Cluster, new_server: Callable[[], int]
) -> None:
    """A server larger than every node names the memory; made smaller it runs."""
    server = new_server()
    cluster.create(server, ram_gb=64)
    failed = cluster.until_state(server, "failed")
    assert "64 GiB of memory" in failed["reason"]
    assert failed["wanted"] == "running"
    cluster.done("PATCH", f"/api/v1/server/{server}/", {"ram_gb": 1})
    cluster.until_state(server, "running", seconds=120)


def test_an_image_that_is_not_there_is_named(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """The reason names the image; the right tag mends it."""
    server = new_server()
    cluster.create(server)
    tag = json.loads(cluster.run("helm", "-n", SERVERS_NAMESPACE, "get", "values", f"server-{server}", "-o", "json"))[
        "image"
    ]["tag"]
    by_hand(cluster, server, "--set", "image.tag=no-such-tag")
    failed = cluster.until_state(server, "failed")
    assert "localhost/minecraft:no-such-tag" in failed["reason"]
    by_hand(cluster, server, "--set", f"image.tag={tag}")
    cluster.until_state(server, "running", seconds=120)


def test_a_crash_loop_shows_the_games_last_lines(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """A game that ends at once fails, and the reason has what it said."""
    server = new_server()
    cluster.create(server, start=False)
    by_hand(cluster, server, "--set", "replicas=1", "--set-string", "environment.EULA=FALSE")
    failed = cluster.until_state(server, "failed")
    until(lambda: "EULA" in (cluster.status(server)["reason"] or ""), 30, lambda: str(failed))


def test_a_pod_that_pod_security_refuses_is_said(
    cluster: Cluster, new_server: Callable[[], int], tmp_path: Path
) -> None:
    """A chart that was changed for the worse: helm says deployed, the API says why no pod is admitted."""
    server = new_server()
    cluster.create(server, start=False)
    chart = tmp_path / "gameserver"
    shutil.copytree(ROOT / "charts" / "gameserver", chart)
    helpers = chart / "templates" / "_helpers.tpl"
    helpers.write_text(helpers.read_text().replace("allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true"))
    by_hand(cluster, server, "--set", "replicas=1", chart=chart)
    failed = cluster.until_state(server, "failed")
    assert "security" in failed["reason"].lower()
    assert "allowPrivilegeEscalation" in failed["reason"]


def test_a_disk_that_is_not_bound_is_said(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """A storage class that doesn't exist leaves the disk unbound."""
    server = new_server()
    cluster.run(
        "helm",
        "-n",
        SERVERS_NAMESPACE,
        "install",
        f"server-{server}",
        str(ROOT / "charts" / "gameserver"),
        "--set",
        "storage.className=no-such-class",
    )
    failed = cluster.until_state(server, "failed")
    assert "disk is not bound" in failed["reason"]


def test_a_failed_install_is_said_and_mended_by_the_same_create(
    cluster: Cluster, new_server: Callable[[], int]
) -> None:
    """A quota in the way fails the install half way; once it is gone the same create succeeds."""
    server = new_server()
    quota = f"no-more-servers-{server}"
    cluster.run("kubectl", "-n", SERVERS_NAMESPACE, "create", "quota", quota, "--hard=count/statefulsets.apps=0")
    try:
        until(lambda: "used" in cluster.get("quota", quota)["status"], 30)
        answer = cluster.call("POST", f"/api/v1/server/{server}/", {"ram_gb": 1, "disk_gb": 1})
        assert answer.status_code == 503
        assert "Retry-After" in answer.headers
        assert "quota" in answer.json()["detail"]
        status = cluster.status(server)
        assert status["state"] == "failed"
        assert "install failed" in status["reason"].lower()
    finally:
        cluster.run("kubectl", "-n", SERVERS_NAMESPACE, "delete", "quota", quota)
    cluster.create(server)
    cluster.until_state(server, "running")


@pytest.mark.parametrize("path", ["", "/start", "/stop", "/restart", "/port/primary", "/rcon"])
def test_an_unknown_server_is_not_found(cluster: Cluster, new_server: Callable[[], int], path: str) -> None:
    """Every call for an id that no server has answers 404."""
    method = "GET" if path in ("", "/rcon") else "PATCH"
    answer = cluster.call(method, f"/api/v1/server/{new_server()}{path or '/'}")
    assert answer.status_code == 404
    assert answer.json()["success"] is False
