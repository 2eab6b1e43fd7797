"""Games that write what a test tells them (tests/support/talker.py), with an API of the test's own before them."""

from __future__ import annotations

import json
import socket
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import requests

from local import nodes
from local.paths import ROOT
from tests.cluster.conftest import Cluster
from tests.cluster.controller.place import Place, place_of
from tests.cluster.replicas import NAMESPACE as API_NAMESPACE
from tests.cluster.replicas import first_process
from tests.support.gunicorn import Served
from tests.support.waiting import until

_PORT = 7777
_GAME = """\
name: talker
title: Talker
description: Writes what a test tells it.
query: {protocol: minecraft, port: primary}
console: {kind: rcon}
"""
_OPTIONS = '{"type": "object", "additionalProperties": false, "properties": {}}'


def _values(image: dict[str, Any]) -> str:
    """The talker's values, with an image that has Python."""
    program = (ROOT / "tests" / "support" / "talker.py").read_text()
    values = {
        "image": {"repository": image["repository"], "tag": image["tag"]},
        "command": ["python3", "-c", program],
        "ports": [{"name": "primary", "port": _PORT, "protocol": "TCP"}],
        "heap": {"environmentVariable": ""},
        "rcon": {"enabled": True},
        "probe": {"command": ["true"]},
        "terminationGracePeriodSeconds": 1,
    }
    return f"{{% raw %}}{json.dumps(values)}{{% endraw %}}"


@contextmanager
def talking(cluster: Cluster, folder: Path) -> Iterator[Place]:
    """A place whose games are talkers. Its API and its controllers are in the network of a node."""
    system = json.loads(cluster.run("helm", "-n", API_NAMESPACE, "get", "values", "api", "-o", "json"))
    games = folder / "games" / "talker"
    games.mkdir(parents=True)
    (games / "game.yaml").write_text(_GAME)
    (games / "values.yaml.j2").write_text(_values(system["image"]))
    (games / "options.schema.json").write_text(_OPTIONS)
    variables: dict[str, Any] = {
        "GAMES_DIR": str(games.parent),
        "ACCEPTED_EULAS": "minecraft",
        "DRAIN_SECONDS": "2",
    }
    with place_of(cluster, folder, api_on_node=True, values={"cpu": {"request": "10m"}}, **variables) as place:
        yield place


class Replicas:
    """More replicas of a place's API, which a test may kill and start again; `urls` has their addresses."""

    def __init__(self, place: Place, count: int) -> None:
        self._place = place
        self._served = [self._new() for _ in range(count)]
        self.urls = [served.url for served in self._served]

    def __enter__(self) -> Self:
        for served in self._served:
            served.until_alive()
        return self

    def __exit__(self, *error: object) -> None:
        for served in self._served:
            served.kill()

    def __getitem__(self, number: int) -> Served:
        return self._served[number]

    def kill(self, number: int) -> None:
        """Kill one."""
        self._served[number].kill()

    def start_again(self, number: int) -> None:
        """Start another one in place of one that was killed. It answers after some seconds."""
        self._served[number] = self._new()
        self.urls[number] = self._served[number].url

    def _new(self) -> Served:
        folder = Path(tempfile.mkdtemp(prefix="replica-", dir=self._place.folder))
        host = nodes.Node(next(iter(nodes.running()))).address
        return Served.start(folder, self._place.environment, within=self._place.within, host=host)


def create(place: Place, *ids: int, game: str = "talker") -> None:
    """Servers whose games run."""
    body = {"game": game, "ram_gb": 1, "disk_gb": 1}
    with ThreadPoolExecutor(4) as callers:
        list(callers.map(lambda id: place.call("POST", f"/server/{id}/", body), ids))
    place.until_running(*ids)


def order(place: Place, id: int, within: float = 60, **what: Any) -> str:
    """Tell a talker what to do; returns its answer once it is done, within some seconds. One that starts is awaited."""
    connections: list[socket.socket] = []

    def connected() -> bool:
        primary = place.call("GET", f"/server/{id}/")["ports"]["primary"]
        connections.append(socket.create_connection((primary["host"], primary["port"]), timeout=5))
        return True

    until(connected, 60, place.logged, not_yet=(OSError,))
    with connections[0] as connection:
        connection.settimeout(within)
        connection.sendall(json.dumps(what).encode() + b"\n")
        answer = b""
        while more := connection.recv(65536):
            answer += more
        return answer.decode()


def process_of(place: Place, id: int, program: str = "python3") -> int:
    """The game's first process."""
    return first_process(place.pod(id), program)


def following(
    place: Place, id: int, api: Served | None = None, *, events: bool = True, **headers: str
) -> requests.Response:
    """An answer that follows the server's log."""
    headers = {"Authorization": "Bearer test", "Accept": "text/event-stream" if events else "text/plain", **headers}
    url = f"{(api or place.api).url}/api/v1/server/{id}/log?follow=true"
    answer = requests.get(url, headers=headers, stream=True, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer
