"""How a world comes into its place: what a restore, its undo and a clone have in common.

Each phase can be repeated. Until `place`, everything can be left as it was; from then on it only goes forward, for as
long as it takes. docs/architecture.md has the phases.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from service.backups.jobs import JobSpec, JobState
from service.backups.records import Before, ServerBackups
from service.backups.requests import Disk, disk_of, job_for_clean, job_for_lay_out, job_for_place, job_name
from service.controller.needed import cancel_needed
from service.controller.worlds import Next, Run, cancelled, done, failed, go, is_lost, seconds_in, wait
from service.errors import OperationInProgress, ReleaseMissing, ServerNotFound
from service.kube.times import now
from service.operations.context import Context
from service.servers import values
from service.servers.disks import volume_of
from service.servers.objects import Objects, pod_on_disk
from service.servers.spec import server_uid, spec_of_values, uid_of_values
from service.servers.values import Values

log = logging.getLogger(__name__)

LEASE_SECONDS = 5.0
"""How long a phase waits for the server's Lease; it comes before those who do not wait."""
TRIES = 5
"""How often a Job is run that ends without an answer, or cannot reach the store, while it can be given up."""
CUSTOMER_TRIES = 20
"""How often a world is put into its place again that its customer keeps out of it."""
WAITS_SECONDS = 600.0
"""How long a Job's pod may wait to run, while it can be given up."""
RETRY_SECONDS = 10.0
TIDY_SECONDS = 120.0

# What may be over at the next try.
_PASSING = {"no-answer", "stopped", "busy", "locked", "store-unreachable"}
# What only somebody can do who changes the service's folder on the disk at the same time.
_MEDDLED = {"journal-damaged", "changed-meanwhile", "not-ours"}
DELETED = "The server was deleted."


class Jobs(Protocol):
    """The Jobs; see backups/runner.py."""

    def run(self, spec: JobSpec) -> JobState: ...
    def look(self, spec: JobSpec) -> JobState: ...
    def remove(self, spec: JobSpec) -> bool: ...
    def remove_all(self, operation: str) -> bool: ...
    def has_key(self, uid: str) -> bool: ...


@dataclass(frozen=True)
class Source:
    """Where a world comes from.

    Attributes:
        kept: The record of the server whose world it is.
        stored: restic's id of it; "" if it is not in the store.
        snapshot: The VolumeSnapshot's name; "" if it is in the store.
    """

    kept: ServerBackups
    stored: str = ""
    snapshot: str = ""


class Placing:
    """The phases from `lay-out` to the end, and the way back.

    Args:
        context: The collaborators of the operations.
        jobs: The Jobs.
    """

    def __init__(self, context: Context, jobs: Jobs) -> None:
        self.context = context
        self.jobs = jobs
        self.phases: dict[str, Callable[[Run], Next]] = {
            "lay-out": self._lay_out,
            "note": self._note,
            "place": self._place,
            "probe": self._probe,
            "start": self._start,
            "return": self._return,
            "tidy": self._tidy,
        }
        self.ends = {"start", "return", "tidy"}
        """The phases that only go on, beside those of which the work says `placing`."""

    def advance(self, run: Run) -> Next:
        """Do the phase that the work names."""
        phase = _phase(run)
        if run.operation.cancelling and phase not in self.ends and not run.work.get("placing"):
            return self.back(run, None)
        try:
            return self.phases[phase](run)
        except ServerNotFound:
            final = phase in self.ends or run.work.get("placing")
            return self._end(run, DELETED) if final else self.back(run, DELETED)

    def abandon(self, run: Run, reason: str) -> Next:
        """Go back, or go on trying where there is no way back."""
        if _phase(run) == "tidy":
            return self._end(run)
        if _phase(run) in self.ends or run.work.get("placing"):
            return wait(RETRY_SECONDS)
        return self.back(run, reason)

    # -- what the phases share -----------------------------------------------------------------------------

    def server(self, run: Run) -> Objects | None:
        """The server as it is now; None if it is gone, even if another one has its id."""
        id, uid = run.server.id, run.server.uid
        objects = self.context.cluster.server(id)
        if objects.statefulset is None and uid_of_values(self.context.releases.current(id) or {}) == uid:
            # Somebody has deleted it. This creates it again.
            self.context.releases.change(id, lambda current: current)
            objects = self.context.cluster.server(id)
        return objects if server_uid(objects) == uid else None

    def present(self, run: Run) -> Objects:
        """The server as it is now; raises ServerNotFound if it is gone."""
        objects = self.server(run)
        if objects is None:
            raise ServerNotFound
        return objects

    def disk(self, objects: Objects) -> Disk | None:
        """The server's disk; None if it has none yet."""
        name = volume_of(objects.claim)
        return disk_of(objects, self.context.cluster.volume(name) if name else None)

    def known_disk(self, run: Run) -> Disk:
        """The server's disk, of which an earlier phase has seen that it is there; raises ServerNotFound."""
        disk = self.disk(self.present(run))
        if disk is None:
            raise OperationInProgress("The server's disk is not there.")
        return disk

    def change(self, run: Run, change: Callable[[Values], Values]) -> Values:
        """Upgrade the server's release to `change(its values)`, and return these.

        Raises ServerNotFound if the server is gone.
        """
        with self.context.releases.locked(run.server.id, LEASE_SECONDS):
            current = self.current(run)
            self.context.releases.change(run.server.id, change)
            return change(current)

    def current(self, run: Run) -> Values:
        """The values of the server's release; raises ServerNotFound if the server is gone. Asked under its Lease."""
        self.present(run)
        current = self.context.releases.current(run.server.id)
        if current is None:
            raise ReleaseMissing
        return current

    def source(self, run: Run) -> Source:
        """Where the world comes from, as `work` says; raises OperationInProgress if it is not known any more."""
        named = run.work["source"]
        kept = self.context.backups.of(named["uid"])
        if kept is None:
            raise OperationInProgress("Nothing is known of the server whose backup this is.")
        # The Jobs are those of the server that gets the world.
        return Source(replace(kept, id=run.server.id), named.get("stored", ""), named.get("snapshot", ""))

    def kept(self, run: Run) -> ServerBackups:
        """What is kept of the server itself, as far as its Jobs need it."""
        server = run.server
        return self.context.backups.of(server.uid) or ServerBackups(server.uid, server.id, server.customer)

    def waiting(self, run: Run, state: JobState) -> Next:
        """The Job is not done: wait, but not for ever if its pod does not run, or its node does not answer."""
        if not state.started and seconds_in(run) > WAITS_SECONDS:
            why = f" {state.waits}" if state.waits else ""
            return self.back(run, f"The Job's pod has not run for {round(WAITS_SECONDS / 60)} minutes.{why}")
        if is_lost(state):
            return self.back(run, "The node of the Job's pod does not answer.")
        return wait()

    def again(self, run: Run, state: JobState) -> Next:
        """The Job has failed: run another one if that may help, or go back."""
        self.tell(run, state)
        attempt = int(run.work.get("attempt", 0)) + 1
        if state.code in _PASSING and attempt < TRIES:
            return later(go(run, _phase(run), attempt=attempt), attempt)
        return self.back(run, state.message)

    @staticmethod
    def tell(run: Run, state: JobState) -> None:
        """Log that a Job has failed."""
        log.warning("a Job of the operation %s failed (%s): %s", run.operation.id, state.code, state.message)

    def back(self, run: Run, reason: str | None) -> Next:
        """Leave everything as it was, and end: failed for this reason, or cancelled if it is None."""
        return go(run, "return", "is going back", why=reason)

    # -- the phases ----------------------------------------------------------------------------------------

    def _lay_out(self, run: Run) -> Next:
        """Bring the world beside the one that is there, and compare it."""
        state = self.jobs.run(self._lay_out_spec(run))
        if state.state == "done":
            return go(run, "note")
        if state.state != "failed":
            return self.waiting(run, state)
        if state.code == "disk-full":
            return self.no_room(run, state)
        return self.again(run, state)

    def no_room(self, run: Run, state: JobState) -> Next:
        """What follows if the world does not fit beside the other one."""
        return self.back(run, state.message)

    def _lay_out_spec(self, run: Run) -> JobSpec:
        source = self.source(run)
        return job_for_lay_out(
            self.context.settings,
            source.kept,
            self.known_disk(run),
            run.operation.id,
            "beside",
            run.work.get("paths", ()),
            stored=source.stored,
            snapshot=source.snapshot,
            absent=bool(run.work.get("absent")),
            attempt=int(run.work.get("attempt", 0)),
        )

    def _note(self, run: Run) -> Next:
        """Record where the world of before will be, before it is moved."""
        if (kept := run.work.get("kept")) is not None:
            before = Before(run.operation.id, now(), kept["where"], kept.get("reference", ""), _paths(run))

            def with_before(record: ServerBackups) -> ServerBackups:
                others = tuple(each for each in record.befores if each.operation != before.operation)
                return replace(record, befores=(*others, before))

            self.context.backups.change(run.server.uid, with_before, self.kept(run))
        return go(run, "place", "is putting the world into its place", placing=True)

    def place_spec(self, run: Run) -> JobSpec:
        """The Job that puts the world into its place."""
        return job_for_place(
            self.context.settings,
            self.kept(run),
            self.known_disk(run),
            run.operation.id,
            _paths(run),
            int(run.work.get("attempt", 0)),
        )

    def _place(self, run: Run) -> Next:
        """Put the world into its place. The Job begins under the server's Lease, so that no delete can be at work."""
        spec = self.place_spec(run)
        state = self.jobs.look(spec)
        if state.state == "missing":
            with self.context.releases.locked(run.server.id, LEASE_SECONDS):
                if restoring_of(self.current(run)) != run.operation.id or pod_on_disk(self.present(run)) is not None:
                    # Somebody has changed the release by hand.
                    return go(run, "stop", attempt=int(run.work.get("attempt", 0)) + 1)
                state = self.jobs.run(spec)
        if state.state == "done":
            return go(run, "start", "is starting the game as it was")
        return self.not_placed(run, state)

    def not_placed(self, run: Run, state: JobState) -> Next:
        """The Job that places is not done: it is tried again, for as long as it takes."""
        attempt = int(run.work.get("attempt", 0)) + 1
        if state.state != "failed":
            stuck = run.work.get("way") == "scratch" and not state.started and seconds_in(run) > WAITS_SECONDS
            return go(run, "probe", problem=f"There is no scratch disk. {state.waits}") if stuck else wait()
        self.tell(run, state)
        if state.code == "before-missing" or (state.code == "nothing-laid-out" and attempt == 1):
            # It has not begun: somebody has removed what was to be placed.
            return go(replace(run, work={**run.work, "placing": False}), "return", why=state.message)
        if run.work.get("way") == "scratch" and state.code not in _PASSING | _MEDDLED:
            return go(run, "probe", problem=state.message)
        # At a later attempt it had begun, and somebody has removed the rest since.
        if state.code in _MEDDLED | {"nothing-laid-out"} and attempt >= CUSTOMER_TRIES:
            # Only he can help himself who has files there. The game starts with what there is.
            return go(run, "start", result="failed", why=f"{state.message} Its parts are in .gameserver.")
        return later(go(run, "place", attempt=attempt), attempt)

    def _probe(self, run: Run) -> Next:
        """A Job that places from a scratch disk has failed: go back if it had not begun to change the disk."""
        attempt = int(run.work.get("attempt", 0))
        if not self.jobs.remove(self.place_spec(run)):
            return wait()
        spec = self._clean_spec(run, "probe", attempt)
        state = self.jobs.run(spec)
        if state.state == "done":
            return go(run, "return", placing=False, why=run.work.get("problem"))
        if state.state == "failed" and state.code == "placing-began":
            return later(go(run, "place", attempt=attempt + 1), attempt + 1)
        if state.state == "failed":
            return later(go(run, "probe", attempt=attempt + 1), attempt + 1)
        return wait()

    def _start(self, run: Run) -> Next:
        """Let the game start, if it was to run."""
        self.change(run, values.restored)
        self.placed(run)
        if "tidy" in run.work:
            return go(run, "tidy", result=run.work.get("result", "done"))
        return self._end(run)

    def placed(self, run: Run) -> None:
        """What else is to be done once the world is in its place; it may be called again."""

    def _return(self, run: Run) -> Next:
        """Leave everything as it was."""
        # A pod on a node that does not answer stays. It writes at most where the world is laid out: one that may change
        # the world itself has ended before this phase begins, which `not_placed` and `probe` see to.
        if not self.jobs.remove_all(run.operation.id) and seconds_in(run) < TIDY_SECONDS:
            return wait()
        cancel_needed(self.context, run.operation)
        self.forget(run.server.uid, run.operation.id)
        try:
            self.let_go(run)
        except ServerNotFound:
            return self._end(run)
        return go(run, "tidy", result="failed") if run.work.get("laying") else self._end(run)

    def let_go(self, run: Run) -> None:
        """Let the game start as it was, or undo what the operation has made; raises ServerNotFound if it is gone."""
        if run.work.get("stopped"):
            self.change(run, lambda current: _released(current, run.operation.id))

    def forget(self, uid: str, operation: str) -> None:
        """Forget the world of before that an operation has replaced, or was to replace."""

        def without(record: ServerBackups) -> ServerBackups:
            return replace(record, befores=tuple(each for each in record.befores if each.operation != operation))

        if self.context.backups.of(uid) is not None:
            self.context.backups.change(uid, without)

    def _tidy(self, run: Run) -> Next:
        """Remove what is laid out, while the game runs; it does no harm if that fails."""
        objects = self.server(run)
        if objects is None or self.disk(objects) is None:
            return self._end(run)
        state = self.jobs.run(self._clean_spec(run, "tidy", int(run.work.get("attempt", 0))))
        if state.state in ("done", "failed") or seconds_in(run) > TIDY_SECONDS:
            return self._end(run)
        return wait()

    def _clean_spec(self, run: Run, phase: str, attempt: int) -> JobSpec:
        operations = [run.operation.id, *run.work.get("tidy", [])]
        spec = job_for_clean(
            self.context.settings, self.kept(run), self.known_disk(run), run.operation.id, operations, attempt
        )
        return replace(spec, name=job_name(run.operation.id, phase, attempt))

    def _end(self, run: Run, reason: str | None = None) -> Next:
        # What they were asked for is in Secrets, which go with them.
        self.jobs.remove_all(run.operation.id)
        reason = reason or run.work.get("why")
        if reason is not None:
            return failed(str(reason))
        return done() if run.work.get("placing") else cancelled()


def later(next_: Next, attempt: int) -> Next:
    """The same after a pause, which grows with the attempts."""
    return replace(next_, seconds=min(RETRY_SECONDS * 3, 2.0 * attempt))


def restoring_of(current: Mapping[str, Any]) -> str:
    """The operation that restores the world of a server with these values, or ""."""
    return spec_of_values(current).restoring


def _released(current: Values, operation: str) -> Values:
    return values.restored(current) if restoring_of(current) == operation else current


def _phase(run: Run) -> str:
    return str(run.work.get("phase") or "begin")


def _paths(run: Run) -> tuple[str, ...]:
    return tuple(run.work.get("paths", ()))
