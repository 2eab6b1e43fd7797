"""Of a log's end, as many whole lines as there is room for are kept, in the format in which Kubernetes gives a log."""

from __future__ import annotations

import gzip
import random

import pytest

from disk_agent.lastlines.text import CUT, LINE_BYTES, PACKED_BYTES, TEXT_BYTES, Line, Packed, lines_of, packed
from tests.unit.agent.lastlines.nodelogs import TIME, piece


def stamp(number: int = 0) -> bytes:
    return TIME.format(0, number).encode()


def text(kept: Packed | None) -> bytes:
    assert kept is not None
    assert len(kept.data) <= PACKED_BYTES
    return gzip.decompress(kept.data)


def test_a_short_log_is_kept_whole() -> None:
    """With the times of its lines, and whatever bytes they have."""
    data = piece(b"one\r", 1) + piece(b"", 2) + piece(b"\x1b[31m \xff\x00 stdout F", 3)
    lines, cut = lines_of(data, whole=True)
    assert not cut
    kept = packed(lines, cut=cut)
    assert text(kept) == b"%s one\r\n%s \n%s \x1b[31m \xff\x00 stdout F\n" % (stamp(1), stamp(2), stamp(3))
    assert kept is not None
    assert not kept.cut


def test_pieces_are_joined() -> None:
    """A line has the time of its first piece; the last may have no end, because the game was killed in it."""
    data = piece(b"one ", 1, tag=b"P") + piece(b"two ", 2, tag=b"P:x") + piece(b"three", 3)
    data += piece(b"unfinished", 4, tag=b"P")
    assert lines_of(data, whole=True) == ([Line(stamp(1), b"one two three"), Line(stamp(4), b"unfinished")], False)


def test_what_is_no_line_is_left_out() -> None:
    """Such as what a node that lost its power has left."""
    data = b"\x00\x00\x00\nno line\n" + piece(b"one") + b"2026-11-27T12:00:00Z stdo"
    assert lines_of(data, whole=True) == ([Line(stamp(), b"one")], False)
    assert lines_of(b"", whole=True) == ([], False)
    assert packed([], cut=False) is None


@pytest.mark.parametrize("missing", range(0, 120, 7))
def test_a_log_that_begins_within_a_line(missing: int) -> None:
    """Whole lines only: neither the rest of the first one, nor the rest of its pieces, nor others of its time."""
    data = piece(b"a" * 30, 1, tag=b"P") + piece(b"b" * 30, 2, tag=b"P") + piece(b"c", 3) + piece(b"d", 3)
    data += piece(b"whole", 4)
    assert lines_of(data[missing:], whole=False) == ([Line(stamp(4), b"whole")], True)


def test_a_single_line_longer_than_what_is_read() -> None:
    """Its end is kept."""
    data = b"".join(piece(b"%d " % number, number, tag=b"P") for number in range(5))
    assert lines_of(data[10:], whole=False) == ([Line(stamp(1), b"1 2 3 4 ")], True)


def test_a_long_log_is_cut() -> None:
    """The newest lines are kept, as many as fit."""
    generator = random.Random(1)
    lines = [Line(stamp(number), generator.randbytes(100).hex().encode()) for number in range(1000)]
    kept = packed(lines, cut=False)
    whole = b"".join(b"%s %s\n" % line for line in lines)
    assert whole.endswith(text(kept))
    assert kept is not None
    assert kept.cut
    assert len(kept.data) > PACKED_BYTES * 0.9


def test_a_log_that_repeats_itself_is_cut() -> None:
    """Packed, it would be small, but what it is unpacked to is limited too."""
    lines = [Line(stamp(number), b"the same line again and again" * 3) for number in range(20_000)]
    kept = packed(lines, cut=False)
    assert TEXT_BYTES * 0.9 < len(text(kept)) <= TEXT_BYTES
    assert text(kept).startswith(stamp(20_000 - text(kept).count(b"\n")))
    assert kept is not None
    assert kept.cut


def test_a_cut_is_not_within_a_time() -> None:
    """The API counts the lines of a time, for their ids."""
    generator = random.Random(1)
    lines = [Line(stamp(number // 50), generator.randbytes(100).hex().encode()) for number in range(1000)]
    first = text(packed(lines, cut=False)).split(b"\n")[0]
    assert lines.index(Line(*first.split(b" ", 1))) % 50 == 0


def test_a_line_that_does_not_fit_is_cut() -> None:
    """It says so. Of a line that the API would not show to its end, no more is kept than that."""
    noise = random.Random(1).randbytes(100_000).replace(b"\n", b"")
    lines, _ = lines_of(piece(b"before", 1) + piece(noise, 2), whole=True)
    assert len(lines[1].text) == LINE_BYTES
    kept = text(packed(lines, cut=False))
    assert kept.startswith(stamp(2) + b" " + noise[:1000])
    assert kept.endswith(CUT + b"\n")
    lines, _ = lines_of(piece(b"x" * 10_000_000, 3), whole=True)
    assert text(packed(lines, cut=False)) == stamp(3) + b" " + b"x" * LINE_BYTES + b"\n"
