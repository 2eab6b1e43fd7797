"""Ping Luanti and Teeworlds servers over UDP, in their own protocols.

Luanti: https://github.com/luanti-org/luanti/blob/master/src/network/mtp/internal.h.
Teeworlds 0.7: https://github.com/teeworlds/teeworlds/blob/master/src/engine/shared/network.h.
"""

import json
import secrets
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TypeVar

_LUANTI = b"\x4f\x45\x74\x03"
#: Luanti's first answer up to the peer's new number: protocol, the server's own peer number (1), channel;
#: reliable (3) with its sequence number; control (0), "your number is" (1).
_NEW_PEER = _LUANTI + b"\x00\x01\x00\x03\xff\xdc\x00\x01"

_CONTROL, _CONNECTIONLESS = 0x04, 0x21
_TOKEN, _NO_TOKEN = b"\x05", b"\xff\xff\xff\xff"

_Answer = TypeVar("_Answer")


class NoAnswer(Exception):
    """No server answers in the game's protocol."""


@dataclass(frozen=True)
class Teeworlds:
    """A Teeworlds server's answer: version, name, map, game type, and how many play and may play."""

    version: str
    name: str
    map: str
    game_type: str
    players: int
    max_players: int


def luanti(host: str, port: int, timeout: float = 5) -> int:
    """Become a peer of a Luanti server, leave again, and return the number that the server gave.

    Raises:
        NoAnswer: no answer within `timeout` seconds.
    """

    def ask(connection: socket.socket) -> int:
        connection.send(_LUANTI + b"\x00\x00\x00\x01")
        answer = connection.recv(1500)
        if len(answer) != 14 or answer[:12] != _NEW_PEER:
            raise NoAnswer(f"{host}:{port} answered {answer[:32].hex()}, which is no Luanti")
        connection.send(_LUANTI + answer[12:14] + b"\x00\x00\x03")
        return int.from_bytes(answer[12:14])

    return _asked(host, port, timeout, ask)


def teeworlds(host: str, port: int, timeout: float = 5) -> Teeworlds:
    """The answer of a Teeworlds 0.7 server to a server browser.

    Raises:
        NoAnswer: no answer within `timeout` seconds.
    """

    def ask(connection: socket.socket) -> Teeworlds:
        own = secrets.token_bytes(4)
        request = bytes([_CONTROL, 0, 0]) + _NO_TOKEN + _TOKEN + own
        # The server ignores shorter requests, so that it cannot be used to flood others.
        connection.send(request.ljust(7 + 1 + 512, b"\0"))
        answer = connection.recv(1500)
        if answer[:8] != bytes([_CONTROL, 0, 0]) + own + _TOKEN:
            raise NoAnswer(f"{host}:{port} answered {answer[:32].hex()}, which is no Teeworlds 0.7")
        header = bytes([_CONNECTIONLESS])
        connection.send(header + answer[8:12] + own + b"\xff\xff\xff\xffgie3\x00")
        answer = connection.recv(1500)
        start = header + own
        if not answer.startswith(start) or answer[9:17] != b"\xff\xff\xff\xffinf3":
            raise NoAnswer(f"{host}:{port} answered {answer[:32].hex()} to a request for its info")
        # The request's own number, five strings, then numbers: flags, skill, players, maximum of players, …
        version, name, _host_name, map_, game_type, rest = answer[18:].split(b"\0", 5)
        players, places = _numbers(rest, 4)[2:4]
        return Teeworlds(version.decode(), name.decode(), map_.decode(), game_type.decode(), players, places)

    return _asked(host, port, timeout, ask)


def _numbers(data: bytes, count: int) -> list[int]:
    """Teeworlds' integers of 1 to 5 bytes: a continuation bit, a sign bit, 6 bits; then 7 a byte."""
    numbers = []
    position = 0
    for _ in range(count):
        byte = data[position]
        position += 1
        negative, number, shift = byte & 0x40, byte & 0x3F, 6
        while byte & 0x80:
            byte = data[position]
            position += 1
            number |= (byte & 0x7F) << shift
            shift += 7
        numbers.append(~number if negative else number)
    return numbers


def _asked(host: str, port: int, timeout: float, ask: Callable[[socket.socket], _Answer]) -> _Answer:
    """Ask every second until an answer comes, because UDP loses packets, and a refusal may be temporary."""
    deadline = time.monotonic() + timeout
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:
            connection.settimeout(min(1.0, timeout))
            connection.connect((host, port))
            try:
                return ask(connection)
            except OSError as error:
                if time.monotonic() > deadline:
                    raise NoAnswer(f"{host}:{port}: {error}") from error
        time.sleep(0.2)


if __name__ == "__main__":
    game, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if game == "luanti":
        print(json.dumps({"peer": luanti(host, port)}))
    else:
        print(json.dumps(asdict(teeworlds(host, port))))
