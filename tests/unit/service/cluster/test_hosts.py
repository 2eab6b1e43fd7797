"""A server's host is an address of the node that has its disk."""

from __future__ import annotations

from typing import Any

import pytest

from service.cluster.hosts import Hosts
from service.servers.objects import ServerObjects
from service.servers.volumes import DiskNode
from tests.support.memory_kube import MemoryKube

SELECTED = "volume.kubernetes.io/selected-node"


class Cluster(MemoryKube):
    """A cluster whose nodes can change."""

    def __init__(self, *nodes: dict[str, Any]) -> None:
        super().__init__()
        self.nodes = list(nodes)

    def all(self, path: str, *, metadata: bool = False, **query: str | int) -> list[Any]:
        self._ask("LIST", path)
        return self.nodes


def node(name: str, **addresses: str) -> dict[str, Any]:
    status = [{"type": type_, "address": address} for type_, address in addresses.items()]
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": f"{name}.example"}},
        "status": {"addresses": status},
    }


def disk(node: str = "", phase: str = "Bound", volume: str = "pv-1") -> dict[str, Any]:
    annotations = {SELECTED: node} if node else {}
    return {"metadata": {"annotations": annotations}, "spec": {"volumeName": volume}, "status": {"phase": phase}}


def server(claim: dict[str, Any] | None, runs_on: str = "") -> ServerObjects:
    pod = {"metadata": {}, "spec": {"nodeName": runs_on}} if runs_on else None
    return ServerObjects(1, claim=claim, pod=pod)


def affinity(key: str, *terms: list[str]) -> dict[str, Any]:
    selector_terms = [{"matchExpressions": [{"key": key, "operator": "In", "values": values}]} for values in terms]
    return {"metadata": {"name": "pv-1"}, "spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": selector_terms}}}}


A = node("a", InternalIP="10.0.0.1", Hostname="a.example")
B = node("b", InternalIP="10.0.0.2", ExternalIP="203.0.113.2")


@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        (server(None), None),
        (server(disk("b", phase="Pending"), runs_on="b"), None),
        (server(disk("a")), "10.0.0.1"),
        (server(disk("b")), "203.0.113.2"),
        (server(disk("a"), runs_on="b"), "203.0.113.2"),
        (server(disk("gone")), None),
        (server(disk()), None),
    ],
)
def test_the_host_is_the_external_or_else_the_internal_address_of_the_disks_node(
    objects: ServerObjects, expected: str | None
) -> None:
    """There is none before the disk is bound. A network disk is on the node where its pod runs."""
    assert Hosts(Cluster(A, B)).host(objects) == expected


@pytest.mark.parametrize(
    ("addresses", "families", "expected"),
    [
        # hcloud-cloud-controller-manager#305
        ("E 2001:db8::1, E 203.0.113.1, I 10.0.0.1", ["IPv4"], "203.0.113.1"),
        ("E 2001:db8::1, E 203.0.113.1, I 10.0.0.1", ["IPv6"], "2001:db8::1"),
        ("E 203.0.113.1, E 2001:db8::1, I 10.0.0.1", ["IPv6"], "2001:db8::1"),
        ("E 2001:db8::1, E 203.0.113.1", ["IPv4", "IPv6"], "203.0.113.1"),
        ("E 2001:db8::1, E 203.0.113.1", ["IPv6", "IPv4"], "2001:db8::1"),
        ("E 2001:db8::1, I 10.0.0.1", ["IPv4"], "10.0.0.1"),
        ("E 203.0.113.1, I 10.0.0.1, I fd00::1", ["IPv6"], "fd00::1"),
        # An external address of the second family is within players' reach, an internal one is not.
        ("E 2001:db8::1, I 10.0.0.1, I fd00::1", ["IPv4", "IPv6"], "2001:db8::1"),
        ("E 2001:db8::1, I fd00::1", ["IPv4"], None),
        ("E 2001:db8::1, I 10.0.0.1", [], "2001:db8::1"),
    ],
)
def test_the_host_is_of_a_family_at_which_the_port_answers(
    addresses: str, families: list[str], expected: str | None
) -> None:
    """Whatever the order of the node's addresses; external addresses come first."""
    types = {"E": "ExternalIP", "I": "InternalIP"}
    parts = [part.split(" ") for part in addresses.split(", ")]
    both = node("a")
    both["status"]["addresses"] = [{"type": types[type_], "address": address} for type_, address in parts]
    assert Hosts(Cluster(both)).host(server(disk("a")), families) == expected


@pytest.mark.parametrize(
    ("volume", "expected"),
    [
        (affinity("kubernetes.io/hostname", ["b.example"]), "203.0.113.2"),
        (affinity("metadata.name", ["a"], ["a"]), "10.0.0.1"),
        (affinity("disk-driver.gameserver/node", ["a"]), "10.0.0.1"),
        (affinity("kubernetes.io/hostname", ["a", "b"]), None),
        (affinity("topology.kubernetes.io/zone", ["a"]), None),
    ],
)
def test_a_volume_created_by_hand_names_its_node(volume: dict[str, Any], expected: str | None) -> None:
    """Without a scheduler's choice. The volume is read once, because its affinity never changes."""
    kube = Cluster(A, B)
    kube.objects["/api/v1/persistentvolumes/pv-1"] = volume
    hosts = Hosts(kube)
    assert [hosts.host(server(disk())) for _ in range(3)] == [expected] * 3
    assert kube.asked.count("GET /api/v1/persistentvolumes/pv-1") == 1


@pytest.mark.parametrize(
    ("claim", "volume", "expected"),
    [
        (disk("a"), affinity("kubernetes.io/hostname", ["b.example"]), DiskNode("b.example", only=True)),
        (disk("a"), affinity("kubernetes.io/hostname", ["gone"]), DiskNode("gone", only=True)),
        (disk("a"), affinity("topology.kubernetes.io/zone", ["z"]), DiskNode("a", only=False)),
        (disk("gone"), affinity("topology.kubernetes.io/zone", ["z"]), None),
        (disk("gone"), {"metadata": {}, "spec": {}}, None),
        (disk("a", phase="Pending"), affinity("metadata.name", ["b"]), DiskNode("a", only=False)),
        (disk("gone", phase="Pending"), None, None),
        (disk("a"), None, DiskNode("a", only=False)),
    ],
)
def test_the_volume_says_which_node_has_the_disk_and_else_the_scheduler_did(
    claim: dict[str, Any], volume: dict[str, Any] | None, expected: DiskNode | None
) -> None:
    """Kubernetes never corrects the choice, so it may be of an earlier node, or of the cluster of a restored backup."""
    kube = Cluster(A, B)
    if volume:
        kube.objects["/api/v1/persistentvolumes/pv-1"] = volume
    hosts = Hosts(kube)
    assert hosts.node_of(claim) == expected
    addresses = {"a": "10.0.0.1", "b.example": "203.0.113.2"}
    bound = claim["status"]["phase"] == "Bound"
    assert hosts.host(server(claim)) == (addresses.get(expected.name) if bound and expected else None)


def test_a_volume_that_is_made_again_is_read_again() -> None:
    """Also one that was missing, and one under the same name whose claim a person made again for another node."""
    kube, first, second = Cluster(A, B), disk(), disk()
    second["metadata"]["uid"] = "2"
    hosts = Hosts(kube)
    assert hosts.host(server(first)) is None
    kube.objects["/api/v1/persistentvolumes/pv-1"] = affinity("metadata.name", ["a"])
    assert hosts.host(server(first)) == "10.0.0.1"
    kube.objects["/api/v1/persistentvolumes/pv-1"] = affinity("metadata.name", ["b"])
    assert [hosts.host(server(claim)) for claim in (first, second)] == ["10.0.0.1", "203.0.113.2"]


def test_other_nodes_do_not_change_a_servers_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new node that sorts first changes no server's host. A new node is known within seconds."""
    now = 0.0
    monkeypatch.setattr("service.cluster.hosts.time.monotonic", lambda: now)
    kube = Cluster(B)
    hosts = Hosts(kube)
    kube.objects["/api/v1/persistentvolumes/pv-1"] = affinity("topology.kubernetes.io/zone", ["z"])
    assert hosts.host(server(disk("b"))) == "203.0.113.2"
    kube.nodes.insert(0, node("0", InternalIP="10.0.0.9", ExternalIP="203.0.113.9"))
    assert hosts.host(server(disk("b"))) == "203.0.113.2"
    assert kube.asked == ["GET /api/v1/persistentvolumes/pv-1", "LIST /api/v1/nodes"]
    now = 3.0
    assert hosts.host(server(disk("0"))) == "203.0.113.9"
    assert hosts.host(server(disk("b"))) == "203.0.113.2"
    assert len(kube.asked) == 3
