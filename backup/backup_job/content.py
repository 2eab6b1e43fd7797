"""What comes back: the world in a snapshot of restic, or in a copy of a storage's snapshot; whole, or some paths of it.

Whatever it comes from, it is compared after it was brought: a snapshot's world with the snapshot's list, a copy with
its source, by contents. restic compares each part of a file with its SHA-256 as it comes from the store, and says at
its end whether all could be written. A proof reads the files once more (`--verify`); a server that stands still does
not wait for that, since it takes as long as the restore itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager

from backup_job import changes, own_folder, restic, tree
from backup_job.errors import JobFailed
from backup_job.own_folder import WORLD
from backup_job.request import Request
from backup_job.restic import Node, as_listed
from backup_job.tree import Sum

#: What restic does not make again, or an ordinary user cannot. Any user can make one chardev, which restic does make
#: again: the whiteout of an overlay (https://docs.kernel.org/filesystems/overlayfs.html#whiteouts-and-opaque-directories).
_NOT_MADE = ("socket", "dev", "chardev", "irregular")
#: restic's codes, as what they mean for a backup.
_MEANT = {
    "snapshot-missing": ("backup-missing", "The backup is not in the store."),
    "repository-missing": ("backup-missing", "The server's repository is not in the store."),
    "repository-damaged": ("backup-damaged", "The backup is damaged."),
    # It reaches the store and the repository's key: what it cannot do then is to restore.
    "restic-failed": ("backup-damaged", "The backup cannot be restored; the Job's log has restic's words."),
}
#: The links whose targets are asked for at once: the kernel takes 2 MiB of arguments.
_ASKED = 500


class Content:
    """What a request asks for.

    Args:
        request: With `source`, or `store`, `uid` and `snapshot`; and `paths`.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        self._ask_for(request.paths)

    def _ask_for(self, paths: tuple[str, ...]) -> None:
        self._paths = paths
        self._listed = {as_listed(path): path for path in paths}

    def measure(self) -> tuple[Sum, list[str]]:
        """What it takes, and which of the paths are not in it."""
        total, missing = Sum(), dict(self._listed)
        if self._request.source:
            with own_folder.told(), self._source() as source:
                for entry in tree.walk(source, wanted=self._is_in_source(source), unreadable=total.skip):
                    total.add(entry.kind, entry.size)
                    missing.pop(as_listed(entry.path), None)
        else:

            def count(node: Node) -> None:
                if self._is_wanted(node.path):
                    total.add(node.kind, node.size)
                    missing.pop(node.path, None)

            with _meant():
                restic.listing(self._repository(), self._request.snapshot, count)
        return total, list(missing.values())

    def bring(self, target: int) -> tuple[str, Sum]:
        """Bring it into a folder; the name it has there, and what it is.

        With `absent`, paths that it does not have are left out, even if that is all of them.

        Raises:
            JobFailed: `backup-missing`, `backup-damaged`, `path-missing`, `restore-differs`, `disk-full`.
        """
        if self._request.absent and self._paths:
            _total, missing = self.measure()
            self._ask_for(tuple(path for path in self._paths if path not in missing))
            if not self._paths:
                changes.make_folder(target, WORLD)
                return WORLD, Sum()
        if self._request.source:
            return WORLD, self._copy(target)
        return self._restore(target)

    def _copy(self, target: int) -> Sum:
        changes.make_folder(target, WORLD)
        with self._source() as source, changes.opened(WORLD, target) as world:
            wanted = self._is_in_source(source)
            total = tree.copy(source, world, wanted=wanted)
            self._all_there(world)
            if not tree.same(source, world, wanted=wanted):
                raise _differs()
        return total

    def _all_there(self, world: int) -> None:
        for path in self._paths:
            try:
                with changes.parent_of(world, path) as (folder, name):
                    if changes.look(folder, name) is not None:
                        continue
            except (FileNotFoundError, NotADirectoryError):
                pass
            raise _missing()

    def _restore(self, target: int) -> tuple[str, Sum]:
        patterns = [
            option
            for top in restic.TREES
            for path in self._paths or [""]
            for option in ("--include", f"/{top}/{_literally(path)}".rstrip("/"))
        ]
        with _meant():
            # A path through `/proc` to the open folder: what a customer does to the names above it is of no effect.
            folder = f"/proc/self/fd/{target}"
            restic.run(
                self._repository(),
                *("restore", self._request.snapshot, "--target", folder, *patterns),
                *(["--verify"] if self._request.command == "prove" else []),
                opened=target,
                each=lambda _line: None,
            )
            name = next((top for top in restic.TREES if changes.is_folder(changes.look(target, top))), None)
            if name is None:
                raise _missing() if self._paths else _differs()
            with changes.opened(name, target) as world:
                total = self._compare(world, name)
        return name, total

    def _compare(self, world: int, top: str) -> Sum:
        """Compare a restored world with the snapshot's list.

        Both are in the same order, so neither has to be in memory as a whole. restic's list has U+FFFD for a byte that
        is not UTF-8; the order is that of the bytes nevertheless.
        """
        total, missing, links = Sum(), dict(self._listed), _Links(self._repository(), self._request.snapshot, top)
        with closing(tree.walk(world)) as walked:
            entries = (entry for entry in walked if entry.kind not in _NOT_MADE)

            def check(node: Node) -> None:
                if node.path == "." or node.kind in _NOT_MADE or not self._is_wanted(node.path):
                    return
                entry = next(entries, None)
                if entry is None or (as_listed(entry.path), entry.kind) != (node.path, node.kind):
                    raise _differs()
                if node.kind == "file" and entry.size != node.size:
                    raise _differs()
                if node.kind == "symlink":
                    links.add(node.path, as_listed(entry.target()))
                if node.kind == "dir" and self._is_on_the_way(node.path):
                    # restic makes it for what is in it, with permissions of its own.
                    changes.change_mode(entry.folder, entry.name, lambda _mode: node.mode | 0o700)
                total.add(node.kind, node.size)
                missing.pop(node.path, None)

            restic.listing(self._repository(), self._request.snapshot, check)
            if next(entries, None) is not None:
                raise _differs()
        if missing:
            raise _missing()
        links.check()
        return total

    def _repository(self) -> restic.Repository:
        assert self._request.store is not None
        return restic.repository(self._request.store, self._request.uid, self._request.places)

    def _source(self) -> AbstractContextManager[int]:
        return changes.opened(str(self._request.tree()))

    def _is_wanted(self, path: str) -> bool:
        """Whether a path of a list is asked for, is in one that is, or on the way to one."""
        return not self._listed or any(
            path == asked or path.startswith(asked + "/") or asked.startswith(path + "/") for asked in self._listed
        )

    def _is_on_the_way(self, path: str) -> bool:
        return any(asked.startswith(path + "/") for asked in self._listed)

    def _is_in_source(self, source: int) -> Callable[[str], bool]:
        stays = own_folder.stays(source)
        return lambda path: path not in stays and self._is_wanted(as_listed(path))


class _Links:
    """The symlinks of a restored world, and where they lead to: restic's ordinary list has not their targets."""

    def __init__(self, repository: restic.Repository, snapshot: str, top: str) -> None:
        self._repository, self._snapshot, self._top = repository, snapshot, top
        self._targets: dict[tuple[str, str], int] = {}
        self._paths: set[str] = set()

    def add(self, path: str, target: str) -> None:
        """A symlink that is there. Two paths may be listed as one, so each pair is counted."""
        self._paths.add(path)
        self._targets[path, target] = self._targets.get((path, target), 0) + 1

    def check(self) -> None:
        """Compare them with the snapshot."""
        paths = sorted(self._paths)
        listed: dict[tuple[str, str], int] = {}
        for start in range(0, len(paths), _ASKED):
            some = paths[start : start + _ASKED]
            for pair in self._find(some):
                listed[pair] = listed.get(pair, 0) + 1
        if listed != self._targets:
            raise _differs()

    def _find(self, paths: Sequence[str]) -> Iterator[tuple[str, str]]:
        # One sign for a byte that the list could not tell.
        patterns = [f"/{self._top}/{_literally(path)}".replace("\ufffd", "?") for path in paths]
        found = restic.run(self._repository, "find", "--snapshot", self._snapshot, *patterns).json() or []
        asked = set(paths)
        for match in (match for result in found for match in result["matches"]):
            path = match["path"].removeprefix(f"/{self._top}/")
            if match["type"] == "symlink" and path in asked:
                yield path, match.get("linktarget", "")


@contextmanager
def _meant() -> Iterator[None]:
    """restic's failures as what they mean for a backup, and the disk's as what they mean for a Job."""
    try:
        with own_folder.told():
            yield
    except JobFailed as failed:
        if failed.code in _MEANT:
            raise JobFailed(*_MEANT[failed.code]) from failed
        raise


def _literally(path: str) -> str:
    """A pattern of restic's that matches this path alone."""
    return "".join(f"\\{letter}" if letter in "*?[\\" else letter for letter in path)


def _missing() -> JobFailed:
    return JobFailed("path-missing", "A path that was asked for is not in the backup.")


def _differs() -> JobFailed:
    return JobFailed("restore-differs", "What was restored is not what the backup's list says.")
