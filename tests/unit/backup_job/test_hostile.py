"""A customer works against a restore: with what he puts on his disk before, and with what he does meanwhile."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from backup_job.errors import JobFailed
from tests.unit.backup_job.disks import Closed, Ground, Killed, Link, as_customer, ground, look, make, texts
from tests.unit.backup_job.test_placing import NEW, OLD, PATHS, PLACE, UNDO, lay


@pytest.fixture(name="disk")
def _disk() -> Iterator[Ground]:
    with ground() as made:
        make(made.root, {"outside": {"mine": "outside"}})
        yield made


@pytest.fixture(name="outside")
def _outside(disk: Ground) -> Iterator[Path]:
    """A folder outside the disk that the Job can write to; nothing happens to it."""
    before = look(disk.root / "outside")
    yield disk.root / "outside"
    assert look(disk.root / "outside") == before


@pytest.mark.parametrize("trap", ["symlink", "file", "dangling"])
def test_own_folder_is_something_else(disk: Ground, outside: Path, trap: str) -> None:
    """A symlink or file named .gameserver gets another name, is kept, and leads nowhere."""
    away = {"symlink": str(outside), "dangling": "/nowhere/at/all"}.get(trap, "")
    make(disk.world, {".gameserver": Link(away) if away else "old trap"})
    lay(disk)
    disk.job(**PLACE)
    assert look(disk.world) == look(disk.places.source)
    kept = look(disk.own / "before-one/world")[".gameserver.aside-0"]
    assert kept == ({"link": away} if away else {"mode": 0o644, "text": "old trap"})
    disk.job(**UNDO)
    assert ".gameserver.aside-0" in look(disk.world)


@pytest.mark.parametrize("what", ["symlink", "file", "folder"])
@pytest.mark.parametrize("name", ["restore-one", "before-one", "restore-two", "before-two"])
def test_names_of_ours_are_taken(disk: Ground, outside: Path, name: str, what: str) -> None:
    """What a customer has put where our folders come is kept under another name, and stops nothing."""
    traps = {"symlink": Link(str(outside)), "file": "old trap", "folder": {"in": "old trap", "world": {"x": "old x"}}}
    old, new = lay(disk)
    if name == "restore-one":
        disk.job("clean", operations=["one"])
    make(disk.own, {name: traps[what]})
    if name == "restore-one":
        # As after a broken try: a folder of that name is ours, and goes.
        disk.job("lay-out", operation="one", to="beside", source="/source")
    disk.job(**PLACE)
    assert (look(disk.world), look(disk.own / "before-one/world")) == (new, old)
    disk.job(**UNDO)
    assert (look(disk.world), look(disk.own / "before-two/world")) == (old, new)
    if (name, what) not in (("restore-one", "folder"),):
        assert f"{name}.aside-0" in look(disk.own)


def test_own_folder_is_shut(disk: Ground) -> None:
    """Permissions that a customer takes away are given back."""
    make(disk.world, {".gameserver": Closed({"restore-one": Closed({"x": Closed("y", 0)}, 0)}, 0)})
    old, new = lay(disk)
    disk.job(**PLACE)
    assert (look(disk.world), look(disk.own / "before-one/world")) == (new, old)


JOURNAL = '{"operation": "one", "phase": "%s", "paths": [], "modes": {}, "units": [{"path": "%s", "inode": 1}]}'


@pytest.mark.parametrize(
    "journal",
    [
        "",
        "[]",
        JOURNAL % ("in", "../../x"),
        JOURNAL % ("in", "/etc"),
        JOURNAL % ("in", ".gameserver/x"),
        JOURNAL % ("off", "x"),
        "[" * 100_000,
        {"a": "folder"},
        Link("../../both.txt"),
    ],
    ids=range(9),
)
def test_journal_of_a_customer(disk: Ground, journal: Any) -> None:
    """A journal that is not ours is refused, and nothing moves."""
    lay(disk)
    make(disk.own / "restore-one", {"journal.json": journal})
    before = look(disk.root)
    for job in (PLACE, {"command": "clean", "operations": ["one"]}):
        with pytest.raises(JobFailed, match="journal-damaged"):
            disk.job(**job)
    assert look(disk.root) == before


def test_nothing_that_is_being_placed_is_cleaned_or_laid_out_anew(disk: Ground) -> None:
    """While a placing is unfinished its folder may have the old world: it stays, whoever asks."""
    old, new = lay(disk)
    with pytest.raises(Killed):
        disk.job(kill_at=12, **PLACE)
    for job in (
        {"command": "clean", "operations": ["one"]},
        {"command": "lay-out", "operation": "one", "to": "beside", "source": "/source"},
    ):
        with pytest.raises(JobFailed, match="placing-began"):
            disk.job(**job)
    disk.job(**PLACE)
    with pytest.raises(JobFailed, match="placing-began"):
        disk.job("lay-out", operation="one", to="beside", source="/source")
    assert (look(disk.world), look(disk.own / "before-one/world")) == (new, old)


def test_one_job_at_a_time(disk: Ground) -> None:
    """A second Job on the disk is refused while one is at work."""
    import fcntl

    lay(disk)
    own = os.open(disk.own, os.O_RDONLY)
    try:
        fcntl.flock(own, fcntl.LOCK_EX)
        with pytest.raises(JobFailed, match="busy"):
            disk.job(**PLACE)
    finally:
        os.close(own)
    disk.job(**PLACE)


def test_clean(disk: Ground, outside: Path) -> None:
    """Only what is named goes, at any step of a kill; a customer's files stay, and symlinks are not followed."""
    step, killed = 0, True
    while killed:
        step += 3
        with ground() as other:
            lay(other, OLD | {"away": Link(str(outside))})
            other.job(**PLACE)
            make(other.own, {"before-x": {"kept": "kept"}, "mine": "mine"})
            new = look(other.world)
            try:
                other.job("clean", operations=["one"], kill_at=step)
                killed = False
            except Killed:
                other.job("clean", operations=["one"])
            assert look(other.world) == new
            assert sorted(look(other.own)) == ["before-x", "mine"]
            with pytest.raises(JobFailed, match="before-missing"):
                other.job(**UNDO)
    assert step > 10


def test_half_cleaned_is_not_undone(disk: Ground) -> None:
    """A world of before of which some was removed is not brought back."""
    lay(disk)
    disk.job(**PLACE)
    with pytest.raises(Killed):
        disk.job("clean", operations=["one"], kill_at=6)
    new = look(disk.world)
    with pytest.raises(JobFailed, match="before-missing"):
        disk.job(**UNDO)
    assert look(disk.world) == new


# --- Trees ---


def _deep(folder: Path, levels: int) -> None:
    """Folders in each other, with a path longer than the kernel takes at once."""

    def run() -> None:
        os.chdir(folder)
        for _ in range(levels):
            os.mkdir("a-name-of-some-length")
            os.chdir("a-name-of-some-length")
        Path("deepest").write_text("deepest")

    as_customer(run)


def test_deep_trees(disk: Ground) -> None:
    """1,000 folders in each other: copied, compared, put in place and removed."""
    _deep(disk.world, 1000)
    _deep(disk.places.source, 1000)
    answer = disk.job("lay-out", operation="one", to="beside", source="/source")
    assert answer == {"files": 1, "size_bytes": 7}
    disk.job(**PLACE)
    disk.job(**UNDO)
    disk.job("clean", operations=["two"])
    assert list(disk.own.iterdir()) == []


NAMES = ["-rf", "--", "a\nb", "*", "[x]?", "\\", "'\"$(x)", "\udcff\udcfe", "ü", "~0", " ", "x" * 255, ".", "\u202e"][
    :-2
]


def test_names(disk: Ground) -> None:
    """Names of any bytes."""
    make(disk.world, {name: f"old {name!r}" for name in NAMES} | {"{}": dict.fromkeys(NAMES, "old")})
    old, new = lay(disk, {}, {name: {name: f"new {name!r}"} for name in NAMES})
    disk.job(**PLACE)
    assert (look(disk.world), look(disk.own / "before-one/world")) == (new, old)
    disk.job("clean", operations=["one"])
    assert list(disk.own.iterdir()) == []


def test_copies(disk: Ground) -> None:
    """Times, permissions, holes, hard links, symlinks and pipes are as they were; a socket is left out."""

    def run() -> None:
        import socket

        os.chdir(disk.places.source)
        with open("sparse", "wb") as file:
            file.truncate(1 << 30)
            file.seek(1 << 29)
            file.write(b"data")
            file.truncate(1 << 30)
        os.link("sparse", "hard")
        os.mkfifo("pipe", 0o640)
        os.symlink("\udcff/../..", "link")
        os.mkdir("folder")
        for name in ("sparse", "folder", "link"):
            os.utime(name, ns=(1, 1_000_000_007), follow_symlinks=False)
        socket.socket(socket.AF_UNIX).bind("socket")

    as_customer(run)
    disk.job("lay-out", operation="one", to="beside", source="/source")
    world = disk.own / "restore-one/world"
    assert sorted(os.listdir(world)) == ["folder", "hard", "link", "pipe", "sparse"]
    seen = {name: os.lstat(world / name) for name in os.listdir(world)}
    assert seen["sparse"].st_size == 1 << 30
    assert seen["sparse"].st_blocks < 100
    assert seen["sparse"].st_ino == seen["hard"].st_ino
    assert {seen[name].st_mtime_ns for name in ("sparse", "folder", "link")} == {1_000_000_007}
    assert seen["pipe"].st_mode == os.lstat(disk.places.source / "pipe").st_mode


def test_unreadable(disk: Ground) -> None:
    """What cannot be read in a copy is left out and told, as a backup does; the rest comes."""
    make(disk.places.source, {"shut": Closed("x", 0), "closed": Closed({"in": "y"}, 0), "fine": "z"})
    answer = disk.job("lay-out", operation="one", to="beside", source="/source")
    assert answer == {"files": 1, "size_bytes": 1, "unreadable": {"count": 2, "paths": ["closed", "shut"]}}
    disk.job(**PLACE)
    assert sorted(look(disk.world)) == ["closed", "fine"]


def test_many_entries(disk: Ground) -> None:
    """Thousands of entries in one folder."""
    old, new = lay(
        disk, {f"f{number}": "old" for number in range(3000)}, {f"f{number}": "new" for number in range(1500, 4500)}
    )
    disk.job(**PLACE)
    assert (look(disk.world), look(disk.own / "before-one/world")) == (new, old)


# --- Meanwhile ---


def _overwrite(world: Path) -> None:
    """As an upload does it: beside, then renamed over."""
    for name in ("both.txt", "new-only.txt", "old-only.txt", "mine.txt"):
        (world / ".part").write_text(f"mine {name}")
        os.rename(world / ".part", world / name)


def _replace_folder(world: Path) -> None:
    os.rename(world / "world", world / "my world")
    os.symlink(world.parent / "outside", world / "world")


def _remove(world: Path) -> None:
    for name in ("both.txt", "link"):
        if not (world / name).is_dir():
            (world / name).rename(world / f"my {name}")


def _move_own(world: Path) -> None:
    os.rename(world / ".gameserver", world / "my gameserver")
    os.symlink(world.parent / "outside", world / ".gameserver")


def _close(world: Path) -> None:
    for path in world.iterdir():
        if path.is_dir() and not path.is_symlink():
            path.chmod(0)


#: A customer's change at every eighth step, at another one for each kind of change; `make test-long`: at every third.
STRIDES = [8, pytest.param(3, marks=pytest.mark.long)]
MEDDLING: list[Callable[[Path], None]] = [_overwrite, _replace_folder, _remove, _close, _move_own]


def _code(disk: Ground, meddle: Callable[[int, str], None], paths: list[str]) -> tuple[str, int]:
    """With which code a placing fails, and how many changes it makes if it does not."""
    try:
        disk.job(meddle=meddle, **PLACE, paths=paths)
    except JobFailed as failed:
        return failed.code, 0
    return "", disk.changes


@pytest.mark.parametrize("paths", [[], PATHS], ids=["world", "paths"])
@pytest.mark.parametrize("meddling", MEDDLING, ids=lambda meddling: meddling.__name__)
@pytest.mark.parametrize("stride", STRIDES)
def test_customer_writes_meanwhile(
    outside: Path, meddling: Callable[[Path], None], paths: list[str], stride: int
) -> None:
    """Whatever he does at whichever step: no file is lost, nothing leads outside, and a repeat ends well."""
    step, changes = MEDDLING.index(meddling) % stride, stride + 1
    while step + stride <= changes:
        step += stride
        with ground() as other:
            make(other.root, {"outside": {"mine": "outside"}})
            lay(other, OLD | {"locked": "old locked", "shut": {}}, NEW | {"locked": "new locked"}, paths=paths)
            files = texts(other.world)

            def meddle(number: int, _word: str, other: Ground = other, step: int = step) -> None:
                if number == step:
                    # Perhaps there is nothing of that name at this step.
                    with suppress(OSError):
                        meddling(other.world)

            code, made = _code(other, meddle, paths)
            assert code in ("", "changed-meanwhile", "not-ours")
            changes = max(changes, made or step + stride)
            if meddling is not _move_own:
                assert other.job(**PLACE, paths=paths) == {"before": True}
            left = texts(other.world)
            lost = {text for text in files if text.startswith(("old", "new")) and text not in left}
            if meddling is _overwrite and step <= (made or step):
                # He has replaced these himself, where he found them.
                lost -= {"old both", "new both", "old only", "new only"}
                assert {
                    f"mine {name}" for name in ("both.txt", "new-only.txt", "old-only.txt", "mine.txt")
                } <= left.keys()
            assert not lost, step
            assert look(other.root / "outside") == look(outside)


def test_a_folder_of_another_user_is_found_before_anything_changes(disk: Ground) -> None:
    """It cannot be moved, so the restore is refused while the game runs. Beside a part that is restored it may stay."""
    make(disk.world, {"world": {"level.dat": "level"}, "copied\nby-root": {}})
    os.chown(disk.world / "copied\nby-root", 0, 0)
    make(disk.places.source, {"world": {"level.dat": "another"}})
    before = look(disk.world)
    with pytest.raises(JobFailed, match="not-ours"):
        disk.job("inspect", source="/source")
    assert look(disk.world) == before
    assert disk.job("inspect", source="/source", paths=["world"])["fits_beside"]
