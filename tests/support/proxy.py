"""A proxy in front of a Kubernetes API server that can hold the n-th request of its clients.

It serves plain HTTP on loopback and adds the credentials of a kubeconfig, so that helm can use it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import urllib3
from kubernetes import client, config

from tests.support import loopback

_HOP = {"connection", "transfer-encoding", "content-length", "host", "keep-alive", "accept-encoding"}


class Proxy:
    """Counts requests. After `hold(n)` the n-th request, counted from 1, waits until `let_go`.

    Watches are forwarded but not counted, because they are not part of a call.
    """

    def __init__(self, kubeconfig: str) -> None:
        configuration = client.Configuration()
        # The client has no type for this function.
        config.load_kube_config(kubeconfig, client_configuration=configuration)  # type: ignore[no-untyped-call]
        self._client = client.ApiClient(configuration)
        self._configuration = configuration
        self._lock = threading.Lock()
        self._held_number = 0
        self._only = ""
        self._frozen = self._closed = False
        self.requests: list[str] = []
        self.watches: list[str] = []
        self.holding = threading.Event()
        self._go = threading.Event()
        self.url = ""

    def hold(self, number: int, only: str = "") -> None:
        """Hold the `number`-th request whose "METHOD path" contains `only`."""
        with self._lock:
            self._held_number, self._only = number, only
            self.requests = []

    def watched(self, kind: str) -> bool:
        """Whether a watch of that kind was requested. Its response ends only with the watch."""
        return any(f"/{kind}?" in request for request in self.watches)

    def freeze(self) -> None:
        """From now on answer nothing."""
        self._frozen = True

    def let_go(self) -> None:
        """Forward the request that is held."""
        self._go.set()

    def kubeconfig(self, folder: Path) -> str:
        """Write a kubeconfig for this proxy and return its path."""
        return loopback.kubeconfig(folder, self.url)

    @contextmanager
    def running(self) -> Iterator[Proxy]:
        """Serve while the `with` lasts."""
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except (OSError, urllib3.exceptions.HTTPError):
                    self.close_connection = True

            def _any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if not proxy.admit(f"{self.command} {self.path}"):
                    self.close_connection = True
                    return
                response = proxy.forward(self.command, self.path, dict(self.headers), body)
                self.send_response(response.status)
                for name, value in response.headers.items():
                    if name.lower() not in _HOP:
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(response.data)))
                self.end_headers()
                self.wfile.write(response.data)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _any

            def log_message(self, format: str, *args: Any) -> None:
                pass

        with loopback.serving(Handler) as self.url:
            try:
                yield self
            finally:
                # A request that is still held is dropped, because its client is dead or will be soon.
                self._closed = True
                self._go.set()
                self._client.rest_client.pool_manager.clear()

    def admit(self, request: str) -> bool:
        """Count a request, and hold it if its turn has come. Returns whether to forward it."""
        if "watch=1" in request:
            self.watches.append(request)
            return not self._frozen
        with self._lock:
            counted = self._only in request
            if counted:
                self.requests.append(request)
            number = len(self.requests) if counted else -1
        if number == self._held_number or self._frozen:
            self.holding.set()
            self._go.wait(60)
            return not self._closed
        return True

    def forward(self, method: str, path: str, headers: dict[str, str], body: bytes) -> urllib3.BaseHTTPResponse:
        """Send a request to the API server, and return its response."""
        kept = {name: value for name, value in headers.items() if name.lower() not in _HOP}
        if token := self._configuration.get_api_key_with_prefix("BearerToken", alias="authorization"):
            kept["authorization"] = token
        response: urllib3.BaseHTTPResponse = self._client.rest_client.pool_manager.request(
            method, f"{self._configuration.host}{path}", headers=kept, body=body or None, redirect=False, timeout=60
        )
        return response
