"""A replica of the API as its own process, as in a container: gunicorn, the application, its real interfaces.

`serving` starts one that a test can call. `replica` starts one behind a proxy that holds the n-th request of a call,
so that a test can kill, freeze or end the replica at that point.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from service.settings import Settings
from tests.support import gunicorn, tokens
from tests.support.proxy import Proxy
from tests.support.waiting import until

_WATCHED = ("statefulsets", "pods", "services", "persistentvolumeclaims", "secrets")


@dataclass(frozen=True)
class Call:
    """A call of the API about one server; `path` follows the server's id."""

    method: str
    path: str = "/"
    body: Any = None


CREATE = Call("POST", body={"ram_gb": 1, "disk_gb": 1})


@dataclass
class Served(gunicorn.Served):
    """A process that serves the API, with a client."""

    def call(self, call: Call, id: int) -> requests.Response:
        """Send a call once, on a new connection."""
        return requests.request(
            call.method,
            f"{self.url}/api/v1/server/{id}{call.path}",
            json=call.body,
            headers={"Authorization": "Bearer test"},
            timeout=90,
        )

    def answer(self, call: Call, id: int, seconds: float = 30) -> requests.Response:
        """Send a call, again while the API answers with Retry-After, for up to `seconds`."""
        deadline = time.monotonic() + seconds
        while True:
            answer = self.call(call, id)
            wait = int(answer.headers.get("Retry-After", 0))
            if not wait or time.monotonic() + wait > deadline:
                return answer
            time.sleep(wait)


@dataclass
class Replica(Served):
    """A replica in the middle of a call: the proxy holds one of its requests. `answered` is the future response."""

    proxy: Proxy
    answered: Future[requests.Response]


@contextmanager
def serving(settings: Settings, kubeconfig: str, folder: Path, name: str) -> Iterator[Served]:
    """The API for the namespace of `settings`. No node takes its servers' pods, because games would take time.

    Its SFTP accounts are Secrets of the same namespace, so that a delete makes as many requests as in production.
    """
    (folder / "server-values.yaml").write_text("all: {nodeSelector: {no-such-node: here}}\n")
    environment = {
        "METRICS_PORT": "0",
        "POD_NAME": name,
        "KUBECONFIG": kubeconfig,
        "HELM": settings.helm,
        "HELM_DAEMON": settings.helm_daemon,
        "SERVERS_NAMESPACE": settings.servers_namespace,
        "SFTP_NAMESPACE": settings.servers_namespace,
        "TOKENS_FILE": str(tokens.write(folder / "tokens.json", tokens.entry("test"))),
        "SERVER_VALUES_FILE": str(folder / "server-values.yaml"),
        "ACCEPTED_EULAS": "minecraft",
        "DRAIN_SECONDS": "2",
    }
    served = Served.start(folder, environment)
    try:
        served.until_alive()
        if settings.helm_daemon:
            until(lambda: "helm-daemon runs" in served.log.read_text(), 30)
        yield served
    finally:
        served.kill()


@contextmanager
def replica(
    settings: Settings, kubeconfig: str, folder: Path, call: Call, id: int, hold: str, number: int = 1
) -> Iterator[Replica]:
    """A replica in the middle of `call`: the proxy holds the `number`-th request that contains `hold`, if any."""
    proxy = Proxy(kubeconfig)
    with proxy.running(), serving(settings, proxy.kubeconfig(folder), folder, "replica") as served:
        until(lambda: all(proxy.watched(kind) for kind in _WATCHED))
        proxy.hold(number, hold)
        with ThreadPoolExecutor(1) as sender:
            answered = sender.submit(served.call, call, id)
            until(lambda: proxy.holding.is_set() or answered.done(), 60)
            try:
                yield Replica(served.process, served.url, served.metrics, served.log, proxy, answered)
            finally:
                served.kill()


def helms(id: int) -> list[int]:
    """The pids of the helm processes that work on a server."""
    return [pid for pid, words in _processes() if f"server-{id}" in words and any(map(_HELM.fullmatch, words))]


def daemons(replica: int) -> list[int]:
    """The pids of the helm-daemons of a replica, of which only the workers' parent is known."""
    workers = {pid for pid, _ in _processes() if _parent(pid) == replica}
    return [pid for pid, words in _processes() if "helm-daemon" in words[0] and _parent(pid) in workers]


_HELM = re.compile(r"(.*/)?helm")


def _processes() -> Iterator[tuple[int, list[str]]]:
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            yield int(folder.name), (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")


def _parent(pid: int) -> int:
    """The parent of a process; 0 if it has ended."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0
