"""What followers of a log are sent: lines, and notes about the log, as plain text and as server-sent events. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from service.logs.lines import Line, Place

GAP = "lines are missing here"
CUT = "what was before is left out: an answer has at most 1 MiB"
NOT_KEPT = "what was before is not kept"
HEARTBEAT = b":\n\n"
"""What keeps a silent stream of server-sent events open."""


@dataclass(frozen=True)
class Entry:
    """A line or a note, in both forms; of a note, `place` is None."""

    place: Place | None
    text: bytes
    event: bytes

    def shown(self, events: bool) -> bytes:
        """The form for a client that wants server-sent events, or not."""
        return self.event if events else self.text


def line_entry(line: Line) -> Entry:
    """A line of the log."""
    text = line.text.encode()
    return Entry(line.place, text + b"\n", b"id: %s\ndata: %s\n\n" % (line.place.id.encode(), text))


def note_entry(text: str) -> Entry:
    """A note about the log: plain text shows it between dashes, and as an event it has the type `note`."""
    return Entry(None, f"--- {text} ---\n".encode(), f"event: note\ndata: {text}\n\n".encode())


def end_entry(text: str, *, retry: bool) -> Entry:
    """The last note. With `retry`, the client should come back after a second."""
    note = note_entry(text)
    return Entry(None, note.text, (b"retry: 1000\n" if retry else b"") + note.event.replace(b"note", b"end", 1))
