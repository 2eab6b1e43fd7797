"""What a server's claim requests, for a new disk and for one that exists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.charts.rendering import Refused, chart_that_finds, render

_LOOKUP = 'lookup "v1" "PersistentVolumeClaim" .Release.Namespace (include "gameserver.fullname" .)'


def requested(folder: Path, disk_gb: int, asked: str, has: str | None) -> str:
    """The size that the chart requests over a claim that asked for one size and has a volume of another, if any."""
    chart = chart_that_finds(_LOOKUP, "persistentvolumeclaim.yaml", folder)
    spec = {"accessModes": ["ReadWriteOnce"], "storageClassName": "c", "resources": {"requests": {"storage": asked}}}
    status: dict[str, Any] = {"capacity": {"storage": has}} if has else {}
    claim = {"spec": spec, "status": status}
    manifests = render("gameserver", {"diskGb": disk_gb, "existing": claim}, folder=chart)
    size: str = manifests["PersistentVolumeClaim/server-4711"]["spec"]["resources"]["requests"]["storage"]
    return size


@pytest.mark.parametrize(
    ("disk_gb", "asked", "has", "size"),
    [
        (10, "10Gi", "10Gi", "10Gi"),
        (20, "10Gi", "10Gi", "20Gi"),
        (1024, "1Ti", "1Ti", "1Ti"),
        # The storage may make a disk larger than requested, and an operator may use any unit.
        (10, "10Gi", "11Gi", "10Gi"),
        (1, "500M", "500M", "500M"),
        (2, "1500Mi", "1500Mi", "1500Mi"),
        (2, "512Mi", "512Mi", "2Gi"),
        (10, "10737418240", "10737418240", "10737418240"),
        # A growth to 20 that failed: to another size above the disk's own, and back to its own.
        (12, "20Gi", "10Gi", "12Gi"),
        (10, "20Gi", "10Gi", "10241Mi"),
        (10, "20Gi", "10737418240", "10241Mi"),
        # Later upgrades leave the added MiB alone, another growth does not, and may fail, too.
        (10, "10241Mi", "10Gi", "10241Mi"),
        (10, "10241Mi", "10241Mi", "10241Mi"),
        (11, "10241Mi", "10241Mi", "11Gi"),
        (10, "20Gi", "10241Mi", "10242Mi"),
    ],
)
def test_the_claim_requests_what_kubernetes_accepts(
    tmp_path: Path, disk_gb: int, asked: str, has: str, size: str
) -> None:
    """A growth that failed can be taken back to the disk's own size; the claim then requests a MiB more."""
    assert requested(tmp_path, disk_gb, asked, has) == size


@pytest.mark.parametrize(("asked", "has"), [("20Gi", None), ("20Gi", "20Gi"), ("20Gi", "11Gi"), ("1Ti", "1Ti")])
def test_a_disk_never_shrinks(tmp_path: Path, asked: str, has: str | None) -> None:
    """Below the size that the disk has, the chart says so, not Kubernetes."""
    with pytest.raises(Refused, match=r"diskGb is 10, but the disk already has .* and cannot shrink"):
        requested(tmp_path, 10, asked, has)


def test_the_size_of_the_disk_is_not_in_the_pod() -> None:
    """So a growth replaces no pod."""
    small, large = (render("gameserver", {"diskGb": size})["StatefulSet/server-4711"]["spec"] for size in (10, 20))
    assert small == large
