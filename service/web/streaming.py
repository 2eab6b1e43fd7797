"""Answers that go on for as long as the client likes, and hold no thread: their socket is handed to someone else.

A view returns `Streamed(take, …)`. Our gunicorn worker (serving/worker.py) then gives up the connection, and `take`
gets its socket. Under any other WSGI server, such as Flask's test client, the request's own thread passes the bytes on.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from flask import Response

from service.web.parking import PARKS

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

LONGEST_IN_A_THREAD = 60.0
"""After how many seconds such an answer ends under another server than ours."""

Take = Callable[[socket.socket, bytes, bool], None]
"""Takes over a socket: it sends these bytes first, then the answer's body, in chunks (RFC 9112, 7.1) if so told. It
closes the socket."""


class HandedOver(Exception):
    """Raised out of the application instead of an answer, for a server that gives up the connection (`PARKS`)."""

    def __init__(self, take: Callable[[socket.socket], None]) -> None:
        super().__init__()
        self.take = take


class Streamed(Response):
    """An answer whose body `take` writes."""

    def __init__(self, take: Take, mimetype: str) -> None:
        super().__init__(mimetype=mimetype)
        self._take = take

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        del self.headers["Content-Length"]
        # nginx would hold the lines back until it has some KiB.
        self.headers["X-Accel-Buffering"] = "no"
        if environ["REQUEST_METHOD"] == "HEAD":
            # The head alone: https://www.rfc-editor.org/rfc/rfc9110#section-9.3.2
            self.response = ()
            return super().__call__(environ, start_response)
        if environ.get(PARKS):
            chunked = environ.get("SERVER_PROTOCOL") != "HTTP/1.0"
            head = self._head(chunked)
            raise HandedOver(lambda connection: self._take(connection, head, chunked))
        mine, theirs = socket.socketpair()
        self._take(theirs, b"", False)
        self.response = _received(mine)
        return super().__call__(environ, start_response)

    def _head(self, chunked: bool) -> bytes:
        self.headers["Connection"] = "close"
        if chunked:
            self.headers["Transfer-Encoding"] = "chunked"
        lines = [f"HTTP/1.1 {self.status}", *(f"{name}: {value}" for name, value in self.headers.items()), "", ""]
        return "\r\n".join(lines).encode("latin-1")


def _received(connection: socket.socket) -> Iterator[bytes]:
    """What arrives on the socket, until it ends or the time is over."""
    end = time.monotonic() + LONGEST_IN_A_THREAD
    with connection:
        # The head goes out before there is a first line.
        yield b""
        try:
            while (left := end - time.monotonic()) > 0:
                connection.settimeout(left)
                if not (data := connection.recv(65536)):
                    return
                yield data
        except TimeoutError:
            return
