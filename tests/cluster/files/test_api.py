"""A server and its account, both created through the API, and a customer who uses its files."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import asyncssh
import pytest

from tests.cluster.conftest import Cluster
from tests.cluster.files.servers import SERVERS, SFTP, apply, eventually, kubectl, published_host_key

ID = 9_100_010

Call = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture(scope="module")
def call(shared_cluster: Cluster) -> Call:
    """Calls of the API about a server, each sent again for as long as the API asks for that; status and JSON."""

    def send(method: str, path: str, body: Any = None, id: int = ID) -> tuple[int, dict[str, Any]]:
        # A create right after a delete waits for the end of the old game.
        response = shared_cluster.settled(method, f"/api/v1/server/{id}/{path}", body, seconds=180)
        return response.status_code, response.json()

    return send


def connect(port: dict[str, Any], **credentials: Any) -> Any:
    """An asyncssh connection to the address that the API gave."""
    options = {"username": f"server-{ID}", "known_hosts": published_host_key(), "config": None, "agent_path": None}
    return asyncssh.connect(port["host"], port["port"], **{"client_keys": None, **options, **credentials})


@pytest.fixture(scope="module")
def port(call: Call) -> Iterator[dict[str, Any]]:
    """A running server; gives the address of its files."""
    status, _ = call("POST", "", {"ram_gb": 1, "disk_gb": 1, "disk": "reuse"})
    assert status in (200, 201)
    try:
        status, address = call("PATCH", "port/sftp")
        assert status == 200
        eventually(lambda: call("GET", "")[1]["state"] == "running", 120, "the game runs")
        yield address
    finally:
        call("DELETE", "?disk=erase")


def test_a_password_works_within_five_seconds_and_is_shown_once(call: Call, port: dict[str, Any]) -> None:
    """A new password opens the world. It is in no later answer, no log and not in the account's Secret."""
    status, answer = call("PUT", "sftp", {"password": True})
    assert (status, answer["user"]) == (200, f"server-{ID}")
    password = answer["password"]

    async def world() -> list[str]:
        async with connect(port, password=password) as connection, connection.start_sftp_client() as sftp:
            return [str(name) for name in await sftp.listdir("/files")]

    deadline = time.monotonic() + 5
    while True:
        with contextlib.suppress(asyncssh.PermissionDenied):
            assert "world" in asyncio.run(world())
            break
        assert time.monotonic() < deadline
    assert call("GET", "sftp")[1]["password"] is None
    logs = kubectl("logs", "-n", SFTP, "daemonset/sftp", "--all-pods", "--tail=-1")
    assert password not in logs
    assert password not in kubectl("get", "secret", f"server-{ID}", "-n", SFTP, "-o", "yaml")


def test_an_account_of_an_earlier_server_opens_nothing(call: Call, port: dict[str, Any]) -> None:
    """An account with another server's uid does not work, as after an operator's uninstall that left the account."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    assert call("PUT", "sftp", {"public_keys": [key.export_public_key().decode()]})[0] == 200

    def let_in() -> bool:
        async def login() -> None:
            async with connect(port, client_keys=[key]):
                pass

        try:
            asyncio.run(login())
        except asyncssh.PermissionDenied:
            return False
        return True

    def annotate(value: str) -> None:
        kubectl("annotate", "secret", f"server-{ID}", "-n", SFTP, f"gameserver/uid={value}", "--overwrite")

    uid = json.loads(kubectl("get", "secret", f"server-{ID}", "-n", SFTP, "-o", "json"))["metadata"]["annotations"]
    eventually(let_in, 10, "its own account works")
    annotate("another")
    eventually(lambda: not let_in(), 10, "another's does not")
    assert call("GET", "sftp")[1]["public_keys"] == []
    annotate(uid["gameserver/uid"])
    eventually(let_in, 10, "its own works again")


def test_the_fingerprints_are_those_of_the_host(call: Call, port: dict[str, Any]) -> None:
    """The API lists the fingerprint of each type of host key, in the order in which clients should prefer them."""

    async def seen(kind: str) -> str:
        address = (port["host"], port["port"])
        key = await asyncssh.get_server_host_key(*address, config=None, server_host_key_algs=[kind])
        assert key is not None
        return key.get_fingerprint()

    kinds = ("ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-256")
    assert call("GET", "sftp")[1]["host_keys"] == [asyncio.run(seen(kind)) for kind in kinds]


def test_the_port_stays_over_stop_and_start(call: Call, port: dict[str, Any]) -> None:
    """The SFTP port is the same after a stop and a start."""
    for verb in ("stop", "start"):
        call("PATCH", verb)
        assert call("PATCH", "port/sftp")[1] == port


def test_deleting_the_server_ends_its_sessions_and_its_access(call: Call, port: dict[str, Any]) -> None:
    """A delete ends the sessions. A new server over the kept disk starts without credentials."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    assert call("PUT", "sftp", {"public_keys": [key.export_public_key().decode()]})[0] == 200

    async def run() -> None:
        deadline = time.monotonic() + 5
        while True:
            try:
                connection = await connect(port, client_keys=[key])
                break
            except (asyncssh.PermissionDenied, asyncssh.ConnectionLost, ConnectionResetError, BrokenPipeError):
                # The new key is not there yet; or it is, which ended this connection with those of the earlier key.
                assert time.monotonic() < deadline
                await asyncio.sleep(0.1)
        async with connection:
            status, _ = await asyncio.to_thread(call, "DELETE", "")
            assert status == 200
            await asyncio.wait_for(connection.wait_closed(), 10)

    asyncio.run(run())
    assert call("POST", "", {"ram_gb": 1, "disk_gb": 1, "disk": "reuse"})[0] == 201
    status, answer = call("GET", "sftp")
    assert (status, answer["password_set"], answer["public_keys"]) == (200, False, [])


NEVER = 9_100_012


def test_before_the_first_start_there_is_no_port(call: Call) -> None:
    """It answers 409. After the start the files are reachable, even of a stopped server."""
    spec = {"game": "teeworlds", "ram_gb": 1, "disk_gb": 1, "start": False}
    assert call("POST", "", spec, id=NEVER)[0] == 201
    try:
        status, answer = call("PATCH", "port/sftp", id=NEVER)
        assert (status, answer["type"]) == (409, "/problems/disk-not-made")
        call("PATCH", "start", id=NEVER)
        # Until the disk is there, the answer has Retry-After.
        status, account = call("PUT", "sftp", {"password": True}, id=NEVER)
        assert status == 200
        call("PATCH", "stop", id=NEVER)
        status, address = call("PATCH", "port/sftp", id=NEVER)
        assert status == 200

        async def names() -> list[str]:
            options = {"username": f"server-{NEVER}", "password": account["password"]}
            async with connect(address, **options) as connection, connection.start_sftp_client() as sftp:
                return [str(name) for name in await sftp.listdir("/")]

        eventually(lambda: "files" in asyncio.run(names()), 10, "the files are reached")
    finally:
        call("DELETE", "?disk=erase", id=NEVER)


REMOTE, CLASS = 9_100_011, "sftp-test-nfs"


@pytest.fixture
def remote(call: Call) -> Iterator[None]:
    """A kept disk whose volume is on an NFS server."""
    name = f"server-{REMOTE}"
    storage = {"storageClassName": CLASS, "accessModes": ["ReadWriteOnce"]}
    owner = {"meta.helm.sh/release-name": name, "meta.helm.sh/release-namespace": SERVERS}
    labels = {"gameserver/id": str(REMOTE), "app.kubernetes.io/managed-by": "Helm"}
    nfs = {"server": "10.77.0.99", "path": "/export"}
    apply(
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": CLASS},
            "provisioner": "kubernetes.io/no-provisioner",
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name},
            "spec": {**storage, "capacity": {"storage": "1Gi"}, "nfs": nfs},
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": name, "namespace": SERVERS, "labels": labels, "annotations": owner},
            "spec": {**storage, "resources": {"requests": {"storage": "1Gi"}}},
        },
    )
    kubectl("wait", "-n", SERVERS, f"pvc/{name}", "--for=jsonpath={.status.phase}=Bound", "--timeout=30s")
    yield
    call("DELETE", "?disk=erase", id=REMOTE)
    kubectl("delete", f"pv/{name}", f"storageclass/{CLASS}", "--ignore-not-found", "--wait=false")


@pytest.mark.usefixtures("remote")
def test_a_disk_that_is_not_node_local_is_refused_clearly(call: Call) -> None:
    """SFTP calls answer 409 for a disk that is not node-local. The server's other calls work."""
    status, answer = call("POST", "", {"ram_gb": 1, "disk_gb": 1, "disk": "reuse", "start": False}, id=REMOTE)
    assert status == 201, answer
    for method, path, body in (
        ("PATCH", "port/sftp", None),
        ("GET", "sftp", None),
        ("PUT", "sftp", {"password": True}),
    ):
        status, answer = call(method, path, body, id=REMOTE)
        assert (status, answer["type"]) == (409, "/problems/disk-not-node-local")
        assert "folder of one node" in answer["detail"]
    assert call("GET", "", id=REMOTE)[0] == 200
    assert call("PATCH", "port/primary", id=REMOTE)[0] == 200
    assert kubectl("get", "secret", f"server-{REMOTE}", "-n", SFTP, "--ignore-not-found") == ""
