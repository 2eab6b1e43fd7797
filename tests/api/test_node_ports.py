"""A create that runs out of node ports leaves nothing behind."""

from __future__ import annotations

from typing import Any

import pytest

from service import errors
from tests.api.conftest import SIZES, Client
from tests.support.fakes import World

URL = "/api/v1/server/1/"


@pytest.fixture
def world() -> World:
    """A cluster with two free node ports: enough for the game and RCON, but not for files."""
    world = World()
    world.last_node_port = world.node_port + 2
    return world


def is_refused(answer: Any) -> bool:
    return (answer.status_code, answer.json["type"]) == (503, "/problems/no-node-port-left")


def test_a_failed_create_leaves_nothing_behind(client: Client, world: World) -> None:
    """It leaves no server, no Service that holds a port and no disk; it succeeds once there are ports."""
    answer = client.post(URL, SIZES)
    assert is_refused(answer)
    assert answer.headers["Retry-After"] == "60"
    assert (world.services, world.claims, world.statefulsets, world.pods, world.revisions) == ({}, {}, {}, {}, {})
    assert client.get(URL).status_code == 404
    assert client.delete(URL).status_code == 404
    world.last_node_port += 100
    assert client.post(URL, SIZES).status_code == 201


def test_a_reused_disk_stays(client: Client, world: World) -> None:
    """It holds an earlier server's world, so it becomes a kept disk again."""
    world.last_node_port += 1
    client.post(URL, SIZES)
    client.delete(URL)
    assert is_refused(client.post(URL, {**SIZES, "disk": "reuse"}))
    assert ("erase", 1) not in world.history
    assert [kept["id"] for kept in client.get("/api/v1/disk/").json["disks"]] == [1]  # type: ignore[index]
    assert client.get(URL).status_code == 404
    world.last_node_port += 100
    assert client.post(URL, {**SIZES, "disk": "reuse"}).status_code == 201


def test_a_disk_is_erased_if_the_create_says_so(client: Client, world: World) -> None:
    """The old disk is erased because the client asked for it, the new one because it was never used."""
    world.last_node_port += 1
    client.post(URL, SIZES)
    client.delete(URL)
    assert is_refused(client.post(URL, {**SIZES, "disk": "erase"}))
    assert world.claims == {}
    assert world.history[-3:] == [("install", 1), ("uninstall", 1), ("erase", 1)]


def test_a_server_made_meanwhile_keeps_its_disk(client: Client, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica that froze during its cleanup finds that another one has created the server with the same disk."""
    releases = client.flask.application.extensions["gameserver"].releases
    uninstall = releases.uninstall

    def frozen(id: int) -> bool:
        uninstalled: bool = uninstall(id)
        world.last_node_port += 100
        releases.install(id, {"diskGb": 10})
        return uninstalled

    monkeypatch.setattr(releases, "uninstall", frozen)
    assert is_refused(client.post(URL, SIZES))
    assert list(world.claims) == [1]
    assert client.get(URL).status_code == 200


def test_the_same_create_completes_what_could_not_be_cleaned_up(
    client: Client, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer still names the node ports, and the disk of the unfinished server stays."""
    releases = client.flask.application.extensions["gameserver"].releases

    def fail(id: int) -> bool:
        raise errors.ClusterUnavailable

    monkeypatch.setattr(releases, "uninstall", fail)
    assert is_refused(client.post(URL, SIZES))
    assert list(world.claims) == [1]
    assert is_refused(client.post(URL, SIZES))
    assert list(world.claims) == [1]
    world.last_node_port += 100
    assert client.post(URL, SIZES).status_code == 201
    assert len(world.services) == 2
