"""Finds the node of a disk from its claim or its volume, and whether the disk is a folder of it. Pure."""

from __future__ import annotations

from typing import NamedTuple

from service.kube.types import Object
from service.servers.accessors import annotation

HOSTNAME = "kubernetes.io/hostname"
DRIVER = "disk-driver.gameserver"
"""The CSI driver of this product, which is also the provisioner in its storage classes."""
_TOPOLOGY = f"{DRIVER}/node"
# Set by the scheduler for a disk that is not made yet. Nobody changes it later, so it may be wrong:
# https://kubernetes.io/docs/reference/labels-annotations-taints/#volume-kubernetes-io-selected-node
SELECTED_NODE = "volume.kubernetes.io/selected-node"


class DiskNode(NamedTuple):
    """The node of a disk: its name or host name, and whether no other node can use the disk."""

    name: str
    only: bool


def selected_node(claim: Object) -> DiskNode | None:
    """The node that the scheduler chose for a claim's disk; None if it has not chosen one. It may be gone."""
    name = annotation(claim, SELECTED_NODE)
    return DiskNode(name, only=False) if name else None


def only_node(spec: Object) -> str | None:
    """The only node that a volume's affinity allows, from the volume's `spec`; None if it allows several, or any.

    The agents use the same rule (agent/disk_agent/objects.py).
    https://kubernetes.io/docs/concepts/storage/persistent-volumes/#node-affinity
    """
    nodes: set[tuple[str, ...]] = set()
    for term in spec.get("nodeAffinity", {}).get("required", {}).get("nodeSelectorTerms", []):
        names = [
            tuple(requirement.get("values", []))
            for requirement in term.get("matchExpressions", []) + term.get("matchFields", [])
            if requirement["key"] in (HOSTNAME, _TOPOLOGY, "metadata.name") and requirement["operator"] == "In"
        ]
        nodes.add(names[0] if names else ())
    only: tuple[str, ...] = nodes.pop() if len(nodes) == 1 else ()
    return only[0] if len(only) == 1 else None


def in_folder_of_one_node(spec: Object) -> bool:
    """Whether a volume is a folder that exists on exactly one node, from the volume's `spec`.

    The driver of this product says in the volume's attributes where it keeps the disk mounted. The agents use the same
    rule (agent/disk_agent/objects.py).
    """
    csi = spec.get("csi") or {}
    mounted = csi.get("driver") == DRIVER and bool((csi.get("volumeAttributes") or {}).get("folder"))
    return ("hostPath" in spec or "local" in spec or mounted) and only_node(spec) is not None
