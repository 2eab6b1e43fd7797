"""Backups come back from a store, by the real restic: laid out, compared, and proven on a scratch disk."""

from __future__ import annotations

import os
import random
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from backup_job import restic
from backup_job.errors import JobFailed
from tests.unit.backup_job.disks import Closed, Ground, Link, as_customer, ground, look, make
from tests.unit.backup_job.test_hostile import NAMES
from tests.unit.backup_job.test_placing import PLACE, UNDO

STORE: dict[str, Any] = {"store": {"kind": "folder"}, "uid": "server-uid"}
WORLD: dict[str, Any] = {
    "level.dat": "a level",
    "world": {"region": {"r.0.mca": "region 0", "r.1.mca": "region 1"}, "empty": {}},
    "names": {name: f"named {name!r}" for name in NAMES},
    "[0-9]*": {"a?": "globs", "b": "b"},
    "link": Link("../../etc/passwd"),
    "odd\udcff": {"li\udcfenk": Link("somewhere")},
    "script": Closed("run", 0o755),
    "locked": Closed({"in": "locked"}, 0o555),
}


@pytest.fixture(scope="module", name="template")
def _template() -> Iterator[tuple[Path, str, Any]]:
    """A store with a backup, the snapshot's id, and what the world looked like."""
    with ground() as disk:
        make(disk.world, WORLD)
        make(disk.world, {".gameserver": {"before-x": {"not": "backed up"}}})
        os.link(disk.world / "level.dat", disk.world / "hard")
        with (disk.world / "noise").open("wb") as file:
            file.write(random.Random(1).randbytes(3 << 20))
        os.chown(disk.world / "noise", *(disk.world.stat()[4:6]))
        as_customer(lambda: _init(disk))
        answer = disk.job("backup", **STORE, backup="b-1", settings={}, source="/world")
        yield disk.places.repositories, answer["snapshot"], look(disk.world)


def _init(disk: Ground) -> None:
    repository = str(disk.places.repositories / "server-uid")
    options = ["--no-cache", "--password-file", str(disk.places.password)]
    subprocess.run(["restic", "-q", "-r", repository, *options, "init"], check=True, stdout=subprocess.DEVNULL)


class Shop:
    """A server's disk with a world of its own, and the store with a backup of another one."""

    def __init__(self, disk: Ground, template: tuple[Path, str, Any]) -> None:
        repositories, self.snapshot, self.backed_up = template
        self.disk = disk
        as_customer(lambda: str(shutil.copytree(repositories, disk.places.repositories, dirs_exist_ok=True)))
        make(disk.world, {"today": "today", "level.dat": "today's level"})
        self.today = look(disk.world)
        self.what: dict[str, Any] = {**STORE, "snapshot": self.snapshot}

    def lay_out(self, **more: Any) -> Any:
        return self.disk.job("lay-out", operation="one", **{"to": "beside", **self.what, **more})

    def packs(self) -> list[Path]:
        """The packs of the store, the largest first."""
        data = self.disk.places.repositories / "server-uid/data"
        return sorted((path for path in data.rglob("*") if path.is_file()), key=lambda path: -path.stat().st_size)


@pytest.fixture(name="shop")
def _shop(template: tuple[Path, str, Any]) -> Iterator[Shop]:
    with ground() as disk:
        yield Shop(disk, template)


def test_whole_world(shop: Shop) -> None:
    """The world is as it was backed up: names, permissions, symlinks, hard links. Today's comes back by an undo."""
    answer = shop.lay_out()
    files = len(NAMES) + 11
    assert answer["files"] == files
    assert shop.disk.job(**PLACE) == {"before": True}
    assert look(shop.disk.world) == shop.backed_up
    seen = [(shop.disk.world / name).stat().st_ino for name in ("level.dat", "hard")]
    assert seen[0] == seen[1]
    shop.disk.job(**UNDO)
    assert look(shop.disk.world) == shop.today


def test_a_whiteout(shop: Shop) -> None:
    """Any user can make this device; it is left out of what is compared, as sockets are."""
    make(shop.disk.world, {"level.dat": "level"})

    def make_whiteout() -> None:
        os.mknod(shop.disk.world / "gone", 0o600 | stat.S_IFCHR, os.makedev(0, 0))

    as_customer(make_whiteout)
    shop.what["snapshot"] = shop.disk.job("backup", **STORE, backup="b-2", settings={}, source="/world")["snapshot"]
    shop.lay_out()
    shop.disk.job(**PLACE)
    assert (shop.disk.world / "level.dat").read_text() == "level"


def test_paths(shop: Shop) -> None:
    """Paths with signs that mean something to restic bring back themselves alone."""
    paths = ["[0-9]*/a?", "world/region/r.1.mca", *(f"names/{name}" for name in NAMES if "\udcff" not in name)]
    assert shop.lay_out(paths=paths)["files"] == len(NAMES) + 1
    shop.disk.job(**PLACE, paths=paths)
    world = look(shop.disk.world)
    assert world.pop("[0-9]*") == {"mode": 0o755, "in": {"a?": {"mode": 0o644, "text": "globs"}}}
    assert list(world.pop("world")["in"]["region"]["in"]) == ["r.1.mca"]
    assert sorted(world.pop("names")["in"]) == sorted(name for name in NAMES if "\udcff" not in name)
    assert world == shop.today


def test_missing(shop: Shop) -> None:
    """A path or a backup that is not there is found before anything changes."""
    paths = ["world/region", "no/such/path", "level"]
    assert shop.disk.job("inspect", **shop.what, paths=paths)["missing_paths"] == ["no/such/path", "level"]
    with pytest.raises(JobFailed, match="path-missing"):
        shop.lay_out(paths=paths)
    for what in ({"snapshot": "0" * 64}, {"uid": "another"}):
        for command, more in (("inspect", {}), ("lay-out", {"operation": "one", "to": "beside"}), ("prove", {})):
            with pytest.raises(JobFailed, match="backup-missing"):
                shop.disk.job(command, **{**shop.what, **what, **more})
    assert look(shop.disk.world) == shop.today
    assert list(shop.disk.own.iterdir()) == []


def test_paths_that_were_not_there(shop: Shop) -> None:
    """For an undo that is no mistake: they are left out, and their folder is not taken for one that differs."""
    paths = ["world/region/no.mca", "world/region/r.1.mca", "today", "names/none"]
    assert shop.lay_out(paths=paths, absent=True)["files"] == 1
    laid = look(shop.disk.own / "restore-one/world")
    assert (list(laid), list(laid["world"]["in"]["region"]["in"])) == (["world"], ["r.1.mca"])
    assert shop.lay_out(paths=["world/region/no.mca", "today"], absent=True)["files"] == 0
    assert look(shop.disk.own / "restore-one/world") == {}
    shop.disk.job(**PLACE, paths=["world/region/no.mca", "today"])
    left = dict(shop.today)
    del left["today"]
    assert look(shop.disk.world) == left
    shop.disk.job(**UNDO)
    assert look(shop.disk.world) == shop.today


def test_inspect(shop: Shop) -> None:
    """It tells what a restore takes and what there is."""
    answer = shop.disk.job("inspect", **shop.what)
    laid = shop.lay_out()
    assert (answer["files"], answer["size_bytes"]) == (laid["files"], laid["size_bytes"])
    assert answer["needed_bytes"] > answer["size_bytes"]
    counts = os.statvfs(shop.disk.world)
    assert answer["total_bytes"] == counts.f_blocks * counts.f_frsize
    assert answer["fits_beside"]
    assert answer["missing_paths"] == []
    part = shop.disk.job("inspect", **shop.what, paths=["world/region"])
    assert (part["files"], part["size_bytes"]) == (2, 16)


def test_prove(shop: Shop) -> None:
    """A proof tells what it has restored, and leaves nothing on either disk."""
    assert shop.disk.job("prove", **shop.what) == shop.lay_out(to="scratch")
    assert look(shop.disk.world) == shop.today
    assert [path.name for path in shop.disk.places.scratch.iterdir()] == ["restore-one"]


def _flip(pack: Path) -> None:
    content = bytearray(pack.read_bytes())
    content[len(content) // 2] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(content)


def _cut(pack: Path) -> None:
    pack.chmod(0o600)
    os.truncate(pack, pack.stat().st_size // 2)


def _remove(pack: Path) -> None:
    pack.unlink()


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(_flip, id="flipped"),
        pytest.param(_cut, id="cut", marks=pytest.mark.long),
        pytest.param(_remove, id="gone", marks=pytest.mark.long),
    ],
)
@pytest.mark.parametrize("which", [0, -1], ids=["contents", "folders"])
def test_damage(shop: Shop, damage: Callable[[Path], None], which: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Damage on purpose is found by a lay-out and by a proof; nothing is left, and today's world is untouched."""
    # restic tries again what does not get better.
    monkeypatch.setattr(restic, "_AWAY", 1.0)
    monkeypatch.setattr(restic, "PATIENCE", 1.0)
    pack = shop.packs()[which]
    as_customer(partial(damage, pack))
    if which == -1:
        with pytest.raises(JobFailed, match="backup-damaged"):
            shop.disk.job("inspect", **shop.what)
    jobs: list[dict[str, Any]] = [{"command": "lay-out", "operation": "one", "to": to} for to in ("beside", "scratch")]
    jobs.append({"command": "prove"})
    for job in jobs:
        with pytest.raises(JobFailed, match="backup-damaged"):
            shop.disk.job(**job, **shop.what)
    assert look(shop.disk.world) == shop.today
    assert list(shop.disk.own.iterdir()) == []
    assert list(shop.disk.places.scratch.iterdir()) == []


@pytest.mark.long
def test_a_restore_that_differs(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """What restic has not brought, or brought otherwise, is found; whatever it says of itself."""
    run = restic.run

    def remove(world: Path) -> None:
        (world / "world/region/r.0.mca").unlink()

    def add(world: Path) -> None:
        (world / "zz").write_text("")

    def shorten(world: Path) -> None:
        (world / "level.dat").write_text("a")

    def divert(world: Path) -> None:
        (world / "link").unlink()
        (world / "link").symlink_to("elsewhere")

    def swap(world: Path) -> None:
        shutil.move(world / "world", world.parent / "moved")
        (world / "world").symlink_to(world.parent / "moved")

    for change in (remove, add, shorten, divert, swap):

        def changed(*arguments: Any, change: Any = change, **more: Any) -> Any:
            finished = run(*arguments, **more)
            if "restore" in arguments:
                change(Path(f"/proc/self/fd/{more['opened']}/world"))
            return finished

        monkeypatch.setattr(restic, "run", changed)
        with pytest.raises(JobFailed, match="restore-differs"):
            shop.lay_out()
        assert list(shop.disk.own.iterdir()) == []


@pytest.mark.long
def test_killed_while_laying_out(template: tuple[Path, str, Any]) -> None:
    """After a kill at any step, and at any time while restic runs, a repeated Job lays the same out."""
    step, killed = -1, True
    while killed:
        step += 2
        with ground() as disk:
            shop = Shop(disk, template)
            job = {"command": "lay-out", "operation": "one", "to": "beside", **shop.what}
            killed = disk.is_killed(job, step)
            # The fewer runs of restic, the better: every third is laid out again.
            if step % 3 == 0 or not killed:
                shop.lay_out()
                disk.job(**PLACE)
                assert look(disk.world) == shop.backed_up
            else:
                assert look(disk.world) == shop.today
                if not (disk.own / "restore-one/world").exists():
                    with pytest.raises(JobFailed, match="nothing-laid-out"):
                        disk.job(**PLACE)
    assert step > 8


@pytest.mark.slow
def test_killed_while_restic_runs(shop: Shop) -> None:
    """A kill of the pod's processes while restic writes."""
    for pause in (0.2, 0.6, 1.0):
        child = os.fork()
        if not child:
            try:
                shop.lay_out()
            finally:
                os._exit(0)
        time.sleep(pause)
        for group in _groups(child):
            os.killpg(group, signal.SIGKILL)
        os.waitpid(child, 0)
    shop.lay_out()
    shop.disk.job(**PLACE)
    assert look(shop.disk.world) == shop.backed_up


def _groups(parent: int) -> list[int]:
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(child) for child in children]
