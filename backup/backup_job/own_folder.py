"""The product's own folder on a server's disk, `.gameserver`. A customer can reach it, so nothing in it is trusted.

`restore-<operation>/world` is a world that is laid out, or on its way into its place; `before-<operation>/world` is
what was in the place before.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backup_job import changes
from backup_job.errors import JobFailed

NAME = ".gameserver"
WORLD = "world"
_LOST = "lost+found"


def stays(root: int) -> frozenset[str]:
    """The topmost entries of a disk that are never moved, and never restored: ours, and what ext4 makes for repairs.

    A customer's own folder of that name is theirs.
    """
    repairs = changes.look(root, _LOST)
    if repairs is not None and changes.is_folder(repairs) and repairs.st_uid == 0:
        return frozenset({NAME, _LOST})
    return frozenset({NAME})


@contextmanager
def held(world: Path) -> Iterator[tuple[int, int]]:
    """The topmost folder of a disk and its own folder, open; no other Job changes this disk meanwhile.

    What a customer has put in the way of the folder gets another name.

    Raises:
        JobFailed: `busy`: another Job is at work. `disk-full`: there is no room for a folder.
    """
    with told(), changes.opened(str(world)) as root:
        _make(root, NAME)
        with changes.opened(NAME, root) as own:
            try:
                # The kernel lets go of it when the process ends, however it ends.
                fcntl.flock(own, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise JobFailed("busy", "Another Job is at work on the disk.") from None
            yield root, own


def _make(folder: int, name: str) -> None:
    """Have a folder of this name that we can use."""
    while not changes.is_folder(seen := changes.look(folder, name)):
        if seen is not None:
            changes.aside(folder, name)
        try:
            changes.make_folder(folder, name)
        except FileExistsError:
            continue
    changes.open_to_us(folder, name)


def make_empty(folder: int, name: str) -> None:
    """Have an empty folder of this name: what an earlier try has left there is removed."""
    changes.remove(folder, name)
    changes.make_folder(folder, name)


def part(own: int, name: str) -> int | None:
    """Open a folder of ours; None if there is none. What else has its name gets another one."""
    seen = changes.look(own, name)
    if seen is None:
        return None
    if not changes.is_folder(seen):
        changes.aside(own, name)
        return None
    changes.open_to_us(own, name)
    return changes.open_folder(name, own)


@contextmanager
def told() -> Iterator[None]:
    """Errors of the disk as what they mean for a Job."""
    try:
        yield
    except OSError as failed:
        if failed.errno in (errno.ENOSPC, errno.EDQUOT):
            raise JobFailed("disk-full", "The disk has no room.") from failed
        if failed.errno == errno.EROFS:
            raise JobFailed("read-only", "The disk can only be read.") from failed
        if failed.errno == errno.EIO:
            raise JobFailed("disk-error", "The disk cannot be read or written.") from failed
        if failed.errno in (errno.EACCES, errno.EPERM):
            raise JobFailed("not-ours", "A file or a folder on the disk cannot be changed.") from failed
        if failed.errno in (errno.ENOTDIR, errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY, errno.ELOOP, errno.ESTALE):
            raise JobFailed("changed-meanwhile", "Somebody changed the disk at the same time.") from failed
        raise


def free(folder: int) -> tuple[int, int]:
    """The bytes of a file system that are free for us, and all of them."""
    counts = os.fstatvfs(folder)
    return counts.f_bavail * counts.f_frsize, counts.f_blocks * counts.f_frsize
