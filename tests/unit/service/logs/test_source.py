"""A game's log, as it is read for its followers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from service.errors import ClusterUnavailable, Problem
from service.logs import source
from service.logs.entries import Entry
from service.logs.lines import Place, Run
from service.logs.source import Source
from service.servers.objects import ServerObjects

RUN = Run("pod", 0)


class Streams:
    """A log whose reads are broken off; each opens with what the next of `parts` has."""

    def __init__(self, *parts: str) -> None:
        self.parts = list(parts)
        self.asked: list[tuple[int | None, int | None]] = []

    def log_text(self, id: int, *, tail: int | None, since: int | None, previous: bool = False) -> str | None:
        return None

    @contextmanager
    def log_stream(self, id: int, *, tail: int | None, since: int | None) -> Iterator[Iterator[bytes] | None]:
        self.asked.append((tail, since))
        yield iter([self.parts.pop(0).encode()])

    def pod_run(self, id: int) -> tuple[str, int] | None:
        return RUN

    def known(self, id: int) -> ServerObjects | None:
        return None


def read(streams: Streams, last: Place | None = None) -> list[str]:
    """What is delivered of all parts."""
    delivered: list[Entry] = []
    Source(1, streams, last, delivered.extend, lambda: bool(streams.parts)).read()
    return [entry.text.decode().removesuffix("\n") for entry in delivered]


def at(second: int, text: str, part: int = 0) -> str:
    return f"1970-01-01T00:00:{second:02}.{part:09}Z {text}\n"


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait between two reads."""
    monkeypatch.setattr(source, "_PAUSE", 0.0)


def test_a_read_that_breaks_off_is_taken_up() -> None:
    """From the second of the last line; what is known is skipped."""
    streams = Streams(
        at(1, "a") + at(1, "b") + at(1, "c", 5),
        at(1, "a") + at(1, "b") + at(1, "c", 5) + at(1, "d", 5) + at(2, "e"),
        at(2, "e"),
    )
    assert read(streams) == ["a", "b", "c", "d", "e"]
    assert streams.asked == [(None, None), (None, 1), (None, 2)]


def test_lines_that_are_gone_are_told() -> None:
    """If the last line is not there any more."""
    assert read(Streams(at(5, "z")), Place(RUN, 10**9, 1)) == ["--- lines are missing here ---", "z"]


def test_a_flood_is_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes on with the newest lines, and says that some are missing."""
    monkeypatch.setattr(source, "BYTES_A_SECOND", 10)
    streams = Streams(at(1, "a"), at(9, "z"), at(9, "z"))
    assert read(streams) == ["a", "--- lines are missing here ---", "z"]
    assert streams.asked == [(None, None), (200, None), (200, None)]


class Stopped(Streams):
    """The log of a server that does not run until somebody has looked five times."""

    def __init__(self, known: ServerObjects | Problem | None) -> None:
        super().__init__(at(1, "a"))
        self.objects = known
        self.looks: list[str] = []

    def pod_run(self, id: int) -> tuple[str, int] | None:
        self.looks.append("Kubernetes")
        return RUN if len(self.looks) >= 5 else None

    def known(self, id: int) -> ServerObjects | None:
        self.looks.append("watches")
        if isinstance(self.objects, Problem):
            raise self.objects
        return self.objects if len(self.looks) < 5 else ServerObjects(1, pod={})


@pytest.mark.parametrize(
    ("known", "looks"),
    [
        (None, ["Kubernetes", *["watches"] * 4, "Kubernetes", "Kubernetes"]),
        (ServerObjects(1), ["Kubernetes", *["watches"] * 4, "Kubernetes", "Kubernetes"]),
        (ServerObjects(1, pod={}), ["Kubernetes", *["watches", "Kubernetes"] * 2, "Kubernetes"]),
        (ClusterUnavailable(), ["Kubernetes", *["watches", "Kubernetes"] * 2, "Kubernetes"]),
    ],
)
def test_a_stopped_server_is_looked_for_in_the_watches(
    known: ServerObjects | Problem | None, looks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kubernetes is asked once, and then only if the watches know of a pod, or know nothing."""
    monkeypatch.setattr(source, "_LONGEST_PAUSE", 0.0)
    stopped = Stopped(known)
    assert read(stopped) == ["--- the game does not run; its log goes on when it starts ---", "a"]
    assert stopped.looks == looks
