"""Disks for tests of a restore: plain folders, worked on by an ordinary user in a process that can be killed."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backup_job import changes, disk, repository
from backup_job.errors import JobFailed
from backup_job.places import Places
from backup_job.request import parse

#: Whoever runs the tests, a Job has no capabilities. Root gives them up; no account has this number.
UID = 61234 if os.geteuid() == 0 else os.geteuid()


class Killed(Exception):
    """The process was killed on purpose."""


@dataclass
class Ground:
    """The volumes of a Job's pod below one folder, which belong to an ordinary user."""

    root: Path
    places: Places = field(init=False)

    def __post_init__(self) -> None:
        self.places = Places(self.root)

    @property
    def world(self) -> Path:
        return self.places.world

    @property
    def own(self) -> Path:
        return self.world / ".gameserver"

    def job(
        self, command: str, *, kill_at: int = 0, meddle: Callable[[int, str], None] | None = None, **request: Any
    ) -> Any:
        """Run a command, and return its answer.

        Args:
            command: As in `lay-out`.
            kill_at: Before which change of the disk its process is killed; 0 for none.
            meddle: Is called before each change, with its number and word: a customer who is quick.
            request: The request; `origin` is its `from`.

        Raises:
            JobFailed: What the command raised.
            Killed: It was killed.
        """
        if "origin" in request:
            request["from"] = request.pop("origin")
        text = json.dumps(request)

        def run() -> Any:
            count = 0

            def before(word: str) -> None:
                nonlocal count
                count += 1
                if count == kill_at:
                    os.killpg(0, signal.SIGKILL)
                if meddle:
                    meddle(count, word)

            changes.before = before
            # Loaded already: an ordinary user may not reach the folder that Python is in.
            module = repository if command == "backup" else disk
            answer = getattr(module, command.replace("-", "_"))(parse(command, text, self.places))
            return {"answer": answer, "changes": count}

        told = as_customer(run)
        self.changes = told["changes"]
        return told["answer"]

    def is_killed(self, job: dict[str, Any], step: int) -> bool:
        """Whether a Job that is killed before this change of the disk comes to that point."""
        try:
            self.job(kill_at=step, **job)
        except Killed:
            return True
        return False


@contextmanager
def ground() -> Iterator[Ground]:
    """Empty volumes; they are removed at the end, whatever is in them."""
    # To wait for a disk at each of thousands of steps would take minutes.
    memory = Path("/dev/shm")
    made = Path(tempfile.mkdtemp(prefix="gameserver-disk-", dir=memory if memory.is_dir() else None))
    try:
        made.chmod(0o755)
        for name in ("world", "scratch", "source", "store", "tmp", "cache", "run/gameserver/key"):
            (made / name).mkdir(parents=True)
        (made / "run/gameserver/key/password").write_text("secret")
        for folder, folders, files in os.walk(made):
            for name in [".", *folders, *files]:
                os.chown(Path(folder, name), UID, UID)
        yield Ground(made)
    finally:
        as_customer(lambda: _erase(made))
        shutil.rmtree(made)


def _erase(made: Path) -> None:
    with changes.opened(str(made)) as folder:
        for name in changes.names(folder):
            if not (made / name).is_mount():
                changes.remove(folder, name)


def as_customer(run: Callable[[], Any]) -> Any:
    """Run something in a process of an ordinary user without capabilities, and return what it returns (JSON)."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        _child(run, writing)
    os.close(writing)
    with os.fdopen(reading) as answers:
        text = answers.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        raise Killed
    told = json.loads(text)
    if "code" in told:
        raise JobFailed(told["code"], told["message"])
    assert "error" not in told, told["error"]
    return told["value"]


def _child(run: Callable[[], Any], writing: int) -> None:
    """Never returns: the test goes on in the other process."""
    try:
        # A group of its own: restic is killed with it, as in a pod.
        os.setsid()
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(UID)
            os.setuid(UID)
        os.umask(0o022)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        try:
            told = {"value": run()}
        except JobFailed as failed:
            told = {"code": failed.code, "message": failed.message}
        except BaseException as failed:
            import traceback

            told = {"error": "".join(traceback.format_exception(failed))}
        with os.fdopen(writing, "w") as answer:
            answer.write(json.dumps(told))
    finally:
        os._exit(0)


def make(folder: Path, tree: dict[str, Any]) -> None:
    """Make files (text), folders (dicts), symlinks (`Link`); as the ordinary user."""

    def run() -> None:
        _make(os.fsencode(folder), tree)

    as_customer(run)


@dataclass(frozen=True)
class Link:
    """A symlink."""

    target: str


@dataclass(frozen=True)
class Closed:
    """A file or folder with other permissions."""

    content: Any
    mode: int


def _make(folder: bytes, tree: dict[str, Any]) -> None:
    for name, content in tree.items():
        path = os.path.join(folder, os.fsencode(name))
        mode = None
        if isinstance(content, Closed):
            content, mode = content.content, content.mode
        if isinstance(content, dict):
            os.makedirs(path, exist_ok=True)
            _make(path, content)
        elif isinstance(content, Link):
            os.symlink(content.target, path)
        else:
            with open(path, "wb") as file:
                file.write(content.encode())
        if mode is not None:
            os.chmod(path, mode)


def look(folder: Path, *, without: tuple[str, ...] = (".gameserver",)) -> Any:
    """What is in a folder, as `make` takes it."""

    def read(path: bytes) -> Any:
        seen = os.lstat(path)
        if stat.S_ISLNK(seen.st_mode):
            return {"link": os.fsdecode(os.readlink(path))}
        mode = stat.S_IMODE(seen.st_mode)
        if stat.S_ISDIR(seen.st_mode):
            with _readable(path, mode, 0o700):
                inner = {os.fsdecode(name): read(os.path.join(path, name)) for name in sorted(os.listdir(path))}
            return {"mode": mode, "in": inner}
        if not stat.S_ISREG(seen.st_mode):
            return {"kind": stat.S_IFMT(seen.st_mode)}
        with _readable(path, mode, 0o400), open(path, "rb") as file:
            return {"mode": mode, "text": file.read().decode(errors="surrogateescape")}

    def run() -> Any:
        top = os.fsencode(folder)
        if not os.path.isdir(top):
            return None
        return {
            os.fsdecode(name): read(os.path.join(top, name))
            for name in sorted(os.listdir(top))
            if os.fsdecode(name) not in without
        }

    return as_customer(run)


@contextmanager
def _readable(path: bytes, mode: int, need: int) -> Iterator[None]:
    if mode & need != need:
        os.chmod(path, mode | need)
    try:
        yield
    finally:
        if mode & need != need:
            os.chmod(path, mode)


def texts(folder: Path) -> dict[str, int]:
    """How often each file's text is anywhere in a folder."""
    found: dict[str, int] = {}

    def add(tree: dict[str, Any]) -> None:
        for entry in tree.values():
            if "text" in entry:
                found[entry["text"]] = found.get(entry["text"], 0) + 1
            add(entry.get("in", {}))

    add(look(folder, without=()) or {})
    return found
