"""Operations on many servers, by controllers that die, over fakes."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from service.assembly import build_context
from service.controller import bulk as controller_bulk
from service.controller.bulk import Bulk
from service.controller.leader import Term
from service.errors import OperationFailed, OperationInProgress, Problem, RefusedByCluster, TooManyOperations
from service.games import catalogue
from service.kube.types import Object
from service.operations import bulk
from service.operations.context import Context
from service.operations.operation import Operation
from service.records.store import RecordStore
from service.servers.names import OPERATION
from service.servers.objects import Objects
from service.servers.spec import server_uid
from service.servers.values import Values
from service.settings import Settings
from service.tokens import BUNDLES, Token
from tests.support import tokens
from tests.support.fakes import FakeCluster, FakeReleases, World
from tests.support.memory_kube import LabelledKube
from tests.support.waiting import until

SHOP = Token("shop", "", frozenset(BUNDLES))
ACME = replace(SHOP, name="acme", customer="acme")
VALUES: Values = {"game": "minecraft", "ramGb": 1, "diskGb": 1, "replicas": 1}


class Killed(BaseException):
    """The process is dead: nothing that it still does has an effect."""


class Life:
    """The life of a controller's process. It ends before or after its `writes`-th write, for all its threads."""

    def __init__(self, writes: int | None = None) -> None:
        self._writes = writes
        self._lock = threading.Lock()
        self.over = False

    def remaining(self) -> float:
        """As a Lease."""
        return 0.0 if self.over else 10.0

    def write(self, work: Callable[[], Any]) -> Any:
        """Do a write of this process."""
        with self._lock:
            if self.over:
                raise Killed
            if self._writes is not None:
                self._writes -= 1
                self.over = self._writes <= 0
            last = self.over
        if last and random.random() < 0.5:
            raise Killed
        result = work()
        if last:
            raise Killed
        return result


class Waits(threading.Event):
    """An event that remembers for how long it was waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout)
        return super().wait(timeout)


class MortalKube(LabelledKube):
    """The Kubernetes of a process, which shares the objects of `shared`."""

    def __init__(self, shared: LabelledKube, life: Life) -> None:
        super().__init__()
        self._shared, self._life = shared, life
        for name in ("get", "get_all", "listed", "all", "watch"):
            setattr(self, name, getattr(shared, name))

    def create(self, path: str, body: Object) -> Object:
        return self._life.write(lambda: self._shared.create(path, body))  # type: ignore[no-any-return]

    def merge(self, path: str, body: Object) -> Object | None:
        return self._life.write(lambda: self._shared.merge(path, body))  # type: ignore[no-any-return]

    def delete(self, path: str, *, uid: str = "", version: str = "") -> None:
        self._life.write(lambda: self._shared.delete(path, uid=uid, version=version))


class MortalReleases(FakeReleases):
    """The releases of a process, which shares the servers' Leases with `first`, those of another one."""

    def __init__(self, world: World, life: Life, first: MortalReleases | None = None) -> None:
        super().__init__(world)
        self._life = life
        if first is not None:
            self._locks, self._guard = first._locks, first._guard

    def _upgrade(self, kind: str, id: int, values: Values) -> None:
        self._life.write(partial(super()._upgrade, kind, id, values))


class Cluster:
    """A cluster in memory, with an API and controllers."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.world = World()
        self.kube = LabelledKube()
        self.players: dict[int, int] = {}
        self.releases = MortalReleases(self.world, Life())
        self.api = self.context(Life())
        self.lives: list[Life] = []

    def context(self, life: Life) -> Context:
        records = partial(RecordStore, MortalKube(self.kube, life), "gameservers")
        return build_context(
            self.settings, FakeCluster(self.world), MortalReleases(self.world, life, self.releases), records=records
        )

    def create(self, *ids: int, customer: str = "acme", running: bool = True) -> None:
        for id in ids:
            server = {"customer": customer, "uid": f"uid-{id}-{time.monotonic_ns()}"}
            self.api.releases.install(id, {**VALUES, "replicas": int(running), "server": server})
        self.world.history.clear()

    def controller(self, writes: int | None = None, wake: Waits | None = None) -> Life:
        """Start a controller, which dies after so many writes."""
        life = Life(writes)
        part = Bulk(self.context(life), self.idle)
        part._wake = wake or part._wake
        part.start()
        part.lead(Term(life, f"controller-{len(self.lives)}"))  # type: ignore[arg-type]
        self.lives.append(life)
        return life

    def idle(self, objects: Objects) -> bool:
        return self.players.get(objects.id) == 0

    def accept(self, action: str, caller: Token = SHOP, key: str | None = None, **more: Any) -> Operation:
        request = {"ids": None, "customer": None, "all": None, "when": "now", "reason": None, "action": action, **more}
        return bulk.accept(self.api, caller, request, key)

    def get(self, operation: Operation) -> Operation:
        current = self.api.operations.get(operation.id)
        assert current is not None
        return current

    def ended(self, operation: Operation, seconds: float = 20) -> Operation:
        until(lambda: self.get(operation).ended, seconds, lambda: f"{self.get(operation)} {self.outcomes(operation)}")
        return self.get(operation)

    def outcomes(self, operation: Operation) -> Mapping[int, str]:
        return {server.id: server.outcome for server in bulk.servers_of(self.api, operation)}

    def annotation(self, id: int) -> str | None:
        text: str | None = self.world.statefulsets[id]["metadata"]["annotations"].get(OPERATION)
        return text


@pytest.fixture
def cluster(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A cluster in which 100 steps may begin in a second."""
    monkeypatch.setattr(threading, "excepthook", lambda args: None)
    monkeypatch.setattr(controller_bulk, "TURN_SECONDS", 0.05)
    monkeypatch.setattr(controller_bulk, "SHOW_SECONDS", 0.05)
    monkeypatch.setattr(controller_bulk, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(catalogue, "load", lambda *folders, chart: {})
    file = tokens.write(tmp_path / "tokens.json", tokens.entry("shop"))
    cluster = Cluster(replace(Settings(), tokens_file=file, bulk_per_minute=6000))
    yield cluster
    for life in cluster.lives:
        life.over = True


def test_each_server_is_restarted_once_whenever_the_controller_dies(cluster: Cluster) -> None:
    """300 servers, and a controller that is killed before or after one of its next writes, again and again."""
    ids = range(1, 301)
    cluster.create(*ids)
    operation = cluster.accept("restart", all=True)
    deaths = 0
    while not cluster.get(operation).ended:
        life = cluster.controller(random.randint(1, 120))
        until(lambda life=life: life.over or cluster.get(operation).ended, 30)  # type: ignore[misc]
        deaths += life.over
    print(f"{deaths} controllers died")
    assert deaths > 5
    assert Counter(cluster.world.history) == {("change", id): 1 for id in ids}
    assert Counter(cluster.outcomes(operation).values()) == {"done": 300}
    ended = cluster.get(operation)
    assert (ended.state, ended.reason, vars(ended.progress)) == (
        "done", None, {"total": 300, "done": 300, "failed": 0, "waiting": 0}
    )  # fmt: skip


def test_the_operators_rate_is_kept(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more steps begin in a minute than the operator allows, and no more run at once."""
    cluster.settings = replace(cluster.settings, bulk_per_minute=1200, bulk_at_once=3)
    cluster.create(*range(1, 21))
    begun: list[float] = []
    running: list[int] = []
    change = FakeReleases.change

    def slow(self: FakeReleases, id: int, new: Callable[[Values], Values], **more: bool) -> bool:
        begun.append(time.monotonic())
        running.append(id)
        most.append(len(running))
        time.sleep(0.3)
        running.remove(id)
        return change(self, id, new, **more)

    most: list[int] = []
    monkeypatch.setattr(FakeReleases, "change", slow)
    cluster.controller()
    cluster.ended(cluster.accept("stop", all=True))
    begun.sort()
    assert all(begun[number + 10] - begun[number] > 0.45 for number in range(10))
    assert max(most) == 3


def test_what_fails_is_said(cluster: Cluster) -> None:
    """The operation has failed if one of its servers has; the others are done, or needed nothing."""
    cluster.create(1, 2)
    cluster.create(3, running=False)
    operation = cluster.accept("stop", ids=[2, 1, 3])
    cluster.world.failure = RefusedByCluster("The quota is used up.")
    cluster.controller()
    ended = cluster.ended(operation)
    assert (ended.state, ended.reason) == ("failed", "1 of 3 servers failed.")
    outcomes = {server.id: (server.outcome, server.reason) for server in bulk.servers_of(cluster.api, operation)}
    assert sorted(outcomes.values()) == [("done", None), ("failed", "The quota is used up."), ("unchanged", None)]
    assert outcomes[3] == ("unchanged", None)


def test_an_id_that_was_used_again_is_gone(cluster: Cluster) -> None:
    """So is a deleted server. Whoever has the id now is left alone."""
    cluster.create(1, 2, 3)
    operation = cluster.accept("stop", all=True)
    cluster.api.releases.uninstall(1)
    cluster.api.releases.uninstall(2)
    cluster.create(2)
    cluster.controller()
    assert cluster.ended(operation).state == "done"
    assert cluster.outcomes(operation) == {1: "gone", 2: "gone", 3: "done"}
    assert cluster.world.values[2]["replicas"] == 1


def test_a_busy_server_is_tried_again(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until others have been working on it for too long; then it has failed."""
    monkeypatch.setattr(controller_bulk, "LONGEST_PAUSE", 0.1)
    cluster.create(1, 2)
    operation = cluster.accept("restart", ids=[1])
    busy, tries, change = threading.Event(), list[int](), FakeReleases.change
    busy.set()

    def change_unless_busy(self: FakeReleases, id: int, new: Callable[[Values], Values], **more: bool) -> bool:
        tries.append(id)
        if busy.is_set():
            raise OperationInProgress
        return change(self, id, new, **more)

    monkeypatch.setattr(FakeReleases, "change", change_unless_busy)
    cluster.controller()
    until(lambda: len(tries) > 1 and cluster.outcomes(operation) == {1: "pending"})
    busy.clear()
    cluster.ended(operation)
    assert cluster.outcomes(operation) == {1: "done"}
    assert cluster.world.history == [("change", 1)]
    busy.set()
    monkeypatch.setattr(controller_bulk, "PATIENCE", timedelta(seconds=0.5))
    failed = cluster.accept("restart", ids=[2])
    assert cluster.ended(failed).state == "failed"


def test_what_fails_unexpectedly_is_tried_again(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it has failed for too long, so that the operation ends."""
    monkeypatch.setattr(controller_bulk, "LONGEST_PAUSE", 0.1)
    cluster.create(1, 2)
    tries, change = iter(range(3)), FakeReleases.change

    def change_later(self: FakeReleases, id: int, new: Callable[[Values], Values], **more: bool) -> bool:
        if id == 2 or next(tries, None) is not None:
            raise RecursionError
        return change(self, id, new, **more)

    monkeypatch.setattr(FakeReleases, "change", change_later)
    cluster.controller()
    assert cluster.ended(cluster.accept("restart", ids=[1])).state == "done"
    monkeypatch.setattr(controller_bulk, "PATIENCE", timedelta(seconds=0.5))
    operation = cluster.accept("restart", ids=[2])
    assert cluster.ended(operation).state == "failed"
    (server,) = bulk.servers_of(cluster.api, operation)
    assert server.reason == "An unexpected error: RecursionError."


def test_a_step_can_be_tried_again_for_ever(cluster: Cluster) -> None:
    """Kubernetes may be away for days."""
    cluster.create(1)
    run = controller_bulk._Run(cluster.api.operations, cluster.accept("stop", ids=[1]), lambda: None)
    for _ in range(2000):
        run.retry(1)
    assert run._not_before[1] - time.monotonic() <= controller_bulk.LONGEST_PAUSE


def test_a_step_that_ends_while_the_next_is_chosen_is_not_begun_again(cluster: Cluster) -> None:
    """What was known of its server before is no longer so."""
    cluster.create(1, 2)
    run = controller_bulk._Run(cluster.api.operations, cluster.accept("stop", ids=[1, 2]), lambda: None)
    run.busy.add(1)
    resting = run.resting()
    run.note([replace(server, outcome="done") for server in run.servers() if server.id == 1])
    run.busy.discard(1)
    assert [server.id for server in resting] == [2]
    assert [(server.id, server.outcome) for server in run.resting()] == [(1, "done"), (2, "pending")]


def test_an_outage_of_kubernetes_is_waited_for(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing fails because of it."""
    monkeypatch.setattr(controller_bulk, "LONGEST_PAUSE", 0.1)
    cluster.create(*range(1, 11))
    operation = cluster.accept("restart", all=True)
    cluster.controller()
    until(lambda: Counter(cluster.outcomes(operation).values())["done"] > 2)
    cluster.world.away = True
    time.sleep(0.5)
    cluster.world.away = False
    assert cluster.ended(operation).state == "done"
    assert Counter(cluster.world.history) == {("change", id): 1 for id in range(1, 11)}


def test_a_cancelled_operation_begins_no_further_step(cluster: Cluster) -> None:
    """What was done stays, and servers that wait lose their annotation."""
    cluster.settings = replace(cluster.settings, bulk_per_minute=300)
    cluster.create(*range(1, 31))
    cluster.players = {1: 3, 2: 0}
    waiting = cluster.accept("stop", ids=[1], when="idle")
    operation = cluster.accept("restart", ids=list(range(2, 31)))
    cluster.controller()
    until(lambda: cluster.annotation(1) is not None and ("change", 4) in cluster.world.history)
    for each in (waiting, operation):
        assert bulk.cancel(cluster.api, SHOP, each.id).cancelling
    assert cluster.ended(waiting).state == "cancelled"
    assert cluster.ended(operation).state == "cancelled"
    assert cluster.annotation(1) is None
    outcomes = Counter(cluster.outcomes(operation).values())
    assert set(outcomes) == {"done", "cancelled"}
    assert outcomes["done"] == len(cluster.world.history) < 29
    assert bulk.cancel(cluster.api, SHOP, operation.id) == cluster.get(operation)


@pytest.mark.parametrize("when", ["now", "next-stop"])
@pytest.mark.parametrize("problem", [OperationInProgress, TooManyOperations])
def test_a_busy_server_is_left_alone_once_the_operation_is_cancelled(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, problem: type[Problem], when: str
) -> None:
    """A try that could do nothing was no step."""
    monkeypatch.setattr(controller_bulk, "LONGEST_PAUSE", 0.1)
    cluster.create(1, running=when == "now")
    cluster.world.charts[1] = "older"
    tries: list[int] = []

    def busy(self: FakeReleases, id: int, *arguments: Any) -> bool:
        tries.append(id)
        raise problem

    with monkeypatch.context() as others:
        others.setattr(FakeReleases, "upgrade", busy)
        operation = cluster.accept("upgrade", ids=[1], when=when)
        cluster.controller()
        until(lambda: len(tries) > 1)
        bulk.cancel(cluster.api, SHOP, operation.id)
        assert cluster.ended(operation).state == "cancelled"
    assert (cluster.outcomes(operation), cluster.annotation(1)) == ({1: "cancelled"}, None)
    assert cluster.world.history == []


def test_a_server_waits_until_nobody_plays_on_it(cluster: Cluster) -> None:
    """Unknown is not empty; a stopped server needs no wait. Meanwhile the server says what waits with it."""
    cluster.create(1, 2, 3)
    cluster.create(4, running=False)
    cluster.players = {1: 0, 2: 1}
    operation = cluster.accept("restart", all=True, when="idle")
    cluster.controller()
    until(lambda: cluster.outcomes(operation) == {1: "done", 2: "waiting", 3: "waiting", 4: "done"})
    until(lambda: cluster.annotation(2) is not None)
    waits = json.loads(cluster.annotation(2) or "")
    assert waits == {"id": operation.id, "action": "restart", "step": "waits until nobody plays on it"}
    until(lambda: vars(cluster.get(operation).progress) == {"total": 4, "done": 2, "failed": 0, "waiting": 2})
    assert cluster.annotation(1) is None
    # Another controller goes on.
    cluster.lives[0].over = True
    cluster.players |= {2: 0, 3: 0}
    cluster.controller()
    assert cluster.ended(operation).state == "done"
    assert (cluster.annotation(2), cluster.annotation(3)) == (None, None)
    assert Counter(cluster.world.history) == {("change", id): 1 for id in (1, 2, 3, 4)}


def test_a_game_that_cannot_be_asked_delays_no_other(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever asking it raises: its own server waits, and the log says so; the servers behind it get their turn."""
    cluster.create(*range(1, 21))

    def idle(objects: Objects) -> bool:
        if objects.id % 2:
            raise RecursionError
        return True

    monkeypatch.setattr(cluster, "idle", idle)
    operation = cluster.accept("stop", all=True, when="idle")
    cluster.controller()
    until(lambda: cluster.outcomes(operation) == {id: "waiting" if id % 2 else "done" for id in range(1, 21)})


def test_a_player_who_comes_back_in_time_keeps_the_server(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The game is asked once more right before the step."""
    cluster.create(1)
    answers = iter([True, False, False, True, True])
    monkeypatch.setattr(cluster, "idle", lambda objects: next(answers))
    operation = cluster.accept("stop", ids=[1], when="idle")
    cluster.controller()
    cluster.ended(operation)
    assert next(answers, None) is None


@pytest.mark.parametrize("problem", [OperationInProgress, TooManyOperations])
def test_a_player_who_comes_while_others_work_on_the_server_keeps_it(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, problem: type[Problem]
) -> None:
    """A try that could do nothing does not count as the begin of the step: the game is asked again."""
    monkeypatch.setattr(controller_bulk, "LONGEST_PAUSE", 0.1)
    cluster.create(1)
    cluster.players = {1: 0}
    busy, change = threading.Event(), FakeReleases.change

    def change_unless_busy(self: FakeReleases, id: int, new: Callable[[Values], Values], **more: bool) -> bool:
        if not busy.is_set():
            cluster.players = {1: 1}
            busy.set()
            raise problem
        return change(self, id, new, **more)

    monkeypatch.setattr(FakeReleases, "change", change_unless_busy)
    operation = cluster.accept("stop", ids=[1], when="idle")
    cluster.controller()
    assert busy.wait(5)
    time.sleep(0.5)
    assert (cluster.outcomes(operation), cluster.world.history) == ({1: "waiting"}, [])
    cluster.players = {1: 0}
    cluster.ended(operation)
    assert (cluster.outcomes(operation), cluster.world.history) == ({1: "done"}, [("change", 1)])


def test_a_server_waits_for_its_next_stop(cluster: Cluster) -> None:
    """Then it is suspended, with the reason."""
    cluster.create(1)
    operation = cluster.accept("suspend", ids=[1], when="next-stop", reason="The invoice is overdue.")
    cluster.controller()
    until(lambda: cluster.annotation(1) is not None)
    assert cluster.outcomes(operation) == {1: "waiting"}
    cluster.api.releases.change(1, lambda values: {**values, "replicas": 0})
    cluster.ended(operation)
    assert cluster.world.values[1]["server"]["suspended"]["reason"] == "The invoice is overdue."


def test_servers_that_wait_cost_nothing(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a change, nobody looks at them for a while, and turns come in their time. A stop is seen at once."""
    monkeypatch.setattr(controller_bulk, "LOOK_SECONDS", 600.0)
    looks: list[int] = []
    known = FakeCluster.known

    def counted(self: FakeCluster, id: int) -> Any:
        looks.append(id)
        return known(self, id)

    monkeypatch.setattr(FakeCluster, "known", counted)
    ids = range(1, 51)
    cluster.create(*ids)
    operation = cluster.accept("upgrade", all=True, when="next-stop")
    wake = Waits()
    cluster.controller(wake=wake)
    until(lambda: all(cluster.annotation(id) for id in ids))

    def nobody_looks() -> bool:
        seen, turns = len(looks), len(wake.waits)
        until(lambda: len(wake.waits) > turns + 3)
        return len(looks) == seen

    until(nobody_looks)
    assert set(wake.waits[-3:]) == {controller_bulk.TURN_SECONDS}
    cluster.api.releases.change(7, lambda values: {**values, "replicas": 0})
    until(lambda: cluster.outcomes(operation)[7] == "unchanged")


@pytest.mark.parametrize("error", [OperationFailed, RefusedByCluster, RecursionError])
def test_a_server_that_cannot_be_annotated_delays_no_other(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    """Whatever writing to it raises. If Kubernetes refuses it, the operation needs no annotation."""
    annotate = FakeCluster.annotate

    def annotate_others(self: FakeCluster, id: int, *args: Any) -> str | None:
        if id == 1:
            raise error
        return annotate(self, id, *args)

    monkeypatch.setattr(FakeCluster, "annotate", annotate_others)
    cluster.create(1, 2, 3)
    cluster.players = {1: 1, 2: 1}
    waiting = cluster.accept("stop", ids=[1, 2], when="idle")
    cancelled = cluster.accept("suspend", ids=[1, 2], when="next-stop", reason="The invoice is overdue.")
    cluster.controller()
    until(lambda: cluster.outcomes(cancelled) == {1: "waiting", 2: "waiting"})
    bulk.cancel(cluster.api, SHOP, cancelled.id)
    assert cluster.ended(cluster.accept("stop", ids=[3])).state == "done"
    if error is OperationFailed:
        assert cluster.ended(cancelled).state == "cancelled"
        cluster.players = {1: 0, 2: 0}
        assert cluster.ended(waiting).state == "done"


def test_a_suspended_server_stays_stopped_for_its_customer(cluster: Cluster) -> None:
    """His operation fails with the reason; the shop's works, and so does the end of the suspension."""
    cluster.create(1, running=False)
    cluster.controller()
    cluster.ended(cluster.accept("suspend", ids=[1], reason="The invoice is overdue."))
    customer = replace(ACME, scopes=frozenset({"read", "operate"}))
    failed = cluster.accept("start", customer, ids=[1])
    assert cluster.ended(failed).state == "failed"
    (server,) = bulk.servers_of(cluster.api, failed)
    assert "overdue" in (server.reason or "")
    assert cluster.ended(cluster.accept("unsuspend", all=True)).state == "done"
    assert cluster.ended(cluster.accept("start", customer, ids=[1])).state == "done"
    assert cluster.world.values[1]["replicas"] == 1


def test_servers_are_brought_to_the_chart_of_the_api(cluster: Cluster) -> None:
    """Those that have it are left alone."""
    cluster.create(1, 2)
    cluster.world.charts[1] = "older"
    cluster.controller()
    operation = cluster.accept("upgrade", all=True)
    cluster.ended(operation)
    assert cluster.outcomes(operation) == {1: "done", 2: "unchanged"}
    assert cluster.world.history == [("upgrade", 1)]


@pytest.mark.parametrize("action", ["stop", "restart", "upgrade"])
def test_a_game_whose_disk_ends_with_it_is_not_ended(cluster: Cluster, action: str) -> None:
    """The server fails with the reason, and the others are done."""
    cluster.create(1, 2)
    cluster.world.charts = {1: "older", 2: "older"}
    cluster.world.claims[1]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    cluster.controller()
    operation = cluster.accept(action, all=True)
    cluster.ended(operation)
    assert cluster.outcomes(operation) == {1: "failed", 2: "done"}
    assert "erases the disk" in (bulk.servers_of(cluster.api, operation)[0].reason or "")


def test_what_is_no_longer_needed_is_deleted(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Operations a day after their end, the parts of a broken-off call, and annotations that nobody removes."""
    monkeypatch.setattr(controller_bulk, "CLEAN_SECONDS", 0.1)
    cluster.create(1)
    uid = server_uid(cluster.api.cluster.server(1)) or ""
    cluster.api.cluster.annotate(1, uid, OPERATION, lambda text: '{"id": "op-x", "action": "stop", "step": "waits"}')
    life = cluster.controller()
    operation = cluster.accept("stop", ids=[1])
    cluster.ended(operation)
    until(lambda: cluster.annotation(1) is None)
    parts = cluster.api.records("operation-part")
    parts.create("op-stray-0", {"servers": "[]"})
    time.sleep(0.3)
    assert cluster.api.operations.get(operation.id) is not None
    assert len(parts.all()) == 2
    life.over = True
    monkeypatch.setattr(controller_bulk, "KEPT", timedelta(days=-1))
    monkeypatch.setattr(controller_bulk, "_STRAY", timedelta(days=-1))
    cluster.controller()
    until(lambda: cluster.api.operations.get(operation.id) is None and not parts.all())


def test_operations_take_turns(cluster: Cluster) -> None:
    """A small one does not wait until a large one is done."""
    cluster.settings = replace(cluster.settings, bulk_per_minute=1200)
    cluster.create(*range(1, 62))
    large = cluster.accept("restart", ids=list(range(1, 61)))
    cluster.controller()
    until(lambda: len(cluster.world.history) > 2)
    cluster.ended(cluster.accept("restart", ids=[61]))
    assert not cluster.get(large).ended
