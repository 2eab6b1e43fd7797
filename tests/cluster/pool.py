"""The pools of the disk driver on the local cluster's nodes, and the disks in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.cluster.commands import on_node
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


def folder_of(volume: dict[str, Any]) -> str:
    """The folder of a PersistentVolume on its node, whichever storage made it."""
    spec = volume["spec"]
    if "csi" in spec:
        return str(spec["csi"]["volumeAttributes"]["folder"])
    return str((spec.get("hostPath") or spec["local"])["path"])


def disk_in(volume: dict[str, Any]) -> Disk:
    """The disk of a PersistentVolume, whichever storage made it."""
    terms = volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"]
    return Disk(volume["metadata"]["name"], terms[0]["matchExpressions"][0]["values"][0], folder_of(volume))


def volume_of(cluster: Cluster, claim: str) -> dict[str, Any]:
    """The PersistentVolume of a claim in the servers' namespace."""
    return cluster.get("pv", cluster.get("pvc", claim)["spec"]["volumeName"])


def disk(cluster: Cluster, claim: str) -> Disk:
    """The disk of a claim in the servers' namespace, which must be one of the driver's."""
    volume = volume_of(cluster, claim)
    assert volume["spec"]["csi"]["driver"] == DRIVER
    return disk_in(volume)


def contents(node: str) -> set[str]:
    """Everything in a node's pool that belongs to single disks and snapshots, as `disks/pvc-…`."""
    return set(
        on_node(node, f"cd {FOLDER}; ls -d disks/* snapshots/* mounts/* .new-* .gone-* 2>/dev/null || true").split()
    )


def kill(node: str, program: str) -> None:
    """Kill a program on a node with SIGKILL: the driver, one beside it, or the kubelet. It is started again."""
    # The kernel shortens a process' name to 15 characters.
    on_node(node, f"pgrep -x {program[:15]} | xargs -r kill -9")
