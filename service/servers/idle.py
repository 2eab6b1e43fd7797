"""When a server is stopped because nobody plays on it. Pure.

What a game has said is its answers (`Answers`): a row of numbers of players without a long gap. From these, and from
what else keeps a server up, follows its outlook (`Outlook`): what keeps it up now, or when it will be stopped. The
controller writes the outlook to an annotation of the StatefulSet, for the API, and for the controller that takes over.

An unanswered question is no answer: it never counts as 0 players, and neither does the time in which nobody asked.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from service.kube.times import stamp
from service.servers.accessors import annotation, uid
from service.servers.names import IDLE
from service.servers.objects import Objects
from service.servers.spec import ServerSpec, idle_stopped_at
from service.servers.state import State

KEEPERS = ("players", "schedule", "players-unknown", "cannot-be-asked")
"""The slugs of what can keep a server up."""


@dataclass(frozen=True)
class Pace:
    """How long everything lasts; `minute` is shorter in tests.

    Attributes:
        minute: What `idle_stop_minutes` counts.
        ask: From one question to the next.
        confirm: From the answer that a stop is due to the last question before it.
        fresh: For how long an answer says how many players there are.
        gap: Answers that are further apart are not of one row, so the time between them does not count.
        grace: How long a server runs at least.
        schedule: A schedule that is due so soon after a stop prevents it.
        numbers: How often the number of players is written if nothing else has changed.
    """

    minute: timedelta = timedelta(minutes=1)

    @property
    def ask(self) -> timedelta:
        return self.minute / 2

    @property
    def confirm(self) -> timedelta:
        return self.minute / 6

    @property
    def fresh(self) -> timedelta:
        return self.minute

    @property
    def gap(self) -> timedelta:
        return 3 * self.minute

    @property
    def grace(self) -> timedelta:
        return 10 * self.minute

    @property
    def schedule(self) -> timedelta:
        return 15 * self.minute

    @property
    def numbers(self) -> timedelta:
        return self.minute


@dataclass(frozen=True)
class Answers:
    """What a game has said, without a long gap.

    Attributes:
        pod: The uid of its pod.
        players: How many players it named last.
        since: Since when all answers name players, or all name none.
        asked: When it answered last.
    """

    pod: str
    players: int
    since: datetime
    asked: datetime


def heard(before: Answers | None, pod: str, players: int, now: datetime, pace: Pace) -> Answers:
    """The answers after another one; `before` are those until then, if there are any."""
    continues = (
        before is not None
        and before.pod == pod
        # A clock that was set back says nothing about the time between.
        and timedelta() <= now - before.asked <= pace.gap
        and (before.players == 0) == (players == 0)
    )
    return Answers(pod, players, before.since if before and continues else now, now)


@dataclass(frozen=True)
class Keeper:
    """What keeps a server up: one of KEEPERS, and a sentence for people."""

    slug: str
    detail: str


_UNKNOWN = Keeper("players-unknown", "The game has not said how many players are on it.")


@dataclass(frozen=True)
class Outlook:
    """What idle stop makes of a running server. Either `stops_at` or `kept_up_by` is set.

    Attributes:
        pod: The uid of the server's pod.
        players: How many players are on it; None if that is unknown.
        since: Since when somebody plays, or nobody does; None if that is unknown.
        stops_at: When it will be stopped if nothing changes.
        kept_up_by: What keeps it up.
    """

    pod: str
    players: int | None = None
    since: datetime | None = None
    stops_at: datetime | None = None
    kept_up_by: Keeper | None = None

    def due(self, now: datetime) -> bool:
        """Whether it has to be stopped now."""
        return self.stops_at is not None and self.stops_at <= now

    def differs(self, before: Outlook | None) -> bool:
        """Whether more has changed than how many players play."""
        return before is None or self._without_number() != before._without_number()

    def _without_number(self) -> Outlook:
        return replace(self, players=1, kept_up_by=None) if self.players else self

    def as_text(self) -> str:
        """The annotation's text, which `outlook_of` reads."""
        since, stops_at = (time and stamp(time, micro=True) for time in (self.since, self.stops_at))
        keeper = self.kept_up_by and vars(self.kept_up_by)
        fields = {**vars(self), "since": since, "stops_at": stops_at, "kept_up_by": keeper}
        return json.dumps(fields, ensure_ascii=False)


def outlook(
    minutes: int,
    pod: str,
    running_since: datetime,
    answers: Answers | None,
    now: datetime,
    pace: Pace,
    next_due: Callable[[datetime], datetime | None] = lambda moment: None,
) -> Outlook:
    """What becomes of a running server.

    Args:
        minutes: For how many minutes nobody has to play; more than 0.
        pod: The uid of its pod.
        running_since: Since when its game answers.
        answers: What the game has said.
        now: The current time.
        pace: How long everything lasts.
        next_due: When a schedule of the server is due first after a time; None if none is.
    """
    if answers is None or answers.pod != pod or not timedelta() <= now - answers.asked <= pace.fresh:
        return Outlook(pod, kept_up_by=_UNKNOWN)
    known = Outlook(pod, answers.players, answers.since)
    if answers.players:
        detail = "One player is on the server." if answers.players == 1 else f"{answers.players} players are on it."
        return replace(known, kept_up_by=Keeper("players", detail))
    stops_at = max(answers.since + minutes * pace.minute, running_since + pace.grace)
    due = next_due(max(stops_at, now))
    if due is not None and due - max(stops_at, now) <= pace.schedule:
        return replace(known, kept_up_by=Keeper("schedule", f"A schedule is due at {stamp(due)}."))
    return replace(known, stops_at=stops_at)


def outlook_of(objects: Objects) -> Outlook | None:
    """The outlook in the annotation; None if there is none about the pod that the server has now."""
    try:
        fields = json.loads(annotation(objects.statefulset, IDLE) or "")
        since, stops_at = (fields[name] and datetime.fromisoformat(fields[name]) for name in ("since", "stops_at"))
        keeper = fields["kept_up_by"] and Keeper(str(fields["kept_up_by"]["slug"]), str(fields["kept_up_by"]["detail"]))
        found = Outlook(str(fields["pod"]), fields["players"], since, stops_at, keeper)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        return None
    # An operator may have written it by hand.
    counted = found.players is None or type(found.players) is int
    zoned = all(time is None or time.tzinfo for time in (since, stops_at))
    return found if counted and zoned and found.pod == uid(objects.pod) else None


def answers_of(found: Outlook | None, asked: datetime) -> Answers | None:
    """The answers behind the outlook that another controller has written, who asked last at `asked`."""
    if found is None or found.players is None or found.since is None:
        return None
    return Answers(found.pod, found.players, found.since, asked)


def running_since(state: State) -> datetime | None:
    """Since when the game of a server with this state answers; None unless the server is running."""
    return datetime.fromisoformat(state.since) if state.state == "running" and state.since else None


def idle_of(objects: Objects, spec: ServerSpec | None, state: State, askable: bool) -> dict[str, Any] | None:
    """What the API shows of it; None unless the server is to stop when nobody plays, or was stopped for that.

    Args:
        objects: The server's objects.
        spec: Its spec.
        state: Its state.
        askable: Whether its game can be asked for its players.
    """
    minutes = spec.idle_stop_minutes if spec else 0
    stopped_at = idle_stopped_at(objects) if state.wanted == "stopped" else None
    if not minutes and stopped_at is None:
        return None
    found = _current(objects, askable) if minutes and state.state == "running" else Outlook("")
    return {
        "players": found.players,
        "since": found.since and stamp(found.since),
        "stops_at": found.stops_at and stamp(found.stops_at),
        "kept_up_by": found.kept_up_by and vars(found.kept_up_by),
        "stopped_at": stopped_at,
    }


def _current(objects: Objects, askable: bool) -> Outlook:
    if not askable:
        return Outlook("", kept_up_by=Keeper("cannot-be-asked", "The game cannot be asked how many players are on it."))
    return outlook_of(objects) or Outlook("", kept_up_by=_UNKNOWN)
