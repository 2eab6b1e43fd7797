"""The schemas of the calls about events."""

from __future__ import annotations

from typing import Any

import marshmallow as ma
from marshmallow import fields, validate

from service.events.event import TYPES
from service.web.fields import QueryNumber, Schema, Success, Text, one_of

DEFAULT_LIMIT, LARGEST_LIMIT = 100, 500
LONGEST_WAIT = 30
"""Seconds. Proxies end a call that is silent for a minute."""
_TYPE = "|".join(TYPES)


def _check_types(value: str) -> None:
    if unknown := [type_ for type_ in value.split(",") if type_ not in TYPES]:
        raise ma.ValidationError(f"has the unknown type {unknown[0][:40]}")


class EventsQuery(Schema):
    after = Text(
        load_default=None,
        validate=validate.Regexp(r"[0-9]{1,15}\Z", error="must be the `cursor` of an earlier answer"),
        metadata={
            "pattern": "^[0-9]{1,15}$",
            "description": "The `cursor` of an earlier answer; without it, all events.",
        },
    )
    server = Text(
        load_default=None,
        validate=validate.Regexp(r"[1-9][0-9]{0,18}\Z", error="must be an id"),
        metadata={
            "pattern": "^[1-9][0-9]{0,18}$",
            "description": "Only events of the servers that have or had this id.",
        },
    )
    type = Text(
        load_default=None,
        validate=_check_types,
        metadata={
            "pattern": f"^({_TYPE})(,({_TYPE}))*$",
            "description": "Only events of this type, or of these: `crashed,out-of-memory`.",
        },
    )
    limit = QueryNumber(
        load_default=DEFAULT_LIMIT,
        validate=validate.Range(1, LARGEST_LIMIT, error=f"must be from 1 to {LARGEST_LIMIT}"),
    )
    wait = QueryNumber(
        load_default=0,
        validate=validate.Range(0, LONGEST_WAIT, error=f"must be from 0 to {LONGEST_WAIT}"),
        metadata={"description": "For how many seconds to wait for the first event, if there is none yet."},
    )


class Event(Schema):
    id = fields.String(required=True, metadata={"description": "The same however often the event is delivered."})
    type = fields.String(required=True, validate=one_of(*TYPES))
    time = fields.String(required=True, metadata={"description": "When it happened."})
    server = fields.Integer(required=True, metadata={"description": "0 for `dropped`."})
    uid = fields.String(required=True, metadata={"description": "Tells apart servers that had the same id."})
    customer = fields.String(required=True, metadata={"description": "Empty for none."})
    number = fields.Integer(
        required=True, metadata={"description": "Its place among the events of this uid, from 1; 0 for `dropped`."}
    )
    position = fields.Integer(required=True, metadata={"description": "Its place among all events."})
    data = fields.Dict(required=True, metadata={"description": "More about it, by type."})


class EventsAnswer(Success):
    events = fields.List(fields.Nested(Event), required=True)
    cursor = fields.String(required=True, metadata={"description": "What to send as `after` next time."})


def event_fields(event: Any) -> dict[str, Any]:
    """An event in the shape of Event."""
    return {name: getattr(event, name) for name in Event._declared_fields}
