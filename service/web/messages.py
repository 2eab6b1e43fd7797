"""What the clients of long answers are sent, as plain text and as server-sent events. Pure.

https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

from __future__ import annotations

from dataclasses import dataclass

HEARTBEAT = b":\n\n"
"""What keeps a silent stream of server-sent events open."""


@dataclass(frozen=True)
class Message:
    """One message in both forms; after the `last` the stream ends."""

    text: bytes
    event: bytes
    last: bool = False

    def shown(self, events: bool) -> bytes:
        """The form for a client that wants server-sent events, or not."""
        return self.event if events else self.text


def note(text: str) -> Message:
    """A note about the stream: plain text shows it between dashes, and as an event it has the type `note`."""
    return Message(f"--- {text} ---\n".encode(), f"event: note\ndata: {text}\n\n".encode())


def end(text: str, *, retry: bool) -> Message:
    """The note with which a stream ends. With `retry`, the client should come back after a second."""
    event = f"event: end\ndata: {text}\n\n".encode()
    return Message(note(text).text, (b"retry: 1000\n" if retry else b"") + event, last=True)
