"""The chroots, and the bind mounts in them.

Every path here is built from the agent's own names, or is a volume's folder as its operator named it. The volume's
folder is opened one component at a time without following links, then mounted through the open descriptor, so nothing
can be swapped in between. Nothing is ever removed recursively: an rmdir of a mounted folder fails.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import select
from collections.abc import Iterator
from pathlib import Path

# mount(2), umount2(2)
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REMOUNT, _MS_BIND, _MS_PRIVATE = 2, 4, 8, 32, 4096, 1 << 18
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8
_SAFE_FLAGS = os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC
_CHROOT = re.compile(r"server-([1-9][0-9]{0,18})", re.ASCII)

_MOUNTS = Path("/proc/self/mountinfo")

_libc = ctypes.CDLL(None, use_errno=True)


class NotMounted(OSError):
    """Nothing is mounted at a folder that is a mount point of our driver, so the folder is not the disk."""


class Chroots:
    """The chroots below one root-owned folder: `server-<id>/files` and `server-<id>/dev`."""

    def __init__(self, folder: Path, host_root: Path) -> None:
        self._folder = folder
        self._host_root = host_root

    def chroot(self, server: str) -> Path:
        """The path of a server's chroot."""
        return self._folder / f"server-{server}"

    def servers(self) -> set[str]:
        """The servers that have a chroot, mounted or not."""
        names = (_CHROOT.fullmatch(path.name) for path in self._folder.iterdir())
        return {name[1] for name in names if name}

    def ensure(self, server: str, folder: str, *, is_mount: bool) -> bool:
        """Create the chroot and mount the volume's folder in it. Idempotent.

        Args:
            server: The server's id.
            folder: The volume's folder, as a path on the node.
            is_mount: Whether the folder is a mount point of our driver.

        Returns:
            False if the chroot has another file system than the folder has now, or an unsafe mount. Sessions may use
            it, so end them and call `remove` first.

        Raises:
            NotMounted: The folder is a mount point, but nothing is mounted there.
            OSError: The folder cannot be opened or mounted.
        """
        chroot = self.chroot(server)
        target = chroot / "files"
        source, _ = open_disk(self._host_root, folder, is_mount=is_mount)
        try:
            for path in (chroot, target, chroot / "dev"):
                # Create only the agent's own folders: a mounted one belongs to the customer.
                if not path.is_dir():
                    path.mkdir(mode=0o755)
            if _is_mounted(target, source):
                return True
            if _mount_id(target) != _mount_id(chroot):
                return False
            _call("mount", f"/proc/self/fd/{source}".encode(), os.fsencode(target), None, _MS_BIND, None)
            _call("mount", None, os.fsencode(target), None, _MS_PRIVATE, None)
            flags = _MS_BIND | _MS_REMOUNT | _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
            _call("mount", None, os.fsencode(target), None, flags, None)
        finally:
            os.close(source)
        return True

    def remove(self, server: str) -> None:
        """Unmount and remove the chroot. Raises OSError, for example while it is still mounted."""
        chroot = self.chroot(server)
        _unmount(chroot / "files")
        (chroot / "dev" / "log").unlink(missing_ok=True)
        for path in (chroot / "files", chroot / "dev", chroot):
            if path.exists():
                path.rmdir()


def open_disk(root: Path, folder: str, *, is_mount: bool) -> tuple[int, bool]:
    """Open a volume's folder, `folder` below `root`, without following any link.

    Returns:
        Its file descriptor, and whether the folder is a file system of its own: another one than its parent's.

    Raises:
        NotMounted: The folder is a mount point of our driver (`is_mount`), but nothing is mounted there.
        OSError: It cannot be opened.
    """
    try:
        descriptor, own_file_system = _open_folder(root, folder)
    except FileNotFoundError as error:
        if is_mount:  # The driver makes the folder when it mounts the disk, or the pool itself is not mounted yet.
            raise NotMounted(errno.ENODEV, "the disk's folder does not exist") from error
        raise
    if is_mount and not own_file_system:
        os.close(descriptor)
        raise NotMounted(errno.ENODEV, "nothing is mounted at the disk's folder")
    return descriptor, own_file_system


def _open_folder(root: Path, folder: str) -> tuple[int, bool]:
    descriptor = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    own_file_system = False
    try:
        for name in folder.strip("/").split("/"):
            parent, device = descriptor, os.fstat(descriptor).st_dev
            descriptor = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
            os.close(parent)
            own_file_system = os.fstat(descriptor).st_dev != device
    except OSError:
        os.close(descriptor)
        raise
    return descriptor, own_file_system


def changes() -> Iterator[None]:
    """Yield at once, and after each change of this process's mounts, such as a disk that the node mounts or unmounts.

    https://man7.org/linux/man-pages/man5/proc_pid_mounts.5.html
    """
    with _MOUNTS.open("rb") as mounts:
        poll = select.poll()
        poll.register(mounts, select.POLLPRI)
        while True:
            yield
            poll.poll()


def _is_mounted(target: Path, source: int) -> bool:
    """Whether `source` is mounted on the target, with the flags that make it safe."""
    mounted, expected = target.stat(), os.fstat(source)
    is_same = (mounted.st_dev, mounted.st_ino) == (expected.st_dev, expected.st_ino)
    return is_same and os.statvfs(target).f_flag & _SAFE_FLAGS == _SAFE_FLAGS


def _mount_id(path: Path) -> str:
    """The id of the mount that a folder is in: a mounted folder has another one than its parent."""
    descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines()
    finally:
        os.close(descriptor)
    return next(line for line in lines if line.startswith("mnt_id:"))


def _unmount(target: Path) -> None:
    """Remove all mounts from the target. Files that a session has open stay open until the session ends."""
    while True:
        try:
            _call("umount2", os.fsencode(target), _MNT_DETACH | _UMOUNT_NOFOLLOW)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):  # no mount left; no such folder
                return
            raise


def _call(name: str, *arguments: bytes | int | None) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
