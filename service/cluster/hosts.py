"""Finds the node that has a server's disk, and the address where that node's ports can be reached."""

from __future__ import annotations

import time
from collections.abc import Sequence

from service.kube.client import Kube
from service.kube.types import Object
from service.servers.accessors import is_bound, uid
from service.servers.objects import Objects
from service.servers.volumes import HOSTNAME, DiskNode, only_node, selected_node

# How old the addresses may be: they hardly ever change, but an unknown node may be new.
_KNOWN_NODE_SECONDS, _UNKNOWN_NODE_SECONDS = 60.0, 2.0
_MAX_VOLUMES = 10_000
# The types of a node's addresses, the preferred one first.
_TYPES = ("ExternalIP", "InternalIP")


class Hosts:
    """The nodes' addresses. Thread-safe. Every method may raise ClusterUnavailable."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._addresses: dict[str, list[list[str]]] = {}
        self._read_at = float("-inf")
        # By the claim's uid too: a person may make a volume and its claim again, on another node.
        self._node_of_volume: dict[tuple[str | None, str], str | None] = {}

    def host(self, objects: Objects, families: Sequence[str] = ()) -> str | None:
        """An address of the node that has the server's disk; None while there is no such node.

        It depends on no other node, so every replica returns the same address for as long as the disk exists.
        `families` is that of `interfaces.Cluster.host`.
        """
        node = self._node(objects)
        return None if node is None else self._address(node, families)

    def _node(self, objects: Objects) -> str | None:
        claim = objects.claim
        if claim is None or not is_bound(claim):
            return None
        # A network disk may have moved with its pod.
        if running_on := (objects.pod or {}).get("spec", {}).get("nodeName"):
            return str(running_on)
        node = self.node_of(claim)
        return node.name if node else None

    def node_of(self, claim: Object) -> DiskNode | None:
        """The node that has a claim's disk; None if no node is known to have it.

        A volume that only one node can use says which. Otherwise the scheduler's choice counts while that node exists.
        Nobody corrects it: the node may be gone, or a tool restored the claim with it and bound it to a volume of
        another node. https://github.com/velero-io/velero/issues/9053
        """
        if is_bound(claim) and (name := self._by_volume(claim)):
            return DiskNode(name, only=True)
        chosen = selected_node(claim)
        return chosen if chosen and self._address(chosen.name) else None

    def _by_volume(self, claim: Object) -> str | None:
        """The only node that can use the volume of a bound claim; None if several can, or if the volume is missing."""
        key = uid(claim), claim["spec"].get("volumeName", "")
        node = self._node_of_volume.get(key)
        if key not in self._node_of_volume:
            volume = self._kube.get(f"/api/v1/persistentvolumes/{key[1]}")
            if volume is None:
                return None
            if len(self._node_of_volume) >= _MAX_VOLUMES:
                self._node_of_volume.clear()
            node = self._node_of_volume[key] = only_node(volume.get("spec", {}))
        return node

    def _address(self, node: str, families: Sequence[str] = ()) -> str | None:
        age = time.monotonic() - self._read_at
        if age > (_KNOWN_NODE_SECONDS if node in self._addresses else _UNKNOWN_NODE_SECONDS):
            self._addresses = _addresses(self._kube.all("/api/v1/nodes"))
            self._read_at = time.monotonic()
        addresses = (
            address
            for of_type in self._addresses.get(node, ())
            for family in families or (None,)
            for address in of_type
            if family in (None, _family(address))
        )
        return next(addresses, None)


def _addresses(nodes: list[Object]) -> dict[str, list[list[str]]]:
    """Each node's external and internal addresses, by its name and by the host name that volumes use."""
    by_name: dict[str, list[list[str]]] = {}
    for node in nodes:
        all_ = node.get("status", {}).get("addresses", [])
        addresses = [[each["address"] for each in all_ if each["type"] == type_] for type_ in _TYPES]
        if any(addresses):
            name = node["metadata"]["name"]
            by_name[name] = by_name[node["metadata"].get("labels", {}).get(HOSTNAME, name)] = addresses
    return by_name


def _family(address: str) -> str:
    return "IPv6" if ":" in address else "IPv4"
