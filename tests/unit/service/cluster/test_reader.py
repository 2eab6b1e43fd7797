"""What the reader writes itself: a claim that becomes the release's, and the Job that makes a disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from service.cluster.reader import ClusterReader
from service.errors import OperationInProgress
from service.kube.client import Conflict
from service.settings import Settings
from tests.support.memory_kube import MemoryKube

CLAIM = "/api/v1/namespaces/games/persistentvolumeclaims/server-7"
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


def test_two_calls_make_one_job(reader: ClusterReader, kube: MemoryKube) -> None:
    """The second finds the first one's."""
    job: dict[str, Any] = {"metadata": {"name": "server-7-disk"}, "spec": {"first": True}}
    reader.make_disk(job)
    reader.make_disk({**job, "spec": {}})
    assert kube.objects["/apis/batch/v1/namespaces/games/jobs/server-7-disk"]["spec"] == {"first": True}
