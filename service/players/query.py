"""Asks a game who plays on it, by the game's own protocol.

An answer is a stranger's text: the customer may have changed the game. So all of it is bounded, in bytes, in depth and
in time, and what is not a plain count counts as no answer. No answer never counts as 0. What it says besides the count
(how many may play, and who plays) is left out where it cannot be understood.
"""

from __future__ import annotations

import json
import re
import secrets
import socket
import time
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType
from typing import NamedTuple

LARGEST_ANSWER = 64 * 1024
LARGEST_COUNT = 1_000_000
DEEPEST = 64
"""How many bytes an answer may have, how many players it may count, and how deep its JSON may be."""
MOST_NAMES = 100
LONGEST_NAME = 64
"""How many players are named, and with how many characters."""
_MOST_DATAGRAMS = 64
_AGAIN_SECONDS = 0.5


class Unknown(Exception):
    """How many players are on the server is unknown; the message says why."""


class Crowd(NamedTuple):
    """Who plays on a server, as its game says.

    Attributes:
        online: How many players are on it, those who only watch included.
        max: How many may be on it; None if the game does not say.
        names: Who is on it, without control characters; None if the game does not say. The game may leave some out.
    """

    online: int
    max: int | None = None
    names: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Query:
    """How a game is asked: the protocol, one of PROTOCOLS, and the name of its port."""

    protocol: str
    port: str = "primary"


def crowd(protocol: str, host: str, port: int, timeout: float) -> Crowd:
    """Who plays on the game at this IP address and port.

    Args:
        protocol: One of PROTOCOLS.
        host: An IP address.
        port: The port of the game itself.
        timeout: Seconds for all of it.

    Raises:
        Unknown: The game did not say how many play in time, or not in a way that can be understood.
    """
    try:
        said = PROTOCOLS[protocol].ask(host, port, time.monotonic() + timeout)
    except TimeoutError as error:
        raise Unknown("it did not answer in time") from error
    except OSError as error:
        raise Unknown(f"it cannot be reached: {error.strerror or type(error).__name__}") from error
    if not 0 <= said.online <= LARGEST_COUNT:
        raise Unknown(f"it says that {str(said.online)[:20]} players are on it")
    return said if said.max is None or 0 <= said.max <= LARGEST_COUNT else said._replace(max=None)


def players(protocol: str, host: str, port: int, timeout: float) -> int:
    """How many players are on the game; see `crowd`."""
    return crowd(protocol, host, port, timeout).online


def _cleaned(names: Iterable[str]) -> tuple[str, ...]:
    """The names without what no name needs, such as control characters, and those that change a line's direction."""
    clean = ("".join(each for each in name if unicodedata.category(each)[0] != "C").strip() for name in names)
    return tuple(name[:LONGEST_NAME] for name in islice(filter(None, clean), MOST_NAMES))


def _left(deadline: float) -> float:
    """The seconds until the deadline; raises TimeoutError after it. A socket would take 0 as "do not wait"."""
    if (seconds := deadline - time.monotonic()) <= 0:
        raise TimeoutError
    return seconds


# -- Minecraft ----------------------------------------------------------------------------------------------
# https://minecraft.wiki/w/Java_Edition_protocol/Server_List_Ping


def _minecraft(host: str, port: int, deadline: float) -> Crowd:
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
        return _minecraft_crowd(read(length))


def _varint(read: Callable[[int], bytes]) -> int:
    """A number in groups of 7 bits, lowest first. A length has at most 3 of them."""
    number = 0
    for position in range(3):
        byte = read(1)[0]
        number |= (byte & 0x7F) << (7 * position)
        if byte < 0x80:
            return number
    raise Unknown("its answer begins with no length")


def _minecraft_crowd(packet: bytes) -> Crowd:
    """The players in a status packet: 0, the length of the text, and the text, which is JSON."""
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
        # Of bytes, json would guess the encoding: in another one, they are nested as deeply as they like.
        status = json.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise Unknown("its answer is not JSON") from error
    counts = status.get("players") if isinstance(status, dict) else None
    count = counts.get("online") if isinstance(counts, dict) else None
    if not isinstance(counts, dict) or type(count) is not int:
        raise Unknown("its answer has no number of players")
    most = counts.get("max")
    return Crowd(count, most if type(most) is int else None, _sample(count, counts.get("sample")))


def _sample(count: int, sample: object) -> tuple[str, ...] | None:
    """The names in a status. The game names some of its players; a server may be set to name none."""
    if not isinstance(sample, list) or not sample:
        return None if count else ()
    named = (entry.get("name") for entry in sample if isinstance(entry, dict))
    return _cleaned(name for name in named if isinstance(name, str))


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


def _teeworlds(host: str, port: int, deadline: float) -> Crowd:
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
    return _teeworlds_crowd(info[len(_INFO + _packed(number)) :])


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


def _teeworlds_crowd(info: bytes) -> Crowd:
    """The clients in a server's info: version, name, host name, map and game type; flags, skill level, players,
    places, clients and places for clients; the clients. A client that is no player watches, or is joining."""
    *texts, numbers = info.split(b"\0", 5)
    if len(texts) < 5:
        raise Unknown("its answer is too short")
    counts = []
    for _ in range(6):
        count, numbers = _unpacked(numbers)
        counts.append(count)
    return Crowd(counts[4], counts[5], _clients(counts[4], numbers))


def _clients(count: int, data: bytes) -> tuple[str, ...] | None:
    """The names of the clients: each has name and clan, country, score, and whether it watches."""
    names = []
    try:
        for _ in range(min(count, MOST_NAMES)):
            name, _clan, data = data.split(b"\0", 2)
            names.append(name.decode(errors="replace"))
            for _ in range(3):
                _number, data = _unpacked(data)
    except (ValueError, Unknown):
        return None
    return _cleaned(names)


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
    """A protocol: TCP or UDP, and what asks the game at an address and port until a deadline (monotonic)."""

    transport: str
    ask: Callable[[str, int, float], Crowd]


PROTOCOLS: Mapping[str, Protocol] = MappingProxyType(
    {"minecraft": Protocol("TCP", _minecraft), "teeworlds": Protocol("UDP", _teeworlds)}
)
"""The protocols by the name that a game's `query` has for them."""
