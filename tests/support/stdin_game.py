"""A game that reads commands from its standard input, for tests: it does what a test tells it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Answer = Callable[[str], Iterator[tuple[float, bytes]]]


class StdinGame:
    """A game, and what is connected to it.

    Attributes:
        said: The lines that it has got, in order.
        answer: What it writes for a line: pieces, each after a pause in seconds.
        ends: Whether it ends after what it writes.
        closed: How many attachments were closed.
    """

    def __init__(self) -> None:
        self.said: list[str] = []
        self.answer: Answer = lambda line: iter([(0.0, f"got {line}\n".encode())])
        self.ends = False
        self.closed = 0
        self._pieces: Iterator[tuple[float, bytes]] = iter(())

    @contextmanager
    def attach(self, seconds: float) -> Iterator[StdinGame]:
        """As `interfaces.Cluster.attached`."""
        yield self
        self.closed += 1

    def send(self, data: bytes, seconds: float) -> None:
        """Get a line."""
        line = data.decode().removesuffix("\n")
        assert "\n" not in line
        self.said.append(line)
        self._pieces = self.answer(line)

    def receive(self, seconds: float) -> bytes:
        """The next piece, or TimeoutError if that comes later."""
        piece = next(self._pieces, None)
        if piece is None and self.ends:
            return b""
        if piece is None or piece[0] > seconds:
            time.sleep(seconds)
            raise TimeoutError
        time.sleep(piece[0])
        return piece[1]
