"""A client is connected to a container's standard input; each refusal and silence is an error, and each end an end."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from service.errors import ClusterUnavailable
from service.kube.attach import HandshakeRefused
from service.kube.client import Kube
from tests.support import loopback

PATH = "/api/v1/namespaces/games/pods/server-1-0/attach"
LONG = 30.0
TEXT, BINARY, CLOSE, PING = 1, 2, 8, 9


def frame(kind: int, data: bytes) -> bytes:
    """A frame of a WebSocket server: https://www.rfc-editor.org/rfc/rfc6455#section-5.2."""
    length = bytes([len(data)]) if len(data) < 126 else b"\x7e" + struct.pack(">H", len(data))
    return bytes([0x80 | kind]) + length + data


class Container:
    """What is at the other end.

    Attributes:
        requests: The path and the headers of each request.
        got: What came on standard input.
        refuses: The status of a refusal, 0 for none.
        sends: What it sends once it is connected; it may take its time.
        gone: Set when the client has ended the connection.
    """

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.got: list[bytes] = []
        self.refuses = 0
        self.sends: Callable[[], Iterator[bytes]] = lambda: iter(())
        self.gone = threading.Event()

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer a request."""
        self.requests.append((handler.path, dict(handler.headers)))
        if self.refuses:
            handler.send_error(self.refuses)
            return
        key = handler.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        handler.send_response(101)
        handler.send_header("Upgrade", "websocket")
        handler.send_header("Connection", "Upgrade")
        handler.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
        handler.send_header("Sec-WebSocket-Protocol", "v5.channel.k8s.io")
        handler.end_headers()
        handler.close_connection = True

        def write() -> None:
            for data in self.sends():
                handler.wfile.write(data)

        threading.Thread(target=write, daemon=True).start()
        while head := handler.rfile.read(2):
            length = head[1] & 0x7F
            if length == 126:
                (length,) = struct.unpack(">H", handler.rfile.read(2))
            mask, data = handler.rfile.read(4), handler.rfile.read(length)
            if head[0] & 0x0F == BINARY:
                self.got.append(bytes(byte ^ mask[n % 4] for n, byte in enumerate(data)))
        self.gone.set()


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Container]:
    container = Container()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            try:
                container.serve(self)
            except OSError:
                container.gone.set()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with loopback.serving(Handler) as url:
        config = json.loads(Path(loopback.kubeconfig(tmp_path, url)).read_text())
        config["users"][0]["user"] = {"token": "a-token"}
        (tmp_path / "config").write_text(json.dumps(config))
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
        yield container


def test_a_line_reaches_standard_input_and_what_is_written_comes_back(container: Container) -> None:
    """From both outputs. A ping in between is no output, and neither is the empty message of each channel."""
    container.sends = lambda: iter(
        [
            frame(BINARY, b"\1"),
            frame(BINARY, b"\2"),
            frame(PING, b"x"),
            frame(BINARY, b"\1out"),
            frame(BINARY, b"\2err"),
        ]
    )
    with Kube().attached(PATH, LONG, stdin="true") as attachment:
        attachment.send(b"say hi\n", LONG)
        assert [attachment.receive(LONG), attachment.receive(LONG)] == [b"out", b"err"]
    assert container.gone.wait(LONG)
    assert b"\0say hi\n" in container.got
    [(path, headers)] = container.requests
    assert path == PATH + "?stdin=true"
    assert headers["Authorization"] == "Bearer a-token"
    assert headers["Sec-WebSocket-Protocol"] == "v5.channel.k8s.io,v4.channel.k8s.io"
    assert "Origin" not in headers


@pytest.mark.parametrize("end", [frame(CLOSE, struct.pack(">H", 1000)), frame(BINARY, b'\3{"status": "Success"}')])
def test_the_end_of_the_container_is_the_end(container: Container, end: bytes) -> None:
    container.sends = lambda: iter([frame(BINARY, b"\1bye"), end])
    with Kube().attached(PATH, LONG) as attachment:
        assert [attachment.receive(LONG), attachment.receive(LONG)] == [b"bye", b""]


def test_silence_is_no_end(container: Container) -> None:
    """What comes later is there at the next read."""
    go = threading.Event()

    def sends() -> Iterator[bytes]:
        go.wait(LONG)
        yield frame(BINARY, b"\1late")

    container.sends = sends
    with Kube().attached(PATH, LONG) as attachment:
        with pytest.raises(TimeoutError):
            attachment.receive(0.1)
        go.set()
        assert attachment.receive(LONG) == b"late"


@pytest.mark.parametrize(
    ("status", "error"), [(403, ClusterUnavailable), (429, ClusterUnavailable), (404, OSError), (500, OSError)]
)
def test_a_refusal_is_an_error(container: Container, status: int, error: type[Exception]) -> None:
    """A right that is missing is the operator's to grant; a container that is not there is the game's."""
    container.refuses = status
    with pytest.raises(error) as raised, Kube().attached(PATH, LONG):
        pass
    if error is OSError:
        assert isinstance(raised.value, HandshakeRefused)
        assert raised.value.strerror == f"Kubernetes answered {status}"


def test_a_server_that_does_not_connect_is_given_up(container: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "serve", lambda handler: time.sleep(1))
    with pytest.raises(TimeoutError), Kube().attached(PATH, 0.2):
        pass


def test_a_connection_that_breaks_is_an_error(container: Container) -> None:
    """So nobody takes it for silence."""

    def breaks(handler: BaseHTTPRequestHandler) -> None:
        # It reads nothing, so it ends at once.
        handler.rfile = BytesIO()
        serve(handler)

    serve, container.serve = container.serve, breaks  # type: ignore[method-assign]
    with Kube().attached(PATH, LONG) as attachment, pytest.raises(ConnectionError):
        attachment.receive(LONG)
