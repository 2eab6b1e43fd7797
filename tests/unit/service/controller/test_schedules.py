"""Runs of schedules, on fakes and with a clock that the tests set."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service import errors
from service.assembly import build_context
from service.backups.records import Backup, ServerBackups
from service.controller.leader import Deposed, Term
from service.controller.schedules import Schedules
from service.events.event import Event
from service.games import catalogue
from service.kube.times import now
from service.operations import backups, power
from service.records.store import RecordStore
from service.schedules import runs, spec
from service.schedules.runs import Run
from service.schedules.spec import Schedule, SetBy, Step
from service.servers.chartvalues import ChartValues
from service.servers.names import SCHEDULE_RUNS
from service.settings import Settings
from service.telemetry import logs
from service.telemetry.metrics import REGISTRY
from service.tokens import Token
from tests.support.backup_world import new_id
from tests.support.fakes import NAMESPACE, FakeCluster, FakeReleases, FakeTokens, World
from tests.support.held_world import console_at
from tests.support.memory_kube import LabelledKube
from tests.support.rcon_game import rcon_game
from tests.support.waiting import until

DUE = datetime(2026, 6, 2, 4, 0, tzinfo=UTC)
NIGHTLY = Schedule(
    cron="0 4 * * *",
    timezone="UTC",
    steps=(Step("restart"),),
    only_when=None,
    enabled=True,
    timeout_s=3600,
    created="2026-06-01T05:00:00.000000Z",
    by=SetBy("shop", datetime(2026, 6, 1, 5, tzinfo=UTC), frozenset({"server:power"})),
)
CONSOLE = replace(NIGHTLY.by, scopes=frozenset({"server:power", "console:write"}))
STEPS = (Step("stop"), Step("wait", 60), Step("start"))
SHOP = Token("shop", "", frozenset({"read", "operate", "admin"}))


class Killed(BaseException):
    """The controller was killed at this point."""


class FakeTerm(Term):
    """A term that a test ends."""

    def __init__(self, holder: str) -> None:
        self.holder = holder
        self.over = False

    @contextmanager
    def step(self) -> Iterator[None]:
        if self.over:
            raise Deposed
        yield


class Tokens(FakeTokens):
    """The operator's tokens are a list."""

    def __init__(self) -> None:
        self.all: list[Token] = [SHOP]
        self.records: dict[str, str] = {}

    def operators(self) -> tuple[Token, ...]:
        return tuple(self.all)


class Setting:
    """A cluster with servers, a clock, and the controllers that run its schedules one after the other."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.world = World()
        self.now = DUE - timedelta(hours=1)
        self.tokens = Tokens()
        self.cluster = FakeCluster(self.world)
        self.releases = FakeReleases(self.world)
        self.players: int | None = None
        self.events: list[Event] = []
        self.terms = 0
        records = partial(RecordStore, LabelledKube(), NAMESPACE)
        self.context = build_context(settings or Settings(), self.cluster, self.releases, None, self.tokens, records)
        self.new_controller()

    def new_controller(self) -> None:
        """Another controller becomes active."""
        self.terms += 1
        self.world.listeners.clear()
        self.term = FakeTerm(f"controller {self.terms}")
        self.part = Schedules(self.context, self.events.append, lambda objects: self.players, lambda: self.now)
        self.part.start()
        self.part.take_over()
        self.part.look_at_all(True)

    def server(self, id: int, uid: str = "u", running: bool = True, **schedules: Schedule) -> None:
        """Create a server with these schedules, or change them."""
        values = {
            "game": "minecraft",
            "server": {"id": str(id), "uid": uid, "customer": "acme"},
            "replicas": int(running),
            "schedules": {name: spec.values_of(schedule) for name, schedule in schedules.items()},
        }
        self.world.values[id] = values
        self.world.revisions[id] = ["deployed"]
        self.world.apply(id, values)

    def set(self, id: int, **schedules: Schedule) -> None:
        """Change the schedules of a server."""
        values = {name: spec.values_of(schedule) for name, schedule in schedules.items()}
        self.releases.change(id, lambda current: {**current, "schedules": values})

    def work(self, until: datetime | None = None) -> None:
        """Do all that is due, and let the clock run second by second up to `until`."""
        while True:
            while self.part.turn(self.term):
                pass
            if until is None or self.now >= until:
                return
            self.now += timedelta(seconds=1)

    def run(self, id: int = 1, name: str = "nightly") -> Run | None:
        return runs.read(self.world.statefulsets[id]["metadata"]["annotations"].get(SCHEDULE_RUNS)).get(name)

    def change_run(self, transition: runs.Transition, id: int = 1, uid: str = "u") -> None:
        """What a call of the API does."""
        self.cluster.annotate(id, uid, SCHEDULE_RUNS, lambda text: runs.changed(text, "nightly", transition))


@pytest.fixture(scope="module", autouse=True)
def _load_games_once() -> Iterator[None]:
    games = catalogue.load(catalogue.BUILT_IN, chart=ChartValues(Settings().chart_path))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogue, "load", lambda *folders, chart: games)
        yield


@pytest.fixture
def setting() -> Setting:
    return Setting()


def outcome(setting: Setting, **more: Any) -> tuple[Any, ...]:
    run = setting.run(**more)
    return (run.outcome, run.step, run.reason) if run else ()


def test_a_run_does_its_steps_in_order(setting: Setting) -> None:
    """At its time, with the waits between them; the record says how it went."""
    setting.server(1, nightly=replace(NIGHTLY, steps=STEPS))
    setting.work(DUE - timedelta(seconds=1))
    assert setting.run() is None
    setting.work(DUE)
    assert setting.world.values[1]["replicas"] == 0
    run = setting.run()
    assert run is not None
    assert (run.started, run.due, run.step, run.action, run.runner) == (DUE, DUE, 2, "wait", "controller 1")
    setting.work(DUE + timedelta(seconds=59))
    assert setting.world.values[1]["replicas"] == 0
    setting.work(DUE + timedelta(seconds=60))
    assert setting.world.values[1]["replicas"] == 1
    assert outcome(setting) == ("succeeded", 3, None)
    assert setting.events == []
    setting.work(DUE + timedelta(hours=1))
    assert [kind for kind, _ in setting.world.history] == ["change", "change"]


def test_a_command_reaches_the_game(setting: Setting) -> None:
    """The step ends when the game has answered; if it cannot be sent, the run fails and says why."""
    commands = replace(NIGHTLY, steps=(Step("command", text="say bye"), Step("stop")), by=CONSOLE)
    setting.server(1, nightly=commands)
    with rcon_game() as game:
        console_at(setting.world, 1, game.port)
        setting.work(DUE)
        assert game.said == ["say bye"]
    assert outcome(setting) == ("succeeded", 2, None)
    assert setting.world.values[1]["replicas"] == 0
    setting.world.pods.pop(1, None)
    setting.now = DUE + timedelta(days=1)
    setting.work()
    assert outcome(setting) == ("failed", 1, errors.ServerNotRunning.explanation)


def test_a_command_waits_while_there_are_too_many(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is sent once, when the game takes it."""
    monkeypatch.setattr(setting.context.turns, "_clock", lambda: setting.now.timestamp())
    commands = tuple(Step("command", text=f"say {number}") for number in range(12))
    setting.server(1, nightly=replace(NIGHTLY, steps=commands, by=CONSOLE))
    with rcon_game() as game:
        console_at(setting.world, 1, game.port)
        setting.work(DUE)
        assert game.said == [f"say {number}" for number in range(10)]
        setting.work(DUE + timedelta(seconds=30))
        assert game.said == [f"say {number}" for number in range(12)]
    assert outcome(setting) == ("succeeded", 12, None)


def test_a_restart_is_the_one_of_the_api(setting: Setting) -> None:
    """Of a stopped server too, by the same verb."""
    setting.server(1, running=False, nightly=NIGHTLY)
    setting.work(DUE)
    assert outcome(setting) == ("succeeded", 1, None)
    assert (setting.world.values[1]["replicas"], setting.world.values[1]["restartedAt"]) == (1, "2026-06-02T04:00:00Z")


def test_it_comes_again_and_again(setting: Setting) -> None:
    """Once for each due time."""
    setting.server(1, nightly=replace(NIGHTLY, cron="*/10 * * * *"))
    setting.work(DUE - timedelta(minutes=1))
    assert setting.world.history == [("change", 1)] * 6


@pytest.mark.parametrize(
    ("minutes", "expected"),
    [
        (5, ("succeeded", 1, None)),
        (6, ("missed", 0, "No controller was active when it was due, nor within 5 minutes.")),
    ],
)
def test_what_was_due_without_a_controller(setting: Setting, minutes: int, expected: tuple[Any, ...]) -> None:
    """It is caught up within five minutes, and is missed after that: shown, told, and not made up for."""
    setting.server(1, nightly=NIGHTLY)
    setting.now = DUE + timedelta(minutes=minutes)
    setting.new_controller()
    setting.work()
    assert outcome(setting) == expected
    missed = expected[0] == "missed"
    assert [event.data["outcome"] for event in setting.events] == (["missed"] if missed else [])
    setting.work(setting.now + timedelta(minutes=10))
    assert outcome(setting) == expected
    assert setting.world.history == ([] if missed else [("change", 1)])


def test_after_a_week_without_a_controller_one_run_is_missed(setting: Setting) -> None:
    """The latest, whatever the schedule."""
    setting.server(1, nightly=replace(NIGHTLY, cron="*/5 * * * *", enabled=True))
    setting.now = DUE + timedelta(days=7, minutes=4)
    setting.new_controller()
    setting.work()
    run = setting.run()
    assert run is not None
    assert (run.due, run.outcome) == (DUE + timedelta(days=7), "succeeded")
    assert setting.world.history == [("change", 1)]


def test_a_queue_is_no_reason_to_miss_a_run(setting: Setting) -> None:
    """What the active controller knew of in time is run, however long it takes to get to it."""
    setting.server(1, nightly=NIGHTLY)
    setting.work()
    setting.now = DUE + timedelta(minutes=20)
    setting.work()
    assert outcome(setting) == ("succeeded", 1, None)


def test_a_run_does_not_overlap_itself(setting: Setting) -> None:
    """What becomes due meanwhile follows if the run ends soon enough; otherwise it is missed."""
    long = replace(NIGHTLY, cron="*/10 * * * *", steps=(Step("restart"), Step("wait", 720)))
    setting.server(1, nightly=long)
    setting.work(DUE - timedelta(minutes=55))
    first = setting.run()
    assert first is not None
    assert first.due == DUE - timedelta(minutes=60)
    setting.work(first.due + timedelta(minutes=12))
    second = setting.run()
    assert second is not None
    assert (second.due, second.started) == (first.due + timedelta(minutes=10), first.due + timedelta(minutes=12))
    setting.set(1, nightly=replace(long, cron="0 * * * *", steps=(Step("wait", 3000),)))
    setting.world.history.clear()
    setting.server(2, nightly=replace(long, cron="0,20 4 * * *", steps=(Step("wait", 1600),)))
    setting.work(DUE + timedelta(minutes=28))
    assert outcome(setting, id=2) == (
        "missed",
        0,
        "The run before was still going on, and did not end within 5 minutes.",
    )


def test_a_token_that_is_gone_pauses_it(setting: Setting) -> None:
    """Nothing is done, and the record says why; when the token is back, the next run comes."""
    setting.server(1, nightly=NIGHTLY)
    setting.tokens.all = []
    setting.work(DUE)
    assert outcome(setting) == ("skipped", 0, "The token that set it, shop, is no longer valid.")
    assert setting.world.history == []
    assert setting.events == []
    setting.tokens.all = [SHOP]
    setting.now = DUE + timedelta(hours=23)
    setting.work(DUE + timedelta(days=1))
    assert outcome(setting) == ("succeeded", 1, None)


def test_scopes_that_are_taken_away_count_at_each_step(setting: Setting) -> None:
    """Also in the middle of a run."""
    setting.server(1, nightly=replace(NIGHTLY, steps=STEPS))
    setting.work(DUE)
    setting.tokens.all = [replace(SHOP, scopes=frozenset({"read"}))]
    setting.work(DUE + timedelta(seconds=60))
    reason = "The token that set it, shop, no longer has the scope server:power."
    assert outcome(setting) == ("failed", 3, reason)
    [event] = setting.events
    assert (event.type, event.server, event.uid, event.customer) == ("schedule-failed", 1, "u", "acme")
    assert event.data == {
        "schedule": "nightly",
        "due": "2026-06-02T04:00:00Z",
        "outcome": "failed",
        "step": {"number": 3, "of": 3, "action": "start"},
        "reason": reason,
    }
    setting.now = DUE + timedelta(hours=23)
    setting.work(DUE + timedelta(days=1))
    assert outcome(setting) == ("skipped", 0, reason)


def test_a_schedule_may_do_no_more_than_was_allowed_when_it_was_set(setting: Setting) -> None:
    """Even if the token may do more by now, or an operator has added a step by hand."""
    by = replace(NIGHTLY.by, scopes=frozenset())
    setting.server(1, nightly=replace(NIGHTLY, by=by))
    setting.work(DUE)
    assert outcome(setting)[0] == "skipped"
    by = replace(NIGHTLY.by, customer="other")
    setting.server(2, nightly=replace(NIGHTLY, cron="5 4 * * *", by=by))
    setting.work(DUE + timedelta(minutes=5))
    assert outcome(setting, id=2) == ("skipped", 0, "The token that set it, shop, may no longer see this server.")
    assert setting.world.history == []


def suspend(setting: Setting) -> None:
    def change(values: dict[str, Any]) -> dict[str, Any]:
        suspended = {"reason": "unpaid", "since": "2026-06-01T00:00:00Z"}
        return {**values, "replicas": 0, "server": {**values["server"], "suspended": suspended}}

    setting.releases.change(1, change)


def test_a_suspended_server_stays_stopped(setting: Setting) -> None:
    """Whoever has set the schedule; a run that is under way fails at the step that would start the server."""
    setting.server(1, nightly=NIGHTLY)
    suspend(setting)
    setting.work(DUE)
    assert outcome(setting) == ("skipped", 0, "The server is suspended: unpaid")
    setting.server(1, nightly=replace(NIGHTLY, cron="10 4 * * *", steps=STEPS))
    setting.work(DUE + timedelta(minutes=10))
    suspend(setting)
    setting.work(DUE + timedelta(minutes=11))
    assert outcome(setting) == ("failed", 3, "The server is suspended: unpaid")
    assert setting.world.values[1]["replicas"] == 0


def test_an_edit_during_a_run(setting: Setting) -> None:
    """The run ends with the steps that it began with; the next one has the new ones."""
    setting.server(1, nightly=replace(NIGHTLY, steps=STEPS))
    setting.work(DUE)
    by = replace(NIGHTLY.by, since=DUE)
    setting.set(1, nightly=replace(NIGHTLY, steps=(Step("stop"),), enabled=False, by=by))
    setting.work(DUE + timedelta(minutes=2))
    assert outcome(setting) == ("succeeded", 3, None)
    assert setting.world.values[1]["replicas"] == 1
    setting.work(DUE + timedelta(minutes=3))
    assert outcome(setting) == ("succeeded", 3, None)


def test_a_delete_during_a_run(setting: Setting) -> None:
    """The run ends before its next step, and leaves nothing; so does one whose name is used again."""
    for again in (False, True):
        setting.now = DUE - timedelta(minutes=1)
        setting.server(1, nightly=replace(NIGHTLY, steps=STEPS, created=f"{again}"))
        setting.work(DUE)
        later = replace(NIGHTLY, created="later", cron="0 5 * * *")
        setting.set(1, **({"nightly": later} if again else {}))
        setting.change_run(lambda run: None)
        setting.work(DUE + timedelta(minutes=5))
        assert setting.run() is None
        assert setting.world.values[1]["replicas"] == 0
        assert setting.events == []


def test_an_id_that_is_used_again(setting: Setting) -> None:
    """The next server with the id has nothing of a run of the one before."""
    setting.server(1, nightly=replace(NIGHTLY, steps=STEPS))
    setting.work(DUE)
    setting.world.forget(1)
    setting.server(1, uid="another", running=False, nightly=replace(NIGHTLY, cron="30 4 * * *"))
    setting.world.history.clear()
    setting.work(DUE + timedelta(minutes=5))
    assert (setting.run(), setting.world.history) == (None, [])
    setting.work(DUE + timedelta(minutes=30))
    assert outcome(setting) == ("succeeded", 1, None)


def test_a_server_that_is_deleted_during_a_run(setting: Setting) -> None:
    """The run ends without a trace."""
    setting.server(1, nightly=replace(NIGHTLY, steps=STEPS))
    setting.work(DUE)
    setting.world.forget(1)
    setting.work(DUE + timedelta(minutes=5))
    assert setting.events == []
    assert setting.part._active == {}


def ask(setting: Setting, by: str = "shop") -> None:
    setting.change_run(lambda run: runs.asked(run, NIGHTLY.created, setting.now, by))


def test_a_run_that_someone_asked_for(setting: Setting) -> None:
    """It begins at once, although the schedule is not enabled; asked for twice at once, it runs once."""
    setting.server(1, nightly=replace(NIGHTLY, enabled=False, steps=STEPS))
    ask(setting)
    with pytest.raises(runs.AlreadyRunning):
        ask(setting)
    setting.work()
    run = setting.run()
    assert run is not None
    assert (run.running, run.asked_by, run.step) == (True, "shop", 2)
    with pytest.raises(runs.AlreadyRunning):
        ask(setting)
    setting.work(setting.now + timedelta(minutes=1))
    assert outcome(setting) == ("succeeded", 3, None)
    setting.work(DUE + timedelta(hours=1))
    assert len(setting.world.history) == 2


def test_what_was_asked_for_without_a_controller_is_missed(setting: Setting) -> None:
    """A restart that someone wanted an hour ago would be a surprise."""
    setting.server(1, nightly=NIGHTLY)
    ask(setting)
    setting.now += timedelta(minutes=6)
    setting.new_controller()
    setting.work()
    assert outcome(setting)[0] == "missed"
    setting.work(DUE)
    assert outcome(setting) == ("succeeded", 1, None)


def abort(setting: Setting) -> None:
    setting.change_run(lambda run: runs.aborted(run, NIGHTLY.created, setting.now))


BACKED_UP = replace(
    NIGHTLY,
    steps=(Step("backup"), Step("stop")),
    by=replace(NIGHTLY.by, scopes=frozenset({"server:power", "backup:create"})),
)


@pytest.fixture
def stored() -> Setting:
    """A setting with a store for backups, and a server whose schedule makes one and then stops it."""
    setting = Setting(Settings(backup_store={"kind": "folder"}))
    setting.server(1, nightly=BACKED_UP)
    return setting


def end_backup(setting: Setting, state: str, reason: str | None = None) -> None:
    """End the one operation, as the part of the controller does that makes backups."""
    [operation] = setting.context.operations.all()
    setting.context.operations.show(replace(operation, state=state, reason=reason), lambda: None)

    def known() -> bool:
        seen = setting.context.operations.known(operation.id)
        return seen is not None and seen.ended

    until(known)


def test_a_backup_is_waited_for(stored: Setting) -> None:
    """No worker is held meanwhile. It is the schedule's, and has its name; the step after it begins when it is done."""
    stored.work(DUE + timedelta(minutes=5))
    [operation] = stored.context.operations.all()
    kept = stored.context.backups.of("u")
    assert kept is not None
    [backup] = kept.backups
    assert (backup.trigger, backup.name, backup.operation) == ("schedule", "nightly", operation.id)
    assert operation.maker.actions == {"backup:create", "server:power"}
    run = stored.run()
    assert run is not None
    assert (run.step, run.action, run.finished) == (1, "backup", None)
    assert 1 in stored.world.pods
    end_backup(stored, "done")
    stored.work(DUE + timedelta(minutes=5, seconds=5))
    assert outcome(stored) == ("succeeded", 2, None)
    assert 1 not in stored.world.pods


@pytest.mark.parametrize(("state", "why"), [("failed", "The store is full."), ("cancelled", "cancelled")])
def test_a_backup_that_fails_ends_the_run(stored: Setting, state: str, why: str) -> None:
    """The steps after it are not done, and someone hears of it."""
    stored.work(DUE + timedelta(seconds=5))
    end_backup(stored, state, "The store is full." if state == "failed" else None)
    stored.work(DUE + timedelta(seconds=10))
    assert outcome(stored) == ("failed", 1, f"The backup has not been made: {why}")
    assert [(event.type, event.data["outcome"]) for event in stored.events] == [("schedule-failed", "failed")]
    assert 1 in stored.world.pods


def test_a_backup_waits_for_another_one(stored: Setting) -> None:
    """While one is made, there is no second; if all are locked, waiting does not help."""
    other = Backup(new_id(), now(), operation="op-other")
    nothing = ServerBackups("u", 1, "acme")
    stored.context.backups.change("u", lambda kept: kept.with_backup(other), nothing)
    stored.work(DUE + timedelta(minutes=2))
    assert stored.context.operations.all() == []
    run = stored.run()
    assert run is not None
    assert run.finished is None
    long_ago = "2026-01-01T00:00:00Z"
    locked = tuple(Backup(new_id(), long_ago, state="done", locked=True) for _ in range(20))
    stored.context.backups.change("u", lambda kept: replace(kept, backups=locked))
    stored.work(DUE + timedelta(minutes=3))
    assert "all are locked" in str(outcome(stored)[2])


def test_a_backup_needs_its_scope_at_the_run(stored: Setting) -> None:
    """As every step."""
    stored.tokens.all = [replace(SHOP, scopes=frozenset({"server:power"}))]
    stored.work(DUE + timedelta(seconds=5))
    run = stored.run()
    assert run is not None
    assert run.outcome == "skipped"
    assert "backup:create" in str(run.reason)
    assert stored.context.operations.all() == []


def test_an_abort_ends_the_wait_for_a_backup(stored: Setting) -> None:
    """The backup itself goes on."""
    stored.work(DUE + timedelta(seconds=5))
    stored.change_run(lambda run: runs.aborted(run, BACKED_UP.created, stored.now))
    stored.work(DUE + timedelta(seconds=10))
    assert outcome(stored)[:2] == ("aborted", 1)
    [operation] = stored.context.operations.all()
    assert not operation.cancelling


def test_a_backup_whose_answer_was_lost_is_made_once(stored: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step is tried again, and finds it."""
    make, lost = backups.make, [True]

    def with_loss(*args: Any, **more: Any) -> Any:
        operation = make(*args, **more)
        if lost:
            lost.pop()
            raise errors.ClusterUnavailable
        return operation

    monkeypatch.setattr(backups, "make", with_loss)
    stored.work(DUE + timedelta(seconds=20))
    assert len(stored.context.operations.all()) == 1
    end_backup(stored, "done")
    stored.work(DUE + timedelta(seconds=30))
    assert outcome(stored) == ("succeeded", 2, None)


def test_an_abort_in_a_wait(setting: Setting) -> None:
    """It ends the run at once; the next one comes."""
    setting.server(1, nightly=replace(NIGHTLY, steps=STEPS))
    setting.work(DUE)
    abort(setting)
    setting.work()
    assert outcome(setting) == ("aborted", 2, None)
    assert (setting.world.values[1]["replicas"], setting.events) == (0, [])
    setting.now = DUE + timedelta(hours=23, minutes=59)
    setting.work(DUE + timedelta(days=1, minutes=1))
    assert outcome(setting) == ("succeeded", 3, None)


def test_an_abort_before_it_begins_and_during_its_last_step(setting: Setting) -> None:
    """The first begins nothing; the second comes too late."""
    setting.server(1, nightly=NIGHTLY)
    ask(setting)
    abort(setting)
    setting.work()
    assert outcome(setting) == ("aborted", 0, None)
    restart = power.restart

    def restart_slowly(*args: Any) -> None:
        restart(*args)
        abort(setting)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(power, "restart", restart_slowly)
        setting.work(DUE)
    assert outcome(setting) == ("succeeded", 1, None)


def test_a_run_is_bounded_in_time(setting: Setting) -> None:
    """It ends before its next step, and is told."""
    setting.server(1, nightly=replace(NIGHTLY, steps=(Step("stop"), Step("wait", 600), Step("start")), timeout_s=60))
    setting.work(DUE + timedelta(seconds=59))
    assert outcome(setting)[0] is None
    setting.work(DUE + timedelta(seconds=60))
    assert outcome(setting) == ("timed-out", 2, "It did not end within 60 seconds.")
    assert [event.data["outcome"] for event in setting.events] == ["timed-out"]
    assert setting.world.values[1]["replicas"] == 0


def failing(problems: list[errors.Problem], *, after: bool = False) -> Callable[..., None]:
    """A restart that fails with these problems, one after the other; with `after`, when it is done."""
    restart = power.restart

    def do(*args: Any) -> None:
        if not problems:
            restart(*args)
            return
        if after:
            restart(*args)
        raise problems.pop(0)

    return do


def test_a_step_waits_for_another_operation(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """A customer's own call has the server: the step is tried again, and is done once."""
    setting.server(1, nightly=NIGHTLY)
    problems: list[errors.Problem] = [errors.OperationInProgress(), errors.TooManyOperations(retry_after=9)]
    monkeypatch.setattr(power, "restart", failing(problems))
    setting.work(DUE + timedelta(seconds=10))
    assert outcome(setting)[0] is None
    setting.work(DUE + timedelta(seconds=11))
    assert outcome(setting) == ("succeeded", 1, None)
    assert setting.world.history == [("change", 1)]


def test_a_step_that_never_gets_its_turn(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run ends in its time, and says what was in the way."""
    setting.server(1, nightly=replace(NIGHTLY, timeout_s=60))
    monkeypatch.setattr(power, "restart", failing([errors.OperationInProgress() for _ in range(99)]))
    setting.work(DUE + timedelta(seconds=60))
    kind, step, reason = outcome(setting)
    assert (kind, step) == ("timed-out", 1)
    assert reason.startswith("It did not end within 60 seconds. The last step was hindered: Try again")
    assert setting.world.history == []


def test_a_step_whose_answer_was_lost(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """A restart is asked for again and is still done once; after another step the run fails."""
    setting.server(1, nightly=NIGHTLY)
    monkeypatch.setattr(power, "restart", failing([errors.ClusterUnavailable()], after=True))
    setting.work(DUE + timedelta(seconds=30))
    assert outcome(setting) == ("succeeded", 1, None)
    assert setting.world.history == [("change", 1)]
    setting.set(1, nightly=replace(NIGHTLY, cron="5 4 * * *", steps=(Step("start"),)))
    setting.world.history.clear()

    def start(*args: Any) -> None:
        raise errors.ClusterUnavailable

    monkeypatch.setattr(power, "start", start)
    setting.work(DUE + timedelta(minutes=5))
    assert outcome(setting)[0] == "failed"
    assert outcome(setting)[2].endswith("Nobody knows whether the step was done.")


def test_a_begin_whose_answer_was_lost(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run that was written goes on: it is this controller's, and has done nothing yet."""
    setting.server(1, nightly=NIGHTLY)
    annotate, lost = setting.cluster.annotate, [True]

    def write(*args: Any) -> str | None:
        text = annotate(*args)
        if lost and lost.pop():
            raise errors.ClusterUnavailable
        return text

    monkeypatch.setattr(setting.cluster, "annotate", write)
    setting.work(DUE + timedelta(seconds=5))
    assert outcome(setting) == ("succeeded", 1, None)
    assert setting.events == []


def test_a_run_that_has_waited_goes_before_new_ones(setting: Setting) -> None:
    """Its server is stopped; the others' are not yet."""
    setting.server(1, nightly=replace(NIGHTLY, steps=(Step("stop"), Step("wait", 90), Step("start"))))
    for id in range(2, 9):
        setting.server(id, uid=f"u{id}", nightly=replace(NIGHTLY, cron="1 4 * * *", steps=(Step("stop"),)))
    setting.work(DUE + timedelta(seconds=59))
    setting.world.history.clear()
    setting.now = DUE + timedelta(minutes=5)
    setting.work()
    assert setting.world.history[0] == ("change", 1)
    assert len(setting.world.history) == 8


def test_a_step_that_fails_ends_the_run(setting: Setting) -> None:
    """With the reason that the API would give; the next run comes."""
    setting.server(1, nightly=replace(NIGHTLY, steps=(Step("restart"), Step("stop"))))
    setting.world.failure = errors.NoNodePortLeft()
    setting.work(DUE)
    assert outcome(setting) == ("failed", 1, errors.NoNodePortLeft.explanation)
    setting.now = DUE + timedelta(hours=23, minutes=59)
    setting.work(DUE + timedelta(days=1))
    assert outcome(setting) == ("succeeded", 2, None)


def test_an_error_of_ours_ends_the_run_alone(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """No other schedule is affected."""
    setting.server(1, nightly=NIGHTLY)
    setting.server(2, nightly=replace(NIGHTLY, steps=(Step("stop"),)))

    def restart(*args: Any) -> None:
        raise RuntimeError("a mistake")

    monkeypatch.setattr(power, "restart", restart)
    setting.work(DUE + timedelta(seconds=31))
    assert outcome(setting) == ("failed", 1, "The controller met an error; its log has the cause.")
    assert outcome(setting, id=2) == ("succeeded", 1, None)


@pytest.mark.parametrize(
    ("only_when", "running", "players", "expected"),
    [
        ("running", True, None, None),
        ("running", False, None, "The server is stopped."),
        ("stopped", False, None, None),
        ("stopped", True, None, "The server is running."),
        ("empty", True, 0, None),
        ("empty", True, 2, "Players are on the server."),
        ("empty", True, None, "Nobody knows whether players are on the server."),
        ("empty", False, 0, "The server is stopped."),
    ],
)
def test_only_when(setting: Setting, only_when: str, running: bool, players: int | None, expected: str | None) -> None:
    """What is due is passed over, with the reason, unless the server is as it must be; unknown is never empty."""
    setting.players = players
    setting.server(1, running=running, nightly=replace(NIGHTLY, only_when=only_when))
    setting.work(DUE)
    assert outcome(setting) == (("succeeded", 1, None) if expected is None else ("skipped", 0, expected))
    assert setting.events == []


def test_a_schedule_that_is_not_enabled(setting: Setting) -> None:
    """It is never due, and enabling it makes up for nothing."""
    setting.server(1, nightly=replace(NIGHTLY, enabled=False))
    setting.work(DUE + timedelta(minutes=1))
    assert setting.run() is None
    setting.set(1, nightly=replace(NIGHTLY, by=replace(NIGHTLY.by, since=setting.now)))
    setting.work(DUE + timedelta(minutes=4))
    assert setting.run() is None


def test_a_lost_statefulset_repeats_nothing(setting: Setting) -> None:
    """Its records went with it, but what was due before it was created again is not due."""
    setting.server(1, nightly=NIGHTLY)
    setting.work(DUE)
    del setting.world.statefulsets[1]
    setting.world.apply(1, setting.world.values[1])
    setting.world.statefulsets[1]["metadata"]["creationTimestamp"] = "2026-06-02T04:02:00Z"
    setting.now = DUE + timedelta(minutes=3)
    setting.new_controller()
    setting.work()
    assert setting.run() is None


def test_one_unreadable_schedule_stops_no_other(setting: Setting) -> None:
    """An operator has written it by hand."""
    setting.server(1, nightly=NIGHTLY)
    values = setting.world.values[1]
    values["schedules"]["broken"] = {"cron": "often"}
    setting.world.apply(1, values)
    setting.work(DUE)
    assert outcome(setting) == ("succeeded", 1, None)


def test_two_schedules_of_one_server(setting: Setting) -> None:
    """Each has its own runs."""
    setting.server(1, nightly=replace(NIGHTLY, steps=STEPS), other=replace(NIGHTLY, cron="1 4 * * *"))
    setting.work(DUE + timedelta(minutes=2))
    assert outcome(setting) == ("succeeded", 3, None)
    assert outcome(setting, name="other") == ("succeeded", 1, None)


def test_the_events_of_the_pod_before_are_told_again(setting: Setting) -> None:
    """It may have died before it wrote them; their ids are the same."""
    setting.server(1, nightly=NIGHTLY)
    setting.world.failure = errors.NoNodePortLeft()
    setting.work(DUE)
    [event] = setting.events
    setting.now += timedelta(minutes=5)
    setting.new_controller()
    assert setting.events == [event, event]
    setting.now += timedelta(minutes=6)
    setting.new_controller()
    assert setting.events == [event, event]


def test_metrics(setting: Setting) -> None:
    """Runs by outcome, how late they began, how many are under way, and how many wait and for how long."""

    def value(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(f"gameserver_schedule_{name}", labels) or 0.0

    names = ("runs_total", "lateness_seconds_sum", "lateness_seconds_count")
    before = {name: value(name, **({"outcome": "succeeded"} if name == "runs_total" else {})) for name in names}
    setting.server(1, nightly=replace(NIGHTLY, steps=STEPS))
    setting.work()
    setting.now = DUE + timedelta(seconds=7)
    assert (value("running"), value("waiting"), value("late_seconds")) == (0, 1, 7)
    setting.work()
    assert (value("running"), value("waiting"), value("late_seconds")) == (1, 0, 0)
    setting.work(setting.now + timedelta(minutes=2))
    assert value("running") == 0
    assert value("runs_total", outcome="succeeded") - before["runs_total"] == 1
    assert value("lateness_seconds_sum") - before["lateness_seconds_sum"] == 7
    assert value("lateness_seconds_count") - before["lateness_seconds_count"] == 1


def test_a_pod_that_is_not_active_looks_at_nothing(setting: Setting) -> None:
    """So it does not seem to be late."""
    waiting = Schedules(setting.context, setting.events.append, clock=lambda: setting.now)
    waiting.start()
    setting.server(1, nightly=NIGHTLY)
    setting.now = DUE + timedelta(hours=1)
    assert (waiting._agenda.waiting(), waiting._agenda.oldest()) == (0, 0)


def test_a_pod_that_is_deposed_stops(setting: Setting) -> None:
    """Before it writes anything."""
    setting.server(1, nightly=NIGHTLY)
    setting.work(DUE - timedelta(seconds=1))
    setting.now = DUE
    setting.term.over = True
    assert not setting.part.turn(setting.term)
    assert (setting.run(), setting.world.history) == (None, [])


@pytest.mark.slow
def test_two_thousand_at_four_o_clock(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """All run, no more at once than the operator allows; what was stopped is started before others are stopped."""
    setting.world.last_node_port = 40000
    for id in range(1, 2001):
        setting.server(id, uid=f"u{id}", nightly=replace(NIGHTLY, steps=(Step("stop"), Step("start"))))
    setting.work(DUE - timedelta(seconds=1))
    lock, at_once, stopped, most, most_stopped = threading.Lock(), 0, 0, 0, 0
    begun: Counter[int] = Counter()

    def verb(stops: bool) -> Callable[..., None]:
        def do(context: Any, *args: Any) -> None:
            nonlocal at_once, stopped, most, most_stopped
            with lock:
                at_once, stopped = at_once + 1, stopped + (1 if stops else -1)
                most, most_stopped = max(most, at_once), max(most_stopped, stopped)
                begun[args[-1].id] += 1
            threading.Event().wait(0.0005)
            with lock:
                at_once -= 1

        return do

    monkeypatch.setattr(power, "stop", verb(True))
    monkeypatch.setattr(power, "start", verb(False))
    setting.now = DUE
    assert setting.part._agenda.waiting() == 2000

    def drain() -> None:
        while setting.part.turn(setting.term):
            pass

    workers = [threading.Thread(target=drain) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert Counter(begun.values()) == {2: 2000}
    assert 1 < most <= 8
    assert most_stopped <= 8
    assert all(outcome(setting, id=id) == ("succeeded", 2, None) for id in range(1, 2001))


Fault = tuple[str, int]


@settings(max_examples=40, deadline=None)
@given(
    faults=st.lists(
        st.tuples(
            st.sampled_from(
                ["write before", "write after", "lost before", "lost after", "act before", "act after", "busy"]
            ),
            st.integers(0, 6),
        ),
        max_size=8,
    )
)
def test_kills_at_any_point(faults: list[Fault]) -> None:
    """No step is done twice, no schedule is stuck, and what was broken off is shown with its step.

    Each fault comes after some more writes and steps: a kill before or after a write or a step, a write that fails
    before or after it was done, or a server that another operation has.
    """
    setting = Setting()
    setting.server(1, nightly=replace(NIGHTLY, cron="*/10 * * * *", steps=STEPS))
    left, done = list(faults), Counter[tuple[datetime, int]]()
    annotate, act, countdown = setting.cluster.annotate, Schedules._act, [left[0][1]] if left else [0]
    broken: list[tuple[datetime, int]] = []
    interrupted: dict[datetime, int] = {}

    def fault(*kinds: str) -> str | None:
        """The fault that comes now, if it is one of these kinds."""
        if not left or not left[0][0].startswith(kinds):
            return None
        if countdown[0] > 0:
            countdown[0] -= 1
            return None
        kind, _ = left.pop(0)
        countdown[0] = left[0][1] if left else 0
        return kind

    def write(*args: Any) -> str | None:
        kind = fault("write", "lost")
        if kind == "write before":
            raise Killed
        if kind == "lost before":
            raise errors.ClusterUnavailable
        text = annotate(*args)
        run = runs.read(text)["nightly"]
        if run.outcome == "interrupted":
            interrupted[run.due] = run.step
        if kind == "write after":
            raise Killed
        if kind == "lost after":
            raise errors.ClusterUnavailable
        return text

    def do(self: Schedules, run: Any) -> None:
        kind = fault("act", "busy")
        if kind == "act before":
            broken.append((run.due, run.done + 1))
            raise Killed
        if kind == "busy":
            raise errors.OperationInProgress
        act(self, run)
        done[run.due, run.done] += 1
        if kind == "act after":
            broken.append((run.due, run.done + 1))
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setting.cluster, "annotate", write)
        patch.setattr(Schedules, "_act", do)
        patch.setattr(logs, "audit", lambda **fields: None)
        end = setting.now + timedelta(minutes=20)
        while setting.now < end:
            try:
                setting.work(setting.now + timedelta(seconds=20))
            except Killed:
                setting.now += timedelta(seconds=16)
                setting.new_controller()
            except errors.Problem:
                raise AssertionError("a problem ended a worker") from None
        left.clear()
        countdown[0] = 0
        setting.work(DUE - timedelta(minutes=1))
    assert all(count == 1 for count in done.values()), done
    assert [(due, interrupted.get(due)) for due, _ in broken] == broken
    assert outcome(setting) == ("succeeded", 3, None)
    run = setting.run()
    assert run is not None
    assert run.due == DUE - timedelta(minutes=10)
    assert setting.part._active == {}
