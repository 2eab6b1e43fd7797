"""A server's disk: its size, how full it is and how it grows, from its claim and its node's record. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.kube.quantity import bytes_of, gib_of
from service.kube.types import Object
from service.servers.accessors import condition, deleted_at, is_bound
from service.servers.usage import Usage

# Kubernetes takes a failed growth back only to a size above the disk's own. So the chart asks for a MiB more, which is
# not counted, even after some such growths. (charts/gameserver/templates/persistentvolumeclaim.yaml)
_UNCOUNTED = 64 * 2**20

_RESIZE_ERRORS = ("NodeResizeError", "ControllerResizeError")


@dataclass(frozen=True)
class Disk:
    """A server's disk as the API shows it; None where nothing is known.

    Attributes:
        size_gb: Its size in GiB, rounded up; the size that was asked for until there is a volume.
        used_gb: How much of it is used, in GiB, with two decimals.
        as_of: When the node's agent looked at it (RFC 3339).
        enforced: Whether its size is a limit.
    """

    size_gb: int | None
    used_gb: float | None
    as_of: str | None
    enforced: bool | None


@dataclass(frozen=True)
class Growth:
    """A growth that has not ended.

    Attributes:
        from_gb, to_gb: The size that the disk has, and the one that was asked for, in GiB.
        failure: Why the storage has failed to grow the disk; None if it has not.
        at_start: Whether all that is left is to be done when a node mounts the disk.
    """

    from_gb: int
    to_gb: int
    failure: str | None
    at_start: bool


def disk_of(claim: Mapping[str, Any] | None, usage: Usage | None) -> Disk:
    """What the API shows of the claim's disk."""
    size_gb = None if claim is None else capacity_gb(claim) or claim_gb(claim)
    if usage is None:
        return Disk(size_gb, None, None, None)
    used_gb = None if usage.used is None else round(usage.used / 2**30, 2)
    return Disk(size_gb, used_gb, usage.as_of, usage.enforced)


def ends_with_pod(claim: Object | None, pod: Object | None) -> bool:
    """Whether Kubernetes deletes the claim, and erases its disk, as soon as the pod has ended.

    https://kubernetes.io/docs/concepts/storage/persistent-volumes/#storage-object-in-use-protection
    """
    return deleted_at(claim) is not None and pod is not None and deleted_at(pod) is None


def volume_of(claim: Mapping[str, Any] | None) -> str:
    """The name of the claim's PersistentVolume; "" if it has none."""
    return str((claim or {}).get("spec", {}).get("volumeName") or "")


def claim_gb(claim: Mapping[str, Any]) -> int:
    """The size that a claim requests, in GiB, rounded up."""
    return gib_of(_requested(claim), ignoring=_UNCOUNTED)


def capacity_gb(claim: Mapping[str, Any]) -> int | None:
    """The size of the claim's volume, in GiB, rounded up; None if it has none."""
    capacity = _capacity(claim)
    return None if capacity is None else gib_of(capacity, ignoring=_UNCOUNTED)


def size_bytes(claim: Mapping[str, Any]) -> int:
    """The size of the claim's volume in bytes, or else the requested size."""
    return bytes_of(_capacity(claim) or _requested(claim))


def growth_of(claim: Mapping[str, Any] | None) -> Growth | None:
    """The growth of the claim's disk that has not ended; None if there is none.

    https://kubernetes.io/docs/concepts/storage/persistent-volumes/#recovering-from-failure-when-expanding-volumes
    """
    if claim is None or (size := capacity_gb(claim)) is None or (wanted := claim_gb(claim)) <= size:
        return None
    status = (claim["status"].get("allocatedResourceStatuses") or {}).get("storage", "")
    pending = condition(claim, "FileSystemResizePending").get("status") == "True"
    return Growth(size, wanted, _failure(claim, status), pending or status.startswith("NodeResize"))


def _failure(claim: Mapping[str, Any], status: str) -> str | None:
    for name in _RESIZE_ERRORS:
        error = condition(claim, name)
        # The node has not tried yet, so its error is of an earlier growth.
        is_old = name == "NodeResizeError" and status == "NodeResizePending"
        if error.get("status") == "True" and not is_old:
            # gRPC's own words come before the driver's.
            message = re.split(r"\bdesc = ", str(error.get("message") or ""))[-1].strip()
            return message[:300] or "it does not say why"
    return "it cannot have this size" if status.endswith("Infeasible") else None


def _requested(claim: Mapping[str, Any]) -> str:
    return str(claim.get("spec", {}).get("resources", {}).get("requests", {}).get("storage", "0"))


def _capacity(claim: Mapping[str, Any]) -> str | None:
    return (claim["status"].get("capacity") or {}).get("storage") if is_bound(claim) else None
