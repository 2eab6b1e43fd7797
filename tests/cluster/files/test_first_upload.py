"""Files before the first start: the first password of a server that never ran makes its disk, where the game fits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import asyncssh
import pytest

from local.paths import ROOT
from tests.cluster.conftest import SERVERS_NAMESPACE, Cluster
from tests.cluster.files.servers import apply, eventually, get, kubectl, published_host_key

LOCAL = ("rancher.io/local-path", "disk-driver.gameserver")
CHART = str(ROOT / "charts" / "gameserver")


def jobs(server: int) -> list[dict[str, Any]]:
    """The Job that makes the server's disk, and its pods."""
    name = f"server-{server}-disk"
    found = [*get("jobs", "-n", SERVERS_NAMESPACE)["items"], *get("pods", "-n", SERVERS_NAMESPACE)["items"]]
    return [item for item in found if item["metadata"]["name"].startswith(name)]


def create_on(cluster: Cluster, server: int, storage_class: str) -> None:
    """Create a stopped server on a storage class. The API has no field for it, so an operator installs it again."""
    path = f"/api/v1/server/{server}/"
    helm = ("helm", "-n", SERVERS_NAMESPACE)
    cluster.create(server, start=False)
    values = json.loads(cluster.run(*helm, "get", "values", f"server-{server}", "-o", "json"))
    cluster.done("DELETE", f"{path}?disk=erase")
    kubectl("wait", "-n", SERVERS_NAMESPACE, f"pvc/server-{server}", "--for=delete", "--timeout=60s")
    values |= {"storage": {**values.get("storage", {}), "className": storage_class}}
    cluster.run(*helm, "install", f"server-{server}", CHART, "-f", "-", stdin=json.dumps(values))


def of_provisioners() -> list[str]:
    """The storage classes whose disks SFTP reaches, one of each provisioner."""
    by_provisioner = {one["provisioner"]: one["metadata"]["name"] for one in get("storageclasses")["items"]}
    return [name for provisioner, name in by_provisioner.items() if provisioner in LOCAL]


def connect(cluster: Cluster, server: int, password: str) -> Any:
    """An asyncssh connection to the server's files."""
    port = cluster.done("PATCH", f"/api/v1/server/{server}/port/sftp")
    return asyncssh.connect(
        port["host"],
        port["port"],
        username=f"server-{server}",
        password=password,
        client_keys=None,
        known_hosts=published_host_key(),
        config=None,
        agent_path=None,
    )


def upload(cluster: Cluster, server: int, password: str, text: str) -> None:
    """Write `text` to the file `mark` over SFTP."""

    async def run() -> None:
        async with (
            connect(cluster, server, password) as connection,
            connection.start_sftp_client() as sftp,
            sftp.open("/files/mark", "w") as file,
        ):
            await file.write(text)

    asyncio.run(run())


def test_files_are_uploaded_before_the_first_start(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """On each kind of storage: the disk is made, the customer's file is there when the game starts, no pod stays."""
    classes = of_provisioners()
    assert classes
    for storage_class in classes:
        server = new_server()
        path = f"/api/v1/server/{server}"
        create_on(cluster, server, storage_class)
        early = cluster.call("PATCH", f"{path}/port/sftp")
        assert (early.status_code, early.json()["type"]) == (409, "/problems/disk-not-made")

        password = cluster.done("PUT", f"{path}/sftp", {"password": True})["password"]
        assert cluster.status(server)["state"] == "stopped"
        claim = cluster.get("pvc", f"server-{server}")
        assert (claim["status"]["phase"], claim["spec"]["storageClassName"]) == ("Bound", storage_class)

        def written(server: int = server, password: str = password) -> bool:
            upload(cluster, server, password, "mine\n")
            return True

        eventually(written, 20, "the customer uploads a file")
        # Kubernetes deletes the Job, without any further call.
        eventually(lambda server=server: jobs(server) == [], 90, "nothing of the Job stays")  # type: ignore[misc]

        cluster.done("PATCH", f"{path}/start")
        cluster.until_state(server, "running", seconds=180)
        exec_ = ("exec", "-n", SERVERS_NAMESPACE, f"server-{server}-0", "--", "sh", "-c")
        assert kubectl(*exec_, "cat /data/mark && echo more >> /data/mark && touch /data/new") == "mine\n"


def test_two_calls_at_once_make_one_disk(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """Both succeed. The server can start at the same moment."""
    server = new_server()
    path = f"/api/v1/server/{server}"
    cluster.create(server, start=False)
    with ThreadPoolExecutor(3) as at_once:
        puts = [at_once.submit(cluster.done, "PUT", f"{path}/sftp", {"password": True}) for _ in range(2)]
        start = at_once.submit(cluster.done, "PATCH", f"{path}/start")
        assert start.result()["success"]
        assert all(put.result()["password_set"] for put in puts)
    cluster.until_state(server, "running", seconds=180)
    eventually(lambda: jobs(server) == [], 90, "nothing of the Job stays")


def test_a_server_for_which_no_node_has_room_is_told_so(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """The answer comes within seconds with the reason. A delete takes the waiting Job with it."""
    server = new_server()
    path = f"/api/v1/server/{server}"
    cluster.create(server, ram_gb=64, start=False)
    answer = cluster.call("PUT", f"{path}/sftp", {"password": True})
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/disk-not-ready")
    # Beside other tests the nodes may have no cpu free either, and the sentence then names that too.
    assert "No node has 64 GiB of memory" in answer.json()["detail"]
    assert "Retry-After" in answer.headers
    assert answer.elapsed.total_seconds() < 10
    assert jobs(server) != []
    assert cluster.status(server)["state"] == "stopped"
    cluster.done("DELETE", f"{path}/")
    eventually(lambda: jobs(server) == [], 60, "nothing of the Job stays")
    # The disk was never made, so it is not kept.
    assert server not in [disk["id"] for disk in cluster.done("GET", "/api/v1/disk/")["disks"]]


@pytest.fixture
def attached() -> Iterator[str]:
    """A storage class of another CSI driver, which does not run."""
    name = "sftp-test-attached"
    apply(
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "CSIDriver",
            "metadata": {"name": "attached.example.com"},
            "spec": {"attachRequired": False},
        },
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": name},
            "provisioner": "attached.example.com",
            "volumeBindingMode": "WaitForFirstConsumer",
        },
    )
    yield name
    kubectl("delete", f"storageclass/{name}", "csidriver/attached.example.com", "--ignore-not-found")


def test_another_drivers_disk_is_refused_before_a_pod_runs(
    cluster: Cluster, new_server: Callable[[], int], attached: str
) -> None:
    """SFTP could not reach it."""
    server = new_server()
    create_on(cluster, server, attached)
    answer = cluster.call("PUT", f"/api/v1/server/{server}/sftp", {"password": True})
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/disk-not-node-local")
    assert jobs(server) == []
