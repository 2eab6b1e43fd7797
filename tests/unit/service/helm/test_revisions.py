"""Helm's record of a release is read and repaired."""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any

import pytest

from service.errors import OperationFailed, OperationInProgress
from service.helm.charts import ChartContent
from service.helm.revisions import Release, Revisions, age, in_order
from service.kube.types import Object
from service.servers.values import Values
from tests.support.memory_kube import MemoryKube

SECRETS = "/api/v1/namespaces/games/secrets"


def secret(number: int, status: str, config: Any = None, **more: Any) -> Object:
    payload = {
        "name": "server-1",
        "version": number,
        "info": {"status": status, "notes": "…"},
        "config": config,
        **more,
    }
    packed = base64.b64encode(base64.b64encode(gzip.compress(json.dumps(payload).encode()))).decode()
    labels = {"name": "server-1", "owner": "helm", "status": status, "version": str(number), "modifiedAt": "1700000000"}
    metadata = {
        "name": f"sh.helm.release.v1.server-1.v{number}",
        "labels": labels,
        "creationTimestamp": "2023-01-01T00:00:00Z",
    }
    return {"metadata": metadata, "data": {"release": packed}, "type": "helm.sh/release.v1"}


class CachingKube(MemoryKube):
    """A Kubernetes API whose lists come from a cache that may be out of date."""

    def __init__(self) -> None:
        super().__init__()
        self.cache: list[Object] = []

    def all(self, path: str, *, metadata: bool = False, **query: str | int) -> list[Object]:
        self._ask("LIST", f"{path}@{query.get('resourceVersion')}")
        return self.cache if query.get("resourceVersion") == "0" else list(self.objects.values())


@pytest.fixture
def kube() -> CachingKube:
    return CachingKube()


@pytest.fixture
def revisions(kube: CachingKube) -> Revisions:
    return Revisions(kube, "games")


def statuses(releases: tuple[Object, ...]) -> list[tuple[str, str]]:
    return [(metadata["labels"]["version"], metadata["labels"]["status"]) for metadata in releases]


def test_revisions_that_the_cache_misses_are_read(kube: CachingKube, revisions: Revisions) -> None:
    """New revisions, and a changed status."""
    kube.cache = [secret(9, "superseded"), secret(10, "pending-upgrade")]
    for number, status in ((9, "superseded"), (10, "superseded"), (11, "failed"), (12, "deployed")):
        kube._stored(f"{SECRETS}/sh.helm.release.v1.server-1.v{number}", secret(number, status))
    current = statuses(revisions.of("server-1"))
    assert current == [("9", "superseded"), ("10", "superseded"), ("11", "failed"), ("12", "deployed")]
    assert not [request for request in kube.asked if request.endswith("@")]


def test_a_first_revision_is_read_although_the_cache_misses_it(kube: CachingKube, revisions: Revisions) -> None:
    """Every replica sees a create immediately."""
    kube._stored(f"{SECRETS}/sh.helm.release.v1.server-1.v1", secret(1, "deployed"))
    assert statuses(revisions.of("server-1")) == [("1", "deployed")]


def test_an_uninstalled_release_has_gone_although_the_cache_has_it(kube: CachingKube, revisions: Revisions) -> None:
    """Then a current list is read, because only that shows what remains."""
    kube.cache = [secret(1, "superseded"), secret(2, "deployed")]
    assert revisions.of("server-1") == ()


def test_revisions_are_in_the_order_of_their_numbers() -> None:
    """10 comes after 9."""
    ordered = in_order([secret(number, "superseded")["metadata"] for number in (10, 9, 11)])
    assert [metadata["labels"]["version"] for metadata in ordered] == ["9", "10", "11"]


def test_a_revision_has_the_values_that_it_was_given(kube: CachingKube, revisions: Revisions) -> None:
    """Without values, it has an empty dict; a missing revision is None.

    `keepPodInRevision` is not one of the server's values, and counts only in the revision that it names.
    """
    values: Values = {"server": {"options": {"motd": "ü\n"}}, "ramGb": 2}
    configs = (values, None, {**values, "keepPodInRevision": 3}, {**values, "keepPodInRevision": 3})
    for number, config in enumerate(configs, 1):
        kube._stored(f"{SECRETS}/sh.helm.release.v1.server-1.v{number}", secret(number, "deployed", config))
    read = [revisions.read(secret(number, "deployed")["metadata"]) for number in (1, 2, 3, 4, 5)]
    chart = ChartContent({}, {})
    assert read == [
        Release(values, False, "", chart),
        Release({}, False, "", chart),
        Release(values, True, "", chart),
        Release(values, False, "", chart),
        None,
    ]


def test_a_dead_revision_is_marked_as_failed_in_label_and_payload(kube: CachingKube, revisions: Revisions) -> None:
    """helm searches by the label and reads the payload. Nothing else changes."""
    path = f"{SECRETS}/sh.helm.release.v1.server-1.v3"
    kube._stored(path, secret(3, "pending-upgrade", {"ramGb": 2}))
    revisions.fail(secret(3, "pending-upgrade")["metadata"])
    stored = kube.objects[path]
    payload = json.loads(gzip.decompress(base64.b64decode(base64.b64decode(stored["data"]["release"]))))
    assert stored["metadata"]["labels"]["status"] == "failed"
    assert payload["info"]["status"] == "failed"
    assert payload["info"]["notes"] == "…"
    assert payload["config"] == {"ramGb": 2}
    assert stored["type"] == "helm.sh/release.v1"


def test_a_revision_that_another_process_writes_is_not_dead(kube: CachingKube, revisions: Revisions) -> None:
    """Its resourceVersion has changed, or it is no longer pending."""
    path = f"{SECRETS}/sh.helm.release.v1.server-1.v3"
    kube._stored(path, secret(3, "pending-upgrade"))

    def write_meanwhile(method: str, _: str) -> None:
        if method == "PUT":
            kube._stored(path, secret(3, "pending-upgrade"))

    kube.before = write_meanwhile
    with pytest.raises(OperationInProgress):
        revisions.fail(secret(3, "pending-upgrade")["metadata"])
    kube.back()
    kube._stored(path, secret(3, "deployed"))
    with pytest.raises(OperationInProgress):
        revisions.fail(secret(3, "pending-upgrade")["metadata"])


def test_a_malformed_record_is_an_error(kube: CachingKube, revisions: Revisions) -> None:
    """It is not read as empty values."""
    broken = {**secret(1, "deployed"), "data": {"release": "!!!"}}
    kube._stored(f"{SECRETS}/sh.helm.release.v1.server-1.v1", broken)
    with pytest.raises(OperationFailed):
        revisions.read(broken["metadata"])


def test_the_age_counts_from_helms_last_write() -> None:
    """Its time is in a label; without it, the Secret's creation counts."""
    metadata = secret(1, "pending-install")["metadata"]
    unmodified = dict(metadata, labels={"status": "pending-install"})
    assert age(unmodified) - age(metadata) == pytest.approx(1700000000 - 1672531200, abs=5)
