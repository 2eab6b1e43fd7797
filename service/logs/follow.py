"""Those who follow the logs of games: one thread serves all of them, and one more reads each log that is followed.

A follower costs a socket and a few KiB: what it has not been sent yet is in the ring of its log, which all followers of
that log share. One that does not read falls behind, and is told that lines are missing.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from service.errors import TooManyFollowers
from service.logs.entries import GAP, HEARTBEAT, Entry, end_entry, note_entry
from service.logs.lines import Place
from service.logs.source import Logs, Ring, Source
from service.web.draining import draining

log = logging.getLogger(__name__)

MOST = 600
"""How many followers a replica has at most."""
MOST_OF_A_TOKEN = 200
MOST_SERVERS = 200
CHECK_SECONDS = 2.0
BUFFER_BYTES = 48 * 1024
"""How much is written to a socket before its client has to read. With one more piece it is less than 64 KiB, or one
line."""
_PIECE = 12 * 1024
_LONGEST_DELIVERY = 10.0
_TICK, _HEARTBEAT_SECONDS, _BACKLOG_SECONDS, _CLOSE_SECONDS = 0.25, 15.0, 30.0, 2.0


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
        mark: What `Followers.mark` has said before the backlog was read.
    """

    id: int
    uid: str | None
    token: str
    events: bool
    ended: Callable[[], str | None]
    backlog: tuple[Entry, ...] = ()
    last: Place | None = None
    mark: int = 0


@dataclass(eq=False)
class _Log:
    """A log that is followed. `followers` is changed under the lock, `ring` by the loop alone."""

    source: Source
    ring: Ring = field(default_factory=Ring)
    followers: set[_Follower] = field(default_factory=set)


class Followers:
    """All followers of this process. Thread-safe. It starts its threads with the first follower."""

    def __init__(self, logs: Logs) -> None:
        self._cluster = logs
        self._lock = threading.Lock()
        self._logs: dict[tuple[int, str | None], _Log] = {}
        self._followers: set[_Follower] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def require_room(self, token: str) -> None:
        """Raises TooManyFollowers if this token, or this replica, has too many."""
        with self._lock:
            if len(self._followers) >= MOST or len(self._logs) >= MOST_SERVERS:
                raise TooManyFollowers("Too many clients follow logs on this replica. Another replica may have room.")
            if sum(follower.wish.token == token for follower in self._followers) >= MOST_OF_A_TOKEN:
                raise TooManyFollowers(f"This token follows {MOST_OF_A_TOKEN} logs on this replica. End some of them.")

    def mark(self, id: int, uid: str | None) -> int:
        """How far the log is known now, for a client without a backlog."""
        with self._lock:
            followed = self._logs.get((id, uid))
            return 0 if followed is None else followed.ring.end

    def add(self, wish: Wish, connection: socket.socket, head: bytes, chunked: bool) -> None:
        """Serve a client from now on; see `web.streaming.Take`."""
        connection.setblocking(False)
        with self._lock:
            loop = self._started()
            key = (wish.id, wish.uid)
            if (followed := self._logs.get(key)) is None:
                followed = self._logs[key] = self._new_log(key, wish, loop)
            follower = _Follower(wish, followed, head, chunked, self._gone)
            followed.followers.add(follower)
            self._followers.add(follower)
        asyncio.run_coroutine_threadsafe(self._connect(follower, connection), loop)

    async def _connect(self, follower: _Follower, connection: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: follower, connection)
        except OSError:
            self._gone(follower)
            connection.close()

    def _new_log(self, key: tuple[int, str | None], wish: Wish, loop: asyncio.AbstractEventLoop) -> _Log:
        def deliver(entries: list[Entry]) -> None:
            taken = threading.Event()
            loop.call_soon_threadsafe(self._deliver, followed, entries, taken)
            # Otherwise what is read faster than it is sent would pile up.
            taken.wait(_LONGEST_DELIVERY)

        def wanted() -> bool:
            with self._lock:
                if not followed.followers:
                    self._logs.pop(key, None)
                return bool(followed.followers)

        followed = _Log(Source(wish.id, self._cluster, wish.last, deliver, wanted))
        threading.Thread(target=followed.source.read, name=f"log of server {wish.id}", daemon=True).start()
        return followed

    def _deliver(self, followed: _Log, entries: Iterable[Entry], taken: threading.Event) -> None:
        for entry in entries:
            followed.ring.add(entry)
        taken.set()
        for follower in tuple(followed.followers):
            follower.pump()

    def _gone(self, follower: _Follower) -> None:
        with self._lock:
            follower.followed.followers.discard(follower)
            self._followers.discard(follower)

    # -- the threads ---------------------------------------------------------------------------------------

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            threading.Thread(target=self._serve, args=[self._loop], name="followers", daemon=True).start()
            threading.Thread(target=self._check, args=[self._loop], name="checks of followers", daemon=True).start()
        return self._loop

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.create_task(self._tick())
        loop.run_forever()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            for follower in tuple(self._followers):
                if draining.is_set():
                    follower.end("this replica ends; come back", retry=True)
                else:
                    follower.tick()

    def _check(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            time.sleep(CHECK_SECONDS)
            with self._lock:
                followers = tuple(self._followers)
            for follower in followers:
                try:
                    reason = follower.wish.ended()
                except Exception:
                    log.exception("a follower cannot be checked")
                    continue
                if reason is not None:
                    loop.call_soon_threadsafe(follower.end, reason)


class _Follower(asyncio.Protocol):
    """One client. For the loop alone."""

    def __init__(
        self, wish: Wish, followed: _Log, head: bytes, chunked: bool, gone: Callable[[_Follower], None]
    ) -> None:
        self.wish = wish
        self.followed = followed
        self._head, self._chunked, self._gone = head, chunked, gone
        self._transport: asyncio.Transport | None = None
        self._backlog = deque(wish.backlog)
        self._since = self._wrote = time.monotonic()
        self._next: int | None = None
        # Until the first new line: what the client has already.
        self._has = wish.last
        self._paused = self._ending = False

    # -- asyncio's calls -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=BUFFER_BYTES)
        transport.write(self._head)
        self.pump()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._gone(self)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self.pump()

    # -- what it is sent -----------------------------------------------------------------------------------

    def pump(self) -> None:
        """Send what there is, as far as the client reads."""
        while self._transport is not None and not self._paused and not self._ending:
            piece, size = [], 0
            while size < _PIECE and (entry := self._entry()) is not None:
                piece.append(entry.shown(self.wish.events))
                size += len(piece[-1])
            if not piece:
                return
            self._write(b"".join(piece))

    def tick(self) -> None:
        """Now and then: give up a backlog that is not read, and keep a silent stream open."""
        now = time.monotonic()
        if self._backlog and now - self._since > _BACKLOG_SECONDS:
            self._backlog.clear()
            self._backlog.append(note_entry(GAP))
        if self.wish.events and now - self._wrote > _HEARTBEAT_SECONDS and not self._paused and not self._ending:
            self._write(HEARTBEAT)

    def end(self, reason: str, *, retry: bool = False) -> None:
        """Say why the stream ends, and close it. A client that does not read is cut off."""
        if self._transport is None or self._ending:
            return
        self._write(end_entry(reason, retry=retry).shown(self.wish.events))
        self._ending = True
        if self._chunked:
            self._transport.write(b"0\r\n\r\n")
        self._transport.close()
        asyncio.get_running_loop().call_later(_CLOSE_SECONDS, self._abort)

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _write(self, data: bytes) -> None:
        self._wrote = time.monotonic()
        if self._transport is not None:
            self._transport.write(b"%x\r\n%s\r\n" % (len(data), data) if self._chunked else data)

    def _entry(self) -> Entry | None:
        """The next entry, if there is one."""
        if self._backlog:
            return self._backlog.popleft()
        ring, has = self.followed.ring, self._has
        if self._next is None:
            self._next, missing = self._join(ring)
            if missing:
                return note_entry(GAP)
        if self._next < ring.start:
            self._next = ring.start
            return note_entry(GAP)
        while self._next < ring.end:
            entry = ring[self._next]
            self._next += 1
            if has is not None and entry.place is not None:
                if entry.place.run == has.run and not entry.place.follows(has):
                    continue
                self._has = None
            return entry
        return None

    def _join(self, ring: Ring) -> tuple[int, bool]:
        """Where in the ring to begin, and whether lines are missing before that."""
        if self._has is None:
            return max(self.wish.mark, ring.start), self.wish.mark < ring.start
        number, found = ring.after(self._has)
        first = self.followed.source.first
        # The source has read everything since its own first line.
        complete = ring.start == 0 and (first is None or first.run != self._has.run or not first.follows(self._has))
        return number, not found and not complete
