"""What a client that comes back has not had, read in pieces."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from service.logs import backlog
from service.logs.backlog import piece_after
from service.logs.entries import AGAIN, GAP
from service.logs.lines import Place, Run

RUN = Run("pod", 1)
SECOND = 10**9
GAP_NOTE, AGAIN_NOTE = f"--- {GAP} ---", f"--- {AGAIN} ---"


class Log:
    """The log of a game, and of its run before; `run` is what there is once it is opened."""

    def __init__(self, text: str | None, previous: str | None = None, run: Run | None = RUN) -> None:
        self.texts = {False: text, True: previous}
        self.run = run

    @contextmanager
    def log_stream(
        self, id: int, *, tail: int | None, since: int | None, follow: bool = True, previous: bool = False
    ) -> Iterator[Iterator[bytes] | None]:
        assert (tail, follow) == (None, False)
        text = self.texts[previous]
        yield None if text is None else iter([text.encode()])

    def log_text(self, id: int, pod: str, *, tail: int | None, since: int | None, previous: bool = False) -> str | None:
        assert (pod, tail, since, previous) == ("pod", None, 1, True)
        return self.texts[True]

    def pod_run(self, id: int) -> tuple[str, int] | None:
        return self.run


def at(second: int, text: str) -> str:
    return f"1970-01-01T00:00:{second:02}Z {text}\n"


def read(log: Any, after: Place) -> tuple[list[str], Place, bool]:
    """The texts of the piece after a line, its last line, and whether that was all."""
    piece = piece_after(log, 1, RUN, after)
    assert piece is not None
    return [entry.text.decode().removesuffix("\n") for entry in piece.entries], piece.last, piece.complete


@pytest.mark.parametrize(
    ("log", "after", "said", "last", "complete"),
    [
        (Log(at(1, "a") + at(1, "b") + at(2, "c")), Place(RUN, SECOND, 1), ["b", "c"], Place(RUN, 2 * SECOND, 1), True),
        # The last line is not finished yet.
        (Log(at(1, "a") + at(2, "b").strip()), Place(RUN, SECOND, 1), [], Place(RUN, SECOND, 1), True),
        # A new file has begun.
        (Log(at(2, "b")), Place(RUN, SECOND, 1), [GAP_NOTE, "b"], Place(RUN, 2 * SECOND, 1), True),
        (Log(None), Place(RUN, SECOND, 1), [GAP_NOTE], Place(RUN, SECOND, 1), True),
        # Another pod has the name since, or another run has begun: these are not its lines.
        (Log(at(1, "a") + at(2, "b"), run=None), Place(RUN, SECOND, 1), [], Place(RUN, SECOND, 1), False),
        (Log(at(1, "a") + at(2, "b"), run=Run("other", 1)), Place(RUN, SECOND, 1), [], Place(RUN, SECOND, 1), False),
        # Of the run before, with what it wrote at its end.
        (
            Log(at(9, "z"), at(1, "a") + at(2, "b").strip()),
            Place(Run("pod", 0), SECOND, 1),
            ["b", AGAIN_NOTE],
            Place(RUN, 0, 0),
            False,
        ),
        # Of a run that nobody has any more.
        (Log(at(9, "z")), Place(Run("pod", 7), SECOND, 1), [GAP_NOTE], Place(RUN, 0, 0), False),
    ],
)
def test_the_next_piece(log: Log, after: Place, said: list[str], last: Place, complete: bool) -> None:
    """Follows the line; one gap is told if that line is gone."""
    assert read(log, after) == (said, last, complete)


@pytest.mark.parametrize("log", [Log(at(5, "z"), at(1, "a") + at(2, "b")), Log(None, at(1, "a"))])
def test_the_next_runs_log_is_not_taken_for_that_of_the_run_before(log: Log) -> None:
    """A node gives it out before the API server has heard of the restart. It is asked again, and no gap is told."""
    assert piece_after(log, 1, RUN, Place(RUN, SECOND, 1)) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("previous", [False, True])
def test_a_piece_is_small(monkeypatch: pytest.MonkeyPatch, previous: bool) -> None:
    """However many lines there are, also of one second; nothing is lost or repeated between two."""
    monkeypatch.setattr(backlog, "PIECE_BYTES", 1000)
    text = "".join(at(1, f"{number} {'x' * 1000}") for number in range(100))
    run = Run("pod", 0) if previous else RUN
    log, last, complete, said, count = Log(text, text), Place(run, 0, 0), False, [], 0
    while not complete and last.run == run:
        texts, last, complete = read(log, last)
        assert len(texts) < 20
        said += [each.partition(" ")[0] for each in texts]
        count += 1
    assert said == [*map(str, range(100)), *(["---"] if previous else [])]
    assert count > 5
