"""The disk driver's service account has the rights that its sidecars need, and no others."""

from __future__ import annotations

import pytest

from tests.cluster.conftest import Cluster
from tests.cluster.files.test_rights import EVERYBODY

ACCOUNT = "system:serviceaccount:gameserver-disks:disks"
SNAPSHOTS = "snapshot.storage.k8s.io"
EVERYWHERE = {
    "persistentvolumes": {"get", "list", "watch", "create", "patch", "delete"},
    "persistentvolumeclaims": {"list", "watch", "update"},
    "persistentvolumeclaims/status": {"patch"},
    "events": {"create", "patch"},
    "storageclasses.storage.k8s.io": {"list", "watch"},
    f"volumesnapshots.{SNAPSHOTS}": {"get", "list", "watch", "update"},
    f"volumesnapshotcontents.{SNAPSHOTS}": {"get", "list", "watch", "patch"},
    f"volumesnapshotcontents.{SNAPSHOTS}/status": {"update", "patch"},
    f"volumesnapshotclasses.{SNAPSHOTS}": {"list", "watch"},
}


def rights(cluster: Cluster, namespace: str) -> dict[str, set[str]]:
    """The account's verbs in a namespace, including cluster-wide ones, by resource."""
    command = ["kubectl", "auth", "can-i", "--list", "--no-headers", f"--as={ACCOUNT}", "-n", namespace]
    verbs: dict[str, set[str]] = {}
    for line in cluster.run(*command).splitlines():
        resource, _, rest = line.partition(" ")
        if resource and resource.split(".")[0] not in EVERYBODY:
            verbs.setdefault(resource, set()).update(rest[rest.rindex("[") + 1 : rest.rindex("]")].split())
    return verbs


@pytest.mark.parametrize("namespace", ["gameservers", "gameserver-system", "gameserver-sftp", "kube-system"])
def test_in_other_namespaces(cluster: Cluster, namespace: str) -> None:
    """Volumes, claims, classes and snapshots, and events about them: no Secret, no pod, no node."""
    assert rights(cluster, namespace) == EVERYWHERE


def test_in_its_own_namespace(cluster: Cluster) -> None:
    """The Lease of the resizer, what the provisioner publishes, and its own pods."""
    assert rights(cluster, "gameserver-disks") == {
        **EVERYWHERE,
        "csistoragecapacities.storage.k8s.io": {"list", "watch", "create", "update", "delete"},
        "leases.coordination.k8s.io": {"get", "create", "update"},
        "pods": {"get"},
    }
