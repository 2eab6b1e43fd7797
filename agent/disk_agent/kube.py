"""The few calls to the Kubernetes API that the agent needs, using only the standard library.

https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

JSON = "application/json"
METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class ApiError(Exception):
    """The API server refused a request; `status` is the HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class Kube:
    """A client of the API server, with the pod's service account."""

    def __init__(self, host: str, port: int, account: Path = _ACCOUNT) -> None:
        self._host, self._port = host, port
        self._account = account
        self._tls = ssl.create_default_context(cafile=str(account / "ca.crt"))

    def request(self, method: str, path: str, body: Any = None, content_type: str = JSON, accept: str = JSON) -> Any:
        """Send one request and return the decoded response. Raises ApiError or OSError."""
        connection, response = self._send(method, path, body, content_type, accept, timeout=10)
        with connection:
            return json.loads(response.read())

    def stream(self, path: str, seconds: int) -> Iterator[dict[str, Any]]:
        """Yield a watch's events until the server ends it after `seconds`. Raises ApiError or OSError."""
        connection, response = self._send("GET", path, None, JSON, JSON, timeout=seconds + 15)
        with connection:
            while line := response.readline():
                yield json.loads(line)

    def _send(
        self, method: str, path: str, body: Any, content_type: str, accept: str, timeout: float
    ) -> tuple[_ClosingConnection, http.client.HTTPResponse]:
        connection = _ClosingConnection(self._host, self._port, timeout=timeout, context=self._tls)
        try:
            connection.connect()
            _keep_alive(connection.sock)
            headers = {
                # The kubelet rotates the token, so read it for each request.
                "Authorization": "Bearer " + (self._account / "token").read_text().strip(),
                "Accept": accept,
                "Content-Type": content_type,
            }
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            if response.status >= 400:
                raise ApiError(response.status, response.read(2000).decode(errors="replace"))
        except http.client.HTTPException as error:
            connection.close()
            raise ConnectionError(f"broken answer: {error!r}") from error
        except BaseException:
            connection.close()
            raise
        return connection, response


class _ClosingConnection(http.client.HTTPSConnection):
    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _keep_alive(connection: socket.socket) -> None:
    """Detect an API server that has vanished, although a watch may be silent for minutes."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
