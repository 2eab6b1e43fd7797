"""A web shop's client of the API, for measurements."""

from __future__ import annotations

import json
import time
from typing import Any

import urllib3


class Shop:
    """A client that keeps its connections. It sends a call again after Retry-After (429, 409, 503)."""

    def __init__(self, url: str, token: str, connections: int) -> None:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        # The same library that the kubernetes client uses. The API closes a connection that was idle for 75 s, perhaps
        # just as the next call is sent; every call may be repeated.
        retries = urllib3.Retry(read=1, connect=0, status=0, redirect=0, other=0, allowed_methods=None)
        self.pool = urllib3.PoolManager(maxsize=connections, retries=retries, headers=headers)
        self.url = f"{url}/api/v1"

    def call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """The answer to a call, which must succeed within two minutes. Raises SystemExit otherwise."""
        deadline = time.monotonic() + 120
        sent = None if body is None else json.dumps(body)
        while True:
            response = self.pool.request(method, f"{self.url}/{path}", body=sent, timeout=90)
            # A DELETE of a missing server is no failure.
            if response.status < 400 or (method == "DELETE" and response.status == 404):
                answer: dict[str, Any] = json.loads(response.data or b"{}")
                return answer
            if "Retry-After" not in response.headers or time.monotonic() > deadline:
                raise SystemExit(f"{method} {path}: {response.status} {response.data.decode()}")
            time.sleep(float(response.headers["Retry-After"]))
