"""What the endpoints do with servers beyond the main path."""

from __future__ import annotations

import json
import threading
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest

from service import errors
from service.operations.census import count_servers
from tests.api.conftest import Client
from tests.support.fakes import TIME, FakeCluster, World
from tests.support.games import MINECRAFT

OK = {"ram_gb": 2, "disk_gb": 10}


def problem(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json["type"].removeprefix("/problems/")


# -- create ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("other", "fields"),
    [
        ({**OK, "ram_gb": 3}, ["ram_gb"]),
        ({**OK, "disk_gb": 9}, ["disk_gb"]),
        ({**OK, "options": {"motd": "x"}}, ["options"]),
        ({**OK, "rcon": "private", "customer": "a"}, ["customer", "rcon"]),
    ],
)
def test_another_create_for_the_same_id_is_a_conflict(
    client: Client, world: World, other: dict[str, Any], fields: list[str]
) -> None:
    """409 that names what differs, and nothing changes."""
    client.post("/api/v1/server/1/", OK)
    answer = client.post("/api/v1/server/1/", other)
    assert problem(answer) == (409, "server-exists")
    assert answer.json is not None
    assert answer.json["errors"] == {field: ["differs from the server that exists"] for field in fields}
    assert world.history == [("install", 1)]


def test_a_create_says_all_that_it_may(client: Client, world: World) -> None:
    """Every field arrives in the values."""
    body = {
        **OK,
        "game": "minecraft",
        "options": {"motd": 'a "b"\n{{ c }}'},
        "start": False,
        "rcon": "private",
        "customer": "acme",
        "disk": "reuse",
    }
    assert client.post("/api/v1/server/1/", body).status_code == 201
    assert world.values[1] | {"environment": world.values[1]["environment"]["MOTD"]} == {
        "game": "minecraft",
        "server": {"id": "1", "uid": ANY, "customer": "acme", "options": {"motd": 'a "b"\n{{ c }}'}},
        "replicas": 0,
        "ramGb": 2,
        "diskGb": 10,
        "rcon": {"visibility": "private"},
        "ports": [{"name": "primary", "port": 25565, "protocol": "TCP"}],
        "heap": {"environmentVariable": "MEMORY"},
        "terminationGracePeriodSeconds": 120,
        "environment": 'a "b"\n{{ c }}',
    }


def test_a_failed_create_is_finished_by_the_same_one(client: Client, world: World) -> None:
    """It is no server like any other until it is whole."""
    world.failure = errors.OperationFailed()
    answer = client.post("/api/v1/server/1/", OK)
    assert problem(answer) == (500, "operation-failed")
    assert answer.headers["Retry-After"] == "10"
    status = client.get("/api/v1/server/1/").json
    assert status is not None
    assert (status["state"], status["game"], status["ram_gb"]) == ("failed", "minecraft", 2)
    assert client.post("/api/v1/server/1/", OK).status_code == 201
    assert client.post("/api/v1/server/1/", OK).status_code == 200
    assert world.history == [("install", 1), ("change", 1)]


def test_a_create_that_never_ended_takes_what_the_operator_has_mended(
    client: Client, make_app: Any, world: World, tmp_path: Path
) -> None:
    """The values that could not be installed are not tried for ever."""
    world.failure = errors.RefusedByCluster()
    client.post("/api/v1/server/1/", OK)
    mended = tmp_path / "server-values.yaml"
    mended.write_text("all: {storage: {className: there-is-one}}\n")
    again = Client(make_app(server_values_file=mended).test_client()).post("/api/v1/server/1/", OK)
    assert again.status_code == 201
    assert world.values[1]["storage"] == {"className": "there-is-one"}


def test_a_create_looks_at_the_release_as_it_is_now(client: Client, world: World, monkeypatch: Any) -> None:
    """What a read says of a release may be some milliseconds old: it is no reason to install it once more."""
    client.post("/api/v1/server/1/", OK)
    cluster = client.flask.application.extensions["gameserver"].cluster
    now = cluster.server(1)
    old = replace(now, releases=({"labels": {"status": "pending-install", "version": "1"}},))
    monkeypatch.setattr(cluster, "server", lambda id: old)
    assert client.post("/api/v1/server/1/", OK).status_code == 200
    assert world.history == [("install", 1)]


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (errors.OperationInProgress(retry_after=7), (409, "operation-in-progress", "7")),
        (errors.TooManyOperations(), (429, "too-many-operations", "5")),
        (errors.NoNodePortLeft(), (503, "no-node-port-left", "60")),
        (errors.ClusterUnavailable(), (503, "cluster-unavailable", "5")),
        (errors.RefusedByCluster(), (503, "refused-by-cluster", "30")),
        (RuntimeError("secret detail"), (500, "internal-error", None)),
    ],
)
def test_a_failure_of_the_edges_is_answered_as_what_it_is(
    client: Client, world: World, failure: Any, expected: tuple[int, str, str | None]
) -> None:
    """With Retry-After where waiting helps, and without the cause."""
    world.failure = failure
    answer = client.post("/api/v1/server/1/", OK)
    assert (*problem(answer), answer.headers.get("Retry-After")) == expected
    assert "secret detail" not in answer.text


# -- kept disks --------------------------------------------------------------------------------------------


@pytest.fixture
def kept(client: Client, world: World) -> World:
    """Server 1 was deleted, and its disk of 10 GiB kept."""
    client.post("/api/v1/server/1/", OK)
    client.delete("/api/v1/server/1/")
    world.history.clear()
    return world


def test_kept_disks_are_listed(client: Client, kept: World) -> None:
    """id, size, since when; a disk in use is none."""
    client.post("/api/v1/server/2/", OK)
    answer = client.get("/api/v1/disk/").json
    assert answer is not None
    since = answer["disks"][0].pop("since")
    assert answer == {"success": True, "disks": [{"id": 1, "disk_gb": 10}]}
    assert abs(datetime.now(UTC) - datetime.fromisoformat(since)) < timedelta(minutes=1)


@pytest.mark.parametrize(("size", "disk_gb"), [("2Pi", 2 * 2**20), ("1E", 931_322_575), ("500M", 1)])
def test_a_disk_of_any_size_is_listed(client: Client, kept: World, size: str, disk_gb: int) -> None:
    """However its claim writes the size: an operator may have made it."""
    kept.claims[1]["spec"]["resources"]["requests"]["storage"] = size
    assert [disk["disk_gb"] for disk in client.get("/api/v1/disk/").json["disks"]] == [disk_gb]  # type: ignore[index]


def test_a_disk_being_erased_is_not_kept(client: Client, world: World) -> None:
    """Even while a pod still uses it."""
    client.post("/api/v1/server/1/", OK)
    client.delete("/api/v1/server/1/")
    world.run(1)
    client.delete("/api/v1/server/1/?disk=erase")
    assert list(world.claims) == [1]
    assert client.get("/api/v1/disk/").json == {"success": True, "disks": []}


def test_a_disk_that_a_hand_left_has_its_own_age(client: Client, world: World) -> None:
    """`helm uninstall` writes down no time."""
    client.post("/api/v1/server/1/", OK)
    world.forget(1)
    assert client.get("/api/v1/disk/").json == {"success": True, "disks": [{"id": 1, "disk_gb": 10, "since": TIME}]}


def test_a_kept_disk_has_to_be_decided_upon(client: Client, kept: World) -> None:
    """Nobody gets an old world by accident."""
    answer = client.post("/api/v1/server/1/", OK)
    assert problem(answer) == (409, "disk-kept")
    assert answer.json is not None
    assert answer.json["errors"] == {"disk": ["must be reuse or erase: a disk was kept under this id"]}
    assert kept.history == []


def test_a_kept_disk_is_reused(client: Client, kept: World) -> None:
    """And `disk` counts only then: the same create again is the same."""
    assert client.post("/api/v1/server/1/", {**OK, "disk": "reuse"}).status_code == 201
    assert kept.history == [("install", 1)]
    assert client.post("/api/v1/server/1/", {**OK, "disk": "erase"}).status_code == 200
    assert kept.history == [("install", 1)]


def test_another_customer_gets_no_disk_of_the_one_before(client: Client, world: World) -> None:
    """Not even where the shop says so by mistake: ids are used again. To erase it is allowed."""
    client.post("/api/v1/server/1/", {**OK, "customer": "acme"})
    client.delete("/api/v1/server/1/")
    other = {**OK, "customer": "other"}
    for body in (OK, other):
        answer = client.post("/api/v1/server/1/", {**body, "disk": "reuse"})
        assert problem(answer) == (409, "disk-kept")
        assert answer.json is not None
        assert answer.json["errors"] == {"disk": ["must be erase: the disk is of another customer"]}
    assert client.post("/api/v1/server/1/", {**OK, "customer": "acme", "disk": "reuse"}).status_code == 201
    client.delete("/api/v1/server/1/")
    assert client.post("/api/v1/server/1/", {**other, "disk": "erase"}).status_code == 201


def test_each_create_gives_a_uid_of_its_own(client: Client, world: World) -> None:
    """It lasts as long as the server, and stands where every reader finds it."""
    client.post("/api/v1/server/1/", OK)
    first = world.values[1]["server"]["uid"]
    assert uuid.UUID(first)
    client.patch("/api/v1/server/1/", {"ram_gb": 3})
    client.patch("/api/v1/server/1/stop")
    client.post("/api/v1/server/1/", {**OK, "ram_gb": 3})
    assert world.values[1]["server"]["uid"] == first
    client.delete("/api/v1/server/1/?disk=erase")
    client.post("/api/v1/server/1/", OK)
    assert world.values[1]["server"]["uid"] != first


@pytest.mark.parametrize(("disk_gb", "slug"), [(9, "disk-cannot-shrink"), (11, "disk-cannot-grow")])
def test_a_reused_disk_keeps_its_size(client: Client, kept: World, disk_gb: int, slug: str) -> None:
    """Smaller never; larger where the storage class can."""
    body = {**OK, "disk_gb": disk_gb, "disk": "reuse"}
    assert problem(client.post("/api/v1/server/1/", body)) == (409, slug)
    assert kept.history == []


def test_a_reused_disk_grows_where_it_can(client: Client, kept: World) -> None:
    """As in a resize."""
    kept.expandable = True
    assert client.post("/api/v1/server/1/", {**OK, "disk_gb": 11, "disk": "reuse"}).status_code == 201
    assert kept.values[1]["diskGb"] == 11


def test_a_kept_disk_is_erased_for_a_new_server(client: Client, kept: World) -> None:
    """Any size goes then."""
    assert client.post("/api/v1/server/1/", {**OK, "disk_gb": 1, "disk": "erase"}).status_code == 201
    assert kept.history == [("erase", 1), ("install", 1)]


def test_a_disk_still_being_erased_is_waited_for(client: Client, kept: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """409 with Retry-After, whether it was asked for before or now."""
    monkeypatch.setattr("service.operations.create._ERASE_SECONDS", 0.1)
    kept.run(1)
    for _ in range(2):
        answer = client.post("/api/v1/server/1/", {**OK, "disk": "erase"})
        assert problem(answer) == (409, "disk-being-erased")
        assert answer.headers["Retry-After"] == "5"
    assert kept.history == [("erase", 1)]


def test_delete_works_on_a_kept_disk_too(client: Client, kept: World) -> None:
    """Keeping it is nothing to do; erasing it twice ends in 404, as there is neither server nor disk."""
    assert client.delete("/api/v1/server/1/").json == {"success": True}
    assert list(kept.claims) == [1]
    assert client.delete("/api/v1/server/1/?disk=erase").json == {"success": True}
    assert list(kept.claims) == []
    assert problem(client.delete("/api/v1/server/1/?disk=erase")) == (404, "server-not-found")


def test_delete_with_erase_takes_server_and_disk(client: Client, world: World) -> None:
    """In this order."""
    client.post("/api/v1/server/1/", {**OK, "start": False})
    client.delete("/api/v1/server/1/?disk=erase")
    assert world.history == [("install", 1), ("uninstall", 1), ("erase", 1)]


def test_a_deleted_server_is_seen_until_its_game_has_ended(client: Client, world: World) -> None:
    """It saves its world first."""
    client.post("/api/v1/server/1/", OK)
    pod = world.pods[1]
    client.delete("/api/v1/server/1/")
    world.pods[1] = {**pod, "metadata": {**pod["metadata"], "deletionTimestamp": TIME}}
    shown = client.get("/api/v1/server/1/").json
    assert client.get("/api/v1/server/").json["servers"] == [  # type: ignore[index]
        {key: value for key, value in (shown or {}).items() if key != "success"}
    ]
    assert shown == {
        "success": True,
        "id": 1,
        "game": None,
        "ram_gb": None,
        "disk_gb": None,
        "options": None,
        "wanted": "deleted",
        "state": "deleting",
        "reason": None,
        "since": world.claims[1]["metadata"]["annotations"]["gameserver/kept-since"],
        "host": None,
        "ports": {},
    }
    assert client.patch("/api/v1/server/1/start").status_code == 404


def test_a_disk_that_never_was_is_not_kept(client: Client, world: World) -> None:
    """Of a server that was never started nothing stays, nor is anything in the way of the next of that id."""
    client.post("/api/v1/server/1/", {**OK, "start": False})
    assert world.claims[1]["status"]["phase"] == "Pending"
    assert client.delete("/api/v1/server/1/").json == {"success": True}
    assert world.claims == {}
    assert client.get("/api/v1/disk/").json == {"success": True, "disks": []}
    assert problem(client.delete("/api/v1/server/1/")) == (404, "server-not-found")

    # A hand's uninstall leaves the claim; it is nothing that was kept, and no other server's size or class.
    client.post("/api/v1/server/1/", {**OK, "disk_gb": 20, "start": False})
    world.forget(1)
    assert list(world.claims) == [1]
    assert client.get("/api/v1/disk/").json == {"success": True, "disks": []}
    assert client.post("/api/v1/server/1/", {**OK, "start": False}).status_code == 201
    assert world.claims[1]["spec"]["resources"]["requests"] == {"storage": "10Gi"}
    world.forget(1)
    assert client.delete("/api/v1/server/1/").json == {"success": True}
    assert world.claims == {}


@pytest.mark.parametrize(
    "claim",
    [
        {"status": {"phase": "Lost"}, "spec": {"volumeName": "pv-1"}},
        {"status": {"phase": "Pending"}, "spec": {"volumeName": "pv-1"}},
        {"status": {"phase": "Pending"}, "spec": {"dataSourceRef": {"kind": "VolumeSnapshot", "name": "backup"}}},
        {"status": {"phase": "Pending"}, "metadata": {"annotations": {}}},
    ],
    ids=["lost", "of a certain volume", "to be filled from a snapshot", "of somebody else's making"],
)
def test_a_disk_that_may_hold_a_world_is_kept(client: Client, world: World, claim: dict[str, Any]) -> None:
    """Whatever it looks like otherwise."""
    client.post("/api/v1/server/1/", {**OK, "start": False})
    there = world.claims[1]
    for key, value in claim.items():
        there[key] = {**there[key], **value}
    client.delete("/api/v1/server/1/")
    assert list(world.claims) == [1]
    assert problem(client.post("/api/v1/server/1/", OK)) == (409, "disk-kept")
    assert client.get("/api/v1/disk/").json["disks"][0]["id"] == 1  # type: ignore[index]


# -- change ------------------------------------------------------------------------------------------------


def test_a_resize_changes_its_keys_alone(client: Client, world: World) -> None:
    """What a hand has set since stays, and a stopped server does not start."""
    client.post("/api/v1/server/1/", {**OK, "options": {"motd": "hi"}})
    world.values[1]["nodeSelector"] = {"disk": "fast"}
    world.values[1]["environment"]["MOTD"] = "by hand"
    before = world.values[1]
    assert client.patch("/api/v1/server/1/", {"ram_gb": 4}).json == {"success": True, "restarting": True}
    assert world.values[1] == {**before, "ramGb": 4}
    client.patch("/api/v1/server/1/stop")
    assert client.patch("/api/v1/server/1/", {"ram_gb": 5}).json == {"success": True, "restarting": False}
    assert world.values[1] == {**before, "ramGb": 5, "replicas": 0}


def test_a_change_to_what_is_there_changes_nothing(client: Client, world: World) -> None:
    """Idempotent; so is an empty one."""
    client.post("/api/v1/server/1/", OK)
    for body in ({}, OK, {"options": {}}, {"options": {"motd": None}}):
        assert client.patch("/api/v1/server/1/", body).json == {"success": True, "restarting": False}
    assert world.history == [("install", 1)]


def test_options_are_changed_by_name(client: Client, world: World) -> None:
    """Those not named stay, and null takes one back."""
    client.post("/api/v1/server/1/", {**OK, "options": {"motd": "hi", "mode": "creative"}})
    body = {"options": {"motd": None, "difficulty": "hard"}}
    assert client.patch("/api/v1/server/1/", body).json == {"success": True, "restarting": True}
    assert world.values[1]["server"]["options"] == {"mode": "creative", "difficulty": "hard"}
    assert world.values[1]["environment"] == {
        **MINECRAFT,
        "VERSION": "1.21.4",
        "MODE": "creative",
        "DIFFICULTY": "hard",
        "MOTD": "A Minecraft Server",
    }


#: The environment that the first release made of `{"ops": ["Ada", "Eve"], "whitelist": ["Ada"], "pvp": false}`.
MADE_LONG_AGO = {
    "EULA": "TRUE",
    "STOP_SERVER_ANNOUNCE_DELAY": "10",
    "STOP_DURATION": "60",
    "PVP": "FALSE",
    "OPS": "Ada,Eve",
    "ENABLE_WHITELIST": "TRUE",
    "ENFORCE_WHITELIST": "TRUE",
    "WHITELIST": "Ada",
    "BY_HAND": "x",
}


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"motd": "hi"}, {"MOTD": "hi"}),
        ({"ops": ["Ada"]}, {"OPS": "Ada", "EXISTING_OPS_FILE": "SYNCHRONIZE"}),
        # The same list again: Eve may have been taken out of it when that left her in the file.
        ({"ops": ["Ada", "Eve"]}, {"EXISTING_OPS_FILE": "SYNCHRONIZE"}),
        ({"ops": None}, {"OPS": "", "EXISTING_OPS_FILE": "SYNCHRONIZE"}),
        ({"pvp": None}, {"PVP": "TRUE"}),
        ({"version": "1.21.4"}, {"VERSION": "1.21.4"}),
        (
            {"whitelist": None},
            {
                "ENABLE_WHITELIST": "FALSE",
                "ENFORCE_WHITELIST": "FALSE",
                "WHITELIST": "",
                "EXISTING_WHITELIST_FILE": "SYNCHRONIZE",
            },
        ),
    ],
)
def test_a_server_made_long_ago_takes_a_change_whole_and_nothing_else(
    client: Client, world: World, options: dict[str, Any], difference: dict[str, str]
) -> None:
    """What today's template says of an option comes with its change; no other option and no version does."""
    client.post("/api/v1/server/1/", {**OK, "options": {"ops": ["Ada", "Eve"], "whitelist": ["Ada"], "pvp": False}})
    world.values[1]["environment"] = dict(MADE_LONG_AGO)
    assert client.patch("/api/v1/server/1/", {"options": options}).json == {"success": True, "restarting": True}
    assert world.values[1]["environment"] == {**MADE_LONG_AGO, **difference}
    assert client.patch("/api/v1/server/1/", {"options": options}).json == {"success": True, "restarting": False}


def test_a_version_is_the_servers_for_life(client: Client, world: World) -> None:
    """It stands in the values, and only the option itself moves it."""
    client.post("/api/v1/server/1/", OK)
    world.values[1]["environment"]["VERSION"] = "1.20.6"
    client.patch("/api/v1/server/1/", {"ram_gb": 4, "options": {"motd": "hi", "type": "PAPER"}})
    client.patch("/api/v1/server/1/restart")
    assert world.values[1]["environment"]["VERSION"] == "1.20.6"
    client.patch("/api/v1/server/1/", {"options": {"version": "1.21.1"}})
    assert world.values[1]["environment"]["VERSION"] == "1.21.1"


NUMBERS = [1.0, 1000.0, 0.1, -0.0, 1e-7, 1.5e300, 2**53, 2**53 + 1, -(2**63), 10**30, 0, 7]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_number_comes_back_as_it_was_sent(make_app: Any, world: World, tmp_path: Path, number: float) -> None:
    """Through what Helm does to numbers; and the same create again is the same."""
    client = Client(make_app(games_dir=_pong(tmp_path)).test_client())
    body = {**OK, "game": "pong", "options": {"speed": number}}
    assert client.post("/api/v1/server/1/", body).status_code == 201
    world.through_helm(1)
    assert client.post("/api/v1/server/1/", body).status_code == 200
    for answer in (client.get("/api/v1/server/1/").json, client.get("/api/v1/server/").json["servers"][0]):  # type: ignore[index]
        assert json.dumps(answer["options"]) == json.dumps(body["options"])  # type: ignore[index]
    assert client.patch("/api/v1/server/1/", {"options": {"speed": number}}).json == {
        "success": True,
        "restarting": False,
    }


def test_the_numbers_of_a_server_made_long_ago_are_still_read(make_app: Any, world: World, tmp_path: Path) -> None:
    """Its options are a mapping, in which Helm wrote 1.0 as 1. True is another value still."""
    client = Client(make_app(games_dir=_pong(tmp_path)).test_client())
    body = {**OK, "game": "pong", "options": {"speed": 1.0}}
    client.post("/api/v1/server/1/", body)
    world.values[1]["server"]["options"] = {"speed": 1}
    world.apply(1, world.values[1])
    assert client.get("/api/v1/server/1/").json["options"] == {"speed": 1}  # type: ignore[index]
    assert client.post("/api/v1/server/1/", body).status_code == 200
    assert client.post("/api/v1/server/1/", {**body, "options": {"speed": True}}).status_code == 409
    client.patch("/api/v1/server/1/", {"options": {"speed": True}})
    assert client.get("/api/v1/server/1/").json["options"] == {"speed": True}  # type: ignore[index]


def _pong(where: Path) -> Path:
    """A game with an option that takes any number, or true."""
    folder = where / "games"
    folder.mkdir()
    (folder / "pong.game.yaml").write_text("name: pong\ntitle: Pong\ndescription: Bats.\n")
    (folder / "pong.values.yaml.j2").write_text(
        "ports: [{name: primary, port: 1, protocol: UDP}]\n"
        'environment: {SPEED: {{ options.get("speed", 0) | string | tojson }}}\n'
    )
    schema = {
        "type": "object",
        "additionalProperties": False,
        "properties": {"speed": {"type": ["number", "boolean"]}},
    }
    (folder / "pong.options.schema.json").write_text(json.dumps(schema))
    return folder


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"options": {"moon": 1}}, "options.moon"),
        ({"options": {"mode": "x"}}, "options.mode"),
        ({"ram_gb": 0}, "ram_gb"),
        ({"disk_gb": None}, "disk_gb"),
        ({"game": "minecraft"}, "game"),
        ({"options": "x"}, "options"),
    ],
)
def test_a_wrong_change_is_refused(client: Client, world: World, body: dict[str, Any], field: str) -> None:
    """422 naming the field; nothing is done by halves."""
    client.post("/api/v1/server/1/", OK)
    answer = client.patch("/api/v1/server/1/", {"ram_gb": 4, **body})
    assert answer.json is not None
    assert (answer.status_code, list(answer.json["errors"])) == (422, [field])
    assert world.history == [("install", 1)]


def test_a_disk_never_shrinks_and_grows_where_it_can(client: Client, world: World) -> None:
    """409 that says from where on; growing restarts nothing."""
    client.post("/api/v1/server/1/", OK)
    answer = client.patch("/api/v1/server/1/", {"disk_gb": 9})
    assert answer.json == {
        "success": False,
        "type": "/problems/disk-cannot-shrink",
        "title": "A disk cannot become smaller",
        "status": 409,
        "detail": "Kubernetes can grow a disk, never shrink it.",
        "errors": {"disk_gb": ["must not be smaller than 10"]},
    }
    assert problem(client.patch("/api/v1/server/1/", {"disk_gb": 11})) == (409, "disk-cannot-grow")
    assert world.history == [("install", 1)]
    world.expandable = True
    world.claims[1]["status"] = {"phase": "Pending"}
    unmade = client.patch("/api/v1/server/1/", {"disk_gb": 11})
    assert problem(unmade) == (409, "disk-cannot-grow")
    assert unmade.json is not None
    assert unmade.json["errors"] == {"disk_gb": ["must be 10 until the server's first start, which makes the disk"]}
    assert world.history == [("install", 1)]
    world.claims[1]["status"] = {"phase": "Bound"}
    assert client.patch("/api/v1/server/1/", {"disk_gb": 11}).json == {"success": True, "restarting": False}
    assert world.values[1]["diskGb"] == 11


def test_a_restart_of_a_stopped_server_starts_it(client: Client, world: World) -> None:
    """As with any service manager."""
    client.post("/api/v1/server/1/", {**OK, "start": False})
    client.patch("/api/v1/server/1/restart")
    assert world.values[1]["replicas"] == 1


@pytest.mark.parametrize("call", ["PATCH start", "PATCH stop", "PATCH restart", "PATCH port/rcon", "GET rcon", "GET "])
def test_an_unknown_server_is_not_found(client: Client, call: str) -> None:
    """Whatever is asked of it."""
    method, path = call.split(" ")
    assert problem(client.call(method, f"/api/v1/server/5/{path}")) == (404, "server-not-found")
    assert problem(client.patch("/api/v1/server/5/", {"ram_gb": 2})) == (404, "server-not-found")
    assert problem(client.patch("/api/v1/server/5/port/sftp")) == (404, "server-not-found")


def test_an_operation_under_way_is_a_conflict(client: Client) -> None:
    """409 with Retry-After for every write, and reads go on."""
    client.post("/api/v1/server/1/", OK)
    releases = client.flask.application.extensions["gameserver"].releases
    holding = releases._locks[1]
    taken, free = threading.Event(), threading.Event()

    def hold() -> None:
        with holding:
            taken.set()
            free.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait(10)
    try:
        for method, path, body in (
            ("POST", "", OK),
            ("PATCH", "", {"ram_gb": 3}),
            ("PATCH", "restart", None),
            ("DELETE", "", None),
        ):
            answer = client.call(method, f"/api/v1/server/1/{path}", body)
            assert problem(answer) == (409, "operation-in-progress")
            assert answer.headers["Retry-After"] == "1"
        assert client.get("/api/v1/server/1/").status_code == 200
    finally:
        free.set()
        thread.join()


# -- reads -------------------------------------------------------------------------------------------------


def test_the_reason_ends_with_the_games_last_lines(client: Client, world: World) -> None:
    """Of a crashed game, five of them."""
    client.post("/api/v1/server/1/", OK)
    ended = {"reason": "Error", "exitCode": 1, "finishedAt": TIME}
    world.pods[1]["status"] = {"containerStatuses": [{"name": "game", "state": {"terminated": ended}}]}
    world.logs[1] = "\n".join("abcdefg")
    status = client.get("/api/v1/server/1/").json
    assert status is not None
    assert status["reason"] == "The game crashed (exit code 1). Its last log lines: c | d | e | f | g"


def test_events_tell_why_there_is_no_pod(client: Client, world: World) -> None:
    """They are read where they can matter."""
    client.post("/api/v1/server/1/", OK)
    del world.pods[1]
    world.events[1] = [{"reason": "FailedCreate", "message": "x failed error: violates PodSecurity: no"}]
    status = client.get("/api/v1/server/1/").json
    assert status is not None
    assert (status["state"], status["reason"]) == ("failed", "Pod security refused the server's pod: : no")


def test_servers_are_listed_by_pages(client: Client) -> None:
    """In the order of their ids; each once."""
    for id in (10, 9, 100):
        client.post(f"/api/v1/server/{id}/", OK)
    first = client.get("/api/v1/server/?limit=2").json
    assert first is not None
    assert ([server["id"] for server in first["servers"]], first["continue"]) == ([9, 10], "10")
    second = client.get(f"/api/v1/server/?limit=2&continue={first['continue']}").json
    one = client.get("/api/v1/server/100/").json
    assert one is not None
    assert one.pop("success") is True
    assert second == {"success": True, "servers": [one], "continue": None}


def test_private_rcon_stays_inside(client: Client) -> None:
    """The Service's own port and name."""
    client.post("/api/v1/server/1/", {**OK, "rcon": "private"})
    inside = {"host": "server-1-rcon.gameservers.svc", "port": 25575}
    assert client.patch("/api/v1/server/1/port/rcon").json == {"success": True, "protocol": "TCP", **inside}
    assert client.get("/api/v1/server/1/rcon").json == {"success": True, "password": "password-1", **inside}


def test_file_access_that_is_not_installed_says_so(client: Client) -> None:
    """501, and no such port among the server's."""
    client.post("/api/v1/server/1/", OK)
    assert problem(client.patch("/api/v1/server/1/port/sftp")) == (501, "file-access-not-installed")
    status = client.get("/api/v1/server/1/").json
    assert status is not None
    assert list(status["ports"]) == ["primary", "rcon"]


def test_a_port_that_is_not_there_yet_or_not_at_all(client: Client, world: World) -> None:
    """503 with Retry-After while it comes; 404 where the operator has switched it off."""
    client.post("/api/v1/server/1/", OK)
    entry = world.services["server-1"]["spec"]["ports"].pop()
    assert problem(client.patch("/api/v1/server/1/port/rcon")) == (404, "port-not-found")
    del entry["nodePort"]
    world.services["server-1"]["spec"]["ports"].append(entry)
    answer = client.patch("/api/v1/server/1/port/rcon")
    assert problem(answer) == (503, "port-not-ready")
    assert answer.headers["Retry-After"] == "2"


def test_the_operators_host_goes_before_a_nodes(make_app: Any) -> None:
    """Where players reach the cluster by a name."""
    client = Client(make_app(external_host="play.example").test_client())
    client.post("/api/v1/server/1/", OK)
    answer = client.patch("/api/v1/server/1/port/primary").json
    assert answer is not None
    assert answer["host"] == "play.example"


def test_the_catalogue(client: Client) -> None:
    """Each game with its options' schema."""
    answer = client.get("/api/v1/game").json
    assert answer is not None
    game = next(game for game in answer["games"] if game["name"] == "minecraft")
    options = game.pop("options")
    assert game == {
        "name": "minecraft",
        "title": "Minecraft (Java Edition)",
        "description": "The Minecraft server for Java Edition clients, in the image itzg/minecraft-server or one that "
        "keeps its contract.",
        "eula": "https://www.minecraft.net/eula",
        "eula_accepted": True,
        "ports": [{"name": "primary", "port": 25565, "protocol": "TCP"}],
    }
    assert options["additionalProperties"] is False


def test_one_server_the_list_and_the_metrics_say_the_same(client: Client, world: World) -> None:
    """Also where only events tell why there is no pod."""
    client.post("/api/v1/server/1/", OK)
    world.pods.clear()
    refused = {"reason": "FailedCreate", "message": "exceeded quota: mem, requested: 2Gi", "firstTimestamp": TIME}
    world.events[1] = [refused]
    one = client.get("/api/v1/server/1/").json
    assert one is not None
    assert (one["state"], one["reason"]) == ("failed", "A quota refused the server's pod: mem, requested: 2Gi")
    assert client.get("/api/v1/server/").json["servers"] == [  # type: ignore[index]
        {key: value for key, value in one.items() if key != "success"}
    ]
    assert [server["state"] for server in count_servers(FakeCluster(world))] == ["failed"]
