"""gunicorn with its real configuration, without a Kubernetes."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from local.paths import ROOT
from tests.docs.snippets import block
from tests.support import loopback, tokens
from tests.support.gunicorn import Served
from tests.support.waiting import until

# The API asks helm for its version when it starts.
pytestmark = pytest.mark.tools


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Starts gunicorn as the image does, with these environment variables."""
    started: list[Served] = []

    def start_gunicorn(**variables: str) -> Served:
        kubernetes = variables.pop("KUBERNETES", "http://127.0.0.1:9")
        environment = {
            "TOKENS_FILE": str(tokens.write(tmp_path / "tokens.json", tokens.entry("t"))),
            "KUBECONFIG": loopback.kubeconfig(tmp_path, kubernetes),
            "HELM": str(ROOT / ".local/bin/helm"),
            "DRAIN_SECONDS": "5",
            **variables,
        }
        started.append(Served.start(tmp_path, environment))
        return started[-1]

    yield start_gunicorn
    for served in started:
        served.kill()


@dataclass
class SlowKubernetes:
    """A Kubernetes API that answers 404 after a second; `requested` is set once someone reads server 1."""

    url: str
    requested: threading.Event


@pytest.fixture
def slow_kubernetes() -> Iterator[SlowKubernetes]:
    requested = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.endswith("/server-1"):
                requested.set()
            time.sleep(1)
            with contextlib.suppress(BrokenPipeError):
                self.send_error(404)

        def log_message(self, *_: object) -> None:
            """Do not write to the test's output."""

    with loopback.serving(Handler) as url:
        yield SlowKubernetes(url, requested)


def test_it_serves_logs_and_drains(start: Callable[..., Served]) -> None:
    """Without Kubernetes it is alive, answers 503 in time and logs JSON; after SIGTERM it answers for a while."""
    served = start()
    served.until_alive()
    token = {"Authorization": "Bearer t"}
    start_time = time.monotonic()
    away = requests.get(f"{served.url}/api/v1/server/1/", headers=token, timeout=10)
    assert (away.status_code, away.json()["type"]) == (503, "/problems/cluster-unavailable")
    assert time.monotonic() - start_time < 5
    large = requests.post(f"{served.url}/api/v1/server/1/", data=b" " * 10_000_000, headers=token, timeout=30)
    assert large.status_code == 415
    assert 'route="/api/v1/server/<id:id>/"' in requests.get(served.metrics, timeout=5).text

    with requests.Session() as session:
        assert session.get(f"{served.url}/healthcheck", timeout=5).headers["Connection"] == "keep-alive"
        served.process.send_signal(signal.SIGTERM)
        probe = {"User-Agent": "kube-probe/1.35"}
        until(lambda: requests.get(f"{served.url}/healthcheck", headers=probe, timeout=5).status_code != 200, 5)
        last = session.get(f"{served.url}/healthcheck", timeout=5)
        assert (last.json(), last.headers["Connection"]) == ({"alive": True}, "close")
        game = requests.get(f"{served.url}/api/v1/game", headers=token, timeout=5)
        assert (game.status_code, game.headers["Connection"]) == (200, "close")
    assert served.process.wait(20) == 0
    lines = [json.loads(line) for line in served.log.read_text().splitlines()]
    assert {"gunicorn.error", "service.access"} <= {line["logger"] for line in lines}


def test_a_connection_with_keep_alive_is_not_cut(start: Callable[..., Served], slow_kubernetes: SlowKubernetes) -> None:
    """If an answer that started before SIGTERM says keep-alive, the next request on that connection is answered too."""
    served = start(KUBERNETES=slow_kubernetes.url)
    served.until_alive()
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", served.port, timeout=10)) as connection:
        connection.request("GET", "/api/v1/server/1/port/primary", headers={"Authorization": "Bearer t"})
        assert slow_kubernetes.requested.wait(10)
        served.process.send_signal(signal.SIGTERM)
        first = connection.getresponse()
        assert (first.status, first.headers["Connection"], first.read() != b"") == (404, "keep-alive", True)
        time.sleep(0.2)
        connection.request("GET", "/healthcheck")
        second = connection.getresponse()
        assert (json.load(second), second.headers["Connection"]) == ({"alive": True}, "close")
    assert served.process.wait(20) == 0


@pytest.fixture
def served(start: Callable[..., Served]) -> Served:
    """A gunicorn that is up."""
    served = start()
    served.until_alive()
    return served


def send_bytes(served: Served, request: bytes) -> tuple[http.client.HTTPResponse, dict[str, Any]]:
    """Send raw bytes; return the answer and the JSON in it."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as connection:
        connection.sendall(request)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        body: dict[str, Any] = json.load(answer)
        return answer, body


def test_invalid_http_gets_a_problem_too(served: Served) -> None:
    """The application never sees the request, and the next one is answered as usual."""
    for request, status, slug in (
        (b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\n\r\n", 414, "address-too-long"),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 9000 + b"\r\n\r\n", 431, "headers-too-large"),
        (b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 200 + b"\r\n", 431, "headers-too-large"),
        (b"nonsense\r\n\r\n", 400, "bad-request"),
        (b"GET / HTTP/9.9\r\n\r\n", 400, "bad-request"),
        (b"GET / HTTP/1.1\r\na b: c\r\n\r\n", 400, "bad-request"),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "bad-request"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, "bad-request"),
        (b"GET / HTTP/1.1\r\nAuthorization Bearer hush\r\n\r\n", 400, "bad-request"),
        (b"GET /?token=hush\r\n\r\n", 400, "bad-request"),
    ):
        answer, problem = send_bytes(served, request)
        assert (answer.status, problem["type"]) == (status, f"/problems/{slug}"), request[:60]
        assert (problem["success"], problem["status"]) == (False, status)
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.headers["Connection"] == "close"
    assert requests.get(f"{served.url}/healthcheck", timeout=5).json() == {"alive": True}
    assert "is not valid HTTP: InvalidHeader" in served.log.read_text()
    assert "hush" not in served.log.read_text()


def test_clients_that_do_not_close_delay_nobody(served: Served) -> None:
    """Twenty clients ask to close the connection but leave it open; a probe is still answered at once."""
    with contextlib.ExitStack() as connections:
        for _ in range(20):
            connection = connections.enter_context(socket.create_connection(("127.0.0.1", served.port), timeout=10))
            connection.sendall(b"GET /healthcheck HTTP/1.1\r\nConnection: close\r\n\r\n")
        # With plain gunicorn, each would block the process for two seconds.
        assert requests.get(f"{served.url}/healthcheck", timeout=2).json() == {"alive": True}


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"TOKENS_FILE": "/none"}, "/none:1: cannot be read"),
        ({"MAX_RAM_GB": "x"}, "MAX_RAM_GB='x'"),
        ({"GAMES_DIR": "broken"}, "pong.game.yaml:2: unknown key 'colour'"),
    ],
)
def test_a_broken_file_or_variable_stops_gunicorn(
    start: Callable[..., Served], tmp_path: Path, variables: dict[str, str], message: str
) -> None:
    """The log names it, and gunicorn does not start one worker after another."""
    if "GAMES_DIR" in variables:
        (tmp_path / "pong.d").mkdir()
        (tmp_path / "pong.d/pong.game.yaml").write_text("name: pong\ncolour: red\n")
        variables = {"GAMES_DIR": str(tmp_path / "pong.d")}
    served = start(**variables)
    assert served.process.wait(30) != 0
    assert message in served.log.read_text()


def test_a_mistake_of_the_operators_is_one_line_of_the_log(start: Callable[..., Served], tmp_path: Path) -> None:
    """The line is as docs/operations.md shows it, and every line is JSON."""
    values = tmp_path / "server-values.yaml"
    values.write_text("all:\n  ramGB: 4\n")
    documented = json.loads(block("docs/operations.md", '{"time": '))
    for variables, message in (
        (
            {"SERVER_VALUES_FILE": str(values)},
            documented["message"].replace("/etc/gameserver-api/config", str(tmp_path)),
        ),
        ({"LOG_LEVEL": "loud"}, "cannot start: LOG_LEVEL='loud': must be debug, info, warning or error"),
    ):
        served = start(**variables)
        assert served.process.wait(30) != 0
        lines = [json.loads(line) for line in served.log.read_text().splitlines()]
        messages = [line for line in lines if line["message"].startswith("cannot start")]
        assert [{**line, "time": documented["time"]} for line in messages] == [{**documented, "message": message}]
