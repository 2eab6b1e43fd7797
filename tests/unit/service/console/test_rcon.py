"""Commands reach a game by RCON, and a hostile game costs no more than the time and the bytes that it is given."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import pytest

from service.console.connection import LARGEST_ANSWER, ConsoleError, LoginRefused, NoAnswer
from service.console.rcon import command, connected
from tests.support.rcon_game import ANSWER, COMMAND, HERE, PASSWORD, packet, rcon_game, stranger

Talk = Callable[[socket.socket], None]


def test_a_command_is_answered() -> None:
    with rcon_game() as game:
        assert command(HERE, game.port, PASSWORD, "save-off") == "Automatic saving is now disabled"
        assert game.said == ["save-off"]


def test_one_connection_takes_many_commands() -> None:
    """One packet at a time: Minecraft ends a connection on which it reads two at once, and so does this game."""
    with rcon_game() as game, connected(HERE, game.port, PASSWORD, 2) as console:
        # Longer than an acknowledgement is delayed (40 ms): until that, a second packet would wait.
        game.reads_after = 0.06
        for number in range(3):
            assert console.run(f"say {number}", 2) == f"Unknown or incomplete command: say {number}"
        assert game.clients == 1


def test_a_wrong_password_is_refused() -> None:
    with rcon_game() as game:
        with pytest.raises(LoginRefused, match="refuses the password"):
            command(HERE, game.port, "guess", "save-off")
        assert game.said == []


def test_a_login_may_have_an_empty_answer_before() -> None:
    """As Valve's own games send it."""

    def talk(client: socket.socket) -> None:
        client.recv(1460)
        client.sendall(packet(1, ANSWER) + packet(1, COMMAND))
        client.recv(1460)
        client.sendall(packet(2, ANSWER, "hello"))
        client.recv(1460)
        client.sendall(packet(3, ANSWER))

    with stranger(talk) as port:
        assert command(HERE, port, PASSWORD, "x") == "hello"


def test_a_long_answer_comes_in_many_packets() -> None:
    """A sign that is cut in two is whole again."""
    with rcon_game() as game:
        game.answers["list"] = "a" + "é" * 10_000
        assert command(HERE, game.port, PASSWORD, "list") == "a" + "é" * 10_000


def test_an_empty_answer_is_one() -> None:
    with rcon_game() as game:
        game.answers["quiet"] = ""
        assert command(HERE, game.port, PASSWORD, "quiet") == ""


def test_the_expected_text_ends_an_answer() -> None:
    """Not every game marks the end; and what comes later is no answer to the next command."""

    def talk(client: socket.socket) -> None:
        client.recv(1460)
        client.sendall(packet(1, COMMAND))
        client.recv(1460)
        client.sendall(packet(2, ANSWER, "Saving...") + packet(2, ANSWER, "Saved the") + packet(2, ANSWER, " game"))
        client.sendall(packet(2, ANSWER, "late"))
        # The end marker of the first command, and the next command; they may come together.
        received = b""
        while b"next" not in received:
            received += client.recv(1460)
        client.sendall(packet(4, ANSWER, "second") + packet(5, ANSWER))

    with stranger(talk) as port, connected(HERE, port, PASSWORD, 2) as console:
        assert console.run("save", 2, ["Saved the game"]).endswith("Saved the game")
        assert console.run("next", 2) == "second"


def silent(client: socket.socket) -> None:
    client.recv(1460)
    client.recv(1460)


def dripping(client: socket.socket) -> None:
    """Each byte comes in time, but the whole does not."""
    client.recv(1460)
    for byte in packet(1, COMMAND, "x" * 1000):
        client.sendall(bytes([byte]))
        time.sleep(0.05)


def chattering(client: socket.socket) -> None:
    """It sends answers to what nobody has asked, for ever."""
    client.recv(1460)
    client.sendall(packet(1, COMMAND))
    while True:
        client.sendall(packet(99, ANSWER, "x" * 4000))


def whispering(client: socket.socket) -> None:
    """It sends an endless answer in packets without text."""
    client.recv(1460)
    client.sendall(packet(1, COMMAND))
    while True:
        client.sendall(packet(2, ANSWER) * 100)


def says(data: bytes) -> Talk:
    def talk(client: socket.socket) -> None:
        client.recv(1460)
        client.sendall(data)

    return talk


@pytest.mark.parametrize(
    ("talk", "why"),
    [
        (silent, "did not answer in time"),
        (dripping, "did not answer in time"),
        (says(b""), "ended the connection"),
        (says(b"\x0a\0"), "ended the connection"),
        (says(packet(1, COMMAND)[:-1]), "ended the connection"),
        (says(packet(1, COMMAND)), "ended the connection|cannot be reached"),
        (says(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "no remote console"),
        (says(b"\xff\xff\xff\xff" * 4), "no remote console"),
        (says(b"\x09\0\0\0" * 4), "no remote console"),
        (says(packet(2, COMMAND)), "refuses the password"),
    ],
)
def test_what_answers_wrongly_is_no_game(talk: Talk, why: str) -> None:
    """It is given up in time, whatever it does."""
    began = time.monotonic()
    with stranger(talk) as port, pytest.raises(ConsoleError, match=why):
        command(HERE, port, PASSWORD, "save-off", timeout=0.5)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("talk", [chattering, whispering])
def test_an_endless_answer_is_given_up(talk: Talk) -> None:
    """At its bound, which it reaches long before the time is over."""
    with stranger(talk) as port, pytest.raises(ConsoleError, match="too long"):
        command(HERE, port, PASSWORD, "save-off", timeout=20)


def test_nobody_listens() -> None:
    with socket.create_server((HERE, 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ConsoleError, match="cannot be reached: Connection refused"):
        command(HERE, port, PASSWORD, "save-off")


def test_an_answer_is_bounded() -> None:
    """With its packets' headers, up to the bound; and each command has a bound of its own."""
    whole = "x" * (LARGEST_ANSWER - 2000)
    with rcon_game() as game, connected(HERE, game.port, PASSWORD, 2) as console:
        game.answers["long"] = whole
        for _ in range(3):
            assert console.run("long", 5) == whole
        game.answers["longer"] = "x" * LARGEST_ANSWER
        with pytest.raises(ConsoleError, match="too long"):
            console.run("longer", 5)


def test_a_slow_answer_has_its_own_time() -> None:
    with rcon_game() as game, connected(HERE, game.port, PASSWORD, 2) as console:
        game.pause = 0.3
        with pytest.raises(ConsoleError, match="in time"):
            console.run("save-all flush", 0.1)


def test_an_answer_for_a_reader_may_be_cut() -> None:
    """At the bound, or when the time is over; with nothing at all there is no answer."""
    with rcon_game() as game:
        game.answers |= {"short": "abc", "long": "x" * 2 * LARGEST_ANSWER, "none": None}
        for line, expected in (("short", ("abc", False)), ("", ("Unknown or incomplete command: ", False))):
            with connected(HERE, game.port, PASSWORD, 2) as console:
                assert console.ask(line, 5) == expected
        with connected(HERE, game.port, PASSWORD, 2) as console:
            text, cut = console.ask("long", 5)
            assert (cut, set(text)) == (True, {"x"})
            assert LARGEST_ANSWER - 8192 < len(text) <= LARGEST_ANSWER
        with connected(HERE, game.port, PASSWORD, 2) as console, pytest.raises(NoAnswer):
            console.ask("none", 0.2)
