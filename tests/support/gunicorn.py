"""The API in its own process, served by gunicorn as in the image."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import requests

from local.paths import ROOT
from tests.support import tokens
from tests.support.waiting import until


def free_ports(count: int) -> list[int]:
    """Free TCP ports of 127.0.0.1."""
    with ExitStack() as probes:
        sockets = [probes.enter_context(socket.socket()) for _ in range(count)]
        for probe in sockets:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in sockets]


@dataclass
class Served:
    """A process that serves the API and, on another port, the metrics."""

    process: subprocess.Popen[bytes]
    url: str
    metrics: str
    log: Path

    @classmethod
    def start(
        cls,
        folder: Path,
        variables: Mapping[str, str],
        app: str = "service.wsgi:app",
        *,
        within: tuple[str, ...] = (),
        host: str = "127.0.0.1",
    ) -> Self:
        """Start gunicorn with only these environment variables, and write its log to the folder.

        With `within`, a command that runs it, such as one that enters another network, it is reached at `host`.
        """
        port, metrics = free_ports(2)
        log = folder / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*within, sys.executable, "-m", "gunicorn", "--config", "service/serving/gunicorn.conf.py", app],
                cwd=ROOT,
                env={"PATH": os.environ["PATH"], "PORT": str(port), "METRICS_PORT": str(metrics), **variables},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        return cls(process, f"http://{host}:{port}", f"http://{host}:{metrics}/metrics", log)

    @classmethod
    def over_fakes(cls, folder: Path) -> Self:
        """Start it over fakes (tests/support/waiting_api.py), with one token `t`, and wait until it answers."""
        variables = {
            "TOKENS_FILE": str(tokens.write(folder / "tokens.json", tokens.entry("t"))),
            "HELM": str(ROOT / ".local/bin/helm"),
            "ACCEPTED_EULAS": "minecraft",
            "DRAIN_SECONDS": "3",
            "LOG_LEVEL": "warning",
        }
        served = cls.start(folder, variables, "tests.support.waiting_api:app")
        served.until_alive()
        return served

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def until_alive(self, seconds: float = 60) -> None:
        """Wait until the process answers. Raises AssertionError with its log."""
        until(self._alive, seconds, self.log.read_text, not_yet=(requests.ConnectionError, requests.Timeout))

    def send_signal(self, number: int) -> None:
        """Send a signal to gunicorn and its worker. helm runs in its own session, so it does not get it."""
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """Kill the process, as when its container dies. Does nothing if it has ended."""
        if self.process.poll() is None:
            self.send_signal(signal.SIGKILL)
            self.process.wait()

    def _alive(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        return bool(requests.get(f"{self.url}/healthcheck", timeout=5).json() == {"alive": True})
