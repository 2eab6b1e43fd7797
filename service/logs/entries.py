"""What followers of a log are sent: lines, and notes about the log, as plain text and as server-sent events. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from service.logs.lines import Line, Place
from service.web.messages import Message, note

GAP = "lines are missing here"
AGAIN = "the game has started again"
CUT = "what was before is left out: an answer has at most 1 MiB"
NOT_KEPT = "what was before is not kept"


@dataclass(frozen=True)
class Entry(Message):
    """A line or a note, in both forms; of a note, `place` is None."""

    place: Place | None = None


def line_entry(line: Line) -> Entry:
    """A line of the log."""
    text = line.text.encode()
    return Entry(text + b"\n", b"id: %s\ndata: %s\n\n" % (line.place.id.encode(), text), place=line.place)


def note_entry(text: str) -> Entry:
    """A note about the log."""
    message = note(text)
    return Entry(message.text, message.event)
