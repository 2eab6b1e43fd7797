"""Disks outlive their servers with the world on them, and refuse what would harm them."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from local import nodes
from local.paths import ROOT
from tests.cluster import pool, world
from tests.cluster.conftest import SERVERS_NAMESPACE, Cluster
from tests.cluster.test_runbook import follow
from tests.support.waiting import until

#: In GiB, more than any pool of the local cluster has.
TOO_LARGE = 900
#: The kinds of all objects that belong to a server or mention it.
KINDS = "statefulsets,pods,services,endpointslices,persistentvolumeclaims,secrets,configmaps,controllerrevisions,leases"


def stored(volume: str) -> list[str]:
    """What the nodes have of a volume, whichever storage made it."""
    folders = [str(folder) for folder in ROOT.glob(f".local/nodes/*/opt/local-path-provisioner/{volume}_*")]
    names = [nodes.Node(number).name for number in nodes.running()]
    return folders + [f"{node}: {file}" for node in names for file in pool.contents(node) if volume in file]


def remains(cluster: Cluster, server: int) -> list[str]:
    """What Kubernetes still has of a server, in any namespace. A volume goes after its storage has erased the disk."""
    everything = json.loads(cluster.run("kubectl", "get", KINDS, "-A", "-o", "json"))["items"]
    name = f"server-{server}"
    objects = [
        f"{item['kind']} {item['metadata']['name']}"
        for item in everything
        if item["metadata"].get("labels", {}).get("gameserver/id") == str(server)
        or name in item["metadata"]["name"].split(".")
        or item["metadata"]["name"].startswith(f"{name}-")
    ]
    volumes = json.loads(cluster.run("kubectl", "get", "pv", "-o", "json"))["items"]
    return objects + [
        f"volume {item['metadata']['name']}"
        for item in volumes
        if (item["spec"].get("claimRef") or {}).get("name") == name
    ]


def problem(cluster: Cluster, method: str, path: str, body: object) -> dict[str, Any]:
    """The problem of a call that must answer 409, sent again while the API asks for that."""
    answers: list[dict[str, Any]] = []

    def refused() -> bool:
        answer = cluster.call(method, path, body)
        answers.append(answer.json())
        assert answer.status_code == 409, answer.text
        return "Retry-After" not in answer.headers

    until(refused, 30, lambda: str(answers[-1]))
    return answers[-1]


def kept(cluster: Cluster) -> dict[int, dict[str, Any]]:
    """The kept disks by id."""
    return {disk["id"]: disk for disk in cluster.done("GET", "/api/v1/disk/")["disks"]}


def on_class(cluster: Cluster, server: int, name: str, **changes: Any) -> None:
    """Create the server with a disk of a StorageClass and with other values, as an operator would."""
    helm = ("helm", "-n", SERVERS_NAMESPACE)
    cluster.create(server, start=False)
    values = json.loads(cluster.run(*helm, "get", "values", f"server-{server}", "-o", "json"))
    cluster.done("DELETE", f"/api/v1/server/{server}/?disk=erase")
    until(lambda: "PersistentVolumeClaim" not in str(remains(cluster, server)), 30)
    values |= {"storage": {**values.get("storage", {}), "className": name}, **changes}
    chart = str(ROOT / "charts" / "gameserver")
    cluster.run(*helm, "install", f"server-{server}", chart, "-f", "-", stdin=json.dumps(values))


def slugs(cluster: Cluster, server: int) -> list[str]:
    """The slugs of the server's notes."""
    return [note["slug"] for note in cluster.status(server)["notes"]]


def test_a_kept_disk_has_the_world_until_it_is_erased(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """A deleted server's disk is listed and blocks a create. `reuse` gives the same world, an erase leaves nothing."""
    server = new_server()
    path = f"/api/v1/server/{server}/"
    cluster.create(server, disk_gb=2)
    cluster.until_state(server, "running")
    assert server not in kept(cluster)
    place = world.mark(cluster, server)

    cluster.done("DELETE", path)
    until(lambda: cluster.call("GET", path).status_code == 404, 60)
    disk = kept(cluster)[server]
    assert disk == {"id": server, "disk_gb": 2, "disk": disk["disk"], "since": disk["since"]}
    assert disk["disk"]["size_gb"] == 2
    assert disk["since"].endswith("Z")
    refused = problem(cluster, "POST", path, {"ram_gb": 1, "disk_gb": 2})
    assert refused["type"] == "/problems/disk-kept"
    assert "disk" in refused["errors"]
    smaller = problem(cluster, "POST", path, {"ram_gb": 1, "disk_gb": 1, "disk": "reuse"})
    assert smaller["type"] == "/problems/disk-cannot-shrink"
    assert smaller["errors"] == {"disk_gb": ["must not be smaller than 2"]}
    assert cluster.call("GET", path).status_code == 404

    cluster.create(server, disk_gb=2, disk="reuse")
    cluster.until_state(server, "running")
    assert server not in kept(cluster)
    assert world.block(cluster, server, place) == world.MARK

    volume = cluster.get("pvc", f"server-{server}")["spec"]["volumeName"]
    assert stored(volume) != []
    cluster.done("DELETE", f"{path}?disk=erase")
    until(lambda: remains(cluster, server) == [], 90, lambda: f"left: {remains(cluster, server)}")
    assert stored(volume) == []
    assert server not in kept(cluster)
    assert cluster.call("DELETE", f"{path}?disk=erase").status_code == 404


def test_a_create_that_erases_begins_with_an_empty_disk(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """`"disk": "erase"` gives a new disk of any size, and the nodes keep nothing of the old one."""
    server = new_server()
    path = f"/api/v1/server/{server}/"
    cluster.create(server, disk_gb=2)
    until(lambda: cluster.get("pvc", f"server-{server}")["status"]["phase"] == "Bound", 60)
    before = cluster.get("pvc", f"server-{server}")
    assert stored(before["spec"]["volumeName"]) != []
    cluster.done("DELETE", path)
    until(lambda: cluster.call("GET", path).status_code == 404, 60)

    cluster.create(server, disk="erase", start=False)
    after = cluster.get("pvc", f"server-{server}")
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    assert after["spec"]["resources"]["requests"] == {"storage": "1Gi"}
    until(lambda: stored(before["spec"]["volumeName"]) == [], 60)


def test_a_disk_that_was_never_used_is_not_kept(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """A server that never started leaves no disk when it is deleted, and its id can be used again."""
    server = new_server()
    cluster.create(server, start=False)
    cluster.done("DELETE", f"/api/v1/server/{server}/")
    assert server not in kept(cluster)
    cluster.create(server, disk_gb=2, start=False)
    assert cluster.get("pvc", f"server-{server}")["spec"]["resources"]["requests"] == {"storage": "2Gi"}
    # An operator's uninstall leaves the claim. It is not a kept disk, either.
    cluster.run("helm", "-n", SERVERS_NAMESPACE, "uninstall", f"server-{server}")
    assert server not in kept(cluster)
    cluster.create(server, start=False)
    assert cluster.get("pvc", f"server-{server}")["spec"]["resources"]["requests"] == {"storage": "1Gi"}


def test_the_disk_of_a_class_that_cannot_grow_stays_as_it_is(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """Local volumes cannot grow or shrink: a change answers 409 that says so and changes nothing."""
    server = new_server()
    path = f"/api/v1/server/{server}/"
    on_class(cluster, server, "local-path", diskGb=2)
    larger = problem(cluster, "PATCH", path, {"disk_gb": 3})
    assert larger["type"] == "/problems/disk-cannot-grow"
    assert larger["errors"] == {"disk_gb": ["must be 2: its storage class does not allow growth"]}
    smaller = problem(cluster, "PATCH", path, {"disk_gb": 1, "ram_gb": 2})
    assert smaller["errors"] == {"disk_gb": ["must not be smaller than 2"]}
    status = cluster.status(server)
    assert (status["disk_gb"], status["ram_gb"]) == (2, 1)
    assert cluster.get("pvc", f"server-{server}")["spec"]["resources"]["requests"] == {"storage": "2Gi"}


def test_a_disk_grows_while_the_game_runs_and_a_growth_without_room_is_taken_back(
    cluster: Cluster, new_server: Callable[[], int]
) -> None:
    """The pod stays the same through all of it. A stopped server's disk grows at its next start."""
    server = new_server()
    path = f"/api/v1/server/{server}/"
    on_class(cluster, server, pool.CLASS)
    unmade = problem(cluster, "PATCH", path, {"disk_gb": 20})
    assert unmade["errors"] == {"disk_gb": ["must be 1 until the server's first start, which creates the disk"]}
    cluster.done("PATCH", f"{path}start")
    cluster.until_state(server, "running")

    def pod() -> str:
        return str(cluster.get("pod", f"server-{server}-0")["metadata"]["uid"])

    def size() -> Any:
        return cluster.status(server)["disk"]["size_gb"]

    before = pod()
    assert cluster.done("PATCH", path, {"disk_gb": 20}) == {"success": True, "restarting": False}
    until(lambda: size() == 20, 180, lambda: str(cluster.status(server)))
    smaller = problem(cluster, "PATCH", path, {"disk_gb": 19})
    assert smaller["type"] == "/problems/disk-cannot-shrink"
    # An operator's rollback is refused and blocks the API until the operator runs the runbook's command.
    with pytest.raises(AssertionError, match="can not be less than"):
        cluster.run("helm", "-n", SERVERS_NAMESPACE, "rollback", f"server-{server}")
    assert cluster.call("PATCH", f"{path}stop").json()["type"] == "/problems/refused-by-cluster"
    follow(cluster, server, "Go back a revision", 1)
    assert (cluster.status(server)["disk_gb"], size(), pod()) == (20, 20, before)

    cluster.done("PATCH", path, {"disk_gb": TOO_LARGE})
    until(lambda: slugs(cluster, server) == ["disk-growth-failed"], 180, lambda: str(cluster.status(server)))
    assert size() == 20
    cluster.done("PATCH", path, {"disk_gb": 20})
    until(lambda: slugs(cluster, server) == [], 180, lambda: str(cluster.status(server)))
    assert (size(), cluster.status(server)["state"], pod()) == (20, "running", before)

    def is_growing() -> bool:
        # Stopped in the middle, the pod's kubelet takes it up again at the next start, and until then nobody does.
        status = cluster.get("persistentvolumeclaim", f"server-{server}")["status"]
        return "NodeResizeInProgress" in status.get("allocatedResourceStatuses", {}).values()

    until(lambda: not is_growing(), 180)
    cluster.done("PATCH", f"{path}stop")
    cluster.until_state(server, "stopped")
    cluster.done("PATCH", path, {"disk_gb": 21})
    # After the growth that failed, the resizer waits before it tries again, up to minutes.
    until(lambda: slugs(cluster, server) == ["disk-grows-at-next-start"], 300, lambda: str(cluster.status(server)))
    cluster.done("PATCH", f"{path}start")
    until(lambda: size() == 21, 180, lambda: str(cluster.status(server)))
    assert slugs(cluster, server) == []
    # A reuse that asks for more grows the kept disk.
    cluster.done("DELETE", path)
    until(lambda: cluster.call("GET", path).status_code == 404, 60)
    cluster.create(server, disk_gb=30, disk="reuse", start=False)
    assert cluster.get("pvc", f"server-{server}")["spec"]["resources"]["requests"] == {"storage": "30Gi"}


def test_a_disk_for_which_no_node_has_room_is_the_reason(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """The server is failed, with that reason, within seconds. A smaller disk fits: nothing was ever written."""
    server = new_server()
    on_class(cluster, server, pool.CLASS, replicas=1, diskGb=TOO_LARGE)
    failed = cluster.until_state(server, "failed", seconds=30)
    # Beside other tests the nodes may have no cpu free either, and the sentence then names that too.
    assert re.match(rf"No node has ([0-9]+m of cpu and )?{TOO_LARGE} GiB of disk free\.", failed["reason"]), failed
    assert [note["slug"] for note in failed["notes"]] == ["no-disk-space-on-nodes"]
    assert cluster.get("pvc", f"server-{server}")["status"]["phase"] == "Pending"
    cluster.done("DELETE", f"/api/v1/server/{server}/")
    cluster.create(server)
    cluster.until_state(server, "running")
