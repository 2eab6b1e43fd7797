"""What a client that comes back to a log has not had: read in pieces, the next one when the client has had the last."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from service.logs.entries import AGAIN, GAP, Entry, line_entry, note_entry
from service.logs.lines import Line, Place, Reader, Run
from service.logs.source import Logs, is_over, pieces

PIECE_BYTES = 128 * 1024
"""How much a client is sent of one piece, about."""


@dataclass(frozen=True)
class Piece:
    """A piece of a log.

    Attributes:
        entries: What to send.
        last: The last line that the client then has.
        complete: Whether Kubernetes has nothing after it now.
    """

    entries: tuple[Entry, ...]
    last: Place
    complete: bool


def piece_after(logs: Logs, id: int, run: Run, after: Place) -> Piece | None:
    """What was written after a line, as far as Kubernetes still has it; None if that is to be asked again in a moment.

    Args:
        logs: Reads logs.
        id: The server.
        run: The run of the server's pod now.
        after: The line, of the same pod.
    """
    if after.run == run:
        return _read(logs, id, run, after)
    entries: tuple[Entry, ...] = (note_entry(GAP),)
    if after.run.is_right_before(run):
        ended = _read(logs, id, run, after)
        if ended is None or not ended.complete:
            return ended
        entries = (*ended.entries, note_entry(AGAIN))
    return Piece(entries, Place(run, 0, 0), complete=False)


def _read(logs: Logs, id: int, run: Run, after: Place) -> Piece | None:
    entries: list[Entry] = []
    last, size, found = after, 0, not after.number
    # Kubernetes counts in whole seconds; the lines before are left out here.
    since, previous = after.time // 10**9 or None, after.run != run
    with logs.log_stream(id, tail=None, since=since, follow=False, previous=previous) as chunks:
        # The pod's name may have become that of another pod, and another run may have begun.
        if chunks is not None and logs.pod_run(id) != run:
            return Piece((), after, complete=False)
        for line in _lines(after.run, chunks or iter(()), ended=previous):
            found = found or (line is not None and line.place == after)
            if line is None:
                if size >= PIECE_BYTES:
                    return Piece(tuple(entries), last, complete=False)
            elif line.place.follows(after):
                if not found:
                    if is_over(logs, id, after):
                        return None
                    entries.append(note_entry(GAP))
                    found = True
                entries.append(line_entry(line))
                last, size = line.place, size + len(entries[-1].event)
    if not found:
        if is_over(logs, id, after):
            return None
        entries.append(note_entry(GAP))
    return Piece(tuple(entries), last, complete=True)


def _lines(run: Run, chunks: Iterator[bytes], *, ended: bool) -> Iterator[Line | None]:
    """The lines, and None after each chunk. Of a game that goes on, the last line may be unfinished: it is left out."""
    reader = Reader(run)
    for chunk in pieces(chunks):
        yield from reader.lines(chunk)
        yield None
    if ended:
        yield from reader.last()
