"""The URL converters for the ids of servers and backups, and for the names of schedules and webhooks."""

from __future__ import annotations

from typing import Any

from werkzeug.routing import BaseConverter

from service.backups.records import ID as BACKUP_ID
from service.schedules.spec import NAME as SCHEDULE_NAME
from service.servers.names import LARGEST_ID
from service.tokens import CUSTOMER
from service.webhooks.records import NAME as WEBHOOK_NAME


def _whole_numbers(largest: int) -> str:
    """A regular expression for the numbers from 1 to `largest`, in ASCII digits and without a leading zero."""
    digits = str(largest)
    shorter = f"[1-9][0-9]{{0,{len(digits) - 2}}}"
    # As many digits as `largest`: equal up to a digit that is smaller, then any digits.
    smaller = [
        f"{digits[:at]}[{0 if at else 1}-{int(digit) - 1}][0-9]{{{len(digits) - at - 1}}}"
        for at, digit in enumerate(digits)
        if int(digit) > (0 if at else 1)
    ]
    return f"(?:{'|'.join([*smaller, digits, shorter])})"


class ServerId(BaseConverter):
    """A server's id in a path; a path with anything else in its place answers 404.

    The expression includes the range. If `to_python` checked it instead, an id out of range would answer 405, because
    werkzeug would still match the routes of other methods.
    """

    regex = _whole_numbers(LARGEST_ID)

    def to_python(self, value: str) -> int:
        return int(value)


def id_schema(converter: Any) -> dict[str, Any]:
    """The OpenAPI schema of a server's id."""
    return {"type": "integer", "format": "int64", "minimum": 1, "maximum": LARGEST_ID}


class Name(BaseConverter):
    """The name of a schedule in a path; a path with anything else in its place answers 404."""

    regex = SCHEDULE_NAME.pattern


def name_schema(converter: Any) -> dict[str, Any]:
    """The OpenAPI schema of a schedule's name."""
    return {"type": "string", "pattern": f"^{SCHEDULE_NAME.pattern}$"}


class BackupId(BaseConverter):
    """A backup's id in a path."""

    regex = BACKUP_ID.pattern


def backup_id_schema(converter: Any) -> dict[str, Any]:
    """The OpenAPI schema of a backup's id."""
    return {"type": "string", "pattern": f"^{BACKUP_ID.pattern}$"}


class WebhookName(BaseConverter):
    """A webhook's name in a path, with its owner before it if it is a customer's own."""

    regex = rf"(?:{CUSTOMER.pattern}\.)?{WEBHOOK_NAME}"
    part_isolating = True


def webhook_name_schema(converter: Any) -> dict[str, Any]:
    """The OpenAPI schema of a webhook's name."""
    return {"type": "string", "pattern": f"^{WebhookName.regex}$"}
