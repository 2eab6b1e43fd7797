"""How the cluster's nodes are, for those few servers whose state depends on it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from service.kube.client import Kube
from service.kube.types import Object

# Kubernetes itself takes most of a minute to give up a node.
SECONDS = 5.0


class Nodes(Mapping[str, Object]):
    """The nodes by name, read when one is looked at, and again after some seconds. Safe for threads.

    While nothing is wrong nobody looks, so that a list costs less than a watch, and needs no further right. Looking
    may raise ClusterUnavailable.
    """

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._nodes: dict[str, Object] = {}
        self._read = float("-inf")

    def __getitem__(self, name: str) -> Object:
        return self._known()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known())

    def __len__(self) -> int:
        return len(self._known())

    def _known(self) -> dict[str, Object]:
        # Without a lock: while Kubernetes hangs, the reads of different servers must not wait for each other.
        if time.monotonic() - self._read > SECONDS:
            # From the API server's cache, as all replicas may ask this at once.
            found = self._kube.all("/api/v1/nodes", resourceVersion="0")
            self._nodes = {node["metadata"]["name"]: _trim(node) for node in found}
            self._read = time.monotonic()
        return self._nodes


def _trim(node: Object) -> Object:
    """Without the images that it has, which are most of it."""
    return {
        "metadata": {"name": node["metadata"]["name"]},
        "spec": {"unschedulable": node.get("spec", {}).get("unschedulable", False)},
        "status": {"conditions": node.get("status", {}).get("conditions") or []},
    }
