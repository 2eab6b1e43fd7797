"""Writes log lines as JSON to standard output: the agent's own, sshd's and each session's."""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

Fields = dict[str, Any]

_lock = threading.Lock()


def write(*events: Fields) -> None:
    """Write a JSON line for each event, all in one write. Thread-safe: lines never mix."""
    now = stamp()
    write_lines([line(fields, now) for fields in events])


def write_lines(lines: Sequence[str]) -> None:
    """Write lines that are JSON already, each with its newline."""
    with _lock:
        sys.stdout.write("".join(lines))
        sys.stdout.flush()


def stamp() -> str:
    """The current time as log lines show it: RFC 3339 in UTC, with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def line(fields: Fields, now: str) -> str:
    """One JSON line with the time `now`. Characters that a terminal would interpret are escaped as JSON does it."""
    text = json.dumps({"time": now, **fields}, ensure_ascii=False)
    if not text.isprintable():
        text = "".join(letter if letter.isprintable() else json.dumps(letter)[1:-1] for letter in text)
    return text + "\n"


class JsonHandler(logging.Handler):
    """Writes the agent's own log records; a record's `fields` are added to its line."""

    def emit(self, record: logging.LogRecord) -> None:
        fields = {"level": record.levelname.lower(), "event": record.getMessage(), **getattr(record, "fields", {})}
        if record.exc_info:
            fields["exception"] = logging.Formatter().formatException(record.exc_info)
        write(fields)
