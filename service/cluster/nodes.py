"""The cluster's nodes and their health, for the few servers whose state depends on it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from service.kube.client import Kube
from service.kube.types import Object
from service.servers.volumes import HOSTNAME

# Kubernetes itself takes most of a minute to give up on a node.
MAX_AGE_SECONDS = 5.0


class Nodes(Mapping[str, Object]):
    """The nodes by name, read on demand, and again after some seconds. Thread-safe. May raise ClusterUnavailable.

    While all servers are well, nobody reads them, so a list costs less than a watch. A watch would also need a further
    right.
    """

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._nodes: dict[str, Object] = {}
        self._read_at = float("-inf")

    def __getitem__(self, name: str) -> Object:
        return self._current()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._current())

    def __len__(self) -> int:
        return len(self._current())

    def _current(self) -> dict[str, Object]:
        # No lock: while Kubernetes hangs, reads of different servers must not wait for each other.
        if time.monotonic() - self._read_at > MAX_AGE_SECONDS:
            # From the API server's cache, because all replicas may read them at the same time.
            nodes = self._kube.all("/api/v1/nodes", resourceVersion="0")
            self._nodes = {node["metadata"]["name"]: _trim(node) for node in nodes}
            self._read_at = time.monotonic()
        return self._nodes


def _trim(node: Object) -> Object:
    """The fields that a state needs. Most of a node object is the list of its images."""
    spec = node.get("spec", {})
    return {
        "metadata": {
            "name": node["metadata"]["name"],
            "labels": {HOSTNAME: (node["metadata"].get("labels") or {}).get(HOSTNAME)},
        },
        "spec": {"unschedulable": spec.get("unschedulable", False), "taints": spec.get("taints") or []},
        "status": {"conditions": node.get("status", {}).get("conditions") or []},
    }
