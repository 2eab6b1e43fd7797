"""Who plays is shown as last known, and games are asked behind the answers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from service.players import known
from service.players.counts import PlayerCounts
from service.players.known import LastPlayers, Players
from service.players.query import Crowd, Query, Unknown
from service.servers.objects import ServerObjects
from tests.support.waiting import until

SOME = Crowd(1, 16, ("nameless tee",))


def server(id: int = 4, pod: str = "one") -> ServerObjects:
    """A server whose pod has the address 10.0.0.<id>."""
    annotations = {"gameserver/server": '{"game": "teeworlds"}'}
    port = {"name": "primary", "containerPort": 8303, "protocol": "UDP"}
    return ServerObjects(
        id,
        statefulset={"metadata": {"annotations": annotations}, "spec": {"replicas": 1}},
        pod={
            "metadata": {"name": f"server-{id}-0", "uid": pod},
            "spec": {"containers": [{"name": "game", "ports": [port]}]},
            "status": {"podIP": f"10.0.0.{id}"},
        },
    )


class Games:
    """Games that are asked, and a clock."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.asked: list[str] = []
        self.answer: Callable[[str], Crowd] = lambda address: SOME
        counts = PlayerCounts(lambda id: None, {"teeworlds": Query("teeworlds")}.get)
        self.last = LastPlayers(counts, self._ask, lambda: self.now)

    def _ask(self, protocol: str, address: str, port: int, timeout: float) -> Crowd:
        assert (protocol, port, timeout) == ("teeworlds", 8303, known.ASK_SECONDS)
        self.asked.append(address)
        return self.answer(address)

    def of(self, id: int = 4, pod: str = "one", running: bool = True) -> Players | None:
        return self.last.of(server(id, pod), running=running)

    def settled(self) -> None:
        """Wait until no question waits."""
        until(lambda: not any(entry.waiting for entry in self.last._entries.values()), 20)


@pytest.fixture
def games() -> Games:
    return Games()


def silent(address: str) -> Crowd:
    raise Unknown("it did not answer in time")


def test_the_first_look_has_the_game_asked_and_waits_for_nothing(games: Games) -> None:
    """The next one shows what it has said."""
    assert games.of() is None
    games.settled()
    shown = games.of()
    assert shown is not None
    assert (shown.online, shown.max, shown.names) == SOME
    assert games.asked == ["10.0.0.4"]


def test_a_hundred_looks_make_one_question(games: Games) -> None:
    """While it is under way, and for some seconds after its answer."""
    goes_on = threading.Event()

    def slow(address: str) -> Crowd:
        goes_on.wait(20)
        return SOME

    games.answer = slow
    for _ in range(100):
        assert games.of() is None
    goes_on.set()
    games.settled()
    for _ in range(100):
        assert games.of() is not None
    assert len(games.asked) == 1
    games.now += known.AGAIN_SECONDS
    for _ in range(100):
        games.of()
    games.settled()
    assert len(games.asked) == 2


def test_an_old_answer_is_unknown(games: Games) -> None:
    """Never 0: what a game said that has not answered since is shown for some time only."""
    games.of()
    games.settled()
    games.answer = silent
    games.now += known.AGAIN_SECONDS
    games.of()
    games.settled()
    games.now += known.VALID_SECONDS - known.AGAIN_SECONDS - 1
    assert games.of() is not None
    games.settled()
    games.now += 1
    assert games.of() is None


def test_an_answer_belongs_to_its_pod(games: Games) -> None:
    """A restarted game has other players, and one that does not run has none."""
    games.of()
    games.settled()
    assert games.of(pod="two") is None
    games.settled()
    assert games.of(pod="two") is not None
    assert games.of(pod="two", running=False) is None
    assert games.last.of(ServerObjects(4), running=True) is None


def test_a_game_that_cannot_be_asked_is_not(games: Games) -> None:
    """It is unknown who plays there."""
    unknown = server()
    assert games.last.of(ServerObjects(4, pod=unknown.pod), running=True) is None
    games.settled()
    assert games.asked == []


def test_games_that_hang_do_not_delay_others(games: Games) -> None:
    """They have a thread and a queue of their own, and what does not fit there is asked when somebody looks again."""
    hanging, goes_on = range(1, 101), threading.Event()
    games.answer = silent
    for id in hanging:
        games.of(id)
    games.settled()

    def hang(address: str) -> Crowd:
        if address == "10.0.0.200":
            return SOME
        goes_on.wait(60)
        return silent(address)

    games.answer = hang
    games.now += known.SILENT_AGAIN_SECONDS
    try:
        for id in hanging:
            games.of(id)
        waiting = [id for id, entry in games.last._entries.items() if entry.waiting]
        # One may have been taken from the queue already.
        assert known.MOST_SILENT_WAITING <= len(waiting) <= known.MOST_SILENT_WAITING + 1
        games.of(200)
        until(lambda: games.of(200) is not None, 20)
    finally:
        goes_on.set()
    games.settled()


def test_a_mistake_ends_no_thread(games: Games, caplog: Any) -> None:
    """It is logged, and the game counts as silent."""

    def broken(address: str) -> Crowd:
        raise ZeroDivisionError

    games.answer = broken
    for id in range(1, 2 * known.THREADS + 2):
        games.of(id)
    games.settled()
    assert "asking a game for its players failed" in caplog.text
    games.answer = lambda address: SOME
    games.of(50)
    until(lambda: games.of(50) is not None, 20)


def test_servers_are_forgotten(games: Games) -> None:
    """If nobody looks at them any more."""
    for id in range(1, 20):
        games.of(id)
    games.settled()
    games.now += known.AGAIN_SECONDS + known.VALID_SECONDS + 1
    games.of(20)
    games.settled()
    assert list(games.last._entries) == [20]
