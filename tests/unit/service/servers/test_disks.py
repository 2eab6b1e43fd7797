"""A disk's size, use and growth follow from its claim and its node's record."""

from __future__ import annotations

from typing import Any

import pytest

from service.servers.disks import Disk, Growth, disk_of, growth_of
from service.servers.usage import Usage

AS_OF = "2026-11-26T22:45:10Z"


def claim(asked: str = "10Gi", has: str | None = "10Gi", *conditions: dict[str, Any], **status: Any) -> dict[str, Any]:
    phase: dict[str, Any] = {"phase": "Bound", "capacity": {"storage": has}} if has else {"phase": "Pending"}
    return {
        "metadata": {"name": "server-1"},
        "spec": {"resources": {"requests": {"storage": asked}}},
        "status": {**phase, "conditions": list(conditions), **status},
    }


def condition(type_: str, message: str = "", status: str = "True") -> dict[str, Any]:
    return {"type": type_, "status": status, "message": message}


@pytest.mark.parametrize(
    ("of", "usage", "disk"),
    [
        (None, None, Disk(None, None, None, None)),
        (claim("10Gi", None), None, Disk(10, None, None, None)),
        (claim("20Gi", "10Gi"), None, Disk(10, None, None, None)),
        (claim("10Gi", "11Gi"), Usage(AS_OF, enforced=False), Disk(11, None, AS_OF, enforced=False)),
        (claim(), Usage(AS_OF, True, used=0, size=10 * 2**30), Disk(10, 0.0, AS_OF, enforced=True)),
        (claim(), Usage(AS_OF, True, used=5_555_555_555, size=10 * 2**30), Disk(10, 5.17, AS_OF, enforced=True)),
        # The MiB that Kubernetes wants for a growth that is taken back.
        (claim("10241Mi", "10241Mi"), None, Disk(10, None, None, None)),
    ],
)
def test_the_disk_of_a_claim(of: dict[str, Any] | None, usage: Usage | None, disk: Disk) -> None:
    """The size is the one that it has, or else the one that was asked for."""
    assert disk_of(of, usage) == disk


PENDING = condition("FileSystemResizePending", "Waiting for user to (re-)start a pod to finish file system resize")
NO_ROOM = "failed to expand pvc with rpc error: code = ResourceExhausted desc = the pool has 3 GiB left"


@pytest.mark.parametrize(
    ("of", "growth"),
    [
        (None, None),
        (claim("10Gi", None), None),
        (claim(), None),
        (claim("10Gi", "11Gi"), None),
        (claim("10241Mi", "10Gi", condition("NodeResizeError", "no room")), None),
        (claim("20Gi"), Growth(10, 20, None, at_start=False)),
        (claim("20Gi", "10Gi", PENDING), Growth(10, 20, None, at_start=True)),
        (
            claim("20Gi", allocatedResourceStatuses={"storage": "NodeResizePending"}),
            Growth(10, 20, None, at_start=True),
        ),
        (
            claim("20Gi", allocatedResourceStatuses={"storage": "ControllerResizeInProgress"}),
            Growth(10, 20, None, at_start=False),
        ),
        (
            claim("20Gi", "10Gi", PENDING, condition("NodeResizeError", NO_ROOM)),
            Growth(10, 20, "the pool has 3 GiB left", at_start=True),
        ),
        (
            # The error is of an earlier growth: the node has not tried this one yet.
            claim(
                *("20Gi", "10Gi", PENDING, condition("NodeResizeError", NO_ROOM)),
                allocatedResourceStatuses={"storage": "NodeResizePending"},
            ),
            Growth(10, 20, None, at_start=True),
        ),
        (
            claim("20Gi", "10Gi", condition("ControllerResizeError", "quota")),
            Growth(10, 20, "quota", at_start=False),
        ),
        (claim("20Gi", "10Gi", condition("NodeResizeError", "x", "False")), Growth(10, 20, None, at_start=False)),
        (
            claim("20Gi", allocatedResourceStatuses={"storage": "NodeResizeInfeasible"}),
            Growth(10, 20, "it cannot have this size", at_start=True),
        ),
    ],
)
def test_the_growth_of_a_claim(of: dict[str, Any] | None, growth: Growth | None) -> None:
    """It has ended once the disk has the size. Why it fails is told in the driver's words."""
    assert growth_of(of) == growth
