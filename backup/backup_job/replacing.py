"""Puts a world from a scratch disk into its place where the disk has no room for two; a call after a kill goes on.

The world of before is kept elsewhere, which the controller has seen to. It goes out by renames and is removed, the new
one is copied beside and compared, and comes in by renames. The phase stands in the journal before it begins.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace

from backup_job import changes, journal, own_folder, permissions, placing, tree
from backup_job.errors import JobFailed
from backup_job.journal import Journal, Unit
from backup_job.own_folder import WORLD

_OLD = "old"
#: What the file system may need beside the files: folders' blocks, inodes.
_SPARE = 0.02


class _DoesNotFit(Exception):
    """The world does not fit, and nothing has been moved."""


def place(root: int, own: int, laid_out: int, operation: str, paths: tuple[str, ...]) -> None:
    """Replace the world, or some paths of it, by what is laid out on the scratch disk.

    Args:
        root: The topmost folder of the server's disk, open.
        own: The product's own folder in it, open.
        laid_out: The world that comes, open.
        operation: The operation's id.
        paths: The paths; all if empty.

    Raises:
        JobFailed: `too-large`: it does not fit even without the world of before, and nothing has changed.
    """
    name = f"restore-{operation}"
    folder = own_folder.part(own, name)
    if folder is None:
        changes.make_folder(own, name)
        folder = changes.open_folder(name, own)
    try:
        _place(root, folder, laid_out, operation, paths)
    except _DoesNotFit as failed:
        changes.remove(own, name)
        raise JobFailed("too-large", "The disk has no room for the backup.") from failed
    finally:
        os.close(folder)
    placing.finish(own, name, f"placed-{operation}")


def _place(root: int, folder: int, laid_out: int, operation: str, paths: tuple[str, ...]) -> None:
    found = journal.read(folder)
    if found is None or found.operation != operation:
        found = Journal(operation, "open-out", paths)
    if found.phase == "open-out":
        own_folder.make_empty(folder, _OLD)
        with changes.opened(_OLD, folder) as old:
            found = permissions.open_up(root, old, folder, found)
            going = _going(root, paths)
            if not _fits(root, laid_out, going):
                permissions.close_again(root, old, found)
                raise _DoesNotFit
        found = _next(folder, replace(found, phase="out", units=tuple(going)))
    if found.phase == "out":
        with changes.opened(_OLD, folder) as old:
            _out(root, old, found)
        found = _next(folder, replace(found, phase="remove", units=()))
    if found.phase == "remove":
        changes.remove(folder, _OLD)
        found = _next(folder, replace(found, phase="copy"))
    if found.phase == "copy":
        own_folder.make_empty(folder, WORLD)
        with changes.opened(WORLD, folder) as world:
            tree.copy(laid_out, world)
            changes.sync_disk(world)
            if not tree.same(laid_out, world):
                raise JobFailed("copy-differs", "The copy is not the same as what was laid out.")
    # It plans anew, with the inode numbers of the copy, and its journal has the last phase.
    placing.swap(root, folder, operation, paths)


def _next(folder: int, found: Journal) -> Journal:
    journal.write(folder, found)
    return found


def _going(root: int, paths: tuple[str, ...]) -> list[Unit]:
    """What goes out."""
    if paths:
        going: Iterable[str] = placing.uppermost(root, paths)
    else:
        going = sorted({*changes.names(root)} - own_folder.stays(root), key=os.fsencode)
    units = [Unit(path, placing.inode(root, path)) for path in going]
    return [unit for unit in units if unit.inode is not None]


def _out(root: int, old: int, found: Journal) -> None:
    """Move out what stood there when it was planned. What a customer has put there since stays."""
    permissions.open_known(root, old, found)
    for unit in found.units:
        try:
            with changes.parent_of(root, unit.path) as (here, name):
                seen = changes.look(here, name)
                if seen is not None and seen.st_ino == unit.inode:
                    with changes.parent_of(old, unit.path, make=True) as (there, _name):
                        changes.move(here, name, there, name)
        except (FileNotFoundError, NotADirectoryError):
            # It is not where it was: whoever has moved it has it.
            continue


def _fits(root: int, laid_out: int, going: Iterable[Unit]) -> bool:
    free, _all = own_folder.free(root)
    for unit in going:
        free += _used(root, unit.path)
    needed = sum(tree.space(entry.kind, entry.seen.st_blocks * 512) for entry in tree.walk(laid_out))
    return needed * (1 + _SPARE) <= free


def _used(root: int, path: str) -> int:
    with changes.parent_of(root, path) as (folder, name):
        seen = changes.look(folder, name)
        if seen is None:
            return 0
        # A file with other names than this one keeps its blocks.
        used = seen.st_blocks * 512 if changes.is_folder(seen) or seen.st_nlink == 1 else 0
        if not changes.is_folder(seen):
            return used
        try:
            with changes.opened(name, folder) as inner:
                return used + sum(
                    entry.seen.st_blocks * 512
                    for entry in tree.walk(inner)
                    if entry.kind == "dir" or entry.seen.st_nlink == 1
                )
        except PermissionError:
            return used
