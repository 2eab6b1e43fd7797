"""Clients that keep calling the API while a test disturbs it, and record every failure.

They send a call again only if the API asks for it (409 and 429 with `Retry-After`, see docs/api.md). A connection
error is a failure, and so is every unexpected answer.
"""

import http.client
import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from urllib.parse import urlsplit

from local.paths import ROOT
from tests.cluster.conftest import Cluster
from tests.cluster.replicas import NAMESPACE

#: A node port answers on every node.
NODES = ("10.77.0.2", "10.77.0.3")


class Caller:
    """One thread's client. It keeps one connection for as long as that works, or makes a new one for each request.

    It adds a line to `failures` for each failure, and counts the statuses in `answers`.
    """

    def __init__(self, cluster: Cluster, host: str, keep: bool, failures: list[str], answers: Counter[int]) -> None:
        self._port = urlsplit(cluster.api_url).port
        self._host = host
        self._keep = keep
        self._headers = {"Authorization": f"Bearer {cluster.api_token}", "Content-Type": "application/json"}
        self._failures = failures
        self._answers = answers
        self._connection = self._new()

    def call(self, method: str, path: str, body: object = None, status: int = 200) -> None:
        """Send one request, again only if the API asks for that."""
        until = time.monotonic() + 60
        while True:
            began = time.time()
            try:
                answered, headers, text = self._once(method, path, body)
            except (OSError, http.client.HTTPException) as error:
                self._note(began, method, path, repr(error))
                self._connection.close()
                self._connection = self._new()
                return
            self._answers[answered] += 1
            if answered not in (409, 429) or "Retry-After" not in headers or time.monotonic() > until:
                if answered != status:
                    self._note(began, method, path, f"{answered} {text[:300]!r}")
                return
            time.sleep(int(headers["Retry-After"]))

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _once(self, method: str, path: str, body: object) -> tuple[int, http.client.HTTPMessage, bytes]:
        self._connection.request(method, path, None if body is None else json.dumps(body), self._headers)
        answer = self._connection.getresponse()
        text = answer.read()
        if not self._keep:
            self._connection.close()
        return answer.status, answer.headers, text

    def _new(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._host, self._port, timeout=40)

    def _note(self, began: float, method: str, path: str, what: str) -> None:
        clock = time.strftime("%H:%M:%S", time.gmtime(began))
        kind = "kept" if self._keep else "new"
        took = time.time() - began
        self._failures.append(f"{clock} {method} {self._host}{path} ({kind} connection), after {took:.1f} s: {what}")


class Traffic:
    """Eight threads that read and write through both nodes, over kept and new connections, while the `with` lasts.

    Each thread waits for `pause` seconds between two requests. At the end, any failure raises AssertionError.
    """

    def __init__(self, cluster: Cluster, new_server: Callable[[], int], pause: float = 0.05) -> None:
        self.failures: list[str] = []
        self.answers: Counter[int] = Counter()
        self._new_server = new_server
        self._pause = pause
        self._stop = threading.Event()
        self._ways = [
            (does, Caller(cluster, host, keep, self.failures, self.answers))
            for does in (self._read, self._write)
            for host, keep in itertools.product(NODES, (True, False))
        ]
        self._threads = [threading.Thread(target=does, args=(caller,)) for does, caller in self._ways]

    def __enter__(self) -> "Traffic":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        for _, caller in self._ways:
            caller.close()
        print(f"{self.answers.total()} answers: {dict(self.answers)}")
        if error is None:
            self._check()

    def _check(self) -> None:
        assert not self.failures, f"{len(self.failures)} of {self.answers.total()}:\n" + "\n".join(self.failures[:20])
        # A client that did nothing would see no failure either.
        assert self.answers[201] >= 4, self.answers
        assert self.answers[200] >= 50, self.answers

    def _read(self, caller: Caller) -> None:
        for path in itertools.cycle(("/healthcheck", "/api/v1/server/?limit=10", "/api/v1/disk/")):
            if self._stop.wait(self._pause):
                return
            caller.call("GET", path)

    def _write(self, caller: Caller) -> None:
        size = {"ram_gb": 1, "disk_gb": 1}
        while True:
            path = f"/api/v1/server/{self._new_server()}"
            for method, sub, body, status in (
                ("POST", "/", {**size, "game": "teeworlds", "start": False}, 201),
                ("PATCH", "/port/primary", None, 200),
                ("PATCH", "/start", None, 200),
                ("GET", "/", None, 200),
                ("PATCH", "/stop", None, 200),
                ("PATCH", "/", {"ram_gb": 2}, 200),
                ("DELETE", "/?disk=erase", None, 200),
            ):
                if self._stop.wait(self._pause):
                    return
                caller.call(method, f"{path}{sub}", body, status)


def upgrade(cluster: Cluster, *arguments: str) -> None:
    """Upgrade the API with helm, as an operator does, and wait until the new replicas are ready."""
    chart = str(ROOT / "charts" / "api")
    command = ["helm", "-n", NAMESPACE, "upgrade", "api", chart, "--reuse-values", "--wait", "--timeout=4m"]
    cluster.run(*command, *arguments)
