"""A create over a claim that a person restored, which has none of the chart's labels and annotations."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.conftest import SIZES, Client
from tests.support.fakes import World

PATH = "/api/v1/server/7/"
REUSE = {**SIZES, "disk": "reuse"}


def restore(world: World, size: str = "10Gi", phase: str = "Bound", **spec: Any) -> None:
    """Restore a claim of server 7 as `kubectl apply` would."""
    world.claims[7] = {
        "metadata": {"name": "server-7", "namespace": "gameservers", "uid": "c-7", "creationTimestamp": "2026-01-31"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}, **spec},
        "status": {"phase": phase},
    }


def refused(client: Client, body: object, **more: Any) -> dict[str, Any]:
    """The problem of a create."""
    answer = client.post(PATH, body, **more)
    assert answer.json is not None
    assert not answer.json["success"]
    assert "Retry-After" not in answer.headers
    return {**answer.json, "status": answer.status_code}


def test_a_create_with_reuse_takes_it_up(client: Client, world: World) -> None:
    """The server gets the disk, and a later delete keeps and lists it as any other."""
    restore(world, storageClassName="", volumeName="by-hand")
    assert client.get("/api/v1/disk/").json == {"success": True, "disks": []}
    assert client.post(PATH, REUSE).status_code == 201
    assert client.get(PATH).status_code == 200
    assert client.delete(PATH).status_code == 200
    kept = client.get("/api/v1/disk/").json
    assert kept is not None
    assert [disk["id"] for disk in kept["disks"]] == [7]


def test_the_disk_becomes_the_releases(client: Client, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Helm installs only over objects that say that they are its release's."""
    restore(world)
    metadata = world.claims[7]["metadata"]
    monkeypatch.setattr(world, "apply", lambda id, values: None)
    client.post(PATH, REUSE)
    assert metadata["labels"] == {"gameserver/id": "7", "app.kubernetes.io/managed-by": "Helm"}
    assert metadata["annotations"]["meta.helm.sh/release-name"] == "server-7"
    assert metadata["annotations"]["meta.helm.sh/release-namespace"] == "gameservers"


def test_without_an_answer_about_the_disk_nothing_is_taken_up(client: Client, world: World) -> None:
    """The answer is the one for any kept disk."""
    restore(world)
    assert refused(client, SIZES)["type"] == "/problems/disk-kept"
    assert "labels" not in world.claims[7]["metadata"]


def test_a_customers_token_does_not_get_a_disk_of_an_unknown_customer(client: Client, world: World) -> None:
    """To that token there is no such disk, whatever it asks for."""
    restore(world)
    for body in (REUSE, {**SIZES, "disk": "erase"}, SIZES):
        answer = refused(client, body, token="acme")
        assert (answer["status"], answer["type"]) == (404, "/problems/server-not-found")
    assert "labels" not in world.claims[7]["metadata"]


def test_it_is_not_erased(client: Client, world: World) -> None:
    """The API erases only what it made or took over, and says so at once."""
    restore(world)
    answer = refused(client, {**SIZES, "disk": "erase"})
    assert (answer["status"], answer["type"]) == (409, "/problems/disk-not-usable")
    assert "kubectl -n gameservers delete pvc server-7" in answer["detail"]
    assert 7 in world.claims


@pytest.mark.parametrize(
    ("size", "smallest"), [("11Gi", 11), ("10400Mi", 11), ("12G", 12), ("0.02Ti", 21), ("11900000000", 12)]
)
def test_a_smaller_disk_is_refused_with_the_size(client: Client, world: World, size: str, smallest: int) -> None:
    """The size counts as whole GiB, rounded up, whatever its unit."""
    restore(world, size)
    answer = refused(client, REUSE)
    assert answer["type"] == "/problems/disk-cannot-shrink"
    assert answer["errors"] == {"disk_gb": [f"must not be smaller than {smallest}"]}
    assert client.post(PATH, {**REUSE, "disk_gb": smallest}).status_code == 201


def test_a_larger_disk_needs_a_class_that_can_grow(client: Client, world: World) -> None:
    """A claim without a class cannot grow."""
    restore(world, "9Gi", storageClassName="")
    assert refused(client, REUSE)["type"] == "/problems/disk-cannot-grow"


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ({"phase": "Lost", "volumeName": "v"}, "no longer exists"),
        ({"accessModes": ["ReadOnlyMany"]}, "ReadOnlyMany"),
        ({"phase": "Pending", "volumeName": "gone"}, "does not exist"),
        ({"phase": "Pending", "volumeName": "theirs"}, "other/server-7"),
    ],
)
def test_a_claim_that_cannot_be_used_is_refused_with_what_to_do(
    client: Client, world: World, broken: dict[str, Any], words: str
) -> None:
    """The answer is 409 without Retry-After, because waiting does not help. Nothing is taken up."""
    restore(world, **broken)
    holder = {"namespace": "other", "name": "server-7"}
    world.volumes["theirs"] = {"metadata": {}, "spec": {"accessModes": ["ReadWriteOnce"], "claimRef": holder}}
    answer = refused(client, REUSE)
    assert (answer["status"], answer["type"]) == (409, "/problems/disk-not-usable")
    assert words in answer["detail"]
    assert "labels" not in world.claims[7]["metadata"]


def test_a_claim_that_is_being_deleted_is_waited_for(client: Client, world: World) -> None:
    """It will be gone."""
    restore(world)
    world.claims[7]["metadata"]["deletionTimestamp"] = "2026-01-31T12:00:00Z"
    answer = client.post(PATH, REUSE)
    assert answer.json is not None
    assert answer.json["type"] == "/problems/disk-being-erased"
    assert "Retry-After" in answer.headers
