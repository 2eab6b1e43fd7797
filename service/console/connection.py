"""What all ways into a game share: what a console does, how long and how large an answer may be, and what goes wrong.

The customer may have changed the game, so its answers are untrusted: all of them are bounded, in bytes and in time.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

LARGEST_ANSWER = 64 * 1024
"""How many bytes a game may send for one command, with what its protocol adds."""


class ConsoleError(Exception):
    """A command did not reach the game, or its answer cannot be understood; the message says why."""


class NoAnswer(ConsoleError):
    """The game did not answer in time. Nobody knows whether it did what it was told."""


class TooLong(ConsoleError):
    """The answer has more than LARGEST_ANSWER bytes."""


class LoginRefused(ConsoleError):
    """The game does not take this password."""


class GameConsole(Protocol):
    """A console of a game. Not thread-safe; useless after an error."""

    def run(self, line: str, seconds: float, enough: Sequence[str] = ()) -> str:
        """Run a command.

        Args:
            line: The command.
            seconds: How long the whole answer may take.
            enough: Texts, any of which ends the answer.

        Returns:
            The answer; with `enough`, as much of it as has come until then.

        Raises:
            ConsoleError: There was no answer in time, or it has more than LARGEST_ANSWER bytes.
        """

    def ask(self, line: str, seconds: float) -> tuple[str, bool]:
        """Run a command whose answer may be cut, for somebody who reads it.

        Args:
            line: The command.
            seconds: How long the whole answer may take.

        Returns:
            The answer, and whether it is cut: at LARGEST_ANSWER bytes, or at what had come when the time was over.

        Raises:
            NoAnswer: Nothing came in time.
            ConsoleError: The connection broke, or what answers there is no console.
        """


def left(deadline: float) -> float:
    """The seconds until the deadline; raises TimeoutError after it. A socket would take 0 as "do not wait"."""
    if (seconds := deadline - time.monotonic()) <= 0:
        raise TimeoutError
    return seconds


@contextmanager
def as_console_errors() -> Iterator[None]:
    """Turn the errors of a socket into ConsoleError."""
    try:
        yield
    except TimeoutError as error:
        raise NoAnswer("it did not answer in time") from error
    except OSError as error:
        raise ConsoleError(f"its remote console cannot be reached: {error.strerror or type(error).__name__}") from error
