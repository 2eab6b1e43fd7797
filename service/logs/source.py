"""One game's log as it is written, read once for all who follow it on this replica."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import islice
from typing import Protocol

from service.errors import Problem
from service.logs.entries import GAP, Entry, line_entry, note_entry
from service.logs.lines import Place, Reader, Run, lines_of
from service.servers.objects import Objects

log = logging.getLogger(__name__)

RING_BYTES = 256 * 1024
"""How much of a log is kept for its followers; who is further behind misses lines, and is told."""
BYTES_A_SECOND = 2 * 1024 * 1024
TAIL_AFTER_A_FLOOD = 200
_AGAIN, _PAUSE, _LONGEST_PAUSE = 0.05, 0.5, 5.0


class Logs(Protocol):
    """The part of `operations.interfaces.Cluster` that reads logs."""

    def log_text(self, id: int, *, tail: int | None, since: int | None, previous: bool = False) -> str | None: ...
    def log_stream(
        self, id: int, *, tail: int | None, since: int | None
    ) -> AbstractContextManager[Iterator[bytes] | None]: ...
    def pod_run(self, id: int) -> tuple[str, int] | None: ...
    def known(self, id: int) -> Objects | None: ...


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


class Source:
    """Reads one game's log in a thread of its own, from the line after `last` on.

    Args:
        id: The server.
        logs: Reads logs.
        last: The last line that is known already; None to begin with whatever there is.
        deliver: Called with what has been read.
        wanted: Whether anyone still wants more; asked now and then. Once it has said no, the source is at its end.
    """

    def __init__(
        self,
        id: int,
        logs: Logs,
        last: Place | None,
        deliver: Callable[[list[Entry]], None],
        wanted: Callable[[], bool],
    ) -> None:
        self.first = last
        self._id = id
        self._logs = logs
        self._last = last
        self._run = None if last is None else last.run
        self._deliver = deliver
        self._wanted = wanted
        self._tail: int | None = None
        self._told_absent = False

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
        if self._run is not None and run != self._run:
            self._begin_again(run)
        tail, self._tail = self._tail, None
        since = None if self._last is None or tail is not None else self._last.time // 10**9
        with self._logs.log_stream(self._id, tail=tail, since=since) as chunks:
            # Between the two looks, another run may have begun.
            if chunks is not None and self._logs.pod_run(self._id) == pod:
                self._run, self._told_absent = run, False
                self._pass_on(chunks, run)

    def _begin_again(self, run: Run) -> None:
        """Deliver what the run before wrote at its end, and say that another has begun."""
        entries = []
        if self._run is not None and self._last is not None and self._run.is_right_before(run):
            since = self._last.time // 10**9
            text = self._logs.log_text(self._id, tail=None, since=since, previous=True) or ""
            rest = [line for line in lines_of(self._run, text) if line.place.follows(self._last)]
            entries = [line_entry(line) for line in rest]
        self._deliver([*entries, note_entry("the game has started again")])
        self._run, self._last, self._tail = run, None, None

    def _pass_on(self, chunks: Iterator[bytes], run: Run) -> None:
        reader, last = Reader(run), self._last
        # The first lines are known already.
        skipping, seen = last is not None, last is not None and not last.number
        window, read = time.monotonic(), 0
        for chunk in chunks:
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
                return
            read, passed = read + len(chunk), time.monotonic() - window
            if passed >= 1:
                window, read = time.monotonic(), 0
            elif read > BYTES_A_SECOND:
                # Kubernetes would send all of it, later and later.
                time.sleep(1 - passed)
                self._tail = TAIL_AFTER_A_FLOOD
                return
