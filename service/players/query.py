"""Asks a game how many players are on it, by the game's own protocol.

An answer is a stranger's text: the customer may have changed the game. So all of it is bounded, in bytes, in depth and
in time, and what is not a plain count counts as no answer. No answer never counts as 0.
"""

from __future__ import annotations

import json
import re
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

LARGEST_ANSWER = 64 * 1024
LARGEST_COUNT = 1_000_000
DEEPEST = 64
"""How many bytes an answer may have, how many players it may name, and how deep its JSON may be."""
_MOST_DATAGRAMS = 64
_AGAIN_SECONDS = 0.5


class Unknown(Exception):
    """How many players are on the server is unknown; the message says why."""


@dataclass(frozen=True)
class Query:
    """How a game is asked: the protocol, one of PROTOCOLS, and the name of its port."""

    protocol: str
    port: str = "primary"


def players(protocol: str, host: str, port: int, timeout: float) -> int:
    """How many players are on the game at this IP address and port, those who only watch included.

    Args:
        protocol: One of PROTOCOLS.
        host: An IP address.
        port: The port of the game itself.
        timeout: Seconds for all of it.

    Raises:
        Unknown: The game did not say so in time, or not in a way that can be understood.
    """
    try:
        count = PROTOCOLS[protocol].ask(host, port, time.monotonic() + timeout)
    except TimeoutError as error:
        raise Unknown("it did not answer in time") from error
    except OSError as error:
        raise Unknown(f"it cannot be reached: {error.strerror or type(error).__name__}") from error
    if not 0 <= count <= LARGEST_COUNT:
        raise Unknown(f"it says that {str(count)[:20]} players are on it")
    return count


def _left(deadline: float) -> float:
    """The seconds until the deadline; raises TimeoutError after it. A socket would take 0 as "do not wait"."""
    if (seconds := deadline - time.monotonic()) <= 0:
        raise TimeoutError
    return seconds


# -- Minecraft ----------------------------------------------------------------------------------------------
# https://minecraft.wiki/w/Java_Edition_protocol/Server_List_Ping


def _minecraft(host: str, port: int, deadline: float) -> int:
    with socket.create_connection((host, port), timeout=_left(deadline)) as connection:
        name = host.encode()
        # Version -1: a client that only asks. 1: the next packet asks for the status.
        handshake = b"\x00\xff\xff\xff\xff\x0f" + bytes([len(name)]) + name + port.to_bytes(2, "big") + b"\x01"
        connection.sendall(bytes([len(handshake)]) + handshake + b"\x01\x00")

        def read(length: int) -> bytes:
            data = bytearray()
            while len(data) < length:
                connection.settimeout(_left(deadline))
                if not (part := connection.recv(length - len(data))):
                    raise Unknown("it ended its answer early")
                data += part
            return bytes(data)

        length = _varint(read)
        if length > LARGEST_ANSWER:
            raise Unknown("its answer is too long")
        return _minecraft_count(read(length))


def _varint(read: Callable[[int], bytes]) -> int:
    """A number in groups of 7 bits, lowest first. A length has at most 3 of them."""
    number = 0
    for position in range(3):
        byte = read(1)[0]
        number |= (byte & 0x7F) << (7 * position)
        if byte < 0x80:
            return number
    raise Unknown("its answer begins with no length")


def _minecraft_count(packet: bytes) -> int:
    """The count in a status packet: 0, the length of the text, and the text, which is JSON."""
    position = 0

    def read(length: int) -> bytes:
        nonlocal position
        position += length
        if position > len(packet):
            raise Unknown("its answer is too short")
        return packet[position - length : position]

    if _varint(read) != 0:
        raise Unknown("its answer is no status")
    text = read(_varint(read))
    if _depth(text) > DEEPEST:
        raise Unknown("its answer is nested too deeply")
    try:
        status = json.loads(text)
    except ValueError as error:
        raise Unknown("its answer is not JSON") from error
    counts = status.get("players") if isinstance(status, dict) else None
    count = counts.get("online") if isinstance(counts, dict) else None
    if type(count) is not int:
        raise Unknown("its answer has no number of players")
    return count


def _depth(text: bytes) -> int:
    """How deep JSON is nested. A parser that calls itself for each level must not get what is too deep for it."""
    depth = deepest = 0
    for bracket in re.findall(rb'[][{}]|"(?:[^"\\]|\\.)*+"?', text, re.DOTALL):
        if bracket in (b"[", b"{"):
            depth += 1
            deepest = max(deepest, depth)
        elif bracket in (b"]", b"}"):
            depth -= 1
    return deepest


# -- Teeworlds 0.7 ------------------------------------------------------------------------------------------
# https://github.com/teeworlds/teeworlds/blob/master/src/engine/shared/network.h and .../src/mastersrv/mastersrv.h

_CONTROL, _CONNECTIONLESS = b"\x04\x00\x00", b"\x21"
_NO_TOKEN = b"\xff\xff\xff\xff"
_TOKEN = b"\x05"
_ASK_INFO, _INFO = b"\xff\xff\xff\xffgie3", b"\xff\xff\xff\xffinf3"
# The server ignores a shorter request for a token, so that nobody can use it to flood others.
_TOKEN_REQUEST_BYTES = 520


def _teeworlds(host: str, port: int, deadline: float) -> int:
    """Ask for a token and then, with it, for the server's info.

    A datagram from another address never arrives, because the socket is connected. One with a forged address lacks
    what the server was sent: `own`, and in the info also `number`.
    """
    own = secrets.token_bytes(4)
    number = secrets.randbelow(2**31)
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as connection:
        connection.connect((host, port))
        request = _CONTROL + _NO_TOKEN + _TOKEN + own
        start = _CONTROL[:1]
        theirs = _answer(
            connection,
            request.ljust(_TOKEN_REQUEST_BYTES, b"\0"),
            lambda got: got[8:12] if got[:1] == start and got[3:8] == own + _TOKEN and len(got) >= 12 else None,
            deadline,
        )
        start = _CONNECTIONLESS + own
        info = _answer(
            connection,
            _CONNECTIONLESS + theirs + own + _ASK_INFO + _packed(number),
            lambda got: got[9:] if got.startswith(start) and got[9:].startswith(_INFO + _packed(number)) else None,
            deadline,
        )
    return _teeworlds_count(info[len(_INFO + _packed(number)) :])


def _answer(
    connection: socket.socket, request: bytes, accepted: Callable[[bytes], bytes | None], deadline: float
) -> bytes:
    """Send the request, again each half second because UDP loses packets, until an answer is accepted."""
    received = 0
    while True:
        connection.send(request)
        again = min(deadline, time.monotonic() + _AGAIN_SECONDS)
        while time.monotonic() < again:
            connection.settimeout(_left(again))
            try:
                datagram = connection.recv(2048)
            except TimeoutError:
                break
            if (answer := accepted(datagram)) is not None:
                return answer
            received += 1
            if received > _MOST_DATAGRAMS:
                raise Unknown("it sends something else")
        _left(deadline)


def _teeworlds_count(info: bytes) -> int:
    """The count in a server's info: version, name, host name, map and game type; flags, skill level, players,
    places, clients and places for clients. A client that is no player watches, or is joining."""
    *texts, numbers = info.split(b"\0", 5)
    if len(texts) < 5:
        raise Unknown("its answer is too short")
    counts = []
    for _ in range(6):
        count, numbers = _unpacked(numbers)
        counts.append(count)
    return counts[4]


def _packed(number: int) -> bytes:
    """A number that is not negative in Teeworlds' form: 6 bits, then groups of 7 bits, lowest first."""
    groups, rest = [number & 0x3F], number >> 6
    while rest:
        groups.append(rest & 0x7F)
        rest >>= 7
    return bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]])


def _unpacked(data: bytes) -> tuple[int, bytes]:
    """A number in that form, of at most 5 bytes, and what follows it. The bit 0x40 of the first byte is the sign."""
    number = 0
    for position, byte in enumerate(data[:5]):
        number |= byte & 0x3F if position == 0 else (byte & 0x7F) << (7 * position - 1)
        if byte < 0x80:
            return (~number if data[0] & 0x40 else number), data[position + 1 :]
    raise Unknown("its answer is too short")


class Protocol(NamedTuple):
    """A protocol: TCP or UDP, and what counts the players at an address and port until a deadline (monotonic)."""

    transport: str
    ask: Callable[[str, int, float], int]


PROTOCOLS: Mapping[str, Protocol] = MappingProxyType(
    {"minecraft": Protocol("TCP", _minecraft), "teeworlds": Protocol("UDP", _teeworlds)}
)
"""The protocols by the name that a game's `query` has for them."""
