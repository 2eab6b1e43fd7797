"""A disk that a person restored is taken up by `"disk": "reuse"`, or refused with what to do.

It follows "A disk restored by hand or by Velero" in docs/operations.md.
"""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.cluster.conftest import SERVERS_NAMESPACE, Cluster
from tests.cluster.test_runbook import follow, goes_on
from tests.support.waiting import until

SECTION = "A disk restored by hand or by Velero"
SIZES = {"ram_gb": 1, "disk_gb": 1}


def volumes(cluster: Cluster, server: int) -> list[dict[str, Any]]:
    """The volumes that say that they belong to the server's claim."""
    found = json.loads(cluster.run("kubectl", "get", "pv", "-o", "json"))["items"]
    return [one for one in found if (one["spec"].get("claimRef") or {}).get("name") == f"server-{server}"]


def reclaim(cluster: Cluster, server: int, policy: str) -> None:
    """Say whether the server's volume outlives its claim."""
    for volume in volumes(cluster, server):
        patch = json.dumps({"spec": {"persistentVolumeReclaimPolicy": policy}})
        cluster.run("kubectl", "patch", "pv", volume["metadata"]["name"], "--type=merge", "-p", patch)


def claims(cluster: Cluster, server: int) -> list[dict[str, Any]]:
    """The server's claim, if there is one."""
    items: list[dict[str, Any]] = cluster.get("pvc", "--field-selector", f"metadata.name=server-{server}")["items"]
    return items


def problem(cluster: Cluster, server: int, **more: object) -> dict[str, Any]:
    """The problem of a create. It is none that waiting solves."""
    answer = cluster.call("POST", f"/api/v1/server/{server}/", {**SIZES, **more})
    assert answer.status_code == 409, answer.text
    assert "Retry-After" not in answer.headers
    problem: dict[str, Any] = answer.json()
    return problem


@pytest.fixture
def outlived(cluster: Cluster, new_server: Callable[[], int]) -> Iterator[int]:
    """The id of a server that is gone with its claim. Its volume is there, with a mark on it."""
    server = new_server()
    path = f"/api/v1/server/{server}/"
    cluster.create(server)
    cluster.until_state(server, "running")
    exec_ = ("kubectl", "-n", SERVERS_NAMESPACE, "exec", f"server-{server}-0", "--")
    cluster.run(*exec_, "sh", "-c", "echo mine > /data/mark && sync /data/mark")
    reclaim(cluster, server, "Retain")
    try:
        cluster.done("DELETE", f"{path}?disk=erase")
        until(lambda: cluster.call("GET", path).status_code == 404, 60)
        until(lambda: claims(cluster, server) == [], 60)
        until(lambda: [one["status"]["phase"] for one in volumes(cluster, server)] == ["Released"], 30)
        yield server
    finally:
        # The fixture `cluster` erases the server, and its volume with it.
        reclaim(cluster, server, "Delete")


def test_a_volume_that_outlived_its_claim_is_used_again(cluster: Cluster, outlived: int) -> None:
    """After the runbook's commands the world is there, and the disk is one as any other."""
    server, name = outlived, f"server-{outlived}"
    follow(cluster, server, SECTION)
    assert server not in [disk["id"] for disk in cluster.done("GET", "/api/v1/disk/")["disks"]]
    assert problem(cluster, server)["type"] == "/problems/disk-kept"
    erased = problem(cluster, server, disk="erase")
    assert erased["type"] == "/problems/disk-not-usable"
    assert f"kubectl -n {SERVERS_NAMESPACE} delete pvc {name}" in erased["detail"]

    assert json.loads(follow(cluster, server, SECTION, 1).splitlines()[-1]) == {"success": True}
    cluster.until_state(server, "running")
    kubectl = ("kubectl", "-n", SERVERS_NAMESPACE)
    assert cluster.run(*kubectl, "exec", f"{name}-0", "--", "cat", "/data/mark") == "mine\n"
    goes_on(cluster, server)
    # The person who restored the claim no longer owns its size.
    claim = cluster.get("pvc", name)
    storage_class = json.loads(
        cluster.run("kubectl", "get", "storageclass", claim["spec"]["storageClassName"], "-o", "json")
    )
    answer = cluster.settled("PATCH", f"/api/v1/server/{server}/", {"disk_gb": 2})
    if storage_class.get("allowVolumeExpansion"):
        assert answer.status_code == 200, answer.text
        assert cluster.get("pvc", name)["spec"]["resources"]["requests"] == {"storage": "2Gi"}
    else:
        assert answer.json()["type"] == "/problems/disk-cannot-grow"
    cluster.done("DELETE", f"/api/v1/server/{server}/")
    until(lambda: server in [disk["id"] for disk in cluster.done("GET", "/api/v1/disk/")["disks"]], 30)


def test_a_claim_whose_volume_belongs_to_an_earlier_one_is_refused_with_the_command(
    cluster: Cluster, outlived: int
) -> None:
    """Such a claim waits for ever. After the command in the answer the same create succeeds."""
    server, name = outlived, f"server-{outlived}"
    [volume] = volumes(cluster, server)
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": SERVERS_NAMESPACE},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": volume["spec"]["storageClassName"],
            "volumeName": volume["metadata"]["name"],
            "resources": {"requests": {"storage": "1000Mi"}},
        },
    }
    cluster.run("kubectl", "apply", "-f", "-", stdin=json.dumps(claim))
    refused = problem(cluster, server, disk="reuse")
    assert refused["type"] == "/problems/disk-not-usable"
    command = re.search(r"`(kubectl patch pv .*)`", refused["detail"])
    assert command
    subprocess.run(["bash", "-c", command[1]], check=True, capture_output=True, timeout=30)
    until(lambda: cluster.get("pvc", name)["status"]["phase"] == "Bound", 60)
    cluster.create(server, disk="reuse")
    cluster.until_state(server, "running")
    # The size that the person wrote is the same as the server's, so it stays.
    assert cluster.get("pvc", name)["spec"]["resources"]["requests"] == {"storage": "1000Mi"}
    goes_on(cluster, server)


def test_a_claim_that_no_game_could_write_to_is_refused(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """And so is one whose volume does not exist. Neither becomes the API's."""
    server = new_server()
    name = f"server-{server}"
    for spec, word in (
        ({"accessModes": ["ReadOnlyMany"], "storageClassName": ""}, "ReadOnlyMany"),
        ({"accessModes": ["ReadWriteOnce"], "storageClassName": "", "volumeName": "gone"}, "does not exist"),
    ):
        claim = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": name, "namespace": SERVERS_NAMESPACE},
            "spec": {**spec, "resources": {"requests": {"storage": "1Gi"}}},
        }
        cluster.run("kubectl", "apply", "-f", "-", stdin=json.dumps(claim))
        try:
            # A claim whose volume does not exist becomes Lost after a moment; either way there is none.
            until(lambda: "status" in cluster.get("pvc", name), 10)
            refused = problem(cluster, server, disk="reuse")
            assert refused["type"] == "/problems/disk-not-usable"
            assert word in refused["detail"] or "no longer exists" in refused["detail"]
            assert "labels" not in cluster.get("pvc", name)["metadata"]
        finally:
            cluster.run("kubectl", "-n", SERVERS_NAMESPACE, "delete", "pvc", name, "--wait=true")
