"""One game's log as it is written, read once for all who follow it on this replica."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from itertools import islice
from typing import Protocol

from service.errors import Problem
from service.logs.entries import AGAIN, GAP, Entry, line_entry, note_entry
from service.logs.lines import MOST_BYTES, Place, Reader, Run, lines_of
from service.servers.objects import Objects
from service.servers.spec import server_uid

log = logging.getLogger(__name__)

RING_BYTES = 256 * 1024
"""How much of a log is kept for its followers; who is further behind misses lines, and is told."""
BYTES_A_SECOND = 2 * 1024 * 1024
"""How much of a log is read in a second; of those that flood, that much together, but each at least the next."""
LEAST_BYTES_A_SECOND = 32 * 1024
TAIL_AFTER_A_FLOOD = 200
_FLOOD_SECONDS = 5.0
_FAR_BEHIND, _CATCH_UP_SECONDS = 5.0, 5.0
_PIECE_BYTES, _BREATH = 8 * 1024, 0.001
_AGAIN, _PAUSE, _LONGEST_PAUSE = 0.05, 0.5, 5.0


class Logs(Protocol):
    """The part of `operations.interfaces.Cluster` that reads logs."""

    def log_text(
        self, id: int, pod: str, *, tail: int | None, since: int | None, previous: bool = False
    ) -> str | None: ...
    def log_stream(
        self, id: int, *, tail: int | None, since: int | None, follow: bool = True, previous: bool = False
    ) -> AbstractContextManager[Iterator[bytes] | None]: ...
    def pod_run(self, id: int) -> tuple[str, int] | None: ...
    def known(self, id: int) -> Objects | None: ...
    def server(self, id: int) -> Objects: ...


class Ring:
    """The newest entries of a log, each with a number; the first ever has 0. For one thread alone."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque()
        self._bytes = self._forgotten = 0
        self.start = 0

    @property
    def end(self) -> int:
        """The number of the next entry."""
        return self.start + len(self._entries)

    def __getitem__(self, number: int) -> Entry:
        return self._entries[number - self.start]

    def add(self, entry: Entry) -> None:
        """Add an entry, and forget the oldest."""
        self._entries.append(entry)
        self._bytes += len(entry.event)
        while self._bytes > RING_BYTES and len(self._entries) > 1:
            size = len(self._entries.popleft().event)
            self._bytes, self._forgotten = self._bytes - size, self._forgotten + size
            self.start += 1

    def bytes_before(self, number: int) -> int:
        """How many bytes of events came before the entry with this number, which is in the ring or the next one."""
        return self._forgotten + sum(len(entry.event) for entry in islice(self._entries, number - self.start))

    def after(self, last: Place) -> tuple[int, bool]:
        """Where to go on after the line at `last`, and whether that line, or one before it, is in the ring."""
        first = None
        for number in range(self.end - 1, self.start - 1, -1):
            place = self[number].place
            if place is not None and place.run == last.run:
                if not place.follows(last):
                    return number + 1, True
                first = number
        return self.start if first is None else first, False


class Floods:
    """What logs that flood share, so that they leave this process time for everything else. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until: dict[object, float] = {}

    def limit(self, log: object) -> int:
        """How many bytes of a log may be read in a second now."""
        with self._lock:
            others = [each for each, until in self._until.items() if until > time.monotonic() and each is not log]
        return max(LEAST_BYTES_A_SECOND, BYTES_A_SECOND // (1 + len(others)))

    def note(self, log: object) -> None:
        """This log floods."""
        now = time.monotonic()
        with self._lock:
            self._until = {each: until for each, until in self._until.items() if until > now}
            self._until[log] = now + _FLOOD_SECONDS


_floods = Floods()


class Source:
    """Reads one game's log in a thread of its own, from the line after `last` on.

    Args:
        id: The server.
        uid: Its uid: nothing is delivered of another server that has the id later. None if it has none.
        logs: Reads logs.
        last: The last line that is known already; None to begin with whatever there is. A client may have named it:
            if the log is not that far, it begins after the log's newest line.
        deliver: Called with what has been read. It returns when that is taken, so that nothing piles up.
        wanted: Whether anyone still wants more; asked now and then. Once it has said no, the source is at its end.
        complete: Whether `last` is the last line of a run that has ended.
    """

    def __init__(
        self,
        id: int,
        uid: str | None,
        logs: Logs,
        last: Place | None,
        deliver: Callable[[list[Entry]], None],
        wanted: Callable[[], bool],
        *,
        complete: bool = False,
    ) -> None:
        self.first = last
        self._id = id
        self._uid = uid
        self._logs = logs
        self._last = last
        self._run = None if last is None else last.run
        self._deliver = deliver
        self._wanted = wanted
        self._tail: int | None = None
        self._told_absent = False
        # The last pod of which it is known whose it is, and whether it is the server's own.
        self._asked: tuple[str, bool] | None = None
        # Whether the run's log was read to its end, as far as one knows.
        self._complete = complete
        # Whether the log is as far as the line from which it was to begin.
        self._proven = last is None

    def read(self) -> None:
        """Read until nobody wants more."""
        pause = _PAUSE
        while self._wanted():
            if self._told_absent and self._is_absent():
                time.sleep(_PAUSE)
                continue
            before, began = self._last, time.monotonic()
            try:
                self._read_once()
            except Problem as error:
                log.warning("the log of server %d cannot be read: %s", self._id, error.__cause__ or error)
            except Exception:
                log.exception("the log of server %d cannot be read", self._id)
            # A read that lasted broke off for another reason than that there is nothing to read.
            lasted = time.monotonic() - began > _LONGEST_PAUSE
            pause = _PAUSE if self._last != before else min(_LONGEST_PAUSE, pause * 1.5)
            pause = _AGAIN if lasted else pause
            time.sleep(pause)

    def _is_absent(self) -> bool:
        """Whether the watches, too, say that there is no pod. Then it is not read from Kubernetes again and again."""
        try:
            objects = self._logs.known(self._id)
        except Problem:
            return False
        return objects is None or objects.pod is None

    def _read_once(self) -> None:
        pod = self._logs.pod_run(self._id)
        if pod is None:
            if not self._told_absent:
                self._told_absent = True
                self._deliver([note_entry("the game does not run; its log goes on when it starts")])
            return
        run = Run(*pod)
        if not self._is_ours(run.pod):
            # The followers hear soon that their server is gone.
            return
        if self._run is not None and run != self._run:
            self._begin_again(self._run, run)
        elif not self._proven and not self._prove(run):
            return
        self._proven = True
        tail, self._tail = self._tail, None
        since = None if self._last is None or tail is not None else self._last.time // 10**9
        with self._logs.log_stream(self._id, tail=tail, since=since) as chunks:
            # Between the two looks, another run may have begun.
            if chunks is not None and self._logs.pod_run(self._id) == pod and not self._is_over():
                self._run, self._told_absent, self._complete = run, False, False
                self._complete = self._pass_on(chunks, run)

    def _is_over(self) -> bool:
        """Whether the run of the last line is known to be over, although Kubernetes' API does not say so yet."""
        return self._last is not None and is_over(self._logs, self._id, self._last)

    def _is_ours(self, pod: str) -> bool:
        """Whether a pod that was just seen is not that of the next server with the id. Each pod is asked about once."""
        if self._uid is None:
            return True
        if self._asked is None or self._asked[0] != pod:
            # Not from the watches, which may not know the next server yet. Its pod, seen before, is younger than it is.
            uid = server_uid(self._logs.server(self._id))
            if uid is None:
                # Without a StatefulSet, nobody knows whose the pod is.
                return False
            self._asked = pod, uid == self._uid
        return self._asked[1]

    def _prove(self, run: Run) -> bool:
        """See that no line that is still to come is skipped: it would reach nobody. Returns whether there is a log."""
        assert self._last is not None
        text = self._logs.log_text(self._id, run.pod, tail=1, since=None)
        if text is not None:
            lines = lines_of(run, text)
            newest = lines[-1].place if lines else Place(run, 0, self._last.number)
            if newest.time < self._last.time:
                self.first = self._last = newest
        return text is not None

    def _begin_again(self, before: Run, run: Run) -> None:
        """Deliver what the run before wrote at its end, and say that another has begun."""
        entries = []
        if self._last is not None and before.is_right_before(run):
            entries = self._rest(before, self._last)
        elif not self._complete or (before.pod == run.pod and not before.is_right_before(run)):
            entries = [note_entry(GAP)]
        self._deliver([*entries, note_entry(AGAIN)])
        self._run, self._last, self._tail = run, None, None

    def _rest(self, run: Run, last: Place) -> list[Entry]:
        """What a run that has ended has written after its last known line, as far as Kubernetes still has it."""
        text = self._logs.log_text(self._id, run.pod, tail=None, since=last.time // 10**9, previous=True) or ""
        lines = lines_of(run, text)
        cut = len(text.encode()) > MOST_BYTES
        if cut:
            # The last one may be cut.
            del lines[-1:]
        entries = [line_entry(line) for line in lines if line.place.follows(last)]
        if last.number and not any(line.place == last for line in lines):
            entries.insert(0, note_entry(GAP))
        return [*entries, *([note_entry(GAP)] if cut else [])]

    def _pass_on(self, chunks: Iterator[bytes], run: Run) -> bool:
        """Deliver what is read; returns whether that was all."""
        reader, last, pace = Reader(run), self._last, _Pace()
        # The first lines are known already.
        skipping, seen = last is not None, last is not None and not last.number
        for chunk in pieces(chunks):
            entries = []
            for line in reader.lines(chunk):
                if skipping and last is not None:
                    seen = seen or line.place == last
                    if not line.place.follows(last):
                        continue
                    skipping = False
                    if not seen:
                        entries.append(note_entry(GAP))
                entries.append(line_entry(line))
                self._last = line.place
            if entries:
                self._deliver(entries)
            if not self._wanted():
                return False
            written = self._last.time if entries and self._last else None
            if pace.is_too_much(len(chunk), written, _floods.limit(self)):
                # Kubernetes would send all of it, later and later.
                _floods.note(self)
                pace.wait()
                self._tail = TAIL_AFTER_A_FLOOD
                return False
        return True


class _Pace:
    """How fast a log is read, and how far behind the game."""

    def __init__(self) -> None:
        self._window, self._read = time.monotonic(), 0
        # In seconds, as the two clocks have it: they may differ.
        self._least_lag = math.inf
        self._behind_since: float | None = None

    def is_too_much(self, count: int, written: int | None, limit: int) -> bool:
        """Whether to give up the rest, after one more piece.

        Args:
            count: The bytes of the piece.
            written: When its last line was written, in nanoseconds since 1970; None if it has no line.
            limit: How many bytes may be read in a second.
        """
        now = time.monotonic()
        self._read += count
        if now - self._window >= 1:
            self._window, self._read = now, 0
        return self._read > limit or (written is not None and self._stays_behind(time.time() - written / 10**9, now))

    def wait(self) -> None:
        """Wait until the second is over."""
        time.sleep(max(0.0, self._window + 1 - time.monotonic()))

    def _stays_behind(self, lag: float, now: float) -> bool:
        self._least_lag = min(self._least_lag, lag)
        if lag - self._least_lag < _FAR_BEHIND:
            self._behind_since = None
        elif self._behind_since is None:
            self._behind_since = now
        return self._behind_since is not None and now - self._behind_since > _CATCH_UP_SECONDS


def is_over(logs: Logs, id: int, last: Place) -> bool:
    """Whether the node has the run of a line as the one before already, so that its log now is the next one's.

    The node gives out a new container's log as soon as that runs, and Kubernetes' API hears of the restart later.
    """
    if not last.number:
        return False
    text = logs.log_text(id, last.run.pod, tail=None, since=last.time // 10**9, previous=True)
    return any(line.place == last for line in lines_of(last.run, text or ""))


def pieces(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The chunks in small pieces; after each whole one, other threads get their turn.

    A thread that only computes keeps Python's lock for 5 ms each time that another one waits for it, and a call of the
    API waits for it a dozen times.
    """
    for chunk in chunks:
        for start in range(0, len(chunk), _PIECE_BYTES):
            piece = chunk[start : start + _PIECE_BYTES]
            yield piece
            if len(piece) == _PIECE_BYTES:
                time.sleep(_BREATH)
