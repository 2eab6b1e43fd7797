"""One try to deliver: resolve the host, check every address, connect to a checked one, post, and read the answer.

A receiver is whoever the URL says, and may be hostile. So the whole try has one deadline, which a byte now and then
does not move. What is connected to is the address that was checked, never the name again. No redirect is followed, no
proxy is used, and no more of an answer is read than a part.
"""

from __future__ import annotations

import io
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from ipaddress import ip_address
from typing import Any
from urllib.parse import SplitResult, urlsplit

from service.webhooks.addresses import Address, Reach

SECONDS = 10.0
"""How long a try may take, from the look-up of the name to the last byte of the answer."""
CONNECT_SECONDS = 3.0
"""How long to wait for one address before the next one is tried."""
LARGEST_ANSWER = 64 * 1024
"""How many bytes of an answer are read. The connection is closed then."""
BODY_SECONDS = 2.0
"""How long to read an answer whose status is known."""

Resolve = Callable[[str, int], Sequence[str]]
"""The addresses of a host name, as text; raises OSError if there are none. May take as long as it likes."""


@dataclass(frozen=True)
class Result:
    """What came of a try.

    Attributes:
        outcome: `delivered` (any status of 2xx), `refused` (any other), `timeout`, `unreachable`, `tls`, `unresolved`,
            `forbidden` (an address that no webhook may reach) or `broken` (no HTTP answer).
        status: The status of the answer, or None.
        detail: Why it failed, in plain words; "" if it did not.
        answer: The beginning of the answer's body.
        retry_after: The answer's Retry-After, as sent.
    """

    outcome: str
    status: int | None = None
    detail: str = ""
    answer: str = ""
    retry_after: str | None = None

    @property
    def delivered(self) -> bool:
        return self.outcome == "delivered"


class Failed(Exception):
    """The try failed before there was an answer: an outcome, and why."""

    def __init__(self, outcome: str, detail: str) -> None:
        super().__init__(detail)
        self.outcome, self.detail = outcome, detail


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host name, in the order in which to try them; raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Sender:
    """Makes tries. Thread-safe: tries from many threads do not wait for each other."""

    def __init__(self, reach: Reach, resolve: Resolve = resolve, tls: ssl.SSLContext | None = None) -> None:
        """`tls` is how certificates are checked; None for the machine's certificate authorities."""
        self._reach = reach
        self._resolve = resolve
        self._tls = tls or ssl.create_default_context()

    def send(self, url: str, body: bytes, headers: Mapping[str, str], seconds: float = SECONDS) -> Result:
        """Post `body`; takes at most `seconds`, and raises nothing."""
        deadline = time.monotonic() + seconds
        try:
            parts = urlsplit(url)
            with self._connected(parts, deadline) as connection:
                _send_all(connection, _request(parts, body, headers), deadline)
                return _answer(connection, deadline)
        except Failed as failed:
            return Result(failed.outcome, detail=failed.detail)
        except TimeoutError:
            return Result("timeout", detail=f"There was no answer within {seconds:.0f} seconds.")
        except ssl.SSLError as error:
            return Result("tls", detail=f"TLS failed: {_reason(error)}.")
        except OSError as error:
            return Result("unreachable", detail=f"The connection failed: {error.strerror or type(error).__name__}.")
        except (HTTPException, ValueError):
            return Result("broken", detail="The answer is not valid HTTP.")

    def _connected(self, parts: SplitResult, deadline: float) -> socket.socket:
        host, encrypted = parts.hostname or "", parts.scheme == "https"
        port = parts.port or (443 if encrypted else 80)
        addresses = self._checked(host, port, encrypted, deadline)
        for number, address in enumerate(addresses):
            try:
                connection = _connect(address, port, deadline)
                break
            except OSError:
                if number == len(addresses) - 1 or time.monotonic() >= deadline:
                    raise
        if not encrypted:
            return connection
        try:
            connection.settimeout(_left(deadline))
            # The name of the URL, for the certificate; the connection stays the one to the checked address.
            return self._tls.wrap_socket(connection, server_hostname=host)
        except BaseException:
            connection.close()
            raise

    def _checked(self, host: str, port: int, encrypted: bool, deadline: float) -> list[Address]:
        """The host's addresses, all of which may be reached. Raises Failed and TimeoutError."""
        addresses = [_parsed(text) for text in self._looked_up(host, port, deadline)]
        if not addresses:
            raise Failed("unresolved", "The host name has no address.")
        # One address inside is enough to refuse: whoever answers with it is up to no good, or has made a mistake.
        if not all(self._reach.allows(address) for address in addresses):
            raise Failed("forbidden", "The host name leads to an address that webhooks may not reach.")
        if not encrypted and not all(self._reach.is_listed(address) for address in addresses):
            raise Failed("forbidden", "Only https may be used, except to addresses that the operator lists.")
        return addresses

    def _looked_up(self, host: str, port: int, deadline: float) -> Sequence[str]:
        """The host's addresses. The system's look-up knows no deadline, so it has a thread of its own."""
        answers: queue.SimpleQueue[Sequence[str] | Exception] = queue.SimpleQueue()

        def look_up() -> None:
            try:
                answers.put(self._resolve(host, port))
            except Exception as error:
                answers.put(error)

        threading.Thread(target=look_up, name="look-up of a webhook's host", daemon=True).start()
        try:
            answer = answers.get(timeout=_left(deadline))
        except queue.Empty:
            raise Failed("timeout", "The look-up of the host name took too long.") from None
        if isinstance(answer, Exception):
            raise Failed("unresolved", "The host name cannot be resolved.") from answer
        return answer


def _parsed(text: str) -> Address:
    return ip_address(text)


def _connect(address: Address, port: int, deadline: float) -> socket.socket:
    connection = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_STREAM)
    try:
        connection.settimeout(min(_left(deadline), CONNECT_SECONDS))
        connection.connect((str(address), port))
    except BaseException:
        connection.close()
        raise
    return connection


def _request(parts: SplitResult, body: bytes, headers: Mapping[str, str]) -> bytes:
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    fields = {
        "Host": parts.netloc,
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Connection": "close",
        "Accept-Encoding": "identity",
        "User-Agent": "gameserver-webhooks",
        **headers,
    }
    lines = [f"POST {target} HTTP/1.1", *(f"{name}: {text}" for name, text in fields.items()), "", ""]
    return "\r\n".join(lines).encode("ascii") + body


def _send_all(connection: socket.socket, data: bytes, deadline: float) -> None:
    rest = memoryview(data)
    while rest:
        connection.settimeout(_left(deadline))
        rest = rest[connection.send(rest) :]


def _answer(connection: socket.socket, deadline: float) -> Result:
    stream = _Stream(connection, deadline)
    response = HTTPResponse(stream, method="POST")  # type: ignore[arg-type]
    response.begin()
    while 100 <= response.status < 200 and response.status != HTTPStatus.SWITCHING_PROTOCOLS:
        # Not the answer yet, such as 103 Early Hints (RFC 9110, 15.2). http.client itself skips 100 only.
        response.headers = None  # type: ignore[assignment]
        response.begin()
    stream.deadline = min(deadline, time.monotonic() + BODY_SECONDS)
    try:
        content = response.read(LARGEST_ANSWER)
    except (OSError, HTTPException):
        # The receiver has answered: its status counts, whatever becomes of the rest.
        content = b""
    status = response.status
    outcome = "delivered" if 200 <= status < 300 else "refused"
    detail = "" if outcome == "delivered" else f"The answer was {status}."
    if 300 <= status < 400:
        detail = f"The answer was {status}. Redirects are not followed."
    text = content.decode("utf-8", "replace")
    return Result(outcome, status, detail, text, response.getheader("Retry-After"))


class _Stream(io.RawIOBase):
    """What is received on a socket until `deadline`. It stands in for the socket of an HTTPResponse."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection = connection
        self.deadline = deadline

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._connection.settimeout(_left(self.deadline))
        return self._connection.recv_into(buffer)


def _left(deadline: float) -> float:
    """The seconds until the deadline; raises TimeoutError after it."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


def _reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not accepted ({error.verify_message})"
    return (error.reason or "no reason given").lower().replace("_", " ")
