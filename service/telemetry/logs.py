"""JSON logs, one object a line, each with its request's id and its server's; and the audit line of every change.

Modules log through the standard library, as the libraries beneath do; structlog makes the lines. What is bound in
`structlog.contextvars` (`request_id`, `server`, the server's `uid`) is on every line of that thread or task until it is
unbound.

Neither tokens nor bodies are logged: what a request asked for stands in the release's history.
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
    """What a line says, in this order: when, how bad, who, what; then what is bound, and the record's own `fields`."""
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
    """`logging.info(text, extra={"fields": {...}})` as one line of JSON."""

    def __init__(self) -> None:
        super().__init__(processors=[_line, format_exc_info, _as_error, JSONRenderer(default=str)])


class ConsoleFormatter(ProcessorFormatter):
    """The same for a developer's eyes."""

    def __init__(self) -> None:
        super().__init__(processors=[_line, ConsoleRenderer(event_key="message", timestamp_key="time")])


FORMATS: dict[str, type[ProcessorFormatter]] = {"json": JsonFormatter, "console": ConsoleFormatter}


def configure(level: str, form: str = "json") -> None:
    """Send everything that is logged in this process to standard output, in one of FORMATS."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(FORMATS[form]())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # pyhelm3 writes whole command lines at INFO; ours is a line per operation.
    logging.getLogger("pyhelm3").setLevel(logging.WARNING)


def id_of_request(given: str | None) -> str:
    """The id a client sent, if it is harmless, or a new one."""
    return given if given and _VALID_ID.fullmatch(given) else secrets.token_hex(8)


def audit(*, token: str, action: str, server: int | None, outcome: str, **more: str) -> None:
    """Write down a change: who (the token's name), what, which server, and how it ended (ok or a problem's slug).

    `more` says what it was about, where that is no server.
    """
    fields = {"token": token, "action": action, "server": server, "outcome": outcome, **more}
    about = ", ".join(more.values()) if server is None else f"server {server}"
    _audit.info("%s of %s by %s: %s", action, about, token, outcome, extra={"fields": fields})
