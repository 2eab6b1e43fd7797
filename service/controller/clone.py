"""Fills the disk of a new server with the world of another one, or of a backup.

On one storage, the disk is a copy of a snapshot of the other one: seconds, however large it is. Otherwise the world
comes through the store.
"""

from __future__ import annotations

from service.backups.jobs import JobState
from service.backups.requests import Disk
from service.controller.needed import needed_backup
from service.controller.placing import LEASE_SECONDS, Jobs, restoring_of
from service.controller.restore import SNAPSHOT_SECONDS, Replacing, Snapshots, source_of
from service.controller.worlds import Next, Run, failed, go, seconds_in, wait
from service.errors import BackupNotFound, BackupNotUsable, ServerNotFound
from service.kube.times import now
from service.operations.context import Context
from service.operations.hold import hold, release
from service.operations.operation import Server
from service.operations.restore import usable_backup
from service.servers import values
from service.servers.objects import Objects
from service.servers.saveowed import save_debt
from service.servers.spec import server_uid, spec_of_objects

_FAILED = "The clone was not made, and the new server is removed: "


class Clone(Replacing):
    """Fills the disk of a new server."""

    action = "clone"

    def __init__(self, context: Context, jobs: Jobs, snapshots: Snapshots) -> None:
        super().__init__(context, jobs, snapshots)
        self.phases |= {"cut": self._cut, "let-go": self._let_go, "read": self._read, "claim": self._claim}

    def choose(self, run: Run) -> Next:
        """The create that has made the server holds its Lease until it is complete."""
        with self.context.releases.locked(run.server.id, LEASE_SECONDS):
            if restoring_of(self.current(run)) != run.operation.id:
                return failed("The server was not created.")
        named = run.operation.argument["from"]
        if "backup" in named:
            try:
                backup = usable_backup(self.context.backups.of(named["uid"]), named["backup"])
            except (BackupNotFound, BackupNotUsable) as problem:
                # It was deleted since the call. The server goes with it.
                return self.back(run, problem.detail)
            return go(run, "claim", source=source_of(named["uid"], backup), stopped=True)
        source = self._other(run)
        disk = None if source is None else self.disk(source)
        if disk is None:
            return self.back(run, "The server to clone is gone, or has no world yet.")
        if self.snapshots.class_for(disk.driver) is not None and self._same_storage(run, disk):
            return go(run, "cut", "is taking a snapshot", node=disk.node, stopped=True)
        if self.context.settings.backup_store is None:
            return self.back(run, "The storage cannot copy the disk of the server to clone, and there is no store.")
        return go(run, "read", "is backing the other server up", stopped=True)

    def _begin(self, run: Run) -> Next:
        try:
            return super()._begin(run)
        except ServerNotFound:
            return failed("The server was not created.")

    def _other(self, run: Run) -> Objects | None:
        """The server to clone; None if it is gone, or if the world is that of a backup."""
        named = run.operation.argument["from"]
        if "server" not in named:
            return None
        objects = self.context.cluster.server(int(named["server"]))
        return objects if server_uid(objects) == named["uid"] else None

    def _same_storage(self, run: Run, disk: Disk) -> bool:
        """Whether the new disk can be a copy of that one: of the same storage class, and not smaller."""
        current = self.current(run)
        class_name = (current.get("storage") or {}).get("className") or ""
        return class_name in ("", disk.class_name) and int(current.get("diskGb") or 0) >= disk.gb

    # -- by a snapshot -------------------------------------------------------------------------------------

    def _cut(self, run: Run) -> Next:
        """Take a snapshot of the other server's disk, while its game holds still."""
        name = clone_name(run.operation.id)
        state = self.snapshots.look(name)
        if state.taken:
            return go(run, "let-go")
        source = self._other(run)
        disk = None if source is None else self.disk(source)
        if source is None or disk is None:
            return self.back(run, "The server to clone was deleted.")
        spec = spec_of_objects(source)
        if spec is not None and spec.restoring:
            return self.back(run, "The world of the server to clone is being restored.")
        if seconds_in(run) > SNAPSHOT_SECONDS:
            return self.back(run, state.why or "The storage has taken no snapshot.")
        if state.state == "missing":
            class_name = self.snapshots.class_for(disk.driver)
            if class_name is None:
                return self.back(run, "The storage takes no snapshots any more.")
            if source.pod is not None:
                hold(self.context, source, run.operation.id)
            labels = {"app.kubernetes.io/part-of": "gameserver-cluster", "gameserver/operation": run.operation.id}
            self.snapshots.take(name, disk.claim, class_name, run.server.uid, labels)
        return wait(0.1)

    def _let_go(self, run: Run) -> Next:
        """The other game goes on."""
        self._release(run)
        return go(run, "claim", "is copying the disk", snapshot=clone_name(run.operation.id))

    def _release(self, run: Run) -> None:
        source = self._other(run)
        if source is not None and save_debt(source) is not None:
            release(self.context, source, run.operation.id)

    # -- through the store ---------------------------------------------------------------------------------

    def _read(self, run: Run) -> Next:
        """Have a backup of the other server."""
        named = run.operation.argument["from"]
        made = needed_backup(
            self.context, run.operation, Server(int(named["server"]), named["uid"], named["customer"]), "clone"
        )
        if made.unfinished:
            return wait()
        if made.state != "done":
            return self.back(run, f"The other server could not be backed up: {made.reason or made.state}")
        return go(run, "claim", source=source_of(named["uid"], made))

    # -- the disk ------------------------------------------------------------------------------------------

    def _claim(self, run: Run) -> Next:
        """Let the chart make the claim, now that it is known what the disk is a copy of."""
        snapshot = str(run.work.get("snapshot") or "")
        self.change(run, lambda current: values.with_disk(current, snapshot))
        return go(run, "disk", "is waiting for the disk")

    def make_disk(self, run: Run, objects: Objects, node: str | None = None) -> Next | None:
        return super().make_disk(run, objects, run.work.get("node"))

    def with_disk(self, run: Run) -> Next:
        if run.work.get("snapshot"):
            # What the other server has kept of its own worlds of before is not this one's.
            source = self.context.backups.of(run.operation.argument["from"]["uid"])
            befores = [before.operation for before in (source.befores if source else ())]
            return go(run, "start", "is starting the game", placing=True, tidy=befores)
        return go(run, "inspect", "is looking at the backup")

    def stopped(self, run: Run) -> Next:
        """The game has never run, so there is no world of before."""
        if not run.work.get("fits"):
            return self.back(run, "The disk is too small for this world.")
        return go(run, "lay-out", "is laying the world out", laying=True, way="beside", tidy=[])

    def no_room(self, run: Run, state: JobState) -> Next:
        return self.back(run, state.message)

    # -- the end -------------------------------------------------------------------------------------------

    def let_go(self, run: Run) -> None:
        """Remove the server: a repeated create must not find one without its world, and take it for done."""
        self._release(run)
        with self.context.releases.locked(run.server.id, LEASE_SECONDS):
            if restoring_of(self.current(run)) == run.operation.id:
                self.context.cluster.keep_disk(run.server.id, now())
                self.context.releases.uninstall(run.server.id)
        raise ServerNotFound

    def _end(self, run: Run, reason: str | None = None) -> Next:
        """Also if the server was deleted meanwhile, its snapshot goes."""
        self.snapshots.remove(clone_name(run.operation.id))
        return super()._end(run, reason)


def clone_name(operation: str) -> str:
    """The name of the VolumeSnapshot that a clone is made of."""
    return f"clone-{operation}"
