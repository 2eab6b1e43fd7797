"""Calls that wait for a server to run: what they answer, and that gunicorn's worker holds no thread for them."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import logging
import re
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
import requests
from werkzeug.test import TestResponse

from service.web import draining, parking
from tests.api.conftest import SIZES, Client
from tests.support.gunicorn import Served
from tests.support.slow_world import SlowWorld
from tests.support.waiting import until

WAIT = "?wait=running"
WAITING = 200
"""Clients that wait at once: four times as many as there are threads."""
TOKEN = {"Authorization": "Bearer t"}

# -- what they answer ---------------------------------------------------------------------------------------


@pytest.fixture
def world() -> SlowWorld:
    return SlowWorld()


def answering(world: SlowWorld, id: int) -> threading.Timer:
    """The server's game answers after a moment; the caller joins this thread."""
    timer = threading.Timer(0.4, world.answer, [id])
    timer.start()
    return timer


@pytest.mark.parametrize(
    ("method", "path", "code"), [("POST", "/", 201), ("PATCH", "/start", 200), ("PATCH", "/restart", 200)]
)
def test_the_answer_comes_when_the_server_runs(
    client: Client, world: SlowWorld, caplog: pytest.LogCaptureFixture, method: str, path: str, code: int
) -> None:
    """It has the usual status code, and the state. The call leaves one audit line and one access line."""
    if method == "PATCH":
        client.post("/api/v1/server/1/", {**SIZES, "start": False})
    caplog.set_level(logging.INFO)
    caplog.clear()
    timer, began = answering(world, 1), time.monotonic()
    answer = client.call(method, f"/api/v1/server/1{path}{WAIT}", SIZES if method == "POST" else None)
    timer.join()
    assert (answer.status_code, answer.json) == (code, {"success": True, "state": "running", "reason": None})
    assert time.monotonic() - began > 0.3
    lines = [record.__dict__["fields"] for record in caplog.records if record.name == "service.audit"]
    assert [line["outcome"] for line in lines] == ["ok"]
    (line,) = [record.__dict__["fields"] for record in caplog.records if record.name == "service.access"]
    assert line["status"] == code
    assert line["ms"] > 300


def test_when_the_time_is_over_the_answer_has_the_state(client: Client, world: SlowWorld) -> None:
    """It is 200, after a create too."""
    began = time.monotonic()
    answer = client.post(f"/api/v1/server/1/{WAIT}&timeout_s=1", SIZES)
    assert 1 <= time.monotonic() - began < 5
    assert (answer.status_code, answer.json) == (200, {"success": True, "state": "starting", "reason": None})


def test_a_server_that_is_stopped_or_deleted_meanwhile_ends_the_wait(client: Client, world: SlowWorld) -> None:
    """Nobody waits for what will not come."""
    application = client.flask.application

    def soon(method: str, path: str) -> threading.Timer:
        call = Client(application.test_client()).call
        timer = threading.Timer(0.5, lambda: call(method, f"/api/v1/server/1/{path}"))
        timer.start()
        return timer

    client.post("/api/v1/server/1/", {**SIZES, "start": False})
    timer = soon("PATCH", "stop")
    answer = client.patch(f"/api/v1/server/1/start{WAIT}&timeout_s=20")
    timer.join()
    assert (answer.status_code, answer.json) == (200, {"success": True, "state": "stopped", "reason": None})
    timer = soon("DELETE", "")
    answer = client.patch(f"/api/v1/server/1/start{WAIT}&timeout_s=20")
    timer.join()
    assert answer.status_code == 404


def test_a_draining_replica_does_not_let_anyone_wait(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers at once, with the state as it is."""
    monkeypatch.setattr(draining, "draining", event := threading.Event())
    for module in ("service.web.parking", "service.api.states", "service.web.hooks"):
        monkeypatch.setattr(f"{module}.draining", event)
    event.set()
    began = time.monotonic()
    answer = client.post(f"/api/v1/server/1/{WAIT}", SIZES)
    assert (answer.status_code, (answer.json or {})["state"]) == (200, "starting")
    assert time.monotonic() - began < 1


def test_too_many_that_wait_are_refused_before_anything_is_done(
    client: Client, world: SlowWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """429 with Retry-After; without `wait`, the same call is answered."""
    monkeypatch.setattr(parking, "MOST", 0)
    answer = client.post(f"/api/v1/server/1/{WAIT}", SIZES)
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "5")
    assert not world.values
    assert client.post("/api/v1/server/1/", SIZES).status_code == 201


@pytest.mark.parametrize(
    ("limit", "token", "others"),
    [("MOST_OF_A_TOKEN", "shop", "operator"), ("MOST_OF_A_CUSTOMER", "acme", "shop")],
)
def test_one_token_does_not_take_all_places(
    client: Client, world: SlowWorld, monkeypatch: pytest.MonkeyPatch, limit: str, token: str, others: str
) -> None:
    """429 with Retry-After for it, while others wait; its place is free again once it has its answer."""
    application = client.flask.application
    monkeypatch.setattr(parking, limit, 1)

    def wait(id: int, token: str, seconds: int = 1) -> TestResponse:
        own = Client(application.test_client())
        return own.post(f"/api/v1/server/{id}/{WAIT}&timeout_s={seconds}", SIZES, token=token)

    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(wait, 1, token, 20)
        until(lambda: parking.waiting() == 1)
        answer = wait(2, token)
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "5")
        assert list(world.values) == [1]
        assert wait(3, others).status_code == 200
        world.answer(1)
        assert first.result().status_code == 201
    assert wait(2, token).status_code == 200


@pytest.mark.parametrize("query", ["wait=stopped", "wait=running&timeout_s=0", "wait=running&timeout_s=301", "wait="])
def test_a_wait_that_makes_no_sense_is_refused(client: Client, world: SlowWorld, query: str) -> None:
    """422, and nothing is done."""
    assert client.post(f"/api/v1/server/1/?{query}", SIZES).status_code == 422
    assert not world.values


# -- gunicorn's worker --------------------------------------------------------------------------------------


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """gunicorn with its real configuration and worker, and the API over fakes (tests/support/waiting_api.py)."""
    served = Served.over_fakes(tmp_path)
    yield served
    served.kill()


def send(served: Served, *requests_: tuple[str, str], body: Any = None) -> socket.socket:
    """Send requests on one connection without waiting for an answer."""
    connection = socket.create_connection(("127.0.0.1", served.port), timeout=30)
    content = b"" if body is None else json.dumps(body).encode()
    for method, path in requests_:
        head = f"{method} {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer t\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
    return connection


@dataclass(frozen=True)
class Answer:
    """An answer, without its body."""

    status: int
    headers: Message


def read(connection: socket.socket) -> tuple[Answer, Any]:
    """The next answer on the connection, and its JSON. Reads no byte of the one after it."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        assert byte, head
        head += byte
    first, _, rest = head.partition(b"\r\n")
    headers = http.client.parse_headers(io.BytesIO(rest))
    body = connection.recv(int(headers["Content-Length"]), socket.MSG_WAITALL)
    return Answer(int(first.split()[1]), headers), json.loads(body)


def waiting(served: Served) -> int:
    """How many calls wait, by the process's own count."""
    text = requests.get(f"{served.url}/metrics", headers=TOKEN, timeout=10).text
    match = re.search(r"^gameserver_api_waiting_calls (\d+)", text, re.MULTILINE)
    assert match is not None
    return int(match[1])


@contextlib.contextmanager
def clients(served: Served, count: int, timeout: int = 120) -> Iterator[list[socket.socket]]:
    """Clients that have each sent a create of a server, from id 1 on, and wait until it runs.

    They come ten at a time: a loaded machine would refuse some of 200 at once as too many operations.
    """
    with contextlib.ExitStack() as stack:
        connections: list[socket.socket] = []
        for first in range(1, count + 1, 10):
            for id in range(first, min(first + 10, count + 1)):
                path = f"/api/v1/server/{id}/{WAIT}&timeout_s={timeout}"
                connections.append(stack.enter_context(send(served, ("POST", path), body=SIZES)))
            until(lambda: waiting(served) == len(connections), 30, lambda: f"answered already: {early(connections)}")
        yield connections


def early(connections: list[socket.socket]) -> list[bytes]:
    """What has been answered already."""
    return [connection.recv(1000) for connection in select.select(connections, [], [], 0)[0]]


def worker(served: Served) -> Path:
    """The folder in /proc of gunicorn's worker."""
    children = Path(f"/proc/{served.process.pid}/task/{served.process.pid}/children").read_text().split()
    return Path("/proc") / children[0]


def run(served: Served, id: int) -> None:
    """Make the server's game answer."""
    assert requests.get(f"{served.url}/run/{id}", headers=TOKEN, timeout=10).ok


def create_and_read(served: Served, first: int) -> None:
    """40 calls, creates and reads in turn, of servers from id `first` on; each is answered within 10 seconds."""
    with requests.Session() as session:
        session.headers.update(TOKEN)
        for number in range(40):
            url = f"{served.url}/api/v1/server/{first + number // 2}/"
            answer = session.get(url, timeout=10) if number % 2 else session.post(url, json=SIZES, timeout=10)
            assert answer.ok


@pytest.mark.slow
def test_two_hundred_waiting_clients_hold_no_thread(served: Served) -> None:
    """Creates and reads are answered beside them, and each is answered when its own server runs."""
    with clients(served, WAITING) as connections:
        threads = len(list((worker(served) / "task").iterdir()))
        create_and_read(served, 2001)
        assert threads < 100
        for id in (7, WAITING):
            run(served, id)
            answer, body = read(connections[id - 1])
            assert (answer.status, body) == (201, {"success": True, "state": "running", "reason": None})
        assert waiting(served) == WAITING - 2


@pytest.mark.slow
def test_a_client_that_goes_away_is_not_leaked(served: Served) -> None:
    """Its connection is closed at once, also if it has sent its next request already."""
    descriptors = worker(served) / "fd"
    before = len(list(descriptors.iterdir()))
    with clients(served, 20) as connections:
        for connection in connections[:10]:
            connection.sendall(b"GET /healthcheck HTTP/1.1\r\nHost: a\r\n\r\n")
        for connection in connections:
            connection.close()
        until(lambda: waiting(served) == 0, 5)
    until(lambda: len(list(descriptors.iterdir())) <= before + 1, 5, lambda: f"{before} before")


@pytest.mark.slow
def test_a_drain_answers_all_at_once(served: Served) -> None:
    """With the states as they are; then the process ends as usual."""
    with clients(served, 100) as connections:
        served.process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        with ThreadPoolExecutor(20) as readers:
            answers = list(readers.map(read, connections))
        seconds = time.monotonic() - began
        assert {(answer.status, body["state"]) for answer, body in answers} == {(200, "starting")}
        assert {answer.headers["Connection"] for answer, _ in answers} == {"close"}
        assert seconds < 3
    assert served.process.wait(20) == 0


def test_a_connection_is_kept_after_an_answer_that_waited(served: Served) -> None:
    """Requests that were sent meanwhile, and later ones, are answered in order."""
    with send(
        served,
        ("POST", f"/api/v1/server/1/{WAIT}"),
        ("POST", "/api/v1/server/2/"),
        ("POST", f"/api/v1/server/3/{WAIT}&timeout_s=1"),
        body=SIZES,
    ) as connection:
        until(lambda: waiting(served) == 1)
        time.sleep(0.5)
        assert requests.get(f"{served.url}/api/v1/server/2/", headers=TOKEN, timeout=10).status_code == 404
        run(served, 1)
        answers = [read(connection) for _ in range(3)]
        assert [(answer.status, body.get("state")) for answer, body in answers] == [
            (201, "running"),
            (201, None),
            (200, "starting"),
        ]
        assert {answer.headers["Connection"] for answer, _ in answers} == {"keep-alive"}
        connection.sendall(b"GET /healthcheck HTTP/1.1\r\nHost: a\r\n\r\n")
        assert read(connection)[1] == {"alive": True}
    until(lambda: waiting(served) == 0)


def test_a_problem_after_the_wait_is_answered_as_any_other(served: Served) -> None:
    """A server that is deleted meanwhile is 404, with the request's id."""
    with send(served, ("POST", f"/api/v1/server/1/{WAIT}"), body=SIZES) as connection:
        until(lambda: waiting(served) == 1)
        assert requests.delete(f"{served.url}/api/v1/server/1/", headers=TOKEN, timeout=10).ok
        answer, body = read(connection)
        assert (answer.status, body["type"]) == (404, "/problems/server-not-found")
        assert answer.headers["X-Request-Id"]
