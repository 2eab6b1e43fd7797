"""Waiting for a server to run, and an operation that waits until nobody plays, with a real game."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.cluster.conftest import Cluster
from tests.cluster.controller.place import Place, place_of
from tests.support.gunicorn import Served

pytestmark = [pytest.mark.cluster, pytest.mark.own_namespace]


@pytest.fixture
def place(cluster: Cluster, tmp_path: Path) -> Iterator[Place]:
    with place_of(cluster, tmp_path) as place, place.controller("one") as process:
        yield place
        process.terminate()
        process.wait(30)


def call(served: Served, method: str, path: str, body: Any = None) -> tuple[int, dict[str, Any]]:
    """The status and the body of an answer."""
    headers = {"Authorization": "Bearer test"}
    answer = requests.request(method, f"{served.url}/api/v1/{path}", json=body, headers=headers, timeout=330)
    return answer.status_code, answer.json()


def test_a_game_is_waited_for(cluster: Cluster, place: Place) -> None:
    """A create and a restart answer when the game runs, a restart with its new pod. In bulk, an empty game restarts."""
    served, namespace = place.api, place.namespace
    running = {"success": True, "state": "running", "reason": None}

    def pod() -> str:
        return str(cluster.get("-n", namespace, "pod/server-1-0")["metadata"]["uid"])

    body = {"ram_gb": 1, "disk_gb": 1, "game": "teeworlds"}
    assert call(served, "POST", "server/1/?wait=running&timeout_s=180", body) == (201, running)
    first = pod()
    assert call(served, "PATCH", "server/1/start?wait=running") == (200, running)
    assert pod() == first
    assert call(served, "PATCH", "server/1/restart?wait=running&timeout_s=180") == (200, running)
    second = pod()
    assert second != first
    status, operation = call(served, "POST", "server/_bulk", {"ids": [1], "action": "stop", "when": "idle"})
    assert status == 202
    _, operation = call(served, "GET", f"operation/{operation['id']}?wait=60")
    assert operation["state"] == "done", operation
    assert operation["servers"] == [{"id": 1, "outcome": "done", "reason": None}]
    assert call(served, "GET", "server/1/")[1]["wanted"] == "stopped"
