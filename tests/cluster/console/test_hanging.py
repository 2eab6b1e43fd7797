"""A game that hangs keeps nobody waiting but those who ask it, and a game takes only so many commands."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from service.console.turns import AT_ONCE
from service.operations.console import LONGEST_SECONDS, SECONDS
from tests.cluster.console.talking import create, order
from tests.cluster.controller.place import Place
from tests.cluster.replicas import frozen, processes_of
from tests.support.followers import shown
from tests.support.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.own_namespace]


def processes_of_game(place: Place, id: int) -> list[int]:
    """The processes of the game's container."""
    status = place.pod(id)["status"]["containerStatuses"][0]
    pids = [pid for pid, _ in processes_of(status["containerID"].rpartition("/")[2])]
    assert pids
    return pids


def commanded(place: Place, id: int, command: str) -> tuple[requests.Response, float]:
    """The response to a command, and after how many seconds it came."""
    began = time.monotonic()
    answer = place.send("POST", f"/server/{id}/command", {"command": command})
    return answer, time.monotonic() - began


@pytest.mark.parametrize("game", ["talker", pytest.param("minecraft", marks=pytest.mark.long)])
def test_a_game_that_hangs_keeps_nobody_else_waiting(place: Place, game: str) -> None:
    """Its commands fail in time, it is shown as quickly as ever, others answer, and afterwards it works again."""
    hung, other = (21, 22) if game == "talker" else (23, 24)
    create(place, hung, other, game=game)
    for id in (hung, other):
        until(lambda id=id: place.call("GET", f"/server/{id}/")["players"], 60, place.logged)  # type: ignore[misc]
    with frozen(processes_of_game(place, hung)), ThreadPoolExecutor(4) as callers:
        stuck = [callers.submit(commanded, place, hung, "list") for _ in range(3)]
        looks, others = [], []
        while not all(each.done() for each in stuck):
            began = time.monotonic()
            assert place.send("GET", f"/server/{hung}/").ok
            looks.append(time.monotonic() - began)
            answer, seconds = commanded(place, other, "list")
            assert answer.status_code in (200, 429), answer.text
            others.append(seconds)
            time.sleep(0.5)
        for answer, _ in (each.result() for each in stuck):
            assert (answer.status_code, answer.json()["type"]) == (504, "/problems/game-does-not-answer"), answer.text
        if game == "minecraft":
            # The last that it said is shown for a minute and a half, then nothing.
            until(lambda: place.call("GET", f"/server/{hung}/")["players"] is None, 120, place.logged)
            assert place.call("GET", f"/server/{other}/")["players"] is not None
    waits = [seconds for _, seconds in (each.result() for each in stuck)]
    shown(game=game, commands=waits, slowest_look=max(looks), slowest_other=max(others))
    assert min(waits) > SECONDS - 1
    assert max(waits) < LONGEST_SECONDS
    assert max(looks) < 5
    assert max(others) < 5
    until(lambda: commanded(place, hung, "list")[0].ok, 30, place.logged)
    until(lambda: place.call("GET", f"/server/{hung}/")["players"] is not None, 90, place.logged)


@pytest.mark.long
def test_commands_are_limited(place: Place) -> None:
    """Of twenty at once ten are carried out, and the others are told to come again; then it is one a second."""
    create(place, 25)
    began = time.monotonic()
    with ThreadPoolExecutor(20) as callers:
        answers = [answer for answer, _ in callers.map(lambda n: commanded(place, 25, f"say {n}"), range(20))]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert {answer.status_code for answer in answers} <= {200, 429}
    for answer in refused:
        assert answer.json()["type"] == "/problems/too-many-commands"
        assert 1 <= int(answer.headers["Retry-After"]) <= 2
    done, ends = 0, time.monotonic() + 5
    while time.monotonic() < ends:
        done += commanded(place, 25, "say more")[0].ok
        time.sleep(0.05)
    took = time.monotonic() - began
    counted = json.loads(order(place, 25, do="counted"))
    shown(refused=len(refused), then=done, seconds=took, carried_out=counted["commands"])
    assert counted["commands"] == 20 - len(refused) + done
    assert AT_ONCE <= counted["commands"] <= AT_ONCE + took


@pytest.mark.long
def test_a_hundred_who_look_make_one_query(place: Place) -> None:
    """Whoever looks meanwhile is shown what is known."""
    create(place, 26)
    until(lambda: place.call("GET", "/server/26/")["players"], 60, place.logged)
    # Nobody is about to ask it again, so that the clients all come in one interval.
    before = json.loads(order(place, 26, do="counted"))["pings"]
    until(lambda: _looked(place, before), 30, place.logged)
    asked = json.loads(order(place, 26, do="counted"))["pings"]
    began = time.monotonic()
    with ThreadPoolExecutor(20) as clients:
        answers = list(clients.map(lambda _: place.send("GET", "/server/26/"), range(100)))
    took = time.monotonic() - began
    more = json.loads(order(place, 26, do="counted"))["pings"] - asked
    shown(seconds=took, queries=more)
    assert all(answer.json()["players"]["online"] == 2 for answer in answers if answer.ok)
    assert sum(answer.ok for answer in answers) > 50
    assert more <= 1 + took // 15


def _looked(place: Place, before: int) -> bool:
    """Look, and say whether the game has been asked since."""
    place.call("GET", "/server/26/")
    return bool(json.loads(order(place, 26, do="counted"))["pings"] > before)
