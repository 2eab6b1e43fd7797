"""The calls about a server's schedules."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from service import errors
from service.access import Subject
from service.api import schedule_schemas as schemas
from service.api.context import caller, context, note, target
from service.api.servers import WRITE_PROBLEMS
from service.kube.times import stamp
from service.operations import schedules
from service.operations.schedules import View
from service.schedules.runs import Run
from service.web.fields import Success
from service.web.parsing import Blueprint
from service.web.routes import access, problems

blueprint = Blueprint("schedules", __name__, url_prefix="/api/v1/server", description="Schedules")

_READ_PROBLEMS = (errors.ServerNotFound, errors.ObjectMissing)
_CHANGE_PROBLEMS = (*WRITE_PROBLEMS, errors.ObjectMissing, errors.Suspended)
_RUN_PROBLEMS = (*_READ_PROBLEMS, errors.ScheduleNotFound, errors.OperationInProgress, errors.Suspended)


@blueprint.route("/<id:id>/schedule/", methods=["GET"])
@access("schedule", Subject.SERVER)
@blueprint.response(200, schemas.SchedulesAnswer)
@problems(*_READ_PROBLEMS)
def list_schedules(id: int) -> dict[str, Any]:
    """List the server's schedules"""
    return {"success": True, "schedules": [_fields(view) for view in schedules.list_all(context(), target())]}


@blueprint.route("/<id:id>/schedule/<name:name>", methods=["PUT"])
@access("schedule", Subject.SERVER, audited=True)
@blueprint.arguments(schemas.PutSchedule)
@blueprint.response(201, schemas.ScheduleAnswer)
@blueprint.alt_response(200, schema=schemas.ScheduleAnswer, description="There was a schedule with this name before")
@problems(errors.TooManySchedules, *_CHANGE_PROBLEMS)
def put_schedule(body: dict[str, Any], id: int, name: str) -> tuple[dict[str, Any], int]:
    """Set a schedule

    You need the scope of each step too: `server:power` for `restart`, `start` and `stop`, `console:write` for
    `command`. A running game keeps running.
    """
    note(schedule=name)
    view, created = schedules.put(context(), caller(), target(), name, body)
    return {"success": True, **_fields(view)}, 201 if created else 200


@blueprint.route("/<id:id>/schedule/<name:name>", methods=["GET"])
@access("schedule", Subject.SERVER)
@blueprint.response(200, schemas.ScheduleAnswer)
@problems(errors.ScheduleNotFound, *_READ_PROBLEMS)
def get_schedule(id: int, name: str) -> dict[str, Any]:
    """Get a schedule: when it is due next, and how its latest run went"""
    return {"success": True, **_fields(schedules.get(context(), target(), name))}


@blueprint.route("/<id:id>/schedule/<name:name>", methods=["DELETE"])
@access("schedule", Subject.SERVER, audited=True)
@blueprint.response(200, Success)
@problems(errors.ScheduleNotFound, *_CHANGE_PROBLEMS)
def delete_schedule(id: int, name: str) -> dict[str, Any]:
    """Delete a schedule; its run, if there is one, ends before its next step"""
    note(schedule=name)
    schedules.delete(context(), caller(), target(), name)
    return {"success": True}


@blueprint.route("/<id:id>/schedule/<name:name>/run", methods=["POST"])
@access("schedule", Subject.SERVER, audited=True)
@blueprint.response(202, schemas.ScheduleAnswer)
@problems(errors.SchedulePaused, errors.ScheduleRunning, *_RUN_PROBLEMS)
def run_schedule(id: int, name: str) -> dict[str, Any]:
    """Run a schedule now, even one that is not enabled

    You need the scope of each step too. The run begins within seconds, and `last_run` says how it goes. `only_when`
    holds for it as well.
    """
    note(schedule=name)
    return {"success": True, **_fields(schedules.run_now(context(), caller(), target(), name))}


@blueprint.route("/<id:id>/schedule/<name:name>/abort", methods=["POST"])
@access("schedule", Subject.SERVER, audited=True)
@blueprint.response(200, schemas.ScheduleAnswer)
@problems(*_RUN_PROBLEMS)
def abort_schedule(id: int, name: str) -> dict[str, Any]:
    """Abort a schedule's run; without a run, this changes nothing

    A wait ends at once. Any other step that has begun is finished first.
    """
    note(schedule=name)
    return {"success": True, **_fields(schedules.abort(context(), caller(), target(), name))}


def _fields(view: View) -> dict[str, Any]:
    """A schedule in the shape of schemas.Schedule."""
    schedule = view.schedule
    return {
        "name": view.name,
        "cron": schedule.cron,
        "timezone": schedule.timezone,
        "steps": [step.value for step in schedule.steps],
        "only_when": schedule.only_when,
        "enabled": schedule.enabled,
        "timeout_s": schedule.timeout_s,
        "next_run": _time(view.next_run),
        "paused": view.paused,
        "last_run": None if view.run is None else _run_fields(view.run),
    }


def _run_fields(run: Run) -> dict[str, Any]:
    step = {"number": run.step, "of": run.steps, "action": run.action}
    return {
        "due": _time(run.due),
        "asked_by": run.asked_by,
        "started": _time(run.started),
        "finished": _time(run.finished),
        "outcome": run.outcome or ("running" if run.running else "waiting"),
        "step": step if run.step else None,
        "reason": run.reason,
    }


def _time(time: datetime | None) -> str | None:
    return None if time is None else stamp(time)
