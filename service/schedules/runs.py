"""The latest run of each schedule: its record, and what may become of it. Pure.

The records are in one annotation of the server's StatefulSet, which is written by compare-and-set, so of all that try
to change a record at once, one does. There is no flag that says "running": a run is unfinished, and it names its
runner. The run of a runner that is no longer the active controller is interrupted, whoever looks first.

    requested ─┐
    (due) ─────┴─> begun ─> step 1 ─> step 2 ─> … ─> finished
                     └───────┴─────────┴────────> interrupted

A step's number is written before the step is done, and a run never goes back, so no step is done twice.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from service.kube.times import stamp

OUTCOMES = ("succeeded", "failed", "timed-out", "aborted", "interrupted", "skipped", "missed")
FAILED = frozenset({"failed", "timed-out", "interrupted", "missed"})
"""The outcomes that someone should hear of."""
LONGEST_REASON = 300
_MOST_RECORDS = 40


class Gone(Exception):
    """The run is no longer this runner's: it was interrupted, or its server or schedule is another one now."""


class Aborted(Exception):
    """Someone has aborted the run."""


class AlreadyRunning(Exception):
    """The schedule has an unfinished run; a run never overlaps another of the same schedule."""


class NotDue(Exception):
    """What was due has been dealt with."""


@dataclass(frozen=True)
class Run:
    """A run.

    Attributes:
        of: The `created` of its schedule.
        due: When it was due, or asked for.
        asked_by: The name of the token that asked for it; None if it came by itself.
        started: When it began; None if it is still to begin, or never did.
        runner: Which controller runs it.
        step, steps: The number of the step that was begun last, from 1, and how many there are.
        action: What that step does.
        abort: Whether it has to end before its next step.
        finished, outcome, reason: When and how it ended, one of OUTCOMES; and why, if there is something to say.
    """

    of: str
    due: datetime
    asked_by: str | None = None
    started: datetime | None = None
    runner: str = ""
    step: int = 0
    steps: int = 0
    action: str = ""
    abort: bool = False
    finished: datetime | None = None
    outcome: str | None = None
    reason: str | None = None

    @property
    def running(self) -> bool:
        """Whether it has begun and not ended."""
        return self.started is not None and self.finished is None

    @property
    def asked_for(self) -> bool:
        """Whether someone asked for it, and it has not begun."""
        return self.started is None and self.finished is None


Runs = Mapping[str, Run]
"""Runs by the names of their schedules."""
Transition = Callable[[Run | None], Run | None]
"""Takes the record of a schedule and returns the new one; None for no record."""


def read(text: str | None) -> dict[str, Run]:
    """The records in the annotation's text; what cannot be read is left out."""
    try:
        records = json.loads(text or "{}")
        items = list(records.items())
    except (AttributeError, ValueError, RecursionError):
        return {}
    runs = {}
    for name, fields in items:
        try:
            times = {
                key: datetime.fromisoformat(fields[key]) for key in ("due", "started", "finished") if key in fields
            }
            run = Run(**{**fields, **times})
            run.due.astimezone()
            if all(time.tzinfo for time in times.values()) and isinstance(run.step, int):
                runs[name] = run
        except (AttributeError, KeyError, TypeError, ValueError):
            continue
    return runs


def changed(text: str | None, name: str, transition: Transition, known: Collection[str] | None = None) -> str | None:
    """The annotation's text with one record changed; None if none is left.

    Args:
        text: The text as it is.
        name: The name of the schedule.
        transition: What becomes of its record; may raise.
        known: The names of the server's schedules, if the caller knows them. If there are too many records, those of
            others go.
    """
    runs = read(text)
    new = transition(runs.pop(name, None))
    if known is not None and len(runs) >= _MOST_RECORDS:
        runs = {other: run for other, run in runs.items() if other in known}
    if new is not None:
        runs[name] = new
    return (
        json.dumps({key: _written(run) for key, run in sorted(runs.items())}, separators=(",", ":")) if runs else None
    )


def base(run: Run | None, of: str, since: datetime) -> datetime:
    """The time up to which the schedule `of`, set at `since`, has been dealt with."""
    return max(run.due, since) if run is not None and run.of == of else since


# -- transitions -------------------------------------------------------------------------------------------


def asked(run: Run | None, of: str, now: datetime, by: str) -> Run:
    """Someone asks for a run now; raises AlreadyRunning if there is one, or it was asked for."""
    if run is None or run.of != of:
        return Run(of, now, asked_by=by)
    if run.running or run.asked_for:
        raise AlreadyRunning
    # After the last one, also by a clock that is behind: otherwise that one would be due again.
    return Run(of, max(now, run.due + timedelta(microseconds=1)), asked_by=by)


def aborted(run: Run | None, of: str, now: datetime) -> Run | None:
    """Someone aborts the run: it ends before its next step. A run that has ended, or never was, stays as it is."""
    if run is None or run.of != of or not (run.running or run.asked_for):
        return run
    if run.asked_for:
        return replace(run, finished=now, outcome="aborted")
    return replace(run, abort=True)


def begun(run: Run | None, of: str, due: datetime, runner: str, now: datetime, steps: int) -> Run:
    """The run that was due at `due`, or was asked for, begins; raises NotDue if another has."""
    if run is not None and run.of == of:
        if run.running and (run.due, run.runner, run.step) == (due, runner, 0):
            return run  # The same again is a write whose answer was lost.
        if run.asked_for and run.due == due:
            return replace(run, started=now, runner=runner, steps=steps)
        if run.running or run.asked_for or run.due >= due:
            raise NotDue
    return Run(of, due, started=now, runner=runner, steps=steps)


def passed(run: Run | None, of: str, due: datetime, now: datetime, outcome: str, reason: str) -> Run:
    """What was due does not begin (`skipped` or `missed`); raises NotDue as `begun` does."""
    return replace(begun(run, of, due, "", now, 0), started=None, finished=now, outcome=outcome, reason=_short(reason))


def at_step(run: Run | None, of: str, due: datetime, runner: str, step: int, action: str) -> Run:
    """The run begins a step; raises Gone, or Aborted."""
    run = _own(run, of, due, runner)
    if run.abort:
        raise Aborted
    # The same again is a write whose answer was lost.
    if step not in (run.step, run.step + 1) or step < 1:
        raise Gone
    return replace(run, step=step, action=action)


def ended(
    run: Run | None, of: str, due: datetime, runner: str, now: datetime, outcome: str, reason: str | None = None
) -> Run:
    """The run ends; raises Gone."""
    return replace(_own(run, of, due, runner), finished=now, outcome=outcome, reason=_short(reason), abort=False)


def interrupted(run: Run | None, runner: str, now: datetime) -> Run | None:
    """The run ends, if it is of a runner that is not `runner`, which is the active controller."""
    if run is None or not run.running or run.runner == runner:
        return run
    reason = "The controller that ran it ended before its first step."
    if run.step:
        reason = (
            f"The controller that ran it ended in step {run.step} of {run.steps} ({run.action}), "
            "so nobody knows whether that step was done."
        )
    return replace(run, finished=now, outcome="interrupted", reason=reason, abort=False)


def _own(run: Run | None, of: str, due: datetime, runner: str) -> Run:
    if run is None or not run.running or (run.of, run.due, run.runner) != (of, due, runner):
        raise Gone
    return run


def _short(reason: str | None) -> str | None:
    return reason if reason is None or len(reason) <= LONGEST_REASON else f"{reason[: LONGEST_REASON - 1]}…"


def _written(run: Run) -> dict[str, Any]:
    """The record's fields; those that say nothing are left out."""
    fields = {key: value for key, value in asdict(run).items() if value not in (None, "", False, 0)}
    return {key: stamp(value, micro=True) if isinstance(value, datetime) else value for key, value in fields.items()}
