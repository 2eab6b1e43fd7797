"""A server is due to be stopped exactly when its game has said for so long, without a gap, that nobody plays."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.servers.idle import Answers, Keeper, Outlook, Pace, answers_of, heard, idle_of, outlook, outlook_of
from service.servers.objects import ServerObjects
from service.servers.spec import ServerSpec
from service.servers.state import State

PACE = Pace()
MINUTE = PACE.minute
START = datetime(2026, 11, 27, 2, 0, tzinfo=UTC)
MINUTES = 10

# What happens next: how many seconds later the game is asked, and what it says; None is no answer.
Steps = Sequence[tuple[int, int | None]]
steps = st.lists(
    st.tuples(
        st.sampled_from([1, 30, 31, 60, 90, 179, 180, 181, 600]), st.sampled_from([None, 0, 0, 0, 0, 0, 0, 1, 7])
    ),
    max_size=60,
)


def at(minutes: float) -> datetime:
    return START + minutes * MINUTE


def told(steps: Steps) -> tuple[Answers | None, datetime, list[tuple[datetime, int]]]:
    """The answers after the steps, the time of the last step, and each answer with its time."""
    answers, now, all_answers = None, START, []
    for seconds, players in steps:
        now += timedelta(seconds=seconds)
        if players is not None:
            answers = heard(answers, "pod", players, now, PACE)
            all_answers.append((now, players))
    return answers, now, all_answers


def empty_since(answers: list[tuple[datetime, int]]) -> datetime | None:
    """Since when the game has said without a gap that nobody plays, from all of its answers; None if not so now."""
    since, later = None, None
    for time, players in reversed(answers):
        if players or (later is not None and later - time > PACE.gap):
            break
        since = later = time
    return since


@given(steps, st.integers(0, 20))
def test_a_stop_is_due_when_nobody_has_played_for_so_long(steps: Steps, running: int) -> None:
    """Compared with a model that looks at all answers. An unanswered question, and time without one, never count."""
    answers, now, all_answers = told(steps)
    running_since = now - running * MINUTE
    since = empty_since(all_answers)
    expected = (
        since is not None
        and now - all_answers[-1][0] <= PACE.fresh
        and now - since >= MINUTES * MINUTE
        and now - running_since >= PACE.grace
    )
    found = outlook(MINUTES, "pod", running_since, answers, now, PACE)
    assert found.due(now) == expected
    # It says either when the server stops or what keeps it up, and what it says about players is what the game said.
    assert (found.stops_at is None) != (found.kept_up_by is None)
    assert found.players in (None, all_answers[-1][1] if all_answers else None)


@given(steps, steps, st.sampled_from([1, 20, 60, 180, 181, 3600]))
def test_another_controller_never_stops_a_server_earlier(before: Steps, after: Steps, pause: int) -> None:
    """It goes on from the annotation, and the time in which nobody asked does not count as empty."""
    answers, now, _ = told(before)
    written = outlook(MINUTES, "pod", START, answers, now, PACE)
    asked = answers.asked if answers else now
    taken_over = answers_of(outlook_of(server(written.as_text())), asked)
    stayed = answers
    now += timedelta(seconds=pause)
    for seconds, players in after:
        now += timedelta(seconds=seconds)
        if players is not None:
            taken_over = heard(taken_over, "pod", players, now, PACE)
            stayed = heard(stayed, "pod", players, now, PACE)
    other, own = (outlook(MINUTES, "pod", START, each, now, PACE) for each in (taken_over, stayed))
    assert other.due(now) <= own.due(now)
    if written.players is not None:
        assert other == own


def server(text: str | None, pod: str | None = "pod", **record: Any) -> ServerObjects:
    annotations = {"gameserver/idle": text} if text is not None else {}
    annotations["gameserver/server"] = json.dumps(record)
    return ServerObjects(
        4,
        statefulset={"metadata": {"annotations": annotations}},
        pod=pod and {"metadata": {"uid": pod}},  # type: ignore[arg-type]
    )


def test_players_keep_a_server_up() -> None:
    """How many there are is said, and since when somebody plays."""
    answers = heard(heard(None, "pod", 1, at(0), PACE), "pod", 3, at(1), PACE)
    found = outlook(MINUTES, "pod", at(-60), answers, at(1), PACE)
    assert found == Outlook("pod", 3, at(0), None, Keeper("players", "3 players are on it."))
    one = outlook(MINUTES, "pod", at(-60), replace(answers, players=1), at(1), PACE)
    assert one.kept_up_by == Keeper("players", "One player is on the server.")


def test_the_last_player_leaves() -> None:
    """The minutes count from the first answer that names none."""
    answers = heard(heard(None, "pod", 1, at(0), PACE), "pod", 0, at(1), PACE)
    assert outlook(MINUTES, "pod", at(-60), answers, at(1), PACE) == Outlook("pod", 0, at(1), at(11), None)


def test_a_server_runs_for_a_while_at_least() -> None:
    """Customers need time to join after a start."""
    answers = Answers("pod", 0, at(0), at(1))
    assert outlook(1, "pod", at(0), answers, at(1), PACE).stops_at == at(10)


def test_an_answer_of_another_pod_says_nothing() -> None:
    """The server was restarted since."""
    answers = Answers("before", 0, at(0), at(1))
    found = outlook(MINUTES, "pod", at(-60), answers, at(1), PACE)
    assert (found.players, found.kept_up_by and found.kept_up_by.slug) == (None, "players-unknown")
    assert heard(answers, "pod", 0, at(1), PACE).since == at(1)


def test_a_clock_that_was_set_back_says_nothing() -> None:
    """Nobody knows how long it was from one answer to the other."""
    answers = Answers("pod", 0, at(0), at(20))
    assert heard(answers, "pod", 0, at(15), PACE).since == at(15)
    assert outlook(MINUTES, "pod", at(-60), answers, at(15), PACE).stops_at is None


@pytest.mark.parametrize(
    ("due", "now", "kept"),
    [
        (25, 1, True),
        (25.1, 1, False),
        (10.1, 1, True),
        # It is due before the stop is: what counts is whether another follows.
        (5, 1, False),
        # The stop is overdue, because a schedule kept the server up.
        (45, 30, True),
        (45.1, 30, False),
    ],
)
def test_a_schedule_that_is_due_soon_after_the_stop_prevents_it(due: float, now: float, kept: bool) -> None:
    """It would start the server again, or find it stopped."""
    answers = Answers("pod", 0, at(0), at(now))

    def next_due(moment: datetime) -> datetime | None:
        return at(due) if moment < at(due) else None

    found = outlook(MINUTES, "pod", at(-60), answers, at(now), PACE, next_due)
    if kept:
        assert found.kept_up_by is not None
        assert found.kept_up_by.slug == "schedule"
        assert found.stops_at is None
    else:
        assert found.stops_at == at(10)


def test_in_tests_minutes_are_short() -> None:
    """All times shrink with the minute."""
    pace = Pace(timedelta(seconds=1))
    answers = heard(Answers("pod", 0, START, START), "pod", 0, START + timedelta(seconds=3), pace)
    assert answers.since == START
    found = outlook(MINUTES, "pod", START, answers, START + timedelta(seconds=3), pace)
    assert found.stops_at == START + timedelta(seconds=10)


@pytest.mark.parametrize(
    "found",
    [
        Outlook("pod", 0, START, at(10)),
        Outlook("pod", 2, START + timedelta(microseconds=7), kept_up_by=Keeper("players", "é")),
        Outlook("pod", kept_up_by=Keeper("players-unknown", "?")),
    ],
)
def test_the_annotation_says_it_all(found: Outlook) -> None:
    """What is written is read as the same, for the pod that it is about."""
    assert outlook_of(server(found.as_text())) == found
    assert outlook_of(server(found.as_text(), pod="another")) is None
    assert outlook_of(server(found.as_text(), pod=None)) is None


GOOD = json.loads(Outlook("pod", 0, START, at(10)).as_text())


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "[]",
        "7",
        "[" * 100_000,
        json.dumps({"pod": "pod"}),
        json.dumps({**GOOD, "players": "0"}),
        json.dumps({**GOOD, "players": True}),
        json.dumps({**GOOD, "since": "yesterday"}),
        json.dumps({**GOOD, "since": 7}),
        json.dumps({**GOOD, "since": "2026-11-27T02:00:00"}),
        json.dumps({**GOOD, "kept_up_by": "players"}),
    ],
)
def test_a_malformed_annotation_says_nothing(text: str | None) -> None:
    """An operator may have written it."""
    assert outlook_of(server(text)) is None


def test_only_what_changes_is_news() -> None:
    """The number of players changes often, and nothing depends on it."""
    three = Outlook("pod", 3, START, kept_up_by=Keeper("players", "3 players are on it."))
    one = Outlook("pod", 1, START, kept_up_by=Keeper("players", "One player is on the server."))
    none = Outlook("pod", 0, START, at(10))
    assert not three.differs(one)
    assert three.differs(None)
    assert one.differs(none)
    assert none.differs(replace(none, stops_at=at(11)))
    assert three.differs(replace(three, since=at(1)))
    assert three.differs(replace(three, pod="another"))


RUNNING = State("running", None, "2026-11-27T01:00:00Z", "running")
STOPPED = State("stopped", None, "2026-11-27T01:00:00Z", "stopped")
WITH = ServerSpec("teeworlds", 1, 1, idle_stop_minutes=10)
WITHOUT = replace(WITH, idle_stop_minutes=0)
NOTHING = {"players": None, "since": None, "stops_at": None, "kept_up_by": None, "stopped_at": None}
STOPPED_AT = "2026-11-27T01:30:00Z"


def keeps(slug: str, detail: str) -> dict[str, Any]:
    return {**NOTHING, "kept_up_by": {"slug": slug, "detail": detail}}


@pytest.mark.parametrize(
    ("objects", "spec", "state", "askable", "expected"),
    [
        (server(Outlook("pod", 0, START, at(10)).as_text()), WITHOUT, RUNNING, True, None),
        (server(None), None, RUNNING, True, None),
        (
            server(Outlook("pod", 0, START, at(10)).as_text()),
            WITH,
            RUNNING,
            True,
            {**NOTHING, "players": 0, "since": "2026-11-27T02:00:00Z", "stops_at": "2026-11-27T02:10:00Z"},
        ),
        (
            server(None),
            WITH,
            RUNNING,
            True,
            keeps("players-unknown", "The game has not said how many players are on it."),
        ),
        (
            server(Outlook("pod", 0, START, at(10)).as_text()),
            WITH,
            RUNNING,
            False,
            keeps("cannot-be-asked", "The game cannot be asked how many players are on it."),
        ),
        (server(Outlook("pod", 0, START, at(10)).as_text()), WITH, replace(RUNNING, state="starting"), True, NOTHING),
        (server(None), WITH, STOPPED, True, NOTHING),
        (server(None, idle_stopped=STOPPED_AT), WITH, STOPPED, True, {**NOTHING, "stopped_at": STOPPED_AT}),
        (server(None, idle_stopped=STOPPED_AT), WITHOUT, STOPPED, True, {**NOTHING, "stopped_at": STOPPED_AT}),
        # An operator has started it by hand.
        (server(None, idle_stopped=STOPPED_AT), WITHOUT, RUNNING, True, None),
    ],
)
def test_what_the_api_shows(
    objects: ServerObjects, spec: ServerSpec | None, state: State, askable: bool, expected: dict[str, Any] | None
) -> None:
    """What keeps a running server up or when it will stop, and when a stopped one was stopped for it."""
    assert idle_of(objects, spec, state, askable) == expected
