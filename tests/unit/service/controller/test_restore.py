"""Restores, undos and clones, by controllers and Jobs that die, over fakes."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Executor, Future
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from service.assembly import build_context
from service.backups.records import Backup, ServerBackups
from service.controller import placing
from service.controller import restore as controller_restore
from service.controller.clone import Clone
from service.controller.leader import Term
from service.controller.restore import Restore, UndoRestore
from service.controller.worlds import NO_ROOM, Next, Run, Worlds, done, failed
from service.errors import (
    BackupNotFound,
    BackupNotUsable,
    DiskKept,
    DiskNotReady,
    InvalidRequest,
    NothingToUndo,
    OperationInProgress,
    Suspended,
)
from service.games import catalogue
from service.operations import power, restore
from service.operations.clone import clone
from service.operations.context import Context
from service.operations.create import create
from service.operations.delete import delete
from service.operations.file_access import change
from service.operations.operation import Operation, OperationStore
from service.operations.suspend import suspend
from service.operations.visibility import Target
from service.records.store import RecordStore
from service.servers.spec import spec_of_objects
from service.servers.values import Values
from service.settings import Settings
from service.tokens import BUNDLES, Token
from tests.support import tokens
from tests.support.fakes import FakeAccounts, FakeCluster, World
from tests.support.memory_kube import LabelledKube
from tests.support.worlds import FakeJobs, FakeSnapshots, Storage
from tests.unit.service.controller.test_bulk import Killed, Life, MortalKube, MortalReleases

SHOP = Token("shop", "", frozenset(BUNDLES))
ACME = replace(SHOP, name="acme", customer="acme", scopes=frozenset({"operate", "backup:restore", "server:create"}))
UID, ID = "uid-1", 1
GAME = {"game": "minecraft", "ram_gb": 1, "disk_gb": 1, "options": {}, "customer": "acme", "rcon": "public"}


class Inline(Executor):
    """Calls at once."""

    def submit(self, call: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        call(*args, **kwargs)
        return Future()


class Saves:
    """Makes backups at once: the machine of another module, as far as a restore needs it."""

    action = "backup"

    def __init__(self, cluster: Cluster, context: Context) -> None:
        self._cluster, self._context = cluster, context

    def advance(self, run: Run) -> Next:
        id, uid = run.operation.argument["backup"], run.server.uid
        if self._cluster.no_backups:
            self._context.backups.change(uid, lambda kept: _with(kept, id, state="failed", reason="The store is full."))
            return failed("The store is full.")
        self._cluster.storage.store[id] = self._cluster.storage.disks[f"server-{run.server.id}"]["world"]
        self._context.backups.change(uid, lambda kept: _with(kept, id, state="done", where="store", snapshot=id))
        return done()

    def abandon(self, run: Run, reason: str) -> Next:
        return failed(reason)


def _with(kept: ServerBackups, id: str, **fields: Any) -> ServerBackups:
    backup = kept.backup(id)
    assert backup is not None
    return kept.with_backup(replace(backup, **fields))


class DiskCluster(FakeCluster):
    """Makes disks with a volume, and with the world that they are a copy of."""

    def __init__(self, world: World, storage: Storage) -> None:
        super().__init__(world)
        self._storage = storage

    def make_disk(self, job: Any) -> None:
        super().make_disk(job)
        id = int(job["metadata"]["labels"]["gameserver/id"])
        source = self.world.claims[id]["spec"].get("dataSource")
        self._storage.disks[f"server-{id}"] = {"world": self._storage.snapshots[source["name"]] if source else ""}
        give_volume(self.world, id)


def give_volume(world: World, id: int) -> None:
    claim = world.claims[id]
    claim["metadata"]["name"] = f"server-{id}"
    claim["spec"]["volumeName"] = f"pv-{id}"
    claim["status"] = {"phase": "Bound", "capacity": {"storage": "1Gi"}}
    world.volumes[f"pv-{id}"] = {"metadata": {"name": f"pv-{id}"}, "spec": {"csi": {"driver": "pool"}}}


class Cluster:
    """A cluster in memory, with an API, and controllers that die."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.world = World()
        self.storage = Storage(self.world)
        self.kube = LabelledKube()
        self.releases = MortalReleases(self.world, Life())
        self.api = self.context(Life())
        self.no_backups = False
        self.deaths = 0

    def context(self, life: Life) -> Context:
        records = partial(RecordStore, MortalKube(self.kube, life), "gameservers")
        releases = MortalReleases(self.world, life, self.releases)
        return build_context(
            self.settings, DiskCluster(self.world, self.storage), releases, FakeAccounts(), records=records
        )

    def create(self, *, running: bool = True) -> None:
        """A server with a world, and a backup of an older one."""
        server = {"id": "1", "customer": "acme", "uid": UID, "options": {}}
        values: Values = {"game": "minecraft", "ramGb": 1, "diskGb": 1, "replicas": 1, "server": server}
        self.api.releases.install(ID, values)
        give_volume(self.world, ID)
        if not running:
            power.stop(self.api, self.target())
        self.storage.disks["server-1"] = {"world": "new"}
        self.storage.store["s-old"] = "old"
        backup = Backup("b-" + "0" * 20, "2026-11-01T00:00:00Z", state="done", where="store", snapshot="s-old")
        self.api.backups.change(UID, lambda kept: kept.with_backup(backup), ServerBackups(UID, ID, "acme", "minecraft"))
        self.world.history.clear()

    def target(self, id: int = ID) -> Target:
        objects = self.api.cluster.server(id)
        return Target(id, objects, spec_of_objects(objects))

    def restore(self, **more: Any) -> Operation:
        return restore.restore(self.api, ACME, self.target(), {"backup": "b-" + "0" * 20, **more}, None)

    def undo(self, **more: Any) -> Operation:
        return restore.undo_restore(self.api, ACME, self.target(), more, None)

    def get(self, operation: Operation) -> Operation:
        current = self.api.operations.get(operation.id)
        assert current is not None
        return current

    def part(self, writes: int | None = None) -> tuple[Worlds, Life]:
        """A controller, which dies after so many writes."""
        life = Life(writes)
        context = self.context(life)
        jobs, snapshots = FakeJobs(self.storage, life.write), FakeSnapshots(self.storage, life.write)
        machines = [
            *(kind(context, jobs, snapshots) for kind in (Restore, UndoRestore, Clone)),
            Saves(self, context),
        ]
        part = Worlds(context, machines)
        part.start()
        assert part._watch.wait(5)
        return part, life

    def run(self, *operations: Operation, deadly: bool = False, phase: str = "", turns: int = 2000) -> None:
        """Let controllers work until the operations have ended, or one has reached the phase."""
        part, life = self.part(random.randint(1, 12) if deadly else None)
        for _ in range(turns):
            states = [self.get(operation) for operation in operations]
            if all(state.ended for state in states) or (phase and states[0].work.get("phase") == phase):
                return
            try:
                for active in part._runs.values():
                    active.due = 0
                part.turn(Term(life, "controller"), Inline())  # type: ignore[arg-type]
                if not part._runs:
                    time.sleep(0.01)
            except Killed:
                self.deaths += 1
                part, life = self.part(random.randint(1, 12))
        raise AssertionError([(state.state, state.work) for state in states])

    def runs(self, id: int = ID) -> bool:
        return id in self.world.pods

    def check(self, world: str, *, running: bool = True, id: int = ID) -> None:
        """The server has this world, and runs or stands still as it did before."""
        assert self.storage.disks[f"server-{id}"]["world"] == world
        assert self.runs(id) == running
        assert "restoring" not in self.world.values[id]["server"]


@pytest.fixture
def cluster(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setattr(threading, "excepthook", lambda args: None)
    monkeypatch.setattr(catalogue, "load", lambda *folders, chart: {"minecraft": GAME_FOLDER})
    file = tokens.write(tmp_path / "tokens.json", tokens.entry("shop"))
    settings = replace(
        Settings(), tokens_file=file, backup_image="backup", disk_image="disk", backup_store={"kind": "folder"},
        sftp_namespace="gameserver-sftp",
        accepted_eulas=frozenset({"minecraft"}),
    )  # fmt: skip
    return Cluster(settings)


class _Game:
    """A game without a template."""

    name, title, eula, query, console, save = "minecraft", "Minecraft", None, None, None, None

    def errors(self, options: Mapping[str, Any]) -> dict[str, list[str]]:
        return {}

    def render(self, *args: Any, **kwargs: Any) -> Values:
        return {}


GAME_FOLDER = _Game()
WAYS = {"beside": (True, False), "snapshot": (False, True), "backup": (False, False)}


@pytest.mark.parametrize("way", WAYS)
def test_a_restore_and_its_undo(cluster: Cluster, way: str) -> None:
    cluster.create()
    cluster.storage.fits, cluster.storage.cuts = WAYS[way]
    operation = cluster.restore()
    cluster.run(operation)
    assert (cluster.get(operation).state, cluster.get(operation).reason) == ("done", None)
    cluster.check("old")
    kept = cluster.api.backups.of(UID)
    assert kept is not None
    assert [(before.operation, before.where) for before in kept.befores] == [
        (operation.id, {"beside": "disk"}.get(way, way))
    ]
    undo = cluster.undo()
    cluster.run(undo)
    assert (cluster.get(undo).state, cluster.get(undo).reason) == ("done", None)
    cluster.check("new")
    kept = cluster.api.backups.of(UID)
    assert kept is not None
    assert [before.operation for before in kept.befores] == [undo.id]
    again = cluster.undo(restore=undo.id)
    cluster.run(again)
    cluster.check("old")
    assert set(cluster.storage.snapshots) <= {f"before-{again.id}"}


@pytest.mark.parametrize("way", WAYS)
def test_a_restore_of_paths_that_were_not_there_is_undone(cluster: Cluster, way: str) -> None:
    """However the world of before is kept: it does not have them, which is what the undo brings back."""
    cluster.create()
    cluster.storage.fits, cluster.storage.cuts = WAYS[way]
    cluster.run(cluster.restore(paths=["added"]))
    cluster.check("old")
    # It may be kept elsewhere, and there may be room for it now.
    for fits in (cluster.storage.fits, True):
        cluster.storage.fits = fits
        undo = cluster.undo()
        cluster.run(undo)
        assert (cluster.get(undo).state, cluster.get(undo).reason) == ("done", None)
        cluster.check("new")
        again = cluster.undo(restore=undo.id)
        cluster.run(again)
        assert (cluster.get(again).state, cluster.get(again).reason) == ("done", None)
        cluster.check("old")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("running", [True, False])
def test_no_world_is_lost_whoever_dies(cluster: Cluster, way: str, running: bool) -> None:
    """The controller dies before or after any of its writes, the Jobs' pods at each of their steps."""
    cluster.create(running=running)
    cluster.storage.fits, cluster.storage.cuts = WAYS[way]
    cluster.storage.kills = 0.2
    done_, wanted = 0, "new"
    for _ in range(12):
        undoes = wanted == "old"
        operation = cluster.undo() if undoes else cluster.restore()
        cluster.run(operation, deadly=True)
        ended = cluster.get(operation)
        if ended.state == "done":
            done_ += 1
            wanted = "new" if undoes else "old"
        cluster.check(wanted, running=running)
    print(f"{cluster.deaths} controllers died, {done_} of 12 were done")
    assert cluster.deaths > 10
    assert done_ > 6


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("inspect", "repository-damaged"),
        ("inspect", "too-large"),
        ("inspect", "store-refused"),
        ("lay-out", "restore-differs"),
        ("lay-out", "path-missing"),
    ],
)
def test_what_cannot_be_restored_leaves_all_as_it_was(cluster: Cluster, command: str, code: str) -> None:
    cluster.create()
    cluster.storage.answers[command] = [code]
    operation = cluster.restore()
    cluster.run(operation)
    assert (cluster.get(operation).state, cluster.get(operation).reason) == ("failed", f"It failed with {code}.")
    cluster.check("new")
    assert cluster.storage.disks["server-1"] == {"world": "new"}
    kept = cluster.api.backups.of(UID)
    assert kept is not None
    assert not kept.befores
    # A backup that cannot be restored does not even stop the game.
    assert ("change", ID) not in cluster.world.history or command == "lay-out"
    cluster.run(again := cluster.restore())
    assert cluster.get(again).state == "done"


@pytest.mark.parametrize("command", ["inspect", "lay-out", "place"])
def test_a_jobs_lost_answer_is_asked_for_again(cluster: Cluster, command: str) -> None:
    cluster.create()
    cluster.storage.answers[command] = ["", "store-unreachable", "busy"]
    cluster.run(operation := cluster.restore())
    assert cluster.get(operation).state == "done"
    cluster.check("old")


def test_a_lost_key_is_made_again(cluster: Cluster) -> None:
    cluster.create()
    cluster.storage.keys.clear()
    cluster.run(operation := cluster.restore())
    assert cluster.get(operation).state == "done"
    assert cluster.storage.commands[0] == "init"
    cluster.storage.answers["inspect"] = ["wrong-key"]
    cluster.run(operation := cluster.restore())
    assert cluster.get(operation).state == "done"
    assert cluster.storage.commands.count("init") == 2
    cluster.check("old")


def test_what_is_laid_out_and_removed_again_is_not_placed(cluster: Cluster) -> None:
    """A customer can reach the folder."""
    cluster.create()
    cluster.storage.answers["place"] = ["nothing-laid-out"]
    cluster.run(operation := cluster.restore())
    assert cluster.get(operation).state == "failed"
    cluster.check("new")


def test_what_is_removed_while_it_is_placed_keeps_no_server_from_starting(cluster: Cluster) -> None:
    cluster.create()
    cluster.storage.answers["place"] = ["busy", *["nothing-laid-out"] * placing.CUSTOMER_TRIES]
    cluster.run(operation := cluster.restore())
    ended = cluster.get(operation)
    assert (ended.state, ended.reason) == ("failed", "It failed with nothing-laid-out. Its parts are in .gameserver.")
    assert len(cluster.storage.answers["place"]) == 1
    cluster.check("new")


def test_a_scratch_disk_that_cannot_be_filled_changes_nothing(cluster: Cluster) -> None:
    cluster.create()
    cluster.storage.fits, cluster.storage.cuts = False, True
    cluster.storage.answers["place"] = ["disk-full"]
    cluster.run(operation := cluster.restore())
    assert (cluster.get(operation).state, cluster.get(operation).reason) == ("failed", "It failed with disk-full.")
    cluster.check("new")
    assert not cluster.storage.snapshots


def test_a_world_that_cannot_be_kept_is_not_replaced(cluster: Cluster) -> None:
    cluster.create()
    cluster.storage.fits, cluster.no_backups = False, True
    cluster.run(operation := cluster.restore())
    assert (cluster.get(operation).state, cluster.get(operation).reason) == (
        "failed", "The world of before could not be kept: The store is full.",
    )  # fmt: skip
    cluster.check("new")


def test_a_disk_that_has_filled_up_meanwhile_keeps_the_world_elsewhere(cluster: Cluster) -> None:
    cluster.create()
    cluster.storage.cuts = True
    cluster.storage.answers["lay-out"] = ["disk-full"]
    cluster.run(operation := cluster.restore())
    assert cluster.get(operation).state == "done"
    cluster.check("old")
    assert cluster.storage.snapshots == {f"before-{operation.id}": "new"}


@pytest.mark.parametrize("phase", ["inspect", "gone", "lay-out", "note"])
def test_a_cancelled_restore_changes_nothing(cluster: Cluster, phase: str) -> None:
    cluster.create()
    cluster.run(operation := cluster.restore(), phase=phase)
    cluster.api.operations.cancel(cluster.get(operation))
    cluster.run(operation)
    assert cluster.get(operation).state == "cancelled"
    cluster.check("new")
    assert cluster.storage.disks["server-1"] == {"world": "new"}


def test_a_restore_that_places_is_not_cancelled_any_more(cluster: Cluster) -> None:
    cluster.create()
    cluster.run(operation := cluster.restore(), phase="place")
    cluster.api.operations.cancel(cluster.get(operation))
    cluster.run(operation)
    assert cluster.get(operation).state == "done"
    cluster.check("old")


def test_no_game_starts_under_a_restore(cluster: Cluster) -> None:
    """Nobody starts it: no call, no create that is repeated, no `helm upgrade` by hand."""
    cluster.create()
    cluster.run(operation := cluster.restore(), phase="lay-out")
    for verb in (power.start, power.restart):
        with pytest.raises(OperationInProgress, match=operation.id):
            verb(cluster.api, SHOP, cluster.target())
    by_hand = {**cluster.world.values[ID], "replicas": 1}
    cluster.api.releases.change(ID, lambda current: by_hand)
    assert not cluster.runs()
    cluster.run(operation)
    cluster.check("old")


def test_a_game_that_a_person_starts_is_stopped_before_its_world_is_replaced(cluster: Cluster) -> None:
    cluster.create()
    cluster.run(operation := cluster.restore(), phase="place")
    server = {key: value for key, value in cluster.world.values[ID]["server"].items() if key != "restoring"}
    by_hand = {**cluster.world.values[ID], "server": server}
    cluster.api.releases.change(ID, lambda current: by_hand)
    assert cluster.runs()
    cluster.run(operation)
    assert cluster.get(operation).state == "done"
    cluster.check("old")


def test_what_does_not_start_the_game_goes_on(cluster: Cluster) -> None:
    cluster.create()
    cluster.run(operation := cluster.restore(), phase="lay-out")
    power.stop(cluster.api, cluster.target())
    cluster.run(operation)
    assert cluster.get(operation).state == "done"
    cluster.check("old", running=False)


def test_a_suspension_keeps_the_game_from_starting(cluster: Cluster) -> None:
    cluster.create()
    cluster.run(operation := cluster.restore(), phase="lay-out")
    suspend(cluster.api, cluster.target(), "Overdue.")
    cluster.run(operation)
    assert cluster.get(operation).state == "done"
    cluster.check("old", running=False)
    with pytest.raises(Suspended):
        cluster.restore()


@pytest.mark.parametrize("deleted", [False, True])
def test_a_restore_that_is_cancelled_leaves_no_snapshot_of_the_world(cluster: Cluster, deleted: bool) -> None:
    """Nobody else knows of it, and it would outlive even a disk that is erased."""
    cluster.create()
    cluster.storage.fits, cluster.storage.cuts = WAYS["snapshot"]
    cluster.run(operation := cluster.restore(), phase="snapshot")
    cluster.storage.snapshots[f"before-{operation.id}"] = "new"
    if deleted:
        delete(cluster.api, SHOP, ID, erase=True)
    else:
        cluster.api.operations.cancel(operation)
    cluster.run(operation)
    assert (cluster.get(operation).state, cluster.storage.snapshots) == ("cancelled", {})


@pytest.mark.parametrize("phase", ["inspect", "gone", "lay-out", "note"])
def test_a_delete_cancels_a_restore(cluster: Cluster, phase: str) -> None:
    cluster.create()
    cluster.run(operation := cluster.restore(), phase=phase)
    delete(cluster.api, SHOP, ID, erase=False)
    cluster.run(operation)
    assert cluster.get(operation).state == "cancelled"
    assert cluster.storage.disks["server-1"]["world"] == "new"
    assert ID not in cluster.world.revisions


def placed_on_a_lost_node(cluster: Cluster) -> Operation:
    """A restore whose Job puts the world into its place on a node that does not answer: it waits for that."""
    cluster.create()
    cluster.storage.lost = "place"
    cluster.run(operation := cluster.restore(), phase="place")
    with pytest.raises(AssertionError, match="place"):
        cluster.run(operation, turns=30)
    return operation


def test_a_delete_waits_while_a_world_is_placed(cluster: Cluster) -> None:
    cluster.create()
    cluster.run(operation := cluster.restore(), phase="place")
    with pytest.raises(OperationInProgress, match=operation.id) as raised:
        delete(cluster.api, SHOP, ID, erase=False)
    assert raised.value.headers["Retry-After"] == "3"
    cluster.run(operation)
    delete(cluster.api, SHOP, ID, erase=False)


def test_an_erase_waits_for_no_world(cluster: Cluster) -> None:
    """The disk's node may be lost, and the Job that places the world with it."""
    operation = placed_on_a_lost_node(cluster)
    delete(cluster.api, SHOP, ID, erase=True)
    assert ID not in cluster.world.revisions
    cluster.run(operation)
    assert (cluster.get(operation).state, cluster.get(operation).reason) == ("failed", "The server was deleted.")
    assert cluster.storage.jobs == {}


def test_an_erase_leaves_no_snapshot_of_a_clone(cluster: Cluster) -> None:
    cluster.create()
    cluster.storage.cuts = True
    cluster.run(operation := cloned(cluster, server=1), phase="start")
    assert cluster.storage.snapshots
    delete(cluster.api, SHOP, 2, erase=True)
    cluster.run(operation)
    assert (cluster.get(operation).state, cluster.storage.snapshots) == ("failed", {})


def test_a_server_that_has_the_id_since_keeps_its_world(cluster: Cluster) -> None:
    """The release is deleted by hand, and another customer creates a server with the same id."""
    cluster.create()
    cluster.run(operation := cluster.restore(), phase="lay-out")
    cluster.api.releases.uninstall(ID)
    values: Values = {"game": "minecraft", "replicas": 1, "server": {"customer": "other", "uid": "uid-2"}}
    cluster.api.releases.install(ID, values)
    cluster.storage.disks["server-1"]["world"] = "another customer's"
    before = list(cluster.world.history)
    cluster.run(operation)
    assert cluster.get(operation).reason == "The server was deleted."
    assert cluster.world.history == before
    assert cluster.storage.disks["server-1"]["world"] == "another customer's"


def test_all_operations_are_read_once_for_a_restore(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """There may be thousands."""
    cluster.create()
    reads: list[OperationStore] = []
    read = OperationStore.all

    def counted(store: OperationStore) -> list[Operation]:
        reads.append(store)
        return read(store)

    monkeypatch.setattr(OperationStore, "all", counted)
    first = cluster.restore()
    assert len(reads) == 1
    cluster.run(first)
    reads.clear()
    cluster.undo()
    assert len(reads) == 1


def test_two_at_once_are_refused(cluster: Cluster) -> None:
    cluster.create()
    first = cluster.restore()
    with pytest.raises(OperationInProgress, match=first.id):
        cluster.restore()
    with pytest.raises(OperationInProgress, match=first.id):
        cluster.undo()
    cluster.run(first)
    cluster.run(cluster.restore())


def test_only_a_done_backup_of_this_server_is_restored(cluster: Cluster) -> None:
    cluster.create()
    with pytest.raises(BackupNotFound):
        cluster.restore(backup="b-" + "1" * 20)
    cluster.api.backups.change(UID, lambda kept: _with(kept, "b-" + "0" * 20, state="deleting"))
    with pytest.raises(BackupNotUsable):
        cluster.restore()
    with pytest.raises(NothingToUndo):
        cluster.undo()


@pytest.mark.parametrize("letter", ["x", "ä", '"'])
def test_paths_that_no_record_has_room_for_are_refused(cluster: Cluster, letter: str) -> None:
    """They stand in the operation twice, and in the server's record until the restore cannot be undone any more."""
    cluster.create()
    width = len(json.dumps(letter, ensure_ascii=False).encode()) - 2
    longest = [f"{number:02}/" + letter * (75 // width) for number in range(100)]
    cluster.run(operation := cluster.restore(paths=longest))
    assert cluster.get(operation).state == "done"
    for paths in ([each + "123456" for each in longest], ["x" * 4096] * 2):
        with pytest.raises(InvalidRequest) as raised:
            cluster.restore(paths=paths)
        assert raised.value.errors == {"paths": ["must have at most 8192 bytes together; name folders"]}


def test_a_restore_that_no_record_has_room_for_blocks_nothing(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version without that limit may have accepted it."""
    cluster.create()
    with monkeypatch.context() as patch:
        patch.setattr(restore, "check_paths", lambda paths: None)
        operation = cluster.restore(paths=[f"{number:02}/{'x' * 350}" for number in range(100)])
    cluster.run(operation)
    assert (cluster.get(operation).state, cluster.get(operation).reason) == ("failed", NO_ROOM)
    cluster.check("new")
    cluster.run(again := cluster.restore())
    assert cluster.get(again).state == "done"


def test_a_node_that_is_lost_gives_the_restore_up(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether its game has stopped is not known."""
    cluster.create()
    cluster.run(operation := cluster.restore(), phase="gone")
    monkeypatch.setattr(controller_restore, "GONE_SECONDS", -1000.0)
    cluster.world.run(ID)
    cluster.run(operation)
    ended = cluster.get(operation)
    assert (ended.state, "does not answer" in (ended.reason or "")) == ("failed", True)
    cluster.check("new")


def test_a_job_that_no_node_runs_gives_the_restore_up(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.create()
    monkeypatch.setattr(placing, "WAITS_SECONDS", -1.0)
    cluster.storage.stuck = True
    cluster.run(operation := cluster.restore())
    assert cluster.get(operation).state == "failed"
    cluster.check("new")


@pytest.mark.parametrize("command", ["inspect", "lay-out"])
def test_a_job_on_a_node_that_does_not_answer_gives_the_restore_up(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """Kubernetes waits for its pod for ever."""
    cluster.create()
    monkeypatch.setattr(placing, "TIDY_SECONDS", -1.0)
    cluster.storage.lost = command
    cluster.run(operation := cluster.restore())
    ended = cluster.get(operation)
    assert (ended.state, ended.reason) == ("failed", "The node of the Job's pod does not answer.")
    cluster.check("new")


def test_a_world_is_never_half_in_its_place_because_its_node_does_not_answer(cluster: Cluster) -> None:
    """The Job may still be at work, or may come back with the node."""
    operation = placed_on_a_lost_node(cluster)
    assert not cluster.runs()
    cluster.storage.lost = ""
    cluster.run(operation)
    assert cluster.get(operation).state == "done"
    cluster.check("old")


# -- clones -------------------------------------------------------------------------------------------------


def cloned(cluster: Cluster, key: str | None = None, **source: Any) -> Operation:
    request = {**GAME, "disk": None, "start": True, "from": source}
    return clone(cluster.api, ACME, 2, request, key)


@pytest.mark.parametrize("cuts", [True, False])
@pytest.mark.parametrize("deadly", [False, True])
def test_a_clone_of_a_server(cluster: Cluster, cuts: bool, deadly: bool) -> None:
    cluster.create()
    cluster.storage.cuts = cuts
    cluster.storage.kills = 0.2 * deadly
    operation = cloned(cluster, server=1)
    assert not cluster.runs(2)
    assert cloned(cluster, server=1).id == operation.id
    cluster.run(operation, deadly=deadly)
    assert (cluster.get(operation).state, cluster.get(operation).reason) == ("done", None)
    cluster.check("new", id=2)
    cluster.check("new", id=1)
    assert cluster.world.values[2]["server"]["uid"] != UID
    assert cluster.storage.disks["server-2"] == {"world": "new"}
    assert not cluster.storage.snapshots
    assert cloned(cluster, server=1).id == operation.id


def test_a_clone_of_a_backup(cluster: Cluster) -> None:
    cluster.create()
    cluster.run(operation := cloned(cluster, backup="b-" + "0" * 20))
    assert (cluster.get(operation).state, cluster.get(operation).reason) == ("done", None)
    cluster.check("old", id=2)
    cluster.check("new", id=1)


def test_a_clone_that_fails_leaves_no_server_without_its_world(cluster: Cluster) -> None:
    """The same create again must not find one, and take it for done."""
    cluster.create()
    cluster.storage.answers["lay-out"] = ["repository-damaged"]
    cluster.run(operation := cloned(cluster, backup="b-" + "0" * 20))
    assert cluster.get(operation).state == "failed"
    assert 2 not in cluster.world.revisions
    cluster.run(again := cloned(cluster, backup="b-" + "0" * 20))
    assert again.id != operation.id
    assert cluster.get(again).state == "done"
    cluster.check("old", id=2)


@pytest.mark.parametrize("gone", [True, False])
def test_a_clone_whose_backup_is_deleted_after_the_call_leaves_no_server(cluster: Cluster, gone: bool) -> None:
    cluster.create()
    operation = cloned(cluster, backup="b-" + "0" * 20)
    cluster.api.backups.change(
        UID, lambda kept: kept.without("b-" + "0" * 20) if gone else _with(kept, "b-" + "0" * 20, state="deleting")
    )
    cluster.run(operation)
    ended = cluster.get(operation)
    assert ended.state == "failed"
    assert ended.reason == (BackupNotFound.explanation if gone else "The backup is being deleted.")
    assert 2 not in cluster.world.revisions


def test_a_clone_is_deleted_as_any_server(cluster: Cluster) -> None:
    cluster.create()
    cluster.run(operation := cloned(cluster, backup="b-" + "0" * 20), phase="lay-out")
    delete(cluster.api, SHOP, 2, erase=True)
    cluster.run(operation)
    assert cluster.get(operation).state == "cancelled"
    assert 2 not in cluster.world.revisions


@pytest.mark.parametrize("state", ["running", "done", "failed", "cancelled"])
def test_only_the_disk_of_a_clone_that_has_failed_is_erased_without_asking(cluster: Cluster, state: str) -> None:
    """That of one that is done has a world, even if somebody has left a mark on it."""
    cluster.create()
    cluster.run(operation := cloned(cluster, backup="b-" + "0" * 20))
    delete(cluster.api, SHOP, 2, erase=False)
    annotations = cluster.world.claims[2]["metadata"]["annotations"]
    spec = json.loads(annotations["gameserver/server"])
    annotations["gameserver/server"] = json.dumps({**spec, "restoring": operation.id})
    cluster.api.operations.show(replace(cluster.get(operation), state=state), lambda: None)
    with nullcontext() if state in ("failed", "cancelled") else pytest.raises(DiskKept):
        create(cluster.api, ACME, 2, {**GAME, "disk": None, "start": True})


def test_a_suspended_server_is_not_cloned(cluster: Cluster) -> None:
    cluster.create()
    suspend(cluster.api, cluster.target(), "Overdue.")
    with pytest.raises(Suspended):
        cloned(cluster, server=1)
    with pytest.raises(Suspended):
        cloned(cluster, backup="b-" + "0" * 20)
    assert 2 not in cluster.world.revisions


def test_nobody_else_makes_the_disk_of_a_clone(cluster: Cluster) -> None:
    """It may have to be made on the node that has the snapshot."""
    cluster.create()
    cluster.run(cloned(cluster, server=1), phase="claim")
    with pytest.raises(DiskNotReady):
        change(cluster.api, ACME, cluster.target(2), {"password": True})
    assert ("make disk", 2) not in cluster.world.history


def test_the_same_create_does_not_start_a_clone_without_its_world(cluster: Cluster) -> None:
    cluster.create()
    operation = cloned(cluster, server=1)
    with pytest.raises(OperationInProgress, match=operation.id):
        create(cluster.api, ACME, 2, {**GAME, "disk": None, "start": True})
    with pytest.raises(OperationInProgress, match=operation.id):
        cloned(cluster, backup="b-" + "0" * 20)
