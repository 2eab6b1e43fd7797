"""Source RCON: commands for a game over TCP.

The protocol: https://developer.valvesoftware.com/wiki/Source_RCON_Protocol.
"""

from __future__ import annotations

import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator, Sequence
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

_LARGEST_PACKET = 8 * 1024
_LOGIN, _LOGIN_ANSWER, _COMMAND, _END = 3, 2, 2, 0


@contextmanager
def connected(host: str, port: int, password: str, seconds: float) -> Iterator[RconConsole]:
    """A console that is logged in.

    Args:
        host: An IP address.
        port: The port of RCON.
        password: Its password.
        seconds: For the connection and the login.

    Raises:
        LoginRefused: The password is wrong.
        ConsoleError: Nobody answers there in time, or not as RCON does.
    """
    deadline = time.monotonic() + seconds
    with as_console_errors():
        connection = socket.create_connection((host, port), timeout=left(deadline))
    with connection:
        console = RconConsole(connection)
        with as_console_errors():
            console.log_in(password, deadline)
        yield console


def command(host: str, port: int, password: str, line: str, timeout: float = 10) -> str:
    """Run one command over a connection of its own, within `timeout` seconds; as `RconConsole.run`."""
    deadline = time.monotonic() + timeout
    with connected(host, port, password, timeout) as console:
        return console.run(line, deadline - time.monotonic())


class RconConsole:
    """A console over one connection. Not thread-safe; useless after an error."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._number = 0
        self._budget = 0

    def log_in(self, password: str, deadline: float) -> None:
        """Send the password, until a time of the monotonic clock."""
        self._budget = LARGEST_ANSWER
        self._send(1, _LOGIN, password, deadline)
        # Some games send an empty answer before.
        while (packet := self._receive(deadline))[1] != _LOGIN_ANSWER:
            pass
        if packet[0] != 1:
            raise LoginRefused("its remote console refuses the password")
        self._number = 1

    def run(self, line: str, seconds: float, enough: Sequence[str] = ()) -> str:
        """See `GameConsole.run`."""
        parts: list[bytes] = []

        def is_enough() -> bool:
            answer = b"".join(parts).decode(errors="replace")
            return any(text in answer for text in enough)

        self._answer(line, time.monotonic() + seconds, parts, is_enough)
        return b"".join(parts).decode(errors="replace")

    def ask(self, line: str, seconds: float) -> tuple[str, bool]:
        """See `GameConsole.ask`."""
        parts: list[bytes] = []
        try:
            self._answer(line, time.monotonic() + seconds, parts, lambda: False)
        except (NoAnswer, TooLong):
            if not parts:
                raise
            return b"".join(parts).decode(errors="replace"), True
        return b"".join(parts).decode(errors="replace"), False

    def _answer(self, line: str, deadline: float, parts: list[bytes], is_enough: Callable[[], bool]) -> None:
        """Run a command, and put the texts of its answer into `parts` until it ends, or they are enough."""
        self._budget = LARGEST_ANSWER
        command, end = self._number + 1, self._number + 2
        self._number = end
        with as_console_errors():
            self._send(command, _COMMAND, line, deadline)
            while True:
                packet, _, body = self._receive(deadline)
                if packet == end:
                    return
                if packet != command:
                    continue
                parts.append(body)
                if is_enough():
                    return
                if len(parts) == 1:
                    # A long answer comes in many packets. The game also answers this packet, whose type it does not
                    # know, and that marks the end. It must not come with the command: Minecraft ends a connection on
                    # which it reads two packets at once.
                    self._send(end, _END, "", deadline)

    def _send(self, packet: int, kind: int, body: str, deadline: float) -> None:
        data = struct.pack("<ii", packet, kind) + body.encode() + b"\0\0"
        self._connection.settimeout(left(deadline))
        self._connection.sendall(struct.pack("<i", len(data)) + data)

    def _receive(self, deadline: float) -> tuple[int, int, bytes]:
        """The next packet: its number, its type and its text."""
        (length,) = struct.unpack("<i", self._exactly(4, deadline))
        if not 10 <= length <= _LARGEST_PACKET:
            raise ConsoleError("what answers there is no remote console")
        data = self._exactly(length, deadline)
        packet, kind = struct.unpack("<ii", data[:8])
        return packet, kind, data[8:-2]

    def _exactly(self, length: int, deadline: float) -> bytes:
        self._budget -= length
        if self._budget < 0:
            raise TooLong("its answer is too long")
        data = bytearray()
        while len(data) < length:
            self._connection.settimeout(left(deadline))
            if not (part := self._connection.recv(length - len(data))):
                raise ConsoleError("it ended the connection")
            data += part
        return bytes(data)


if __name__ == "__main__":
    print(command(sys.argv[1], int(sys.argv[2]), sys.argv[3], " ".join(sys.argv[4:])))
