"""Standard input: commands for a game that reads them as lines.

Such a game marks no answer, so the answer is what it writes in the moment after: until it is silent, and not for long.
Everything that it writes is taken for it, such as what its players say.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from service.console.connection import LARGEST_ANSWER, ConsoleError, TooLong, as_console_errors, left

FIRST_SECONDS = 0.7
"""How long to wait for the game to write anything. Many commands make a game write nothing."""
QUIET_SECONDS = 0.25
"""A game that has written and is silent for so long has answered."""
LONGEST_SECONDS = 0.9
"""How long a game may write. Ten commands at once all get their turn in `operations.console.SECONDS`."""


class Attachment(Protocol):
    """A connection to a game's standard input, and to what it writes from then on."""

    def send(self, data: bytes, seconds: float) -> None:
        """Write to its standard input; raises OSError."""

    def receive(self, seconds: float) -> bytes:
        """What it writes next; empty once it has ended. Raises TimeoutError if it writes nothing, and OSError."""


class StdinConsole:
    """A console over one attachment. Not thread-safe; useless after an error."""

    def __init__(self, attachment: Attachment) -> None:
        self._attachment = attachment

    def run(self, line: str, seconds: float, enough: Sequence[str] = ()) -> str:
        """See `GameConsole.run`. Without `enough`, the answer is that of `ask`."""
        if not enough:
            return self.ask(line, seconds)[0]
        deadline, answer = time.monotonic() + seconds, b""
        wanted = [text.encode() for text in enough]
        with as_console_errors():
            self._send(line, deadline)
            while not any(text in answer for text in wanted):
                if not (part := self._attachment.receive(left(deadline))):
                    raise ConsoleError("it ended")
                answer += part
                if len(answer) > LARGEST_ANSWER:
                    raise TooLong("its answer is too long")
        return answer.decode(errors="replace")

    def ask(self, line: str, seconds: float) -> tuple[str, bool]:
        """See `GameConsole.ask`. A game that writes nothing has an empty answer, and one that goes on a cut one."""
        deadline = time.monotonic() + seconds
        with as_console_errors():
            self._send(line, deadline)
        answer, cut = self._written(min(deadline, time.monotonic() + LONGEST_SECONDS))
        return answer.decode(errors="replace"), cut

    def _send(self, line: str, deadline: float) -> None:
        self._attachment.send(line.encode() + b"\n", left(deadline))

    def _written(self, deadline: float) -> tuple[bytes, bool]:
        """What the game writes, and whether it would have gone on."""
        answer, wait = b"", FIRST_SECONDS
        while (seconds := deadline - time.monotonic()) > 0:
            try:
                part = self._attachment.receive(min(wait, seconds))
            except TimeoutError:
                return answer, wait > seconds and bool(answer)
            except OSError:
                # The game has got the command, which may have ended it.
                return answer, True
            if not part:
                return answer, False
            answer, wait = answer + part, QUIET_SECONDS
            if len(answer) > LARGEST_ANSWER:
                return answer[:LARGEST_ANSWER], True
        return answer, True
