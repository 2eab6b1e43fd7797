"""Serves long answers: one thread sends to all their clients, and another sees whether each may still be served.

What a client is sent comes from its feed. A client costs a socket and what its feed keeps for it, but no thread
(web/streaming.py hands its socket over).
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from service.errors import TooManyFollowers
from service.keepalive import keep_alive
from service.telemetry import metrics
from service.web.draining import draining
from service.web.messages import HEARTBEAT, Message, end

log = logging.getLogger(__name__)

MOST = 600
"""How many clients a replica serves at most."""
MOST_OF_A_TOKEN = 200
CHECK_SECONDS = 2.0
BUFFER_BYTES = 48 * 1024
"""How much is written to a socket before its client has to read. With one more piece it is less than 64 KiB, or one
message."""
_PIECE = 12 * 1024
_TICK, _HEARTBEAT_SECONDS, _CLOSE_SECONDS = 0.25, 15.0, 2.0


@dataclass(frozen=True)
class Client:
    """Who is served.

    Attributes:
        kind: What it follows: `log` or `progress`.
        token: The name of its token.
        events: Whether it wants server-sent events.
        ended: Why it may not go on, or None. It is asked now and then, in a thread that all share.
    """

    kind: str
    token: str
    events: bool
    ended: Callable[[], str | None]


class Feed(Protocol):
    """What one client is sent. Every method is called in the thread that serves, and must not wait."""

    def begin(self, pump: Callable[[], None]) -> None:
        """The client is there. `pump()`, in the same thread, has it sent what there is."""

    def next(self) -> Message | None:
        """The next message; None if there is none yet. It is called when the client has room for it."""

    def tick(self) -> None:
        """Some time has passed."""

    def close(self) -> None:
        """The client is gone."""


class Followers:
    """All clients with long answers of this process. Thread-safe. It starts its threads with the first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connections: set[_Connection] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def require_room(self, kind: str, token: str) -> None:
        """Raises TooManyFollowers if this token, or this replica, has too many."""
        with self._lock:
            count = len(self._connections)
            own = sum(connection.client.token == token for connection in self._connections)
        if count >= MOST:
            metrics.count_refused_follower(kind, "replica")
            raise TooManyFollowers("Too many clients follow something on this replica. Another replica may have room.")
        if own >= MOST_OF_A_TOKEN:
            metrics.count_refused_follower(kind, "token")
            raise TooManyFollowers(
                f"This token follows {MOST_OF_A_TOKEN} logs or starts on this replica. End some of them."
            )

    def add(self, client: Client, feed: Feed, connection: socket.socket, head: bytes, chunked: bool) -> None:
        """Serve a client from now on; see `web.streaming.Take`."""
        connection.setblocking(False)
        if connection.family != socket.AF_UNIX:
            # Plain text has no heartbeats, so nothing else would notice while the game says nothing.
            keep_alive(connection)
        served = _Connection(client, feed, head, chunked, self._gone)
        with self._lock:
            self._connections.add(served)
            self._show()
            loop = self._started()
        asyncio.run_coroutine_threadsafe(self._connect(served, connection), loop)

    def call(self, callback: Callable[..., None], *arguments: object) -> None:
        """Call back in the thread that serves."""
        with self._lock:
            loop = self._started()
        loop.call_soon_threadsafe(callback, *arguments)

    async def _connect(self, served: _Connection, connection: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: served, connection)
        except OSError:
            self._gone(served)
            connection.close()

    def _gone(self, served: _Connection) -> None:
        with self._lock:
            self._connections.discard(served)
            self._show()
        served.feed.close()

    def _show(self) -> None:
        metrics.show_followers(Counter(connection.client.kind for connection in self._connections))

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
            for connection in self._all():
                try:
                    connection.tick()
                except Exception:
                    log.exception("a follower cannot be served")
                if draining.is_set():
                    connection.end("this replica ends; come back", retry=True)

    def _check(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            time.sleep(CHECK_SECONDS)
            for connection in self._all():
                try:
                    reason = connection.client.ended()
                except Exception:
                    log.exception("a follower cannot be checked")
                    continue
                if reason is not None:
                    loop.call_soon_threadsafe(connection.end, reason)

    def _all(self) -> tuple[_Connection, ...]:
        with self._lock:
            return tuple(self._connections)


class _Connection(asyncio.Protocol):
    """One client. For the loop alone."""

    def __init__(
        self, client: Client, feed: Feed, head: bytes, chunked: bool, gone: Callable[[_Connection], None]
    ) -> None:
        self.client = client
        self.feed = feed
        self._head, self._chunked, self._gone = head, chunked, gone
        self._transport: asyncio.Transport | None = None
        self._wrote = time.monotonic()
        self._paused = self._ending = False

    # -- asyncio's calls -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=BUFFER_BYTES)
        transport.write(self._head)
        self.feed.begin(self.pump)
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
            piece, size, last = [], 0, False
            while size < _PIECE and not last and (message := self.feed.next()) is not None:
                piece.append(message.shown(self.client.events))
                size += len(piece[-1])
                last = message.last
            if not piece:
                return
            self._write(b"".join(piece))
            if last:
                self._close()

    def tick(self) -> None:
        """Now and then: let the feed act, and keep a silent stream open."""
        self.feed.tick()
        silent = time.monotonic() - self._wrote > _HEARTBEAT_SECONDS
        if self.client.events and silent and not self._paused and not self._ending:
            self._write(HEARTBEAT)

    def end(self, reason: str, *, retry: bool = False) -> None:
        """Say why the stream ends, and close it. A client that does not read is cut off."""
        if self._transport is None or self._ending:
            return
        self._write(end(reason, retry=retry).shown(self.client.events))
        self._close()

    def _close(self) -> None:
        assert self._transport is not None
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
