"""Lines of a game's log, and their ids."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from service.logs.entries import line_entry
from service.logs.lines import LONGEST, Line, Place, Reader, Run, clean, lines_of, nanoseconds, place_of, since
from service.logs.source import RING_BYTES, Ring

RUN = Run("a-b", 3)


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain\ttext", "plain\ttext"),
        ("windows\r", "windows"),
        ("\x1b[1;31mred\x1b[m", "red"),
        ("\x1b\x1b[31m[2J", "\ufffd[2J"),
        ("a\x00b\x7fc\x85d\u2028e\u202ef", "a\ufffdb\ufffdc\ufffdd\ufffde\ufffdf"),
        ("Grüße 😀", "Grüße 😀"),
    ],
)
def test_what_a_terminal_would_obey_is_not_shown(raw: str, shown: str) -> None:
    """Tabs and all letters stay."""
    assert clean(raw) == shown


def test_a_long_line_is_cut_and_says_so() -> None:
    """However it arrives."""
    reader = Reader(RUN)
    lines: list[Line] = []
    for _ in range(100):
        lines += reader.lines(b"x" * 100_000)
    assert lines == []
    assert clean("x" * (LONGEST + 1)) == "x" * LONGEST + " [the line is cut]"


def test_lines_in_pieces() -> None:
    """They are the same however the log is cut into pieces; lines of one time are counted."""
    text = b"2026-01-31T12:00:00.000000001Z one\n2026-01-31T13:00:00.000000001+01:00 two\nodd\n2026-01-31T12:00:01Z \n"
    whole = lines_of(RUN, text.decode())
    assert [(line.text, line.place.number) for line in whole] == [("one", 1), ("two", 2), ("", 1)]
    reader = Reader(RUN)
    assert [line for byte in text for line in reader.lines(bytes([byte]))] == whole


def test_an_id_names_the_place() -> None:
    """There and back; anything else names none."""
    place = Place(RUN, 1769860800000000001, 2)
    assert place.id == "a-b.3.1769860800000000001.2"
    assert place_of(place.id) == place
    for id in ("", "a.b.c.d", "a.1.2", f"{place.id}\n", "a b.1.2.3"):
        assert place_of(id) is None


def test_times() -> None:
    """RFC 3339 to the nanosecond, or how long ago."""
    now = datetime(2026, 1, 31, 12, tzinfo=UTC)
    second = 10**9
    assert nanoseconds("2026-01-31T12:00:00.5Z") == int(now.timestamp()) * second + second // 2
    assert since("10m", now) == (int(now.timestamp()) - 600) * second
    assert since("2026-01-31T12:00:00Z", now) == int(now.timestamp()) * second
    # Kubernetes can be asked for no other times.
    for text in ("999999d", "740000d", "30000d", "0001-01-01T00:00:00+01:00", "0028-03-27T00:00:00Z"):
        assert since(text, now) == 0
    latest = int(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()) * second
    for text in ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59.9Z", "9999-12-31T23:59:59-23:59"):
        assert since(text, now) == latest
    for text in ("", "10", "0m", "m", "-1m", "2026-01-31", "2026-01-32T00:00:00Z"):
        assert since(text, now) is None


def test_a_ring_knows_where_to_go_on() -> None:
    """After the line that a follower has, while the ring has it; what is too old is forgotten."""
    ring = Ring()
    for time in range(5):
        ring.add(line_entry(Line(Place(RUN, time, 1), str(time))))
    assert ring.after(Place(RUN, 2, 1)) == (3, True)
    assert ring.after(Place(RUN, -1, 1)) == (0, False)
    assert ring.after(Place(Run("other", 0), 2, 1)) == (0, False)
    for time in range(5, 100):
        ring.add(line_entry(Line(Place(RUN, time, 1), "x" * 10_000)))
    assert ring.end == 100
    assert 0 < (ring.end - ring.start) * 10_000 <= RING_BYTES
    assert ring.after(Place(RUN, 2, 1)) == (ring.start, False)
