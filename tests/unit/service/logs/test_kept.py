"""What an agent has kept is read, or is malformed; a reader is told what is missing."""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any

import pytest

from service.logs.kept import MOST_TEXT, KeptLog, kept_log
from service.logs.lines import Place, Run, lines_of

RUN = Run("pod", 1)
TEXT = "".join(f"2026-11-27T12:00:0{number}Z {number}\n" for number in range(5))
LOG = KeptLog(RUN, "2026-11-27T12:30:00Z", True, tuple(lines_of(RUN, TEXT)))
TIMES = [line.place.time for line in LOG.lines]


def the_secret(text: bytes = TEXT.encode(), **about: Any) -> dict[str, Any]:
    about = {"pod": "pod", "restarts": 1, "ended": "2026-11-27T12:30:00Z", "cut": True, **about}
    data = {"log.gz": gzip.compress(text), "about": json.dumps(about).encode()}
    return {"data": {name: base64.b64encode(value).decode() for name, value in data.items()}}


def test_a_secret() -> None:
    """Its lines and what is known about them."""
    assert kept_log(the_secret()) == LOG


def test_a_secret_that_unpacks_to_gigabytes() -> None:
    """Whoever has written it: the rest is not read."""
    kept = kept_log(the_secret(TEXT.encode() + b"\n" * (1 << 28)))
    assert kept is not None
    assert kept.lines == LOG.lines
    assert MOST_TEXT < 1 << 28


@pytest.mark.parametrize(
    "secret",
    [
        {},
        {"data": None},
        {"data": {}},
        {"data": {"log.gz": "", "about": ""}},
        {**the_secret(), "data": {**the_secret()["data"], "log.gz": base64.b64encode(b"no gzip").decode()}},
        {**the_secret(), "data": {**the_secret()["data"], "about": base64.b64encode(b"[]").decode()}},
        the_secret(pod="a b"),
        the_secret(pod=None),
        the_secret(ended="<b>"),
        the_secret(restarts="1"),
    ],
)
def test_a_malformed_secret(secret: dict[str, Any]) -> None:
    """None."""
    assert kept_log(secret) is None


@pytest.mark.parametrize(
    ("tail", "since", "expected", "missing"),
    [
        (5, None, "01234", True),
        (4, None, "1234", False),
        (9, TIMES[0] - 1, "01234", True),
        # Nothing that was asked for is missing.
        (9, TIMES[0], "01234", False),
        (9, TIMES[3], "34", False),
        (1, TIMES[3], "4", False),
        (9, TIMES[4] + 1, "", False),
    ],
)
def test_the_last_lines(tail: int, since: int | None, expected: str, missing: bool) -> None:
    """As asked for, and whether the run wrote more that was asked for too."""
    lines, cut = LOG.last(tail, since)
    assert ("".join(line.text for line in lines), cut) == (expected, missing)


@pytest.mark.parametrize(
    ("after", "expected", "missing"),
    [
        (Place(RUN, TIMES[2], 1), "34", False),
        (Place(RUN, TIMES[4], 1), "", False),
        # What was written between is not kept.
        (Place(RUN, TIMES[0] - 1, 1), "01234", True),
        # Another run, which may have written more; nothing older is repeated.
        (Place(Run("other", 0), TIMES[0] - 1, 1), "01234", True),
        (Place(Run("other", 0), TIMES[4] + 1, 1), "", True),
    ],
)
def test_lines_after_one(after: Place, expected: str, missing: bool) -> None:
    """For a client that comes back."""
    lines, gap = LOG.after(after)
    assert ("".join(line.text for line in lines), gap) == (expected, missing)
