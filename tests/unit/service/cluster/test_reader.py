"""What the reader writes itself: a claim that becomes the release's, and the Job that makes a disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from service.cluster.index import ServerIndex
from service.cluster.reader import ClusterReader
from service.cluster.usage import DiskUsage
from service.errors import ClusterUnavailable, OperationInProgress
from service.kube.client import Conflict
from service.logs.lines import since
from service.servers.objects import RconPassword, ServerObjects
from service.settings import Settings
from tests.support.memory_kube import LabelledKube, MemoryKube

CLAIMS = "/api/v1/namespaces/games/persistentvolumeclaims"
CLAIM = f"{CLAIMS}/server-7"
SINCE = "2026-01-31T12:00:00Z"


@pytest.fixture
def kube() -> MemoryKube:
    return MemoryKube()


@pytest.fixture
def reader(kube: MemoryKube) -> ClusterReader:
    return ClusterReader(replace(Settings(), servers_namespace="games"), kube)


@pytest.mark.parametrize(("pod", "reached"), [("pod-a", True), ("pod-b", False)])
def test_another_pod_of_the_same_name_gets_no_command(
    reader: ClusterReader, kube: MemoryKube, monkeypatch: pytest.MonkeyPatch, pod: str, reached: bool
) -> None:
    """It may be another customer's. The pod that is there once the connection is made, is the one that it leads to."""
    asked: list[tuple[str, dict[str, str]]] = []

    @contextmanager
    def attached(path: str, seconds: float, **query: str) -> Iterator[str]:
        asked.append((path, query))
        # Until now there was another one.
        kube.create("/api/v1/namespaces/games/pods", {"metadata": {"name": "server-7-0", "uid": pod}})
        yield "attachment"

    monkeypatch.setattr(kube, "attached", attached, raising=False)
    if reached:
        with reader.attached(7, "pod-a", 1) as attachment:
            assert str(attachment) == "attachment"
    else:
        with pytest.raises(ConnectionError), reader.attached(7, "pod-a", 1):
            pass
    assert asked == [
        (
            "/api/v1/namespaces/games/pods/server-7-0/attach",
            {"container": "game", "stdin": "true", "stdout": "true", "stderr": "true"},
        )
    ]


def owner(manager: str, at: str, *fields: str) -> dict[str, Any]:
    """An entry of a Secret's managedFields."""
    data: dict[str, Any] = {f"f:{field}": {} for field in fields}
    return {"manager": manager, "time": at, "fieldsType": "FieldsV1", "fieldsV1": {"f:data": data} if fields else {}}


@pytest.mark.parametrize(
    ("owners", "since"),
    [
        ((), "2026-01-01T00:00:00Z"),
        # An upgrade to a newer chart writes the same password, with other labels.
        ((owner("helm", SINCE, "password"),), "2026-01-01T00:00:00Z"),
        ((owner("helm", "2026-01-01T00:00:00Z"), owner("kubectl-patch", SINCE, "password")), SINCE),
        # Helm owns the new one too after its next upgrade.
        ((owner("helm", "2026-02-01T00:00:00Z", "password"), owner("kubectl-patch", SINCE, "password")), SINCE),
        ((owner("helm", SINCE, "password"), owner("kubectl-label", SINCE), owner("x", SINCE, "other")), None),
    ],
)
def test_a_password_is_as_old_as_its_text_and_not_as_its_secret(
    reader: ClusterReader, kube: MemoryKube, owners: tuple[dict[str, Any], ...], since: str | None
) -> None:
    """It may have been replaced in place. Nothing else that is written to the Secret makes it newer."""
    created = "2026-01-01T00:00:00Z"
    metadata = {"name": "server-7-rcon", "creationTimestamp": created, "managedFields": list(owners)}
    kube.create("/api/v1/namespaces/games/secrets", {"metadata": metadata, "data": {"password": "c2VjcmV0"}})
    assert reader.rcon_password(7) == RconPassword("secret", since or created)


STATEFULSETS = "/apis/apps/v1/namespaces/games/statefulsets"
PODS = "/api/v1/namespaces/games/pods"


def leave_pod(kube: MemoryKube, *, replaced: bool) -> None:
    """A pod of the StatefulSet `old`, which has been deleted; with `replaced`, a new one has its name."""
    owner = [{"controller": True, "uid": "old"}]
    kube.create(PODS, {"metadata": {"name": "server-7-0", "uid": "pod-a", "ownerReferences": owner}})
    if replaced:
        kube.create(STATEFULSETS, {"metadata": {"name": "server-7", "uid": "new"}})


@pytest.mark.parametrize("replaced", [True, False])
def test_a_pod_that_a_deleted_server_left_has_no_run(reader: ClusterReader, kube: MemoryKube, replaced: bool) -> None:
    """Its lines, and what it uses, are not the next server's with the id; nor are they while there is none yet."""
    leave_pod(kube, replaced=replaced)
    assert reader.pod_run(7) is None
    measured: list[Any] = []
    reader._consumption.of = measured.append  # type: ignore[method-assign, assignment]
    reader.consumption(reader.server(7))
    assert measured == [None]


def test_the_own_pod_has_a_run(reader: ClusterReader, kube: MemoryKube) -> None:
    leave_pod(kube, replaced=False)
    kube.create(STATEFULSETS, {"metadata": {"name": "server-7", "uid": "old"}})
    assert reader.pod_run(7) == ("pod-a", 0)


@pytest.mark.parametrize(("pod", "text"), [("pod-a", "line"), ("pod-b", None)])
def test_no_line_is_taken_from_another_pod_of_the_same_name(
    reader: ClusterReader, kube: MemoryKube, monkeypatch: pytest.MonkeyPatch, pod: str, text: str | None
) -> None:
    """Kubernetes is asked by the name. The pod that is there afterwards was there before."""
    leave_pod(kube, replaced=False)
    monkeypatch.setattr(kube, "text", lambda path, **query: "line")
    assert reader.log_text(7, pod, tail=1, since=None) == text
    assert reader.pod_log_tail(7, pod, 1, False) == (text or "")


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ("999999d", "1970-01-01T00:00:00Z"),
        ("730000d", "1970-01-01T00:00:00Z"),
        ("0028-03-27T00:00:00Z", "1970-01-01T00:00:00Z"),
        ("9999-12-31T23:59:59-23:59", "9999-12-31T23:59:59Z"),
    ],
)
def test_any_time_since_which_a_client_asks_is_one_for_kubernetes(
    reader: ClusterReader, kube: MemoryKube, monkeypatch: pytest.MonkeyPatch, asked: str, sent: str
) -> None:
    """It refuses years that have less than four digits, or more."""
    queries: list[Any] = []
    monkeypatch.setattr(kube, "text", lambda path, **query: queries.append(query))
    time = since(asked, datetime.now(UTC))
    assert time is not None
    reader.log_text(7, "pod", tail=None, since=time // 10**9)
    assert queries[0]["sinceTime"] == sent


def test_the_watches_tell_the_two_pods_apart(kube: MemoryKube) -> None:
    """As a live read does. Until there is another server, the pod shows that one is being deleted."""
    index = ServerIndex(kube, "games", {}, DiskUsage(kube, "games"))
    pod = {"metadata": {"uid": "p", "ownerReferences": [{"controller": True, "uid": "old"}]}}
    statefulsets: dict[str, Any] = {}
    index._pods.of = lambda id: {"server-7-0": pod}  # type: ignore[method-assign]
    index._statefulsets.of = lambda id: statefulsets  # type: ignore[method-assign]
    for uid, own in ((None, True), ("old", True), ("new", False)):
        statefulsets = {"server-7": {"metadata": {"uid": uid}}} if uid else {}
        server = index.server(7)
        assert server is not None
        assert (server.pod, server.former_pod) == ((pod, None) if own else (None, pod))


@pytest.mark.parametrize(("writes", "erased"), [(0, True), (2, True), (3, False)])
def test_an_erase_is_repeated_while_others_write_to_the_claim(
    reader: ClusterReader, kube: MemoryKube, writes: int, erased: bool
) -> None:
    """As Kubernetes does while it provisions the disk."""
    kube.create(CLAIMS, {"metadata": {"name": "server-7", "labels": {"gameserver/id": "7"}}})
    left = [None] * writes

    def write(method: str, path: str) -> None:
        if method == "DELETE" and left:
            left.pop()
            kube._stored(CLAIM, kube.objects[CLAIM])

    kube.before = write
    with nullcontext() if erased else pytest.raises(OperationInProgress):
        reader.erase_disk(7, lambda: None)
    assert (CLAIM not in kube.objects) is erased


def test_an_erase_that_is_repeated_confirms_the_lease_each_time(reader: ClusterReader, kube: MemoryKube) -> None:
    """The claim may have been written to by whoever has the Lease now, and uses the disk."""
    kube.create(CLAIMS, {"metadata": {"name": "server-7", "labels": {"gameserver/id": "7"}}})
    held = [True, False]

    def write(method: str, path: str) -> None:
        if method == "DELETE":
            kube._stored(CLAIM, kube.objects[CLAIM])

    def confirm() -> None:
        if not held.pop(0):
            raise ClusterUnavailable

    kube.before = write
    with pytest.raises(ClusterUnavailable):
        reader.erase_disk(7, confirm)
    assert CLAIM in kube.objects


class Watches:
    """What the watches know of one server, in place of the reader's index."""

    def __init__(self, objects: ServerObjects | None, *, complete: bool = True) -> None:
        self.objects, self.complete = objects, complete

    def is_complete(self) -> bool:
        return self.complete

    def server(self, id: int) -> ServerObjects | None:
        return self.objects


SERVICES = "/api/v1/namespaces/games/services"


@pytest.mark.parametrize(
    ("phase", "uid", "complete", "reads"),
    [
        ("Bound", "one", True, 1),
        # The disk may have got a node since, the server may be another one, and changes may have been missed
        ("Pending", "one", True, 6),
        ("Bound", "other", True, 7),
        ("Bound", "one", False, 6),
    ],
)
def test_for_an_address_one_object_is_read(
    reader: ClusterReader, kube: MemoryKube, phase: str, uid: str, complete: bool, reads: int
) -> None:
    """The rest is what the watches know, if it is certainly of the same server; otherwise all is read."""
    seen = {"metadata": {"uid": uid}, "spec": {"ports": [{"name": "primary", "nodePort": 1}]}}
    claim = {
        "metadata": {"annotations": {"volume.kubernetes.io/selected-node": "a"}},
        "status": {"phase": phase},
        "spec": {},
    }
    watched = ServerObjects(7, statefulset={"of": "the watches"}, claim=claim, services={"server-7": seen})
    reader._index = Watches(watched, complete=complete)  # type: ignore[assignment]
    node = {"metadata": {"name": "a"}, "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]}}
    kube.lists.append([node])
    kube.create(SERVICES, {"metadata": {"name": "server-7", "uid": "one"}, "spec": {"ports": [{"name": "primary"}]}})
    kube.asked.clear()
    addressed = reader.addressed(7)
    assert addressed.services["server-7"]["spec"] == {"ports": [{"name": "primary"}]}
    assert (addressed.statefulset == {"of": "the watches"}) == (reads == 1)
    assert len([each for each in kube.asked if "/namespaces/games/" in each]) == reads


def test_a_server_that_the_watches_do_not_know_has_an_address(reader: ClusterReader, kube: MemoryKube) -> None:
    """It was made a moment ago, by another replica."""
    reader._index = Watches(None)  # type: ignore[assignment]
    kube.create(SERVICES, {"metadata": {"name": "server-7"}, "spec": {"ports": []}})
    assert set(reader.addressed(7).services) == {"server-7"}


def restore(kube: MemoryKube) -> None:
    """Create the claim of server 7 as a person does."""
    kube.create(CLAIM.rpartition("/")[0], {"metadata": {"name": "server-7"}, "spec": {}})


def test_a_reused_claim_is_the_releases(reader: ClusterReader, kube: MemoryKube) -> None:
    """It has Helm's marks and the server's id. A missing claim is no error."""
    reader.reuse_disk(7, SINCE)
    restore(kube)
    kube.merge(CLAIM, {"metadata": {"annotations": {"gameserver/kept-since": SINCE}}})
    reader.reuse_disk(7, SINCE)
    metadata = kube.objects[CLAIM]["metadata"]
    assert metadata["labels"] == {"gameserver/id": "7", "app.kubernetes.io/managed-by": "Helm"}
    assert metadata["annotations"] == {
        "gameserver/reused-since": SINCE,
        "meta.helm.sh/release-name": "server-7",
        "meta.helm.sh/release-namespace": "games",
    }


@pytest.mark.parametrize(("conflicts", "fails"), [(2, False), (3, True)])
def test_a_claim_that_others_change_is_read_again(
    reader: ClusterReader, kube: MemoryKube, conflicts: int, fails: bool
) -> None:
    """Its owners of fields are replaced only as they were read. Others win three times at most."""
    restore(kube)
    left = conflicts

    def before(method: str, path: str) -> None:
        nonlocal left
        if method == "PATCH" and left:
            left -= 1
            raise Conflict(path)

    kube.before = before
    if fails:
        with pytest.raises(OperationInProgress):
            reader.reuse_disk(7, SINCE)
    else:
        reader.reuse_disk(7, SINCE)
        assert kube.objects[CLAIM]["metadata"]["labels"]["gameserver/id"] == "7"


@pytest.mark.parametrize(
    ("pod", "waits"),
    [
        ({}, True),
        # It has its disk, which cannot go before it has ended.
        ({"nodeName": "node-1"}, False),
        # It restores a backup on trial, to a disk of its own.
        ({"volumes": [{"name": "tmp", "emptyDir": {}}]}, False),
    ],
)
def test_a_pod_without_a_node_waits_for_the_disk(pod: dict[str, Any], waits: bool) -> None:
    """It is the one of a Job of a backup or restore, and gets whichever disk has the name when it gets a node."""
    kube = LabelledKube()
    reader = ClusterReader(replace(Settings(), servers_namespace="games"), kube)
    volumes = [{"name": "world", "persistentVolumeClaim": {"claimName": "server-7"}}, {"name": "tmp", "emptyDir": {}}]
    labels = {"gameserver/backup-job": "7"}
    kube.create(PODS, {"metadata": {"name": "op-1", "labels": labels}, "spec": {"volumes": volumes, **pod}})
    assert (reader.disk_is_awaited(7), reader.disk_is_awaited(8)) == (waits, False)


def test_two_calls_make_one_job(reader: ClusterReader, kube: MemoryKube) -> None:
    """The second finds the first one's."""
    job: dict[str, Any] = {"metadata": {"name": "server-7-disk"}, "spec": {"first": True}}
    reader.make_disk(job)
    reader.make_disk({**job, "spec": {}})
    assert kube.objects["/apis/batch/v1/namespaces/games/jobs/server-7-disk"]["spec"] == {"first": True}
