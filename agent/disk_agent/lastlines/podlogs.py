"""The logs of the game servers on this node, as the container runtime writes them.

The kubelet deletes a pod's log within seconds of the pod's end, so the newest log of each game is held open: an open
file outlives its deletion. Nothing is read of it before it has ended.

Path on the node: `<namespace>_<pod>_<uid>/<container>/<restarts>.log`. When it has grown to some MiB, the kubelet
renames it to `<restarts>.log.<time>` and has a new one begun; at the next time it packs the renamed one.
"""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

log = logging.getLogger(__name__)

CONTAINER = "game"
WINDOW = 512 * 1024
"""How much of a log's end is read."""
MOST_PODS = 400
"""How many pods are followed. Each takes two open files; Kubernetes recommends at most 110 pods a node."""

_LOG = re.compile(r"(0|[1-9][0-9]{0,8})\.log", re.ASCII)
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# A FIFO would block without O_NONBLOCK.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True)
class Pod:
    """A game server's pod: the server's id, and its own uid."""

    server: str
    uid: str


@dataclass
class RunLog:
    """The log of one run of a pod's game, held open until `close`.

    Attributes:
        pod: The pod.
        restarts: How often its game had restarted before.
        files: The descriptors of its files, the older one first; at most two.
        complete: Whether the files are the whole log.
    """

    pod: Pod
    restarts: int
    files: list[int] = field(default_factory=list)
    complete: bool = True

    def end(self) -> tuple[bytes, bool]:
        """The end of the log, and whether that is all of it."""
        data, whole = b"", self.complete
        for file in reversed(self.files):
            size, room = os.fstat(file).st_size, WINDOW - len(data)
            whole = whole and size <= room
            data = os.pread(file, min(size, room), max(0, size - room)) + data
        return data, whole

    def close(self) -> None:
        """Close the files."""
        while self.files:
            os.close(self.files.pop())


class PodLogs:
    """The logs of the games on this node.

    Args:
        root: The folder with all pods' logs.
        namespace: The namespace of the game servers.
    """

    def __init__(self, root: Path, namespace: str) -> None:
        self._root = root
        self._name = re.compile(
            rf"{re.escape(namespace)}_server-([1-9][0-9]{{0,18}})-0_([0-9a-f]{{8}}(?:-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}})",
            re.ASCII,
        )
        self._runs: dict[Pod, RunLog] = {}
        # Their log has ended, but their folder is still there.
        self._done: set[Pod] = set()
        self._complaints: dict[Pod, str] = {}

    def pods(self) -> list[Pod]:
        """The pods that have a log here."""
        return list(self._runs)

    def look(self) -> list[RunLog]:
        """Look at all logs once; returns the last run of each pod whose log has been deleted since.

        The caller closes those. Call it often: of a pod that comes and goes between two calls, nothing is known.
        """
        folders = self._folders()
        ended = []
        for pod, name in folders.items():
            try:
                self._look_at(pod, name)
            except FileNotFoundError:
                # The kubelet deletes the files first, the folder up to a minute later.
                if pod in self._runs:
                    ended.append(self._ended(pod))
            except OSError as error:
                self._complain(pod, str(error))
        ended += [self._ended(pod) for pod in self._runs.keys() - folders.keys()]
        self._done &= folders.keys()
        self._complaints = {pod: text for pod, text in self._complaints.items() if pod in folders}
        return ended

    def _folders(self) -> dict[Pod, str]:
        """The folders of the game servers' pods."""
        folders = {}
        for name in sorted(path.name for path in self._root.iterdir()):
            if (parts := self._name.fullmatch(name)) is not None:
                folders[Pod(parts[1], parts[2])] = name
        return folders

    def _ended(self, pod: Pod) -> RunLog:
        self._done.add(pod)
        return self._runs.pop(pod)

    def _look_at(self, pod: Pod, name: str) -> None:
        """Hold the pod's newest log open. Raises FileNotFoundError if the one that was held is gone."""
        if pod in self._done:
            return
        with self._container(name) as folder:
            with os.scandir(folder) as entries:
                names = [entry.name for entry in entries]
            numbers = [int(parts[1]) for each in names if (parts := _LOG.fullmatch(each))]
            held = self._runs.get(pod)
            number = max(numbers, default=-1)
            if held is not None and number < held.restarts:
                if not _rotated(names, held.restarts):
                    raise FileNotFoundError(name)
            elif held is not None and number == held.restarts:
                _hold_newest(held, folder)
            elif number >= 0:
                self._hold(pod, number, folder, names)

    @contextmanager
    def _container(self, name: str) -> Iterator[int]:
        """The folder of the pod's container, opened without following any link."""
        root = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            pod = os.open(name, _FOLDER, dir_fd=root)
        finally:
            os.close(root)
        try:
            folder = os.open(CONTAINER, _FOLDER, dir_fd=pod)
        finally:
            os.close(pod)
        try:
            yield folder
        finally:
            os.close(folder)

    def _hold(self, pod: Pod, number: int, folder: int, names: list[str]) -> None:
        """Hold the log of a run that is new here, and the one that the kubelet renamed last."""
        if pod not in self._runs and len(self._runs) >= MOST_PODS:
            self._complain(pod, f"the agent follows {MOST_PODS} pods already")
            return
        rotated = _rotated(names, number)
        run = RunLog(pod, number, complete=not rotated)
        if rotated and not rotated[-1].endswith(".gz"):
            with suppress(OSError):  # It has been packed meanwhile.
                run.files.append(_opened(rotated[-1], folder))
        try:
            run.files.append(_opened(f"{number}.log", folder))
        except OSError:
            run.close()
            raise
        if (before := self._runs.get(pod)) is not None:
            before.close()
        self._runs[pod] = run

    def _complain(self, pod: Pod, text: str) -> None:
        """Log why nothing is kept of a pod, once."""
        if self._complaints.get(pod) != text:
            self._complaints[pod] = text
            log.warning("log not readable", extra={"fields": {"server": int(pod.server), "error": text}})


def _rotated(names: Iterable[str], number: int) -> list[str]:
    """The files that the kubelet has renamed, in order. Between a renaming and the next line, there is no other."""
    return sorted(name for name in names if name.startswith(f"{number}.log."))


def _hold_newest(run: RunLog, folder: int) -> None:
    """If the kubelet has renamed the file since, hold the new one too, and no longer the one before."""
    name = f"{run.restarts}.log"
    now, held = os.stat(name, dir_fd=folder, follow_symlinks=False), os.fstat(run.files[-1])
    if (now.st_dev, now.st_ino) == (held.st_dev, held.st_ino):
        return
    run.files.append(_opened(name, folder))
    while len(run.files) > 2:
        os.close(run.files.pop(0))
        run.complete = False


def _opened(name: str, folder: int) -> int:
    """A descriptor of a plain file. Raises OSError if it is anything else, such as a link."""
    file = os.open(name, _FILE, dir_fd=folder)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError("not a plain file")
    return file
