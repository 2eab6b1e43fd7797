"""Kept-alive HTTP/1.1 connections to one server. Thread-safe.

One thread can send several requests at the same time: each is sent on a connection of its own before the first response
is read, so the server handles them in parallel. With a thread per request, waking the threads takes longer than reading
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

from service.keepalive import keep_alive


@dataclass(frozen=True)
class Request:
    """An HTTP request; `target` is the path with the query."""

    method: str
    target: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None


class Connections:
    """Connections to the server at `url`. Create it after a fork: sockets must not be shared between processes.

    All methods raise OSError or http.client.HTTPException if the server does not respond, or breaks off its response.
    `timeout` is in seconds: to connect, and to wait for data each time.
    """

    def __init__(self, url: str, tls: ssl.SSLContext | None, idle: int) -> None:
        """Keep up to `idle` unused connections open. `tls` is used for `https` only."""
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port
        self._base_path = parts.path.rstrip("/")
        self._tls = tls if parts.scheme == "https" else None
        self._max_idle = idle
        # Only appended to, and popped from the end: both are atomic, so no lock is needed.
        self._idle: list[HTTPConnection] = []
        weakref.finalize(self, _close, self._idle)

    def send_all(self, requests: Sequence[Request], timeout: tuple[float, float]) -> list[tuple[int, bytes]]:
        """Send all requests at the same time; returns status and body of each response."""
        in_use: list[HTTPConnection] = []
        try:
            for request in requests:
                in_use.append(self._acquire(timeout))
                self._send(in_use[-1], request)
            responses = []
            for connection in in_use:
                response = connection.getresponse()
                responses.append((response.status, response.read()))
        except BaseException:
            # The next request on a connection would get the response that was not read.
            for connection in in_use:
                connection.close()
            raise
        for connection in in_use:
            self._release(connection)
        return responses

    @contextmanager
    def stream(self, request: Request, timeout: tuple[float, float]) -> Iterator[HTTPResponse]:
        """Send a request and yield its response, to be read as it arrives. Its connection is closed afterwards."""
        connection = self._connect(timeout)
        try:
            self._send(connection, request)
            with connection.getresponse() as response:
                yield response
        finally:
            connection.close()

    @contextmanager
    def connected(self, timeout: tuple[float, float]) -> Iterator[tuple[socket.socket, str]]:
        """A connection for another protocol, and the base of its URLs. It is closed afterwards."""
        connection = self._connect(timeout)
        try:
            host = f"[{self._host}]" if ":" in self._host else self._host
            port = "" if self._port is None else f":{self._port}"
            yield connection.sock, f"{'ws' if self._tls is None else 'wss'}://{host}{port}{self._base_path}"
        finally:
            connection.close()

    def _send(self, connection: HTTPConnection, request: Request) -> None:
        connection.request(request.method, f"{self._base_path}{request.target}", request.body, dict(request.headers))

    def _acquire(self, timeout: tuple[float, float]) -> HTTPConnection:
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # Another thread took it.
                break
            if connection.sock is not None and not _readable(connection.sock):
                connection.sock.settimeout(timeout[1])
                return connection
            connection.close()
        return self._connect(timeout)

    def _connect(self, timeout: tuple[float, float]) -> HTTPConnection:
        connection = (
            HTTPConnection(self._host, self._port, timeout=timeout[0])
            if self._tls is None
            else HTTPSConnection(self._host, self._port, timeout=timeout[0], context=self._tls)
        )
        connection.connect()
        keep_alive(connection.sock)
        connection.sock.settimeout(timeout[1])
        return connection

    def _release(self, connection: HTTPConnection) -> None:
        # Without a socket, the server has closed the connection with its response.
        if connection.sock is not None and len(self._idle) < self._max_idle:
            self._idle.append(connection)
        else:
            connection.close()


def _readable(sock: socket.socket) -> bool:
    """Whether an idle connection has data to read. If so, the server has closed it, or it cannot be used again."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def _close(connections: list[HTTPConnection]) -> None:
    for connection in connections:
        connection.close()
