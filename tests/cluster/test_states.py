"""Each state and each reason, produced on the real cluster."""

import contextlib
import json
import re
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

#: A program that uses up to 1.5 GiB of memory. The game's Node loads it from the disk.
EATER = """
const eaten = [];
const timer = setInterval(() => {
  eaten.push(Buffer.alloc(64 << 20, 1));
  if (eaten.length === 24) clearInterval(timer);
}, 20);
timer.unref();
"""


def unscheduled(cluster: Cluster, server: int) -> str:
    """The scheduler's own message about why it finds no node."""
    conditions = cluster.get("pod", f"server-{server}-0")["status"]["conditions"]
    return str(next(condition["message"] for condition in conditions if condition["type"] == "PodScheduled"))


def everywhere(cluster: Cluster, server: int, status: dict[str, Any]) -> None:
    """Check that the list of every replica agrees with this answer to a GET. (The use of the disk moves.)"""

    def listed() -> dict[str, Any]:
        page = cluster.done("GET", f"/api/v1/server/?limit=1&continue={server - 1}")
        entry = next(entry for entry in page["servers"] if entry["id"] == server)
        return {key: value for key, value in entry.items() if key != "disk"}

    expected = {key: value for key, value in status.items() if key not in ("success", "disk")}
    until(lambda: all(listed() == expected for _ in range(4)), 10, lambda: f"{listed()}, not {expected}")


def counted(cluster: Cluster, status: dict[str, Any]) -> None:
    """Check that the metrics of each replica count a server with this game and state."""
    series = f'gameserver_servers{{game="{status["game"]}",state="{status["state"]}"}}'
    for pod in pods(cluster):
        address = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}:9090/proxy/metrics"
        until(lambda: series in cluster.run("kubectl", "get", "--raw", address), 10, f"{pod} shows no {series}")  # noqa: B023


def test_a_server_goes_through_the_states_in_their_order(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """The states come in the order creating, starting, running, stopping, stopped, and `since` is a time."""
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


def test_out_of_memory_names_the_limit_and_a_resize_repairs_it(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """A game that needs more than its limit fails, the reason names the limit, and with more memory it runs."""
    server = new_server()
    cluster.create(server)
    cluster.until_state(server, "running")
    pod = f"server-{server}-0"
    cluster.run(
        "kubectl", "-n", SERVERS_NAMESPACE, "exec", "-i", pod, "--", "sh", "-c", "cat > /data/eat.js", stdin=EATER
    )
    extra = json.dumps([{"name": "NODE_OPTIONS", "value": "--require /data/eat.js"}])
    cluster.helm_upgrade(server, "--set-json", f"extraEnv={extra}")
    failed = cluster.until_state(server, "failed", seconds=120)
    assert "out of memory" in failed["reason"]
    assert "1 GiB" in failed["reason"]
    answer = cluster.done("PATCH", f"/api/v1/server/{server}/", {"ram_gb": 3})
    assert answer["success"] is True
    running = cluster.until_state(server, "running", seconds=120)
    assert running["ram_gb"] == 3


def test_unschedulable_names_the_resource_and_a_resize_repairs_it(
    cluster: Cluster, new_server: Callable[[], int]
) -> None:
    """The reason of a server larger than every node names the memory, and a smaller one runs."""
    server = new_server()
    cluster.create(server, ram_gb=64)
    failed = cluster.until_state(server, "failed")
    assert "64 GiB of memory" in failed["reason"]
    assert failed["wanted"] == "running"
    cluster.done("PATCH", f"/api/v1/server/{server}/", {"ram_gb": 1})
    cluster.until_state(server, "running", seconds=120)


def test_a_missing_image_is_named(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """The reason names the missing image, and with the right tag the server runs."""
    server = new_server()
    cluster.create(server)
    tag = json.loads(cluster.run("helm", "-n", SERVERS_NAMESPACE, "get", "values", f"server-{server}", "-o", "json"))[
        "image"
    ]["tag"]
    cluster.helm_upgrade(server, "--set", "image.tag=no-such-tag")
    failed = cluster.until_state(server, "failed")
    assert "localhost/minecraft:no-such-tag" in failed["reason"]
    cluster.helm_upgrade(server, "--set", f"image.tag={tag}")
    cluster.until_state(server, "running", seconds=120)


def test_a_node_that_cannot_prepare_the_pod_is_named(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """With a runtime class whose runtime no node has, Kubernetes says so in an event alone."""
    server = new_server()
    name = f"no-such-runtime-{server}"
    runtime = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": name}, "handler": "nothing"}
    cluster.run("kubectl", "apply", "-f", "-", stdin=json.dumps(runtime))
    try:
        cluster.create(server, start=False)
        cluster.helm_upgrade(server, "--set", f"replicas=1,runtimeClassName={name}")
        failed = cluster.until_state(server, "failed")
        assert failed["reason"].startswith("The node cannot prepare the server's pod: ")
        assert '"nothing"' in failed["reason"]
        everywhere(cluster, server, failed)
        cluster.helm_upgrade(server, "--set", "runtimeClassName=")
        cluster.until_state(server, "running", seconds=120)
    finally:
        cluster.run("kubectl", "delete", "runtimeclass", name, "--ignore-not-found")


def test_a_crash_loop_shows_the_games_last_lines(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """A game that ends at once fails, and the reason has its last log lines."""
    server = new_server()
    cluster.create(server, start=False)
    cluster.helm_upgrade(server, "--set", "replicas=1", "--set-string", "environment.EULA=FALSE")
    failed = cluster.until_state(server, "failed")
    until(lambda: "EULA" in (cluster.status(server)["reason"] or ""), 30, lambda: str(failed))


def test_pod_security_that_refuses_a_pod_is_the_reason(
    cluster: Cluster, new_server: Callable[[], int], tmp_path: Path
) -> None:
    """With a broken chart helm says deployed, and the API says why Kubernetes admits no pod."""
    server = new_server()
    cluster.create(server, start=False)
    chart = tmp_path / "gameserver"
    shutil.copytree(ROOT / "charts" / "gameserver", chart)
    helpers = chart / "templates" / "_helpers.tpl"
    helpers.write_text(helpers.read_text().replace("allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true"))
    cluster.helm_upgrade(server, "--set", "replicas=1", chart=chart)
    failed = cluster.until_state(server, "failed")
    assert "security" in failed["reason"].lower()
    assert "allowPrivilegeEscalation" in failed["reason"]


def test_a_disk_that_is_not_bound_is_the_reason(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """With a storage class that does not exist, the reason says that the disk is not bound."""
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
    # For some classes there is no event, only the scheduler's message.
    assert "unbound immediate PersistentVolumeClaims" in unscheduled(cluster, server)
    everywhere(cluster, server, failed)


def counts(reason: str) -> str:
    """The reason without how many pods there are."""
    return re.sub(r"used: count/pods=\d+", "used: count/pods=some", reason)


@pytest.mark.alone  # The quota is for all pods of the namespace, and other tests make some.
def test_a_quota_that_refuses_a_pod_is_the_reason_everywhere(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """The server, the list and the metrics show the failed start, and after a stop it is still the reason."""
    server = new_server()
    cluster.create(server, game="teeworlds", start=False)
    created = cluster.status(server)["since"]
    quota = f"no-more-pods-{server}"
    cluster.run("kubectl", "-n", SERVERS_NAMESPACE, "create", "quota", quota, "--hard=count/pods=0")
    try:
        until(lambda: "used" in cluster.get("quota", quota)["status"], 30)
        cluster.done("PATCH", f"/api/v1/server/{server}/start")
        failed = cluster.until_state(server, "failed")
        assert failed["reason"].startswith(f"A quota refused the server's pod: {quota}, ")
        assert created <= failed["since"]
        everywhere(cluster, server, failed)
        counted(cluster, failed)
        cluster.done("PATCH", f"/api/v1/server/{server}/stop")
        until(lambda: cluster.status(server)["reason"] is not None, 10)
        stopped = cluster.status(server)
        assert stopped["state"] == "stopped"
        # The pods of the tests before may still have ended between the two refusals.
        assert counts(stopped["reason"]) == counts(f"Its last start failed: {failed['reason']}")
        everywhere(cluster, server, stopped)
    finally:
        cluster.run("kubectl", "-n", SERVERS_NAMESPACE, "delete", "quota", quota)
    cluster.done("PATCH", f"/api/v1/server/{server}/start")
    assert cluster.until_state(server, "running")["reason"] is None
    cluster.done("PATCH", f"/api/v1/server/{server}/stop")
    assert cluster.until_state(server, "stopped")["reason"] is None


#: A program in the game's place. It is ready while /data/ready exists, ends with exit code 0 when /data/leave appears,
#: and ends with the code in /data/code at a SIGTERM.
PUPPET = """
trap 'exit $(cat /data/code || echo 0)' TERM
while [ ! -e /data/leave ]; do sleep 0.1; done
rm /data/leave
"""


def test_each_kind_of_end_has_its_reason(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """A failed start, a game that ends by itself, a failed save and a killed stop each have their own reason.

    The reason stays until the next start.
    """
    server, since = new_server(), ""
    cluster.create(server, game="teeworlds", start=False)
    settings = {"command": ["sh", "-c", PUPPET], "probe.command": ["test", "-e", "/data/ready"]}
    numbers = "probe.periodSeconds=1,probe.startupSeconds=5,probe.readinessPeriodSeconds=1"
    more = [f"--set-json={key}={json.dumps(value)}" for key, value in settings.items()]
    cluster.helm_upgrade(server, *more, "--set", f"{numbers},terminationGracePeriodSeconds=3,replicas=1")

    def says(*words: str) -> dict[str, Any]:
        seen: dict[str, Any] = {}

        def shown() -> bool:
            seen.update(cluster.status(server))
            return all(word in (seen["reason"] or "") for word in words)

        until(shown, 60, lambda: f"{words}: {seen}")
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

    # Kubernetes restarts the game at once after its first end, and after a pause after its second.
    tell("touch /data/leave")
    until(lambda: cluster.get("pod", f"server-{server}-0")["status"]["containerStatuses"][0]["restartCount"] == 1, 30)
    cluster.until_state(server, "running")
    tell("touch /data/leave")
    ended = says("The game ended by itself (exit code 0).", "waits longer before each new start")
    assert ended["state"] == "starting"
    everywhere(cluster, server, ended)
    stop(None)

    start()
    tell("echo 1 > /data/code")
    failed = "The game failed as it stopped (exit code 1); its last save may be incomplete."
    stop(failed)
    # A resize of a stopped server is no start, so the reason stays.
    cluster.done("PATCH", f"/api/v1/server/{server}/", {"ram_gb": 2})
    still = cluster.status(server)
    assert (still["reason"], still["since"]) == (failed, since)

    start()
    tell("kill -STOP -1")
    stop("The game had not stopped after 3 s and was killed; unsaved progress is lost.")


@pytest.mark.alone
def test_a_cordoned_node_that_holds_the_disk_is_named(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """The reason names the node and says that it is cordoned. After the uncordon the server runs.

    A tool may have restored the claim with the choice of another node: https://github.com/velero-io/velero/issues/9053
    """
    server = new_server()
    cluster.create(server, game="teeworlds")
    cluster.until_state(server, "running")
    node = cluster.get("pod", f"server-{server}-0")["spec"]["nodeName"]
    restored = ("volume.kubernetes.io/selected-node=node-of-before", "--overwrite")
    cluster.run("kubectl", "-n", SERVERS_NAMESPACE, "annotate", "pvc", f"server-{server}", *restored)
    cluster.run("kubectl", "cordon", node)
    try:
        cluster.done("PATCH", f"/api/v1/server/{server}/restart")
        cluster.until_state(server, "failed")
        reason = f"The node that holds the disk, {node}, cannot take the server: it is cordoned. "
        # Each replica reads the nodes every 5 seconds, at moments of its own.
        until(
            lambda: all(cluster.status(server)["reason"].startswith(reason) for _ in range(8)),
            15,
            lambda: str(cluster.status(server)),
        )
        everywhere(cluster, server, cluster.status(server))
        assert "node(s) were unschedulable" in cluster.status(server)["reason"]
    finally:
        cluster.run("kubectl", "uncordon", node)
    cluster.until_state(server, "running", seconds=60)


#: A registry without images. Its answer depends on the repository's name.
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
def test_a_registry_that_refuses_differs_from_a_missing_image(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """The reasons differ for a missing image, a registry that refuses, and a registry that is not there."""
    server = new_server()
    cluster.create(server, game="teeworlds", start=False)

    def says(repository: str, reason: str) -> None:
        cluster.helm_upgrade(server, "--set", f"image.repository={repository},image.tag=none,replicas=1")
        expected = reason.replace("IMAGE", f"{repository}:none")
        until(lambda: expected in (cluster.status(server)["reason"] or ""), 60, lambda: str(cluster.status(server)))

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


@pytest.mark.alone  # The quota is for all pods of the namespace, and other tests make some.
def test_a_failed_install_is_the_reason_and_the_same_create_repairs_it(
    cluster: Cluster, new_server: Callable[[], int]
) -> None:
    """A quota makes an install fail half way. Once the quota is gone, the same create succeeds."""
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
