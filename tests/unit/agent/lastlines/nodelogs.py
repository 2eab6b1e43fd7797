"""A folder with the logs of pods, as a container runtime and the kubelet make it."""

from __future__ import annotations

import shutil
from pathlib import Path

POD = "6cf83f54-0000-4000-8000-00000000000{}"
TIME = "2026-11-27T12:00:{:02}.{:09}Z"


def piece(text: bytes, number: int = 0, *, tag: bytes = b"F") -> bytes:
    """A line of the runtime's format; the number is part of its time."""
    return b"%s stdout %s %s\n" % (TIME.format(0, number).encode(), tag, text)


def numbered(count: int, text: bytes = b"line") -> bytes:
    """Lines with their numbers."""
    return b"".join(piece(b"%s %d" % (text, number), number) for number in range(count))


class PodFolder:
    """The logs of one pod of a game server."""

    def __init__(self, root: Path, server: int = 7, number: int = 1, namespace: str = "gameservers") -> None:
        self.uid = POD.format(number)
        self.folder = root / f"{namespace}_server-{server}-0_{self.uid}"
        self.container = self.folder / "game"

    def file(self, restarts: int = 0) -> Path:
        return self.container / f"{restarts}.log"

    def write(self, data: bytes, restarts: int = 0) -> None:
        """The game writes."""
        self.container.mkdir(parents=True, exist_ok=True)
        with self.file(restarts).open("ab") as file:
            file.write(data)

    def rotate(self, name: str, restarts: int = 0) -> None:
        """The kubelet renames the log."""
        self.file(restarts).rename(self.container / f"{restarts}.log.{name}")

    def remove(self) -> None:
        """The kubelet removes what there is of an ended pod."""
        shutil.rmtree(self.folder)
