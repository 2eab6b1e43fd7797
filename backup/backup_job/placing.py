"""Puts a world that is laid out beside into its place, by renames; a call after a kill at any point ends the same.

Two folders change places entry by entry: the world, and `restore-<operation>/world`. What is in both is exchanged by
one system call, so such a path is never missing. At the end the second folder has the world of before, and its folder
is renamed to `before-<operation>`. An undo renames it back and does the same again.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace

from backup_job import changes, journal, own_folder, permissions
from backup_job.errors import JobFailed
from backup_job.journal import Journal, Unit
from backup_job.own_folder import WORLD

#: How often a customer may get between a look and a rename.
_TRIES = 1000
#: For renames on a full disk: a folder that gets an entry may need a block.
_RESERVE, _RESERVE_BYTES = "reserve", 1 << 18


def unfinished(own: int, operation: str) -> bool:
    """Whether the placing of an operation has begun, so that `restore-…` may have parts of the world of before."""
    folder = own_folder.part(own, f"restore-{operation}")
    if folder is None:
        return False
    try:
        # A journal of another operation stands in what an undo has renamed a moment ago.
        return journal.read(folder) is not None
    finally:
        os.close(folder)


def copied(own: int, operation: str) -> bool:
    """Whether the world of an operation is on the disk as a whole, and only has to be moved."""
    folder = own_folder.part(own, f"restore-{operation}")
    if folder is None:
        return False
    try:
        found = journal.read(folder)
    finally:
        os.close(folder)
    return found is not None and found.operation == operation and found.phase in ("open", "in")


def finished(own: int, operation: str, kind: str = "before") -> bool:
    """Whether the placing of an operation has ended."""
    folder = own_folder.part(own, f"{kind}-{operation}")
    if folder is None:
        return False
    try:
        found = journal.read(folder)
    except JobFailed:
        return False
    finally:
        os.close(folder)
    return found is not None and found.operation == operation


def place(root: int, own: int, operation: str, paths: tuple[str, ...]) -> None:
    """Put `restore-<operation>/world` into its place.

    Raises:
        JobFailed: `nothing-laid-out`, `disk-full`, `not-ours`, `journal-damaged`, `changed-meanwhile`.
    """
    folder = own_folder.part(own, f"restore-{operation}")
    if folder is None:
        if finished(own, operation):
            return
        raise JobFailed("nothing-laid-out", "No world is laid out for this operation.")
    try:
        if not changes.is_folder(changes.look(folder, WORLD)):
            raise JobFailed("nothing-laid-out", "No world is laid out for this operation.")
        swap(root, folder, operation, paths)
    finally:
        os.close(folder)
    finish(own, f"restore-{operation}", f"before-{operation}")


def undo(root: int, own: int, before: str, operation: str) -> None:
    """Put `before-<before>/world` back; what was in its place is `before-<operation>` then.

    Raises:
        JobFailed: `before-missing`; otherwise as `place`.
    """
    folder = own_folder.part(own, f"restore-{operation}")
    if folder is None and finished(own, operation):
        return
    if folder is not None and journal.read(folder) is None:
        # Ours has always one: it is a folder that has been renamed.
        os.close(folder)
        folder = None
        changes.aside(own, f"restore-{operation}")
    if folder is None:
        if not finished(own, before):
            raise JobFailed("before-missing", "The world of before is not on the disk any more.")
        changes.move(own, f"before-{before}", own, f"restore-{operation}")
        folder = changes.open_folder(f"restore-{operation}", own)
    try:
        # The restore's journal still, or the undo's own one: both say what it is about. What moved in the restore moves
        # back as it was moved: a folder that the restore has brought goes as a whole.
        found = journal.read(folder)
        paths = tuple(unit.path for unit in found.units) if found and found.paths else ()
        swap(root, folder, operation, paths)
    finally:
        os.close(folder)
    finish(own, f"restore-{operation}", f"before-{operation}")


def swap(root: int, folder: int, operation: str, paths: tuple[str, ...]) -> None:
    """Let the world and `world` in an open `restore-…` folder change places, whole or in some paths."""
    with changes.opened(WORLD, folder) as side:
        found = journal.read(folder)
        # A Job that is repeated has written the paths down: where an undo reads its own, they may not have moved yet.
        if found is None or found.operation != operation:
            found = Journal(operation, "open", paths)
        if found.phase != "in":
            found = permissions.open_up(root, side, folder, replace(found, phase="open", units=()))
            found = replace(found, phase="in", units=tuple(_units(root, side, found.paths)))
            journal.write(folder, found)
        _reserve(folder)
        permissions.open_known(root, side, found)
        for unit in found.units:
            found = _with_room(root, side, folder, unit, found)
        permissions.close_again(root, side, found)
        changes.remove(folder, _RESERVE)
        changes.sync_disk(root)


def finish(own: int, name: str, as_name: str) -> None:
    """The last step: the folder's name says that all is in place."""
    if changes.look(own, as_name) is not None:
        changes.aside(own, as_name)
    changes.move(own, name, own, as_name)
    changes.sync(own)


def _units(root: int, side: int, paths: tuple[str, ...]) -> Iterator[Unit]:
    """What has to move."""
    if not paths:
        coming = set(changes.names(side))
        for name in sorted({*coming, *changes.names(root)} - own_folder.stays(root), key=os.fsencode):
            yield Unit(name, inode(side, name))
        return
    yield from (Unit(path, inode(side, path)) for path in uppermost(root, paths))


def uppermost(root: int, paths: Iterable[str]) -> list[str]:
    """The paths, each of them cut where the world has no folder on the way to it: the rest comes with that part.

    So no folder has to be made, and a file that is where a folder has to be is kept with the world of before.
    """
    cut = sorted({_cut(root, path) for path in paths})
    return [path for path in cut if not any(path.startswith(other + "/") for other in cut)]


def _cut(root: int, path: str) -> str:
    parts = path.split("/")
    folder = os.dup(root)
    try:
        for number, part in enumerate(parts[:-1], start=1):
            if not changes.is_folder(changes.look(folder, part)):
                return "/".join(parts[:number])
            inner = changes.open_folder(part, folder)
            os.close(folder)
            folder = inner
        return path
    finally:
        os.close(folder)


def inode(root: int, path: str) -> int | None:
    """The inode number of a path; None if there is nothing."""
    try:
        with changes.parent_of(root, path) as (folder, name):
            seen = changes.look(folder, name)
            return seen.st_ino if seen else None
    except (FileNotFoundError, NotADirectoryError):
        return None


def _with_room(root: int, side: int, folder: int, unit: Unit, found: Journal) -> Journal:
    """Move a unit; make room or open folders where that is what it takes."""
    try:
        move_unit(root, side, unit)
    except OSError as failed:
        if failed.errno == errno.EACCES:
            # A customer has closed a folder since.
            found = permissions.open_up(root, side, folder, found)
        elif failed.errno in (errno.ENOSPC, errno.EDQUOT):
            changes.remove(folder, _RESERVE)
        else:
            raise
        move_unit(root, side, unit)
    return found


def move_unit(root: int, side: int, unit: Unit) -> None:
    """Bring what comes into its place, and what is there out of it; nothing if that has happened already.

    A customer who writes at the same time loses nothing: what he puts in the way of what comes goes out, and what he
    puts where only something goes out stays.
    """
    for _ in range(_TRIES):
        try:
            with changes.parent_of(root, unit.path) as (here, name):
                if _move(here, side, unit, name):
                    return
        except (FileNotFoundError, NotADirectoryError):
            # There is no folder to have it: then the folder comes, with it in it.
            path = _cut(root, unit.path)
            if path == unit.path or inode(side, unit.path) != unit.inode or unit.inode is None:
                return
            unit = Unit(path, inode(side, path))
        except FileExistsError:
            continue
    raise JobFailed("changed-meanwhile", "Somebody changed the disk at the same time, again and again.")


def _move(here: int, side: int, unit: Unit, name: str) -> bool:
    """Move it once; False if the disk has changed since the look."""
    with changes.parent_of(side, unit.path, make=unit.inode is None) as (there, _name):
        seen = changes.look(there, name)
        stands = changes.look(here, name) is not None
        try:
            if unit.inode is None:
                if stands and seen is None:
                    changes.move(here, name, there, name)
            elif seen is not None and seen.st_ino == unit.inode:
                if stands:
                    changes.exchange(here, name, there, name)
                else:
                    changes.move(there, name, here, name)
        except (FileNotFoundError, FileExistsError):
            return False
    return True


def _reserve(folder: int) -> None:
    changes.remove(folder, _RESERVE)
    descriptor = changes.create(folder, _RESERVE)
    try:
        os.posix_fallocate(descriptor, 0, _RESERVE_BYTES)
    except OSError:
        # On a disk that is full already the renames are tried without it.
        changes.unlink(folder, _RESERVE)
    finally:
        os.close(descriptor)
