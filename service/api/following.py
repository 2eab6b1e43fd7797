"""What the calls share whose answers go on and on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import marshmallow as ma
from flask import request

from service import errors
from service.web.draining import draining
from service.web.fields import Schema, Text

EVENTS = "text/event-stream"
AS_EVENTS = {"responses": {200: {"content": {EVENTS: {"schema": {"type": "string"}}}}}}
"""For the OpenAPI document: that an answer may also be server-sent events."""


class ResumeHeaders(ma.Schema):
    """The header with which a client goes on where its last connection broke off."""

    class Meta:
        unknown = ma.EXCLUDE

    last_event_id = Text(
        data_key="Last-Event-ID",
        load_default=None,
        metadata={"description": "Go on after the event with this id."},
    )


class ResumeQuery(Schema):
    """The same in the query, as `event-source-polyfill` has it, because other headers need CORS' leave."""

    last_event_id = Text(
        data_key="lastEventId",
        load_default=None,
        metadata={"description": "The same as the header `Last-Event-ID`, which comes first."},
    )


def last_event_id(headers: Mapping[str, Any], query: Mapping[str, Any]) -> str | None:
    """The id of the last event that the client has had, from a loaded ResumeHeaders and a loaded ResumeQuery."""
    by_header: str | None = headers["last_event_id"]
    by_query: str | None = query["last_event_id"]
    return by_query if by_header is None else by_header


def wants_events() -> bool:
    """Whether the client asks for server-sent events, as browsers' EventSource does; otherwise it gets plain text."""
    return request.accept_mimetypes.best_match(["text/plain", EVENTS]) == EVENTS


def require_not_draining() -> None:
    """Raises Draining if this replica is about to end."""
    if draining.is_set():
        raise errors.Draining()
