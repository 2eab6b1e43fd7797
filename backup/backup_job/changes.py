"""Changes of a disk: one system call each, on a name in an open folder.

A customer may change the disk at the same time. So no path is followed through the folders by name: each folder is
opened in the one above it, never through a symlink, and no rename replaces anything.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from backup_job.errors import JobFailed

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: renameat2(2).
_NOREPLACE, _EXCHANGE = 1, 2
_OWNERS = stat.S_IRWXU
#: Python's `os` knows neither renameat2(2) nor syncfs(2).
_libc = ctypes.CDLL(None, use_errno=True)


def _nothing(_change: str) -> None:
    pass


#: Called before each change, with its word. Tests end the process there.
before: Callable[[str], None] = _nothing


def move(source: int, name: str, target: int, as_name: str) -> None:
    """Rename an entry; it never replaces one.

    Raises:
        FileExistsError: The target has an entry of that name.
    """
    _rename(source, name, target, as_name, _NOREPLACE)


def exchange(one: int, name: str, other: int, other_name: str) -> None:
    """Let two entries change places, at once."""
    _rename(one, name, other, other_name, _EXCHANGE)


def _rename(source: int, name: str, target: int, as_name: str, flag: int) -> None:
    before("rename")
    if _libc.renameat2(source, os.fsencode(name), target, os.fsencode(as_name), flag):
        number = ctypes.get_errno()
        if number == errno.EINVAL:
            # A lay-out finds it, with its first rename.
            raise JobFailed("file-system", "The disk's file system cannot rename as a restore needs it.")
        raise OSError(number, os.strerror(number), name)


def sync_disk(folder: int) -> None:
    """Wait until all that was written to the folder's file system is on the disk."""
    before("sync")
    if _libc.syncfs(folder):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def sync(descriptor: int) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    before("sync")
    os.fsync(descriptor)


def unlink(folder: int, name: str) -> None:
    """Remove what is no folder."""
    before("unlink")
    os.unlink(name, dir_fd=folder)


def remove_folder(folder: int, name: str) -> None:
    """Remove an empty folder."""
    before("rmdir")
    os.rmdir(name, dir_fd=folder)


def make_folder(folder: int, name: str, mode: int = 0o700) -> None:
    """Make a folder."""
    before("mkdir")
    os.mkdir(name, mode, dir_fd=folder)


def create(folder: int, name: str) -> int:
    """Create a file to write to."""
    before("create")
    return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)


def replace(folder: int, name: str, as_name: str) -> None:
    """Rename a file of our own over an older one of our own."""
    before("rename")
    os.rename(name, as_name, src_dir_fd=folder, dst_dir_fd=folder)


def change_mode(folder: int, name: str, change: Callable[[int], int]) -> None:
    """Change the permissions of a folder, whatever they are; of nothing else, and through no symlink."""
    opened = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        mode = stat.S_IMODE(os.fstat(opened).st_mode)
        if change(mode) != mode:
            before("chmod")
            # fchmod(2) refuses such a descriptor; proc_pid_fd(5) leads to what it is open on.
            Path(f"/proc/self/fd/{opened}").chmod(change(mode))
    finally:
        os.close(opened)


def look(folder: int, name: str) -> os.stat_result | None:
    """What an entry is; None if there is none."""
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def names(folder: int) -> list[str]:
    """The names in a folder, with surrogates for bytes that are not UTF-8."""
    return os.listdir(folder)


def is_folder(seen: os.stat_result | None) -> bool:
    """Whether it is a folder; a symlink to one is none."""
    return seen is not None and stat.S_ISDIR(seen.st_mode)


def open_folder(name: str, parent: int | None = None) -> int:
    """Open a folder.

    Raises:
        NotADirectoryError: It is something else, such as a symlink to a folder.
    """
    try:
        return os.open(name, _FOLDER, dir_fd=parent)
    except OSError as failed:
        if failed.errno == errno.ELOOP:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), name) from None
        raise


@contextmanager
def opened(name: str, parent: int | None = None) -> Iterator[int]:
    """An open folder, as `open_folder` opens it."""
    folder = open_folder(name, parent)
    try:
        yield folder
    finally:
        os.close(folder)


@contextmanager
def parent_of(root: int, path: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
    """The folder that has the last part of a path, open, and that part's name.

    Args:
        root: The folder that the path begins in.
        path: A relative path without `.` and `..`.
        make: Make the folders on the way that are missing.
    """
    *parts, name = path.split("/")
    folder = os.dup(root)
    try:
        for part in parts:
            if make and look(folder, part) is None:
                make_folder(folder, part)
            inner = open_folder(part, folder)
            os.close(folder)
            folder = inner
        yield folder, name
    finally:
        os.close(folder)


def open_to_us(folder: int, name: str) -> None:
    """Give the owner of a folder all permissions for it: it is ours, so we can.

    Raises:
        JobFailed: `not-ours`.
    """
    try:
        change_mode(folder, name, lambda mode: mode | _OWNERS)
    except PermissionError:
        raise JobFailed("not-ours", "A folder on the disk belongs to another user.") from None


def remove(parent: int, name: str) -> None:
    """Remove an entry and all that is in it, at any depth and whatever its permissions. Not being there is fine.

    No path in it is followed and few folders are open at once: what is in a folder in it is moved up until it is flat.
    A repeated call after a kill goes on.
    """
    seen = look(parent, name)
    if seen is None:
        return
    if not is_folder(seen):
        unlink(parent, name)
        return
    open_to_us(parent, name)
    with opened(name, parent) as top:
        numbers = iter(range(1 << 62))
        while entries := names(top):
            for entry in entries:
                if is_folder(look(top, entry)):
                    _flatten(top, entry, numbers)
                else:
                    unlink(top, entry)
    remove_folder(parent, name)


def _flatten(top: int, name: str, numbers: Iterator[int]) -> None:
    """Remove a folder in `top`; the folders in it are moved into `top`."""
    open_to_us(top, name)
    with opened(name, top) as folder:
        for entry in names(folder):
            if not is_folder(look(folder, entry)):
                unlink(folder, entry)
                continue
            # A folder that moves needs to be writable itself: its `..` changes.
            open_to_us(folder, entry)
            _move_up(folder, entry, top, numbers)
    remove_folder(top, name)


def _move_up(folder: int, name: str, top: int, numbers: Iterator[int]) -> None:
    for number in numbers:
        try:
            move(folder, name, top, f"~{number}")
        except FileExistsError:
            continue
        return


def aside(folder: int, name: str) -> None:
    """Give something that a customer has put into our way another name."""
    for number in range(1 << 62):
        try:
            move(folder, name, folder, f"{name}.aside-{number}")
        except FileExistsError:
            continue
        return
