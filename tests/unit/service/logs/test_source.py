"""A game's log, as it is read for its followers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from service.errors import ClusterUnavailable, Problem
from service.logs import source
from service.logs.entries import Entry
from service.logs.lines import MOST_BYTES, Place, Run
from service.logs.source import Floods, Source
from service.servers.objects import ServerObjects

RUN = Run("pod", 0)


class Streams:
    """A log whose reads are broken off; each opens with what the next of `parts` has."""

    def __init__(self, *parts: str, previous: str | None = None) -> None:
        self.parts = list(parts)
        self.previous = previous
        self.runs: list[Run] = []
        # Whose the pod is, as each question finds it; the last one stays.
        self.uids: list[str | Problem | None] = ["uid"]
        self.questions = 0
        self.count = 0
        self.asked: list[tuple[int | None, int | None]] = []

    def log_text(self, id: int, pod: str, *, tail: int | None, since: int | None, previous: bool = False) -> str | None:
        if not previous:
            return self.parts[0]
        return None if self.previous is None else self.previous[: MOST_BYTES + 1]

    @contextmanager
    def log_stream(
        self, id: int, *, tail: int | None, since: int | None, follow: bool = True, previous: bool = False
    ) -> Iterator[Iterator[bytes] | None]:
        self.asked.append((tail, since))
        yield iter([self.parts.pop(0).encode()])

    def pod_run(self, id: int) -> tuple[str, int] | None:
        self.count += 1
        # A read looks before and after it opens the log.
        return self.runs[min((self.count - 1) // 2, len(self.runs) - 1)] if self.runs else RUN

    def known(self, id: int) -> ServerObjects | None:
        return None

    def server(self, id: int) -> ServerObjects:
        self.questions += 1
        uid = self.uids[min(self.questions, len(self.uids)) - 1]
        if isinstance(uid, Problem):
            raise uid
        return ServerObjects(id, None if uid is None else {"metadata": {"uid": uid}})


def read(streams: Streams, last: Place | None = None, uid: str | None = "uid") -> list[str]:
    """What is delivered of all parts."""
    delivered: list[Entry] = []
    Source(1, uid, streams, last, delivered.extend, lambda: bool(streams.parts) and streams.count < 20).read()
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


def test_a_line_that_is_not_there_yet_hides_no_other() -> None:
    """A client can name any line, but the log is read for all."""
    streams = Streams(at(1, "a") + at(2, "b"), at(1, "a") + at(2, "b") + at(3, "c"))
    assert read(streams, Place(RUN, 10**19, 1)) == ["c"]
    assert streams.asked == [(None, 2), (None, 2)]
    assert read(Streams("", at(1, "a")), Place(RUN, 10**19, 0)) == ["a"]


def test_a_flood_is_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes on with the newest lines, and says that some are missing."""
    monkeypatch.setattr(source, "BYTES_A_SECOND", 10)
    monkeypatch.setattr(source, "LEAST_BYTES_A_SECOND", 10)
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


SECOND = 10**9
GAP = "--- lines are missing here ---"
AGAIN = "--- the game has started again ---"


@pytest.mark.parametrize(
    ("previous", "expected"),
    [
        (at(1, "a") + at(1, "b") + at(2, "c"), ["b", "c", AGAIN, "z"]),
        (at(2, "c"), [GAP, "c", AGAIN, "z"]),
        (None, [GAP, AGAIN, "z"]),
        (at(1, "a") + at(2, "c") + at(2, "x" * MOST_BYTES), ["c", GAP, AGAIN, "z"]),
    ],
)
def test_what_a_run_wrote_at_its_end_is_read_later(previous: str | None, expected: list[str]) -> None:
    """What Kubernetes does not have any more, or is too much, is told."""
    streams = Streams(at(5, "z"), previous=previous)
    streams.runs = [Run("pod", 1)]
    assert read(streams, Place(RUN, SECOND, 1)) == expected


def test_the_next_runs_log_is_not_taken_for_that_of_the_run_before() -> None:
    """A node gives it out before the API server has heard of the restart: no gap, no line twice, nothing late."""
    streams = Streams(at(1, "a") + at(2, "b"), at(5, "z"), at(5, "z"), previous=at(2, "b"))
    streams.runs = [RUN, RUN, Run("pod", 1)]
    assert read(streams) == ["a", "b", AGAIN, "z"]


@pytest.mark.parametrize(
    ("run", "told"),
    [
        # A run between the two was not seen.
        (Run("pod", 2), [GAP, AGAIN, "z"]),
        # The stream of the other pod had ended by itself.
        (Run("other", 0), [AGAIN, "z"]),
    ],
)
def test_a_run_that_was_not_seen_is_told(run: Run, told: list[str]) -> None:
    streams = Streams(at(1, "a"), at(5, "z"))
    streams.runs = [RUN, run]
    assert read(streams) == ["a", *told]


@pytest.mark.parametrize(
    ("uids", "told", "questions"),
    [
        (["uid"], ["a", "b", AGAIN, "z"], 2),
        (["uid", "next"], ["a", "b"], 2),
        (["next"], [], 2),
        # Deleted by hand, or on its way to being deleted: asked again until that is known.
        (["uid", None, "uid"], ["a", "b", AGAIN, "z"], 3),
    ],
)
def test_a_pod_of_the_next_server_is_not_read(
    uids: list[str | Problem | None], told: list[str], questions: int
) -> None:
    """Whose a pod is, is asked once for each pod, not for each read of it."""
    streams = Streams(at(1, "a"), at(1, "a") + at(2, "b"), at(5, "z"))
    streams.runs = [RUN, RUN, Run("other", 0)]
    streams.uids = uids
    assert read(streams) == told
    assert streams.questions == questions


def test_a_server_without_a_uid() -> None:
    """There is nothing to compare."""
    streams = Streams(at(1, "a"))
    assert (read(streams, uid=None), streams.questions) == (["a"], 0)


@pytest.mark.parametrize(
    ("last", "told"),
    [
        (Place(RUN, SECOND, 1), ["b", "c"]),
        (Place(Run("earlier", 0), SECOND, 1), [GAP, AGAIN, "a", "b", "c"]),
    ],
)
def test_nothing_is_lost_while_nobody_says_whose_the_pod_is(last: Place, told: list[str]) -> None:
    """It is asked again, and meanwhile nothing is delivered."""
    streams = Streams(at(1, "a") + at(2, "b"), at(2, "b") + at(3, "c"))
    streams.uids = [ClusterUnavailable(), ClusterUnavailable(), "uid"]
    assert read(streams, last) == told
    assert streams.questions == 3


def test_logs_that_flood_share_what_one_may_have() -> None:
    """Each gets a little, however many there are, and all others as much as ever."""
    floods = Floods()
    assert floods.limit("a") == source.BYTES_A_SECOND
    floods.note("a")
    floods.note("b")
    assert floods.limit("a") == source.BYTES_A_SECOND // 2
    for log in range(1000):
        floods.note(log)
    assert floods.limit("a") == source.LEAST_BYTES_A_SECOND


def test_a_log_that_stays_behind_is_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that falls behind and catches up is not, nor one whose clock is wrong."""
    now = 0.0
    monkeypatch.setattr(source, "time", SimpleNamespace(monotonic=lambda: now, time=lambda: 1000.0 + now))

    def read_all(lags: list[float]) -> bool:
        """One piece a second, whose last lines are so old."""
        nonlocal now
        pace = source._Pace()
        for lag in lags:
            now += 1
            if pace.is_too_much(1, int((1000 + now - lag) * SECOND), source.BYTES_A_SECOND):
                return True
        return False

    assert not read_all([60.0] * 30)
    assert not read_all([60.0, 40, 20, 1, 0, 0, 0, 0, 0, 0, 0])
    assert not read_all([0.0, 30, 20, 10, 1, 0, 0, 0, 0, 0, 0])
    assert read_all([0.0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11])
