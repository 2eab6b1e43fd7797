"""A server's game is asked at the pod's own address and at the port that the game's query names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from service.players import counts
from service.players.counts import PlayerCounts
from service.players.query import Query, Unknown
from service.servers.objects import ServerObjects

QUERIES = {"pong": Query("teeworlds", "bats"), "minecraft": Query("minecraft")}
PORTS = [
    {"name": "primary", "containerPort": 1, "protocol": "UDP"},
    {"name": "bats", "containerPort": 2, "protocol": "TCP"},
    {"name": "bats-udp", "containerPort": 3, "protocol": "UDP"},
]


def server(game: str = "pong", ready: bool = True, **more: Any) -> ServerObjects:
    """A server, with changes of its pod's status."""
    record = {"gameserver/server": json.dumps({"game": game})}
    ready_condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": "2026-01-31T12:00:00Z"}
    return ServerObjects(
        4,
        statefulset={"metadata": {"annotations": record}, "spec": {"replicas": 1}},
        pod={
            "metadata": {"name": "server-4-0"},
            "spec": {"containers": [{"name": "sidecar"}, {"name": "game", "ports": PORTS}]},
            "status": {"phase": "Running", "podIP": "10.9.8.7", "conditions": [ready_condition], **more},
        },
    )


def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Have `players` answer 5, and list what it was asked."""
    questions: list[tuple[Any, ...]] = []

    def answer(*question: Any) -> int:
        questions.append(question)
        return 5

    monkeypatch.setattr(counts, "players", answer)
    return questions


def of(servers: Mapping[int, ServerObjects]) -> int:
    return PlayerCounts(servers.get, QUERIES.get).of(4)


def test_a_server_is_asked_where_its_pod_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port for both protocols is two ports of the container; the protocol says which."""
    questions = asked(monkeypatch)
    assert of({4: server()}) == 5
    assert questions == [("teeworlds", "10.9.8.7", 3, 2.0)]


@pytest.mark.parametrize(
    ("servers", "why"),
    [
        ({}, "no such server"),
        ({4: server("luanti")}, "cannot be asked"),
        ({4: server(ready=False)}, "not running"),
        ({4: ServerObjects(4, server().statefulset)}, "not running"),
        ({4: ServerObjects(4, pod=server().pod)}, "cannot be asked"),
        ({4: server(podIP="")}, "no address"),
        ({4: server("minecraft")}, "no address"),
    ],
)
def test_a_server_that_cannot_be_asked_is_unknown(
    servers: Mapping[int, ServerObjects], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is asked; Minecraft here has no TCP port `primary`."""
    questions = asked(monkeypatch)
    with pytest.raises(Unknown, match=why):
        of(servers)
    assert not questions
