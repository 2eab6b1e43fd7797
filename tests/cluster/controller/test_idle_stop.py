"""Idle stop on the real cluster: the API and the controller as processes of their own, and real games."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.conftest import Cluster
from tests.cluster.controller.place import Place, place_of
from tests.cluster.test_addresses import players
from tests.support.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.own_namespace]

#: A minute of the idle stop, in seconds. A server runs for ten of them at least.
MINUTE = 2
EMPTY, PLAYED = 1, 2


@pytest.fixture
def place(cluster: Cluster, tmp_path: Path) -> Iterator[Place]:
    with (
        place_of(cluster, tmp_path, IDLE_MINUTE_SECONDS=str(MINUTE), IDLE_STOP_MIN="1") as place,
        place.controller("one") as process,
    ):
        yield place
        process.terminate()
        process.wait(30)


def server(place: Place, id: int) -> dict[str, Any]:
    return place.call("GET", f"/server/{id}/")


def until_shown(place: Place, id: int, seconds: float, **expected: Any) -> dict[str, Any]:
    """Wait until GET shows these fields of the server; fields of `idle` count too."""
    shown: dict[str, Any] = {}

    def reached() -> bool:
        nonlocal shown
        shown = server(place, id)
        flat = {**shown, **(shown["idle"] or {})}
        return all(flat[name] == value for name, value in expected.items())

    until(reached, seconds, lambda: f"not {expected} but {shown}; {place.logged()}")
    return shown


def test_a_server_stops_when_nobody_plays(place: Place) -> None:
    """Its values say so, and the next start removes that. One on which somebody plays runs until he leaves."""
    for id in (EMPTY, PLAYED):
        body = {"game": "teeworlds", "ram_gb": 1, "disk_gb": 1, "idle_stop_minutes": 3}
        place.call("POST", f"/server/{id}/", body)
    for id in (EMPTY, PLAYED):
        until_shown(place, id, 60, state="running")
    primary = server(place, PLAYED)["ports"]["primary"]
    with players(primary["host"], primary["port"], 1) as refused:
        assert refused == [""]
        until_shown(
            place, PLAYED, 20, players=1, stops_at=None,
            kept_up_by={"slug": "players", "detail": "One player is on the server."},
        )  # fmt: skip
        waits = until_shown(place, EMPTY, 20, state="running", players=0, kept_up_by=None)["idle"]
        assert waits["since"] < waits["stops_at"]
        stopped = until_shown(place, EMPTY, 60, state="stopped")
        assert stopped["reason"] == "It was stopped because nobody was playing."
        assert waits["stops_at"] <= stopped["idle"]["stopped_at"]
        output = place.cluster.run("helm", "-n", place.namespace, "get", "values", f"server-{EMPTY}", "-o", "json")
        values = json.loads(output)
        assert (values["replicas"], values["server"]["idleStopped"]) == (0, stopped["idle"]["stopped_at"])
        assert server(place, PLAYED)["idle"]["kept_up_by"]["slug"] == "players"
    until_shown(place, PLAYED, 60, state="stopped", wanted="stopped")
    assert server(place, PLAYED)["idle"]["stopped_at"] is not None
