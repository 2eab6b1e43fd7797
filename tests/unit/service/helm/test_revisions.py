"""Helm's own record of a release, read and mended."""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any

import pytest

from service.errors import OperationFailed, OperationInProgress
from service.helm.revisions import Release, Revisions, age, in_order
from service.kube.types import Object
from tests.support.memory_kube import MemoryKube

SECRETS = "/api/v1/namespaces/games/secrets"


def secret(number: int, status: str, config: Any = None) -> Object:
    payload = {"name": "server-1", "version": number, "info": {"status": status, "notes": "…"}, "config": config}
    packed = base64.b64encode(base64.b64encode(gzip.compress(json.dumps(payload).encode()))).decode()
    labels = {"name": "server-1", "owner": "helm", "status": status, "version": str(number), "modifiedAt": "1700000000"}
    metadata = {
        "name": f"sh.helm.release.v1.server-1.v{number}",
        "labels": labels,
        "creationTimestamp": "2023-01-01T00:00:00Z",
    }
    return {"metadata": metadata, "data": {"release": packed}, "type": "helm.sh/release.v1"}


class Cached(MemoryKube):
    """Whose lists come from a cache that may be behind."""

    def __init__(self) -> None:
        super().__init__()
        self.cache: list[Object] = []

    def all(self, path: str, *, metadata: bool = False, **query: str | int) -> list[Object]:
        self._ask("LIST", f"{path}@{query.get('resourceVersion')}")
        return self.cache if query.get("resourceVersion") == "0" else list(self.objects.values())


@pytest.fixture
def kube() -> Cached:
    return Cached()


@pytest.fixture
def revisions(kube: Cached) -> Revisions:
    return Revisions(kube, "games")


def statuses(found: tuple[Object, ...]) -> list[tuple[str, str]]:
    return [(one["labels"]["version"], one["labels"]["status"]) for one in found]


def test_what_the_cache_has_missed_is_found(kube: Cached, revisions: Revisions) -> None:
    """New revisions, and a status that has changed."""
    kube.cache = [secret(9, "superseded"), secret(10, "pending-upgrade")]
    for number, status in ((9, "superseded"), (10, "superseded"), (11, "failed"), (12, "deployed")):
        kube._stored(f"{SECRETS}/sh.helm.release.v1.server-1.v{number}", secret(number, status))
    found = revisions.of("server-1")
    assert statuses(found) == [("9", "superseded"), ("10", "superseded"), ("11", "failed"), ("12", "deployed")]
    assert not [request for request in kube.asked if request.endswith("@")]


def test_a_first_revision_is_seen_though_the_cache_knows_none(kube: Cached, revisions: Revisions) -> None:
    """A create is seen by every replica at once."""
    kube._stored(f"{SECRETS}/sh.helm.release.v1.server-1.v1", secret(1, "deployed"))
    assert statuses(revisions.of("server-1")) == [("1", "deployed")]


def test_an_uninstalled_release_is_gone_though_the_cache_has_it(kube: Cached, revisions: Revisions) -> None:
    """And then a current list is asked for, as only that can tell what is left."""
    kube.cache = [secret(1, "superseded"), secret(2, "deployed")]
    assert revisions.of("server-1") == ()


def test_revisions_are_in_the_order_of_their_numbers() -> None:
    """Ten comes after nine."""
    found = in_order([secret(number, "superseded")["metadata"] for number in (10, 9, 11)])
    assert [one["labels"]["version"] for one in found] == ["9", "10", "11"]


def test_values_are_those_that_were_given(kube: Cached, revisions: Revisions) -> None:
    """None at all are an empty dict; a revision that is gone has no values.

    Which revision leaves the pod alone is no value of the server's, and true of that revision only.
    """
    given = {"server": {"options": {"motd": "ü\n"}}, "ramGb": 2}
    configs = (given, None, {**given, "keepPodInRevision": 3}, {**given, "keepPodInRevision": 3})
    for number, config in enumerate(configs, 1):
        kube._stored(f"{SECRETS}/sh.helm.release.v1.server-1.v{number}", secret(number, "deployed", config))
    found = [revisions.read(secret(number, "deployed")["metadata"]) for number in (1, 2, 3, 4, 5)]
    assert found == [
        Release(given, False, ""),
        Release({}, False, ""),
        Release(given, True, ""),
        Release(given, False, ""),
        None,
    ]


def test_a_dead_revision_is_marked_failed_in_both_pool(kube: Cached, revisions: Revisions) -> None:
    """The label is what helm searches by, the payload what it believes; nothing else changes."""
    where = f"{SECRETS}/sh.helm.release.v1.server-1.v3"
    kube._stored(where, secret(3, "pending-upgrade", {"ramGb": 2}))
    revisions.fail(secret(3, "pending-upgrade")["metadata"])
    stored = kube.objects[where]
    payload = json.loads(gzip.decompress(base64.b64decode(base64.b64decode(stored["data"]["release"]))))
    assert stored["metadata"]["labels"]["status"] == "failed"
    assert payload["info"]["status"] == "failed"
    assert payload["info"]["notes"] == "…"
    assert payload["config"] == {"ramGb": 2}
    assert stored["type"] == "helm.sh/release.v1"


def test_a_revision_that_somebody_else_writes_is_not_dead(kube: Cached, revisions: Revisions) -> None:
    """Its resourceVersion has moved on, or it is pending no more."""
    where = f"{SECRETS}/sh.helm.release.v1.server-1.v3"
    kube._stored(where, secret(3, "pending-upgrade"))

    def meanwhile(method: str, path: str) -> None:
        if method == "PUT":
            kube._stored(where, secret(3, "pending-upgrade"))

    kube.before = meanwhile
    with pytest.raises(OperationInProgress):
        revisions.fail(secret(3, "pending-upgrade")["metadata"])
    kube.back()
    kube._stored(where, secret(3, "deployed"))
    with pytest.raises(OperationInProgress):
        revisions.fail(secret(3, "pending-upgrade")["metadata"])


def test_a_broken_record_is_said_to_be_broken(kube: Cached, revisions: Revisions) -> None:
    """Rather than taken for empty values."""
    broken = {**secret(1, "deployed"), "data": {"release": "!!!"}}
    kube._stored(f"{SECRETS}/sh.helm.release.v1.server-1.v1", broken)
    with pytest.raises(OperationFailed):
        revisions.read(broken["metadata"])


def test_the_age_counts_from_helms_last_word() -> None:
    """Which is a label; a Secret without it counts from when it was made."""
    metadata = secret(1, "pending-install")["metadata"]
    made = dict(metadata, labels={"status": "pending-install"})
    assert age(made) - age(metadata) == pytest.approx(1700000000 - 1672531200, abs=5)
