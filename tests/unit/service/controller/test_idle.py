"""Servers on which nobody plays are stopped, by whichever controller is active."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest

from service.controller.idle import IdleStop
from service.controller.leader import Deposed, Term
from service.errors import ClusterUnavailable, OperationInProgress
from service.games.catalogue import Game
from service.operations.context import Context
from service.players.counts import PlayerCounts
from service.players.query import Query, Unknown
from service.records.store import RecordStore
from service.schedules import runs
from service.servers.names import IDLE, SCHEDULE_RUNS, SCHEDULES
from service.servers.objects import Objects
from service.settings import Settings
from service.telemetry.metrics import REGISTRY
from service.tokens import BUNDLES, Token
from tests.support.fakes import TIME, FakeCluster, FakeReleases, World
from tests.support.memory_kube import MemoryKube
from tests.support.waiting import until

START = datetime.fromisoformat(TIME)
HALF, TENTH = timedelta(seconds=30), timedelta(seconds=10)
RECORD = "/api/v1/namespaces/gameservers/secrets/idle-asked"


class Play:
    """Servers, who plays on them, and controllers that look after them at a time that the test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world, self.kube, self.now = World(), MemoryKube(), START
        # What the games say; None for no answer.
        self.players: dict[int, int | None] = {}
        self.asked: list[int] = []
        # The operator's tokens.
        self.tokens = [Token("shop", "", frozenset(BUNDLES))]
        games = {"teeworlds": SimpleNamespace(query=Query("teeworlds")), "luanti": SimpleNamespace(query=None)}
        self.context = Context(
            settings=Settings(),
            cluster=FakeCluster(self.world),
            releases=FakeReleases(self.world),
            accounts=cast(Any, None),
            tokens=cast(Any, SimpleNamespace(operators=lambda: self.tokens, issued=dict)),
            games=cast("dict[str, Game]", games),
            operator_values={},
            records=partial(RecordStore, cast(Any, self.kube), "gameservers"),
            events=None,
            webhooks=None,
        )
        monkeypatch.setattr(PlayerCounts, "on", lambda _, objects: self._answer(objects))
        self.controller = self.another()
        self.term = Term(cast(Any, SimpleNamespace(remaining=lambda: 9.0)), "me")
        self.pool = ThreadPoolExecutor(2)

    def _answer(self, objects: Objects) -> int:
        self.asked.append(objects.id)
        players = self.players[objects.id]
        if players is None:
            raise Unknown("it did not answer in time")
        return players

    def another(self) -> IdleStop:
        """A controller that has asked nobody yet."""
        return IdleStop(self.context, lambda: self.now)

    def server(self, id: int, players: int | None = 0, *, minutes: int = 10, game: str = "teeworlds") -> None:
        """Create a running server on which so many play."""
        server = {"uid": f"uid-{id}", "idleStopMinutes": minutes}
        self.world.values[id] = {"game": game, "server": server, "replicas": 1}
        self.world.revisions[id] = ["deployed"]
        self.players[id] = players
        self.run(id)

    def run(self, id: int, pod: str = "pod") -> None:
        """Make the server's objects, with a pod of this uid."""
        self.world.apply(id, self.world.values[id])
        self.world.pods[id]["metadata"]["uid"] = pod

    def rounds(self, minutes: float, *, silent: bool = False, asked: datetime | None = None) -> None:
        """Ask each half minute."""
        for _ in range(round(minutes * 2)):
            self.now += HALF
            self.controller.round(self.term, self.pool, silent=silent, asked=asked)

    def stop_due(self) -> list[int]:
        """Stop those that are due, ten seconds later, and return their ids."""
        self.now += TENTH
        ids = []
        while not self.controller.due.empty():
            id, uid, when = self.controller.due.get()
            assert when <= self.now
            ids.append(id)
            self.controller.stop(self.term, id, uid)
        return ids

    def annotate(self, id: int, name: str, text: str) -> None:
        """Write an annotation of the server."""
        self.world.statefulsets[id]["metadata"]["annotations"][name] = text

    def annotation(self, id: int) -> dict[str, Any] | None:
        text = self.world.statefulsets[id]["metadata"]["annotations"].get(IDLE)
        return cast("dict[str, Any]", json.loads(text)) if text else None


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Iterator[Play]:
    play = Play(monkeypatch)
    yield play
    play.pool.shutdown()


def count(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_a_server_on_which_nobody_plays_is_stopped(play: Play) -> None:
    """After its minutes, and asked once more; the time of the stop is in its values."""
    before = count("gameserver_idle_stops_total", outcome="success")
    play.server(4)
    play.rounds(10)
    assert play.annotation(4) == {
        "pod": "pod",
        "players": 0,
        "since": "2026-01-31T12:00:30.000000Z",
        "stops_at": "2026-01-31T12:10:30.000000Z",
        "kept_up_by": None,
    }
    assert play.stop_due() == []
    play.rounds(1)
    assert play.stop_due() == [4]
    assert play.world.values[4] == {
        "game": "teeworlds",
        "server": {"uid": "uid-4", "idleStopMinutes": 10, "idleStopped": "2026-01-31T12:11:20Z"},
        "replicas": 0,
    }
    assert count("gameserver_idle_stops_total", outcome="success") == before + 1
    play.rounds(10)
    assert play.stop_due() == []


def test_a_player_who_joins_at_the_last_moment_plays_on(play: Play) -> None:
    """The last question is asked under the server's Lease."""
    play.server(4)
    play.rounds(10.5)
    play.players[4] = 1
    assert play.stop_due() == [4]
    assert play.world.values[4]["replicas"] == 1
    play.rounds(0.5)
    assert play.annotation(4) == {
        "pod": "pod",
        "players": 1,
        "since": "2026-01-31T12:10:40.000000Z",
        "stops_at": None,
        "kept_up_by": {"slug": "players", "detail": "One player is on the server."},
    }
    play.players[4] = 0
    play.rounds(10)
    assert play.stop_due() == []
    play.rounds(1)
    assert play.stop_due() == [4]
    assert play.world.values[4]["replicas"] == 0


def change_nothing(play: Play) -> None:
    """The server stays as it is."""


def create_again(play: Play) -> None:
    """The id belongs to another server by now."""
    play.world.values[4]["server"]["uid"] = "another"
    play.run(4)


def restart(play: Play) -> None:
    """The server has a new pod."""
    play.run(4, pod="new")


def turn_off(play: Play) -> None:
    """The server has no idle stop any more."""
    play.world.values[4]["server"]["idleStopMinutes"] = 0
    play.run(4)


def prolong(play: Play) -> None:
    """Nobody has to play for longer now."""
    play.world.values[4]["server"]["idleStopMinutes"] = 60
    play.run(4)


def say_nothing(play: Play) -> None:
    """The game hangs."""
    play.players[4] = None


def stop(play: Play) -> None:
    """The customer stops it."""
    play.world.values[4]["replicas"] = 0
    play.world.apply(4, play.world.values[4])


def delete_claim(play: Play) -> None:
    """An operator deletes the claim of its disk, which would end with the game."""
    play.world.claims[4]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"


def delete(play: Play) -> None:
    """The shop deletes it."""
    play.world.forget(4)


@pytest.mark.parametrize("change", [create_again, restart, turn_off, prolong, say_nothing, stop, delete_claim, delete])
def test_what_changed_before_the_last_question_counts(play: Play, change: Callable[[Play], None]) -> None:
    """Nothing is stopped for what was true ten seconds ago."""
    play.server(4)
    play.rounds(10.5)
    change(play)
    assert play.stop_due() == [4]
    assert "idleStopped" not in play.world.values.get(4, {}).get("server", {})


def test_without_a_change_the_same_stops(play: Play) -> None:
    """So the test above can fail."""
    play.server(4)
    play.rounds(10.5)
    change_nothing(play)
    assert play.stop_due() == [4]
    assert play.world.values[4]["server"]["idleStopped"] == "2026-01-31T12:10:40Z"


def test_unknown_is_never_empty(play: Play) -> None:
    """A game that does not answer is asked beside the others, so that it delays none, and it is never stopped."""
    before = count("gameserver_idle_questions_total", answer="unknown")
    play.server(4, None)
    play.server(5, 0)
    play.rounds(0.5)
    assert sorted(play.asked) == [4, 5]
    play.rounds(1)
    assert play.asked[2:] == [5, 5]
    play.rounds(20, silent=True)
    assert set(play.asked[4:]) == {4}
    assert count("gameserver_idle_questions_total", answer="unknown") == before + 41
    assert play.stop_due() == []
    assert play.annotation(4) == {
        "pod": "pod",
        "players": None,
        "since": None,
        "stops_at": None,
        "kept_up_by": {"slug": "players-unknown", "detail": "The game has not said how many players are on it."},
    }
    # Once it answers, it is one of the others again, and its minutes begin.
    play.players[4] = 0
    play.rounds(0.5, silent=True)
    del play.asked[:]
    play.rounds(10)
    assert sorted(set(play.asked)) == [4, 5]
    # Nobody has asked the other in the meantime.
    assert play.stop_due() == [4]
    play.rounds(0.5)
    assert play.stop_due() == [5]


def schedule(cron: str) -> str:
    """The annotation with a schedule."""
    by = {"token": "shop", "since": "2026-01-01T00:00:00Z", "scopes": ["server:power"]}
    return json.dumps({"s": {"cron": cron, "timezone": "UTC", "steps": [{"restart": {}}], "by": by}})


def test_a_schedule_that_is_about_to_run_keeps_a_server_up(play: Play) -> None:
    """Whether it is known when the stop is due or only by the last question."""
    play.server(4)
    play.server(5)
    play.annotate(4, SCHEDULES, schedule("20 12 * * *"))
    play.rounds(10.5)
    found = play.annotation(4)
    assert found is not None
    assert found["kept_up_by"] == {"slug": "schedule", "detail": "A schedule is due at 2026-01-31T12:20:00Z."}
    play.annotate(5, SCHEDULES, schedule("20 12 * * *"))
    assert play.stop_due() == [5]
    assert [play.world.values[id]["replicas"] for id in (4, 5)] == [1, 1]


def test_a_paused_schedule_keeps_no_server_up(play: Play) -> None:
    """The token that set it is gone, so it does nothing when it is due. It counts while nobody can read the tokens."""
    tokens = play.tokens[:]
    play.tokens.clear()
    play.server(4)
    play.annotate(4, SCHEDULES, schedule("20 12 * * *"))
    play.rounds(10.5)
    assert play.stop_due() == [4]
    assert play.world.values[4]["replicas"] == 0
    play.tokens.extend(tokens)
    play.server(5)
    play.annotate(5, SCHEDULES, schedule("*/15 * * * *"))
    play.rounds(5)
    play.context.tokens.issued = unavailable  # type: ignore[method-assign]
    play.tokens.clear()
    play.rounds(20)
    found = play.annotation(5)
    assert found is not None
    assert found["kept_up_by"]["slug"] == "schedule"


def unavailable() -> dict[str, str]:
    raise ClusterUnavailable


def test_a_schedule_that_runs_keeps_a_server_up(play: Play) -> None:
    """Its next step finds the server as the step before has left it."""
    play.server(4)
    run = runs.Run("created", START, started=START, runner="me", step=1, steps=2, action="wait")
    play.annotate(4, SCHEDULE_RUNS, runs.changed(None, "s", lambda _: run) or "")
    play.rounds(20)
    assert play.stop_due() == []
    play.annotate(4, SCHEDULE_RUNS, "{}")
    play.rounds(0.5)
    assert play.stop_due() == [4]
    assert play.world.values[4]["replicas"] == 0


def test_who_cannot_be_asked_is_not(play: Play) -> None:
    """A server without the option, a game without a query, and one that is loading."""
    play.server(4, minutes=0)
    play.server(5, game="luanti")
    play.server(6)
    play.world.pods[6]["status"]["conditions"] = []
    play.rounds(30)
    assert play.asked == []
    assert [play.annotation(id) for id in (4, 5, 6)] == [None, None, None]


def test_the_annotation_ends_with_the_option(play: Play) -> None:
    """It would say that the server is about to be stopped."""
    play.server(4)
    play.rounds(1)
    assert play.annotation(4)
    turn_off(play)
    play.rounds(0.5)
    assert play.annotation(4) is None


def test_it_is_written_only_when_something_changes(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of players once a minute, everything else at once."""
    writes: list[int] = []
    annotate = play.context.cluster.annotate

    def counted(id: int, *more: Any) -> str | None:
        writes.append(id)
        return annotate(id, *more)

    monkeypatch.setattr(play.context.cluster, "annotate", counted)
    play.server(4)
    play.rounds(5)
    assert len(writes) == 1
    for players in (1, 2, 3, 4, 5):
        play.players[4] = players
        play.rounds(0.5)
    assert len(writes) == 4
    play.rounds(5)
    found = play.annotation(4)
    assert found is not None
    assert (found["players"], len(writes)) == (5, 4)
    play.players[4] = 0
    play.rounds(0.5)
    assert len(writes) == 5


def takes_over(play: Play) -> datetime | None:
    """Another controller is the active one now; returns what it knows about the last answers."""
    play.controller = play.another()
    return play.controller._last_asked(play.term)


def test_another_controller_goes_on(play: Play) -> None:
    """A takeover of half a minute changes nothing."""
    play.server(4)
    play.rounds(5)
    asked = takes_over(play)
    assert asked == play.now
    play.now += HALF
    play.rounds(5, asked=asked)
    assert play.stop_due() == [4]
    assert play.world.values[4]["server"]["idleStopped"] == "2026-01-31T12:10:40Z"


def test_the_time_in_which_nobody_asked_is_not_empty(play: Play) -> None:
    """Nobody knows who played while no controller ran."""
    play.server(4)
    play.rounds(5)
    asked = takes_over(play)
    play.now += timedelta(hours=1)
    play.rounds(10, asked=asked)
    assert play.stop_due() == []
    play.rounds(0.5, asked=asked)
    assert play.stop_due() == [4]


@pytest.mark.parametrize("data", [None, {}, {"at": "eW91cg=="}])
def test_without_the_time_of_the_last_answers_the_minutes_begin_anew(play: Play, data: dict[str, str] | None) -> None:
    """Somebody has deleted or changed the record."""
    play.server(4)
    play.rounds(5)
    if data is None:
        play.kube.delete(RECORD)
    else:
        play.kube.objects[RECORD]["data"] = data
    asked = takes_over(play)
    assert asked is None
    play.rounds(10, asked=asked)
    assert play.stop_due() == []


def test_a_lost_answer_at_a_takeover_does_not_begin_the_minutes_anew(play: Play) -> None:
    """It is one unanswered question, as at any other time."""
    play.server(4)
    play.rounds(5)
    asked = takes_over(play)
    play.players[4] = None
    play.rounds(0.5, asked=asked)
    play.players[4] = 0
    play.rounds(5, silent=True, asked=asked)
    found = play.annotation(4)
    assert found is not None
    assert found["stops_at"] == "2026-01-31T12:10:30.000000Z"


def test_what_could_not_be_written_counts_from_the_last_answers(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """The annotation still says that nobody plays, so the record must not say that this was asked just now."""
    play.server(4)
    play.server(5)
    play.rounds(5)
    asked = takes_over(play)
    annotate = play.context.cluster.annotate

    def fail(id: int, *more: Any) -> str | None:
        if id == 4:
            raise OperationInProgress
        return annotate(id, *more)

    monkeypatch.setattr(play.context.cluster, "annotate", fail)
    play.players[4] = None
    play.rounds(1, asked=asked)
    play.rounds(5, silent=True, asked=asked)
    play.rounds(0.5, asked=asked)
    assert takes_over(play) == asked


def test_a_server_that_breaks_the_count_does_not_break_the_others(
    play: Play, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A mistake of ours is logged, and everything goes on."""
    play.server(4)
    play.server(5)
    ask = play.controller._ask

    def broken(objects: Objects, *more: Any) -> object:
        if objects.id == 4:
            raise RuntimeError("broken")
        return ask(objects, *more)

    monkeypatch.setattr(play.controller, "_ask", broken)
    play.rounds(10.5)
    assert play.stop_due() == [5]
    assert "counting the players of the server failed" in caplog.text


def test_a_stop_that_fails_is_tried_again(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another operation has the server's Lease, or Kubernetes is away."""
    play.server(4)
    play.rounds(10.5)

    def refuse(*_: object) -> bool:
        raise OperationInProgress

    with monkeypatch.context() as another_operation:
        another_operation.setattr(play.context.releases, "change", refuse)
        assert play.stop_due() == [4]
    assert play.world.values[4]["replicas"] == 1
    play.rounds(0.5)
    assert play.stop_due() == [4]
    assert play.world.values[4]["replicas"] == 0


def test_a_controller_that_ends_begins_nothing(play: Play) -> None:
    """The other one goes on."""
    play.server(4)
    play.rounds(10.5)
    play.term.end()
    with pytest.raises(Deposed):
        play.stop_due()
    with pytest.raises(Deposed):
        play.rounds(0.5)
    assert play.world.values[4]["replicas"] == 1


def test_its_threads_do_all_this(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the real clock, and minutes that are short."""
    settings = Settings(idle_minute_seconds=1)
    play.context = replace(play.context, settings=settings)
    play.server(4, minutes=1)
    play.world.pods[4]["status"]["conditions"][0]["lastTransitionTime"] = "2026-01-31T12:00:00Z"
    play.server(5, 1, minutes=1)
    IdleStop(play.context).lead(play.term)
    until(lambda: play.world.values[4]["replicas"] == 0, 10)
    assert play.world.values[5]["replicas"] == 1
    play.term.end()
