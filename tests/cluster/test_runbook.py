"""docs/operations.md, "Repair a single server": its commands are run as they are written there, with the id replaced.

After each of them the API works with that server, and an operator's changes survive a start and a stop through the API.
"""

import json
import re
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

from local.paths import ROOT
from tests.cluster import world
from tests.cluster.conftest import SERVERS_NAMESPACE, Cluster
from tests.support.waiting import until

_HEADING = "## Repair a single server"
#: The sections with commands, and how many blocks each has. Each section has a test below, or in
#: tests/cluster/disks/test_restored_claims.py.
SECTIONS = {
    "Show the desired and the actual state": 1,
    "Change a value": 1,
    "Go back a revision": 2,
    "Remove a server and keep its disk": 2,
    "Replace the RCON password": 1,
    "A release left in pending-upgrade": 1,
    "A lost release over a kept disk": 2,
    "A disk restored by hand or by Velero": 2,
    "Another tool manages a field": 1,
}


def runbook() -> dict[str, list[str]]:
    """The blocks of commands in that chapter, by section."""
    text = (ROOT / "docs" / "operations.md").read_text().split(_HEADING)[1]
    sections = {part.split("\n", 1)[0].strip(): part for part in re.split(r"^### ", text, flags=re.MULTILINE)[1:]}
    blocks = {
        title: re.findall(r"^```\n(.*?)^```$", part, re.MULTILINE | re.DOTALL) for title, part in sections.items()
    }
    return {title: commands for title, commands in blocks.items() if commands}


def follow(cluster: Cluster, server: int, section: str, block: int = 0, disk: int = 20) -> str:
    """Run a block from the repository's root, as an operator does, with a disk of `disk` GiB; return what it prints."""
    script = runbook()[section][block].replace("4711", str(server)).replace("diskGb=20", f"diskGb={disk}")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def values(cluster: Cluster, server: int) -> dict[str, Any]:
    """The values of a server's release."""
    shown: dict[str, Any] = json.loads(
        cluster.run("helm", "-n", SERVERS_NAMESPACE, "get", "values", f"server-{server}", "-o", "json")
    )
    return shown


def goes_on(cluster: Cluster, server: int) -> None:
    """Check that the API can start and stop the server, and that it changes no other value."""
    path = f"/api/v1/server/{server}"
    before = values(cluster, server)
    cluster.done("PATCH", f"{path}/start")
    assert cluster.get("statefulset", f"server-{server}")["spec"]["replicas"] == 1
    assert cluster.status(server)["wanted"] == "running"
    cluster.done("PATCH", f"{path}/stop")
    assert cluster.get("statefulset", f"server-{server}")["spec"]["replicas"] == 0
    assert values(cluster, server) == {**before, "replicas": 0}
    assert cluster.status(server)["wanted"] == "stopped"


def test_every_section_with_commands_is_tested() -> None:
    """Each section of the runbook with commands has a test here."""
    assert {title: len(blocks) for title, blocks in runbook().items()} == SECTIONS


def test_looking_shows_the_server(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """The commands show the server's values, revisions and objects."""
    server = new_server()
    cluster.create(server, start=False)
    seen = follow(cluster, server, "Show the desired and the actual state")
    assert all(word in seen for word in ("ramGb: 1", "Install complete", f"server-{server}"))


def test_a_value_is_changed_and_stays(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """The API shows the new value at once, the game runs with it, and later calls keep what the operator set."""
    server = new_server()
    cluster.create(server)
    follow(cluster, server, "Change a value")
    assert cluster.status(server)["ram_gb"] == 4
    cluster.helm_upgrade(server, "--set-string", "environment.MOTD=by hand", "--set", "podAnnotations.hand=yes")
    goes_on(cluster, server)
    cluster.done("PATCH", f"/api/v1/server/{server}/", {"ram_gb": 2})
    cluster.done("PATCH", f"/api/v1/server/{server}/start")
    cluster.until_state(server, "running")
    pod = cluster.get("pod", f"server-{server}-0")
    assert pod["metadata"]["annotations"]["hand"] == "yes"
    game = pod["spec"]["containers"][0]
    assert game["resources"]["limits"]["memory"] == "2Gi"
    assert {"name": "MOTD", "value": "by hand"} in game["env"]


def test_a_rollback_is_gone_on_from(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """After the rollback the server has the values of the previous revision."""
    server = new_server()
    cluster.create(server, start=False)
    cluster.helm_upgrade(server, "--set-string", "environment.MOTD=first")
    cluster.helm_upgrade(server, "--set-string", "environment.MOTD=second", "--set", "ramGb=3")
    follow(cluster, server, "Go back a revision")
    assert cluster.status(server)["ram_gb"] == 1
    follow(cluster, server, "Go back a revision", 1, disk=1)
    assert values(cluster, server)["environment"]["MOTD"] == "first"
    goes_on(cluster, server)


def test_an_uninstall_keeps_the_disk_for_helm_and_for_the_api(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """The API lists the kept disk and reuses it on request. Helm can use it again with the saved values."""
    server = new_server()
    path = f"/api/v1/server/{server}/"
    cluster.create(server)
    # A disk is kept only if it has been used.
    until(lambda: cluster.get("pvc", f"server-{server}")["status"]["phase"] == "Bound", 60)
    cluster.helm_upgrade(server, "--set-string", "environment.MOTD=by hand", "--set", "replicas=0")
    claim = cluster.get("pvc", f"server-{server}")["metadata"]["uid"]
    saved = ROOT / f"server-{server}.yaml"
    try:
        follow(cluster, server, "Remove a server and keep its disk")
        # The API shows the server until its game has ended.
        until(lambda: cluster.call("GET", path).status_code == 404, 60)
        assert server in [disk["id"] for disk in cluster.done("GET", "/api/v1/disk/")["disks"]]
        answer = cluster.call("POST", path, {"ram_gb": 1, "disk_gb": 1, "start": False})
        assert answer.json()["type"] == "/problems/disk-kept"

        follow(cluster, server, "Remove a server and keep its disk", 1)
        assert values(cluster, server)["environment"]["MOTD"] == "by hand"
        goes_on(cluster, server)

        follow(cluster, server, "Remove a server and keep its disk")
        cluster.create(server, disk="reuse", start=False)
        goes_on(cluster, server)
        assert cluster.get("pvc", f"server-{server}")["metadata"]["uid"] == claim
    finally:
        saved.unlink(missing_ok=True)


def test_an_rcon_password_is_replaced(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """The game gets the new password, and the API does not give out one that the game cannot know yet."""
    server = new_server()
    cluster.create(server)
    cluster.until_state(server, "running")
    before = cluster.done("GET", f"/api/v1/server/{server}/rcon")["password"]
    cluster.run("kubectl", "-n", SERVERS_NAMESPACE, "delete", "secret", f"server-{server}-rcon")
    cluster.helm_upgrade(server, "--set", "keepPodInRevision=2")
    answer = cluster.call("GET", f"/api/v1/server/{server}/rcon")
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/rcon-password-replaced")
    follow(cluster, server, "Replace the RCON password")
    cluster.until_state(server, "running")
    assert cluster.done("GET", f"/api/v1/server/{server}/rcon")["password"] != before
    assert "players online" in world.console(cluster, server, "list")


def killed_upgrade(cluster: Cluster, server: int, *settings: str) -> None:
    """Kill an operator's `helm upgrade` while it waits, which leaves the release in pending-upgrade."""
    release = f"server-{server}"
    command = [str(ROOT / ".local/bin/helm"), "-n", SERVERS_NAMESPACE, "upgrade", release]
    command += [str(ROOT / "charts" / "gameserver"), "--reuse-values", "--wait", *settings]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as helm:
        pending = ("secrets", "-l", f"owner=helm,name={release},status=pending-upgrade")
        # helm applies the objects before it waits.
        try:
            until(lambda: len(cluster.get(*pending)["items"]) == 1, 30)
            until(lambda: cluster.get("statefulset", release)["spec"]["replicas"] == 1, 30)
        finally:
            helm.kill()
    assert len(cluster.get(*pending)["items"]) == 1


def test_a_release_left_pending_is_rolled_back(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """The API answers 409 with Retry-After until the rollback, which keeps what the operator had set before."""
    server = new_server()
    cluster.create(server, start=False)
    cluster.helm_upgrade(server, "--set-string", "environment.MOTD=by hand")
    # Larger than every node, so that it waits for ever.
    killed_upgrade(cluster, server, "--set", "replicas=1", "--set", "ramGb=64")
    answer = cluster.call("PATCH", f"/api/v1/server/{server}/start")
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/operation-in-progress")
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert "pending-upgrade" in follow(cluster, server, "A release left in pending-upgrade")
    current = values(cluster, server)
    assert (current["ramGb"], current["environment"]["MOTD"]) == (1, "by hand")
    goes_on(cluster, server)


@pytest.mark.long
def test_a_release_left_pending_is_recovered_by_the_api_after_a_minute(
    cluster: Cluster, new_server: Callable[[], int]
) -> None:
    """After the time in Retry-After the same call succeeds, with the values of the operator's upgrade."""
    server = new_server()
    cluster.create(server, start=False)
    killed_upgrade(cluster, server, "--set", "replicas=1", "--set", "ramGb=64")
    answer = cluster.call("PATCH", f"/api/v1/server/{server}/stop")
    assert answer.status_code == 409
    time.sleep(int(answer.headers["Retry-After"]) + 1)
    assert cluster.call("PATCH", f"/api/v1/server/{server}/stop").status_code == 200
    assert values(cluster, server)["ramGb"] == 64
    goes_on(cluster, server)


def test_a_lost_release_is_made_again_over_its_disk(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """The API answers 409 for a server without its release. After the commands the game runs on the same disk."""
    server = new_server()
    path = f"/api/v1/server/{server}/"
    cluster.create(server)
    cluster.until_state(server, "running")
    kubectl = ("kubectl", "-n", SERVERS_NAMESPACE)
    cluster.run(*kubectl, "exec", f"server-{server}-0", "--", "sh", "-c", "echo mine > /data/mark")
    cluster.run(*kubectl, "delete", "secret", "-l", f"owner=helm,name=server-{server}")
    for answer in (cluster.call("PATCH", f"{path}stop"), cluster.call("POST", path, {"ram_gb": 1, "disk_gb": 1})):
        assert (answer.status_code, answer.json()["type"]) == (409, "/problems/release-missing")

    record = json.loads(follow(cluster, server, "A lost release over a kept disk"))
    assert (record["game"], record["ram_gb"], record["disk_gb"]) == ("minecraft", 1, 1)
    assert json.loads(follow(cluster, server, "A lost release over a kept disk", 1).splitlines()[-1]) == {
        "success": True
    }
    cluster.until_state(server, "running")
    assert cluster.run(*kubectl, "exec", f"server-{server}-0", "--", "cat", "/data/mark") == "mine\n"
    goes_on(cluster, server)


def test_a_field_taken_by_another_tool_is_given_back(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """After a `kubectl scale` the API answers 409 for the field, and after the command it works again.

    A stop takes it back.
    """
    server = new_server()
    cluster.create(server, start=False)
    cluster.helm_upgrade(server, "--set-string", "environment.MOTD=by hand")
    cluster.run("kubectl", "-n", SERVERS_NAMESPACE, "scale", "statefulset", f"server-{server}", "--replicas=2")
    answer = cluster.call("PATCH", f"/api/v1/server/{server}/start")
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/field-conflict")
    follow(cluster, server, "Another tool manages a field")
    assert cluster.get("statefulset", f"server-{server}")["spec"]["replicas"] == 0
    # A stop that changes nothing for Helm notices it too.
    cluster.run("kubectl", "-n", SERVERS_NAMESPACE, "scale", "statefulset", f"server-{server}", "--replicas=1")
    cluster.done("PATCH", f"/api/v1/server/{server}/stop")
    assert cluster.get("statefulset", f"server-{server}")["spec"]["replicas"] == 0
    goes_on(cluster, server)
    assert values(cluster, server)["environment"]["MOTD"] == "by hand"
