"""Kept-alive HTTP/1.1 connections to one server; safe for threads.

Several requests go out at once from one thread: each is sent on a connection of its own before the first answer is
read, so the server works on them side by side. With a thread for each, waking the threads takes longer than reading
an object from the API server's cache.
"""

from __future__ import annotations

import select
import socket
import ssl
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from urllib.parse import urlsplit

# A node that vanished says no goodbye: after a silence of 30 s the kernel asks, and a minute later it knows.
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4))


@dataclass(frozen=True)
class Request:
    """`target` is path and query."""

    method: str
    target: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None


class Connections:
    """Connections to the server at `url`. To be made after a fork, as sockets do not survive one.

    All methods raise OSError or http.client.HTTPException where the server does not answer, or breaks off.
    `timeout` is in seconds: for the connection to stand, and for each wait for data.
    """

    def __init__(self, url: str, tls: ssl.SSLContext | None, idle: int) -> None:
        """Up to `idle` connections are kept while nobody needs them."""
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port
        self._above = parts.path.rstrip("/")
        self._tls = tls if parts.scheme == "https" else None
        self._most = idle
        # Appended to and popped from at its end only, which takes no lock of ours.
        self._idle: list[HTTPConnection] = []
        weakref.finalize(self, _close, self._idle)

    def ask(self, requests: Sequence[Request], timeout: tuple[float, float]) -> list[tuple[int, bytes]]:
        """Send all requests at once; status and body of each answer."""
        taken: list[HTTPConnection] = []
        try:
            for request in requests:
                taken.append(self._taken(timeout))
                self._send(taken[-1], request)
            answers = []
            for connection in taken:
                response = connection.getresponse()
                answers.append((response.status, response.read()))
        except BaseException:
            # An answer that nobody has read would be taken for that of the next request.
            for connection in taken:
                connection.close()
            raise
        for connection in taken:
            self._give_back(connection)
        return answers

    @contextmanager
    def streamed(self, request: Request, timeout: tuple[float, float]) -> Iterator[HTTPResponse]:
        """The answer to a request, to be read as it comes, on a connection that ends with it."""
        connection = self._connected(timeout)
        try:
            self._send(connection, request)
            with connection.getresponse() as response:
                yield response
        finally:
            connection.close()

    def _send(self, connection: HTTPConnection, request: Request) -> None:
        connection.request(request.method, f"{self._above}{request.target}", request.body, dict(request.headers))

    def _taken(self, timeout: tuple[float, float]) -> HTTPConnection:
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # Another thread was quicker.
                break
            if connection.sock is not None and not _readable(connection.sock):
                connection.sock.settimeout(timeout[1])
                return connection
            connection.close()
        return self._connected(timeout)

    def _connected(self, timeout: tuple[float, float]) -> HTTPConnection:
        connection = (
            HTTPConnection(self._host, self._port, timeout=timeout[0])
            if self._tls is None
            else HTTPSConnection(self._host, self._port, timeout=timeout[0], context=self._tls)
        )
        connection.connect()
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE:
            connection.sock.setsockopt(socket.IPPROTO_TCP, option, value)
        connection.sock.settimeout(timeout[1])
        return connection

    def _give_back(self, connection: HTTPConnection) -> None:
        # Without a socket, the answer has said that it was the last one.
        if connection.sock is not None and len(self._idle) < self._most:
            self._idle.append(connection)
        else:
            connection.close()


def _readable(sock: socket.socket) -> bool:
    """Whether an idle connection has something to say: it has been closed, or is of no more use."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def _close(connections: list[HTTPConnection]) -> None:
    for connection in connections:
        connection.close()
