"""One server is read live, each object on demand."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest

from service.cluster.live import LiveDiskJob, LiveServer
from service.cluster.reader import ClusterReader
from service.servers.objects import pod_on_disk

Targets = Sequence[tuple[str, str, str]]


class FakeReader:
    """The part of ClusterReader that a LiveServer uses, with objects by "kind/name"; `reads` records the requests."""

    def __init__(self, **objects: Any) -> None:
        self.objects = objects
        self.reads: list[list[str]] = []

    def get_all(self, targets: Targets) -> list[Any]:
        names = [f"{kind}/{name}" for _, kind, name in targets]
        self.reads.append(names)
        return [self.objects.get(name) for name in names]

    def service(self, name: str) -> Any:
        return self.get_all([("v1", "services", name)])[0]

    def pods_of(self, job: str) -> list[Any]:
        self.reads.append([f"pods of {job}"])
        return list(self.objects.get("pods", []))

    def events_of(self, names: Sequence[str]) -> tuple[Any, ...]:
        self.reads.append([f"events of {name}" for name in names])
        return ()

    def server(self) -> LiveServer:
        return LiveServer(cast(ClusterReader, self), 7)

    def disk_job(self) -> LiveDiskJob:
        return LiveDiskJob(cast(ClusterReader, self), 7)


def test_different_servers_are_read_in_parallel() -> None:
    """A slow read, for example while Kubernetes hangs, does not delay reads of other servers."""
    both = threading.Barrier(2, timeout=5)

    class Slow(FakeReader):
        def get_all(self, targets: Targets) -> list[Any]:
            both.wait()
            return super().get_all(targets)

    with ThreadPoolExecutor(2) as pool:
        pods = list(pool.map(lambda slow: slow.server().pod, (Slow(), Slow())))
    assert pods == [None, None]


MAIN = [
    "statefulsets/server-7",
    "pods/server-7-0",
    "persistentvolumeclaims/server-7",
    "services/server-7",
    "services/server-7-sftp",
]
RCON = {"ports": [{"name": "rcon"}]}


@pytest.mark.parametrize(
    ("container", "service", "more_reads"),
    [
        # RCON is public, private or missing, and the server does not exist yet
        (RCON, RCON, []),
        (RCON, {"ports": [{"name": "primary"}]}, [["services/server-7-rcon"]]),
        ({"ports": [{"name": "primary"}]}, {"ports": [{"name": "primary"}]}, []),
        (RCON, None, []),
    ],
)
def test_all_objects_are_read_together_and_once(container: Any, service: Any, more_reads: list[list[str]]) -> None:
    """So one answer of the API never mixes two moments. Only a private RCON needs a second read."""
    reader = FakeReader(**{"statefulsets/server-7": {"spec": {"template": {"spec": {"containers": [container]}}}}})
    if service is not None:
        reader.objects["services/server-7"] = {"spec": service}
    server = reader.server()
    assert server.statefulset is server.statefulset is not None
    assert server.pod is None
    assert server.services == ({} if service is None else {"server-7": {"spec": service}})
    assert reader.reads == [MAIN, *more_reads]


@pytest.mark.parametrize(
    ("statefulset", "is_own"),
    [({"metadata": {"uid": "old"}}, True), ({"metadata": {"uid": "new"}}, False), (None, True)],
)
def test_a_pod_that_an_earlier_server_left_is_not_the_servers(statefulset: Any, is_own: bool) -> None:
    """It has the name until its game has ended. Without a StatefulSet it shows that the server is being deleted."""
    pod = {"metadata": {"uid": "p", "ownerReferences": [{"controller": True, "uid": "old"}]}}
    server = FakeReader(**{"statefulsets/server-7": statefulset, "pods/server-7-0": pod}).server()
    assert (server.pod, server.former_pod) == ((pod, None) if is_own else (None, pod))
    assert pod_on_disk(server) == pod


def test_without_a_job_no_pods_are_read() -> None:
    """A server with a disk costs one read."""
    claim = {"status": {"phase": "Bound"}}
    reader = FakeReader(**{"persistentvolumeclaims/server-7": claim})
    disk = reader.disk_job()
    assert (disk.statefulset, disk.claim, disk.pod) == (None, claim, None)
    assert reader.reads == [["jobs/server-7-disk", "persistentvolumeclaims/server-7"]]


def test_only_the_jobs_own_pod_counts() -> None:
    """An earlier Job with the same name may have left one. Events are read when they are needed."""

    def pod(name: str, owner: str) -> dict[str, Any]:
        return {"metadata": {"name": name, "ownerReferences": [{"controller": True, "uid": owner}]}}

    job = {"metadata": {"uid": "new"}}
    reader = FakeReader(**{"jobs/server-7-disk": job, "pods": [pod("a", "old"), pod("b", "new")]})
    disk = reader.disk_job()
    assert disk.statefulset == job
    assert disk.pod == pod("b", "new")
    assert disk.events == ()
    assert reader.reads[1:] == [
        ["pods of server-7-disk"],
        ["events of server-7", "events of server-7-disk", "events of b"],
    ]
