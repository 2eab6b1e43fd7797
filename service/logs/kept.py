"""The last lines of a game that has ended, as the agents keep them. Pure.

The agent of the game's node writes them (agent/disk_agent/lastlines), as text in the format in which Kubernetes gives a
log with timestamps. So each line has the id that it had while Kubernetes still had the log.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from dataclasses import dataclass

from service.kube.types import Object
from service.logs.lines import Line, Place, Run, lines_of

MOST_TEXT = 512 * 1024
"""How much is unpacked; the agents keep half of it."""

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_POD = re.compile(r"[0-9A-Za-z-]{1,64}")


@dataclass(frozen=True)
class KeptLog:
    """The last lines of a run.

    Attributes:
        run: The run.
        ended: When the agent has seen that it had ended (RFC 3339).
        cut: Whether the run wrote more before them.
        lines: The lines.
    """

    run: Run
    ended: str
    cut: bool
    lines: tuple[Line, ...]

    def last(self, tail: int, since: int | None) -> tuple[list[Line], bool]:
        """The last `tail` lines since a time (nanoseconds since 1970), and whether lines before them are not kept."""
        chosen = [line for line in self.lines if since is None or line.place.time >= since]
        reaches = len(chosen) <= tail and (since is None or not self.lines or since < self.lines[0].place.time)
        return chosen[-tail:], self.cut and reaches

    def after(self, place: Place) -> tuple[list[Line], bool]:
        """The lines after one that the client has, perhaps of another run, and whether lines between are not kept."""
        if place.run != self.run:
            return [line for line in self.lines if line.place.time > place.time], True
        rest = [line for line in self.lines if line.place.follows(place)]
        return rest, self.cut and len(rest) == len(self.lines)


def kept_log(secret: Object) -> KeptLog | None:
    """The lines in a Secret; None if it is malformed."""
    try:
        data = secret["data"]
        about = json.loads(base64.b64decode(data["about"]))
        unpacked = zlib.decompressobj(wbits=31).decompress(base64.b64decode(data["log.gz"]), MOST_TEXT)
        pod, restarts, ended = about["pod"], about["restarts"], about["ended"]
        if not (_POD.fullmatch(pod) and _TIME.fullmatch(ended) and isinstance(restarts, int)):
            return None
        run = Run(pod, restarts)
        return KeptLog(run, ended, about["cut"] is not False, tuple(lines_of(run, unpacked.decode(errors="replace"))))
    except (KeyError, TypeError, ValueError, AttributeError, zlib.error):
        return None
