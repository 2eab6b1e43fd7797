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
from pathlib import Path

# mount(2), umount2(2)
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REMOUNT, _MS_BIND, _MS_PRIVATE = 2, 4, 8, 32, 4096, 1 << 18
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8
_SAFE_FLAGS = os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC
_CHROOT = re.compile(r"server-([1-9][0-9]{0,18})", re.ASCII)

_libc = ctypes.CDLL(None, use_errno=True)


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

    def ensure(self, server: str, folder: str) -> None:
        """Create the chroot and mount the volume's folder in it. Idempotent.

        Args:
            server: The server's id.
            folder: The volume's folder, as a path on the node.

        Raises:
            OSError: The folder cannot be opened or mounted.
        """
        chroot = self.chroot(server)
        target = chroot / "files"
        for path in (chroot, target, chroot / "dev"):
            # Create only the agent's own folders: a mounted one belongs to the customer.
            if not path.is_dir():
                path.mkdir(mode=0o755)
        source = open_folder(self._host_root, folder)
        try:
            if _is_mounted(target, source):
                return
            _unmount(target)
            _call("mount", f"/proc/self/fd/{source}".encode(), os.fsencode(target), None, _MS_BIND, None)
            _call("mount", None, os.fsencode(target), None, _MS_PRIVATE, None)
            flags = _MS_BIND | _MS_REMOUNT | _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
            _call("mount", None, os.fsencode(target), None, flags, None)
        finally:
            os.close(source)

    def remove(self, server: str) -> None:
        """Unmount and remove the chroot. Raises OSError, for example while it is still mounted."""
        chroot = self.chroot(server)
        _unmount(chroot / "files")
        (chroot / "dev" / "log").unlink(missing_ok=True)
        for path in (chroot / "files", chroot / "dev", chroot):
            if path.exists():
                path.rmdir()


def open_folder(root: Path, folder: str) -> int:
    """A file descriptor of `folder` below `root`, opened without following any link. Raises OSError."""
    descriptor = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    for name in folder.strip("/").split("/"):
        flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            child = os.open(name, flags, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        descriptor = child
    return descriptor


def _is_mounted(target: Path, source: int) -> bool:
    """Whether `source` is mounted on the target, with the flags that make it safe."""
    mounted, expected = target.stat(), os.fstat(source)
    is_same = (mounted.st_dev, mounted.st_ino) == (expected.st_dev, expected.st_ino)
    return is_same and os.statvfs(target).f_flag & _SAFE_FLAGS == _SAFE_FLAGS


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
