"""Restores a server's world from a backup, and takes a restore back. See placing.py for how a world is placed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

from service.backups.jobs import JobSpec, JobState
from service.backups.records import Backup, Before, ServerBackups
from service.backups.requests import job_for_init, job_for_inspect, job_for_lay_out, job_for_undo, job_name
from service.backups.snapshots import SnapshotState
from service.controller.needed import needed_backup
from service.controller.placing import Jobs, Placing, Source
from service.controller.worlds import Next, Run, failed, go, seconds_in, wait
from service.errors import BackupNotFound, BackupNotUsable, OperationInProgress
from service.operations.checks import require_not_suspended
from service.operations.context import Context
from service.operations.operation import Operation
from service.operations.restore import usable_backup
from service.operations.worlds import at_work_with
from service.servers import values
from service.servers.diskjob import disk_is_made, disk_is_missing, disk_job, hindrance
from service.servers.objects import Objects, pod_on_disk
from service.servers.spec import spec_of_values
from service.servers.values import Values

GONE_SECONDS = 90.0
"""How much longer than its grace a game may take to be gone."""
DISK_SECONDS = 600.0
"""How long the cluster may take to make a disk."""
SNAPSHOT_SECONDS = 60.0
"""How long the storage may take for a snapshot."""


class Snapshots(Protocol):
    """The VolumeSnapshots; see backups/snapshots.py."""

    def class_for(self, driver: str) -> str | None: ...
    def take(self, name: str, claim: str, class_name: str, uid: str, labels: dict[str, str]) -> None: ...
    def look(self, name: str) -> SnapshotState: ...
    def remove(self, name: str) -> bool: ...


class Replacing(Placing):
    """A restore into a server that has a world: its game stops, and the world of before is kept.

    Args:
        context: The collaborators of the operations.
        jobs: The Jobs.
        snapshots: The VolumeSnapshots.
    """

    def __init__(self, context: Context, jobs: Jobs, snapshots: Snapshots) -> None:
        super().__init__(context, jobs)
        self.snapshots = snapshots
        self.phases |= {
            "begin": self._begin,
            "disk": self._disk,
            "open": self._open,
            "inspect": self._inspect,
            "stop": self._stop,
            "gone": self._wait_until_gone,
            "keep": self._keep,
            "snapshot": self._snapshot,
            "backup": self._backup,
        }

    def choose(self, run: Run) -> Next:
        """Find out where the world comes from: go to `disk`, or `stop` if it is on the disk. May raise Problem."""
        raise NotImplementedError

    def _begin(self, run: Run) -> Next:
        if (other := self._earlier(run)) is not None:
            raise OperationInProgress(f"The operation {other.id} is at work with the server's world.")
        try:
            return self.choose(run)
        except (BackupNotFound, BackupNotUsable) as problem:
            return failed(problem.detail)

    def _earlier(self, run: Run) -> Operation | None:
        """An operation on the same world that was accepted before, and has not ended."""
        ours = (run.operation.created, run.operation.id)
        others = at_work_with(self.context.operations.all(), run.server.uid)
        return next((other for other in others if (other.created, other.id) < ours), None)

    def _disk(self, run: Run) -> Next:
        """Have the disk, which the cluster makes for the first pod that uses it."""
        objects = self.present(run)
        if self.disk(objects) is not None:
            return self.with_disk(run)
        return self.make_disk(run, objects) or wait()

    def with_disk(self, run: Run) -> Next:
        """What follows once the disk is there."""
        return go(run, "inspect", "is looking at the backup")

    def make_disk(self, run: Run, objects: Objects, node: str | None = None) -> Next | None:
        """Let the cluster make the disk, on this node if it matters; None while it does."""
        settings, made = self.context.settings, self.context.cluster.disk_job(run.server.id)
        if disk_is_missing(made) and objects.statefulset is not None:
            image = settings.disk_image or settings.backup_image
            manifest = disk_job(run.server.id, objects.statefulset, image, settings.disk_image_pull_secrets, node)
            self.context.cluster.make_disk(manifest)
        elif not disk_is_made(made) and seconds_in(run) > DISK_SECONDS:
            return self.back(run, hindrance(made) or "The cluster has not made the disk.")
        return None

    def _inspect(self, run: Run) -> Next:
        """Whether the backup is there, is whole and fits. The game runs on."""
        if self.disk(self.present(run)) is None:
            return go(run, "disk")
        source = self.source(run)
        if source.stored and not self.jobs.has_key(source.kept.uid):
            return go(run, "open")
        state = self.jobs.run(self._inspect_spec(run, source))
        if state.state == "failed" and state.code == "wrong-key" and not run.work.get("opened"):
            return go(run, "open")
        if state.state == "failed":
            return self.again(run, state)
        if state.state != "done":
            return self.waiting(run, state)
        missing = [str(path) for path in state.answer.get("missing_paths") or ()]
        if missing and not run.work.get("absent"):
            return self.back(run, f"The backup does not have {', '.join(missing[:3])}.")
        fits = bool(state.answer.get("fits_beside"))
        return go(run, "stop", "is stopping the game", fits=fits, stopped=True)

    def _open(self, run: Run) -> Next:
        """Let the server's key open the repository: somebody has lost it, but the recovery key opens it too."""
        attempt = int(run.work.get("attempt", 0))
        source = self.source(run).kept
        # The catalogue has the id of the server that was backed up, which a clone does not have.
        kept = self.context.backups.of(source.uid) or source
        state = self.jobs.run(job_for_init(self.context.settings, kept, run.operation.id, attempt))
        if state.state == "done":
            return go(run, "inspect", attempt=1, opened=True)
        return self.again(run, state) if state.state == "failed" else self.waiting(run, state)

    def _inspect_spec(self, run: Run, source: Source) -> JobSpec:
        return job_for_inspect(
            self.context.settings,
            source.kept,
            self.known_disk(run),
            run.operation.id,
            run.work.get("paths", ()),
            stored=source.stored,
            snapshot=source.snapshot,
            attempt=int(run.work.get("attempt", 0)),
        )

    def _stop(self, run: Run) -> Next:
        """Let no game run until the world is in its place."""

        def restoring(current: Values) -> Values:
            spec = spec_of_values(current)
            require_not_suspended(run.operation.maker, spec.suspended)
            return values.restoring(current, run.operation.id)

        placing = bool(run.work.get("placing"))
        # Once the disk is changed, a suspension comes too late: it only keeps the game from starting.
        self.change(run, (lambda current: values.restoring(current, run.operation.id)) if placing else restoring)
        return go(run, "gone", attempt=run.work.get("attempt", 0) if placing else 0)

    def _wait_until_gone(self, run: Run) -> Next:
        """Nothing is changed under a running game: its pod must really be gone."""
        objects = self.present(run)
        placing = bool(run.work.get("placing"))
        if (pod := pod_on_disk(objects)) is None:
            if placing:
                return go(run, "place", attempt=run.work.get("attempt", 0))
            return self.stopped(run)
        grace = float(pod.get("spec", {}).get("terminationGracePeriodSeconds") or 30)
        if not placing and seconds_in(run) > grace + GONE_SECONDS:
            return self.back(run, "Whether the game has stopped is unknown, because its node does not answer.")
        return wait()

    def stopped(self, run: Run) -> Next:
        """What follows once the game stands still."""
        return go(run, "keep", "is keeping the world of before")

    # -- the world of before -------------------------------------------------------------------------------

    def _keep(self, run: Run) -> Next:
        """Choose how the world of before is kept: beside, else as a snapshot, else as a backup."""
        if run.work.get("fits"):
            return self._laid_beside(run)
        disk = self.known_disk(run)
        if not run.work.get("uncut") and self.snapshots.class_for(disk.driver) is not None:
            return go(run, "snapshot")
        if self.context.settings.backup_store is not None:
            return go(run, "backup")
        return self.back(run, "The disk has no room for the backup beside the world, and there is no other place.")

    def _laid_beside(self, run: Run) -> Next:
        step = "is laying the backup out"
        return go(run, "lay-out", step, laying=True, way="beside", kept={"where": "disk"})

    def no_room(self, run: Run, state: JobState) -> Next:
        """The disk has less room than before the game stopped."""
        return go(run, "keep", fits=False)

    def _snapshot(self, run: Run) -> Next:
        """Keep the world of before as a snapshot."""
        name, disk = before_name(run.operation.id), self.known_disk(run)
        kept = {"where": "snapshot", "reference": name}
        state = self.snapshots.look(name)
        if state.state == "ready":
            return go(run, "note", way="scratch", laying=True, tidy=[], kept=kept)
        if state.state == "missing":
            class_name = self.snapshots.class_for(disk.driver)
            if class_name is None:
                return go(run, "keep", uncut=True)
            labels = {"app.kubernetes.io/part-of": "gameserver-cluster", "gameserver/operation": run.operation.id}
            self.snapshots.take(name, disk.claim, class_name, run.server.uid, labels)
        if seconds_in(run) > SNAPSHOT_SECONDS:
            self.snapshots.remove(name)
            return go(run, "keep", uncut=True)
        return wait(0.5)

    def _backup(self, run: Run) -> Next:
        """Keep the world of before as a backup, which is an operation of its own."""
        made = needed_backup(self.context, run.operation, run.server, "before-restore")
        if made.unfinished:
            return wait()
        if made.state != "done":
            return self.back(run, f"The world of before could not be kept: {made.reason or made.state}")
        if made.unreadable.count:
            return self.back(run, "The world of before could not be kept: the service cannot read all of its files.")
        kept = {"where": "backup", "reference": made.id}
        return go(run, "note", way="scratch", laying=True, tidy=[], kept=kept)

    def place_spec(self, run: Run) -> JobSpec:
        """Where there was no room, the Job lays the world out itself: its scratch disk ends with its pod."""
        if run.work.get("way") != "scratch":
            return super().place_spec(run)
        source, attempt, paths = self.source(run), int(run.work.get("attempt", 0)), run.work.get("paths", ())
        spec = job_for_lay_out(
            self.context.settings,
            source.kept,
            self.known_disk(run),
            run.operation.id,
            "scratch",
            paths,
            stored=source.stored,
            snapshot=source.snapshot,
            absent=bool(run.work.get("absent")),
            attempt=attempt,
        )
        request = {key: value for key, value in spec.request.items() if key != "to"}
        name = job_name(run.operation.id, "place", attempt)
        return replace(spec, name=name, command="place", request={**request, "from": "scratch"})

    def let_go(self, run: Run) -> None:
        """Also forget what was kept of the world of before, or was about to be."""
        self.snapshots.remove(before_name(run.operation.id))
        super().let_go(run)


class Restore(Replacing):
    """Restores a backup."""

    action = "restore"

    def choose(self, run: Run) -> Next:
        argument = run.operation.argument
        backup = usable_backup(self.context.backups.of(run.server.uid), argument["backup"])
        return go(run, "disk", source=source_of(run.server.uid, backup), paths=list(argument.get("paths") or ()))


class UndoRestore(Replacing):
    """Brings back the world that a restore has replaced, and keeps the restored one in its stead."""

    action = "undo-restore"

    def choose(self, run: Run) -> Next:
        kept = self.context.backups.of(run.server.uid)
        before = _before(kept, run.operation.argument["restore"])
        if before is None:
            return failed("The world of before is not kept any more.")
        facts: dict[str, Any] = {"paths": list(before.paths), "undoes": before.operation}
        if before.where == "disk":
            return go(run, "stop", "is stopping the game", way="disk", stopped=True, **facts)
        if before.where == "snapshot":
            source = {"uid": run.server.uid, "snapshot": before.reference}
        else:
            source = source_of(run.server.uid, usable_backup(kept, before.reference))
        # What was not there before the restore goes again.
        return go(run, "disk", source=source, absent=bool(before.paths), **facts)

    def stopped(self, run: Run) -> Next:
        if run.work.get("way") == "disk":
            return go(run, "note", kept={"where": "disk"})
        return super().stopped(run)

    def place_spec(self, run: Run) -> JobSpec:
        if run.work.get("way") != "disk":
            return super().place_spec(run)
        return job_for_undo(
            self.context.settings,
            self.kept(run),
            self.known_disk(run),
            run.operation.id,
            run.work["undoes"],
            int(run.work.get("attempt", 0)),
        )

    def placed(self, run: Run) -> None:
        """The world of before is the server's world now."""
        kept = self.context.backups.of(run.server.uid)
        before = _before(kept, run.work["undoes"])
        if before is None:
            return
        if before.where == "snapshot":
            self.snapshots.remove(before.reference)
        self.forget(run.server.uid, before.operation)


def _before(kept: ServerBackups | None, operation: str) -> Before | None:
    return next((each for each in (kept.befores if kept else ()) if each.operation == operation), None)


def before_name(operation: str) -> str:
    """The name of the VolumeSnapshot of the world that an operation replaces."""
    return f"before-{operation}"


def source_of(uid: str, backup: Backup) -> dict[str, str]:
    """Where a backup's world is, as `work` says it."""
    where = "snapshot" if backup.where == "node" else "stored"
    return {"uid": uid, where: backup.snapshot}
