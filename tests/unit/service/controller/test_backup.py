"""The machine of a backup: what it makes of games, storages and stores, and that it can be killed at any moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from service.backups.records import Backup, Repository, ServerBackups, Unreadable
from service.backups.snapshots import VolumeSnapshots
from service.controller import backup as machine
from service.controller.backup import DeleteBackup, deleted, suspicion
from service.errors import ClusterUnavailable
from service.operations.operation import Operation, new_operation
from service.tokens import Token
from tests.support.backup_world import BACKUP, SERVER, SETTINGS, BackupWorld, Killed

NO_STORE = replace(SETTINGS, backup_store=None, backup_namespace="")
WORLDS: dict[str, Callable[[], BackupWorld]] = {
    "snapshots": BackupWorld,
    "no snapshots": lambda: BackupWorld(snapshots=False),
    "no store": lambda: BackupWorld(NO_STORE),
}


def stopped(world: BackupWorld) -> BackupWorld:
    world.stop()
    return world


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest) -> BackupWorld:
    """A server of each kind."""
    return WORLDS[request.param]()


def is_done(world: BackupWorld, *consistencies: str) -> None:
    """The backup is there once, tells the truth, and nothing else is left."""
    backup = world.backup
    assert (backup.state, backup.reason) == ("done", None)
    assert backup.consistency in (consistencies or ("game-saved",)), backup
    assert world.still == ""
    assert world.left("jobs", "pods") == []
    assert len(world.left("secrets")) == len([each for each in world.left("secrets") if _outlives(each)])
    if backup.where == "node":
        (name,) = world.left("volumesnapshots")
        assert name.endswith(f"/{backup.snapshot}")
        still = world.kube.objects[name]["still"]
    else:
        assert world.left("volumesnapshots") == []
        (stored,) = world.stored
        assert stored.id == backup.snapshot
        still = stored.still
    if backup.consistency == "game-saved":
        assert still


def _outlives(secret: str) -> bool:
    return "/backup-key-" in secret or "/backups-" in secret or "/operation-" in secret


def test_a_game_that_can_hold_still_is_saved(world: BackupWorld) -> None:
    assert world.run(world.operation(name="before the war", locked=True)).state == "done"
    is_done(world)
    backup = world.backup
    assert (backup.name, backup.locked, backup.trigger) == ("before the war", True, "manual")
    kept = world.context.backups.of(SERVER.uid)
    assert kept is not None
    assert (kept.id, kept.customer, kept.game) == (1, "alice", "teeworlds")
    if world.settings.backup_store:
        assert (backup.where, backup.size_bytes, backup.added_bytes, backup.files) == ("store", 1000, 500, 3)
        assert kept.repository.made
    else:
        assert (backup.where, backup.size_bytes) == ("node", None)


def test_a_stopped_server_is_not_asked(world: BackupWorld) -> None:
    world.stop()
    assert world.run(world.operation()).state == "done"
    is_done(world, "stopped")
    if not world.snapshots:
        # There is nobody for whom the second pass would have to be short.
        assert world.jobs_run.count("backup") == 1


def test_a_server_that_is_started_meanwhile_was_not_stopped() -> None:
    world = stopped(BackupWorld(snapshots=False))
    world.run(world.operation(), between=lambda phase: world.start() if phase == "read" else None)
    is_done(world, "crash-like")
    assert world.backup.why == "The server was started or changed while its disk was copied."


def test_a_game_without_commands_is_copied_as_it_is(world: BackupWorld) -> None:
    world.saves = False
    assert world.run(world.operation()).state == "done"
    is_done(world, "crash-like")
    assert world.backup.why == "This game has no command that makes it hold still."


def _points(make: Callable[[], BackupWorld], **options: Any) -> Iterator[int]:
    """The calls of Kubernetes and of the game in a whole backup."""
    world, calls = make(), 0

    def count(method: str, path: str) -> None:
        nonlocal calls
        calls += 1

    world.kube.before = count
    world.run(world.operation())
    assert calls > 10
    yield from range(calls)


CASES: dict[str, Callable[[], BackupWorld]] = {
    **WORLDS,
    "stopped": lambda: stopped(BackupWorld()),
    "stopped, no snapshots": lambda: stopped(BackupWorld(snapshots=False)),
}


@pytest.mark.parametrize("case", CASES)
def test_a_controller_killed_at_any_call_leaves_nothing_undone(case: str) -> None:
    """Wherever it dies, the next one makes the backup: once, and without a game that holds still for ever."""
    for call in _points(CASES[case]):
        world = CASES[case]()
        killed = world.kill_at(call)
        assert world.run(world.operation()).state == "done", call
        assert killed()
        is_done(world, "game-saved", "stopped", "crash-like")


@pytest.mark.parametrize("case", CASES)
def test_what_was_not_recorded_is_done_again(case: str) -> None:
    """The controller dies between a phase and its record."""
    for call in range(40):
        world = CASES[case]()
        assert world.run(world.operation(), lost=call).state == "done", call
        is_done(world, "game-saved", "stopped", "crash-like")


def test_a_cluster_that_is_away_at_any_call_is_waited_for(world: BackupWorld, request: pytest.FixtureRequest) -> None:
    """The same machine goes on when Kubernetes answers again."""
    case = request.node.callspec.params["world"]
    for call in _points(WORLDS[case]):
        world = WORLDS[case]()
        failed: list[bool] = []
        kill = world.kill_at(call)

        def away(method: str, path: str, before: Any = world.kube.before, failed: list[bool] = failed) -> None:
            try:
                before(method, path)
            except Killed:
                failed.append(True)
                raise ClusterUnavailable from None

        world.kube.before = away
        operation = world.operation()
        try:
            world.run(operation)
        except ClusterUnavailable:
            world.kube.before = lambda method, path: None
            assert world.run(operation).state == "done", call
        assert kill()
        is_done(world, "game-saved", "crash-like")


@pytest.mark.parametrize(
    ("codes", "reason"),
    [
        (["store-unreachable"] * 3, "The store of the backups does not answer."),
        (["store-full"], "The store of the backups is full."),
        (["store-refused"], "The store of the backups refuses the operator's credentials."),
        (["killed"] * 3, "The Job that makes the backup ended without an answer, such as by a failure of its node."),
        (["disk-full"], "A disk of the Job that makes the backup is full."),
    ],
)
@pytest.mark.parametrize("command", ["init", "backup"])
@pytest.mark.parametrize("snapshots", [True, False])
def test_a_store_that_fails_is_named_and_leaves_nothing_behind(
    codes: list[str], reason: str, command: str, snapshots: bool
) -> None:
    world = BackupWorld(snapshots=snapshots)
    world.store.fails[command] = list(codes)
    ended = world.run(world.operation())
    assert (ended.state, ended.reason) == ("failed", reason)
    assert (world.backup.state, world.backup.reason) == ("failed", reason)
    assert world.still == ""
    assert world.left("jobs", "pods", "volumesnapshots") == []
    kept = world.context.backups.of(SERVER.uid)
    assert kept is not None
    # Nobody knows whether the Job had brought something.
    assert kept.repository.unlisted == (BACKUP,)


@pytest.mark.parametrize("code", ["killed", "stopped", "locked", "store-unreachable"])
@pytest.mark.parametrize("snapshots", [True, False])
def test_a_job_that_may_do_better_is_tried_again(code: str, snapshots: bool) -> None:
    world = BackupWorld(snapshots=snapshots)
    world.store.fails["backup"] = [code, code]
    assert world.run(world.operation()).state == "done"
    is_done(world, "game-saved")


@pytest.mark.parametrize("code", ["wrong-key", "repository-missing"])
@pytest.mark.parametrize("snapshots", [True, False])
def test_a_repository_that_does_not_open_is_set_up_again_once(code: str, snapshots: bool) -> None:
    world = BackupWorld(snapshots=snapshots)
    world.store.fails["backup"] = [code]
    assert world.run(world.operation()).state == "done"
    is_done(world)
    assert world.jobs_run.count("init") == 3  # One found no catalogue yet.
    world = BackupWorld(snapshots=snapshots)
    world.store.fails["backup"] = [code, code]
    assert world.run(world.operation()).state == "failed"


def test_a_lost_key_is_made_again() -> None:
    """The second backup needs no `init`, unless the Secret with the key is gone."""
    world = BackupWorld()
    world.run(world.operation())
    assert world.jobs_run.count("init") == 2
    world.run(world.operation(backup=f"b-{'2' * 20}"))
    assert world.jobs_run.count("init") == 2
    (key,) = [name for name in world.left("secrets") if "backup-key" in name]
    del world.kube.objects[key]
    assert world.run(world.operation(backup=f"b-{'3' * 20}")).state == "done"
    assert world.jobs_run.count("init") == 3


def test_a_storage_that_takes_no_snapshot_in_time_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "TAKE_SECONDS", 0.01)
    world = BackupWorld()
    world.stuck = True
    assert world.run(world.operation()).state == "done"
    is_done(world)
    assert world.jobs_run.count("backup") == 2


def full(world: BackupWorld) -> BackupWorld:
    world.full = True
    return world


def test_a_pool_without_room_for_a_copy_is_read_whoever_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider sells all of his pool, and the copy would be a disk of the server's size."""
    monkeypatch.setattr(machine, "COPY_SECONDS", 0.0)
    world = full(BackupWorld())
    assert world.run(world.operation()).state == "done"
    is_done(world)
    assert world.jobs_run.count("backup") == 2
    for call in list(_points(lambda: full(BackupWorld())))[::3]:
        world = full(BackupWorld())
        killed = world.kill_at(call)
        assert world.run(world.operation()).state == "done", call
        assert killed()
        is_done(world, "game-saved", "crash-like")


def test_what_is_left_of_a_deleted_server_is_copied_when_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its disk is gone, and may have made the room."""
    monkeypatch.setattr(machine, "COPY_SECONDS", 0.0)
    world, seen = full(BackupWorld()), 0

    def between(phase: str) -> None:
        nonlocal seen
        seen += phase == "copy"
        if seen == 1:
            world.delete()
        if seen == 5 and world.full:
            world.full = False
            for each in world.left("jobs", "pods"):
                del world.kube.objects[each]

    assert world.run(world.operation(), between=between).state == "done"
    is_done(world)


def test_a_job_that_no_node_takes_ends_the_backup(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a deleted server, too, nothing is waited for for ever."""
    monkeypatch.setattr(machine, "COPY_SECONDS", 0.0)
    monkeypatch.setattr(machine, "START_SECONDS", 0.0)
    world = full(BackupWorld())
    ended = world.run(world.operation(), between=lambda phase: world.delete() if phase == "copy" else None)
    assert (ended.state, ended.reason) == ("failed", "The Job that makes the backup could not start in time.")
    assert world.left("jobs", "pods", "volumesnapshots") == []


def test_without_a_store_it_fails_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "TAKE_SECONDS", 0.01)
    world = BackupWorld(NO_STORE)
    world.stuck = True
    ended = world.run(world.operation())
    assert (ended.state, ended.reason) == ("failed", "The storage took no snapshot of the server's disk.")
    assert world.left("volumesnapshots") == []
    assert world.still == ""


@pytest.mark.parametrize("command", ["init", "catalogue", "backup"])
def test_a_job_on_a_node_that_does_not_answer_ends_the_backup(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kubernetes waits for its pod for ever. The next backup has Jobs of its own, which may run elsewhere."""
    monkeypatch.setattr(machine, "TIDY_SECONDS", 0.0)
    world = BackupWorld()
    world.lost = {command}
    ended = world.run(world.operation())
    assert (ended.state, ended.reason) == ("failed", "The node of the Job that makes the backup does not answer.")
    assert (world.backup.state, world.still, world.left("jobs", "volumesnapshots")) == ("failed", "", [])
    world.lost = set()
    assert world.run(world.operation(backup=f"b-{'2' * 20}")).state == "done"


def test_there_may_be_nowhere_to_back_up() -> None:
    world = BackupWorld(NO_STORE, snapshots=False)
    ended = world.run(world.operation())
    assert ended.reason == "There is nowhere to back it up: no store is set up, and its storage takes no snapshots."


def test_a_server_without_a_disk_has_nothing_to_back_up() -> None:
    world = BackupWorld()
    world.world.claims[1]["status"] = {"phase": "Pending"}
    ended = world.run(world.operation())
    assert (ended.state, ended.reason) == ("failed", "The server has no disk yet: it was never started.")


@pytest.mark.parametrize("snapshots", [True, False])
def test_a_server_that_is_deleted_meanwhile_ends_cleanly(snapshots: bool) -> None:
    """What was copied before stays; what would be copied from another's disk is not."""
    phases = {"snapshots": ["begin", "repository", "snapshot", "ready", "copy", "record", "tidy"]}
    for phase in phases["snapshots"] if snapshots else ["begin", "first-pass", "hold", "read"]:
        world = BackupWorld(snapshots=snapshots)

        def between(now: str, world: BackupWorld = world, phase: str = phase) -> None:
            if now == phase:
                world.delete()

        ended = world.run(world.operation(), between=between)
        if phase in ("ready", "copy", "record", "tidy"):
            assert ended.state == "done", phase
            is_done(world)
        else:
            assert ended.state == "failed", phase
            assert "deleted" in str(ended.reason)
            assert world.left("jobs", "volumesnapshots") == []


def test_a_disk_that_another_server_has_by_now_is_not_copied() -> None:
    world = BackupWorld(snapshots=False)

    def another(phase: str) -> None:
        if phase == "read":
            world.disk("claim-2")

    assert world.run(world.operation(), between=another).state == "failed"
    assert world.stored == []


def test_a_cancelled_one_ends_before_it_is_recorded(request: pytest.FixtureRequest, world: BackupWorld) -> None:
    for call in range(12):
        world = WORLDS[request.node.callspec.params["world"]]()
        # The catalogue is everybody's, and so is the Job that makes it.
        world.store.catalogue = True
        operation, calls = world.operation(), iter(range(400))

        def maybe(phase: str, calls: Iterator[int] = calls, call: int = call, which: Operation = operation) -> None:
            if next(calls) == call:
                object.__setattr__(which, "cancelling", True)

        ended = world.run(operation, between=maybe)
        if ended.state == "done":
            is_done(world)
            continue
        assert ended.state == "cancelled"
        assert (world.backup.state, world.backup.reason) == ("cancelled", "It was cancelled.")
        assert world.still == ""
        assert world.left("jobs", "pods", "volumesnapshots") == []


def test_one_of_a_server_is_made_at_a_time(world: BackupWorld) -> None:
    """A clone's may be asked for while another is made. Two at once would both make the server's repository."""
    other = new_operation(Token("shop", "", frozenset({"admin"})), None, "backup", "now", {}, {}, [SERVER])
    other = world.context.operations.create(other, [SERVER])
    running = Backup(f"b-{'2' * 20}", other.created, state="running", operation=other.id)
    nothing = ServerBackups(SERVER.uid, SERVER.id, "alice")
    world.context.backups.change(SERVER.uid, lambda kept: kept.with_backup(running), nothing)
    calls = iter(range(400))

    def until_the_other_ends(phase: str) -> None:
        call = next(calls)
        if call <= 5:
            assert (phase, world.jobs_run) == ("begin", [])
        if call == 5:
            world.context.operations.show(replace(other, state="done"), lambda: None)

    assert world.run(world.operation(), between=until_the_other_ends).state == "done"
    assert next(calls) > 6
    is_done(world)


def test_a_phase_that_is_given_up_leaves_nothing_behind(world: BackupWorld) -> None:
    from service.controller.worlds import Run

    run = Run(world.operation(), SERVER, {"phase": "snapshot", "disk": {}})
    next_ = world.machine.abandon(run, "The quota is used up.")
    assert next_.work is not None
    ended = world.run(world.operation(), work=next_.work)
    assert (ended.state, ended.reason) == ("failed", "The quota is used up.")


# -- what looks wrong ---------------------------------------------------------------------------------------


def _answer(size: int, unreadable: int = 0) -> dict[str, Any]:
    return {"empty": not size, "size_bytes": size, "unreadable": {"count": unreadable, "paths": []}}


def _kept(*sizes: int | None, suspicious: str | None = None) -> ServerBackups:
    backups = [
        Backup(f"b-{number}", f"2026-01-0{number + 1}", state="done", size_bytes=size, suspicious=suspicious)
        for number, size in enumerate(sizes)
    ]
    return ServerBackups("uid-1", 1, "alice", backups=tuple(backups))


@pytest.mark.parametrize(
    ("kept", "answer", "said"),
    [
        (_kept(), _answer(10), None),
        (_kept(), _answer(0), "empty"),
        (_kept(100), _answer(50), None),
        (_kept(100), _answer(49), "smaller"),
        (_kept(100, 20), _answer(15), None),
        (_kept(20, 100), _answer(15), "smaller"),
        (_kept(None), _answer(1), None),
        (_kept(100, suspicious="smaller"), _answer(1), None),
        (_kept(100), _answer(90, unreadable=1), "incomplete"),
        (_kept(100), _answer(0, unreadable=1), "empty"),
    ],
)
def test_what_looks_wrong_is_said(kept: ServerBackups, answer: dict[str, Any], said: str | None) -> None:
    assert suspicion(kept, BACKUP, answer) == said


def test_what_its_owner_has_accepted_is_not_suspicious_again() -> None:
    """A world that really became small, lost files, or is empty; anything further is said."""

    def after(accepted: bool, suspicious: str, size: int, *lacks: str) -> ServerBackups:
        kept = _kept(100, size)
        lacking = Unreadable(len(lacks), lacks)
        odd = replace(kept.backups[1], suspicious=suspicious, accepted=accepted, unreadable=lacking)
        return kept.with_backup(replace(odd, files=0 if size == 0 else 1))

    def answer(size: int, *lacks: str) -> dict[str, Any]:
        return {"empty": not size, "size_bytes": size, "unreadable": {"count": len(lacks), "paths": list(lacks)}}

    def said(accepted: bool, suspicious: str, size: int, now: dict[str, Any], *lacks: str) -> str | None:
        return suspicion(after(accepted, suspicious, size, *lacks), BACKUP, now)

    assert [said(accepted, "smaller", 10, answer(9)) for accepted in (False, True)] == ["smaller", None]
    assert said(True, "smaller", 10, answer(4)) == "smaller"
    assert [said(accepted, "empty", 0, answer(0)) for accepted in (False, True)] == ["empty", None]
    lacking = [said(accepted, "incomplete", 90, answer(90, "a"), "a", "b") for accepted in (False, True)]
    assert lacking == ["incomplete", None]
    assert said(True, "incomplete", 90, answer(90, "c"), "a", "b") == "incomplete"
    assert said(True, "incomplete", 90, answer(90, "a", "b"), "a") == "incomplete"


def test_a_suspicious_backup_is_recorded_as_one() -> None:
    world = BackupWorld()
    world.run(world.operation(backup=f"b-{'2' * 20}"))
    world.store.size, world.store.unreadable = 100, 2
    world.run(world.operation())
    backup = world.backup
    assert (backup.suspicious, backup.unreadable.count, backup.unreadable.paths) == ("smaller", 2, ("closed",))


# -- deletion -----------------------------------------------------------------------------------------------


def _delete(world: BackupWorld) -> None:
    world.machine = DeleteBackup(world.context, VolumeSnapshots(world.kube, "gameservers"))
    assert world.run(world.operation()).state == "done"


def test_a_deleted_backup_is_left_to_the_next_prune() -> None:
    world = BackupWorld()
    world.run(world.operation())
    snapshot = world.backup.snapshot
    _delete(world)
    _delete(world)
    kept = world.context.backups.of(SERVER.uid)
    assert kept is not None
    assert (kept.backups, kept.repository.unlisted) == ((), (snapshot,))


def test_a_deleted_backup_on_the_node_is_gone() -> None:
    world = BackupWorld(NO_STORE)
    world.run(world.operation())
    _delete(world)
    kept = world.context.backups.of(SERVER.uid)
    assert kept is not None
    assert (kept.backups, kept.repository) == ((), Repository())
    assert world.left("volumesnapshots") == []


def test_a_deleted_backup_stays_while_it_is_restored() -> None:
    """Both were asked for at the same moment. What keeps backups deletes it afterwards."""
    world = BackupWorld(NO_STORE)
    world.run(world.operation())
    restore = replace(world.operation(), action="restore")
    world.context.operations.create(restore, [SERVER])
    _delete(world)
    assert (world.backup.state, len(world.left("volumesnapshots"))) == ("deleting", 1)


class Stays(VolumeSnapshots):
    """The snapshots of a storage that removes none, such as one whose node is lost."""

    def remove(self, name: str) -> bool:
        return False


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_snapshot_that_is_not_gone_holds_no_place(cancelled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What keeps backups goes on with it, which needs none."""
    world = BackupWorld(NO_STORE)
    world.run(world.operation())
    world.machine = DeleteBackup(world.context, Stays(world.kube, "gameservers"))
    with pytest.raises(AssertionError, match="it does not end"):
        world.run(world.operation())
    if not cancelled:
        monkeypatch.setattr(machine, "TIDY_SECONDS", -1.0)
    assert world.run(replace(world.operation(), cancelling=cancelled)).state == "done"
    assert world.backup.state == "deleting"


@pytest.mark.parametrize("stored", [True, False])
def test_anothers_snapshot_that_is_not_gone_is_not_waited_for(stored: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A controller has taken it and has ended, and its storage removes none any more."""
    monkeypatch.setattr(machine, "TIDY_SECONDS", -1.0)
    world = BackupWorld() if stored else BackupWorld(NO_STORE)
    snapshots = VolumeSnapshots(world.kube, "gameservers")
    snapshots.take(machine.snapshot_name(BACKUP), "server-1", "snapshots", SERVER.uid, {})
    monkeypatch.setattr(VolumeSnapshots, "remove", Stays.remove)
    ended = world.run(world.operation())
    if stored:
        assert (ended.state, world.backup.where) == ("done", "store")
    else:
        assert (ended.state, ended.reason) == ("failed", "The storage took no snapshot of the server's disk.")


def test_a_failed_one_may_have_been_stored() -> None:
    kept = ServerBackups("uid-1", 1, "alice", backups=(Backup(BACKUP, "2026-01-01", state="failed"),))
    assert deleted(kept, BACKUP).repository.unlisted == (BACKUP,)
    assert deleted(kept, "b-other") == kept
