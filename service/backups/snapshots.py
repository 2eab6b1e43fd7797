"""Takes snapshots of servers' disks by Kubernetes' own interface, where the storage can.

https://kubernetes.io/docs/concepts/storage/volume-snapshots/

A VolumeSnapshot has no owner: it must not go with its server. Rights that this needs:

    volumesnapshots         get create delete    in the servers' namespace
    volumesnapshotclasses   list                 cluster-wide: which class is for a disk's CSI driver
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from service.kube.client import Conflict, Kube, path
from service.kube.types import Object
from service.servers.accessors import annotation

GROUP = "snapshot.storage.k8s.io/v1"
UID = "gameserver/uid"
"""Annotation of a VolumeSnapshot: the uid of the server whose disk it has."""
_DEFAULT = "snapshot.storage.kubernetes.io/is-default-class"


@dataclass(frozen=True)
class SnapshotState:
    """The state of a snapshot.

    Attributes:
        state: `missing`, `taking`, `taken` (what the disk had at that moment is safe), `ready` (it can be read) or
            `deleting`.
        why: Why it is not taken or ready yet, as the storage says; "" if it says nothing.
    """

    state: str
    why: str = ""

    @property
    def taken(self) -> bool:
        """Whether what is written to the disk from now on is not in it."""
        return self.state in ("taken", "ready")


def snapshot_state(snapshot: Object | None) -> SnapshotState:
    """The state of a VolumeSnapshot. Pure."""
    if snapshot is None:
        return SnapshotState("missing")
    status = snapshot.get("status") or {}
    why = str((status.get("error") or {}).get("message") or "")
    if "deletionTimestamp" in snapshot["metadata"]:
        return SnapshotState("deleting")
    if status.get("readyToUse"):
        return SnapshotState("ready")
    return SnapshotState("taken" if status.get("creationTime") else "taking", why)


class VolumeSnapshots:
    """The snapshots. Thread-safe. Every method may raise ClusterUnavailable and RefusedByCluster.

    Args:
        kube: The Kubernetes client.
        namespace: The servers' namespace.
        class_name: The VolumeSnapshotClass that the operator has set; "" to choose by the disk's CSI driver.
    """

    def __init__(self, kube: Kube, namespace: str, class_name: str = "") -> None:
        self._kube = kube
        self._namespace = namespace
        self._class_name = class_name

    def class_for(self, driver: str) -> str | None:
        """The class of snapshots of a disk; None if its storage takes none.

        Args:
            driver: The CSI driver of its volume; "" if it has none.
        """
        classes = self._kube.all(f"/apis/{GROUP}/volumesnapshotclasses") if driver else []
        fitting = [each for each in classes if each.get("driver") == driver]
        if self._class_name:
            fitting = [each for each in fitting if each["metadata"]["name"] == self._class_name]
        else:
            # One that keeps a deleted snapshot's content would keep that of each backup for ever.
            fitting = [each for each in fitting if each.get("deletionPolicy") == "Delete"]
        fitting.sort(key=lambda each: (annotation(each, _DEFAULT) != "true", each["metadata"]["name"]))
        return fitting[0]["metadata"]["name"] if fitting else None

    def take(self, name: str, claim: str, class_name: str, uid: str, labels: Mapping[str, str]) -> None:
        """Begin to take a snapshot, unless there is one with this name.

        Args:
            name: Its name.
            claim: The claim of the disk.
            class_name: See `class_for`.
            uid: The server's uid.
            labels: Its labels.
        """
        with suppress(Conflict):
            self._kube.create(
                path(GROUP, self._namespace, "volumesnapshots"),
                {
                    "apiVersion": GROUP,
                    "kind": "VolumeSnapshot",
                    "metadata": {"name": name, "labels": dict(labels), "annotations": {UID: uid}},
                    "spec": {
                        "volumeSnapshotClassName": class_name,
                        "source": {"persistentVolumeClaimName": claim},
                    },
                },
            )

    def look(self, name: str) -> SnapshotState:
        """The state of a snapshot."""
        return snapshot_state(self._kube.get(self._path(name)))

    def remove(self, name: str) -> bool:
        """Delete a snapshot; returns whether it is gone already."""
        if (found := self._kube.get(self._path(name), metadata=True)) is None:
            return True
        if "deletionTimestamp" not in found["metadata"]:
            with suppress(Conflict):
                self._kube.delete(self._path(name), uid=found["metadata"]["uid"])
        return False

    def _path(self, name: str) -> str:
        return path(GROUP, self._namespace, "volumesnapshots", name)
