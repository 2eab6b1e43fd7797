"""Those who follow the logs of games: one thread reads each log that is followed.

What a follower has not been sent yet is in the ring of its log, which all followers of that log share. One that does
not read falls behind, and is told that lines are missing. `web.followers` serves them.
"""

from __future__ import annotations

import logging
import queue
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from service.errors import Problem, TooManyFollowers
from service.logs.backlog import Piece, piece_after
from service.logs.entries import GAP, Entry, note_entry
from service.logs.lines import Place, Run
from service.logs.source import Logs, Ring, Source
from service.telemetry import metrics
from service.web.followers import Client, Followers

log = logging.getLogger(__name__)

KIND = "log"
MOST_SERVERS = 200
"""How many logs a replica reads for followers at most."""
MOST_BYTES_BEHIND = 64 * 1024 * 1024
"""How much a client that comes back is sent of what it has not had; then it goes on with the newest lines."""
_THREADS = 4
_BACKLOG_SECONDS, _LONGEST_DELIVERY = 30.0, 10.0
_GAP = note_entry(GAP)


@dataclass(frozen=True)
class Wish:
    """What one client wants.

    Attributes:
        id: The server.
        uid: Its uid, which distinguishes it from other servers that have the id later.
        token: The name of the client's token.
        events: Whether it wants server-sent events.
        ended: Why it may not go on, or None. It is asked now and then, in a thread of its own.
        backlog: What it is sent first.
        last: The last line that it has with the backlog; None if there is none.
        complete: Whether `last` is the last line of a run that has ended.
        mark: What `FollowedLogs.mark` has said before the backlog was read.
        behind: Whether Kubernetes has more after `last` that the client is sent before it follows.
    """

    id: int
    uid: str | None
    token: str
    events: bool
    ended: Callable[[], str | None]
    backlog: tuple[Entry, ...] = ()
    last: Place | None = None
    complete: bool = False
    mark: int = 0
    behind: bool = False


@dataclass(eq=False)
class _Log:
    """A log that is followed. `feeds` is changed under the lock, `ring` by the thread that serves alone."""

    source: Source
    ring: Ring = field(default_factory=Ring)
    feeds: set[_Feed] = field(default_factory=set)


class FollowedLogs:
    """The logs that are followed in this process. Thread-safe."""

    def __init__(self, logs: Logs, followers: Followers) -> None:
        self._cluster = logs
        self._followers = followers
        self._lock = threading.Lock()
        self._logs: dict[tuple[int, str | None], _Log] = {}
        self._behind: queue.SimpleQueue[_Feed] = queue.SimpleQueue()
        self._reads_on = False

    def require_room(self, token: str) -> None:
        """Raises TooManyFollowers if this token, or this replica, has too many."""
        self._followers.require_room(KIND, token)
        if len(self._logs) >= MOST_SERVERS:
            metrics.count_refused_follower(KIND, "logs")
            raise TooManyFollowers("Too many logs are followed on this replica. Another replica may have room.")

    def mark(self, id: int, uid: str | None) -> int:
        """How far the log is known now, for a client without a backlog."""
        with self._lock:
            followed = self._logs.get((id, uid))
            return 0 if followed is None else followed.ring.end

    def add(self, wish: Wish, connection: socket.socket, head: bytes, chunked: bool) -> None:
        """Serve a client from now on; see `web.streaming.Take`."""
        feed = _Feed(wish, self)
        if not wish.behind:
            self.attach(feed, wish.last, complete=wish.complete)
        client = Client(KIND, wish.token, wish.events, wish.ended)
        self._followers.add(client, feed, connection, head, chunked)

    def attach(self, feed: _Feed, last: Place | None, *, complete: bool = False) -> None:
        """Have a client follow the log, from the line after `last` on if nobody follows it yet."""
        with self._lock:
            if feed.gone or feed.followed is not None:
                return
            if (followed := self._logs.get(feed.key)) is None:
                followed = self._logs[feed.key] = self._new_log(feed.key, last, complete)
                metrics.show_followed_logs(len(self._logs))
            feed.followed = followed
            followed.feeds.add(feed)

    def read_on(self, feed: _Feed) -> None:
        """Have the next piece read that the client has not had, by one of a few threads; it hears of that."""
        with self._lock:
            if not self._reads_on:
                self._reads_on = True
                for _ in range(_THREADS):
                    threading.Thread(target=self._read_behind, name="logs of those behind", daemon=True).start()
        self._behind.put(feed)

    def _read_behind(self) -> None:
        while True:
            feed = self._behind.get()
            if feed.gone:
                continue
            piece: Piece | None = None
            try:
                piece = self._piece(feed.key[0], feed.last)
            except Problem as error:
                log.warning("the log of server %d cannot be read: %s", feed.key[0], error.__cause__ or error)
            except Exception:
                log.exception("the log of server %d cannot be read", feed.key[0])
            if piece is None and time.monotonic() - feed.since > _BACKLOG_SECONDS:
                piece = Piece((_GAP,), feed.last, complete=True)
            if piece is not None and piece.complete:
                self.attach(feed, piece.last)
            self._followers.call(feed.has_read, piece)

    def _piece(self, id: int, last: Place) -> Piece | None:
        run = self._cluster.pod_run(id)
        if run is None or run[0] != last.run.pod:
            # Whose another pod is, the log's source finds out.
            return Piece((), last, complete=True)
        return piece_after(self._cluster, id, Run(*run), last)

    def _new_log(self, key: tuple[int, str | None], last: Place | None, complete: bool) -> _Log:
        def deliver(entries: list[Entry]) -> None:
            taken = threading.Event()
            self._followers.call(self._deliver, followed, entries, taken)
            # Otherwise what is read faster than it is sent would pile up.
            taken.wait(_LONGEST_DELIVERY)

        def wanted() -> bool:
            with self._lock:
                # It is asked again after it has said no; by then the key may be another log's.
                if not followed.feeds and self._logs.get(key) is followed:
                    del self._logs[key]
                    metrics.show_followed_logs(len(self._logs))
                return bool(followed.feeds)

        source = Source(*key, self._cluster, last, deliver, wanted, complete=complete)
        followed = _Log(source)
        threading.Thread(target=followed.source.read, name=f"log of server {key[0]}", daemon=True).start()
        return followed

    def _deliver(self, followed: _Log, entries: Iterable[Entry], taken: threading.Event) -> None:
        for entry in entries:
            followed.ring.add(entry)
        taken.set()
        for feed in tuple(followed.feeds):
            feed.pump()

    def detach(self, feed: _Feed) -> None:
        """The client is gone."""
        with self._lock:
            feed.gone = True
            if feed.followed is not None:
                feed.followed.feeds.discard(feed)


class _Feed:
    """What one client is sent: its backlog, and then what comes into the ring. It implements `web.followers.Feed`.

    What it has not had is read in pieces, each when the one before is sent. So is what has left the ring meanwhile.
    """

    def __init__(self, wish: Wish, logs: FollowedLogs) -> None:
        self.key = (wish.id, wish.uid)
        self.followed: _Log | None = None
        self.gone = False
        # Since when it has its backlog, or waits for one.
        self.since = time.monotonic()
        self.pump: Callable[[], None] = lambda: None
        # Not the wish itself: its backlog would stay in memory for as long as the client follows.
        self._mark = wish.mark
        self._logs = logs
        self._backlog = deque(wish.backlog)
        self._behind, self._reading = wish.behind, False
        self._may_read_on = wish.last is not None and not wish.complete
        self._left = MOST_BYTES_BEHIND
        self._told_gap = False
        self._next: int | None = None
        # How much had come before the next entry, in the ring's bytes.
        self._bytes = 0
        # Until the first new line: what the client has already.
        self._has = wish.last

    def begin(self, pump: Callable[[], None]) -> None:
        self.pump = pump

    @property
    def last(self) -> Place:
        """The last line that it has with its backlog, while it is behind."""
        assert self._has is not None
        return self._has

    def has_read(self, piece: Piece | None) -> None:
        """The next piece has been read; None if that was not possible, and is to be tried again."""
        self._reading = False
        if piece is None:
            return
        self.since, self._behind = time.monotonic(), not piece.complete
        self._left -= sum(len(entry.event) for entry in piece.entries)
        # Otherwise Kubernetes has no more than the ring.
        self._may_read_on = piece.last != self._has and self._left > 0
        self._has = piece.last
        self._backlog.extend(piece.entries)
        if self._behind and self._left <= 0:
            self._give_up()
        self.pump()

    def next(self) -> Entry | None:
        entry = self._entry()
        while entry == _GAP and self._told_gap:
            # Nothing was sent since it was told.
            entry = self._entry()
        if entry is not None:
            self._told_gap = entry == _GAP
        if entry == _GAP:
            metrics.count_log_gap()
        return entry

    def tick(self) -> None:
        """Give up a backlog that is not read, and try again to read one."""
        if self._backlog and time.monotonic() - self.since > _BACKLOG_SECONDS:
            metrics.count_log_bytes_dropped(sum(len(entry.event) for entry in self._backlog))
            self._backlog.clear()
            self._give_up()
        elif self._behind and not self._reading:
            self.pump()

    def close(self) -> None:
        self._logs.detach(self)

    def _give_up(self) -> None:
        """Leave out what it has not had so far, and go on with what is written now."""
        self._backlog.append(_GAP)
        self._behind = self._may_read_on = False
        self._logs.attach(self, self._has)

    def _read_on(self) -> None:
        self._behind = True
        if not self._reading:
            self._reading = True
            self._logs.read_on(self)

    def _entry(self) -> Entry | None:
        """The next entry, if there is one."""
        if self._backlog:
            return self._backlog.popleft()
        if self._behind or self.followed is None:
            self._read_on()
            return None
        ring, has = self.followed.ring, self._has
        if self._next is None:
            first, missing = self._join(ring, self.followed.source)
            if missing and has is not None and self._may_read_on:
                self._read_on()
                return None
            self._next = first
            self._bytes = ring.bytes_before(self._next)
            if missing:
                return _GAP
        if self._next < ring.start:
            metrics.count_log_bytes_dropped(ring.bytes_before(ring.start) - self._bytes)
            self._next, self._bytes = ring.start, ring.bytes_before(ring.start)
            return _GAP
        while self._next < ring.end:
            entry = ring[self._next]
            self._next += 1
            self._bytes += len(entry.event)
            if has is not None and entry.place is not None:
                if entry.place.run == has.run and not entry.place.follows(has):
                    continue
                self._has = None
            return entry
        return None

    def _join(self, ring: Ring, source: Source) -> tuple[int, bool]:
        """Where in the ring to begin, and whether lines are missing before that."""
        if self._has is None:
            return max(self._mark, ring.start), self._mark < ring.start
        number, found = ring.after(self._has)
        first = source.first
        # The source has read everything since its own first line.
        complete = ring.start == 0 and (first is None or first.run != self._has.run or not first.follows(self._has))
        return number, not found and not complete
