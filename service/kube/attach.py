"""Connects to the main process of a container: its standard input, and what it writes from then on.

Each message over the WebSocket begins with the number of its channel:
https://github.com/kubernetes/kubernetes/blob/v1.35.4/staging/src/k8s.io/apimachinery/pkg/util/remotecommand/constants.go.
Whoever is connected and does not read what a container writes makes the container wait: an attachment is for moments.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import websocket

_PROTOCOLS = ["v5.channel.k8s.io", "v4.channel.k8s.io"]
_STDIN, _STDOUT, _STDERR, _ERROR = range(4)


class HandshakeRefused(OSError):
    """The server does not connect this client, with its status and what it says."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"Kubernetes answered {status}")
        self.strerror = f"Kubernetes answered {status}"
        self.status, self.body = status, body


class Attachment:
    """An open connection. Its methods raise TimeoutError, or another OSError if it broke. Not thread-safe."""

    def __init__(self, connection: websocket.WebSocket) -> None:
        self._connection = connection

    def send(self, data: bytes, seconds: float) -> None:
        """Write to the standard input."""
        with _as_os_errors():
            self._connection.settimeout(seconds)
            self._connection.send_bytes(bytes([_STDIN]) + data)

    def receive(self, seconds: float) -> bytes:
        """What the container writes next; empty once it has ended."""
        deadline = time.monotonic() + seconds
        while (seconds := deadline - time.monotonic()) > 0:
            with _as_os_errors():
                self._connection.settimeout(seconds)
                operation, message = self._connection.recv_data()
            if operation == websocket.ABNF.OPCODE_CLOSE or message[:1] == bytes([_ERROR]):
                return b""
            if message[:1] in (bytes([_STDOUT]), bytes([_STDERR])) and len(message) > 1:
                return bytes(message[1:])
        raise TimeoutError


@contextmanager
def attached(connection: socket.socket, url: str, headers: dict[str, str], seconds: float) -> Iterator[Attachment]:
    """An attachment.

    Args:
        connection: A connection to the server, which ends with the attachment.
        url: Where, with its query.
        headers: Headers of the request.
        seconds: How long the server may take to connect.

    Raises:
        HandshakeRefused: The server does not connect this client.
        OSError: The connection broke, or TimeoutError.
    """
    connection.settimeout(seconds)
    client = websocket.WebSocket()
    with _as_os_errors():
        client.connect(  # type: ignore[no-untyped-call]
            url, socket=connection, header=headers, subprotocols=_PROTOCOLS, suppress_origin=True, redirect_limit=0
        )
    try:
        yield Attachment(client)
    finally:
        # A second is enough for a few bytes; whoever does not take them is left.
        with suppress(OSError), _as_os_errors():
            client.settimeout(1)
            client.send_close()
        client.shutdown()  # type: ignore[no-untyped-call]


@contextmanager
def _as_os_errors() -> Iterator[None]:
    try:
        yield
    except websocket.WebSocketBadStatusException as error:
        raise HandshakeRefused(error.status_code, error.resp_body or b"") from error
    except websocket.WebSocketTimeoutException as error:
        raise TimeoutError from error
    except websocket.WebSocketException as error:
        raise ConnectionError(str(error)) from error
