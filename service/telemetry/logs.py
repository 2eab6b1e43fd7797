"""JSON logs, one object a line, each with the id of its request; and the audit line of every change.

Neither tokens nor bodies are logged: what a request asked for stands in the release's history.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import sys
import traceback
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

request_id: ContextVar[str] = ContextVar("request_id", default="")

_VALID_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_audit = logging.getLogger("service.audit")


class JsonFormatter(logging.Formatter):
    """`logging.info(text, extra={"fields": {...}})` as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request_id.get():
            line["request_id"] = request_id.get()
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["error"] = "".join(traceback.format_exception(*record.exc_info)).strip()
        return json.dumps(line, default=str)


def configure(level: str) -> None:
    """Send everything that is logged in this process to standard output as JSON."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # pyhelm3 writes whole command lines at INFO; ours is a line per operation.
    logging.getLogger("pyhelm3").setLevel(logging.WARNING)
    logging.getLogger("urllib3").setLevel(logging.ERROR)


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
