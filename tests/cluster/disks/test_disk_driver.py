"""Disks of the disk driver: hard limits, growth under a player, snapshots, clones, and erases that leave nothing."""

from __future__ import annotations

import asyncio
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import asyncssh
import pytest

from local import nodes
from local.paths import ROOT
from tests.cluster import commands, pool, world
from tests.cluster.conftest import SERVERS_NAMESPACE, Cluster
from tests.cluster.test_upgrade import in_game, untouched
from tests.support.waiting import until

GIB = 1 << 30
#: Fills a disk of 1 GiB to its last block, with two files. dd ends with an error when the disk is full.
FILL = (
    "dd if=/dev/zero of=/data/fill bs=1M count=700 2>/dev/null; dd if=/dev/zero of=/data/rest bs=4k 2>/dev/null; sync;"
    " ! dd if=/dev/zero of=/data/more bs=64k count=1 2>/dev/null"
)
SAVED = "dd if=/dev/urandom of=/data/saved bs=1M count=16 2>/dev/null; sync; sha256sum < /data/saved"


@pytest.fixture
def on_node(cluster: Cluster, new_server: Callable[[], int]) -> Callable[[str], int]:
    """A function that creates a server on a node, and waits until it runs."""

    def create(node: str) -> int:
        server = new_server()
        cluster.create(server, start=False)
        cluster.helm_upgrade(server, "--set", rf"nodeSelector.kubernetes\.io/hostname={node}")
        cluster.done("PATCH", f"/api/v1/server/{server}/start")
        cluster.until_state(server, "running")
        return server

    return create


@pytest.fixture
def objects(cluster: Cluster) -> Iterator[Callable[..., None]]:
    """A function that applies manifests to the servers' namespace. They are deleted after the test."""
    applied: list[str] = []

    def apply(*manifests: dict[str, Any]) -> None:
        for manifest in manifests:
            cluster.run("kubectl", "-n", SERVERS_NAMESPACE, "apply", "-f", "-", stdin=json.dumps(manifest))
            applied.append(f"{manifest['kind']}/{manifest['metadata']['name']}")

    yield apply
    for name in reversed(applied):
        cluster.run("kubectl", "-n", SERVERS_NAMESPACE, "delete", name, "--ignore-not-found", "--wait=true")


def snapshot(name: str, claim: str) -> dict[str, Any]:
    """A snapshot of a claim."""
    return {
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshot",
        "metadata": {"name": name},
        "spec": {"volumeSnapshotClassName": pool.CLASS, "source": {"persistentVolumeClaimName": claim}},
    }


def claim(name: str, source: dict[str, str] | None = None, size: str = "1Gi") -> dict[str, Any]:
    """A claim of the driver's class, empty or a copy of a source."""
    spec: dict[str, Any] = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": pool.CLASS,
        "resources": {"requests": {"storage": size}},
    }
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": spec | ({"dataSource": source} if source else {}),
    }


def reader(name: str, claim: str, node: str, image: str) -> dict[str, Any]:
    """A pod on a node that sleeps with the claim at /data."""
    security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    container = {
        "name": "reader",
        "image": image,
        "command": ["sleep", "3600"],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        "resources": {"requests": {"cpu": "1m", "memory": "8Mi"}},
        "securityContext": security,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "nodeSelector": {"kubernetes.io/hostname": node},
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsUser": 1000,
                "runAsGroup": 1000,
                "fsGroup": 1000,
                "runAsNonRoot": True,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}],
        },
    }


@contextmanager
def player(cluster: Cluster, server: int) -> Iterator[subprocess.Popen[str]]:
    """A Minecraft client named `player` that has joined, and stays."""
    port = cluster.done("PATCH", f"/api/v1/server/{server}/port/primary")
    command = ["node", str(ROOT / "tests/clients/join.js"), port["host"], str(port["port"]), "player", "--stay", "300"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
        try:
            until(lambda: "player" in world.console(cluster, server, "list"), 30)
            yield client
        finally:
            client.kill()


def image_of(cluster: Cluster, server: int) -> str:
    """The image of a server's game."""
    return str(cluster.get("pod", f"server-{server}-0")["spec"]["containers"][0]["image"])


def in_pod(cluster: Cluster, pod: str, script: str) -> str:
    """Run a script in a pod's container and return what it prints."""
    return cluster.run("kubectl", "-n", SERVERS_NAMESPACE, "exec", pod, "--", "sh", "-c", script)


def wait_for_pod(cluster: Cluster, pod: str) -> None:
    """Wait until a pod is ready."""
    cluster.run("kubectl", "-n", SERVERS_NAMESPACE, "wait", f"pod/{pod}", "--for=condition=Ready", "--timeout=90s")


def driver_seconds(cluster: Cluster, node: str, call: str, id: str) -> float:
    """How long the driver on a node worked on its last call of a kind for a disk or a snapshot, from its log."""
    pod = commands.pod_on(node, pool.NAMESPACE, "disk-driver")
    log = cluster.run("kubectl", "-n", pool.NAMESPACE, "logs", pod, "-c", "driver", "--tail=-1")
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    return float(next(line["seconds"] for line in lines if line.get("call", "").endswith(call) and line["of"] == id))


def test_a_full_disk_harms_no_neighbour_and_grows_under_its_player(
    cluster: Cluster, on_node: Callable[[str], int]
) -> None:
    """Only the game with the full disk notices. Its saved world is whole, its owner can delete files, and growth makes
    room. The pod is the same all the time, and a player stays joined.
    """
    full, neighbour = on_node("node1"), on_node("node1")
    path = f"/api/v1/server/{full}/"
    place = world.mark(cluster, full)
    saved = in_game(cluster, full, SAVED)
    before = untouched(cluster, full)[:3]
    disk, other = pool.disk(cluster, f"server-{full}"), pool.disk(cluster, f"server-{neighbour}")
    left = other.df()[1]

    in_game(cluster, full, FILL)
    size, free = disk.df()
    # A file system keeps a few blocks for itself.
    assert free < 1 << 20
    assert 0.9 * GIB < size <= GIB
    until(lambda: cluster.status(full)["disk"]["used_gb"] >= 0.9, 40)
    until(lambda: "disk" in str(cluster.status(full)["reason"]), 40, lambda: str(cluster.status(full)))
    told = cluster.status(full)["disk"]
    assert told == {"size_gb": 1, "used_gb": told["used_gb"], "as_of": told["as_of"], "enforced": True}
    # The neighbour has its whole disk, and plays on.
    assert abs(other.df()[1] - left) < 32 << 20
    in_game(cluster, neighbour, "dd if=/dev/zero of=/data/own bs=1M count=64 2>/dev/null && sync && rm /data/own")
    assert world.join(cluster, neighbour)["joined"] is True
    assert cluster.status(neighbour)["reason"] is None
    # The owner can delete.
    in_game(cluster, full, "rm /data/rest && echo room > /data/room && rm /data/room")

    with player(cluster, full) as joined:
        assert cluster.done("PATCH", path, {"disk_gb": 2}) == {"success": True, "restarting": False}
        # The kubelet looks after each pod about once a minute.
        until(lambda: _is_grown(disk), 120, lambda: f"{disk.df()}")
        assert joined.poll() is None
        assert "player" in world.console(cluster, full, "list")
    in_game(cluster, full, "dd if=/dev/zero of=/data/more bs=1M count=500 2>/dev/null && sync")
    assert in_game(cluster, full, "sha256sum < /data/saved") == saved
    assert untouched(cluster, full)[:3] == before
    assert world.block(cluster, full, place) == world.MARK
    until(lambda: cluster.status(full)["reason"] is None, 40, lambda: str(cluster.status(full)))
    assert cluster.status(full)["disk"]["size_gb"] == 2
    cluster.done("PATCH", f"{path}restart")
    cluster.until_state(full, "running")
    assert world.block(cluster, full, place) == world.MARK


def test_the_disk_of_a_stopped_server_grows_at_its_next_start(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """Until then GET says so. The world stays."""
    server = new_server()
    path = f"/api/v1/server/{server}"
    cluster.create(server)
    cluster.until_state(server, "running")
    saved = in_game(cluster, server, SAVED)
    cluster.done("PATCH", f"{path}/stop")
    cluster.until_state(server, "stopped")
    cluster.done("PATCH", f"{path}/", {"disk_gb": 2})
    status = cluster.status(server)
    assert (status["disk_gb"], status["disk"]["size_gb"]) == (2, 1)
    until(lambda: "next start" in str(cluster.status(server)), 30, lambda: str(cluster.status(server)))
    cluster.done("PATCH", f"{path}/start")
    cluster.until_state(server, "running")
    disk = pool.disk(cluster, f"server-{server}")
    until(lambda: _is_grown(disk), 120)
    assert in_game(cluster, server, "sha256sum < /data/saved") == saved
    until(lambda: cluster.status(server)["disk"]["size_gb"] == 2, 30)
    assert "next start" not in str(cluster.status(server))


HOSTILE = r"""
set -e; mkdir -p /data/tree; cd /data/tree
ln -s /etc/passwd link; ln -s / root; ln -s ../../../../../.. up; mkfifo fifo; ln -s loop loop
mkdir -p "$(printf 'odd\nname')" "$(printf '\001\377')" -- "-rf" "; touch x" '$(touch y)'
truncate -s 900M sparse; echo end >> sparse
path=deep; for i in $(seq 150); do mkdir -p $path; path=$path/0123456789abcdef; done; mkdir -p deep
cd /data/tree; for i in $(seq 300); do mkdir level; cd level; done; echo deepest > file
cd /data/tree; for i in $(seq 3000); do : > f$i; done; ln f1 hard; chmod 0 f2; chmod 7777 f3
! mknod device b 7 0 2>/dev/null; ! chattr +i f4 2>/dev/null; sync; true
"""


def test_a_hostile_tree_is_snapshotted_cloned_and_erased_whole(
    cluster: Cluster, on_node: Callable[[str], int], objects: Callable[..., None]
) -> None:
    """Whatever a game makes on its disk stays on it, is in its snapshots and clones, and is gone after an erase."""
    before = pool.contents("node2")
    server = on_node("node2")
    source, image = f"server-{server}", image_of(cluster, server)
    saved = in_game(cluster, server, SAVED)
    in_game(cluster, server, HOSTILE)
    listed = in_game(cluster, server, "find /data/tree | wc -l; find /data/tree | sha256sum")

    objects(snapshot(f"{source}-photo", source))
    until(lambda: cluster.get("volumesnapshot", f"{source}-photo").get("status", {}).get("readyToUse"), 60)
    in_game(cluster, server, "rm -rf /data/tree; rm /data/saved")
    group = "snapshot.storage.k8s.io"
    copy = {"apiGroup": group, "kind": "VolumeSnapshot", "name": f"{source}-photo"}
    clone = {"kind": "PersistentVolumeClaim", "name": source}
    objects(
        claim(f"{source}-restored", copy),
        reader(f"{source}-restored", f"{source}-restored", "node2", image),
        claim(f"{source}-cloned", clone),
        reader(f"{source}-cloned", f"{source}-cloned", "node2", image),
    )
    wait_for_pod(cluster, f"{source}-restored")
    wait_for_pod(cluster, f"{source}-cloned")
    assert in_pod(cluster, f"{source}-restored", "sha256sum < /data/saved") == saved
    script = "find /data/tree | wc -l; find /data/tree | sha256sum"
    assert in_pod(cluster, f"{source}-restored", script) == listed
    assert in_pod(cluster, f"{source}-cloned", "ls /data/tree /data/saved 2>&1 | grep -c 'No such'") == "2\n"

    passwd = commands.on_node("node2", "sha256sum /etc/passwd")
    for name in (f"pod/{source}-restored", f"pod/{source}-cloned"):
        cluster.run("kubectl", "-n", SERVERS_NAMESPACE, "delete", name)
    for name in (f"pvc/{source}-restored", f"pvc/{source}-cloned", f"volumesnapshot/{source}-photo"):
        cluster.run("kubectl", "-n", SERVERS_NAMESPACE, "delete", name)
    cluster.done("DELETE", f"/api/v1/server/{server}/?disk=erase")
    # Other tests use the node too, so only what this test made must be gone.
    until(lambda: not _mine(cluster, pool.contents("node2") - before, source), 90)
    assert commands.on_node("node2", "sha256sum /etc/passwd") == passwd


def patiently(cluster: Cluster, server: int, script: str) -> str:
    """What a script prints in the game's container, tried again while the node's kubelet is starting."""
    output = ""

    def done() -> bool:
        nonlocal output
        output = in_game(cluster, server, script)
        return True

    until(done, 60, not_yet=(AssertionError,))
    return output


def _is_grown(disk: pool.Disk) -> bool:
    """Whether the disk has 2 GiB."""
    return disk.df()[0] > 1.9 * GIB


def _mine(cluster: Cluster, entries: set[str], source: str) -> list[str]:
    """The volumes of this test's claims that Kubernetes still has, and the entries that no volume explains."""
    volumes = json.loads(cluster.run("kubectl", "get", "pv", "-o", "json"))["items"]
    contents = json.loads(cluster.run("kubectl", "get", "volumesnapshotcontents", "-o", "json"))["items"]
    known = {volume["metadata"]["name"] for volume in volumes}
    known |= {str(content.get("status", {}).get("snapshotHandle")) for content in contents}
    mine = [
        volume["metadata"]["name"]
        for volume in volumes
        if (volume["spec"].get("claimRef") or {}).get("name", "").startswith(source)
    ]
    return mine + [entry for entry in entries if entry.split("/")[-1] not in known]


def test_a_snapshot_and_a_clone_of_a_gibibyte_take_less_than_a_second(
    cluster: Cluster, new_server: Callable[[], int], objects: Callable[..., None]
) -> None:
    """1 GiB of random data. The time is the driver's own, from its log."""
    server = new_server()
    cluster.create(server, disk_gb=2)
    cluster.until_state(server, "running")
    source = f"server-{server}"
    disk, image = pool.disk(cluster, source), image_of(cluster, server)
    checksum = "dd if=/dev/urandom of=/data/big bs=1M count=1024 2>/dev/null; sync; sha256sum < /data/big"
    whole = in_game(cluster, server, checksum)
    objects(snapshot(f"{source}-photo", source))
    until(lambda: cluster.get("volumesnapshot", f"{source}-photo").get("status", {}).get("readyToUse"), 60)
    content = cluster.get("volumesnapshot", f"{source}-photo")["status"]["boundVolumeSnapshotContentName"]
    handle = json.loads(cluster.run("kubectl", "get", "volumesnapshotcontent", content, "-o", "json"))["status"]
    assert driver_seconds(cluster, disk.node, "CreateSnapshot", handle["snapshotHandle"]) < 1
    objects(
        claim(f"{source}-cloned", {"kind": "PersistentVolumeClaim", "name": source}, "2Gi"),
        reader(f"{source}-cloned", f"{source}-cloned", disk.node, image),
    )
    wait_for_pod(cluster, f"{source}-cloned")
    clone = pool.disk(cluster, f"{source}-cloned")
    assert clone.node == disk.node
    assert driver_seconds(cluster, disk.node, "CreateVolume", clone.volume) < 1
    assert in_pod(cluster, f"{source}-cloned", "sha256sum < /data/big") == whole


def list_files_until(over: threading.Event, cluster: Cluster, server: int) -> int:
    """Keep one SFTP session of a server, and list its files twice a second. Returns how often; any failure raises."""
    password = cluster.done("PUT", f"/api/v1/server/{server}/sftp", {"password": True})["password"]
    port = cluster.done("PATCH", f"/api/v1/server/{server}/port/sftp")

    async def keep_listing() -> int:
        count = 0
        # A new account works within five seconds.
        await asyncio.sleep(5)
        async with (
            asyncssh.connect(
                port["host"],
                port["port"],
                username=f"server-{server}",
                password=password,
                client_keys=None,
                known_hosts=None,
                config=None,
                agent_path=None,
            ) as connection,
            connection.start_sftp_client() as sftp,
        ):
            while not over.is_set():
                assert await asyncio.wait_for(sftp.listdir("/files"), 20)
                count += 1
                await asyncio.sleep(0.5)
        return count

    return asyncio.run(keep_listing())


def with_new_pods(cluster: Cluster) -> None:
    """Replace the driver's pods, and wait until the new ones run."""
    kubectl = ("kubectl", "-n", pool.NAMESPACE, "rollout")
    cluster.run(*kubectl, "restart", "daemonset/disks")
    cluster.run(*kubectl, "status", "daemonset/disks", "--timeout=120s")


@pytest.mark.alone
def test_kills_while_disks_are_made_grown_and_erased(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """The driver, its sidecars and the kubelets are killed again and again. All servers run in the end, and the erased
    leave nothing. Another server's game and a session over its files notice nothing.
    """
    servers = [new_server() for _ in range(3)]
    names = [node.name for node in (nodes.Node(number) for number in nodes.running())]
    bystander = new_server()
    cluster.create(bystander)
    cluster.until_state(bystander, "running")
    untouched_before = untouched(cluster, bystander)[:3]
    session_over = threading.Event()

    def killing(programs: tuple[str, ...], pause: float, until_done: Callable[[], bool]) -> None:
        round_ = 0
        while not until_done():
            node, program = names[round_ % len(names)], programs[round_ // len(names) % len(programs)]
            pool.kill(node, program)
            round_ += 1
            time.sleep(pause)

    programs = ("disk-driver", "csi-provisioner", "kubelet", "csi-resizer", "csi-snapshotter")
    with ThreadPoolExecutor(len(servers) + 1) as threads, ExitStack() as stack:
        # For containers that were killed so often the kubelet waits up to five minutes. It starts new pods at once.
        stack.callback(with_new_pods, cluster)
        stack.callback(session_over.set)
        session = threads.submit(list_files_until, session_over, cluster, bystander)
        created = [threads.submit(cluster.create, server) for server in servers]
        killing(programs, 1.5, lambda: all(future.done() for future in created))
        for future in created:
            future.result()
        deadline = time.monotonic() + 5
        killing(programs[:1], 1.0, lambda: time.monotonic() > deadline)
        for server in servers:
            cluster.until_state(server, "running", seconds=180)
        disks = {server: pool.disk(cluster, f"server-{server}") for server in servers}
        saved = {server: patiently(cluster, server, SAVED) for server in servers}
        for server in servers:
            cluster.done("PATCH", f"/api/v1/server/{server}/", {"disk_gb": 2})
        deadline = time.monotonic() + 15
        killing(programs, 1.0, lambda: time.monotonic() > deadline)
        for server in servers:
            disk = disks[server]
            until(partial(_is_grown, disk), 180, f"{disk} does not grow")
            assert patiently(cluster, server, "sha256sum < /data/saved") == saved[server]
        for server in servers:
            cluster.done("DELETE", f"/api/v1/server/{server}/?disk=erase")
        deadline = time.monotonic() + 15
        killing(programs, 1.0, lambda: time.monotonic() > deadline)
        volumes = {disk.volume for disk in disks.values()}

        def remains() -> set[str]:
            """What the nodes still have of the erased disks, or of disks that were never finished."""
            entries = set().union(*(pool.contents(node) for node in names))
            return {entry for entry in entries if entry.startswith(".") or entry.split("/")[-1] in volumes}

        until(lambda: not remains(), 180, lambda: str(remains()))
        session_over.set()
        assert session.result() > 10
    assert untouched(cluster, bystander)[:3] == untouched_before
    assert cluster.status(bystander)["state"] == "running"
