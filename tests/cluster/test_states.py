"""States that tell the truth: each one, and each reason, produced for real."""

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from local import nodes
from local.paths import ROOT
from tests.cluster.conftest import SERVERS_NAMESPACE, Cluster
from tests.cluster.replicas import NAMESPACE, pods
from tests.support.waiting import until

#: Put into a world's folder and loaded by the game's Node: it eats memory, up to 1.5 GiB.
EATER = """
const eaten = [];
const timer = setInterval(() => {
  eaten.push(Buffer.alloc(64 << 20, 1));
  if (eaten.length === 24) clearInterval(timer);
}, 20);
timer.unref();
"""


def unscheduled(cluster: Cluster, server: int) -> str:
    """Why the scheduler finds no node, in its own words."""
    conditions = cluster.get("pod", f"server-{server}-0")["status"]["conditions"]
    return str(next(one["message"] for one in conditions if one["type"] == "PodScheduled"))


def everywhere(cluster: Cluster, server: int, status: dict[str, Any]) -> None:
    """The list says the same as this answer to a GET, at every replica."""

    def listed() -> dict[str, Any]:
        page = cluster.done("GET", f"/api/v1/server/?limit=1&continue={server - 1}")
        return next(one for one in page["servers"] if one["id"] == server)

    wanted = {key: value for key, value in status.items() if key != "success"}
    until(lambda: all(listed() == wanted for _ in range(4)), 10, lambda: f"{listed()}, not {wanted}")


def counted(cluster: Cluster, status: dict[str, Any]) -> None:
    """The metrics of each replica count a server like this."""
    series = f'gameserver_servers{{game="{status["game"]}",state="{status["state"]}"}}'
    for pod in pods(cluster):
        address = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}:9090/proxy/metrics"
        until(lambda: series in cluster.run("kubectl", "get", "--raw", address), 10, f"{pod} shows no {series}")  # noqa: B023


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
    cluster.by_hand(server, "--set-json", f"extraEnv={extra}")
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
    cluster.by_hand(server, "--set", "image.tag=no-such-tag")
    failed = cluster.until_state(server, "failed")
    assert "localhost/minecraft:no-such-tag" in failed["reason"]
    cluster.by_hand(server, "--set", f"image.tag={tag}")
    cluster.until_state(server, "running", seconds=120)


def test_a_crash_loop_shows_the_games_last_lines(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """A game that ends at once fails, and the reason has what it said."""
    server = new_server()
    cluster.create(server, start=False)
    cluster.by_hand(server, "--set", "replicas=1", "--set-string", "environment.EULA=FALSE")
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
    cluster.by_hand(server, "--set", "replicas=1", chart=chart)
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
    # The scheduler's words, for classes of which no event tells.
    assert "unbound immediate PersistentVolumeClaims" in unscheduled(cluster, server)
    everywhere(cluster, server, failed)


def test_a_pod_that_a_quota_refuses_is_said_everywhere(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """By one server, the list and the metrics, since it was refused; given up, it is the reason of the stop."""
    server = new_server()
    cluster.create(server, game="teeworlds", start=False)
    made = cluster.status(server)["since"]
    quota = f"no-more-pods-{server}"
    cluster.run("kubectl", "-n", SERVERS_NAMESPACE, "create", "quota", quota, "--hard=count/pods=0")
    try:
        until(lambda: "used" in cluster.get("quota", quota)["status"], 30)
        cluster.done("PATCH", f"/api/v1/server/{server}/start")
        failed = cluster.until_state(server, "failed")
        assert failed["reason"].startswith(f"A quota refused the server's pod: {quota}, ")
        assert made <= failed["since"]
        everywhere(cluster, server, failed)
        counted(cluster, failed)
        cluster.done("PATCH", f"/api/v1/server/{server}/stop")
        until(lambda: cluster.status(server)["reason"] is not None, 10)
        stopped = cluster.status(server)
        assert stopped["state"] == "stopped"
        assert stopped["reason"] == f"Its last start failed: {failed['reason']}"
        everywhere(cluster, server, stopped)
    finally:
        cluster.run("kubectl", "-n", SERVERS_NAMESPACE, "delete", "quota", quota)
    cluster.done("PATCH", f"/api/v1/server/{server}/start")
    assert cluster.until_state(server, "running")["reason"] is None
    cluster.done("PATCH", f"/api/v1/server/{server}/stop")
    assert cluster.until_state(server, "stopped")["reason"] is None


#: In a game's place: it answers while /data/ready is there, ends with 0 when told to leave, and with /data/code when
#: it is asked to stop.
PUPPET = """
trap 'exit $(cat /data/code || echo 0)' TERM
while [ ! -e /data/leave ]; do sleep 0.1; done
rm /data/leave
"""


def test_ends_are_told_apart(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """A start given up on, leaving by its own command, a failed save, a killed stop: each is said, and how long."""
    server, since = new_server(), ""
    cluster.create(server, game="teeworlds", start=False)
    settings = {"command": ["sh", "-c", PUPPET], "probe.command": ["test", "-e", "/data/ready"]}
    numbers = "probe.periodSeconds=1,probe.startupSeconds=5,probe.readinessPeriodSeconds=1"
    more = [f"--set-json={key}={json.dumps(value)}" for key, value in settings.items()]
    cluster.by_hand(server, *more, "--set", f"{numbers},terminationGracePeriodSeconds=3,replicas=1")

    def says(*words: str) -> dict[str, Any]:
        seen: dict[str, Any] = {}

        def said() -> bool:
            seen.update(cluster.status(server))
            return all(word in (seen["reason"] or "") for word in words)

        until(said, 60, lambda: f"{words}: {seen}")
        return seen

    def tell(command: str) -> None:
        pod = f"server-{server}-0"
        cluster.run("kubectl", "-n", SERVERS_NAMESPACE, "exec", pod, "--", "sh", "-c", command)

    def stop(reason: str | None) -> None:
        nonlocal since
        cluster.done("PATCH", f"/api/v1/server/{server}/stop")
        stopped = cluster.until_state(server, "stopped")
        assert stopped["reason"] == reason
        assert stopped["since"] > since
        since = stopped["since"]
        everywhere(cluster, server, stopped)

    def start() -> None:
        cluster.done("PATCH", f"/api/v1/server/{server}/start")
        assert cluster.until_state(server, "running")["reason"] is None

    slow = "The game did not answer within 5 s of its start and was stopped."
    assert says(slow)["state"] in ("failed", "starting")
    stop(f"Its last start failed: {slow}")
    cluster.done("PATCH", f"/api/v1/server/{server}/start")
    until(lambda: "running" in str(cluster.get("pod", f"server-{server}-0")["status"].get("containerStatuses")), 30)
    tell("touch /data/ready")
    assert cluster.until_state(server, "running")["reason"] is None

    # The first is started again at once, the second after a while.
    tell("touch /data/leave")
    until(lambda: cluster.get("pod", f"server-{server}-0")["status"]["containerStatuses"][0]["restartCount"] == 1, 30)
    cluster.until_state(server, "running")
    tell("touch /data/leave")
    left = says("The game ended by itself (exit code 0).", "waits longer before each new start")
    assert left["state"] == "starting"
    everywhere(cluster, server, left)
    stop(None)

    start()
    tell("echo 1 > /data/code")
    failed = "The game failed as it stopped (exit code 1); its last save may be incomplete."
    stop(failed)
    # Not a start.
    cluster.done("PATCH", f"/api/v1/server/{server}/", {"ram_gb": 2})
    still = cluster.status(server)
    assert (still["reason"], still["since"]) == (failed, since)

    start()
    tell("kill -STOP -1")
    stop("The game had not stopped after 3 s and was killed; unsaved progress is lost.")


def test_a_cordoned_node_that_holds_the_disk_is_named(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """With what is wrong with it; uncordoned, the server runs."""
    server = new_server()
    cluster.create(server, game="teeworlds")
    cluster.until_state(server, "running")
    node = cluster.get("pod", f"server-{server}-0")["spec"]["nodeName"]
    cluster.run("kubectl", "cordon", node)
    try:
        cluster.done("PATCH", f"/api/v1/server/{server}/restart")
        failed = cluster.until_state(server, "failed")
        assert failed["reason"].startswith(
            f"The node that holds the disk, {node}, cannot take the server: it is cordoned. "
        )
        everywhere(cluster, server, failed)
    finally:
        cluster.run("kubectl", "uncordon", node)
    cluster.until_state(server, "running", seconds=60)


#: A registry as far as these tests need one: it has nothing, and says so in the way that the repository is called.
REGISTRY = """
import http.server
class Registry(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        code = 403 if "closed" in self.path else 401 if "private" in self.path else 404
        self.send_response(200 if self.path == "/v2/" else code)
        if "private" in self.path:
            self.send_header("WWW-Authenticate", 'Basic realm="here"')
        self.send_header("Content-Length", "0")
        self.end_headers()
    do_HEAD = do_GET
http.server.ThreadingHTTPServer(("127.0.0.1", 5999), Registry).serve_forever()
"""


@pytest.mark.long
def test_a_registry_that_refuses_is_told_from_one_that_has_not_the_image(
    cluster: Cluster, new_server: Callable[[], int]
) -> None:
    """As the kubelet's words go that runs here; a registry that is not there is neither."""
    server = new_server()
    cluster.create(server, game="teeworlds", start=False)

    def says(repository: str, reason: str) -> None:
        cluster.by_hand(server, "--set", f"image.repository={repository},image.tag=none,replicas=1")
        wanted = reason.replace("IMAGE", f"{repository}:none")
        until(lambda: wanted in (cluster.status(server)["reason"] or ""), 60, lambda: str(cluster.status(server)))

    with contextlib.ExitStack() as registries:
        for pid in nodes.running().values():
            network = ["nsenter", f"--net=/proc/{pid}/ns/net", "--"]
            command = [*network, sys.executable, "-c", REGISTRY]
            registry = registries.enter_context(subprocess.Popen(command, stderr=subprocess.DEVNULL))
            registries.callback(registry.kill)
        says("localhost:5999/missing", "The image IMAGE was not found.")
        says("localhost:5999/closed", "The registry refused the image IMAGE.")
        says("localhost:5999/private", "The registry refused the image IMAGE.")
    says("localhost:5998/nowhere", "The image IMAGE cannot be pulled.")


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
