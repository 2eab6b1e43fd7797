"""Commands reach a game by its external console, and no player's line ends an answer or becomes another."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator

import pytest

from service.console.connection import LARGEST_ANSWER, ConsoleError, LoginRefused, NoAnswer, TooLong
from service.console.econ import connected
from tests.support.econ_game import HERE, PASSWORD, EconGame, econ_game
from tests.support.rcon_game import stranger

LONG = 30.0
"""Seconds that no test needs, however busy the machine is."""


@pytest.fixture
def game() -> Iterator[EconGame]:
    with econ_game() as game:
        yield game


def ask(game: EconGame, line: str, seconds: float = LONG) -> tuple[str, bool]:
    with connected(HERE, game.port, PASSWORD, LONG) as console:
        return console.ask(line, seconds)


def test_a_command_is_answered(game: EconGame) -> None:
    """With the lines that the game writes for it, and no others."""
    game.answers["status"] = ["[server]: id=0 name='Ada'", "[server]: id=1 name='Ödön'"]
    expected = "[15:18:53][server]: id=0 name='Ada'\n[15:18:53][server]: id=1 name='Ödön'"
    assert ask(game, "status") == (expected, False)
    assert game.said == ["status"]


def test_a_command_may_have_no_answer(game: EconGame) -> None:
    game.answers["say hi"] = []
    assert ask(game, "say hi") == ("", False)


def test_one_connection_takes_many_commands(game: EconGame) -> None:
    with connected(HERE, game.port, PASSWORD, LONG) as console:
        assert [console.run("sv_map", LONG) for _ in range(3)] == ["[15:18:53][Console]: Value: dm1"] * 3


def test_several_commands_in_one_line_are_the_games_own_language(game: EconGame) -> None:
    """Their answers come together."""
    assert ask(game, "sv_map;sv_map") == ("\n".join(["[15:18:53][Console]: Value: dm1"] * 2), False)


def test_what_comes_in_pieces_is_one_answer(game: EconGame) -> None:
    """A sign that is cut in two is whole again."""
    game.dribbles = True
    game.answers["motd"] = ["[Console]: Value: " + "é" * 20]
    assert ask(game, "motd") == ("[15:18:53][Console]: Value: " + "é" * 20, False)


def test_a_game_that_repeats_its_commands_is_understood(game: EconGame) -> None:
    """The customer may have set `ec_output_level`. Then the numbers at the ends come twice."""
    game.level = 1
    assert ask(game, "sv_map") == ("[15:18:53][server]: cid=0 cmd='sv_map'\n[15:18:53][Console]: Value: dm1", False)


@pytest.mark.parametrize(
    "chat",
    [
        "[15:18:53][chat]: 0:-2:Ada: echo 0123456789abcdef",
        "[15:18:53][Console]: 0123456789abcdef",
        "Authentication successful. External console access granted.",
        "Wrong password 1/3.",
        "Enter password:",
        "\x1b[2J\0\0\r",
        "\udcff\udcfe",
        "",
    ],
)
def test_no_players_line_ends_an_answer(game: EconGame, chat: str) -> None:
    """Whatever it has, it is one line more. The numbers are others each time."""
    game.log = [chat]
    answer, cut = ask(game, "sv_map")
    assert answer.endswith("[15:18:53][Console]: Value: dm1\n" + answer.partition("\n")[0])
    assert len(answer.split("\n")) == 3
    assert not cut


def test_a_line_that_was_seen_once_forges_nothing(game: EconGame) -> None:
    """A game's own log has the numbers of the commands before."""
    lines: list[str] = []
    execute = game.execute

    def repeated(client: socket.socket, line: str) -> bool:
        for old in lines:
            game.write(client, old)
        lines.append(f"[15:18:53][Console]: {line.removeprefix('echo ')}")
        return execute(client, line)

    game.execute = repeated  # type: ignore[method-assign]
    for _ in range(3):
        assert "Value: dm1" in ask(game, "sv_map")[0]


def test_the_password_is_tried_once(game: EconGame) -> None:
    """A game that bans who tries three times bans nobody, however often the API comes."""
    game.bans = True
    game.password = "another"
    for _ in range(10):
        with pytest.raises(LoginRefused, match="refuses the password"), connected(HERE, game.port, PASSWORD, LONG):
            pass
    game.password = PASSWORD
    assert game.tries == 10
    assert "dm1" in ask(game, "sv_map")[0]


def test_a_ban_is_no_password(game: EconGame) -> None:
    game.banned = True
    with pytest.raises(ConsoleError, match=r"ended the connection|cannot be reached"):
        ask(game, "sv_map")


def test_a_game_that_hangs_is_given_up(game: EconGame) -> None:
    """In its time, and nobody knows whether it did it. One that does not even greet is given up too."""
    game.hangs = True
    with pytest.raises(NoAnswer, match="in time"):
        ask(game, "sv_map", 0.3)
    with socket.create_server((HERE, 0)) as silent, pytest.raises(NoAnswer):  # noqa: SIM117
        with connected(HERE, silent.getsockname()[1], PASSWORD, 0.3):
            pass


def test_the_end_of_the_connection_ends_an_answer(game: EconGame) -> None:
    """The command was to do that, or has made the game crash. So its answer may not be whole."""
    assert ask(game, "logout") == ("[15:18:53][Console]: No such command: logout.\nLogout", True)
    with connected(HERE, game.port, PASSWORD, LONG) as console, pytest.raises(ConsoleError, match="ended"):
        console.run("logout", LONG)


def test_an_end_before_the_answer_is_no_answer(game: EconGame) -> None:
    """The command may not have been carried out."""
    game.execute = lambda client, line: False  # type: ignore[method-assign]
    with pytest.raises(ConsoleError, match=r"ended|cannot be reached"):
        ask(game, "sv_map")


def test_a_long_answer_is_cut(game: EconGame) -> None:
    """At its bound, lines and zeros included; for a program it is none."""
    game.answers["cmds"] = [f"[Console]: {number:1000}" for number in range(100)]
    answer, cut = ask(game, "cmds")
    assert cut
    assert LARGEST_ANSWER - 6000 < len(answer) <= LARGEST_ANSWER
    with connected(HERE, game.port, PASSWORD, LONG) as console, pytest.raises(TooLong):
        console.run("cmds", LONG)


def test_the_expected_text_ends_an_answer(game: EconGame) -> None:
    game.answers["save"] = ["[game]: saving", "[game]: saved the world", "[game]: more"]
    with connected(HERE, game.port, PASSWORD, LONG) as console:
        assert console.run("save", LONG, ["saved"]).endswith("saved the world")


def flood(client: socket.socket) -> None:
    """It lets everyone in, and writes its log without end."""
    client.recv(1400)
    client.sendall(b"Authentication successful. External console access granted.\n")
    while True:
        client.sendall(b"[chat]: " + b"x" * 1000 + b"\n\0\0")


def one_line(client: socket.socket) -> None:
    """A line without end."""
    while True:
        client.sendall(b"x" * 1000)


def dribble(client: socket.socket) -> None:
    """Each byte comes in time, but the whole does not."""
    while True:
        client.sendall(b"x")
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("talk", "seconds", "why"),
    [(flood, LONG, "too long"), (one_line, LONG, "too long"), (dribble, 0.5, "in time")],
)
def test_a_hostile_game_is_given_up(talk: Callable[[socket.socket], None], seconds: float, why: str) -> None:
    """At the bound of bytes, which it reaches long before the time is over, or when the time is over."""
    with stranger(talk) as port, pytest.raises(ConsoleError, match=why):  # noqa: SIM117
        with connected(HERE, port, PASSWORD, seconds) as console:
            console.ask("sv_map", seconds)


def test_nobody_listens() -> None:
    with socket.create_server((HERE, 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ConsoleError, match="cannot be reached: Connection refused"):  # noqa: SIM117
        with connected(HERE, port, PASSWORD, LONG):
            pass
