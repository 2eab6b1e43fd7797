"""Opens folders that their owner has closed, so that they can be moved; they have their permissions again at the end.

A folder has to be writable to move to another one, since its `..` changes; so has the folder that has it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from backup_job import changes, journal, own_folder
from backup_job.errors import JobFailed
from backup_job.journal import Journal

_OWNERS = stat.S_IRWXU


def open_up(root: int, side: int, folder: int, found: Journal) -> Journal:
    """Open what stands in the way, in two worlds; the journal has the permissions before they are changed.

    Raises:
        JobFailed: `not-ours`: a folder belongs to another user, and does not let us.
    """
    # What is in a closed folder is seen once it is open.
    while closed := {inode: mode for inode, mode in _closed(root, side, found) if inode not in found.modes}:
        found = replace(found, modes={**found.modes, **closed})
        journal.write(folder, found)
        open_known(root, side, found)
    return found


def require_ours(root: int, paths: tuple[str, ...]) -> None:
    """Check before anything is changed that what has to move can be moved.

    Raises:
        JobFailed: `not-ours`, with the folder's name: it belongs to another user, and does not let us.
    """
    for _inode, _mode in _closed(root, root, Journal("", "open", paths)):
        pass


def open_known(root: int, side: int, found: Journal) -> None:
    """Open the folders that the journal knows."""
    if found.modes:
        for folder, name, seen in _folders(root, side, found):
            if seen.st_ino in found.modes:
                changes.open_to_us(folder, name)


def close_again(root: int, side: int, found: Journal) -> None:
    """Give the folders the permissions that they had, unless a customer has given them others since."""
    if found.modes:
        # The inner ones first: the outer ones may not let us in then.
        for folder, name, seen in _folders(root, side, found, inner_first=True):
            if seen.st_ino in found.modes:
                changes.change_mode(folder, name, partial(_closed_again, found.modes[seen.st_ino]))


def _closed_again(was: int, mode: int) -> int:
    return was if mode == was | _OWNERS else mode


def _closed(root: int, side: int, found: Journal) -> Iterator[tuple[int, int]]:
    for folder, name, seen in _folders(root, side, found):
        if seen.st_uid == os.geteuid():
            if seen.st_mode & _OWNERS != _OWNERS:
                yield seen.st_ino, stat.S_IMODE(seen.st_mode)
        elif not os.access(name, os.W_OK | os.X_OK, dir_fd=folder, effective_ids=True, follow_symlinks=False):
            raise JobFailed(
                "not-ours", f"The folder {name[:100]!r} on the disk belongs to another user than the game's."
            )


def _folders(
    root: int, side: int, found: Journal, *, inner_first: bool = False
) -> Iterator[tuple[int, str, os.stat_result]]:
    """The folders that a journal is about, with their open parents: those that move, and those on the way to them."""
    for top in (root, side):
        if found.paths:
            paths = {"/".join(path.split("/")[:end]) for path in found.paths for end in range(1, path.count("/") + 2)}
        else:
            paths = {*changes.names(top)} - own_folder.stays(top)
        for path in sorted(paths, reverse=inner_first):
            try:
                with changes.parent_of(top, path) as (folder, name):
                    seen = changes.look(folder, name)
                    if seen is not None and changes.is_folder(seen):
                        yield folder, name, seen
            except (FileNotFoundError, NotADirectoryError, PermissionError):
                continue
