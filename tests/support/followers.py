"""Clients that follow logs: many at once in one thread, and one that goes from replica to replica."""

from __future__ import annotations

import fcntl
import json
import re
import selectors
import socket
import sys
import termios
import threading
import time
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

import requests


@dataclass
class Follower:
    """One connection that follows a log.

    Attributes:
        connection: The socket.
        received: How many bytes have come, and how many of them are kept as `last`.
        last: The newest bytes.
        ended: When the other side has closed it, on the monotonic clock; None if it has not.
        delays: Seconds from when a line was written (its third word) until it came.
    """

    connection: socket.socket
    received: int = 0
    last: bytes = b""
    ended: float | None = None
    delays: list[float] = field(default_factory=list)


_WRITTEN = re.compile(rb"(?:line|flood) \d+ (\d+\.\d{6})")
_KEPT = 4096


def connect(url: str, id: int, token: str = "test", accept: str = "text/event-stream", tail: int = 0) -> socket.socket:
    """A connection that has asked to follow a server's log."""
    parts = urlsplit(url)
    connection = socket.create_connection((parts.hostname or "", parts.port or 80), timeout=60)
    query = f"follow=true&tail={tail}" if tail else "follow=true"
    head = f"GET /api/v1/server/{id}/log?{query} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n"
    connection.sendall(f"{head}Accept: {accept}\r\n\r\n".encode())
    return connection


def head(connection: socket.socket) -> bytes:
    """What has come until the answer's head has."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        assert more, data
        data += more
    return data


class Crowd:
    """Followers that read whatever comes, all in one thread."""

    def __init__(self) -> None:
        self.all: list[Follower] = []
        self.timing = False
        self._selector = selectors.DefaultSelector()
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._read, name="crowd", daemon=True)
        self._thread.start()

    def join(self, url: str, id: int, token: str = "test", accept: str = "text/event-stream") -> Follower:
        """One more; raises AssertionError if the API refuses it."""
        connection = connect(url, id, token, accept)
        first = head(connection)
        assert first.startswith(b"HTTP/1.1 200"), first
        connection.setblocking(False)
        follower = Follower(connection, len(first), first)
        with self._lock:
            self.all.append(follower)
            self._selector.register(connection, selectors.EVENT_READ, follower)
        return follower

    def left(self) -> int:
        """How many are still served."""
        return sum(follower.ended is None for follower in self.all)

    def close(self) -> None:
        self._stopped.set()
        self._thread.join()
        self._selector.close()
        for follower in self.all:
            follower.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _read(self) -> None:
        while not self._stopped.is_set():
            with self._lock:
                ready = self._selector.select(0)
            for key, _ in ready:
                self._receive(key.data)
            if not ready:
                time.sleep(0.005)

    def _receive(self, follower: Follower) -> None:
        try:
            data = follower.connection.recv(1 << 18)
        except OSError:
            data = b""
        if not data:
            follower.ended = time.monotonic()
            with self._lock:
                self._selector.unregister(follower.connection)
            return
        follower.received += len(data)
        if self.timing and (written := _WRITTEN.findall(data)):
            follower.delays.append(time.time() - float(written[-1]))
        follower.last = (follower.last + data)[-_KEPT:]


class Reader(threading.Thread):
    """One client with server-sent events that comes back with Last-Event-ID whenever its stream ends.

    Attributes:
        lines: The ids and texts that it has got, in order.
        notes: The notes that it has got, each with how many lines there were before.
        breaks: How often its stream has ended.
        at: Which of the addresses serves it now.
    """

    def __init__(self, urls: list[str], id: int, token: str = "test") -> None:
        super().__init__(name="reader", daemon=True)
        self._urls, self._id, self._token = urls, id, token
        self.lines: list[tuple[str, str]] = []
        self.notes: list[tuple[str, int]] = []
        self.breaks = self.at = 0
        self.stopped = threading.Event()

    def run(self) -> None:
        while not self.stopped.is_set():
            try:
                self._follow(self._urls[self.at])
            except requests.RequestException:
                time.sleep(0.05)
            self.at = (self.at + 1) % len(self._urls)

    def texts(self) -> list[str]:
        return [text for _, text in self.lines]

    def _follow(self, url: str) -> None:
        headers = {"Authorization": f"Bearer {self._token}", "Accept": "text/event-stream"}
        if self.lines:
            headers["Last-Event-ID"] = self.lines[-1][0]
        address = f"{url}/api/v1/server/{self._id}/log?follow=true"
        with requests.get(address, headers=headers, stream=True, timeout=(2, 30)) as answer:
            if not answer.ok:
                time.sleep(0.1)
                return
            rest = b""
            try:
                for chunk in answer.iter_content(None):
                    *events, rest = (rest + chunk).split(b"\n\n")
                    for event in events:
                        self._got(dict(line.partition(": ")[::2] for line in event.decode().split("\n")))
                    if self.stopped.is_set():
                        return
            finally:
                self.breaks += 1

    def _got(self, fields: dict[str, str]) -> None:
        if "id" in fields:
            self.lines.append((fields["id"], fields["data"]))
        elif "data" in fields:
            self.notes.append((fields["data"], len(self.lines)))


def shown(**numbers: object) -> None:
    """Print what a test has measured."""
    print(json.dumps(numbers), flush=True)


def received_queue(connection: socket.socket) -> int:
    """KiB that wait in the kernel for this client to read."""
    waiting = bytearray(4)
    fcntl.ioctl(connection, termios.FIONREAD, waiting)
    return int.from_bytes(waiting, sys.byteorder) // 1024
