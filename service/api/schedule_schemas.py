"""The schemas of requests and answers about schedules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import marshmallow as ma
from marshmallow import fields, validate

from service.console.commands import COMMAND_PATTERN, LONGEST_COMMAND, mistake_in
from service.schedules import times
from service.schedules.runs import OUTCOMES
from service.schedules.spec import (
    ACTIONS,
    DEFAULT_TIMEOUT,
    LONGEST_TIMEOUT,
    MOST_STEPS,
    ONLY_WHEN,
    SHORTEST_TIMEOUT,
)
from service.web.fields import Flag, Schema, Success, Text, WholeNumber, one_of

_NOTHING = {"type": "object", "maxProperties": 0}
_STEPS = dict.fromkeys(ACTIONS, _NOTHING) | {
    "command": {
        "type": "string",
        "minLength": 1,
        "maxLength": LONGEST_COMMAND,
        "pattern": COMMAND_PATTERN,
        "description": "One line for the game's console.",
    },
    "wait": {"type": "integer", "minimum": 1, "maximum": LONGEST_TIMEOUT, "description": "Seconds."},
}


class Step(fields.Raw):
    """One step: a JSON object with one key."""

    def __init__(self) -> None:
        super().__init__(
            metadata={
                "type": "object",
                "oneOf": [
                    {"required": [action], "properties": {action: content}, "additionalProperties": False}
                    for action, content in _STEPS.items()
                ],
            }
        )

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Any:
        if not isinstance(value, dict) or len(value) != 1:
            raise ma.ValidationError(f"must be an object with one of {', '.join(ACTIONS)}")
        [(action, content)] = value.items()
        if action not in ACTIONS:
            raise ma.ValidationError(f"is unknown; expected one of {', '.join(ACTIONS)}")
        if action == "command":
            if mistake := mistake_in(content) if isinstance(content, str) else "must be a string":
                raise ma.ValidationError(f"`command` {mistake}")
        elif action != "wait":
            if content != {}:
                raise ma.ValidationError(f"`{action}` must be {{}}")
        elif not isinstance(content, int) or isinstance(content, bool) or not 1 <= content <= LONGEST_TIMEOUT:
            raise ma.ValidationError(f"`wait` must be a whole number of seconds from 1 to {LONGEST_TIMEOUT}")
        return value


def _check_cron(value: str) -> None:
    if mistake := times.mistake_in(value):
        raise ma.ValidationError(mistake)


def _check_timezone(value: str) -> None:
    if not times.is_timezone(value):
        raise ma.ValidationError("must be the name of a time zone, such as Europe/Berlin")


class PutSchedule(Schema):
    cron = Text(
        required=True,
        validate=_check_cron,
        metadata={"format": "cron", "description": "Minute, hour, day of month, month, day of week."},
    )
    timezone = Text(
        load_default="UTC",
        validate=_check_timezone,
        metadata={"format": "timezone", "description": "Whose clock `cron` means, such as Europe/Berlin."},
    )
    steps = fields.List(
        Step(),
        required=True,
        validate=validate.Length(1, MOST_STEPS, error=f"must have from 1 to {MOST_STEPS} steps"),
        error_messages={"required": "is required", "null": "must not be null", "invalid": "must be a list"},
    )
    only_when = Text(
        load_default=None,
        allow_none=True,
        validate=one_of(*ONLY_WHEN),
        metadata={"description": "What the server must be when the schedule is due. null: anything."},
    )
    enabled = Flag(load_default=True)
    timeout_s = WholeNumber(
        load_default=DEFAULT_TIMEOUT,
        validate=validate.Range(
            SHORTEST_TIMEOUT, LONGEST_TIMEOUT, error=f"must be from {SHORTEST_TIMEOUT} to {LONGEST_TIMEOUT}"
        ),
        metadata={"description": "After how many seconds a run ends before its next step."},
    )


class RunStep(Schema):
    number = fields.Integer(required=True, metadata={"description": "From 1."})
    of = fields.Integer(required=True)
    action = fields.String(required=True)


class ScheduleRun(Schema):
    due = fields.String(required=True)
    asked_by = fields.String(
        required=True, allow_none=True, metadata={"description": "The token that asked for it; null if it was due."}
    )
    started = fields.String(required=True, allow_none=True)
    finished = fields.String(required=True, allow_none=True)
    outcome = fields.String(required=True, validate=one_of("waiting", "running", *OUTCOMES))
    step = fields.Nested(
        RunStep, required=True, allow_none=True, metadata={"description": "The step that it began last."}
    )
    reason = fields.String(required=True, allow_none=True)


class Schedule(Schema):
    name = fields.String(required=True)
    cron = fields.String(required=True)
    timezone = fields.String(required=True)
    steps = fields.List(fields.Dict(), required=True)
    only_when = fields.String(required=True, allow_none=True, validate=one_of(*ONLY_WHEN))
    enabled = fields.Boolean(required=True)
    timeout_s = fields.Integer(required=True)
    next_run = fields.String(required=True, allow_none=True)
    paused = fields.String(
        required=True, allow_none=True, metadata={"description": "Why it does nothing when it is due."}
    )
    last_run = fields.Nested(ScheduleRun, required=True, allow_none=True)


class ScheduleAnswer(Schedule, Success):
    pass


class SchedulesAnswer(Success):
    schedules = fields.List(fields.Nested(Schedule), required=True)
