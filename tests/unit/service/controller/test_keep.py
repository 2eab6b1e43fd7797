"""The part that keeps backups, over fakes: a store in memory, and controllers that die."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from service.assembly import build_context
from service.backups.jobs import JobSpec, JobState
from service.backups.records import KIND, Backup, Before, Repository, ServerBackups, server_backups
from service.backups.snapshots import SnapshotState
from service.controller.keep import Keep
from service.controller.leader import Deposed, Term
from service.errors import ClusterUnavailable
from service.events.event import Event
from service.games import catalogue
from service.kube.times import stamp
from service.operations.context import Context
from service.operations.operation import Server, new_operation
from service.records.store import RecordStore
from service.settings import Keep as KeepRule
from service.settings import Settings
from service.tokens import Token
from tests.support import tokens
from tests.support.fakes import FakeCluster, FakeReleases, World
from tests.support.memory_kube import LabelledKube
from tests.support.waiting import until
from tests.unit.service.controller.test_bulk import Killed, Life, MortalKube

START = datetime(2026, 11, 20, 12, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)


@dataclass
class Store:
    """The operator's store, the storage's snapshots, and the Jobs that work with them.

    Attributes:
        repositories: What each server's repository has: restic's ids, and the backups that they are.
        jobs: The Jobs by name: what each is to be, and what it has answered; None while it runs.
        answers: What a command answers instead of doing its work.
        waits: Commands whose pods find no place.
        lost: Commands whose pods run on a node that does not answer any more, and since when.
        snapshots: The VolumeSnapshots, and what the storage says of each.
        done: Each Job that has done its work: its command and its server's uid.
    """

    repositories: dict[str, dict[str, str]] = field(default_factory=dict)
    jobs: dict[str, tuple[JobSpec, JobState | None]] = field(default_factory=dict)
    answers: dict[str, JobState] = field(default_factory=dict)
    waits: set[str] = field(default_factory=set)
    lost: dict[str, datetime] = field(default_factory=dict)
    snapshots: dict[str, str] = field(default_factory=dict)
    keys: set[str] = field(default_factory=set)
    done: list[tuple[str, str]] = field(default_factory=list)
    most: dict[str, int] = field(default_factory=dict)
    check: Callable[[JobSpec], None] = lambda spec: None

    def carry_out(self, name: str) -> None:
        """Let a Job end."""
        spec, _ = self.jobs[name]
        self.check(spec)
        state = self.answers.get(spec.command) or JobState("done", self._work(spec))
        if state.state == "done":
            self.done.append((spec.command, spec.request.get("uid", "")))
        self.jobs[name] = spec, state

    def _work(self, spec: JobSpec) -> Mapping[str, Any]:
        if spec.command != "forget":
            return {"ok": True}
        repository = self.repositories[spec.request["uid"]]
        for id, backup in list(repository.items()):
            if id in spec.request["snapshots"] or backup in spec.request["backups"] or spec.request["erase"]:
                del repository[id]
        return {"ok": True, "stored_bytes": 10 * len(repository), "checked": True, "error": None}


class FakeJobs:
    """service.backups.runner.JobRunner of a process. A Job has ended when it is looked at for the second time."""

    def __init__(self, store: Store, life: Life) -> None:
        self._store, self._life = store, life

    def key(self, uid: str) -> str:
        self._store.keys.add(uid)
        return f"backup-key-{uid}"

    def forget_key(self, uid: str) -> None:
        self._life.write(lambda: self._store.keys.discard(uid))

    def run(self, spec: JobSpec) -> JobState:
        store = self._store
        if spec.name not in store.jobs:
            self._life.write(lambda: store.jobs.setdefault(spec.name, (spec, None)))
            running = [spec.command for spec, state in store.jobs.values() if state is None]
            store.most[spec.command] = max(store.most.get(spec.command, 0), running.count(spec.command))
            return JobState("running")
        known, state = store.jobs[spec.name]
        assert known.request == spec.request, "the Job of a task is always the same"
        if spec.command in store.waits:
            return JobState("running", waits="0/3 nodes are available.")
        if spec.command in store.lost:
            return JobState("running", started=True, lost_since=stamp(store.lost[spec.command]))
        if state is None:
            store.carry_out(spec.name)
        return store.jobs[spec.name][1] or JobState("running")

    def remove(self, spec: JobSpec) -> bool:
        self._life.write(lambda: self._store.jobs.pop(spec.name, None))
        return True


class FakeSnapshots:
    """service.backups.snapshots.VolumeSnapshots of a process. One is gone at the second look."""

    def __init__(self, store: Store, life: Life) -> None:
        self._store, self._life = store, life

    def look(self, name: str) -> SnapshotState:
        why = self._store.snapshots.get(name)
        return SnapshotState("missing") if why is None else SnapshotState("taking" if why else "ready", why)

    def remove(self, name: str) -> bool:
        return self._life.write(lambda: self._store.snapshots.pop(name, None)) is None


class Rig:
    """A cluster in memory with one controller after the other."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.now = START
        self.world, self.kube, self.store = World(), LabelledKube(), Store()
        self.events: list[Event] = []
        self.admin = self.context(Life())
        self.part, self.term = self.controller()

    def context(self, life: Life) -> Context:
        records = partial(RecordStore, MortalKube(self.kube, life), "gameservers")
        return build_context(self.settings, FakeCluster(self.world), FakeReleases(self.world), records=records)

    def controller(self, writes: int | None = None) -> tuple[Keep, Term]:
        """A controller that dies after so many writes, and becomes the active one."""
        life = Life(writes)
        jobs, snapshots = FakeJobs(self.store, life), FakeSnapshots(self.store, life)
        part = Keep(self.context(life), jobs, snapshots, self.events.append, lambda: self.now)
        part.start()
        assert part._watch.wait(5)
        assert part._operations.wait(5)
        self.part, self.term = part, Term(life, "controller")  # type: ignore[arg-type]
        part._leads_since = stamp(self.now)
        return self.part, self.term

    def create(self, id: int, uid: str = "", customer: str = "acme", **server: Any) -> str:
        uid = uid or f"uid-{id}"
        values = {
            "game": "teeworlds",
            "diskGb": 1,
            "replicas": 1,
            "server": {"customer": customer, "uid": uid, **server},
        }
        FakeReleases(self.world).install(id, values)
        self.world.claims[id]["spec"]["volumeName"] = f"pv-{id}"
        self.world.volumes[f"pv-{id}"] = {"metadata": {"name": f"pv-{id}"}, "spec": {"csi": {"driver": "pool"}}}
        return uid

    def keep(self, kept: ServerBackups) -> None:
        """Let this be kept, and the store have it."""
        self.admin.backups.change(kept.uid, lambda _: kept, kept)
        self.store.keys.add(kept.uid)
        repository = self.store.repositories.setdefault(kept.uid, {})
        for backup in kept.backups:
            if backup.state == "done" and backup.where == "store":
                repository[backup.snapshot] = backup.id
            if backup.where == "node":
                self.store.snapshots[backup.snapshot] = ""

    def kept(self, uid: str) -> ServerBackups:
        found = self.admin.backups.of(uid)
        assert found is not None
        return found

    def settle(self, after: timedelta = timedelta()) -> None:
        """Let time pass, and the controller do what there is to do."""
        self.now += after
        for _ in range(200):
            self.seen()
            while self.part.turn(self.term):
                self.seen()
            if all(state is not None for _, state in self.store.jobs.values()):
                break
            self.now += timedelta(seconds=2)
        # What is gone only at the second look.
        for _ in range(4):
            self.now += timedelta(seconds=5)
            while self.part.turn(self.term):
                self.seen()

    def seen(self) -> None:
        """Wait until the watches have what is written."""
        kept = {record.name: server_backups(record) for record in self.admin.records(KIND).all()}
        at_work = {each.id for each in self.admin.operations.all() if not each.ended}
        until(lambda: {each.uid: each for each in self.part.kept()} == kept)
        until(lambda: set(self.part._at_work_with) == at_work)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(catalogue, "load", lambda *folders, chart: {})
    return replace(
        Settings(),
        tokens_file=tokens.write(tmp_path / "tokens.json", tokens.entry("shop")),
        backup_store={"kind": "folder"},
        backup_namespace="gameservers-backups",
        backup_image="backup",
        backup_keep=KeepRule(last=2, hourly=0, daily=0, weekly=0),
        backup_proof_days=0,
    )


@pytest.fixture
def rig(settings: Settings) -> Rig:
    return Rig(settings)


def backup(number: int, hours: float = 1.0, now: datetime = START, **fields: Any) -> Backup:
    at = stamp(now - timedelta(hours=hours))
    values: dict[str, Any] = {
        "trigger": "schedule",
        "state": "done",
        "where": "store",
        "finished": at,
        "snapshot": f"{number:064x}",
        **fields,
    }
    return Backup(f"b-{number:020x}", at, **values)


def server(uid: str, *backups: Backup, id: int = 1, **repository: Any) -> ServerBackups:
    made = Repository(**{"made": stamp(START - timedelta(minutes=1)), **repository})
    ordered = tuple(sorted(backups, key=lambda each: (each.created, each.id)))
    return ServerBackups(uid, id, "acme", "teeworlds", repository=made, backups=ordered)


def ids(kept: ServerBackups) -> list[int]:
    return [int(each.id[2:], 16) for each in kept.backups]


# -- forgetting, pruning and checking -----------------------------------------------------------------------------


def test_what_a_schedule_does_not_keep_is_forgotten_and_the_rest_is_checked(rig: Rig) -> None:
    uid = rig.create(1)
    rig.keep(server(uid, *(backup(number, 10 - number) for number in range(5))))
    rig.settle()
    kept = rig.kept(uid)
    assert ids(kept) == [3, 4]
    assert list(rig.store.repositories[uid].values()) == [f"b-{3:020x}", f"b-{4:020x}"]
    repository = kept.repository
    assert (repository.unlisted, repository.task, repository.fault, repository.stored_bytes) == ((), {}, None, 20)
    assert repository.pruned_at == repository.checked_at == kept.backups[0].checked_at is not None
    assert rig.store.jobs == {}
    assert rig.store.done == [("forget", uid)]


def test_a_server_can_keep_more_than_the_operators_default(rig: Rig) -> None:
    uid = rig.create(1, backupKeep={"last": 4, "hourly": 0, "daily": 0, "weekly": 0})
    rig.keep(server(uid, *(backup(number, 10 - number) for number in range(5))))
    rig.settle()
    assert ids(rig.kept(uid)) == [1, 2, 3, 4]


@pytest.mark.parametrize("hindrance", ["no StatefulSet", "no readable spec"])
def test_no_backup_goes_while_what_the_server_keeps_is_unknown(rig: Rig, hindrance: str) -> None:
    """Somebody may delete its StatefulSet or damage it, while its release says that the server exists."""
    uid = rig.create(1, backupKeep={"last": 4, "hourly": 0, "daily": 0, "weekly": 0})
    rig.keep(server(uid, *(backup(number, 10 - number) for number in range(5))))
    found = rig.world.statefulsets.pop(1)
    if hindrance == "no readable spec":
        metadata = {**found["metadata"], "annotations": {"gameserver/server": "{"}}
        rig.world.statefulsets[1] = {**found, "metadata": metadata}
    rig.settle()
    rig.settle(DAY)
    kept = rig.kept(uid)
    assert (ids(kept), kept.deleted, kept.repository.unlisted) == ([0, 1, 2, 3, 4], None, ())
    assert len(rig.store.repositories[uid]) == 5
    rig.world.statefulsets[1] = found
    rig.settle(DAY)
    assert ids(rig.kept(uid)) == [1, 2, 3, 4]


def test_a_repository_is_pruned_and_checked_once_in_each_interval(rig: Rig) -> None:
    uids = [rig.create(id) for id in range(1, 7)]
    for id, uid in enumerate(uids, 1):
        rig.keep(server(uid, backup(id), id=id))
    moments: dict[str, list[datetime]] = {uid: [] for uid in uids}
    rig.store.check = lambda spec: moments[spec.request["uid"]].append(rig.now)
    for _ in range(36):
        rig.settle(2 * HOUR)
    assert all(len(each) == 3 for each in moments.values())
    # Not all at once.
    assert len({each[0].hour for each in moments.values()}) > 2


def test_nothing_is_done_while_a_backup_or_a_restore_is_at_work(rig: Rig) -> None:
    uid, old = rig.create(1), [backup(number, 10 - number) for number in range(5)]
    operation = new_operation(
        Token("shop", "", frozenset({"admin"})), None, "restore", "now", {}, {}, [Server(1, uid, "acme")]
    )
    operation = rig.admin.operations.create(operation, [Server(1, uid, "acme")])
    making = backup(9, state="running", where=None, finished=None, operation=operation.id)
    rig.keep(server(uid, *old, making))
    rig.settle()
    assert rig.store.done == []
    rig.keep(server(uid, *old))
    rig.settle(HOUR)
    assert (ids(rig.kept(uid)), rig.store.done) == ([0, 1, 2, 3, 4], [])
    rig.admin.operations.show(replace(operation, state="done", finished=stamp(rig.now)), lambda: None)
    rig.settle(HOUR)
    assert ids(rig.kept(uid)) == [3, 4]


def test_a_backup_that_nothing_makes_any_more_has_failed(rig: Rig) -> None:
    uid = rig.create(1)
    lost = backup(9, state="running", where=None, finished=None, operation="op-lost", snapshot="")
    rig.keep(server(uid, lost))
    rig.settle()
    # Who makes one may be about to write down its operation.
    assert rig.kept(uid).backups[0].state == "running"
    rig.settle(timedelta(minutes=1))
    assert rig.kept(uid).backups[0].state == "failed"


def test_what_failed_backups_have_left_is_forgotten_by_their_ids(rig: Rig) -> None:
    uid = rig.create(1)
    rig.keep(server(uid, backup(1), unlisted=(f"b-{7:020x}", "a" * 64)))
    rig.store.repositories[uid] |= {"e" * 64: f"b-{7:020x}", "a" * 64: f"b-{8:020x}"}
    rig.settle()
    assert list(rig.store.repositories[uid].values()) == [f"b-{1:020x}"]


def test_only_a_few_at_once(rig: Rig) -> None:
    for id in range(1, 9):
        uid = rig.create(id)
        rig.keep(server(uid, *(backup(100 * id + number, 10 - number) for number in range(3)), id=id))
    rig.settle()
    rig.settle(timedelta(minutes=1))
    assert len(rig.store.done) == 8
    assert rig.store.most == {"forget": 3}


def test_a_store_that_is_away_is_tried_again_less_and_less_often(rig: Rig) -> None:
    uid = rig.create(1)
    rig.keep(server(uid, *(backup(number, 10 - number) for number in range(3))))
    rig.store.answers["forget"] = JobState("failed", {}, "store-unreachable", "The store does not answer.")
    tries: list[datetime] = []
    rig.store.check = lambda spec: tries.append(rig.now)
    for _ in range(30):
        rig.settle(timedelta(minutes=2))
    pauses = [later - earlier for earlier, later in pairwise(tries)]
    assert len(pauses) in (3, 4)
    assert pauses[0] < timedelta(minutes=9)
    assert pauses[2] > timedelta(minutes=19)
    assert rig.kept(uid).repository.fault is None
    rig.store.answers.clear()
    rig.settle(timedelta(hours=2))
    assert len(rig.store.repositories[uid]) == 2


def test_a_job_on_a_node_that_does_not_answer_blocks_nothing(rig: Rig) -> None:
    """Kubernetes waits for its pod for ever. The server's backups wait for the task, other servers for its place."""
    uid = rig.create(1)
    rig.keep(server(uid, *(backup(number, 10 - number) for number in range(3))))
    rig.store.lost["forget"] = START + timedelta(minutes=1)
    rig.settle()
    kept = rig.kept(uid)
    assert (kept.repository.task, len(kept.repository.unlisted), ids(kept)) == ({}, 1, [1, 2])
    assert (rig.store.jobs, rig.part._active) == ({}, {})
    assert rig.now > START + timedelta(minutes=6)
    rig.store.lost.clear()
    rig.settle(HOUR)
    assert (rig.kept(uid).repository.unlisted, len(rig.store.repositories[uid])) == ((), 2)


def test_damage_is_recorded_and_told_once_and_nothing_more_goes(rig: Rig) -> None:
    uid = rig.create(1)
    rig.keep(server(uid, *(backup(number, 10 - number) for number in range(3))))
    found = {"ok": True, "stored_bytes": None, "checked": True, "error": "The repository is damaged."}
    rig.store.answers["forget"] = JobState("done", found)
    rig.settle()
    since = rig.kept(uid).repository.fault_since
    rig.settle(DAY * 2)
    kept = rig.kept(uid)
    assert (kept.repository.fault, kept.repository.fault_since) == ("The repository is damaged.", since)
    assert kept.repository.checked_at is None
    assert [event.type for event in rig.events if event.type == "proof-failed"] == ["proof-failed"]
    more = [backup(number, 9 - number) for number in range(3, 8)]
    rig.keep(replace(kept, backups=(*kept.backups, *more)))
    rig.settle(HOUR)
    assert ids(rig.kept(uid)) == [1, 2, 3, 4, 5, 6, 7]
    rig.store.answers.clear()
    rig.settle(DAY)
    rig.settle(HOUR)
    assert (rig.kept(uid).repository.fault, ids(rig.kept(uid))) == (None, [6, 7])


def test_a_lost_key_is_replaced(rig: Rig) -> None:
    uid = rig.create(1)
    rig.keep(server(uid, *(backup(number, 10 - number) for number in range(3))))
    rig.store.answers["forget"] = JobState("failed", {}, "wrong-key", "The key does not open the repository.")

    def mend(spec: JobSpec) -> None:
        if spec.command == "init":
            rig.store.answers.clear()

    rig.store.check = mend
    rig.settle()
    assert rig.store.done == [("init", uid), ("forget", uid)]
    assert rig.kept(uid).repository.fault is None


# -- proofs -------------------------------------------------------------------------------------------------------


@pytest.fixture
def proving(settings: Settings) -> Rig:
    rig = Rig(replace(settings, backup_proof_days=30, backup_prune_hours=720))
    rig.keep(server(rig.create(1), backup(1, 3), backup(2, 2), backup(3, 1, suspicious="empty")))
    return rig


def test_the_newest_good_backup_is_proven_once_in_each_interval(proving: Rig) -> None:
    moments: list[datetime] = []
    proving.store.check = lambda spec: moments.append(proving.now) if spec.command == "prove" else None
    for _ in range(13):
        proving.settle(5 * DAY)
    kept = proving.kept("uid-1")
    assert len(moments) == 2
    assert kept.repository.proof == {"at": kept.backups[1].proven_at, "backup": kept.backups[1].id}
    assert [each.proven_at is not None for each in kept.backups] == [False, True, False]


def test_a_backup_that_cannot_be_restored_is_found_and_told(proving: Rig) -> None:
    proving.store.answers["prove"] = JobState("failed", {}, "restore-differs", "The restored world differs.")
    proving.settle(31 * DAY)
    proving.settle(2 * DAY)
    proof = proving.kept("uid-1").repository.proof
    assert (proof["backup"], proof["found"]) == (f"b-{2:020x}", "The restored world differs.")
    assert proof["since"] < proof["at"]
    told = [event for event in proving.events if event.type == "proof-failed"]
    assert [event.data["backup"] for event in told] == [f"b-{2:020x}"]
    # The same one is tried each day, until it is whole or gone.
    proving.keep(replace(proving.kept("uid-1"), backups=(*proving.kept("uid-1").backups, backup(4, 0, proving.now))))
    proving.store.answers.clear()
    proving.settle(DAY)
    kept = proving.kept("uid-1")
    again = kept.backup(f"b-{2:020x}")
    assert again is not None
    assert kept.repository.proof == {"at": again.proven_at, "backup": again.id}


@pytest.mark.parametrize("hindrance", ["no node", "full"])
def test_without_room_a_proof_is_postponed(proving: Rig, hindrance: str) -> None:
    if hindrance == "full":
        proving.store.answers["prove"] = JobState("failed", {}, "disk-full", "A disk of the Job is full.")
    else:
        proving.store.waits.add("prove")
    proving.settle(31 * DAY)
    proof = proving.kept("uid-1").repository.proof
    assert proof["reason"] == ("A disk of the Job is full." if hindrance == "full" else "0/3 nodes are available.")
    assert proof["postponed"]
    assert "found" not in proof
    assert proving.store.jobs == {}
    assert not [event for event in proving.events if event.type == "proof-failed"]
    proving.store.waits.clear()
    proving.store.answers.clear()
    proving.settle(timedelta(hours=7))
    assert "postponed" not in proving.kept("uid-1").repository.proof


# -- deleted servers ----------------------------------------------------------------------------------------------


def test_backups_outlive_their_server_by_the_operators_days(rig: Rig) -> None:
    uid = rig.create(1)
    node = backup(2, where="node", snapshot="backup-b-2", trigger="manual", locked=True)
    rig.keep(server(uid, backup(1, trigger="manual", locked=True), node))
    rig.settle()
    assert rig.kept(uid).deleted is None
    rig.world.forget(1)
    rig.settle(HOUR)
    assert rig.kept(uid).deleted is not None
    rig.settle(13 * DAY)
    assert ids(rig.kept(uid)) == [1, 2]
    assert len(rig.store.repositories[uid]) == 1
    rig.settle(DAY)
    rig.settle(HOUR)
    assert rig.admin.backups.of(uid) is None
    assert (rig.store.repositories[uid], rig.store.snapshots, rig.store.keys) == ({}, {}, set())


def test_a_server_without_a_statefulset_is_not_deleted_while_it_has_a_release(rig: Rig) -> None:
    uid = rig.create(1)
    rig.keep(server(uid, backup(1)))
    del rig.world.statefulsets[1]
    rig.settle(HOUR)
    assert rig.kept(uid).deleted is None


def test_an_erase_takes_all_at_once_but_not_those_of_the_id_s_next_server(rig: Rig) -> None:
    uid = rig.create(1)
    rig.keep(server(uid, backup(1, locked=True)))
    rig.settle()
    rig.admin.backups.change(uid, lambda kept: replace(kept, erase=True))
    rig.settle()
    assert ids(rig.kept(uid)) == [1]
    rig.world.forget(1)
    other = rig.create(1, "uid-next", customer="other")
    rig.keep(replace(server(other, backup(2)), customer="other"))
    rig.settle(HOUR)
    rig.settle(HOUR)
    assert rig.admin.backups.of(uid) is None
    assert rig.store.repositories == {uid: {}, other: {f"{2:064x}": f"b-{2:020x}"}}
    assert (ids(rig.kept(other)), rig.kept(other).deleted, rig.store.keys) == ([2], None, {other})


def test_a_server_that_is_there_again_is_not_deleted(rig: Rig) -> None:
    uid = rig.create(1)
    rig.keep(replace(server(uid, backup(1)), deleted=stamp(START - 15 * DAY)))
    rig.settle()
    assert rig.kept(uid).deleted is None
    assert ids(rig.kept(uid)) == [1]


def test_what_cannot_be_erased_stays_known(rig: Rig) -> None:
    uid = "uid-1"
    rig.keep(replace(server(uid, backup(1)), deleted=stamp(START - 15 * DAY)))
    rig.store.answers["forget"] = JobState("failed", {}, "store-refused", "The store refuses the credentials.")
    rig.settle()
    assert ids(rig.kept(uid)) == [1]
    rig.store.answers["forget"] = JobState("failed", {}, "repository-missing", "There is no repository in the store.")
    rig.settle(DAY)
    rig.settle(HOUR)
    assert rig.admin.backups.of(uid) is None


# -- worlds of before, and snapshots ------------------------------------------------------------------------------


def test_worlds_of_before_go_after_their_days(rig: Rig) -> None:
    uid = rig.create(1)
    at = stamp(START - timedelta(days=6, hours=23))
    rig.store.snapshots["before-op-2"] = ""
    held = backup(3, 24 * 9, trigger="before-restore")
    kept = replace(
        server(uid, backup(1), held, pruned_at=stamp(START)),
        befores=(
            Before("op-1", at, "disk"),
            Before("op-2", at, "snapshot", "before-op-2"),
            Before("op-3", at, "backup", held.id),
            Before("op-4", stamp(START), "disk"),
        ),
    )
    rig.keep(kept)
    rig.settle()
    assert len(rig.kept(uid).befores) == 4
    requests: list[Mapping[str, Any]] = []
    rig.store.check = lambda spec: requests.append(spec.request) if spec.command == "clean" else None
    rig.settle(2 * HOUR)
    rig.settle(HOUR)
    assert requests == [{"operations": ["op-1"]}]
    assert [each.operation for each in rig.kept(uid).befores] == ["op-4"]
    assert "before-op-2" not in rig.store.snapshots
    assert ids(rig.kept(uid)) == [1]


def test_the_oldest_snapshot_goes_if_the_storage_takes_no_further_one(settings: Settings) -> None:
    rig = Rig(replace(settings, backup_store=None))
    uid = rig.create(1)
    node: dict[str, Any] = {"where": "node", "trigger": "manual"}
    olds = [
        backup(number, 10 - number, snapshot=f"backup-{number}", locked=number == 1, **node) for number in (1, 2, 3)
    ]
    new = backup(4, 0, state="running", where=None, finished=None, operation="op-4")
    operation = new_operation(
        Token("shop", "", frozenset({"admin"})), None, "backup", "now", {}, {}, [Server(1, uid, "acme")]
    )
    operation = rig.admin.operations.create(operation, [Server(1, uid, "acme")])
    rig.keep(server(uid, *olds, replace(new, operation=operation.id)))
    rig.settle()
    assert len(rig.kept(uid).backups) == 4
    rig.store.snapshots[f"backup-{new.id}"] = "rpc error: code = ResourceExhausted desc = delete an older one first"
    found = rig.world.statefulsets.pop(1)
    rig.settle(timedelta(seconds=5))
    # What the server keeps is unknown.
    assert ids(rig.kept(uid)) == [1, 2, 3, 4]
    rig.world.statefulsets[1] = found
    rig.settle(timedelta(seconds=5))
    assert ids(rig.kept(uid)) == [1, 3, 4]
    assert "backup-2" not in rig.store.snapshots
    # The last good one stays, whatever the storage says.
    rig.settle(HOUR)
    assert ids(rig.kept(uid)) == [1, 3, 4]


def reading(rig: Rig, action: str, argument: Mapping[str, Any], uid: str) -> Callable[[], None]:
    """An operation of this action is at work with the server 1; returns what ends it."""
    target = Server(1, uid, "acme")
    asked = new_operation(Token("shop", "", frozenset({"admin"})), None, action, "now", argument, {}, [target])
    operation = rig.admin.operations.create(asked, [target])

    def end() -> None:
        rig.admin.operations.show(replace(operation, state="done", finished=stamp(rig.now)), lambda: None)

    return end


def test_a_world_of_before_stays_while_it_is_brought_back(rig: Rig) -> None:
    """Its days end meanwhile."""
    uid = rig.create(1)
    end = reading(rig, "undo-restore", {"restore": "op-1"}, uid)
    before = Before("op-1", stamp(START - 8 * DAY), "snapshot", "before-op-1")
    rig.store.snapshots["before-op-1"] = ""
    rig.keep(replace(server(uid, backup(1)), befores=(before,)))
    rig.settle()
    rig.settle(HOUR)
    assert (rig.store.snapshots, rig.kept(uid).befores) == ({"before-op-1": ""}, (before,))
    end()
    rig.settle()
    assert (rig.store.snapshots, rig.kept(uid).befores) == ({}, ())


@pytest.mark.parametrize("action", ["restore", "clone"])
def test_a_deleted_snapshot_stays_while_it_is_read(rig: Rig, action: str) -> None:
    """Two calls at the same moment asked for the one and for the other."""
    uid = rig.create(1)
    going = backup(2, where="node", snapshot="backup-b2", state="deleting")
    source = {"backup": going.id, "uid": uid}
    end = reading(rig, action, {"from": source} if action == "clone" else source, uid if action == "restore" else "2")
    rig.keep(server(uid, backup(1, 20), going))
    rig.settle()
    rig.settle(HOUR)
    assert (rig.store.snapshots, ids(rig.kept(uid))) == ({going.snapshot: ""}, [1, 2])
    end()
    rig.settle()
    assert (rig.store.snapshots, ids(rig.kept(uid))) == ({}, [1])


def test_no_snapshot_makes_room_for_the_world_of_before_a_restore(rig: Rig) -> None:
    """It may be what is restored; and without one more snapshot, the disk itself is read."""
    uid = rig.create(1)
    source = backup(1, 50, where="node", snapshot="backup-b1", trigger="manual")
    making = backup(9, 0, state="running", where=None, finished=None, snapshot="", trigger="before-restore")
    end = reading(rig, "restore", {"backup": source.id}, uid)
    rig.keep(server(uid, source, backup(2, 5), making))
    rig.store.snapshots[f"backup-{making.id}"] = "rpc error: code = ResourceExhausted desc = delete an older one first"
    rig.settle()
    rig.settle(timedelta(seconds=5))
    assert ids(rig.kept(uid)) == [1, 2, 9]
    assert source.snapshot in rig.store.snapshots
    end()
    rig.settle()
    assert source.snapshot not in rig.store.snapshots


# -- events -------------------------------------------------------------------------------------------------------


def test_what_happens_to_backups_is_told_once_by_each_controller(rig: Rig) -> None:
    uid = rig.create(1)
    fields: dict[str, Any] = {"size_bytes": 5, "consistency": "stopped"}
    failed = backup(2, 0, state="failed", where=None, snapshot="", reason="The store is full.")
    cancelled = backup(4, 0, state="cancelled", where=None, snapshot="", reason="It was cancelled.")
    rig.keep(server(uid, backup(1, 0, suspicious="smaller", **fields), failed, backup(3, 1), cancelled))
    rig.settle()
    first = list(rig.events)
    assert [(event.type, event.server, event.uid, event.customer) for event in first] == [
        ("backup-done", 1, uid, "acme"),
        ("backup-suspicious", 1, uid, "acme"),
        ("backup-failed", 1, uid, "acme"),
    ]
    assert first[0].data == {
        "backup": f"b-{1:020x}", "trigger": "schedule", "size_bytes": 5, "consistency": "stopped",
    }  # fmt: skip
    assert first[2].data == {"backup": f"b-{2:020x}", "trigger": "schedule", "reason": "The store is full."}
    rig.controller()
    rig.settle()
    rig.keep(rig.kept(uid).with_backup(replace(failed, note="!")))
    rig.seen()
    assert {event.id for event in rig.events} == {event.id for event in first}


@pytest.mark.parametrize(("state", "type_"), [("done", "restored"), ("failed", "restore-failed"), ("cancelled", "")])
def test_the_end_of_a_restore_is_told(rig: Rig, state: str, type_: str) -> None:
    target = Server(1, rig.create(1), "acme")
    operation = new_operation(Token("shop", "", frozenset({"admin"})), None, "restore", "now", {}, {}, [target])
    operation = rig.admin.operations.create(operation, [target])
    rig.admin.operations.show(replace(operation, state=state, finished=stamp(rig.now), reason=None), lambda: None)

    until(lambda: any(each.ended for each in rig.part._operations.all()))
    assert [event.type for event in rig.events] == ([type_] if type_ else [])


# -- deaths -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 20))])
def test_controllers_that_die_lose_nothing(settings: Settings, seed: int) -> None:
    """Whatever dies when: a Job forgets only what nobody lists, and in the end store and records agree."""
    random.seed(seed)
    rig = Rig(replace(settings, backup_proof_days=1, backup_prune_hours=5))
    uids = [rig.create(id) for id in range(1, 5)]
    for id, uid in enumerate(uids, 1):
        rig.keep(server(uid, *(backup(100 * id + number, 10 - number) for number in range(id + 1)), id=id))

    def check(spec: JobSpec) -> None:
        if spec.command == "forget" and not spec.request["erase"]:
            listed = {each.snapshot for each in rig.kept(spec.request["uid"]).backups}
            assert not listed & {*spec.request["snapshots"]}

    rig.store.check = check
    for step in range(12):
        rig.controller(writes=random.randint(1, 4))
        with suppress(Killed, Deposed):
            rig.settle(timedelta(hours=4))
        if step == 5:
            rig.world.forget(4)
            rig.admin.backups.change(uids[3], lambda kept: replace(kept, erase=True))
    rig.controller()
    for _ in range(12):
        rig.settle(timedelta(hours=3))
    for id, uid in enumerate(uids[:3], 1):
        kept = rig.kept(uid)
        assert ids(kept) == [100 * id + id - 1, 100 * id + id]
        assert set(rig.store.repositories[uid]) == {each.snapshot for each in kept.backups}
        assert (kept.repository.task, kept.repository.unlisted) == ({}, ())
        assert kept.backups[-1].proven_at is not None
    assert rig.admin.backups.of(uids[3]) is None
    assert rig.store.repositories[uids[3]] == {}


def test_while_kubernetes_is_away_nothing_is_decided(rig: Rig) -> None:
    uid = rig.create(1)
    rig.keep(server(uid, *(backup(number, 10 - number) for number in range(3))))
    rig.seen()
    rig.world.forget(1)
    rig.world.away = True
    with pytest.raises(ClusterUnavailable):
        rig.part._look(rig.term, rig.kept(uid))
    assert rig.part.turn(rig.term)
    rig.world.away = False
    assert ids(rig.kept(uid)) == [0, 1, 2]
