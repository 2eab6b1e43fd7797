"""The records of runs, and what may become of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from service.schedules import runs
from service.schedules.runs import Run

OF = "2026-06-01T00:00:00.000000Z"
DUE = datetime(2026, 6, 2, 4, tzinfo=UTC)
NOW = DUE + timedelta(seconds=1)


def written(**records: Run) -> str:
    """An annotation with these records."""
    text = None
    for name, run in records.items():
        text = runs.changed(text, name, lambda _, run=run: run)  # type: ignore[misc]
    assert text is not None
    return text


def begun() -> Run:
    """A run of three steps that has begun."""
    return runs.begun(None, OF, DUE, "a", NOW, 3)


def test_a_run_from_begin_to_end() -> None:
    """Each step is written before it is done, and the record says how it ended."""
    run = begun()
    for step, action in ((1, "stop"), (2, "wait"), (3, "start")):
        run = runs.at_step(run, OF, DUE, "a", step, action)
    run = runs.ended(run, OF, DUE, "a", NOW + timedelta(minutes=5), "succeeded")
    assert runs.read(written(nightly=run)) == {"nightly": run}
    assert run == Run(
        OF,
        DUE,
        started=NOW,
        runner="a",
        step=3,
        steps=3,
        action="start",
        finished=NOW + timedelta(minutes=5),
        outcome="succeeded",
    )
    with pytest.raises(runs.NotDue):
        runs.begun(run, OF, DUE, "b", NOW, 3)
    assert runs.begun(run, OF, DUE + timedelta(days=1), "b", NOW, 3).runner == "b"


def test_only_one_begins() -> None:
    """Of two that begin the same run, the second is told; a lost answer of the first is no second run."""
    with pytest.raises(runs.NotDue):
        runs.begun(begun(), OF, DUE, "b", NOW, 3)
    assert runs.begun(begun(), OF, DUE, "a", NOW + timedelta(seconds=9), 3) == begun()
    with pytest.raises(runs.NotDue):
        runs.begun(runs.at_step(begun(), OF, DUE, "a", 1, "stop"), OF, DUE, "a", NOW, 3)


def test_a_step_is_never_written_twice() -> None:
    """A run goes forward one step at a time; the same step again is a lost answer."""
    run = runs.at_step(begun(), OF, DUE, "a", 1, "stop")
    assert runs.at_step(run, OF, DUE, "a", 1, "stop") == run
    run = runs.at_step(run, OF, DUE, "a", 2, "wait")
    for step in (0, 1, 4):
        with pytest.raises(runs.Gone):
            runs.at_step(run, OF, DUE, "a", step, "stop")


@pytest.mark.parametrize(
    "other",
    [
        None,
        replace(begun(), runner="b"),
        replace(begun(), of="later"),
        replace(begun(), due=DUE + timedelta(days=1)),
        runs.interrupted(begun(), "b", NOW),
        runs.ended(begun(), OF, DUE, "a", NOW, "failed", "why"),
    ],
)
def test_a_runner_whose_run_is_gone_does_nothing_more(other: Run | None) -> None:
    """It was interrupted, or deleted, or the schedule is another one now."""
    with pytest.raises(runs.Gone):
        runs.at_step(other, OF, DUE, "a", 1, "stop")
    with pytest.raises(runs.Gone):
        runs.ended(other, OF, DUE, "a", NOW, "succeeded")


def test_an_interrupted_run_names_its_step() -> None:
    """The active controller's own runs go on, and ended ones stay as they are."""
    run = runs.at_step(begun(), OF, DUE, "a", 1, "restart")
    assert runs.interrupted(run, "a", NOW) == run
    assert runs.interrupted(None, "b", NOW) is None
    ended = runs.interrupted(run, "b", NOW)
    assert ended is not None
    assert (ended.outcome, ended.step, ended.action, ended.running) == ("interrupted", 1, "restart", False)
    assert ended.reason == (
        "The controller that ran it ended in step 1 of 3 (restart), so nobody knows whether that step was done."
    )
    assert runs.interrupted(ended, "c", NOW) == ended
    early = runs.interrupted(begun(), "b", NOW)
    assert early is not None
    assert early.reason == "The controller that ran it ended before its first step."


def test_asking_for_a_run() -> None:
    """Only one of two gets it. It is due at once, and what was due before is not made up for."""
    asked = runs.asked(None, OF, NOW, "shop")
    assert asked.asked_for
    for run in (asked, begun()):
        with pytest.raises(runs.AlreadyRunning):
            runs.asked(run, OF, NOW, "shop")
    run = runs.begun(asked, OF, NOW, "a", NOW, 3)
    assert (run.asked_by, run.due, run.running) == ("shop", NOW, True)
    with pytest.raises(runs.NotDue):
        runs.begun(asked, OF, DUE, "a", NOW, 3)
    assert runs.asked(replace(begun(), of="an earlier one"), OF, NOW, "shop").asked_for


def test_asking_with_a_clock_that_is_behind() -> None:
    """What was dealt with stays so."""
    ended = runs.ended(begun(), OF, DUE, "a", NOW, "succeeded")
    asked = runs.asked(ended, OF, DUE - timedelta(seconds=2), "shop")
    assert runs.base(asked, OF, DUE - timedelta(days=1)) > DUE


def test_aborting() -> None:
    """A run ends before its next step, one that was asked for at once; any other stays as it is."""
    assert runs.aborted(None, OF, NOW) is None
    run = runs.aborted(begun(), OF, NOW)
    with pytest.raises(runs.Aborted):
        runs.at_step(run, OF, DUE, "a", 1, "stop")
    ended = runs.ended(run, OF, DUE, "a", NOW, "aborted")
    assert (ended.abort, ended.outcome) == (False, "aborted")
    assert runs.aborted(ended, OF, NOW) == ended
    assert runs.aborted(begun(), "another", NOW) == begun()
    asked = runs.aborted(runs.asked(None, OF, NOW, "shop"), OF, NOW)
    assert asked is not None
    assert (asked.outcome, asked.asked_for) == ("aborted", False)


def test_what_is_passed_over_is_dealt_with() -> None:
    """It is shown with its reason, and does not begin any more."""
    run = runs.passed(None, OF, DUE, NOW, "missed", "x" * 1000)
    assert (run.started, run.finished, run.outcome, len(run.reason or "")) == (None, NOW, "missed", 300)
    assert runs.base(run, OF, DUE - timedelta(days=9)) == DUE
    with pytest.raises(runs.NotDue):
        runs.begun(run, OF, DUE, "a", NOW, 3)
    with pytest.raises(runs.NotDue):
        runs.passed(begun(), OF, DUE + timedelta(hours=1), NOW, "missed", "")


def test_the_past_of_another_schedule_does_not_count() -> None:
    """A schedule that is deleted and set again under its name begins anew."""
    since = DUE + timedelta(hours=1)
    assert runs.base(begun(), OF, DUE - timedelta(days=1)) == DUE
    assert runs.base(begun(), OF, since) == since
    assert runs.base(begun(), "later", DUE - timedelta(days=1)) == DUE - timedelta(days=1)
    assert runs.begun(begun(), "later", DUE, "a", NOW, 1).of == "later"


@pytest.mark.parametrize(
    "text", [None, "", "{", "[]", '"x"', '{"a": 7}', '{"a": {}}', '{"a": {"of": "x", "due": "soon"}}',
             '{"a": {"of": "x", "due": "2026-01-01T00:00:00"}}', '{"a": {"of": "x", "due": 3}}', "[" * 10**5,
             '{"a": {"of": "x", "due": "2026-01-01T00:00:00Z", "more": 1}}'],
)  # fmt: skip
def test_what_cannot_be_read_is_left_out(text: str | None) -> None:
    """And the next write drops it."""
    assert runs.read(text) == {}
    assert list(json.loads(runs.changed(text, "b", lambda run: begun()) or "")) == ["b"]


def test_records_of_schedules_that_are_gone_do_not_pile_up() -> None:
    """Nor do those of known ones get lost."""
    text = written(**{f"s{number}": begun() for number in range(40)})
    assert set(runs.read(runs.changed(text, "new", lambda run: begun(), {"s7", "new"}))) == {"s7", "new"}
    assert runs.changed(written(a=begun()), "a", lambda run: None) is None


class Controllers(RuleBasedStateMachine):
    """Controllers that are killed at any point; one is active at a time, and some do not know that they no longer are.

    `done` counts each step that was really done, by the time its run was due.
    """

    def __init__(self) -> None:
        super().__init__()
        self.text: str | None = None
        self.now = DUE
        self.active = 0
        self.memory: tuple[datetime, int, bool] | None = None
        """The active controller's run: when it was due, its next step, and whether that step is written."""
        self.stale: list[tuple[str, datetime, int]] = []
        self.done: Counter[tuple[datetime, int]] = Counter()
        self.due = DUE

    def change(self, transition: Callable[[Run | None], Run | None]) -> Run | None:
        self.text = runs.changed(self.text, "nightly", transition)
        return self.record

    @property
    def record(self) -> Run | None:
        return runs.read(self.text).get("nightly")

    @property
    def runner(self) -> str:
        return f"controller {self.active}"

    @initialize()
    def begin(self) -> None:
        self.now += timedelta(seconds=1)

    @rule(minutes=st.integers(1, 30))
    def time_passes(self, minutes: int) -> None:
        self.now += timedelta(minutes=minutes)
        self.due = max(self.due, self.now.replace(minute=self.now.minute // 10 * 10, second=0))

    @precondition(lambda self: self.memory is None)
    @rule(lost_answer=st.booleans())
    def looks(self, lost_answer: bool) -> None:
        """The active controller interrupts what a dead one left, or begins what is due."""
        self.change(lambda run: runs.interrupted(run, self.runner, self.now))
        asked = self.record is not None and self.record.asked_for
        due = self.record.due if asked and self.record else self.due
        try:
            self.change(lambda run: runs.begun(run, OF, due, self.runner, self.now, 3))
        except runs.NotDue:
            return
        if not lost_answer:
            self.memory = (due, 1, False)

    @precondition(lambda self: self.memory is not None and not self.memory[2])
    @rule(lost_answer=st.booleans())
    def writes_a_step(self, lost_answer: bool) -> None:
        assert self.memory
        due, step, _ = self.memory
        try:
            if step > 3:
                self.change(lambda run: runs.ended(run, OF, due, self.runner, self.now, "succeeded"))
                self.memory = None if not lost_answer else self.memory
            else:
                self.change(lambda run: runs.at_step(run, OF, due, self.runner, step, "restart"))
                self.memory = (due, step, not lost_answer)
        except runs.Aborted:
            self.change(lambda run: runs.ended(run, OF, due, self.runner, self.now, "aborted"))
            self.memory = None
        except runs.Gone:
            self.memory = None

    @precondition(lambda self: self.memory is not None and self.memory[2])
    @rule()
    def does_the_step(self) -> None:
        assert self.memory
        due, step, _ = self.memory
        self.done[due, step] += 1
        self.memory = (due, step + 1, False)

    @rule(frozen=st.booleans())
    def is_killed(self, frozen: bool) -> None:
        """Or frozen, and thaws when another is active."""
        if frozen and self.memory and not self.memory[2]:
            self.stale.append((self.runner, self.memory[0], self.memory[1]))
        self.active += 1
        self.memory = None
        self.change(lambda run: runs.interrupted(run, self.runner, self.now))

    @precondition(lambda self: self.stale)
    @rule()
    def thaws(self) -> None:
        runner, due, step = self.stale.pop()
        try:
            self.change(lambda run: runs.at_step(run, OF, due, runner, step, "restart"))
        except (runs.Gone, runs.Aborted):
            return
        self.done[due, step] += 1

    @rule()
    def someone_asks(self) -> None:
        try:
            self.change(lambda run: runs.asked(run, OF, self.now, "shop"))
        except runs.AlreadyRunning:
            assert self.record is not None
            assert self.record.running or self.record.asked_for

    @rule()
    def someone_aborts(self) -> None:
        self.change(lambda run: runs.aborted(run, OF, self.now))

    @invariant()
    def no_step_is_done_twice(self) -> None:
        assert all(count == 1 for count in self.done.values()), self.done

    @invariant()
    def a_run_is_never_stuck(self) -> None:
        """Whatever is unfinished is the active controller's, which has it in hand or begins it again."""
        run = self.record
        if run is not None and run.running:
            assert run.runner == self.runner
            assert self.memory is not None or run.step == 0

    @invariant()
    def an_interrupted_run_shows_its_step(self) -> None:
        run = self.record
        if run is not None and run.outcome == "interrupted":
            assert not [step for due, step in self.done if due == run.due and step > run.step]


Controllers.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestControllers = Controllers.TestCase
