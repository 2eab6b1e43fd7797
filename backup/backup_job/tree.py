"""What is in a folder: walked, copied and compared, with each folder opened in the one above it."""

from __future__ import annotations

import errno
import os
import resource
import stat
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass

from backup_job import changes
from backup_job.errors import JobFailed

_CHUNK = 1 << 20
_BLOCK = 4096
#: restic's words.
_KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISREG, "file"),
    (stat.S_ISDIR, "dir"),
    (stat.S_ISLNK, "symlink"),
    (stat.S_ISFIFO, "fifo"),
    (stat.S_ISSOCK, "socket"),
    (stat.S_ISBLK, "dev"),
    (stat.S_ISCHR, "chardev"),
)
#: Only a file, a folder, a symlink and a pipe can be made again by an ordinary user. A socket ends with its process.
_MADE = ("file", "dir", "symlink", "fifo")
_UNREADABLE_MOST = 10


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, a folder or what else there is.

    Attributes:
        path: From the folder that is walked, with surrogates for bytes that are not UTF-8.
        kind: As restic says it.
        seen: What lstat(2) says.
        folder: The folder that has it, open until the next entry is asked for.
        name: Its name there.
    """

    path: str
    kind: str
    seen: os.stat_result
    folder: int
    name: str

    @property
    def size(self) -> int:
        """Bytes, of a file; else 0."""
        return self.seen.st_size if self.kind == "file" else 0

    def target(self) -> str:
        """Where a symlink leads to."""
        return os.readlink(self.name, dir_fd=self.folder)


def space(kind: str, size: int) -> int:
    """The bytes of a disk that an entry may take."""
    return _BLOCK * (1 + -(-size // _BLOCK) if kind == "file" else 1)


def walk(
    root: int, *, wanted: Callable[[str], bool] = lambda _path: True, unreadable: Callable[[str], None] | None = None
) -> Generator[Entry, None, None]:
    """Everything in a folder, a folder before what is in it, in the order of the names' bytes: as restic lists it.

    Args:
        root: The folder, open.
        wanted: Whether to look at a path (and, of a folder, into it).
        unreadable: Is told the paths of folders that cannot be read.

    Raises:
        JobFailed: `too-deep`: more folders in each other than the system opens at once.
    """
    _allow_many()
    levels: list[tuple[int, str, Iterator[str]]] = [(os.dup(root), "", iter(_names(root)))]
    try:
        while levels:
            folder, prefix, names = levels[-1]
            name = next(names, None)
            if name is None:
                os.close(folder)
                levels.pop()
                continue
            path = prefix + name
            if not wanted(path) or (seen := changes.look(folder, name)) is None:
                continue
            kind = next((kind for test, kind in _KINDS if test(seen.st_mode)), "irregular")
            yield Entry(path, kind, seen, folder, name)
            if kind == "dir":
                levels += _level(folder, name, path, unreadable)
    finally:
        for folder, _prefix, _names_left in levels:
            os.close(folder)


def _level(
    parent: int, name: str, path: str, unreadable: Callable[[str], None] | None
) -> list[tuple[int, str, Iterator[str]]]:
    try:
        folder = changes.open_folder(name, parent)
    except PermissionError:
        if unreadable:
            unreadable(path)
        return []
    except OSError as failed:
        if failed.errno == errno.EMFILE:
            raise JobFailed("too-deep", "The folders are nested too deeply.") from None
        raise
    try:
        return [(folder, path + "/", iter(_names(folder)))]
    except OSError as failed:
        os.close(folder)
        if not isinstance(failed, PermissionError):
            raise
        if unreadable:
            unreadable(path)
        return []


def _names(folder: int) -> list[str]:
    return sorted(changes.names(folder), key=os.fsencode)


def _allow_many() -> None:
    """One folder is open for each level."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@dataclass
class Sum:
    """What was copied or compared.

    Attributes:
        files: How many files, and what else is no folder.
        size: Their bytes, as `ls -l` has them.
        space: The bytes of a disk that all may take, folders with them.
        unreadable: How many files and folders could not be read.
        paths: Up to ten of them.
    """

    files: int = 0
    size: int = 0
    space: int = 0
    unreadable: int = 0
    paths: list[str] | None = None

    def add(self, kind: str, size: int) -> None:
        """Count an entry."""
        self.files += kind != "dir"
        self.size += size if kind == "file" else 0
        self.space += space(kind, size)

    def skip(self, path: str) -> None:
        """Count what could not be read."""
        self.unreadable += 1
        self.paths = self.paths or []
        if len(self.paths) < _UNREADABLE_MOST:
            self.paths.append(path)


def copy(source: int, target: int, *, wanted: Callable[[str], bool] = lambda _path: True) -> Sum:
    """Copy what is in a folder into an empty one: contents, holes, modes, times, symlinks and hard links.

    What cannot be read is left out and counted. Sockets are left out, as a backup does.
    """
    total = Sum()
    links: dict[tuple[int, int], str] = {}
    folders: list[Entry] = []
    targets = [(os.dup(target), "")]

    def close_up_to(path: str) -> int:
        """The open target folder that has the path."""
        while not path.startswith(targets[-1][1]):
            _leave(targets, folders)
        return targets[-1][0]

    try:
        with closing(walk(source, wanted=wanted, unreadable=total.skip)) as entries:
            for entry in entries:
                into = close_up_to(entry.path)
                if entry.kind not in _MADE:
                    continue
                if not _copy_one(entry, into, target, links):
                    total.skip(entry.path)
                    continue
                total.add(entry.kind, entry.size)
                if entry.kind == "dir":
                    targets.append((changes.open_folder(entry.name, into), entry.path + "/"))
                    folders.append(entry)
        while len(targets) > 1:
            _leave(targets, folders)
    finally:
        for folder, _path in targets:
            os.close(folder)
    return total


def _leave(targets: list[tuple[int, str]], folders: list[Entry]) -> None:
    """A folder is complete: nothing changes its times and needs its permissions any more."""
    folder, _path = targets.pop()
    seen = folders.pop().seen
    os.fchmod(folder, stat.S_IMODE(seen.st_mode))
    os.utime(folder, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    os.close(folder)


def _copy_one(entry: Entry, into: int, top: int, links: dict[tuple[int, int], str]) -> bool:
    """Copy an entry, without what is in it; whether it could be read."""
    times = (entry.seen.st_atime_ns, entry.seen.st_mtime_ns)
    if entry.kind == "dir":
        changes.make_folder(into, entry.name)
        return True
    if entry.kind in ("symlink", "fifo"):
        changes.before("create")
        if entry.kind == "symlink":
            os.symlink(entry.target(), entry.name, dir_fd=into)
        else:
            os.mkfifo(entry.name, stat.S_IMODE(entry.seen.st_mode), dir_fd=into)
        os.utime(entry.name, ns=times, dir_fd=into, follow_symlinks=False)
        return True
    key = (entry.seen.st_dev, entry.seen.st_ino)
    if entry.seen.st_nlink > 1 and key in links and _link(top, links[key], into, entry.name):
        return True
    if not _copy_file(entry, into):
        return False
    links[key] = entry.path
    return True


def _link(top: int, path: str, into: int, name: str) -> bool:
    changes.before("link")
    try:
        os.link(path, name, src_dir_fd=top, dst_dir_fd=into, follow_symlinks=False)
    except OSError:
        # Its path is too long, or the file system has no hard links: then it is a copy.
        return False
    return True


def open_file(entry: Entry) -> int | None:
    """Open a file to read; None if it cannot be read."""
    try:
        # A pipe that has taken its place would else let us wait for ever.
        return os.open(entry.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=entry.folder)
    except (PermissionError, FileNotFoundError):
        return None
    except OSError as failed:
        if failed.errno in (errno.ELOOP, errno.ENXIO):
            return None
        raise


def _copy_file(entry: Entry, into: int) -> bool:
    read = open_file(entry)
    if read is None:
        return False
    try:
        write = changes.create(into, entry.name)
        try:
            for start, end in _data(read, entry.size):
                while start < end:
                    part = os.pread(read, min(_CHUNK, end - start), start)
                    if not part:
                        break
                    _write(write, part, start)
                    start += len(part)
            os.ftruncate(write, entry.size)
            os.fchmod(write, stat.S_IMODE(entry.seen.st_mode))
            os.utime(write, ns=(entry.seen.st_atime_ns, entry.seen.st_mtime_ns))
        finally:
            os.close(write)
    finally:
        os.close(read)
    return True


def _write(descriptor: int, part: bytes, offset: int) -> None:
    view = memoryview(part)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def _data(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Where a file has data; the rest are holes."""
    end = 0
    while end < size:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError as failed:
            if failed.errno == errno.ENXIO:
                return
            raise
        end = min(os.lseek(descriptor, start, os.SEEK_HOLE), size)
        yield start, end


def same(one: int, other: int, *, wanted: Callable[[str], bool] = lambda _path: True) -> bool:
    """Whether what is readable in a folder is in another as well, by contents, kinds and links; and nothing else."""
    with (
        closing(_readable(walk(one, wanted=wanted))) as entries,
        closing(walk(other)) as others,
    ):
        for entry in entries:
            match = next(others, None)
            if match is None or (match.path, match.kind, match.size) != (entry.path, entry.kind, entry.size):
                return False
            if entry.kind == "symlink" and match.target() != entry.target():
                return False
            if entry.kind == "file" and not _same_contents(entry, match):
                return False
        return next(others, None) is None


def _readable(entries: Iterator[Entry]) -> Generator[Entry, None, None]:
    for entry in entries:
        if entry.kind == "file" and (descriptor := open_file(entry)) is not None:
            os.close(descriptor)
            yield entry
        elif entry.kind in _MADE and entry.kind != "file":
            yield entry


def _same_contents(one: Entry, other: Entry) -> bool:
    descriptors: list[int] = []
    try:
        for entry in (one, other):
            descriptor = open_file(entry)
            if descriptor is None:
                return False
            descriptors.append(descriptor)
        # Where neither has data both have zeros.
        for start, end in _either(*(list(_data(descriptor, one.size)) for descriptor in descriptors)):
            for offset in range(start, end, _CHUNK):
                length = min(_CHUNK, end - offset)
                if os.pread(descriptors[0], length, offset) != os.pread(descriptors[1], length, offset):
                    return False
        return True
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _either(one: list[tuple[int, int]], other: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The ranges that are in either list, each part once."""
    done = 0
    for start, end in sorted([*one, *other]):
        if end > done:
            yield max(start, done), end
            done = end
