"""A create for which there are not enough node ports leaves nothing behind."""

from __future__ import annotations

from typing import Any

import pytest

from service import errors
from tests.api.conftest import Client
from tests.support.fakes import World

OK = {"ram_gb": 2, "disk_gb": 10}
URL = "/api/v1/server/1/"


@pytest.fixture
def world() -> World:
    """Two node ports are left: enough for the game and RCON, not for files."""
    world = World()
    world.last_node_port = world.node_port + 2
    return world


def refused(answer: Any) -> bool:
    return (answer.status_code, answer.json["type"]) == (503, "/problems/no-node-port-left")


def test_nothing_is_half_done(client: Client, world: World) -> None:
    """No server, no Service that would hold a port, no disk; the same create succeeds once there are ports."""
    answer = client.post(URL, OK)
    assert refused(answer)
    assert answer.headers["Retry-After"] == "60"
    assert (world.services, world.claims, world.statefulsets, world.pods, world.revisions) == ({}, {}, {}, {}, {})
    assert client.get(URL).status_code == 404
    assert client.delete(URL).status_code == 404
    world.last_node_port += 100
    assert client.post(URL, OK).status_code == 201


def test_a_disk_that_was_reused_stays(client: Client, world: World) -> None:
    """It has an earlier server's world, and is a kept disk again."""
    world.last_node_port += 1
    client.post(URL, OK)
    client.delete(URL)
    assert refused(client.post(URL, {**OK, "disk": "reuse"}))
    assert ("erase", 1) not in world.history
    assert [kept["id"] for kept in client.get("/api/v1/disk/").json["disks"]] == [1]  # type: ignore[index]
    assert client.get(URL).status_code == 404
    world.last_node_port += 100
    assert client.post(URL, {**OK, "disk": "reuse"}).status_code == 201


def test_a_disk_that_was_to_be_erased_is(client: Client, world: World) -> None:
    """The client has asked for it, and the new one was never used."""
    world.last_node_port += 1
    client.post(URL, OK)
    client.delete(URL)
    assert refused(client.post(URL, {**OK, "disk": "erase"}))
    assert world.claims == {}
    assert world.history[-3:] == [("install", 1), ("uninstall", 1), ("erase", 1)]


def test_a_server_made_meanwhile_keeps_its_disk(client: Client, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica that froze while it took the server back finds another's, made over the disk that was left."""
    releases = client.flask.application.extensions["gameserver"].releases
    uninstall = releases.uninstall

    def frozen(id: int) -> bool:
        done: bool = uninstall(id)
        world.last_node_port += 100
        releases.install(id, {"diskGb": 10})
        return done

    monkeypatch.setattr(releases, "uninstall", frozen)
    assert refused(client.post(URL, OK))
    assert list(world.claims) == [1]
    assert client.get(URL).status_code == 200


def test_what_cannot_be_taken_back_is_finished_by_the_same_create(
    client: Client, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer still says what the matter is; no disk goes from under a half server."""
    releases = client.flask.application.extensions["gameserver"].releases

    def away(id: int) -> bool:
        raise errors.ClusterUnavailable

    monkeypatch.setattr(releases, "uninstall", away)
    assert refused(client.post(URL, OK))
    assert list(world.claims) == [1]
    assert refused(client.post(URL, OK))
    assert list(world.claims) == [1]
    world.last_node_port += 100
    assert client.post(URL, OK).status_code == 201
    assert len(world.services) == 2
