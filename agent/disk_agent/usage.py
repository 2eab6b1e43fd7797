"""How full the disks of this node are, as the record that the API reads. Pure."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

# etcd is small, and a ConfigMap is read whole. A disk takes about 100 bytes.
MAX_BYTES = 60_000
# A disk that has reached this share of its size is nearly full: the API says so.
NEARLY_FULL = 0.9
# A write that does not fit fails before the last block is used: after writes of 1 MiB, XFS still had nearly 1 MiB.
FULL_BYTES = 1 << 20
# A change of more than this share of the disk's size is written at once.
MOVED = 0.01


@dataclass(frozen=True)
class Use:
    """How full a disk is.

    Attributes:
        used: Bytes in use.
        size: Bytes of its file system; what the file system needs for itself is not part of them.
        full: Whether a write of ordinary size fails: no inode is left, or nearly no block.
    """

    used: int
    size: int
    full: bool


Uses = Mapping[str, Use | None]
"""By the volume's name. None: nothing limits the disk, because its folder is a part of the node's file system."""


def use(counts: os.statvfs_result) -> Use:
    """The use of a file system, from its statvfs(3)."""
    return Use(
        used=(counts.f_blocks - counts.f_bfree) * counts.f_frsize,
        size=counts.f_blocks * counts.f_frsize,
        # A file system that makes inodes as it needs them, such as btrfs, has no number of them.
        full=counts.f_bavail * counts.f_frsize < FULL_BYTES or (counts.f_files > 0 and counts.f_favail == 0),
    )


def moved(before: Uses, after: Uses) -> bool:
    """Whether a record of `before` is too far from `after` to wait for the next regular one."""
    return before.keys() != after.keys() or any(_moved(before[name], after[name]) for name in after)


def _moved(before: Use | None, after: Use | None) -> bool:
    if before is None or after is None:
        return before is not after
    passed = (before.size, before.full, _nearly_full(before)) != (after.size, after.full, _nearly_full(after))
    return passed or abs(after.used - before.used) > MOVED * after.size


def _nearly_full(disk: Use) -> bool:
    return disk.used >= NEARLY_FULL * disk.size


def record(uses: Uses, as_of: str) -> tuple[str, int]:
    """The record as JSON, of at most `MAX_BYTES`, and how many disks did not fit. Disks without a limit go first.

    Args:
        uses: The disks.
        as_of: When they were looked at (RFC 3339).
    """
    disks: dict[str, dict[str, Any]] = {}
    size = len(_json({"as_of": as_of, "disks": {}}))
    for name in sorted(uses, key=lambda name: (uses[name] is None, name)):
        disk = uses[name]
        entry = {name: asdict(disk) if disk else {"enforced": False}}
        # Without its braces and with a comma.
        size += len(_json(entry)) - 1
        if size > MAX_BYTES:
            break
        disks |= entry
    return _json({"as_of": as_of, "disks": disks}), len(uses) - len(disks)


def config_map(node: str, uid: str, namespace: str, text: str) -> dict[str, Any]:
    """The ConfigMap that holds a node's record. Kubernetes deletes it with its node, so its owner is the Node.

    Args:
        node: The node's name.
        uid: The uid of the Node object.
        namespace: The namespace of the servers.
        text: The record.
    """
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": f"disk-usage-{node}",
            "namespace": namespace,
            "labels": {"gameserver/disk-usage": "true"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid}],
        },
        "data": {"disks.json": text},
    }


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
