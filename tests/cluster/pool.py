"""The pools of the disk driver on the local cluster's nodes, and the disks in them."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import Any

from local import nodes
from tests.cluster.conftest import Cluster

CLASS = "gameserver-disks"
DRIVER = "disk-driver.gameserver"
NAMESPACE = "gameserver-disks"
FOLDER = "/var/lib/gameserver-disks"


@dataclass(frozen=True)
class Disk:
    """A server's disk.

    Attributes:
        volume: The name of the PersistentVolume, and the driver's id of the disk.
        node: The name of the node that has it.
        folder: Where the node has mounted it.
    """

    volume: str
    node: str
    folder: str

    def df(self) -> tuple[int, int]:
        """The size of its file system and the space that is left in it, in bytes."""
        size, free = on_node(self.node, f"df -B1 --output=size,avail {self.folder} | tail -n 1").split()
        return int(size), int(free)


def disk_of(claim: dict[str, Any], volume: dict[str, Any]) -> Disk:
    """The disk of a bound claim on the driver's class."""
    source = volume["spec"]["csi"]
    assert source["driver"] == DRIVER
    terms = volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"]
    return Disk(
        claim["spec"]["volumeName"],
        terms[0]["matchExpressions"][0]["values"][0],
        source["volumeAttributes"]["folder"],
    )


def disk(cluster: Cluster, name: str) -> Disk:
    """The disk of a claim in the servers' namespace."""
    claim = cluster.get("pvc", name)
    return disk_of(claim, json.loads(cluster.run("kubectl", "get", "pv", claim["spec"]["volumeName"], "-o", "json")))


def on_node(node: str, script: str) -> str:
    """Run a script as root on a node itself, outside its pods, and return what it prints."""
    number = next(number for number in nodes.running() if nodes.Node(number).name == node)
    command = nodes.enter(nodes.Node(number), ["sh", "-c", script])
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def contents(node: str) -> set[str]:
    """Everything in a node's pool that belongs to single disks and snapshots, as `disks/pvc-…`."""
    return set(
        on_node(node, f"cd {FOLDER}; ls -d disks/* snapshots/* mounts/* .new-* .gone-* 2>/dev/null || true").split()
    )


def loops(node: str) -> int:
    """How many loop devices the disks of a node use."""
    return int(on_node(node, f"losetup -l -n -O BACK-FILE | grep -c {FOLDER}/ || true"))


def driver_pod(cluster: Cluster, node: str) -> str:
    """The name of the driver's pod on a node."""
    pods = json.loads(
        cluster.run("kubectl", "-n", NAMESPACE, "get", "pods", "-l", "app.kubernetes.io/name=disk-driver", "-o", "json")
    )["items"]
    return next(
        str(pod["metadata"]["name"])
        for pod in pods
        if pod["spec"].get("nodeName") == node and "deletionTimestamp" not in pod["metadata"]
    )


def kill(cluster: Cluster, node: str, program: str) -> None:
    """Kill a program of the driver's pod on a node with SIGKILL; the kubelet starts it anew."""
    # The kernel shortens a process' name to 15 characters.
    on_node(node, f"pgrep -x {program[:15]} | xargs -r kill -9")
