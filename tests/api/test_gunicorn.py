"""The real server: gunicorn, with its configuration, over a cluster that is not there."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

ROOT = Path(__file__).resolve().parents[2]
KUBECONFIG = """\
apiVersion: v1
kind: Config
current-context: none
contexts: [{name: none, context: {cluster: none, user: none}}]
clusters: [{name: none, cluster: {server: "http://127.0.0.1:9"}}]
users: [{name: none, user: {}}]
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Served:
    process: subprocess.Popen[str]
    url: str
    metrics: str
    log: Path


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Start gunicorn as the image does, with some variables."""
    started: list[Served] = []

    def begin(**variables: str) -> Served:
        port, metrics = free_port(), free_port()
        tokens = [{"name": "t", "sha256": hashlib.sha256(b"t").hexdigest(), "scopes": ["read", "operate", "admin"]}]
        (tmp_path / "tokens.json").write_text(json.dumps({"tokens": tokens}))
        (tmp_path / "kubeconfig").write_text(KUBECONFIG)
        environment = {
            "PATH": os.environ["PATH"],
            "PORT": str(port),
            "METRICS_PORT": str(metrics),
            "TOKENS_FILE": str(tmp_path / "tokens.json"),
            "KUBECONFIG": str(tmp_path / "kubeconfig"),
            "HELM": str(ROOT / ".local/bin/helm"),
            "DRAIN_SECONDS": "2",
            **variables,
        }
        log = tmp_path / "log"
        with log.open("w") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", "--config", "service/gunicorn.conf.py", "service.wsgi:app"],
                cwd=ROOT,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
            )
        served = Served(process, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{metrics}/metrics", log)
        started.append(served)
        return served

    yield begin
    for served in started:
        with contextlib.suppress(ProcessLookupError):
            served.process.kill()
        served.process.wait(10)


def up(served: Served) -> None:
    deadline = time.monotonic() + 30
    while True:
        with contextlib.suppress(requests.ConnectionError):
            if requests.get(f"{served.url}/healthcheck", timeout=5).json() == {"alive": True}:
                return
        assert served.process.poll() is None, served.log.read_text()
        assert time.monotonic() < deadline, served.log.read_text()
        time.sleep(0.1)


def test_it_serves_logs_and_drains(start: Callable[..., Served]) -> None:
    """Without Kubernetes: alive, 503 in time, JSON logs, metrics; after SIGTERM it goes on answering for a while."""
    served = start()
    up(served)
    token = {"Authorization": "Bearer t"}
    began = time.monotonic()
    away = requests.get(f"{served.url}/api/v1/server/1/", headers=token, timeout=10)
    assert (away.status_code, away.json()["type"]) == (503, "/problems/cluster-unavailable")
    assert time.monotonic() - began < 5
    large = requests.post(f"{served.url}/api/v1/server/1/", data=b" " * 10_000_000, headers=token, timeout=30)
    assert large.status_code == 415
    assert 'route="/api/v1/server/<id:id>/"' in requests.get(served.metrics, timeout=5).text

    with requests.Session() as session:
        assert session.get(f"{served.url}/healthcheck", timeout=5).headers["Connection"] == "keep-alive"
        served.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 5
        probe = {"User-Agent": "kube-probe/1.35"}
        while requests.get(f"{served.url}/healthcheck", headers=probe, timeout=5).status_code == 200:
            assert time.monotonic() < deadline
        kept = session.get(f"{served.url}/healthcheck", timeout=5)
        assert (kept.json(), kept.headers["Connection"]) == ({"alive": True}, "close")
        game = requests.get(f"{served.url}/api/v1/game", headers=token, timeout=5)
        assert (game.status_code, game.headers["Connection"]) == (200, "close")
    assert served.process.wait(20) == 0
    lines = [json.loads(line) for line in served.log.read_text().splitlines()]
    assert {"gunicorn.error", "service.access"} <= {line["logger"] for line in lines}


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"TOKENS_FILE": "/none"}, "/none:1: cannot be read"),
        ({"MAX_RAM_GB": "x"}, "MAX_RAM_GB='x'"),
        ({"GAMES_DIR": "broken"}, "pong.game.yaml:2: unknown key 'colour'"),
    ],
)
def test_what_is_broken_is_named_and_ends_it(
    start: Callable[..., Served], tmp_path: Path, variables: dict[str, str], message: str
) -> None:
    """Rather than start one worker after the other."""
    if "GAMES_DIR" in variables:
        (tmp_path / "pong.d").mkdir()
        (tmp_path / "pong.d/pong.game.yaml").write_text("name: pong\ncolour: red\n")
        variables = {"GAMES_DIR": str(tmp_path / "pong.d")}
    served = start(**variables)
    assert served.process.wait(30) != 0
    assert message in served.log.read_text()
