"""Who plays on the servers, as their games last said: what an answer shows, which waits for no game.

Whoever looks at a server has its game asked behind the answer: once for all who look within some seconds, by a few
threads. Games that did not answer last time are asked by a thread of their own, so that a game that hangs delays no
other. Each process knows what it was told itself.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from service.kube.times import stamp
from service.players.counts import Door, PlayerCounts
from service.players.query import Crowd, Unknown, crowd
from service.servers.accessors import uid
from service.servers.objects import Objects

log = logging.getLogger(__name__)

AGAIN_SECONDS = 15.0
SILENT_AGAIN_SECONDS = 30.0
"""How long a game is not asked again after it was asked: one that has answered, and one that has not."""
VALID_SECONDS = 90.0
"""For how long an answer is shown."""
ASK_SECONDS = 1.0
THREADS, SILENT_THREADS = 3, 1
MOST_WAITING, MOST_SILENT_WAITING = 500, 20
"""How many questions wait for a thread. Further ones are asked when somebody looks again."""


@dataclass(frozen=True)
class Players:
    """Who plays on a server, as the API shows it; see `Crowd`. `as_of` is when the game said so (RFC 3339)."""

    online: int
    max: int | None
    names: tuple[str, ...] | None
    as_of: str


class _Entry:
    """What is known of the game in one pod. Times are monotonic."""

    def __init__(self, pod: str) -> None:
        self.pod = pod
        self.players: Players | None = None
        self.valid_until = self.due = float("-inf")
        self.waiting = False
        self.silent = False


_Question = tuple[_Entry, Door]


class LastPlayers:
    """Who plays on servers, as last known. Thread-safe; its threads start with the first question.

    Args:
        counts: Knows where games are asked.
        ask: Asks a game; None for `query.crowd`.
        clock: Returns the seconds of a clock that never goes back.
    """

    def __init__(
        self,
        counts: PlayerCounts,
        ask: Callable[[str, str, int, float], Crowd] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._counts = counts
        self._ask = ask or crowd
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: dict[int, _Entry] = {}
        self._forgotten = clock()
        # Of the games that answered last time, or were never asked, and of the silent ones.
        self._lanes = (
            _Lane(self._answer, THREADS, MOST_WAITING),
            _Lane(self._answer, SILENT_THREADS, MOST_SILENT_WAITING),
        )

    def of(self, objects: Objects, *, running: bool) -> Players | None:
        """Who plays on the server; None if that is unknown, also while it does not run. This waits for nothing.

        Args:
            objects: The server's objects; its pod must have been read.
            running: Whether its state is `running`.
        """
        pod = uid(objects.pod)
        if not running or pod is None:
            return None
        with self._lock:
            now = self._clock()
            self._forget(now)
            entry = self._entries.get(objects.id)
            if entry is None or entry.pod != pod:
                entry = self._entries[objects.id] = _Entry(pod)
            if not entry.waiting and now >= entry.due:
                self._have_asked(entry, objects)
            return entry.players if now < entry.valid_until else None

    def _have_asked(self, entry: _Entry, objects: Objects) -> None:
        try:
            door = self._counts.door(objects, running=True)
        except Unknown:
            return
        # Before the thread can set it to False.
        entry.waiting = True
        entry.waiting = self._lanes[entry.silent].put((entry, door))

    def _answer(self, question: _Question) -> None:
        """Ask the game, and keep what it says."""
        entry, door = question
        said: Crowd | None = None
        try:
            said = self._ask(*door, ASK_SECONDS)
        except Unknown as unknown:
            log.debug("the players of the server at %s are unknown: %s", door.address, unknown)
        except Exception:
            log.exception("asking a game for its players failed")
        with self._lock:
            now = self._clock()
            entry.waiting, entry.silent = False, said is None
            entry.due = now + (AGAIN_SECONDS if said else SILENT_AGAIN_SECONDS)
            if said is not None:
                entry.players = Players(*said, stamp(datetime.now(UTC)))
                entry.valid_until = now + VALID_SECONDS

    def _forget(self, now: float) -> None:
        """Forget the servers at which nobody has looked for some time, now and then."""
        if now < self._forgotten + VALID_SECONDS:
            return
        self._forgotten = now
        old = now - VALID_SECONDS
        for id in [id for id, entry in self._entries.items() if not entry.waiting and entry.due < old]:
            del self._entries[id]


class _Lane:
    """A bounded queue, and the threads that work on it."""

    def __init__(self, work: Callable[[_Question], None], threads: int, most: int) -> None:
        self._work = work
        self._threads = threads
        self._queue: queue.Queue[_Question] = queue.Queue(most)
        self._started = False

    def put(self, question: _Question) -> bool:
        """Whether there is room for the question. No two threads may call this at once."""
        if not self._started:
            self._started = True
            for _ in range(self._threads):
                # A process that ends does not wait for a game.
                threading.Thread(target=self._run, name="players", daemon=True).start()
        try:
            self._queue.put_nowait(question)
        except queue.Full:
            return False
        return True

    def _run(self) -> None:
        while True:
            self._work(self._queue.get())
