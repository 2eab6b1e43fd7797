"""The process: health, draining, outages of the cluster, overload, metrics and startup."""

from __future__ import annotations

import io
import json
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from structlog.contextvars import bound_contextvars

from service.errors import ClusterUnavailable, OperationFailed, Problem, StartupError
from service.operations.census import count_servers
from service.telemetry import logs, metrics
from service.web import draining as shutdown
from service.web.hooks import CALLS_AT_ONCE, OPERATIONS_AT_ONCE
from tests.api.conftest import SIZES, Client
from tests.support.fakes import FakeCluster, World
from tests.support.games import MINECRAFT


@pytest.fixture
def draining() -> Iterator[None]:
    """The process is shutting down."""
    shutdown.draining.set()
    yield
    shutdown.draining.clear()


def test_the_api_is_ready_only_while_the_cluster_answers(client: Client, world: World) -> None:
    """The healthcheck does not depend on the cluster."""
    assert client.flask.get("/readyz").json == {"success": True}
    world.away = True
    answer = client.flask.get("/readyz")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert client.flask.get("/healthcheck").json == {"alive": True}


@pytest.mark.usefixtures("draining")
def test_a_draining_process_fails_its_probes_and_still_answers(client: Client) -> None:
    """Every answer closes its connection, so the client's next request reaches another replica."""
    probe = {"User-Agent": "kube-probe/1.35"}
    for path, headers in (("/healthcheck", probe), ("/readyz", {})):
        answer = client.flask.get(path, headers=headers)
        assert (answer.status_code, answer.headers["Connection"]) == (503, "close")
    for path in ("/healthcheck", "/api/v1/game"):
        answer = client.get(path)
        assert (answer.status_code, answer.headers["Connection"]) == (200, "close")


@pytest.mark.parametrize(
    "call", ["GET ", "GET 1/", "POST 1/", "PATCH 1/", "DELETE 1/", "PATCH 1/stop", "PATCH 1/port/primary", "GET 1/rcon"]
)
def test_every_call_answers_503_while_kubernetes_is_away(client: Client, world: World, call: str) -> None:
    """The answer has `Retry-After`."""
    client.post("/api/v1/server/1/", SIZES)
    world.away = True
    method, path = call.split(" ")
    answer = client.call(
        method, f"/api/v1/server/{path}", SIZES if path == "1/" and method in ("POST", "PATCH") else None
    )
    assert answer.json is not None
    assert (answer.status_code, answer.json["type"]) == (503, "/problems/cluster-unavailable")
    assert answer.headers["Retry-After"] == "5"


def test_an_outage_of_kubernetes_is_logged_in_one_line(
    client: Client, world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The line has the cause but no stack trace, because every call logs one; other failures have one."""

    def fail(problem: type[Problem]) -> Callable[[FakeCluster, int], Any]:
        def server(self: FakeCluster, id: int) -> Any:
            raise problem from TimeoutError("nobody there")

        return server

    for problem, stack in ((ClusterUnavailable, False), (OperationFailed, True)):
        caplog.clear()
        monkeypatch.setattr(FakeCluster, "server", fail(problem))
        client.get("/api/v1/server/1/")
        (line,) = [record for record in caplog.records if record.name == "service.web.problems"]
        assert (line.exc_info is not None) is stack
        assert ("nobody there" in line.getMessage()) is not stack


def test_too_many_operations_are_refused(client: Client, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """They get 429 at once, while reads still work; later operations work again."""
    started, finish = threading.Semaphore(0), threading.Event()
    releases = client.flask.application.extensions["gameserver"].releases

    def slow(id: int, values: Any) -> None:
        started.release()
        finish.wait(10)

    with monkeypatch.context() as patched:
        patched.setattr(releases, "install", slow)
        application = client.flask.application
        calls = [
            threading.Thread(
                target=lambda id=id: Client(application.test_client()).post(f"/api/v1/server/{id}/", SIZES)
            )
            for id in range(1, OPERATIONS_AT_ONCE + 1)
        ]
        for call in calls:
            call.start()
        for _ in calls:
            assert started.acquire(timeout=10)
        answer = client.post("/api/v1/server/100/", SIZES)
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "2")
        assert client.get("/api/v1/server/").status_code == 200
        assert client.flask.get("/healthcheck").status_code == 200
        finish.set()
        for call in calls:
            call.join()
    assert client.post("/api/v1/server/100/", SIZES).status_code == 201


def test_hanging_reads_leave_threads_for_probes(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """While Kubernetes hangs, reads beyond the limit get 429, and the healthcheck answers."""
    started, finish = threading.Semaphore(0), threading.Event()
    application = client.flask.application

    def slow(id: int) -> Any:
        started.release()
        finish.wait(10)
        raise ClusterUnavailable

    monkeypatch.setattr(application.extensions["gameserver"].cluster, "server", slow)
    calls = [
        threading.Thread(target=lambda: Client(application.test_client()).get("/api/v1/server/1/"))
        for _ in range(CALLS_AT_ONCE)
    ]
    for call in calls:
        call.start()
    for _ in calls:
        assert started.acquire(timeout=10)
    assert client.get("/api/v1/server/1/").status_code == 429
    assert client.flask.get("/healthcheck").status_code == 200
    finish.set()
    for call in calls:
        call.join()
    assert client.get("/api/v1/server/1/").status_code == 503


def test_metrics_count_requests_by_route_and_servers_by_state(
    client: Client, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels have no paths and no invented methods; there is no count of servers while Kubernetes is away."""
    client.post("/api/v1/server/1/", SIZES)
    client.call("BREW", "/api/v1/server/1/")
    client.post("/api/v1/server/2/", {**SIZES, "start": False})
    client.get("/nope")
    text = generate_latest(metrics.REGISTRY).decode()
    name = "gameserver_api_request_duration_seconds_count"
    assert f'{name}{{code="201",method="POST",route="/api/v1/server/<id:id>/"}}' in text
    assert f'{name}{{code="404",method="GET",route="none"}}' in text
    assert f'{name}{{code="405",method="other",route="none"}}' in text
    assert "BREW" not in text
    registry = CollectorRegistry()
    monkeypatch.setattr(metrics, "REGISTRY", registry)
    metrics.count_servers(lambda: count_servers(FakeCluster(world)))
    lines = [line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")]
    assert lines == [
        'gameserver_servers{game="minecraft",state="running"} 1.0',
        'gameserver_servers{game="minecraft",state="stopped"} 1.0',
    ]
    world.away = True
    assert "gameserver_servers{" not in generate_latest(registry).decode()


def test_a_log_line_is_json_with_the_requests_id() -> None:
    """Each record is one line, even if its message has several."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.JsonFormatter())
    log = logging.Logger("some.module")
    log.addHandler(handler)
    with bound_contextvars(request_id="r-1"):
        log.warning("two\nlines", extra={"fields": {"server": 1}})
    line = json.loads(stream.getvalue())
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "warning",
        "logger": "some.module",
        "message": "two\nlines",
        "request_id": "r-1",
        "server": 1,
    }
    assert stream.getvalue().count("\n") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("all: [", ":1: is not YAML"),
        ("all: {}\nevery: {}\n", ":1: must be a mapping with"),
        ("all: 1\n", ":1: `all` must be a mapping"),
        ("all:\n  ramGB: 4\n", ":2: all.ramGB is unknown; did you mean `ramGb`?"),
    ],
)
def test_broken_server_values_stop_the_start(make_app: Any, tmp_path: Path, text: str, message: str) -> None:
    """The error names the file and the line."""
    path = tmp_path / "server-values.yaml"
    path.write_text(text)
    with pytest.raises(StartupError) as raised:
        make_app(server_values_file=path)
    assert str(raised.value).startswith(f"{path}{message}")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"accepted_eulas": frozenset({"minecarft"})},
            "ACCEPTED_EULAS: the game minecarft is unknown; did you mean `minecraft`?",
        ),
        ({"max_ram_gb": 70_000}, "MAX_RAM_GB: 70000 is greater than the maximum of 65536"),
        ({"max_disk_gb": 2_000_000}, "MAX_DISK_GB: 2000000 is greater than the maximum"),
    ],
)
def test_settings_that_the_chart_refuses_stop_the_start(make_app: Any, changes: dict[str, Any], message: str) -> None:
    """Otherwise the creates that need them would fail, and nobody would know why."""
    with pytest.raises(StartupError, match=message):
        make_app(**changes)


def test_a_missing_file_stops_the_start(make_app: Any, tmp_path: Path) -> None:
    """Otherwise a misspelt path would create servers without the operator's values, or hide a game."""
    with pytest.raises(StartupError, match=r"none\.yaml:1: cannot be read"):
        make_app(server_values_file=tmp_path / "none.yaml")
    with pytest.raises(StartupError, match="none: is not a folder of games"):
        make_app(games_dir=tmp_path / "none")


def test_the_operators_values_reach_new_servers(make_app: Any, world: World, tmp_path: Path) -> None:
    """A game's template overrides the values for all games; the values for one game override its template."""
    path = tmp_path / "server-values.yaml"
    path.write_text(
        "all: {storage: {className: fast}, terminationGracePeriodSeconds: 1}\n"
        "games: {minecraft: {image: {repository: localhost/minecraft}, environment: {ONLINE_MODE: 'FALSE'}}}\n"
    )
    Client(make_app(server_values_file=path).test_client()).post("/api/v1/server/1/", SIZES)
    assert world.values[1] == {
        "game": "minecraft",
        "server": {"id": "1", "uid": ANY, "customer": "", "options": {}},
        "replicas": 1,
        "ramGb": 2,
        "diskGb": 10,
        "rcon": {"visibility": "public"},
        "ports": [{"name": "primary", "port": 25565, "protocol": "TCP"}],
        "heap": {"environmentVariable": "MEMORY"},
        "terminationGracePeriodSeconds": 120,
        "stop": {"delayVariable": "STOP_SERVER_ANNOUNCE_DELAY", "durationVariable": "STOP_DURATION"},
        "environment": {
            **MINECRAFT,
            "VERSION": "1.21.4",
            "ONLINE_MODE": "FALSE",
        },
        "storage": {"className": "fast"},
        "image": {"repository": "localhost/minecraft"},
    }


def test_an_operators_game_joins_the_catalogue(make_app: Any, world: World, tmp_path: Path) -> None:
    """It needs no code, and the options of other games are not valid for it."""
    folder = tmp_path / "games"
    folder.mkdir()
    (folder / "pong.game.yaml").write_text("name: pong\ntitle: Pong\ndescription: Bats.\n")
    (folder / "pong.values.yaml.j2").write_text(
        "ports: [{name: primary, port: 1, protocol: UDP}]\n"
        "{% if options.motd is defined %}environment: {TITLE: {{ options.motd | tojson }}}{% endif %}\n"
    )
    schema = {"type": "object", "additionalProperties": False, "properties": {"motd": {"type": "string"}}}
    (folder / "pong.options.schema.json").write_text(json.dumps(schema))
    client = Client(make_app(games_dir=folder).test_client())
    body = {**SIZES, "game": "pong", "options": {"motd": "a"}}
    assert client.post("/api/v1/server/1/", body).status_code == 201
    assert world.values[1]["environment"] == {"TITLE": "a"}
    wrong = client.post("/api/v1/server/2/", {**body, "options": {"difficulty": "hard"}})
    assert wrong.json is not None
    assert wrong.json["errors"] == {"options.difficulty": ["unknown option"]}
    answer = client.patch("/api/v1/server/1/port/primary").json
    assert answer is not None
    assert answer["protocol"] == "UDP"
