"""A game's players are counted by its own protocol, and a hostile answer is no count."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.players import query
from service.players.query import Crowd, Unknown, crowd, players

HERE = "127.0.0.1"


def varint(number: int) -> bytes:
    """As Minecraft writes it."""
    groups = []
    while True:
        number, low = number >> 7, number & 0x7F
        groups.append(low | (0x80 if number else 0))
        if not number:
            return bytes(groups)


def status(text: str | bytes) -> bytes:
    """A status answer with this text."""
    data = text.encode() if isinstance(text, str) else text
    packet = b"\0" + varint(len(data)) + data
    return varint(len(packet)) + packet


def of(online: object, **more: object) -> bytes:
    """A status answer with this number of players."""
    return status(json.dumps({"version": {"name": "1.21.4"}, "players": {"max": 20, "online": online}, **more}))


@contextmanager
def minecraft(*parts: bytes, pause: float = 0.0) -> Iterator[tuple[int, list[bytes]]]:
    """A server that answers its first client with the parts, each after a pause; yields its port and what it got."""
    got: list[bytes] = []

    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            got.append(connection.recv(1024))
            try:
                for part in parts:
                    time.sleep(pause)
                    connection.sendall(part)
            except OSError:
                pass  # The client had enough.

    with socket.create_server((HERE, 0)) as server:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1], got
        thread.join(10)


def test_minecraft_says_how_many_players_are_on_it() -> None:
    """It is asked as a client asks that shows its list of servers: with a handshake, then the status request."""
    with minecraft(of(3)) as (port, got):
        assert players("minecraft", HERE, port, 2) == 3
    handshake = b"\0\xff\xff\xff\xff\x0f\x09127.0.0.1" + port.to_bytes(2, "big") + b"\x01"
    assert got == [bytes([len(handshake)]) + handshake + b"\x01\0"]


def test_an_answer_may_come_in_pieces() -> None:
    """TCP keeps no borders: even a length may be cut."""
    answer = of(7, description="é" * 200)
    with minecraft(answer[:1], answer[1:2], answer[2:50], answer[50:], pause=0.02) as (port, _):
        assert players("minecraft", HERE, port, 2) == 7


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"", "ended its answer early"),
        (b"\x80", "ended its answer early"),
        (of(0)[:-1], "ended its answer early"),
        (b"\x80\x80\x80\x80\x01", "begins with no length"),
        (varint(65_537), "too long"),
        (b"\0", "too short"),
        (b"\x01\0", "too short"),
        (b"\x02\x01\0", "no status"),
        (b"\x03\0\x7f{", "too short"),
        (status("HTTP/1.1 200 OK"), "not JSON"),
        (status(b"\xff\xfe"), "not JSON"),
        (status('{"players": {"online": ' + "9" * 5000 + "}}"), "not JSON"),
        (status("[" * 20_000 + "]" * 20_000), "nested too deeply"),
        (status(('["\u2200", ' + "[" * 20_000).encode("utf-16-le")), "not JSON"),
        (status(('["\u2200", ' + "[" * 10_000).encode("utf-32-be")), "not JSON"),
        (status('{"a": "\\"]]]]", "b": ' + "[" * 65 + "]" * 65 + "}"), "nested too deeply"),
        (status('{"players": {"online": "' + "[" * 100), "not JSON"),
        (status("[]"), "no number of players"),
        (status("{}"), "no number of players"),
        (status('{"players": null}'), "no number of players"),
        (status('{"players": [0]}'), "no number of players"),
        (of("0"), "no number of players"),
        (of(0.0), "no number of players"),
        (of(False), "no number of players"),
        (of(None), "no number of players"),
        (of(-1), "says that -1 players"),
        (of(1_000_001), "says that 1000001 players"),
        (status('{"players": {"online": ' + "9" * 4000 + "}}"), "says that 99999999999999999999 players"),
        (status('{"players": {"online": NaN}}'), "no number of players"),
    ],
)
def test_what_is_no_plain_count_is_unknown(answer: bytes, why: str) -> None:
    """Never 0, and never another exception.

    As bytes of UTF-8, the two answers in UTF-16 and UTF-32 are a string without an end: U+2200 has a byte that is a
    quotation mark.
    """
    with minecraft(answer) as (port, _), pytest.raises(Unknown, match=why):
        players("minecraft", HERE, port, 2)


def test_a_rich_answer_is_understood() -> None:
    """A favicon, a description of nested parts with brackets in its text, and a mod's own fields."""
    description: dict[str, object] = {"text": '[{"} \\'}
    for _ in range(20):
        description = {"text": "[", "extra": [description]}
    with minecraft(of(2, favicon="data:image/png;base64," + "A" * 30_000, description=description)) as (port, _):
        assert players("minecraft", HERE, port, 2) == 2


def test_a_trickle_ends_in_time() -> None:
    """Each byte comes soon, and the answer never does."""
    began = time.monotonic()
    with (
        minecraft(*(bytes([byte]) for byte in of(0)), pause=0.05) as (port, _),
        pytest.raises(Unknown, match="in time"),
    ):
        players("minecraft", HERE, port, 0.3)
    assert time.monotonic() - began < 3


def test_a_game_that_accepts_and_says_nothing_is_unknown() -> None:
    """The kernel accepts for a game that hangs."""
    with socket.create_server((HERE, 0)) as server, pytest.raises(Unknown, match="in time"):
        players("minecraft", HERE, server.getsockname()[1], 0.2)


@pytest.mark.parametrize("protocol", list(query.PROTOCOLS))
def test_a_closed_port_is_unknown(protocol: str) -> None:
    """The port was just given back, so nobody listens there."""
    kind = socket.SOCK_STREAM if query.PROTOCOLS[protocol].transport == "TCP" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as used:
        used.bind((HERE, 0))
        port = used.getsockname()[1]
    with pytest.raises(Unknown, match="cannot be reached: Connection refused"):
        players(protocol, HERE, port, 1)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_count_or_unknown(data: bytes) -> None:
    """Neither parser raises anything else."""
    for parse in (query._minecraft_crowd, query._teeworlds_crowd):
        with suppress(Unknown):
            assert isinstance(parse(data).online, int)


# -- Teeworlds ----------------------------------------------------------------------------------------------

Reply = Callable[[bytes], list[bytes]]
SERVERS = b"TKN!"


def info(clients: bytes) -> bytes:
    """A server's info without its head: five texts, then flags, skill level, players, places and what follows."""
    return b"text\0" * 5 + b"\0\x01\0\x10" + clients


def genuine(clients: bytes) -> Reply:
    """What a server answers with these clients, and places for them."""

    def reply(request: bytes) -> list[bytes]:
        if request[:3] == b"\x04\0\0":
            return [b"\x04\0\0" + request[8:12] + b"\x05" + SERVERS]
        assert request[:5] == b"\x21" + SERVERS
        assert request[9:17] == b"\xff\xff\xff\xffgie3"
        return [b"\x21" + request[5:9] + SERVERS + b"\xff\xff\xff\xffinf3" + request[17:] + info(clients)]

    return reply


@contextmanager
def teeworlds(reply: Reply) -> Iterator[tuple[int, list[bytes]]]:
    """A server that answers each datagram with those that `reply` returns; yields its port and what it got."""
    got: list[bytes] = []

    def serve() -> None:
        while True:
            request, address = server.recvfrom(2048)
            if not request:
                return
            got.append(request)
            for answer in reply(request):
                server.sendto(answer, address)

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((HERE, 0))
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1], got
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ending:
                ending.sendto(b"", server.getsockname())
            thread.join(10)


def test_teeworlds_says_how_many_clients_it_has() -> None:
    """It gives a token first, to a request that is longer than its answer. Who only watches counts too."""
    with teeworlds(genuine(b"\x03\x10")) as (port, got):
        assert players("teeworlds", HERE, port, 2) == 3
    assert [len(got[0]), got[0][:8]] == [520, b"\x04\0\0\xff\xff\xff\xff\x05"]


@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_packet_is_sent_again(lost: int) -> None:
    """UDP loses packets; one of them must not hide who plays."""
    seen = 0

    def reply(request: bytes) -> list[bytes]:
        nonlocal seen
        seen += 1
        return [] if seen == lost + 1 else genuine(b"\x01\x10")(request)

    with teeworlds(reply) as (port, _):
        assert players("teeworlds", HERE, port, 2) == 1


def test_a_forged_answer_is_not_believed() -> None:
    """Whoever forges the server's address knows neither the client's token nor its number."""

    def reply(request: bytes) -> list[bytes]:
        own, number = request[8:12], b"\x01"
        if request[:3] == b"\x04\0\0":
            forged = [b"\x04\0\0" + b"nope" + b"\x05" + b"EVIL", b"\x04\0\0" + own + b"\x05", b""]
        else:
            own, number = request[5:9], request[17:]
            head = b"\xff\xff\xff\xffinf3"
            forged = [
                b"\x21nope" + SERVERS + head + number + info(b"\0"),
                b"\x21" + own + SERVERS + head + bytes([number[0] ^ 1]) + number[1:] + info(b"\0"),
                b"\x21" + own + SERVERS + b"\xff\xff\xff\xffinf2" + number + info(b"\0"),
            ]
        return [*forged, *genuine(b"\x05\x10")(request)]

    with teeworlds(reply) as (port, _):
        assert players("teeworlds", HERE, port, 2) == 5


def test_an_answer_from_another_address_never_arrives() -> None:
    """Even if it knows everything."""

    def reply(request: bytes) -> list[bytes]:
        answers = genuine(b"\0\x10")(request)
        client.sendto(answers[0], address)
        return []

    address: tuple[str, int] = (HERE, 0)
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
    ):
        server.bind((HERE, 0))

        def serve() -> None:
            nonlocal address
            request, address = server.recvfrom(2048)
            reply(request)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with pytest.raises(Unknown, match="in time"):
            players("teeworlds", HERE, server.getsockname()[1], 0.3)
        thread.join(10)


def test_a_flood_ends_the_question() -> None:
    """A game that sends something else without end costs no more than some datagrams."""
    with teeworlds(lambda request: [b"x" * 1000] * 100) as (port, _), pytest.raises(Unknown, match="something else"):
        players("teeworlds", HERE, port, 2)


@pytest.mark.parametrize(
    ("clients", "why"),
    [
        (b"", "too short"),
        (b"\x03", "too short"),
        (b"\x80\x80\x80\x80\x80\x01", "too short"),
        (b"\x40\x10", "says that -1 players"),
        (b"\xbf\xff\xff\xff\x0f\x10", "says that 2147483647 players"),
    ],
)
def test_what_teeworlds_cannot_mean_is_unknown(clients: bytes, why: str) -> None:
    """A number that is missing, too long, negative or huge."""
    with teeworlds(genuine(clients)) as (port, _), pytest.raises(Unknown, match=why):
        players("teeworlds", HERE, port, 1)


@given(st.integers(0, 2**31 - 1))
def test_a_number_survives_its_packing(number: int) -> None:
    """In Teeworlds' form."""
    assert query._unpacked(query._packed(number) + b"rest") == (number, b"rest")


# -- who plays ----------------------------------------------------------------------------------------------


def said_by_minecraft(counts: object) -> Crowd:
    with minecraft(status(json.dumps({"players": counts}))) as (port, _):
        return crowd("minecraft", HERE, port, 2)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"online": 0, "max": 20}, Crowd(0, 20, ())),
        ({"online": 0, "max": 20, "sample": []}, Crowd(0, 20, ())),
        (
            {"online": 2, "max": 20, "sample": [{"name": "Alex", "id": "1"}, {"name": "Sté"}]},
            Crowd(2, 20, ("Alex", "Sté")),
        ),
        # A server that hides its players.
        ({"online": 2, "max": 20}, Crowd(2, 20, None)),
        ({"online": 2, "max": 20, "sample": "Alex"}, Crowd(2, 20, None)),
        ({"online": 1, "max": -1}, Crowd(1, None, None)),
        ({"online": 0, "max": "20"}, Crowd(0, None, ())),
        ({"online": 0, "max": 10**30}, Crowd(0, None, ())),
        ({"online": 3, "sample": [7, {"name": 7}, {"name": "a"}]}, Crowd(3, None, ("a",))),
    ],
)
def test_minecraft_says_who_plays(counts: object, expected: Crowd) -> None:
    """As far as its answer can be understood; what cannot is unknown."""
    assert said_by_minecraft(counts) == expected


def test_hostile_names_are_cleaned() -> None:
    """No terminal escape, no change of direction, no half of a character, and not too much of anything."""
    names = ["\x1b[2Jevil\r\n", "\u202egnp.exe", "\ud800half", "\0", " \u200b ", "x" * 1000]
    said = said_by_minecraft({"online": 6, "max": 6, "sample": [{"name": name} for name in names]})
    assert said.names == ("[2Jevil", "gnp.exe", "half", "x" * query.LONGEST_NAME)
    many = said_by_minecraft({"online": 500, "sample": [{"name": f"n{number}"} for number in range(500)]})
    assert many.names is not None
    assert len(many.names) == query.MOST_NAMES


CLIENT = b"tee\0clan\0\x01\x05\0"


@pytest.mark.parametrize(
    ("clients", "expected"),
    [
        (b"\0\x10", Crowd(0, 16, ())),
        (
            b"\x02\x10" + CLIENT + b"\x1bzo\xc3\xab\xff\0\0\x41\x80\x01\x01",
            Crowd(2, 16, ("tee", "zoë\N{REPLACEMENT CHARACTER}")),
        ),
        (b"\x02\x10" + CLIENT, Crowd(2, 16, None)),
        (b"\x01\x10tee\0clan", Crowd(1, 16, None)),
        (b"\x01\x41" + CLIENT, Crowd(1, None, ("tee",))),
    ],
)
def test_teeworlds_says_who_plays(clients: bytes, expected: Crowd) -> None:
    """A list that is cut names nobody."""
    with teeworlds(genuine(clients)) as (port, _):
        assert crowd("teeworlds", HERE, port, 2) == expected
