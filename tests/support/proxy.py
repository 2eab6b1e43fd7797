"""A proxy in front of a Kubernetes API server that can hold the n-th request of whoever is pointed at it.

It speaks plain HTTP on loopback and adds the credentials of a kubeconfig, so that helm can be run through it.
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
    """Counts requests; `hold(n)` makes the n-th from then on (counted from 1) wait until `let_go`.

    Watches are passed on, but are not counted: they are no part of a call.
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
        """Hold the `number`-th request, counting only those whose "METHOD path" has `only` in it."""
        with self._lock:
            self._held_number, self._only = number, only
            self.requests = []

    def watched(self, kind: str) -> bool:
        """Whether a watch of that kind was asked for; its answer only comes when it ends."""
        return any(f"/{kind}?" in request for request in self.watches)

    def freeze(self) -> None:
        """From now on nothing is answered."""
        self._frozen = True

    def let_go(self) -> None:
        self._go.set()

    def kubeconfig(self, folder: Path) -> str:
        """A kubeconfig that leads here."""
        return loopback.kubeconfig(folder, self.url)

    @contextmanager
    def running(self) -> Iterator[Proxy]:
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
                # What is still held goes nowhere: whoever sent it is dead, or soon will be.
                self._closed = True
                self._go.set()
                self._client.rest_client.pool_manager.clear()

    def admit(self, request: str) -> bool:
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
        kept = {name: value for name, value in headers.items() if name.lower() not in _HOP}
        if token := self._configuration.get_api_key_with_prefix("BearerToken", alias="authorization"):
            kept["authorization"] = token
        response: urllib3.BaseHTTPResponse = self._client.rest_client.pool_manager.request(
            method, f"{self._configuration.host}{path}", headers=kept, body=body or None, redirect=False, timeout=60
        )
        return response
