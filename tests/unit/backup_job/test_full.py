"""A restore on a disk that is full, or becomes it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from backup_job.errors import JobFailed
from tests.unit.backup_job.disks import UID, Ground, as_customer, ground, look, make
from tests.unit.backup_job.test_placing import OLD, PLACE, UNDO, lay
from tests.unit.backup_job.test_restoring import STORE, _init

# A file system of a size of its own is mounted.
pytestmark = pytest.mark.tools
MIB = 1 << 20


@contextmanager
def small(size: int = 4 * MIB) -> Iterator[Ground]:
    """Volumes of which the server's disk has this size."""
    with ground() as made:
        options = f"size={size},uid={UID},gid={UID},mode=755"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", made.world], check=True)
        try:
            yield made
        finally:
            subprocess.run(["umount", made.world], check=True)


def fill(disk: Ground) -> None:
    """Write until nothing fits, as a customer would; to be called as the ordinary user."""
    with (disk.world / ".filler").open("ab", buffering=0) as file:
        for size in (MIB, 4096):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue


def noise(size: int) -> str:
    return "".join(f"{number:08}" for number in range(size // 8))


def test_too_large_to_lay_out() -> None:
    """A copy and a restore that do not fit leave nothing, and today's world is as it was."""
    with small() as disk:
        make(disk.places.source, {f"f{number}": noise(MIB) for number in range(6)})
        as_customer(lambda: _init(disk))
        stored = disk.job("backup", **STORE, backup="b-1", settings={}, source="/source")["snapshot"]
        make(disk.world, OLD)
        old = look(disk.world)
        for what in ({"source": "/source"}, {**STORE, "snapshot": stored}):
            with pytest.raises(JobFailed, match="too-large"):
                disk.job("inspect", **what)
            with pytest.raises(JobFailed, match="disk-full"):
                disk.job("lay-out", operation="one", to="beside", **what)
            assert look(disk.world) == old
            assert list(disk.own.iterdir()) == []
        disk.job("lay-out", operation="one", to="scratch", source="/source")
        with pytest.raises(JobFailed, match="too-large"):
            disk.job("place", operation="one", origin="scratch")
        assert look(disk.world) == old
        assert list(disk.own.iterdir()) == []


def test_no_room_for_two() -> None:
    """A world that does not fit beside the old one comes from the scratch disk."""
    with small() as disk:
        make(disk.world, {f"old{number}": noise(MIB) for number in range(3)})
        make(disk.places.source, {f"new{number}": noise(MIB) for number in range(3)})
        assert not disk.job("inspect", source="/source")["fits_beside"]
        disk.job("lay-out", operation="one", to="scratch", source="/source")
        assert disk.job("place", operation="one", origin="scratch") == {"before": False}
        assert look(disk.world) == look(disk.places.source)


@pytest.mark.parametrize("job", [PLACE, UNDO], ids=["place", "undo"])
@pytest.mark.parametrize("stride", [5, pytest.param(2, marks=pytest.mark.long)])
def test_full_at_any_step(job: dict[str, Any], stride: int) -> None:
    """A disk that a customer fills at any step stops nothing, or with a clear code; once there is room it goes on."""
    step, made = 0, 1
    while step < made:
        step += stride
        with small(2 * MIB) as disk:
            old, new = lay(disk)
            if job is UNDO:
                disk.job(**PLACE)

            def meddle(number: int, _word: str, disk: Ground = disk, step: int = step) -> None:
                if number == step:
                    fill(disk)

            code = ""
            try:
                disk.job(meddle=meddle, **job)
                made = disk.changes
            except JobFailed as failed:
                code, made = failed.code, step + 1
            (disk.world / ".filler").unlink(missing_ok=True)
            disk.job(**job)
            kept = look(disk.own / f"before-{job['operation']}/world")
            kept.pop(".filler", None)
            assert code in ("", "disk-full")
            assert (look(disk.world), kept) == ((new, old) if job is PLACE else (old, new))
