"""The schemas of the calls about logs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import marshmallow as ma
from marshmallow import validate

from service.api.following import ResumeQuery
from service.logs.lines import since
from service.web.fields import QueryFlag, QueryNumber, Text

MOST_LINES = 5000


class Since(Text):
    """A time in RFC 3339, or how long ago, as nanoseconds since 1970."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        # A plus sign in a query string is a space.
        time = since(super()._deserialize(value, attr, data, **kwargs).replace(" ", "+"), datetime.now(UTC))
        if time is None:
            raise ma.ValidationError("must be a time in RFC 3339, or how long ago, such as 90s, 10m, 2h or 1d")
        return time


class LogQuery(ResumeQuery):
    tail = QueryNumber(
        load_default=200,
        validate=validate.Range(1, MOST_LINES, error=f"must be from 1 to {MOST_LINES}"),
        metadata={"description": "How many lines from the end."},
    )
    since = Since(
        load_default=None,
        metadata={
            "anyOf": [{"format": "date-time"}, {"pattern": "^[1-9][0-9]{0,5}[smhd]$"}],
            "example": "10m",
            "description": "Only lines since this time: RFC 3339, or how long ago (`90s`, `10m`, `2h`, `1d`).",
        },
    )
    follow = QueryFlag(
        load_default=False,
        metadata={"description": "`true`: go on with each line that the game writes."},
    )
