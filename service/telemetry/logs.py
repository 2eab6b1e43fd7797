"""JSON logs, one object per line, and the audit line of every change.

Modules log through the standard library, as libraries do, and structlog formats the lines. Whatever is bound in
`structlog.contextvars` (`request_id`, `server`, the server's `uid`) is on every line of that thread or task until it is
unbound.

Neither tokens nor bodies are logged. The release's revisions show what a request asked for.
"""

from __future__ import annotations

import logging
import re
import secrets
import sys
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any

from structlog.contextvars import get_contextvars
from structlog.dev import ConsoleRenderer
from structlog.processors import JSONRenderer, format_exc_info
from structlog.stdlib import ProcessorFormatter

_VALID_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_audit = logging.getLogger("service.audit")


def _line(logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The keys of a line, in this order: time, level, logger, message, what is bound, and the record's own `fields`."""
    record: logging.LogRecord = event.pop("_record")
    return {
        "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
        "level": record.levelname.lower(),
        "logger": record.name,
        "message": event["event"],
        **dict(sorted(get_contextvars().items())),
        **getattr(record, "fields", {}),
        **({"exc_info": event["exc_info"]} if "exc_info" in event else {}),
    }


def _as_error(logger: object, method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if "exception" in line:
        line["error"] = line.pop("exception")
    return line


class JsonFormatter(ProcessorFormatter):
    """Formats `logging.info(text, extra={"fields": {...}})` as one line of JSON."""

    def __init__(self) -> None:
        super().__init__(processors=[_line, format_exc_info, _as_error, JSONRenderer(default=str)])


class ConsoleFormatter(ProcessorFormatter):
    """Formats the same as text, for a developer's terminal."""

    def __init__(self) -> None:
        super().__init__(processors=[_line, ConsoleRenderer(event_key="message", timestamp_key="time")])


FORMATS: dict[str, type[ProcessorFormatter]] = {"json": JsonFormatter, "console": ConsoleFormatter}


def configure(level: str, log_format: str = "json") -> None:
    """Send all log lines of this process from `level` up to standard output, in one of FORMATS."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(FORMATS[log_format]())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # pyhelm3 logs whole command lines at INFO; one line per operation is enough.
    logging.getLogger("pyhelm3").setLevel(logging.WARNING)


def id_of_request(header: str | None) -> str:
    """The id that the client sent in `X-Request-Id`, or a new one if it sent none or one with other characters."""
    return header if header and _VALID_ID.fullmatch(header) else secrets.token_hex(8)


def audit(*, token: str, action: str, server: int | None, outcome: str, **more: str) -> None:
    """Log the audit line of a call.

    Args:
        token: The name of the caller's token; empty if there is none.
        action: The name of the call, such as `create_server`.
        server: The id of the server, or None if the call is not about a server.
        outcome: `ok`, or the slug of a problem.
        more: What the call is about if not a server, such as a token's `name`.
    """
    fields = {"token": token, "action": action, "server": server, "outcome": outcome, **more}
    subject = ", ".join(more.values()) if server is None else f"server {server}"
    _audit.info("%s of %s by %s: %s", action, subject, token, outcome, extra={"fields": fields})
