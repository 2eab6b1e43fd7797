"""A world is put into its place, and back: whole or in parts, killed at any step, with a customer who writes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from backup_job.errors import JobFailed
from tests.unit.backup_job.disks import Closed, Ground, Link, ground, look, make, texts

OLD = {
    "both.txt": "old both",
    "old-only.txt": "old only",
    "world": {"region": {"r.0": "old region"}, "level.dat": "old level"},
    "was-folder": {"x": "old x"},
    "link": Link("/etc/passwd"),
    "locked": Closed({"in": "old locked"}, 0o555),
    "shut": Closed({}, 0),
}
NEW = {
    "both.txt": "new both",
    "new-only.txt": "new only",
    "world": {"region": {"r.0": "new region", "r.1": "new region 1"}},
    "was-folder": "new file",
    "link": {"not": "new link"},
    "locked": Closed({"in": "new locked"}, 0o500),
    "new\nfolder*": {"a": "new a"},
}


@pytest.fixture(name="disk")
def _disk() -> Iterator[Ground]:
    with ground() as made:
        yield made


def lay(disk: Ground, old: dict[str, Any] = OLD, new: dict[str, Any] = NEW, **request: Any) -> tuple[Any, Any]:
    """A server's world, and another one laid out for operation `one`; what both look like."""
    make(disk.world, old)
    make(disk.places.source, new)
    disk.job("lay-out", operation="one", to="beside", source="/source", **request)
    return look(disk.world), look(disk.own / "restore-one/world")


def settled(disk: Ground, operation: str) -> None:
    """Nothing of ours but the world of before is left."""
    assert [path.name for path in disk.own.iterdir()] == [f"before-{operation}"]


def test_whole_world(disk: Ground) -> None:
    """The new world is in its place with permissions and all; the old one is whole in before-…; the answer says so."""
    old, new = lay(disk)
    assert disk.job("place", operation="one", origin="beside") == {"before": True}
    assert look(disk.world) == new
    assert look(disk.own / "before-one/world") == old
    settled(disk, "one")


def test_undo_and_its_undo(disk: Ground) -> None:
    """An undo brings the old world back and keeps the new one, so that it can be undone, again and again."""
    old, new = lay(disk)
    disk.job("place", operation="one", origin="beside")
    assert disk.job("undo", operation="two", before="one") == {"before": True}
    assert look(disk.world) == old
    assert look(disk.own / "before-two/world") == new
    settled(disk, "two")
    disk.job("undo", operation="three", before="two")
    assert (look(disk.world), look(disk.own / "before-three/world")) == (new, old)
    settled(disk, "three")


PATHS = ["world/region", "both.txt", "new\nfolder*/a"]


def test_paths(disk: Ground) -> None:
    """Only the paths change; a folder on the way that is missing comes; all is undone together."""
    old, _new = lay(disk, paths=PATHS)
    disk.job("place", operation="one", origin="beside", paths=PATHS)
    placed = look(disk.world)
    assert placed["world"]["in"] == {
        "region": {"mode": 0o755, "in": _texts({"r.0": "new region", "r.1": "new region 1"})},
        **_texts({"level.dat": "old level"}),
    }
    assert placed["both.txt"]["text"] == "new both"
    assert placed["new\nfolder*"] == {"mode": 0o755, "in": _texts({"a": "new a"})}
    assert {name: placed[name] for name in OLD if name not in ("world", "both.txt")} == {
        name: old[name] for name in OLD if name not in ("world", "both.txt")
    }
    disk.job("undo", operation="two", before="one")
    assert look(disk.world) == old
    disk.job("undo", operation="three", before="two")
    assert look(disk.world) == placed


@pytest.mark.parametrize("paths", [["world/region", "new-only.txt", "world/level.dat"], ["new-only.txt"], ["no/where"]])
def test_paths_that_were_not_there(disk: Ground, paths: list[str]) -> None:
    """With `absent`, what the other world does not have goes, and is kept beside; what it has comes; the rest stays."""
    # The server has the restored world; the one of before comes from elsewhere.
    world = {"region": {"r.0": "new region", "r.1": "new region 1"}, "mine": "mine"}
    restored, _before = lay(disk, old={**NEW, "world": world}, new=OLD, paths=paths, absent=True)
    disk.job("place", operation="one", origin="beside", paths=paths)
    placed = look(disk.world)
    assert ("new-only.txt" in placed) == ("new-only.txt" not in paths)
    assert placed["world"]["in"]["mine"]["text"] == "mine"
    if "world/region" in paths:
        assert placed["world"]["in"]["region"]["in"] == _texts({"r.0": "old region"})
        assert placed["world"]["in"]["level.dat"]["text"] == "old level"
    else:
        assert placed["world"] == restored["world"]
    if "new-only.txt" in paths:
        assert look(disk.own / "before-one/world")["new-only.txt"]["text"] == "new only"
    disk.job("undo", operation="two", before="one")
    assert look(disk.world) == restored


def _texts(files: dict[str, str]) -> dict[str, Any]:
    return {name: {"mode": 0o644, "text": text} for name, text in files.items()}


def test_a_file_where_a_folder_has_to_be(disk: Ground) -> None:
    """A path in a folder, where the world has a file or a symlink: that is kept with the world of before."""
    for blocked in ("a file", Link("/etc")):
        with ground() as other:
            old, _new = lay(other, old={"a": blocked}, new={"a": {"b": {"c": "new"}}}, paths=["a/b/c"])
            other.job("place", operation="one", origin="beside", paths=["a/b/c"])
            assert look(other.world) == {"a": {"mode": 0o755, "in": {"b": {"mode": 0o755, "in": _texts({"c": "new"})}}}}
            assert look(other.own / "before-one/world") == old
            other.job("undo", operation="two", before="one")
            assert look(other.world) == old


def test_nothing_is_laid_out(disk: Ground) -> None:
    """Without a world that is laid out as a whole, nothing changes."""
    make(disk.world, OLD)
    old = look(disk.world)
    with pytest.raises(JobFailed, match="nothing-laid-out"):
        disk.job("place", operation="one", origin="beside")
    make(disk.own, {"restore-one": {"tree": {"world": {"half": "half"}}}})
    with pytest.raises(JobFailed, match="nothing-laid-out"):
        disk.job("place", operation="one", origin="beside")
    with pytest.raises(JobFailed, match="before-missing"):
        disk.job("undo", operation="two", before="one")
    assert look(disk.world) == old


# --- Kills ---


Job = dict[str, Any]
Case = tuple[Callable[[Ground], tuple[Any, Any]], Job]


def _laid(disk: Ground) -> tuple[Any, Any]:
    old, new = lay(disk)
    return new, old


def _paths_laid(disk: Ground) -> tuple[Any, Any]:
    lay(disk, paths=PATHS)
    with ground() as other:
        lay(other, paths=PATHS)
        other.job("place", operation="one", origin="beside", paths=PATHS)
        return look(other.world), look(other.own / "before-one/world")


#: A folder that its owner has closed is opened, and that is written down, before anything moves.
CLOSED_PATHS = ["locked", "both.txt"]


def _placed(disk: Ground) -> tuple[Any, Any]:
    old, new = lay(disk)
    disk.job("place", operation="one", origin="beside")
    return old, new


def _paths_placed(disk: Ground, paths: list[str]) -> tuple[Any, Any]:
    old, _new = lay(disk, paths=paths)
    disk.job("place", operation="one", origin="beside", paths=paths)
    with ground() as other:
        lay(other, paths=paths)
        other.job("place", operation="one", origin="beside", paths=paths)
        other.job("undo", operation="two", before="one")
        return old, look(other.own / "before-two/world")


PLACE: Job = {"command": "place", "operation": "one", "origin": "beside"}
UNDO: Job = {"command": "undo", "operation": "two", "before": "one"}
CASES: dict[str, Case] = {
    "place": (_laid, PLACE),
    "place of paths": (_paths_laid, {**PLACE, "paths": PATHS}),
    "undo": (_placed, UNDO),
    "undo of paths": (partial(_paths_placed, paths=PATHS), UNDO),
    "undo of paths in closed folders": (partial(_paths_placed, paths=CLOSED_PATHS), UNDO),
}


#: `make test` kills at every seventh step, `make test-long` at each.
STEPS = [(case, 7) for case in CASES]
EVERY_STEP = [pytest.param(case, 1, marks=pytest.mark.long) for case in CASES]


@pytest.mark.parametrize(("case", "stride"), [*STEPS, *EVERY_STEP])
def test_killed_at_a_step(case: str, stride: int) -> None:
    """Whatever a kill leaves: no file is lost, and a repeated Job ends as one that was not killed."""
    prepare, job = CASES[case]
    step, killed = 0, True
    while killed:
        step += stride
        with ground() as disk:
            world, before = prepare(disk)
            files = texts(disk.world)
            killed = disk.is_killed(job, step)
            assert _worlds(texts(disk.world)) == _worlds(files), step
            disk.job(**job)
            assert look(disk.world) == world, step
            assert look(disk.own / f"before-{job['operation']}/world") == before, step
            settled(disk, job["operation"])
    assert step > 8


def _worlds(files: dict[str, int]) -> dict[str, int]:
    return {text: number for text, number in files.items() if text.startswith(("old", "new"))}


@pytest.mark.long
def test_killed_again_and_again() -> None:
    """Kills at random, of the repeated Jobs too, of worlds made at random; then an undo in the same way."""
    chance = random.Random(17)
    for _round in range(12):
        with ground() as disk:
            old, new = lay(disk, _random(chance, "old"), _random(chance, "new"))
            for job, world, before in ((PLACE, new, old), (UNDO, old, new)):
                while disk.is_killed(job, chance.randrange(1, 60)):
                    pass
                assert look(disk.world) == world
                assert look(disk.own / f"before-{job['operation']}/world") == before


def _random(chance: random.Random, word: str, depth: int = 0) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name in chance.sample("abcdefghijklmnop", chance.randrange(0, 14)):
        kind = chance.random()
        if kind < 0.3 and depth < 3:
            tree[name] = Closed(_random(chance, word, depth + 1), chance.choice([0o755, 0o700, 0o555, 0o2755]))
        elif kind < 0.4:
            tree[name] = Link(chance.choice(["/etc/passwd", "..", "b"]))
        else:
            tree[name] = Closed(f"{word} {chance.random()}", chance.choice([0o644, 0o600, 0o444]))
    return tree
