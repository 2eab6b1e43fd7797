"""The journal of a placing: what is to be moved. It is on the disk before the first rename.

Customers can write to it, so it is read as strictly as a request: at worst, customers damage their own worlds.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from backup_job import changes
from backup_job.errors import JobFailed
from backup_job.own_folder import NAME as OWN_FOLDER

NAME = "journal.json"
_NEW = "journal.new"
#: A name has at most 255 bytes, and 1,530 characters in JSON. The largest worlds have thousands of topmost entries.
_MOST_BYTES = 1 << 28
#: In this order. With `from: scratch` there is no room for both worlds, so the old one goes out and is removed first.
PHASES = ("open-out", "out", "remove", "copy", "open", "in")


@dataclass(frozen=True)
class Unit:
    """A file or folder that changes places, as one.

    Attributes:
        path: From the topmost folder of the world.
        inode: The inode number of what moves; None if nothing comes, and what is there only goes out. A number stays
            with a file or folder wherever it is moved, so it says whether that has happened.
    """

    path: str
    inode: int | None


@dataclass(frozen=True)
class Journal:
    """What is to be moved.

    Attributes:
        operation: The operation's id.
        phase: One of `PHASES`.
        paths: What was asked for; empty for the whole world.
        units: What moves in this phase.
        modes: Permissions of folders that their owner had closed, by their inode numbers: they are opened to be moved.
    """

    operation: str
    phase: str
    paths: tuple[str, ...]
    units: tuple[Unit, ...] = ()
    modes: Mapping[int, int] = field(default_factory=dict)


def write(folder: int, journal: Journal) -> None:
    """Write it, and wait until it is on the disk."""
    text = json.dumps(asdict(journal)).encode()
    if changes.look(folder, _NEW) is not None:
        changes.remove(folder, _NEW)
    with os.fdopen(changes.create(folder, _NEW), "wb") as file:
        file.write(text)
        file.flush()
        changes.sync(file.fileno())
    if changes.is_folder(changes.look(folder, NAME)):
        changes.aside(folder, NAME)
    changes.replace(folder, _NEW, NAME)
    changes.sync(folder)


def read(folder: int) -> Journal | None:
    """The journal; None if there is none.

    Raises:
        JobFailed: `journal-damaged`: it is not one that `write` has written.
    """
    seen = changes.look(folder, NAME)
    if seen is None:
        return None
    if not stat.S_ISREG(seen.st_mode) or seen.st_size > _MOST_BYTES:
        raise _damaged()
    try:
        descriptor = os.open(NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        with os.fdopen(descriptor, "rb") as file:
            return _parse(json.loads(file.read(_MOST_BYTES)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise _damaged() from None


def _parse(value: Any) -> Journal:
    units = tuple(Unit(_path(unit["path"]), _number(unit["inode"])) for unit in value["units"])
    journal = Journal(
        operation=str(value["operation"]),
        phase=str(value["phase"]),
        paths=tuple(_path(path) for path in value["paths"]),
        units=units,
        modes={int(inode): int(mode) & 0o7777 for inode, mode in value["modes"].items()},
    )
    if journal.phase not in PHASES:
        raise ValueError
    return journal


def _path(value: Any) -> str:
    parts = value.split("/")
    if "\0" in value or parts[0] == OWN_FOLDER or any(part in ("", ".", "..") for part in parts):
        raise ValueError
    return str(value)


def _number(value: Any) -> int | None:
    return None if value is None else int(value)


def _damaged() -> JobFailed:
    return JobFailed("journal-damaged", "The journal of the restore cannot be read: somebody has changed it.")
