"""The part that carries out operations on worlds, with a machine of the test's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from service.assembly import build_context
from service.controller import worlds
from service.controller.leader import Term
from service.controller.needed import needed_backup
from service.controller.worlds import Next, Run, Worlds, done, failed
from service.errors import OperationFailed, OperationInProgress, RefusedByCluster
from service.games import catalogue
from service.operations.context import Context
from service.operations.operation import Operation, Server, new_operation
from service.records.store import LARGEST, RecordStore
from service.settings import Settings
from service.tokens import Token
from tests.support import tokens
from tests.support.fakes import FakeCluster, FakeReleases, World
from tests.support.memory_kube import LabelledKube

SERVER = Server(1, "uid-1", "c1")
MAKER = Token("shop", "", frozenset({"admin"}))


class Inline(Executor):
    """Calls at once."""

    def submit(self, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        call(*args, **kwargs)
        return Future()


class Counting:
    """Goes through phases and remembers in which work it was called."""

    action = "backup"

    def __init__(self, *phases: str) -> None:
        self.phases = phases
        self.seen: list[dict[str, Any]] = []
        self.problem: Exception | None = None
        self.abandoned = ""

    def advance(self, run: Run) -> Next:
        if self.problem is not None:
            raise self.problem
        self.seen.append(dict(run.work))
        at = len(self.seen)
        if at > len(self.phases):
            return done()
        return Next({"phase": self.phases[at - 1], "count": at}, f"step {at}")

    def abandon(self, run: Run, reason: str) -> Next:
        self.abandoned = reason
        return failed(reason)


class Forever:
    """The Lease of a pod that stays the active one."""

    def remaining(self) -> float:
        return 10.0


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    monkeypatch.setattr(catalogue, "load", lambda *folders, chart: {})
    settings = replace(Settings(), tokens_file=tokens.write(tmp_path / "tokens.json", tokens.entry("shop")))
    world, records = World(), partial(RecordStore, LabelledKube(), "gameservers")
    return build_context(settings, FakeCluster(world), FakeReleases(world), records=records)


def accepted(context: Context, server: Server = SERVER) -> Operation:
    operation = new_operation(MAKER, None, "backup", "now", {"backup": "b-1"}, {}, [server])
    return context.operations.create(operation, [server])


def turns(part: Worlds, number: int) -> None:
    part.start()
    assert part._watch.wait(5)
    for _ in range(number):
        part.turn(Term(Forever(), "controller"), Inline())  # type: ignore[arg-type]


def test_each_phase_is_recorded_before_it_begins(context: Context) -> None:
    operation, machine = accepted(context), Counting("holding", "reading")
    part = Worlds(context, [machine])
    turns(part, 1)
    current = context.operations.get(operation.id)
    assert current is not None
    assert current.work == {"phase": "holding", "count": 1}
    assert current.step == "step 1"
    turns(part, 2)
    assert machine.seen == [{}, {"phase": "holding", "count": 1}, {"phase": "reading", "count": 2}]
    current = context.operations.get(operation.id)
    assert current is not None
    assert (current.state, current.step, current.progress.done) == ("done", None, 1)


def test_the_next_controller_goes_on_at_the_recorded_phase(context: Context) -> None:
    operation = accepted(context)
    turns(Worlds(context, [Counting("holding", "reading")]), 2)
    machine = Counting()
    turns(Worlds(context, [machine]), 1)
    assert machine.seen == [{"phase": "reading", "count": 2}]
    current = context.operations.get(operation.id)
    assert current is not None
    assert current.state == "done"


def test_what_fails_for_long_is_given_up(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    operation, machine = accepted(context), Counting()
    machine.problem = OperationInProgress("Somebody works on it.")
    part = Worlds(context, [machine])
    turns(part, 1)
    assert not machine.abandoned
    monkeypatch.setattr(worlds, "PATIENCE_SECONDS", 0.0)
    part._runs[operation.id].due = 0
    turns(part, 1)
    current = context.operations.get(operation.id)
    assert current is not None
    assert (current.state, current.reason) == ("failed", "Somebody works on it.")


def test_a_server_that_cannot_show_its_operation_has_it_all_the_same(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kubernetes refuses the annotation, because there is no room left or a policy forbids it."""

    def refuse(*args: Any) -> None:
        raise OperationFailed

    monkeypatch.setattr(context.cluster, "annotate", refuse)
    operation = accepted(context)
    turns(Worlds(context, [Counting()]), 1)
    current = context.operations.get(operation.id)
    assert current is not None
    assert current.state == "done"


@pytest.mark.parametrize("error", [RefusedByCluster, RecursionError])
def test_what_goes_wrong_with_one_server_delays_no_other(
    context: Context, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    """Whatever it is: the operation waits, and goes on when it can."""
    wrong = True

    def annotate(id: int, *args: Any) -> None:
        if wrong and id == 1:
            raise error

    monkeypatch.setattr(context.cluster, "annotate", annotate)
    first, second = accepted(context), accepted(context, Server(2, "uid-2", "c1"))
    part = Worlds(context, [Counting()])
    turns(part, 1)
    states = [current.state for each in (first, second) if (current := context.operations.get(each.id))]
    assert states == ["pending", "done"]
    wrong = False
    part.turn(Term(Forever(), "controller"), Inline())  # type: ignore[arg-type]
    current = context.operations.get(first.id)
    assert current is not None
    assert current.state == "done"


class Large(Counting):
    """Has more to record than a record has room for; `returns` says whether the way back has too."""

    def __init__(self, returns: bool) -> None:
        super().__init__()
        self.returns = returns

    def advance(self, run: Run) -> Next:
        return Next({"paths": "x" * LARGEST})

    def abandon(self, run: Run, reason: str) -> Next:
        return self.advance(run) if self.returns else super().abandon(run, reason)


@pytest.mark.parametrize("returns", [False, True])
def test_what_no_record_has_room_for_is_given_up_at_once(context: Context, returns: bool) -> None:
    """It would be tried again for ever otherwise, and block its server."""
    operation, machine = accepted(context), Large(returns)
    turns(Worlds(context, [machine]), 1)
    current = context.operations.get(operation.id)
    assert current is not None
    assert (current.state, current.reason, current.work) == ("failed", worlds.NO_ROOM, {})
    assert machine.abandoned == ("" if returns else worlds.NO_ROOM)


def test_only_so_many_backups_at_once(context: Context) -> None:
    object.__setattr__(context.settings, "backups_at_once", 2)
    for _ in range(3):
        accepted(context)
    machine = Counting("a", "b", "c")
    part = Worlds(context, [machine])
    turns(part, 1)
    assert len(machine.seen) == 2


class Lasting:
    """Remembers the operations that it was called for, which never end, and whose work it records."""

    def __init__(self, action: str, work: Mapping[str, Any] | None = None) -> None:
        self.action, self.work = action, work
        self.seen: set[str] = set()

    def advance(self, run: Run) -> Next:
        self.seen.add(run.operation.id)
        return Next(self.work)

    def abandon(self, run: Run, reason: str) -> Next:
        raise AssertionError(reason)


def restores(context: Context, number: int) -> list[Operation]:
    """Accepted restores of as many servers, from the oldest to the newest."""
    found = []
    for id in range(100, 100 + number):
        server = Server(id, f"uid-{id}", "c1")
        asked = new_operation(MAKER, None, "restore", "now", {"backup": "b-2"}, {}, [server])
        asked = replace(asked, created=f"2026-11-28T09:00:{id - 100:02}Z")
        found.append(context.operations.create(asked, [server]))
    return found


@pytest.mark.parametrize("trigger", ["before-restore", "clone"])
def test_what_a_restore_needs_does_not_wait_behind_the_nightly_backups(context: Context, trigger: str) -> None:
    """Its game is stopped already."""
    object.__setattr__(context.settings, "backups_at_once", 2)
    nightly = {accepted(context, Server(id, f"uid-{id}", "c1")).id for id in range(10, 20)}
    restore = new_operation(MAKER, None, "restore", "now", {"backup": "b-2"}, {}, [SERVER])
    needed_backup(context, restore, SERVER, trigger)
    machine = Lasting("backup")
    turns(Worlds(context, [machine]), 3)
    assert len(machine.seen & nightly) == 2
    assert len(machine.seen) == 3


def test_only_so_many_restores_at_once(context: Context) -> None:
    """The others wait while their games run. What another controller has begun goes on, and a cancelled one goes."""
    object.__setattr__(context.settings, "backups_at_once", 1)
    asked = restores(context, 8)
    for each in asked[5:]:
        context.operations.show(replace(each, state="running", work={"phase": "stop"}), lambda: None)
    context.operations.cancel(asked[4])
    ids = [each.id for each in asked]
    machine = Lasting("restore")
    turns(Worlds(context, [machine]), 3)
    assert machine.seen == {ids[0], *ids[4:]}


def test_restores_take_no_place_of_a_backup(context: Context) -> None:
    object.__setattr__(context.settings, "backups_at_once", 1)
    restores(context, 5)
    backup, restore = Lasting("backup"), Lasting("restore")
    accepted(context)
    turns(Worlds(context, [backup, restore]), 3)
    assert (len(backup.seen), len(restore.seen)) == (1, 4)


def test_a_pod_that_was_frozen_writes_over_nobody(context: Context) -> None:
    """Another one has become the active pod meanwhile, and has recorded how far the operation is."""
    operation, other = accepted(context), {"phase": "reading"}

    class Frozen(Counting):
        def advance(self, run: Run) -> Next:
            current = context.operations.get(operation.id)
            assert current is not None
            context.operations.show(replace(current, work=other), lambda: None)
            lease.over = True
            return super().advance(run)

    class Ending(Forever):
        over = False

        def remaining(self) -> float:
            return 0.0 if self.over else 10.0

    lease, part = Ending(), Worlds(context, [Frozen("holding")])
    part.start()
    assert part._watch.wait(5)
    part.turn(Term(lease, "controller"), Inline())  # type: ignore[arg-type]
    current = context.operations.get(operation.id)
    assert current is not None
    assert current.work == other
