"""A replica is killed in the middle of a call, and the same call is sent again to another replica."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from service.kube.client import Kube, path
from service.servers.names import KEPT_SINCE
from service.settings import Settings
from tests.contract.conftest import Interfaces, statuses
from tests.contract.replica import CREATE, Call, Served, daemons, helms, replica, serving
from tests.support.processes import alive
from tests.support.waiting import until

pytestmark = pytest.mark.cluster

# Where a replica is killed: the operation, and which of its requests that contain the text is held.
POINTS = [
    ("create", "POST /api/v1/namespaces/{namespace}/secrets", 1),
    ("create", "PATCH /api/v1/namespaces/{namespace}/services", 1),
    ("create", "PUT /api/v1/namespaces/{namespace}/secrets", 1),
    ("start", "PATCH /apis/apps/v1/namespaces/{namespace}/statefulsets", 1),
    ("start", "PUT /api/v1/namespaces/{namespace}/secrets", 1),
    ("resize", "POST /api/v1/namespaces/{namespace}/secrets", 1),
    ("resize", "DELETE /apis/coordination.k8s.io", 1),
    ("delete", "DELETE /apis/apps/v1/namespaces/{namespace}/statefulsets", 1),
    ("delete", "DELETE /api/v1/namespaces/{namespace}/secrets/sh.helm", 1),
    ("erase", "DELETE /api/v1/namespaces/{namespace}/persistentvolumeclaims", 1),
]


@dataclass(frozen=True)
class Operation:
    """A call. Before it the server runs, is stopped (False) or does not exist (None); `after` is its spec after it."""

    call: Call
    runs: bool | None
    after: dict[str, Any] | None = None


OPERATIONS = {
    "create": Operation(CREATE, None, {"wanted": "running", "ram_gb": 1}),
    "start": Operation(Call("PATCH", "/start"), False, {"wanted": "running", "ram_gb": 1}),
    "stop": Operation(Call("PATCH", "/stop"), True, {"wanted": "stopped", "ram_gb": 1}),
    "resize": Operation(Call("PATCH", "/", {"ram_gb": 3}), True, {"wanted": "running", "ram_gb": 3}),
    "delete": Operation(Call("DELETE", "/"), True),
    "erase": Operation(Call("DELETE", "/?disk=erase"), True),
}


@dataclass
class Killing:
    """Kills replicas in the middle of calls, and sends the calls again to the replica `other`."""

    real: Interfaces
    settings: Settings
    kubeconfig: str
    folder: Path
    new_id: Callable[[], int]
    other: Served

    def all(self, points: list[tuple[str, str, int]], at_once: int) -> list[str]:
        """Kill a replica at each point (see POINTS), `at_once` of them at a time, and return what went wrong."""

        def checked(point: tuple[str, str, int]) -> str | None:
            name, hold, number = point
            try:
                self.attempt(name, hold.format(namespace=self.settings.servers_namespace), number)
            except Exception as problem:
                return f"{name} killed at {hold} {number}: {problem!r}"
            return None

        # Many at once, because each waits for a Lease to expire.
        with ThreadPoolExecutor(at_once) as pool:
            return [problem for problem in pool.map(checked, points) if problem is not None]

    def prepared(self, operation: Operation) -> tuple[int, Path]:
        """Prepare a server for the operation; return its id and a folder."""
        id = self.new_id()
        folder = self.folder / str(id)
        folder.mkdir()
        if operation.runs is not None:
            body = {"ram_gb": 1, "disk_gb": 1, "start": False}
            assert self.other.answer(Call("POST", body=body), id).status_code == 201
            # A disk that was never used would not be kept.
            self.real.use_disk(id)
            if operation.runs:
                assert self.other.answer(Call("PATCH", "/start"), id).status_code == 200
        return id, folder

    def requests(self, name: str) -> int:
        """How many requests the operation makes if it is not interrupted."""
        id, folder = self.prepared(OPERATIONS[name])
        with replica(self.settings, self.kubeconfig, folder, OPERATIONS[name].call, id, "", 0) as whole:
            assert whole.answered.result().ok
            return len(whole.proxy.requests)

    def attempt(self, name: str, hold: str, number: int) -> None:
        """Kill a replica at one point and send the call again. Raises AssertionError if anything is wrong then."""
        operation = OPERATIONS[name]
        id, folder = self.prepared(operation)
        with replica(self.settings, self.kubeconfig, folder, operation.call, id, hold, number) as dying:
            staying = daemons(dying.process.pid)
            assert len(staying) == (1 if self.settings.helm_daemon else 0)
            assert not (staying and helms(id)), "the daemon was not asked"
            dying.kill()
            until(lambda: not helms(id) and not any(map(alive, staying)), 2)
            disk = self.real.cluster.server(id).claim
            answer = self.other.answer(operation.call, id)
        gone = name == "erase" and disk is None
        assert answer.ok or (gone and answer.status_code == 404), f"{answer.status_code} {answer.text}"
        assert not [status for status in statuses(self.real, id) if "pending" in status or status == "uninstalling"]
        uid = disk["metadata"]["uid"] if disk else None
        if name == "erase":
            until(lambda: objects(self.settings, id) == [], 20)
        elif name == "delete":
            until(lambda: objects(self.settings, id) == ["persistentvolumeclaims"], 20)
            kept = {disk["metadata"]["name"]: disk for disk in self.real.cluster.kept_disks()}[f"server-{id}"]
            assert kept["metadata"]["uid"] == uid
            assert KEPT_SINCE in kept["metadata"]["annotations"]
        else:
            assert objects(self.settings, id) == WHOLE
            assert statuses(self.real, id)[-1] == "deployed"
            claim = self.real.cluster.server(id).claim
            assert claim is not None
            assert uid in (None, claim["metadata"]["uid"])
            server = self.other.answer(Call("GET"), id).json()
            assert operation.after == {key: server[key] for key in ("wanted", "ram_gb")}


WHOLE = ["persistentvolumeclaims", "services", "services", "statefulsets"]


def objects(settings: Settings, id: int) -> list[str]:
    """The kind of each of a server's lasting objects."""
    kube, kinds = Kube(), []
    for group, kind in (("v1", "persistentvolumeclaims"), ("v1", "services"), ("apps/v1", "statefulsets")):
        items = kube.all(path(group, settings.servers_namespace, kind), labelSelector=f"gameserver/id={id}")
        kinds += [kind] * len(items)
    return kinds


@pytest.fixture
def killing(
    real: Interfaces, ways: Settings, kubeconfig: str, new_id: Callable[[], int], tmp_path: Path
) -> Iterator[Killing]:
    """What kills replicas, with another replica that takes over."""
    with serving(ways, kubeconfig, tmp_path, "other") as other:
        yield Killing(real, ways, kubeconfig, tmp_path, new_id, other)


def test_a_killed_replica_leaves_nothing_in_the_way(killing: Killing) -> None:
    """At each of the points helm or its daemon dies with the replica; the same call succeeds within 30 seconds."""
    assert killing.all(POINTS, len(POINTS)) == []


@pytest.mark.long
def test_a_replica_killed_at_any_request_leaves_nothing_in_the_way(killing: Killing) -> None:
    """The same at each request of a start, which is one helm upgrade, and every other request of all other calls."""
    points = [
        (name, "", number)
        for name in OPERATIONS
        for number in range(1, killing.requests(name) + 1, 1 if name == "start" else 2)
    ]
    assert len(points) >= 100
    assert killing.all(points, 10) == []
