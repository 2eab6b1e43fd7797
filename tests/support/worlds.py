"""Servers' worlds in memory: disks, snapshots, a store, and the Jobs that work on them, each of which may be killed.

A world is a text. `Disks` says of each change whether it may be made now, so a test finds out about a world that is
changed under a running game, or lost.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from service.backups.jobs import JobSpec, JobState
from service.backups.snapshots import SnapshotState
from tests.support.fakes import World

Disk = dict[str, str]


class Storage:
    """What is on the disks, in the snapshots and in the store.

    Attributes:
        disks: By the claim's name: what is in the folder `world`, and in those that a Job has made beside it.
        snapshots: The world in each VolumeSnapshot.
        store: The world in each backup of the store, by restic's id.
        fits: Whether a second world fits on the disks.
        cuts: Whether the storage makes snapshots.
        answers: What Jobs of a command answer instead, in order: a code, or "" for an answer that is lost.
        kills: How probable it is that a Job is killed.
        stuck: Whether no node runs a Job's pod.
        lost: The command whose pods run on a node that does not answer any more, and are never gone.
        keys: The uids of the servers whose key opens their repository.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.disks: dict[str, Disk] = {}
        self.snapshots: dict[str, str] = {}
        self.store: dict[str, str] = {}
        self.fits = True
        self.cuts = False
        self.answers: dict[str, list[str]] = {}
        self.kills = 0.0
        self.stuck = False
        self.lost = ""
        self.lost_pods: set[str] = set()
        self.keys: set[str] = {"uid-1"}
        self.jobs: dict[str, JobSpec] = {}
        self.states: dict[str, JobState] = {}
        self.commands: list[str] = []

    def keeps(self, claim: str, content: str) -> bool:
        """Whether a world is still somewhere."""
        places = (*self.disks[claim].values(), *self.snapshots.values(), *self.store.values())
        return content in places

    def replace_world(self, claim: str, content: str) -> None:
        """Change a server's world, which nobody may use now, and which must be somewhere else already."""
        assert int(claim.removeprefix("server-")) not in self.world.pods, "the game runs"
        disk = self.disks[claim]
        old, disk["world"] = disk["world"], content
        assert self.keeps(claim, old) or not old, f"the world {old!r} is lost"


class FakeJobs:
    """The Jobs, for one process; `write` does a write of this process, which may be its last."""

    def __init__(self, storage: Storage, write: Callable[[Callable[[], Any]], Any] = lambda work: work()) -> None:
        self._storage = storage
        self._write = write

    def run(self, spec: JobSpec) -> JobState:
        if spec.name not in self._storage.jobs:
            self._write(lambda: self._create(spec))
        return self.look(spec)

    def look(self, spec: JobSpec) -> JobState:
        jobs, states = self._storage.jobs, self._storage.states
        if spec.name not in jobs:
            return JobState("missing")
        if spec.command == self._storage.lost:
            self._storage.lost_pods.add(spec.operation)
            return JobState("running", started=True, lost_since="2026-11-01T00:00:00Z")
        if states[spec.name].state == "running" and not self._storage.stuck and random.random() < 0.7:
            states[spec.name] = self._finish(jobs[spec.name])
        return states[spec.name]

    def remove(self, spec: JobSpec) -> bool:
        if spec.name not in self._storage.jobs:
            return True
        self._write(lambda: self._storage.jobs.pop(spec.name, None))
        return False

    def remove_all(self, operation: str) -> bool:
        found = [name for name, spec in self._storage.jobs.items() if spec.operation == operation]
        self._write(lambda: [self._storage.jobs.pop(name, None) for name in found])
        return not found and operation not in self._storage.lost_pods

    def has_key(self, uid: str) -> bool:
        return uid in self._storage.keys

    def _create(self, spec: JobSpec) -> None:
        self._storage.jobs[spec.name] = spec
        self._storage.states[spec.name] = JobState("running")
        self._storage.commands.append(spec.command)

    def _finish(self, spec: JobSpec) -> JobState:
        storage = self._storage
        planned = storage.answers.get(spec.command, [])
        if planned:
            code = planned.pop(0)
            return _failed(code) if code else JobState("failed", code="no-answer", message="It was killed.")
        try:
            answer = _Program(storage, spec, storage.kills).run()
        except _Killed:
            return JobState("failed", code="no-answer", message="It was killed.", started=True)
        except _Failed as failed:
            return _failed(str(failed))
        if random.random() < storage.kills:
            return JobState("failed", code="no-answer", message="It was killed.", started=True)
        return JobState("done", {"ok": True, **answer}, started=True)


class FakeSnapshots:
    """The VolumeSnapshots, for one process."""

    def __init__(self, storage: Storage, write: Callable[[Callable[[], Any]], Any] = lambda work: work()) -> None:
        self._storage = storage
        self._write = write

    def class_for(self, driver: str) -> str | None:
        return "pool" if self._storage.cuts else None

    def take(self, name: str, claim: str, class_name: str, uid: str, labels: dict[str, str]) -> None:
        world = self._storage.disks[claim]["world"]
        self._write(lambda: self._storage.snapshots.setdefault(name, world))

    def look(self, name: str) -> SnapshotState:
        return SnapshotState("ready" if name in self._storage.snapshots else "missing")

    def remove(self, name: str) -> bool:
        if name not in self._storage.snapshots:
            return True
        self._write(lambda: self._storage.snapshots.pop(name, None))
        return False


class _Killed(Exception):
    pass


class _Failed(Exception):
    pass


def _failed(code: str) -> JobState:
    return JobState("failed", {"ok": False, "code": code}, code, f"It failed with {code}.", started=True)


class _Program:
    """What backup/backup_job does, as far as it matters here."""

    def __init__(self, storage: Storage, spec: JobSpec, kills: float) -> None:
        self._storage, self._spec, self._kills = storage, spec, kills
        self._claim, self._request = spec.world, spec.request
        self._disk = storage.disks.get(spec.world, {})

    def run(self) -> dict[str, Any]:
        command: Callable[[], dict[str, Any]] = getattr(self, "_" + self._spec.command.replace("-", "_"))
        return command()

    def _step(self) -> None:
        if random.random() < self._kills:
            raise _Killed

    def _content(self) -> str:
        if self._spec.source is not None:
            return self._storage.snapshots[self._spec.source.snapshot]
        if self._request["uid"] not in self._storage.keys:
            raise _Failed("wrong-key")
        snapshot = self._request.get("snapshot", "")
        if snapshot not in self._storage.store:
            raise _Failed("snapshot-missing")
        return self._storage.store[snapshot]

    def _inspect(self) -> dict[str, Any]:
        return {"fits_beside": self._storage.fits, "missing_paths": self._missing()}

    def _missing(self) -> list[str]:
        """The paths that are not in what comes: no world has `missing`, and a new one has no `added`."""
        there = {"added"} if self._content() == "new" else set()
        return [path for path in self._request.get("paths", []) if path in {"missing", *there}]

    def _init(self) -> dict[str, Any]:
        self._storage.keys.add(self._spec.uid)
        return {}

    def _lay_out(self) -> dict[str, Any]:
        operation = self._request["operation"]
        if any(f"{kind}-{operation}" in self._disk for kind in ("journal", "before", "placed")):
            raise _Failed("placing-began")
        if self._missing() and not self._request.get("absent"):
            raise _Failed("path-missing")
        self._step()
        self._disk[f"restore-{operation}"] = self._content()
        return {}

    def _place(self) -> dict[str, Any]:
        operation = self._request["operation"]
        if self._request["from"] == "scratch":
            return self._replace(operation)
        if f"before-{operation}" not in self._disk:
            self._swap(f"restore-{operation}", operation)
        return {"before": True}

    def _undo(self) -> dict[str, Any]:
        operation, before = self._request["operation"], self._request["before"]
        if f"before-{operation}" not in self._disk:
            if f"restore-{operation}" not in self._disk:
                if f"before-{before}" not in self._disk:
                    raise _Failed("before-missing")
                self._disk[f"restore-{operation}"] = self._disk.pop(f"before-{before}")
            self._swap(f"restore-{operation}", operation)
        return {"before": True}

    def _swap(self, folder: str, operation: str) -> None:
        if folder not in self._disk:
            raise _Failed("nothing-laid-out")
        if f"journal-{operation}" not in self._disk:
            self._step()
            self._disk[f"journal-{operation}"] = "in"
        if self._disk[f"journal-{operation}"] == "in":
            self._step()
            old, new = self._disk["world"], self._disk[folder]
            self._disk[folder] = old
            self._storage.replace_world(self._claim, new)
            self._disk[f"journal-{operation}"] = "moved"
        self._step()
        self._disk[f"before-{operation}"] = self._disk.pop(folder)
        del self._disk[f"journal-{operation}"]

    def _replace(self, operation: str) -> dict[str, Any]:
        if f"placed-{operation}" not in self._disk:
            content = self._content()
            self._step()
            self._disk[f"journal-{operation}"] = "out"
            self._storage.replace_world(self._claim, "")
            self._step()
            self._storage.replace_world(self._claim, content)
            del self._disk[f"journal-{operation}"]
            self._disk[f"placed-{operation}"] = ""
        return {"before": False}

    def _clean(self) -> dict[str, Any]:
        for operation in self._request["operations"]:
            if f"journal-{operation}" in self._disk:
                raise _Failed("placing-began")
            for kind in ("restore", "before", "placed"):
                with suppress(KeyError):
                    del self._disk[f"{kind}-{operation}"]
        return {}
