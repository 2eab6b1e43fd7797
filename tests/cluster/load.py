"""More requests than the API can handle, and the helm processes that they cause."""

import http.client
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tests.cluster.conftest import Cluster


@dataclass(frozen=True)
class Answer:
    """The response to a request, and how many seconds it took."""

    status: int
    seconds: float
    retry_after: str | None


class Load:
    """Resizes stopped servers, `rate` times a second. No request waits for the answer to another.

    `failures` has a line for each answer that is not a success, 409 or 429.
    """

    def __init__(self, cluster: Cluster, servers: Sequence[int], rate: float) -> None:
        self.answers: list[Answer] = []
        self.failures: list[str] = []
        self._url, self._token = urlsplit(cluster.api_url), cluster.api_token
        self._servers, self._rate = servers, rate
        self._stop = threading.Event()
        self._sender = threading.Thread(target=self._send_all)

    def __enter__(self) -> "Load":
        self._sender.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._sender.join()

    def _send_all(self) -> None:
        began, sent, threads = time.monotonic(), 0, []
        while not self._stop.wait(max(0.0, began + sent / self._rate - time.monotonic())):
            # Never the size that the server already has, so that each accepted call runs helm.
            change = (self._servers[sent % len(self._servers)], 1 + sent % 64)
            threads.append(threading.Thread(target=self._send, args=change))
            threads[-1].start()
            sent += 1
        for thread in threads:
            thread.join()

    def _send(self, server: int, ram_gb: int) -> None:
        began = time.monotonic()
        connection = http.client.HTTPConnection(self._url.hostname or "", self._url.port, timeout=90)
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        try:
            connection.request("PATCH", f"/api/v1/server/{server}/", json.dumps({"ram_gb": ram_gb}), headers)
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.failures.append(f"after {time.monotonic() - began:.1f} s: {error!r}")
            return
        finally:
            connection.close()
        seconds = time.monotonic() - began
        if answer.status not in (200, 409, 429):
            self.failures.append(f"after {seconds:.1f} s: {answer.status} {text[:200]!r}")
        self.answers.append(Answer(answer.status, seconds, answer.headers["Retry-After"]))


@contextmanager
def repeated(work: Callable[[], None], seconds: float) -> Iterator[None]:
    """Call `work` every `seconds` seconds while the `with` lasts."""
    stop = threading.Event()

    def repeat() -> None:
        while not stop.wait(seconds):
            work()

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def helms() -> Counter[str]:
    """How many helm processes each pod runs, by the pod's uid. The machine sees all processes of its nodes."""
    counts: Counter[str] = Counter()
    for name in Path("/proc").glob("[0-9]*/comm"):
        try:
            groups = name.with_name("cgroup").read_text() if name.read_text() == "helm\n" else ""
        except OSError:  # The process has ended.
            continue
        if pod := re.search(r"/pod([0-9a-f-]{36})/", groups):
            counts[pod[1]] += 1
    return counts
