"""Receivers of webhooks on loopback: honest, slow and hostile ones."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def networks(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """The ranges in a list, as the settings have them."""
    return tuple(ip_network(part.strip()) for part in text.split(","))


@dataclass(frozen=True)
class Received:
    """A request as it arrived; `time` is in Unix seconds."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    time: float

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


Answer = Callable[[BaseHTTPRequestHandler], None]
"""Answers a request, whose body was read."""


def status(code: int, body: bytes = b"", **headers: str) -> Answer:
    """Answer with a status; `_` in a header's name stands for `-`."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, text in {"Content_Length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), text)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def hang(handler: BaseHTTPRequestHandler) -> None:
    """Never answer."""
    _until_closed(handler, lambda: None)


def trickle(handler: BaseHTTPRequestHandler) -> None:
    """Answer with headers that never end, a byte every tenth of a second."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
    _until_closed(handler, lambda: handler.wfile.write(b"x"))


def trickle_body(handler: BaseHTTPRequestHandler) -> None:
    """Answer 200 with a body that never ends, a byte every tenth of a second."""
    handler.send_response(200)
    handler.end_headers()
    _until_closed(handler, lambda: handler.wfile.write(b"x"))


def endless(handler: BaseHTTPRequestHandler) -> None:
    """Answer 200 with a body that never ends, as fast as it is read."""
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(b"x" * 65536)


def raw(data: bytes) -> Answer:
    """Answer with these bytes."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(data)

    return answer


def _until_closed(handler: BaseHTTPRequestHandler, act: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not handler.server._ended.wait(0.1):  # type: ignore[attr-defined]
        act()


@dataclass
class Receiver:
    """A receiver: where it is, and what it received.

    Attributes:
        url: Its address, for a webhook.
        answers: What to answer next; the last one stays.
        received: The requests, in the order in which they arrived.
        connections: How many connections were opened.
    """

    url: str = ""
    answers: list[Answer] = field(default_factory=lambda: [status(204)])
    received: list[Received] = field(default_factory=list)
    connections: int = 0

    @property
    def port(self) -> int:
        return int(self.url.split(":")[2].split("/")[0])

    @property
    def ids(self) -> list[str]:
        return [one.id for one in self.received]


class _Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True
    block_on_close = False

    def __init__(self, host: str, port: int, receiver: Receiver, tls: ssl.SSLContext | None) -> None:
        self._receiver, self._tls, self._ended = receiver, tls, threading.Event()
        super().__init__((host, port), _handler(receiver))

    def get_request(self) -> Any:
        connection, address = super().get_request()
        self._receiver.connections += 1
        if self._tls is not None:
            # The handshake is made by the connection's own thread, with the first read.
            connection = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are what these receivers are for."""


def _handler(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with lock:
                receiver.received.append(Received(self.path, dict(self.headers.items()), body, time.time()))
                answer = receiver.answers.pop(0) if len(receiver.answers) > 1 else receiver.answers[0]
            self.close_connection = True
            with suppress(OSError):
                answer(self)

        do_GET = do_POST

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

    return Handler


@contextmanager
def receiving(
    *answers: Answer, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None, name: str = ""
) -> Iterator[Receiver]:
    """A receiver with these answers, 204 without any. `name` is the host in its URL, the address without one."""
    receiver = Receiver()
    if answers:
        receiver.answers = list(answers)
    with _Server(host, port, receiver, tls) as server:
        receiver.url = f"{'https' if tls else 'http'}://{name or host}:{server.server_port}/events?from=here"
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield receiver
        finally:
            server._ended.set()
            server.shutdown()


class Authority:
    """A certificate authority of a test's own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "an authority of a test")])
        self.file = folder / "authority.pem"
        self.file.write_bytes(self._issue(self._name, self._key, [], ca=True).public_bytes(serialization.Encoding.PEM))

    def client(self) -> ssl.SSLContext:
        """TLS that trusts this authority alone."""
        return ssl.create_default_context(cafile=str(self.file))

    def server(self, *names: str, days: int = 1) -> ssl.SSLContext:
        """TLS with a certificate for these names and addresses, which ends in so many days."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        file = self._folder / f"{names[0]}{days}.pem"
        file.write_bytes(
            self._issue(subject, key, list(names), days=days).public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context

    def _issue(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, names: list[str], *, ca: bool = False, days: int = 1
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=10))
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca, None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), False)
        return builder.sign(self._key, hashes.SHA256())


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)
