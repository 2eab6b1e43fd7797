"""A world comes from a scratch disk, because the server's disk has no room for two."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from backup_job.errors import JobFailed
from tests.unit.backup_job.disks import Ground, ground, look, make, texts
from tests.unit.backup_job.test_placing import NEW, OLD, PATHS, lay

PLACE: dict[str, Any] = {"command": "place", "operation": "one", "origin": "scratch"}


@pytest.fixture(name="disk")
def _disk() -> Iterator[Ground]:
    with ground() as made:
        yield made


def prepare(disk: Ground, paths: list[str]) -> tuple[Any, Any]:
    """The two worlds, and the new one on the scratch disk; what the old and the placed one look like."""
    make(disk.world, OLD)
    make(disk.places.source, NEW)
    disk.job("lay-out", operation="one", to="scratch", source="/source", paths=paths)
    if not paths:
        return look(disk.world), look(disk.places.source)
    with ground() as other:
        lay(other, paths=paths)
        other.job("place", operation="one", origin="beside", paths=paths)
        return look(disk.world), look(other.world)


@pytest.mark.parametrize("paths", [[], PATHS], ids=["world", "paths"])
@pytest.mark.parametrize("stride", [11, pytest.param(1, marks=pytest.mark.long)])
def test_killed_at_a_step(paths: list[str], stride: int) -> None:
    """A repeated Job ends as one that was not killed; with an empty scratch disk too, if it is told what to lay out."""
    step, killed = 0, True
    while killed:
        step += stride
        with ground() as disk:
            _old, placed = prepare(disk, paths)
            killed = disk.is_killed(PLACE | {"paths": paths}, step)
            if step % 2:
                make_empty(disk)
                disk.job(**PLACE, paths=paths, source="/source")
            assert disk.job(**PLACE, paths=paths) == {"before": False}
            assert look(disk.world) == placed, step
            assert [path.name for path in disk.own.iterdir()] == ["placed-one"]
            disk.job("clean", operations=["one"])
            assert list(disk.own.iterdir()) == []
    assert step > 20


def test_paths_that_were_not_there(disk: Ground) -> None:
    """With `absent`, what the other world does not have goes; a Job with an empty scratch disk does the same."""
    paths = ["new-only.txt", "both.txt"]
    for empty in (False, True):
        with ground() as other:
            make(other.world, NEW)
            make(other.places.source, OLD)
            restored = look(other.world)
            other.job("lay-out", operation="one", to="scratch", source="/source", paths=paths, absent=True)
            if empty:
                make_empty(other)
            other.job(**PLACE, paths=paths, source="/source", absent=True)
            kept = {name: entry for name, entry in restored.items() if name not in paths}
            assert look(other.world) == kept | {"both.txt": look(other.places.source)["both.txt"]}


def make_empty(disk: Ground) -> None:
    """As a new pod has its scratch disk."""
    with ground() as other:
        other.places.scratch.rename(other.root / "gone")
        disk.places.scratch.rename(other.places.scratch)
        (other.root / "gone").rename(disk.places.scratch)


def test_nothing_laid_out(disk: Ground) -> None:
    """With an empty scratch disk nothing of the world is touched."""
    make(disk.world, OLD)
    old = look(disk.world)
    with pytest.raises(JobFailed, match="nothing-laid-out"):
        disk.job(**PLACE)
    assert look(disk.world) == old


def test_customer_writes_meanwhile() -> None:
    """What he puts on the disk at any step is kept: in its place, or beside if it collides with what comes."""
    step, changes, planned = 0, 1, False
    while step < changes:
        step += 4
        with ground() as disk:
            prepare(disk, [])

            def meddle(number: int, _word: str, disk: Ground = disk, step: int = step) -> None:
                if number == step:
                    found = disk.own / "restore-one/journal.json"
                    if found.exists() and "open-out" not in found.read_text():
                        (disk.root / "planned").touch()
                    for name in ("both.txt", "mine.txt"):
                        (disk.world / ".part").write_text(f"mine {name}")
                        (disk.world / ".part").rename(disk.world / name)

            disk.job(**PLACE, meddle=meddle)
            changes = max(changes, disk.changes)
            left = texts(disk.world)
            # What is in its place already he has replaced himself.
            new = {text for text in texts(disk.places.source) if text.startswith("new")} - {"new both"}
            assert new <= left.keys(), step
            # What he puts there before it is planned what goes is a part of the world of before.
            if (disk.root / "planned").exists():
                planned = True
                assert {"mine both.txt", "mine mine.txt"} <= left.keys(), step
    assert planned
