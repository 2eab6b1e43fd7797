"""Those who follow a log, with gunicorn's worker: they hold no thread, and no drain takes longer for them."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.api.conftest import SIZES
from tests.support.gunicorn import Served
from tests.support.waiting import until

TOKEN = {"Authorization": "Bearer t"}
LOG = "/api/v1/server/1/log?follow=true"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """gunicorn with its real configuration and worker, over fakes; server 1 runs."""
    served = Served.over_fakes(tmp_path)
    assert requests.post(f"{served.url}/api/v1/server/1/", json=SIZES, headers=TOKEN, timeout=10).ok
    assert requests.get(f"{served.url}/run/1", headers=TOKEN, timeout=10).ok
    yield served
    served.kill()


def write(served: Served, text: str, times: int = 1) -> None:
    """Make the game write a line, or many."""
    assert requests.get(f"{served.url}/write/1/{text}/{times}", headers=TOKEN, timeout=30).ok


def connect(served: Served, *, accept: str = "text/plain", version: str = "1.1") -> socket.socket:
    """A connection that follows the log of server 1."""
    connection = socket.create_connection(("127.0.0.1", served.port), timeout=30)
    head = f"GET {LOG} HTTP/{version}\r\nHost: a\r\nAuthorization: Bearer t\r\nAccept: {accept}\r\n\r\n"
    connection.sendall(head.encode())
    return connection


def unsent(port: int) -> list[int]:
    """How many bytes the kernel keeps for each client of a port on this machine."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [int(row[4].partition(":")[0], 16) for row in rows if row[1].endswith(f":{port:04X}") and row[3] == "01"]


def received(connection: socket.socket, end: str = "") -> str:
    """What has come until `end` has; without `end`, until the connection ends."""
    data = b""
    while not end or end.encode() not in data:
        more = connection.recv(65536)
        if not more:
            break
        data += more
    return data.decode()


def test_lines_arrive_in_chunks(served: Served) -> None:
    """As plain HTTP clients understand them."""
    write(served, "old")
    with requests.get(f"{served.url}{LOG}", headers=TOKEN, timeout=30, stream=True) as answer:
        lines = answer.iter_lines(chunk_size=1)
        assert (answer.headers["Transfer-Encoding"], answer.headers["Connection"]) == ("chunked", "close")
        assert answer.headers["X-Request-Id"]
        assert next(lines) == b"old"
        write(served, "new")
        assert next(lines) == b"new"
    with connect(served, version="1.0") as connection:
        text = received(connection, "new\n")
        assert text.endswith("\r\n\r\nold\nnew\n")


@pytest.mark.slow
def test_followers_hold_no_thread(served: Served) -> None:
    """Beside 180 of them calls are answered, each gets the line, and all of them are let go."""
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(connect(served)) for _ in range(180)]
        for number, connection in enumerate(connections):
            # On a busy machine they are too many calls of one token at once, and asked to come back.
            while not (head := received(connection, "\r\n\r\n")).startswith("HTTP/1.1 200 "):
                assert head.startswith("HTTP/1.1 429 "), head
                connections[number] = connection = stack.enter_context(connect(served))
        children = Path(f"/proc/{served.process.pid}/task/{served.process.pid}/children").read_text().split()
        folder = Path("/proc") / children[0]
        assert len(list((folder / "task").iterdir())) < 100
        with requests.Session() as session:
            for _ in range(40):
                assert session.get(f"{served.url}/api/v1/server/1/", headers=TOKEN, timeout=10).ok
        write(served, "all")
        for connection in connections:
            assert "all" in received(connection, "all")
        descriptors = len(list((folder / "fd").iterdir()))
    until(lambda: len(list((folder / "fd").iterdir())) < descriptors - 150)


def test_a_drain_tells_followers_to_come_back(served: Served) -> None:
    """At once; the process ends as usual."""
    with connect(served, accept="text/event-stream") as events, connect(served) as text:
        for connection in (events, text):
            received(connection, "\r\n\r\n")
        served.process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        assert "retry: 1000\nevent: end\n" in received(events)
        assert received(text).endswith("this replica ends; come back ---\n\r\n0\r\n\r\n")
        assert time.monotonic() - began < 20
    assert served.process.wait(30) == 0


@pytest.mark.slow
def test_one_that_does_not_read_delays_nobody_and_is_told(served: Served) -> None:
    """It misses lines, and hears of it."""
    with connect(served) as slow, connect(served) as quick:
        for connection in (slow, quick):
            received(connection, "\r\n\r\n")
        for number in range(60):
            write(served, "x" * 1000, 200)
            write(served, f"mark{number}")
            assert f"mark{number}" in received(quick, f"mark{number}\n")
        assert max(unsent(served.port)) < 256 * 1024
        text = received(slow, "mark59\n")
        assert "--- lines are missing here ---" in text
        assert len(re.findall("mark", text)) < 60


def test_the_head_alone_follows_nothing(served: Served) -> None:
    """A HEAD ends after the head (RFC 9110, 9.3.2): `curl -I` would wait for ever, and take a follower's place."""
    head = f"HEAD {LOG} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer t\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as connection:
        connection.sendall(head.encode())
        answer = received(connection)
    assert answer.startswith("HTTP/1.1 200 ")
    assert answer.endswith("\r\n\r\n")
