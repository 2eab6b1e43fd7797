"""Those who follow the logs of games: one thread reads each log that is followed.

What a follower has not been sent yet is in the ring of its log, which all followers of that log share. One that does
not read falls behind, and is told that lines are missing. `web.followers` serves them.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from service.errors import TooManyFollowers
from service.logs.entries import GAP, Entry, note_entry
from service.logs.lines import Place
from service.logs.source import Logs, Ring, Source
from service.telemetry import metrics
from service.web.followers import Client, Followers

KIND = "log"
MOST_SERVERS = 200
"""How many logs a replica reads for followers at most."""
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
        with self._lock:
            key = (wish.id, wish.uid)
            if (followed := self._logs.get(key)) is None:
                followed = self._logs[key] = self._new_log(key, wish)
                metrics.show_followed_logs(len(self._logs))
            feed = _Feed(wish, followed, self._gone)
            followed.feeds.add(feed)
        client = Client(KIND, wish.token, wish.events, wish.ended)
        self._followers.add(client, feed, connection, head, chunked)

    def _new_log(self, key: tuple[int, str | None], wish: Wish) -> _Log:
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

        source = Source(wish.id, wish.uid, self._cluster, wish.last, deliver, wanted, complete=wish.complete)
        followed = _Log(source)
        threading.Thread(target=followed.source.read, name=f"log of server {wish.id}", daemon=True).start()
        return followed

    def _deliver(self, followed: _Log, entries: Iterable[Entry], taken: threading.Event) -> None:
        for entry in entries:
            followed.ring.add(entry)
        taken.set()
        for feed in tuple(followed.feeds):
            feed.pump()

    def _gone(self, feed: _Feed) -> None:
        with self._lock:
            feed.followed.feeds.discard(feed)


class _Feed:
    """What one client is sent: its backlog, and then what comes into the ring. It implements `web.followers.Feed`."""

    def __init__(self, wish: Wish, followed: _Log, gone: Callable[[_Feed], None]) -> None:
        self.followed = followed
        self.pump: Callable[[], None] = lambda: None
        # Not the wish itself: its backlog would stay in memory for as long as the client follows.
        self._mark = wish.mark
        self._gone = gone
        self._backlog = deque(wish.backlog)
        self._since = time.monotonic()
        self._next: int | None = None
        # How much had come before the next entry, in the ring's bytes.
        self._bytes = 0
        # Until the first new line: what the client has already.
        self._has = wish.last

    def begin(self, pump: Callable[[], None]) -> None:
        self.pump = pump

    def next(self) -> Entry | None:
        entry = self._entry()
        if entry == _GAP:
            metrics.count_log_gap()
        return entry

    def tick(self) -> None:
        """Give up a backlog that is not read."""
        if self._backlog and time.monotonic() - self._since > _BACKLOG_SECONDS:
            metrics.count_log_bytes_dropped(sum(len(entry.event) for entry in self._backlog))
            self._backlog.clear()
            self._backlog.append(_GAP)

    def close(self) -> None:
        self._gone(self)

    def _entry(self) -> Entry | None:
        """The next entry, if there is one."""
        if self._backlog:
            return self._backlog.popleft()
        ring, has = self.followed.ring, self._has
        if self._next is None:
            self._next, missing = self._join(ring)
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

    def _join(self, ring: Ring) -> tuple[int, bool]:
        """Where in the ring to begin, and whether lines are missing before that."""
        if self._has is None:
            return max(self._mark, ring.start), self._mark < ring.start
        number, found = ring.after(self._has)
        first = self.followed.source.first
        # The source has read everything since its own first line.
        complete = ring.start == 0 and (first is None or first.run != self._has.run or not first.follows(self._has))
        return number, not found and not complete
