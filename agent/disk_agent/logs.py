"""Log lines: the agent's own, sshd's and each session's, all as JSON on standard output."""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

Fields = dict[str, Any]

_writing = threading.Lock()


def write(*events: Fields) -> None:
    """A JSON line for each, in one write. Called from several threads; lines never mix."""
    now = stamp()
    write_lines([line(fields, now) for fields in events])


def write_lines(lines: Sequence[str]) -> None:
    """The same, of lines that are JSON already."""
    with _writing:
        sys.stdout.write("".join(lines))
        sys.stdout.flush()


def stamp() -> str:
    """This moment, as the lines have it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def line(fields: Fields, now: str) -> str:
    """One JSON line. Letters stand as they are; what a terminal would obey is escaped by JSON's own means."""
    text = json.dumps({"time": now, **fields}, ensure_ascii=False)
    if not text.isprintable():
        text = "".join(letter if letter.isprintable() else json.dumps(letter)[1:-1] for letter in text)
    return text + "\n"


class JsonHandler(logging.Handler):
    """The agent's own log."""

    def emit(self, record: logging.LogRecord) -> None:
        fields = {"level": record.levelname.lower(), "event": record.getMessage(), **getattr(record, "fields", {})}
        if record.exc_info:
            fields["exception"] = logging.Formatter().formatException(record.exc_info)
        write(fields)
