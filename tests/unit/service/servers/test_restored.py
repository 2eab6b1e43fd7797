"""A claim that a person restored is taken up, or refused with what to do about it."""

from __future__ import annotations

from typing import Any

import pytest

from service.servers.restored import is_taken_up, obstacle, taken_up

OWNERSHIP = {
    "labels": {"gameserver/id": "7", "app.kubernetes.io/managed-by": "Helm"},
    "annotations": {"meta.helm.sh/release-name": "server-7", "meta.helm.sh/release-namespace": "games"},
}


def claim(phase: str = "Bound", metadata: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "server-7", "uid": "c-7", "resourceVersion": "5", **(metadata or {})},
        "spec": {"accessModes": ["ReadWriteOnce"], **spec},
        "status": {"phase": phase},
    }


def volume(**holder: str) -> dict[str, Any]:
    spec = {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "10Gi"}, "storageClassName": "slow"}
    return {"metadata": {"name": "v"}, "spec": spec | ({"claimRef": holder} if holder else {})}


def waiting(size: str = "10Gi", storage_class: str = "slow", **spec: Any) -> dict[str, Any]:
    """A claim that names its volume and is not bound to it yet."""
    requests = {"requests": {"storage": size}}
    return claim("Pending", volumeName="v", storageClassName=storage_class, resources=requests, **spec)


def test_a_claim_becomes_the_releases() -> None:
    """It gets Helm's marks and the label of the server's id, and its fields lose the owners that would stop Helm."""
    status = {"manager": "kube-controller-manager", "operation": "Update", "subresource": "status"}
    other = {"manager": "velero", "operation": "Update", "fieldsV1": {"f:spec": {}}}
    metadata = taken_up(claim(metadata={"managedFields": [other, status]}), 7, "games")
    first = {
        "manager": "helm",
        "operation": "Apply",
        "apiVersion": "v1",
        "fieldsType": "FieldsV1",
        "fieldsV1": {"f:metadata": {"f:labels": {"f:app.kubernetes.io/managed-by": {}}}},
    }
    assert metadata == {**OWNERSHIP, "managedFields": [status, first], "resourceVersion": "5"}


SELECTED = {"volume.kubernetes.io/selected-node": "node1"}


def test_a_restored_claim_loses_the_node_that_was_chosen_before() -> None:
    """Velero restored it until July 2025, and nobody corrects it: https://github.com/velero-io/velero/issues/9053."""
    metadata = taken_up(claim(metadata={"annotations": {**SELECTED, "mine": "stays"}}), 7, "games")
    assert metadata["annotations"] == {**OWNERSHIP["annotations"], "volume.kubernetes.io/selected-node": None}


def test_a_claim_of_helm_keeps_its_owners() -> None:
    """A field that an operator has taken over from Helm stays with the operator, and the chosen node stays too."""
    helm = {"manager": "helm", "operation": "Apply", "fieldsV1": {}}
    assert taken_up(claim(metadata={"managedFields": [helm], "annotations": SELECTED}), 7, "games") == OWNERSHIP


def test_a_copy_under_another_name_is_not_taken_up() -> None:
    """Its label still has the id of the server from which it was copied."""
    assert is_taken_up(claim(metadata={"labels": {"gameserver/id": "7"}}), 7)
    assert not is_taken_up(claim(metadata={"labels": {"gameserver/id": "8"}}), 7)
    assert not is_taken_up(claim(), 7)


@pytest.mark.parametrize(
    ("usable", "its_volume"),
    [
        (claim(), None),
        (claim(accessModes=["ReadWriteOncePod"]), None),
        (claim(accessModes=["ReadOnlyMany", "ReadWriteMany"]), None),
        (claim(metadata={"annotations": {"meta.helm.sh/release-name": "server-7"}}), None),
        (claim("Pending", dataSource={"kind": "VolumeSnapshot", "name": "s"}), None),
        (waiting(), volume()),
        (waiting(), volume(namespace="games", name="server-7")),
        (waiting(), volume(namespace="games", name="server-7", uid="c-7")),
    ],
)
def test_a_claim_that_can_be_used_has_no_obstacle(usable: dict[str, Any], its_volume: dict[str, Any] | None) -> None:
    """It is bound, or will be."""
    assert obstacle(usable, its_volume, 7, "games") is None


@pytest.mark.parametrize(
    ("unusable", "its_volume", "words"),
    [
        (
            claim(metadata={"annotations": {"meta.helm.sh/release-name": "wiki"}}),
            None,
            ["Helm release wiki", "kubectl -n games annotate pvc server-7 meta.helm.sh/release-name-"],
        ),
        (
            claim(metadata={"ownerReferences": [{"kind": "Pod", "name": "copy"}]}),
            None,
            ["the Pod copy", "`ownerReferences`"],
        ),
        (claim(accessModes=["ReadOnlyMany"]), None, ["ReadOnlyMany", "ReadWriteOnce"]),
        (claim(volumeMode="Block"), None, ["`volumeMode: Block`"]),
        (claim("Lost", volumeName="v"), None, ["v, no longer exists", "kubectl -n games delete pvc server-7"]),
        (claim("Pending", volumeName="v"), None, ["v, which does not exist"]),
        (
            claim("Pending", volumeName="v"),
            {"metadata": {"deletionTimestamp": "2026-01-31T12:00:00Z"}, "spec": {}},
            ["is being deleted"],
        ),
        (waiting("10241Mi"), volume(), ["it asks for 10241Mi, and the volume has 10Gi"]),
        (waiting(storage_class=""), volume(), ['its storage class is "", and the volume\'s is "slow"']),
        (waiting(accessModes=["ReadWriteMany"]), volume(), ["does not offer ReadWriteMany"]),
        (
            waiting(),
            volume(namespace="elsewhere", name="server-7"),
            ["elsewhere/server-7", "`claimRef`"],
        ),
        (
            waiting(),
            volume(namespace="games", name="server-7", uid="c-6"),
            ["earlier claim", "kubectl patch pv v --type=json"],
        ),
    ],
)
def test_a_claim_that_cannot_be_used_is_refused_with_what_to_do(
    unusable: dict[str, Any], its_volume: dict[str, Any] | None, words: list[str]
) -> None:
    """The reason names the obstacle and what removes it."""
    reason = obstacle(unusable, its_volume, 7, "games")
    assert reason is not None
    assert [word for word in words if word not in reason] == []
