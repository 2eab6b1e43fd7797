"""Lines of a game's log: read from what Kubernetes sends, made harmless, and named so that a reader can go on. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from service.plaintext import TURNING

MOST_BYTES = 1024 * 1024
"""How much of a log is read at once, with Kubernetes' timestamps."""
LONGEST = 16 * 1024
"""How many characters of one line are shown."""

# The colours and cursor movements of terminals go; whatever else a terminal might obey is replaced by one character.
_HARMFUL = re.compile(f"\x1b\\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0a-\x1f\x7f-\x9f{TURNING}]")
_REPLACEMENT = "\ufffd"
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")
_AGO = re.compile(r"([1-9]\d{0,5})([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
# The last second that RFC 3339 can name.
_LATEST = 253_402_300_799 * 10**9
_ID = re.compile(r"([0-9A-Za-z-]{1,64})\.(\d{1,6})\.(\d{1,20})\.(\d{1,9})")


class Run(NamedTuple):
    """One run of a game's container: its pod's uid, and how often the container had restarted before."""

    pod: str
    restarts: int

    def is_right_before(self, other: Run) -> bool:
        """Whether the other run is the next one in the same pod. Kubernetes keeps the log of one run before."""
        return other == (self.pod, self.restarts + 1)


class Place(NamedTuple):
    """Where a line is: the run that wrote it, when (nanoseconds since 1970), and which line of that time it is."""

    run: Run
    time: int
    number: int

    @property
    def id(self) -> str:
        """The id of the line in server-sent events."""
        return f"{self.run.pod}.{self.run.restarts}.{self.time}.{self.number}"

    def follows(self, other: Place) -> bool:
        """Whether the line was written after the other one of the same run."""
        return (self.time, self.number) > (other.time, other.number)


@dataclass(frozen=True)
class Line:
    """A line of the log, harmless already."""

    place: Place
    text: str


def clean(text: str) -> str:
    """The text without anything that a terminal would obey, but with its tabs; too long a line is cut, and says so."""
    text = text.removesuffix("\r")
    cut = len(text) > LONGEST
    shown = _HARMFUL.sub(lambda found: "" if len(found[0]) > 1 else _REPLACEMENT, text[:LONGEST])
    return f"{shown} [the line is cut]" if cut else shown


def place_of(id: str) -> Place | None:
    """The place that an id of server-sent events names; None if it is none."""
    parts = _ID.fullmatch(id)
    return None if parts is None else Place(Run(parts[1], int(parts[2])), int(parts[3]), int(parts[4]))


def nanoseconds(text: str) -> int | None:
    """An RFC 3339 time as nanoseconds since 1970; None if it is none."""
    parts = _TIME.fullmatch(text)
    if parts is None:
        return None
    try:
        whole = datetime.fromisoformat(parts[1] + parts[3].replace("Z", "+00:00"))
        return int(whole.timestamp()) * 10**9 + int((parts[2] or "").ljust(9, "0"))
    except (ValueError, OverflowError):
        return None


def since(text: str, now: datetime) -> int | None:
    """What a request means by `since`: an RFC 3339 time, or how long ago (`10m`), as nanoseconds; None if neither.

    It is a time that Kubernetes can be asked for: from 1970 to the last second that RFC 3339 can name.
    """
    ago = _AGO.fullmatch(text)
    time = nanoseconds(text) if ago is None else (int(now.timestamp()) - int(ago[1]) * _UNITS[ago[2]]) * 10**9
    return None if time is None else min(max(0, time), _LATEST)


class Reader:
    """Turns what Kubernetes sends of one run, with timestamps, into lines. It must begin at the first line of a time.

    A line without a timestamp, which Kubernetes writes itself when it cannot read the log, is left out.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._rest = b""
        self._time, self._number = -1, 0

    def lines(self, data: bytes) -> Iterator[Line]:
        """The lines that are complete with this data."""
        *complete, self._rest = (self._rest + data).split(b"\n")
        # Of too long a line the beginning is enough, and no game can make this process keep more.
        self._rest = self._rest[: LONGEST * 4]
        for raw in complete:
            if (line := self._line(raw)) is not None:
                yield line

    def last(self) -> Iterator[Line]:
        """The last line, if the log ended without a line break."""
        if (line := self._line(self._rest)) is not None:
            yield line
        self._rest = b""

    def _line(self, raw: bytes) -> Line | None:
        stamp, _, text = raw.decode(errors="replace").partition(" ")
        time = nanoseconds(stamp)
        if time is None:
            return None
        self._number = self._number + 1 if time == self._time else 1
        self._time = time
        return Line(Place(self._run, time, self._number), clean(text))


def lines_of(run: Run, text: str) -> list[Line]:
    """The lines of a log that was read at once."""
    reader = Reader(run)
    return [*reader.lines(text.encode()), *reader.last()]
