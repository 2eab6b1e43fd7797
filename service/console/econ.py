"""The external console of Teeworlds' kind: commands for a game as lines of text over TCP.

There is no description of it but the game's own: `src/engine/shared/econ.cpp` and `netconsole.cpp` in
https://github.com/teeworlds/teeworlds. What the game writes to its log comes between the answers, and no answer has an
end. So each command goes between two that make the game write a number which nobody can guess. The game carries out all
lines that come together before it goes on, so what is between the two numbers is the answer.
"""

from __future__ import annotations

import secrets
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from service.console.connection import (
    LARGEST_ANSWER,
    ConsoleError,
    LoginRefused,
    NoAnswer,
    TooLong,
    as_console_errors,
    left,
)

_WELCOME, _WRONG = b"Authentication successful", b"Wrong password"
_LINGER = struct.pack("ii", 1, 0)
"""Close at once, without waiting for what is under way. The side that closes first in the usual way keeps the port for
a minute; if that is the game, because it ends, it cannot listen there when it starts again. And a game that hung and
goes on does not carry out what was given up."""


@contextmanager
def connected(host: str, port: int, password: str, seconds: float) -> Iterator[EconConsole]:
    """A console that is logged in. It tries the password once, so that the game has no reason to ban this address.

    Args:
        host: An IP address.
        port: The port of the console.
        password: Its password.
        seconds: For the connection and the login.

    Raises:
        LoginRefused: The password is wrong.
        ConsoleError: Nobody answers there in time, or not as such a console does.
    """
    deadline = time.monotonic() + seconds
    with as_console_errors():
        connection = socket.create_connection((host, port), timeout=left(deadline))
    with connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
        console = EconConsole(connection)
        with as_console_errors():
            console.log_in(password, deadline)
        yield console


class _Ended(ConsoleError):
    """The game has ended the connection."""


class EconConsole:
    """A console over one connection. Not thread-safe; useless after an error."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._received = b""
        self._budget = 0

    def log_in(self, password: str, deadline: float) -> None:
        """Send the password, until a time of the monotonic clock."""
        self._budget = LARGEST_ANSWER
        self._send(password.encode() + b"\n", deadline)
        while not (line := self._line(deadline)).startswith(_WELCOME):
            if line.startswith(_WRONG):
                raise LoginRefused("its console refuses the password")

    def run(self, line: str, seconds: float, enough: Sequence[str] = ()) -> str:
        """See `GameConsole.run`."""
        lines: list[bytes] = []
        self._answer(line, time.monotonic() + seconds, lines, [text.encode() for text in enough])
        return _text(lines)

    def ask(self, line: str, seconds: float) -> tuple[str, bool]:
        """See `GameConsole.ask`. It is also cut if the game ends the connection, as after a `shutdown`."""
        lines: list[bytes] = []
        try:
            self._answer(line, time.monotonic() + seconds, lines, [])
        except (NoAnswer, TooLong):
            if not lines:
                raise
            return _text(lines), True
        except _Ended:
            return _text(lines), True
        return _text(lines), False

    def _answer(self, line: str, deadline: float, lines: list[bytes], enough: Sequence[bytes]) -> None:
        """Run a command, and put the lines of its answer into `lines` until it ends, or one of them is enough."""
        begin, end = secrets.token_hex(8).encode(), secrets.token_hex(8).encode()
        command = b"echo %b\n%b\necho %b\n" % (begin, line.encode(), end)
        self._budget = LARGEST_ANSWER
        with as_console_errors():
            self._send(command, deadline)
            # With `ec_output_level` 1, the game also repeats each command before it carries it out.
            try:
                while begin not in self._line(deadline):
                    pass
            except _Ended as error:
                raise ConsoleError(str(error)) from error
            self._budget = LARGEST_ANSWER - len(self._received)
            while end not in (each := self._line(deadline)):
                if begin in each:
                    continue
                lines.append(each)
                if any(text in each for text in enough):
                    return

    def _send(self, data: bytes, deadline: float) -> None:
        self._connection.settimeout(left(deadline))
        self._connection.sendall(data)

    def _line(self, deadline: float) -> bytes:
        """The next line. The game ends each with a newline and two zeros."""
        while b"\n" not in self._received:
            self._connection.settimeout(left(deadline))
            if not (part := self._connection.recv(4096)):
                raise _Ended("it ended the connection")
            self._received += part
            self._budget -= len(part)
            if self._budget < 0:
                raise TooLong("its answer is too long")
        line, _, self._received = self._received.partition(b"\n")
        return line.strip(b"\0\r")


def _text(lines: Sequence[bytes]) -> str:
    return b"\n".join(lines).decode(errors="replace")
