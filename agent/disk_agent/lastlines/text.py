"""The end of a container's log, as the text that is kept of it. Pure.

On the node, the log has the format of the container runtimes: time, stream, tag and text of each line. A line that is
longer than the runtime's buffer is in several pieces, of which the last has the tag F.
https://github.com/kubernetes/design-proposals-archive/blob/main/node/kubelet-cri-logging.md

What is kept has the format in which Kubernetes itself gives a log with timestamps: time and text. So the API reads both
in the same way, and gives a line the same id before its pod ends and afterwards.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

PACKED_BYTES = 16 * 1024
"""How much is kept of a server, packed."""
TEXT_BYTES = 256 * 1024
"""How much is kept of a server, unpacked: a log that repeats itself would be packed to almost nothing."""
LINE_BYTES = 64 * 1024 + 4
"""How much of a line is kept. The API shows 16,384 characters of up to 4 bytes, and says of a longer one that it is
cut."""
CUT = b" [the line is cut]"

_PIECE = re.compile(
    rb"(\d{4}-\d\d-\d\dT[0-9:.]{8,18}(?:Z|[+-]\d\d:\d\d)) (?:stdout|stderr) ([PF])(?::\S*)? (.*)", re.DOTALL
)


class Line(NamedTuple):
    """A line of a log, with the time of its first piece."""

    time: bytes
    text: bytes


@dataclass(frozen=True)
class Packed:
    """What is kept of a log: its last lines, packed by gzip, and whether something before them is left out."""

    data: bytes
    cut: bool


def lines_of(data: bytes, *, whole: bool) -> tuple[list[Line], bool]:
    """The lines of a log's end, and whether something before them is left out.

    Args:
        data: The end of the log, as it is on the node.
        whole: Whether the data is the whole log; otherwise it may begin within a line.
    """
    pieces = [found.groups() for raw in data.split(b"\n") if (found := _PIECE.fullmatch(raw))]
    if whole:
        return _joined(pieces), False
    # The data may begin within a line, and within a time that several lines have.
    last = next((number for number, (_, tag, _) in enumerate(pieces) if tag == b"F"), len(pieces) - 1)
    rest = pieces[last + 1 :]
    if not rest and pieces:
        # A single line that began before the data: its end is better than nothing.
        return [Line(pieces[0][0], b"".join(text for _, _, text in pieces)[-LINE_BYTES:])], True
    while rest and rest[0][0] == pieces[last][0]:
        rest.pop(0)
    return _joined(rest), True


def _joined(pieces: Sequence[tuple[bytes, ...]]) -> list[Line]:
    """The lines that the pieces make up. Like the kubelet, this does not tell the streams apart."""
    lines: list[Line] = []
    text, began = bytearray(), b""
    for time, tag, piece in pieces:
        began = began or time
        text += piece[: LINE_BYTES - len(text)]
        if tag == b"F":
            lines.append(Line(began, bytes(text)))
            text, began = bytearray(), b""
    if began:
        lines.append(Line(began, bytes(text)))
    return lines


def packed(lines: Sequence[Line], *, cut: bool) -> Packed | None:
    """As many of the last lines as there is room for; None if there is no line.

    Args:
        lines: The lines.
        cut: Whether something before them is left out already.
    """
    if not lines:
        return None
    texts = [b"%s %s\n" % line for line in lines]
    first, size = len(lines), 0
    while first > 0 and size + len(texts[first - 1]) <= TEXT_BYTES:
        first -= 1
        size += len(texts[first])
    first = _first_that_fits(texts, first)
    first = _first_of_its_time(lines, first)
    if first == len(lines):
        return Packed(_packed_line(lines[-1]), True)
    return Packed(_gzip(b"".join(texts[first:])), cut or first > 0)


def _first_that_fits(texts: Sequence[bytes], lowest: int) -> int:
    """The first line, from `lowest` on, from which the text is not too long when packed."""
    low, high = lowest, len(texts)
    middle = low
    while low < high:
        if len(_gzip(b"".join(texts[middle:]))) <= PACKED_BYTES:
            high = middle
        else:
            low = middle + 1
        middle = (low + high) // 2
    return low


def _first_of_its_time(lines: Sequence[Line], first: int) -> int:
    """The next line whose time is not that of the line before: a line's id counts the lines of its time."""
    while 0 < first < len(lines) and lines[first].time == lines[first - 1].time:
        first += 1
    return first


def _packed_line(line: Line) -> bytes:
    """The beginning of a line that is too long to be kept whole."""
    length = len(line.text)
    while len(data := _gzip(b"%s %s%s\n" % (line.time, line.text[:length], CUT))) > PACKED_BYTES:
        length //= 2
    return data


def _gzip(text: bytes) -> bytes:
    return gzip.compress(text, 6, mtime=0)
