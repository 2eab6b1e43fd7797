"""Commands reach a game on its standard input, and what it writes then is the answer, within bounds."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from service.console import stdin
from service.console.connection import LARGEST_ANSWER, ConsoleError, NoAnswer, TooLong
from service.console.stdin import StdinConsole
from tests.support.stdin_game import StdinGame

LONG = 30.0
"""Seconds that no test needs, however busy the machine is."""


@pytest.fixture
def game() -> StdinGame:
    return StdinGame()


def test_a_command_is_a_line_and_its_answer_what_the_game_writes(game: StdinGame) -> None:
    """Signs may come in pieces."""
    game.answer = lambda line: iter([(0.0, b"got h"), (0.0, b"\xc3"), (0.0, b"\xa9\n")])
    assert StdinConsole(game).ask("say hé", LONG) == ("got hé\n", False)
    assert game.said == ["say hé"]


def test_a_game_may_write_nothing(game: StdinGame, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then there is no answer to wait for."""
    monkeypatch.setattr(stdin, "FIRST_SECONDS", 0.05)
    game.answer = lambda line: iter(())
    assert StdinConsole(game).ask("quiet", LONG) == ("", False)


def test_a_silent_game_has_answered(game: StdinGame, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it writes later is no part of the answer."""
    monkeypatch.setattr(stdin, "QUIET_SECONDS", 0.02)
    game.answer = lambda line: iter([(0.0, b"one\n"), (0.5, b"later\n")])
    assert StdinConsole(game).ask("x", LONG) == ("one\n", False)


def test_a_game_that_goes_on_is_cut(game: StdinGame, monkeypatch: pytest.MonkeyPatch) -> None:
    """In time, or in bytes."""
    monkeypatch.setattr(stdin, "LONGEST_SECONDS", 0.2)
    game.answer = lambda line: ((0.01, b"x\n") for _ in itertools.count())
    answer, cut = StdinConsole(game).ask("x", LONG)
    assert cut
    assert answer.startswith("x\n")
    monkeypatch.setattr(stdin, "LONGEST_SECONDS", LONG)
    game.answer = lambda line: ((0.0, b"x" * 10_000) for _ in itertools.count())
    answer, cut = StdinConsole(game).ask("x", LONG)
    assert (len(answer), cut) == (LARGEST_ANSWER, True)


def test_a_command_that_ends_the_game_has_an_answer(game: StdinGame) -> None:
    """What the game has written; if the connection breaks, that may not be all."""
    game.ends = True
    assert StdinConsole(game).ask("stop", LONG) == ("got stop\n", False)

    def breaks(line: str) -> Iterator[tuple[float, bytes]]:
        yield 0.0, b"bye\n"
        raise ConnectionResetError

    game.answer = breaks
    assert StdinConsole(game).ask("stop", LONG) == ("bye\n", True)


def test_what_the_game_does_not_take_is_not_sent(game: StdinGame, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection may hang, or break."""

    def hangs(data: bytes, seconds: float) -> None:
        raise TimeoutError

    monkeypatch.setattr(game, "send", hangs)
    with pytest.raises(NoAnswer):
        StdinConsole(game).ask("x", LONG)
    with pytest.raises(NoAnswer):
        StdinConsole(game).run("x", LONG, ["y"])


def test_the_expected_text_ends_an_answer(game: StdinGame) -> None:
    """Also one that comes in pieces; a program waits for it as long as it may."""
    game.answer = lambda line: iter([(0.0, b"saving\nsav"), (stdin.QUIET_SECONDS * 2, b"ed\n"), (0.0, b"more\n")])
    assert StdinConsole(game).run("save", LONG, ["saved"]) == "saving\nsaved\n"
    with pytest.raises(NoAnswer, match="in time"):
        StdinConsole(game).run("save", 0.05, ["nothing"])
    game.ends = True
    with pytest.raises(ConsoleError, match="ended"):
        StdinConsole(game).run("save", LONG, ["nothing"])
    game.answer = lambda line: ((0.0, b"x" * 10_000) for _ in itertools.count())
    with pytest.raises(TooLong):
        StdinConsole(game).run("save", LONG, ["saved"])
    game.answer = lambda line: iter([(0.0, b"done\n")])
    assert StdinConsole(game).run("save", LONG) == "done\n"


def test_ten_commands_at_once_get_their_turn() -> None:
    """Each within the time of all, even if the game writes nothing, or without end."""
    assert max(stdin.FIRST_SECONDS, stdin.LONGEST_SECONDS) * 10 < 10
