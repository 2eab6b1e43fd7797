"""Keys of what is built, and a way to build that a kill in the middle cannot spoil."""

import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from local import paths

#: What is kept of each kind and name however old it is: this many, the last used.
_KEPT = 2
#: What is in use while no command runs (links of a checkout, a node's kubelet) is also kept for so many days of no use.
_DAYS = 14
#: The kind that is used only while a command runs, which holds the lock of the machine; it is also the largest.
_TRANSIENT = "images"


def key_of(*parts: str | bytes) -> str:
    """A short hexadecimal key of `parts`; each part's length is part of it."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(f"{len(data)}:".encode())
        digest.update(data)
    return digest.hexdigest()[:16]


def key_of_files(folder: Path, files: Iterable[Path]) -> str:
    """A key of the names (relative to `folder`), modes and contents of `files`."""
    parts: list[str | bytes] = []
    for file in sorted(files):
        executable = os.access(file, os.X_OK)
        parts += [str(file.relative_to(folder)), str(executable), file.read_bytes()]
    return key_of(*parts)


_THREADS: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
"""The locks among the threads of this process, which take turns without a message."""


@contextmanager
def lock(name: str) -> Iterator[None]:
    """Hold the machine-wide lock `name`: two checkouts never build the same thing at once."""
    paths.CACHE.mkdir(parents=True, exist_ok=True)
    with _THREADS[name], (paths.CACHE / f"{name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # On stderr: what a command prints is its result.
            print(f"waiting for another run on this machine to end ({file.name} is locked)", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def built(kind: str, key: str, build: Callable[[Path], None]) -> Path:
    """The cache's folder `kind`/`key`, built by `build(folder)` if it isn't there yet.

    The folder gets its name only once it is complete, so the rest of a killed build is never used. Such rests are
    removed, and so is what no checkout has used for a long time.
    """
    folder = paths.CACHE / kind / key
    if _used(folder):
        return folder
    with lock(kind):
        if _used(folder):
            return folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        for unfinished_build in folder.parent.glob(".building-*"):
            shutil.rmtree(unfinished_build)
        unfinished = Path(tempfile.mkdtemp(prefix=".building-", dir=folder.parent))
        unfinished.chmod(0o755)
        build(unfinished)
        os.sync()
        unfinished.rename(folder)
        _used(folder)
        _prune(folder.parent)
    return folder


def _used(folder: Path) -> bool:
    """Whether the folder exists; if so, its time of change says from now on that it was used now."""
    try:
        os.utime(folder)
    except FileNotFoundError:
        return False
    return True


def _prune(kind: Path) -> None:
    """Remove the entries of a kind that were not used lately; an entry's name is its key up to the last `-`."""
    days = 0 if kind.name == _TRANSIENT else _DAYS
    entries = [entry for entry in kind.iterdir() if not entry.name.startswith(".")]
    seen: Counter[str] = Counter()
    for entry in sorted(entries, key=lambda entry: entry.stat().st_mtime, reverse=True):
        name = entry.name.rpartition("-")[0]
        seen[name] += 1
        if seen[name] > _KEPT and entry.stat().st_mtime <= time.time() - days * 86400:
            # Under another name first: a kill in the middle leaves nothing that looks whole.
            doomed = entry.rename(kind / f".building-{entry.name}")
            shutil.rmtree(doomed)
