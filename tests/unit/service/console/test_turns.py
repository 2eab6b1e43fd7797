"""Commands of one game come in order, within limits, and one game waits for no other."""

from __future__ import annotations

import threading

import pytest

from service.console import turns
from service.console.turns import AT_ONCE, Turns
from service.errors import TooManyCommands


def test_ten_at_once_and_then_one_a_second() -> None:
    """`Retry-After` says when the next one is taken; what is not used adds up to ten again."""
    now = [100.0]
    some = Turns(lambda: now[0])
    for number in range(AT_ONCE):
        assert some.take(1, lambda number=number: number).result(20) == number  # type: ignore[misc]
    with pytest.raises(TooManyCommands) as refused:
        some.take(1, lambda: 0)
    assert refused.value.headers["Retry-After"] == "1"
    some.take(2, lambda: 0).result(20)
    now[0] += 1
    some.take(1, lambda: 0).result(20)
    with pytest.raises(TooManyCommands):
        some.take(1, lambda: 0)
    now[0] += 3600
    for _ in range(AT_ONCE):
        some.take(1, lambda: 0).result(20)
    with pytest.raises(TooManyCommands):
        some.take(1, lambda: 0)


def test_a_game_gets_its_commands_in_order() -> None:
    """One after the other, also while they come faster than it does them."""
    go, done = threading.Event(), []
    some = Turns()
    first = some.take(1, lambda: go.wait(20))
    others = [some.take(1, lambda number=number: done.append(number)) for number in range(5)]  # type: ignore[misc]
    assert not done
    go.set()
    assert first.result(20)
    for each in others:
        each.result(20)
    assert done == list(range(5))


def test_a_game_that_hangs_keeps_one_thread_and_no_other_game() -> None:
    """Its commands wait, at most ten of them; others are done at once."""
    go, now = threading.Event(), [0.0]
    some = Turns(lambda: now[0])
    waiting = []
    for _ in range(AT_ONCE):
        waiting.append(some.take("hangs", lambda: go.wait(60)))
        now[0] += 10
    with pytest.raises(TooManyCommands, match="slow"):
        some.take("hangs", lambda: None)
    assert some.take("other", lambda: 7).result(20) == 7
    go.set()
    assert all(each.result(20) for each in waiting)


def test_a_process_is_busy_with_so_many_games_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next game is refused until one of them is done."""
    monkeypatch.setattr(turns, "MOST_GAMES", 2)
    go, some = threading.Event(), Turns()
    busy = [some.take(game, lambda: go.wait(60)) for game in "ab"]
    with pytest.raises(TooManyCommands, match="many games"):
        some.take("c", lambda: None)
    go.set()
    assert all(each.result(20) for each in busy)


def test_an_error_is_the_answer() -> None:
    """And the next command is done all the same."""
    some = Turns()
    with pytest.raises(ZeroDivisionError):
        some.take(1, lambda: 1 / 0).result(20)
    assert some.take(1, lambda: 1).result(20) == 1
