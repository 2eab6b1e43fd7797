"""Commands for one game take turns: each game has a thread of its own while there is something to do.

So a game that hangs keeps one thread busy and no thread of the API's calls, and its commands come in order.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from contextvars import copy_context
from typing import Any, TypeVar

from service.errors import TooManyCommands

AT_ONCE = 10
"""How many commands a game takes at once."""
PER_SECOND = 1.0
"""How many it takes each second after that."""
MOST_GAMES = 64
"""How many games may be busy with commands in one process."""

_Answer = TypeVar("_Answer")


class Turns:
    """The queues of all games. Safe to use from many threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        # What each game may still take, and when that was so. A game that is not in here may take AT_ONCE.
        self._left: dict[Hashable, tuple[float, float]] = {}
        self._queues: dict[Hashable, deque[Callable[[], None]]] = {}

    def take(self, game: Hashable, work: Callable[[], _Answer]) -> Future[_Answer]:
        """Do some work once it is its turn; raises TooManyCommands if the game has too much to do.

        Args:
            game: Whose turn it is.
            work: What to do. It runs in the game's thread, must end in time, and sees the caller's context variables.

        Returns:
            What will have what the work returns or raises.
        """
        answer: Future[_Answer] = Future()
        context = copy_context()
        with self._lock:
            self._check(game)
            self._queues.setdefault(game, deque()).append(lambda: context.run(_do, work, answer))
            if len(self._queues[game]) == 1:
                threading.Thread(target=self._work, args=(game,), name="console", daemon=True).start()
        return answer

    def _check(self, game: Hashable) -> None:
        """Count the command."""
        now = self._clock()
        if len(self._left) >= 2 * MOST_GAMES:
            self._left = {each: tokens for each, tokens in self._left.items() if _refilled(*tokens, now) < AT_ONCE}
        tokens = _refilled(*self._left.get(game, (AT_ONCE, now)), now)
        if tokens < 1:
            raise TooManyCommands(retry_after=math.ceil((1 - tokens) / PER_SECOND))
        waiting = self._queues.get(game)
        if waiting is not None and len(waiting) >= AT_ONCE:
            raise TooManyCommands("The game is slow: its earlier commands still wait.", retry_after=2)
        if waiting is None and len(self._queues) >= MOST_GAMES:
            raise TooManyCommands("This replica sends commands to many games at the moment.", retry_after=2)
        self._left[game] = tokens - 1, now

    def _work(self, game: Hashable) -> None:
        queue = self._queues[game]
        while True:
            queue[0]()
            with self._lock:
                # What is done stays in the queue until then, so that nobody starts a second thread.
                queue.popleft()
                if not queue:
                    del self._queues[game]
                    return


def _refilled(left: float, since: float, now: float) -> float:
    return min(float(AT_ONCE), left + (now - since) * PER_SECOND)


def _do(work: Callable[[], Any], answer: Future[Any]) -> None:
    try:
        answer.set_result(work())
    except BaseException as error:
        answer.set_exception(error)
