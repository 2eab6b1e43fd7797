"""Set, read, delete, run and abort a server's schedules; and whose rights their runs have.

A schedule keeps the name of the token that set it, and what this token could do then that the steps need. A run may do
no more than that, and no more than the token may do when it runs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from service.errors import (
    ObjectMissing,
    ScheduleNotFound,
    SchedulePaused,
    ScheduleRunning,
    TokensNotKept,
    TooManySchedules,
)
from service.kube.times import stamp
from service.kube.types import Object
from service.operations.checks import require_not_suspended, require_same_server
from service.operations.context import Context
from service.operations.tokens import LOGIN
from service.operations.visibility import Target
from service.schedules import runs, spec
from service.schedules.runs import Run
from service.schedules.spec import Schedule, SetBy, Step
from service.servers.accessors import annotation
from service.servers.names import SCHEDULE_RUNS, SCHEDULES
from service.servers.values import Values
from service.tokens import Token
from service.tokenstore.records import all_of, token_key

_LOGIN_TOKEN = re.compile(rf"{LOGIN}[0-9a-f]{{12}}")
# A login token may make login links itself, if its maker has let it.
_MOST_LOGINS = 5


@dataclass(frozen=True)
class View:
    """A schedule as its server's customer sees it.

    Attributes:
        name: Its name.
        schedule: What was set.
        next_run: When it is due next; None if it is not.
        paused: Why it does nothing when it is due; None if it does.
        run: Its latest run; None if it never ran.
    """

    name: str
    schedule: Schedule
    next_run: datetime | None
    paused: str | None
    run: Run | None


class Standing:
    """The tokens that schedules stand under, read once."""

    def __init__(self, context: Context) -> None:
        """May raise ClusterUnavailable."""
        try:
            records = all_of(context.tokens.issued())
        except TokensNotKept:
            records = {}
        now = datetime.now(UTC)
        self._operators = {token.name: token for token in context.tokens.operators()}
        self._issued = {key: record for key, record in records.items() if record.token.valid_at(now)}

    def identity(self, caller: Token) -> str:
        """The name of the token that a schedule of this caller stands under.

        A token from a login link lasts for hours, so what it sets stands under the token that made the link.
        """
        name = caller.name
        for _ in range(_MOST_LOGINS):
            record = self._issued.get(token_key(name))
            if record is None or not _LOGIN_TOKEN.fullmatch(name) or not record.made_by:
                break
            name = record.made_by
        return name

    def token_of(self, schedule: Schedule, customer: str, id: int) -> Token:
        """What a run of this schedule may do now, at the server `id` of this customer; raises SchedulePaused.

        A token that was issued after the schedule was set is another one, even under the same name.
        """
        by = schedule.by
        token = self._operators.get(by.token)
        record = self._issued.get(token_key(by.token))
        if token is None and record is not None and _made_by_then(record.created, by.since):
            token = record.token
        if token is None:
            raise SchedulePaused(f"The token that set it, {by.token}, is no longer valid.")
        granted = Token(by.token, "", by.scopes & token.actions, by.customer, by.servers)
        if not token.may_see(customer, id) or not granted.may_see(customer, id):
            raise SchedulePaused(f"The token that set it, {by.token}, may no longer see this server.")
        if lacking := sorted(schedule.scopes - granted.actions):
            raise SchedulePaused(f"The token that set it, {by.token}, no longer has the scope {', '.join(lacking)}.")
        return granted

    def pause_of(self, schedule: Schedule, target: Target) -> str | None:
        """Why a schedule of this server does nothing when it is due; None if it does."""
        try:
            self.token_of(schedule, _customer(target), target.id)
        except SchedulePaused as problem:
            return problem.detail
        return None


def put(context: Context, caller: Token, target: Target, name: str, request: Mapping[str, Any]) -> tuple[View, bool]:
    """Set a schedule. A run that goes on ends with the steps that it began with.

    Args:
        context: The operation's collaborators.
        caller: Who sets it.
        target: The server.
        name: The schedule's name.
        request: A loaded PutSchedule.

    Returns:
        The schedule, and whether it is new.

    Raises:
        MissingScope: The caller lacks a scope that a step needs.
        TooManySchedules: The server has as many as it may have, or they would be too large together.
        Suspended: The server is suspended.
        ObjectMissing: Its StatefulSet is missing.
        ServerNotFound: The server is gone; there may be another one with its id.
    """
    _require_statefulset(target)
    now = datetime.now(UTC).replace(microsecond=0)
    standing = Standing(context)
    wanted = Schedule(
        cron=request["cron"],
        timezone=request["timezone"],
        steps=tuple(Step.of(step) for step in request["steps"]),
        only_when=request["only_when"],
        enabled=request["enabled"],
        timeout_s=request["timeout_s"],
        created=stamp(datetime.now(UTC), micro=True),
        by=SetBy(standing.identity(caller), now, frozenset(), caller.customer),
    )
    for scope in sorted(wanted.scopes):
        caller.require(scope)
    # No more than the steps need, so that a shop's schedule does not start a server that the shop has suspended.
    servers = None if caller.servers is None else frozenset({target.id})
    wanted = replace(wanted, by=replace(wanted.by, scopes=wanted.scopes, servers=servers))
    created = False

    def new_schedules(values: dict[str, Any]) -> None:
        nonlocal wanted, created
        before = spec.of_values(values).get(name)
        created = name not in values
        if created and len(values) >= spec.MOST_SCHEDULES:
            raise TooManySchedules()
        if before is not None:
            same = replace(wanted, created=before.created, by=replace(wanted.by, since=before.by.since))
            # A paused one is set anew even if nothing differs, because a token of the same name may be another by now.
            keep = same == before and standing.pause_of(before, target) is None
            wanted = before if keep else replace(wanted, created=before.created)
        values[name] = spec.values_of(wanted)
        if spec.size_of(values) > spec.MOST_BYTES:
            raise TooManySchedules(
                "All schedules together would have more than 64 KiB. Shorten their commands, or delete one first."
            )

    _change(context, caller, target, new_schedules)
    return _view(context, target, name, wanted), created


def get(context: Context, target: Target, name: str) -> View:
    """The schedule with this name; raises ScheduleNotFound."""
    return _view(context, target, name, _existing(target, name))


def list_all(context: Context, target: Target) -> list[View]:
    """All schedules of the server, by name."""
    standing = Standing(context)
    return [_view(context, target, name, schedule, standing) for name, schedule in sorted(_schedules(target).items())]


def delete(context: Context, caller: Token, target: Target, name: str) -> None:
    """Delete a schedule; a run that goes on ends before its next step.

    Raises:
        ScheduleNotFound: There is no schedule with this name.
        Suspended, ObjectMissing, ServerNotFound: As for `put`.
    """
    _require_statefulset(target)

    def without(values: dict[str, Any]) -> None:
        if name not in values:
            raise ScheduleNotFound()
        del values[name]

    _change(context, caller, target, without)
    _change_run(context, target, name, lambda run: None)


def run_now(context: Context, caller: Token, target: Target, name: str) -> View:
    """Ask for a run now, whether or not the schedule is enabled; the controller begins it within seconds.

    Raises:
        MissingScope: The caller lacks a scope that a step needs.
        ScheduleNotFound: There is no schedule with this name.
        SchedulePaused: The token that set it no longer allows it.
        ScheduleRunning: It runs, or was asked to.
        Suspended: The server is suspended.
    """
    require_not_suspended(caller, target.suspended)
    schedule = _existing(target, name)
    for scope in sorted(schedule.scopes):
        caller.require(scope)
    Standing(context).token_of(schedule, _customer(target), target.id)
    now = datetime.now(UTC)
    try:
        run = _change_run(context, target, name, lambda run: runs.asked(run, schedule.created, now, caller.name))
    except runs.AlreadyRunning as error:
        raise ScheduleRunning() from error
    return replace(_view(context, target, name, schedule), run=run)


def abort(context: Context, caller: Token, target: Target, name: str) -> View:
    """End the schedule's run before its next step; if it does not run, nothing changes.

    May raise ScheduleNotFound and Suspended.
    """
    require_not_suspended(caller, target.suspended)
    schedule = _existing(target, name)
    now = datetime.now(UTC)
    run = _change_run(context, target, name, lambda run: runs.aborted(run, schedule.created, now))
    return replace(_view(context, target, name, schedule), run=_of(schedule, run))


def schedules_of(statefulset: Object | None) -> Mapping[str, Schedule]:
    """A server's schedules by name, as its StatefulSet has them."""
    return spec.of_annotation(annotation(statefulset, SCHEDULES))


def runs_of(statefulset: Object | None) -> Mapping[str, Run]:
    """The latest runs of a server's schedules, as its StatefulSet has them."""
    return runs.read(annotation(statefulset, SCHEDULE_RUNS))


def _require_statefulset(target: Target) -> None:
    if target.objects.statefulset is None:
        raise ObjectMissing(f"The StatefulSet of server {target.id} is missing. Start the server to restore it.")


def _schedules(target: Target) -> Mapping[str, Schedule]:
    _require_statefulset(target)
    return schedules_of(target.objects.statefulset)


def _existing(target: Target, name: str) -> Schedule:
    schedule = _schedules(target).get(name)
    if schedule is None:
        raise ScheduleNotFound()
    return schedule


def _view(context: Context, target: Target, name: str, schedule: Schedule, standing: Standing | None = None) -> View:
    paused = (standing or Standing(context)).pause_of(schedule, target)
    run = _of(schedule, runs_of(target.objects.statefulset).get(name))
    due = schedule.next_after(target.id, name, datetime.now(UTC))
    return View(name, schedule, None if paused else due, paused, run)


def _of(schedule: Schedule, run: Run | None) -> Run | None:
    """The run, unless it is of an earlier schedule with this name."""
    return run if run is not None and run.of == schedule.created else None


def _customer(target: Target) -> str:
    return target.spec.customer if target.spec else ""


def _change(context: Context, caller: Token, target: Target, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the schedules in the release's values, in place."""

    def new_values(current: Values) -> Values:
        require_not_suspended(caller, require_same_server(target, current).suspended)
        schedules = dict(current.get("schedules") or {})
        change(schedules)
        others = {key: value for key, value in current.items() if key != "schedules"}
        return {**others, "schedules": schedules} if schedules else others

    context.releases.change(target.id, new_values)


def _change_run(context: Context, target: Target, name: str, transition: runs.Transition) -> Run | None:
    """Change the record of a run, and return it."""
    known = schedules_of(target.objects.statefulset)
    text = context.cluster.annotate(
        target.id, target.uid or "", SCHEDULE_RUNS, lambda text: runs.changed(text, name, transition, known)
    )
    return runs.read(text).get(name)


def _made_by_then(created: str, since: datetime) -> bool:
    try:
        return datetime.fromisoformat(created) <= since
    except ValueError:
        return False
