"""Who plays, and what that takes, is shown on the real cluster, of real games."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.conftest import Cluster
from tests.cluster.controller.place import Place, place_of
from tests.cluster.replicas import first_process, frozen
from tests.cluster.test_addresses import players
from tests.support.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.own_namespace]

HUNG, PLAYED = 1, 2


@pytest.fixture
def place(cluster: Cluster, tmp_path: Path) -> Iterator[Place]:
    with place_of(cluster, tmp_path, api_on_node=True) as place:
        yield place


def shown(place: Place, id: int) -> dict[str, Any]:
    return place.call("GET", f"/server/{id}/")


def until_shown(place: Place, id: int, seconds: float, **expected: Any) -> None:
    """Wait until the server's players have these fields."""
    last: Any = None

    def reached() -> bool:
        nonlocal last
        last = shown(place, id)["players"]
        return last is not None and {name: last[name] for name in expected} == expected

    until(reached, seconds, lambda: f"not {expected} but {last}; {place.logged()}")


def test_who_plays_is_shown_while_another_game_hangs(place: Place) -> None:
    """Nobody, then somebody with his name, and null once it is stopped."""
    for id in (HUNG, PLAYED):
        place.call("POST", f"/server/{id}/", {"game": "teeworlds", "ram_gb": 1, "disk_gb": 1})
    for id in (HUNG, PLAYED):
        until(lambda id=id: shown(place, id)["state"] == "running", 60, place.logged)  # type: ignore[misc]
        until_shown(place, id, 20, online=0, names=[])
        assert shown(place, id)["players"]["max"] > 0
    # The metrics-server measures every ten seconds, and needs two measurements.
    until(lambda: shown(place, PLAYED)["usage"], 90, place.logged)
    assert shown(place, PLAYED)["usage"]["memory_gb"] > 0
    with frozen([first_process(place.pod(HUNG), "teeworlds")]):
        primary = shown(place, PLAYED)["ports"]["primary"]
        with players(primary["host"], primary["port"], 1) as refused:
            assert refused == [""]
            until_shown(place, PLAYED, 40, online=1)
            [listed] = [each for each in place.call("GET", "/server/")["servers"] if each["id"] == PLAYED]
            assert listed["players"] == shown(place, PLAYED)["players"]
            assert len(listed["players"]["names"]) == 1
    place.call("PATCH", f"/server/{PLAYED}/stop")
    assert shown(place, PLAYED)["players"] is None
    until(lambda: shown(place, PLAYED)["usage"] is None, 60, place.logged)
