"""Which node has a server's disk, and the address on which that node's ports answer."""

from __future__ import annotations

import time

from service.kube.client import Kube
from service.kube.types import Object
from service.servers.objects import Objects
from service.servers.volumes import HOSTNAME, only_node, selected_node

# A node's addresses hardly ever change. One that nobody has heard of yet is asked for sooner.
_REREAD_SECONDS, _UNKNOWN_SECONDS = 60.0, 2.0
_MOST_VOLUMES = 10_000


class Hosts:
    """The nodes of the cluster. Safe for threads. Every method may raise ClusterUnavailable."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._addresses: dict[str, str] = {}
        self._read = float("-inf")
        self._of_volume: dict[str, str | None] = {}

    def host(self, objects: Objects) -> str | None:
        """An address of the node that has the server's disk; None while there is no such node.

        No other node has a say in it, so it is the same for as long as the disk is there, from every replica.
        """
        node = self._holding(objects)
        return None if node is None else self._address(node)

    def _holding(self, objects: Objects) -> str | None:
        claim = objects.claim
        if claim is None or claim.get("status", {}).get("phase") != "Bound":
            return None
        # A disk of the network may have moved with its pod.
        running_on = (objects.pod or {}).get("spec", {}).get("nodeName")
        return running_on or selected_node(claim) or self._by_volume(claim)

    def _by_volume(self, claim: Object) -> str | None:
        """The one node that the disk's volume can be used from: it was made beforehand, so no scheduler chose it."""
        name = claim["spec"].get("volumeName", "")
        if name not in self._of_volume:
            volume = self._kube.get(f"/api/v1/persistentvolumes/{name}") or {}
            if len(self._of_volume) >= _MOST_VOLUMES:
                self._of_volume.clear()
            self._of_volume[name] = only_node(volume.get("spec", {}))
        return self._of_volume[name]

    def _address(self, node: str) -> str | None:
        age = time.monotonic() - self._read
        if age > (_REREAD_SECONDS if node in self._addresses else _UNKNOWN_SECONDS):
            self._addresses = _addresses(self._kube.all("/api/v1/nodes"))
            self._read = time.monotonic()
        return self._addresses.get(node)


def _addresses(nodes: list[Object]) -> dict[str, str]:
    """Each node's external address, else its internal one, by its name and by the host name that volumes call it by."""
    found: dict[str, str] = {}
    for node in nodes:
        by_type: dict[str, str] = {}
        for address in node.get("status", {}).get("addresses", []):
            by_type.setdefault(address["type"], address["address"])
        if address := by_type.get("ExternalIP") or by_type.get("InternalIP"):
            name = node["metadata"]["name"]
            found[name] = found[node["metadata"].get("labels", {}).get(HOSTNAME, name)] = address
    return found
