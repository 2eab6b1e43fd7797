"""The calls for servers beyond the main path."""

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
from tests.api.conftest import SIZES, Client
from tests.support.fakes import TIME, FakeCluster, World
from tests.support.games import MINECRAFT

UNKNOWN_USE = {"size_gb": 10, "used_gb": None, "as_of": None, "enforced": None}
"""A disk of 10 GiB of which no agent has told anything."""


def problem(answer: Any) -> tuple[int, str]:
    """The status and the slug of an error."""
    return answer.status_code, answer.json["type"].removeprefix("/problems/")


# -- create ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("other", "fields"),
    [
        ({**SIZES, "ram_gb": 3}, ["ram_gb"]),
        ({**SIZES, "disk_gb": 9}, ["disk_gb"]),
        ({**SIZES, "options": {"motd": "x"}}, ["options"]),
        ({**SIZES, "rcon": "private", "customer": "a"}, ["customer", "rcon"]),
    ],
)
def test_a_different_create_for_the_same_id_is_a_conflict(
    client: Client, world: World, other: dict[str, Any], fields: list[str]
) -> None:
    """It answers 409, names the fields that differ, and changes nothing."""
    client.post("/api/v1/server/1/", SIZES)
    answer = client.post("/api/v1/server/1/", other)
    assert problem(answer) == (409, "server-exists")
    assert answer.json is not None
    assert answer.json["errors"] == {field: ["differs from the existing server"] for field in fields}
    assert world.history == [("install", 1)]


def test_every_field_of_a_create_reaches_the_values(client: Client, world: World) -> None:
    """This includes options with quotes, newlines and template syntax."""
    body = {
        **SIZES,
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
        "stop": {"delayVariable": "STOP_SERVER_ANNOUNCE_DELAY", "durationVariable": "STOP_DURATION"},
        "environment": 'a "b"\n{{ c }}',
    }


def test_repeating_a_failed_create_completes_it(client: Client, world: World) -> None:
    """Until then, the server is in the state `failed`."""
    world.failure = errors.OperationFailed()
    answer = client.post("/api/v1/server/1/", SIZES)
    assert problem(answer) == (500, "operation-failed")
    assert answer.headers["Retry-After"] == "10"
    status = client.get("/api/v1/server/1/").json
    assert status is not None
    assert (status["state"], status["game"], status["ram_gb"]) == ("failed", "minecraft", 2)
    assert client.post("/api/v1/server/1/", SIZES).status_code == 201
    assert client.post("/api/v1/server/1/", SIZES).status_code == 200
    assert world.history == [("install", 1), ("change", 1)]


def test_repeating_a_failed_create_uses_the_operators_new_values(
    client: Client, make_app: Any, world: World, tmp_path: Path
) -> None:
    """Otherwise the values that could not be installed would be tried forever."""
    world.failure = errors.RefusedByCluster()
    client.post("/api/v1/server/1/", SIZES)
    fixed = tmp_path / "server-values.yaml"
    fixed.write_text("all: {storage: {className: there-is-one}}\n")
    answer = Client(make_app(server_values_file=fixed).test_client()).post("/api/v1/server/1/", SIZES)
    assert answer.status_code == 201
    assert world.values[1]["storage"] == {"className": "there-is-one"}


def test_a_create_reads_the_current_release(client: Client, world: World, monkeypatch: Any) -> None:
    """A read of the cluster may be a few milliseconds old, which must not cause a second install."""
    client.post("/api/v1/server/1/", SIZES)
    cluster = client.flask.application.extensions["gameserver"].cluster
    now = cluster.server(1)
    old = replace(now, releases=({"labels": {"status": "pending-install", "version": "1"}},))
    monkeypatch.setattr(cluster, "server", lambda id: old)
    assert client.post("/api/v1/server/1/", SIZES).status_code == 200
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
def test_each_failure_of_helm_and_kubernetes_has_its_own_answer(
    client: Client, world: World, failure: Any, expected: tuple[int, str, str | None]
) -> None:
    """The answer has `Retry-After` if waiting helps, and never shows the cause."""
    world.failure = failure
    answer = client.post("/api/v1/server/1/", SIZES)
    assert (*problem(answer), answer.headers.get("Retry-After")) == expected
    assert "secret detail" not in answer.text


# -- kept disks --------------------------------------------------------------------------------------------


@pytest.fixture
def kept(client: Client, world: World) -> World:
    """Server 1 was deleted, and its disk of 10 GiB kept."""
    client.post("/api/v1/server/1/", SIZES)
    client.delete("/api/v1/server/1/")
    world.history.clear()
    return world


def test_kept_disks_are_listed(client: Client, kept: World) -> None:
    """The list has their id, size and time, and no disks that are in use."""
    client.post("/api/v1/server/2/", SIZES)
    answer = client.get("/api/v1/disk/").json
    assert answer is not None
    since = answer["disks"][0].pop("since")
    assert answer == {"success": True, "disks": [{"id": 1, "disk_gb": 10, "disk": UNKNOWN_USE}]}
    assert abs(datetime.now(UTC) - datetime.fromisoformat(since)) < timedelta(minutes=1)


@pytest.mark.parametrize(("size", "disk_gb"), [("2Pi", 2 * 2**20), ("1E", 931_322_575), ("500M", 1)])
def test_a_disk_of_any_size_is_listed(client: Client, kept: World, size: str, disk_gb: int) -> None:
    """The claim may use any unit, because an operator may have created it."""
    kept.claims[1]["spec"]["resources"]["requests"]["storage"] = size
    assert [disk["disk_gb"] for disk in client.get("/api/v1/disk/").json["disks"]] == [disk_gb]  # type: ignore[index]


def test_a_disk_that_is_being_erased_is_not_listed(client: Client, world: World) -> None:
    """This is true even while a pod still uses it."""
    client.post("/api/v1/server/1/", SIZES)
    client.delete("/api/v1/server/1/")
    world.run(1)
    client.delete("/api/v1/server/1/?disk=erase")
    assert list(world.claims) == [1]
    assert client.get("/api/v1/disk/").json == {"success": True, "disks": []}


def test_a_disk_kept_by_hand_has_its_own_age(client: Client, world: World) -> None:
    """`helm uninstall` does not record when the server was deleted."""
    client.post("/api/v1/server/1/", SIZES)
    world.forget(1)
    disk = {"id": 1, "disk_gb": 10, "disk": UNKNOWN_USE, "since": TIME}
    assert client.get("/api/v1/disk/").json == {"success": True, "disks": [disk]}


def test_a_create_over_a_kept_disk_must_say_what_to_do(client: Client, kept: World) -> None:
    """Nobody gets an old world by accident, or loses one."""
    answer = client.post("/api/v1/server/1/", SIZES)
    assert problem(answer) == (409, "disk-kept")
    assert answer.json is not None
    assert answer.json["errors"] == {"disk": ["must be reuse or erase: there is a kept disk with this id"]}
    assert kept.history == []


def test_a_kept_disk_can_be_reused(client: Client, kept: World) -> None:
    """Repeating the create changes nothing, whatever `disk` says then."""
    assert client.post("/api/v1/server/1/", {**SIZES, "disk": "reuse"}).status_code == 201
    assert kept.history == [("install", 1)]
    assert client.post("/api/v1/server/1/", {**SIZES, "disk": "erase"}).status_code == 200
    assert kept.history == [("install", 1)]


def test_a_kept_disk_is_never_reused_for_another_customer(client: Client, world: World) -> None:
    """The shop may use an id again and make a mistake. Erasing the disk is allowed."""
    client.post("/api/v1/server/1/", {**SIZES, "customer": "acme"})
    client.delete("/api/v1/server/1/")
    other = {**SIZES, "customer": "other"}
    for body in (SIZES, other):
        answer = client.post("/api/v1/server/1/", {**body, "disk": "reuse"})
        assert problem(answer) == (409, "disk-kept")
        assert answer.json is not None
        assert answer.json["errors"] == {"disk": ["must be erase: the disk belongs to another customer"]}
    assert client.post("/api/v1/server/1/", {**SIZES, "customer": "acme", "disk": "reuse"}).status_code == 201
    client.delete("/api/v1/server/1/")
    assert client.post("/api/v1/server/1/", {**other, "disk": "erase"}).status_code == 201


def test_each_created_server_has_its_own_uid(client: Client, world: World) -> None:
    """It stays the same until the server is deleted."""
    client.post("/api/v1/server/1/", SIZES)
    first = world.values[1]["server"]["uid"]
    assert uuid.UUID(first)
    client.patch("/api/v1/server/1/", {"ram_gb": 3})
    client.patch("/api/v1/server/1/stop")
    client.post("/api/v1/server/1/", {**SIZES, "ram_gb": 3})
    assert world.values[1]["server"]["uid"] == first
    client.delete("/api/v1/server/1/?disk=erase")
    client.post("/api/v1/server/1/", SIZES)
    assert world.values[1]["server"]["uid"] != first


@pytest.mark.parametrize(("disk_gb", "slug"), [(9, "disk-cannot-shrink"), (11, "disk-cannot-grow")])
def test_a_reused_disk_keeps_its_size(client: Client, kept: World, disk_gb: int, slug: str) -> None:
    """A create that asks for another size fails."""
    body = {**SIZES, "disk_gb": disk_gb, "disk": "reuse"}
    assert problem(client.post("/api/v1/server/1/", body)) == (409, slug)
    assert kept.history == []


def test_a_reused_disk_grows_if_its_class_allows_it(client: Client, kept: World) -> None:
    """A create can grow it, like a resize."""
    kept.expandable = True
    assert client.post("/api/v1/server/1/", {**SIZES, "disk_gb": 11, "disk": "reuse"}).status_code == 201
    assert kept.values[1]["diskGb"] == 11


def test_a_kept_disk_can_be_erased_for_a_new_server(client: Client, kept: World) -> None:
    """The new disk can have any size."""
    assert client.post("/api/v1/server/1/", {**SIZES, "disk_gb": 1, "disk": "erase"}).status_code == 201
    assert kept.history == [("erase", 1), ("install", 1)]


def test_a_disk_that_is_being_erased_is_a_conflict(
    client: Client, kept: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The create that starts the erase and the next one get 409 with `Retry-After`."""
    monkeypatch.setattr("service.operations.create._ERASE_SECONDS", 0.1)
    kept.run(1)
    for _ in range(2):
        answer = client.post("/api/v1/server/1/", {**SIZES, "disk": "erase"})
        assert problem(answer) == (409, "disk-being-erased")
        assert answer.headers["Retry-After"] == "5"
    assert kept.history == [("erase", 1)]


def test_delete_works_on_a_kept_disk(client: Client, kept: World) -> None:
    """Without an erase it does nothing. A second erase answers 404, because there is neither server nor disk."""
    assert client.delete("/api/v1/server/1/").json == {"success": True}
    assert list(kept.claims) == [1]
    assert client.delete("/api/v1/server/1/?disk=erase").json == {"success": True}
    assert list(kept.claims) == []
    assert problem(client.delete("/api/v1/server/1/?disk=erase")) == (404, "server-not-found")


def test_delete_with_erase_removes_server_and_disk(client: Client, world: World) -> None:
    """The server is removed first."""
    client.post("/api/v1/server/1/", {**SIZES, "start": False})
    client.delete("/api/v1/server/1/?disk=erase")
    assert world.history == [("install", 1), ("uninstall", 1), ("erase", 1)]


def test_a_deleted_server_is_visible_until_its_game_has_ended(client: Client, world: World) -> None:
    """The game saves its world first; until then the state is `deleting`."""
    client.post("/api/v1/server/1/", SIZES)
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
        "disk": UNKNOWN_USE,
        "options": None,
        "wanted": "deleted",
        "state": "deleting",
        "reason": None,
        "since": world.claims[1]["metadata"]["annotations"]["gameserver/kept-since"],
        "suspended": None,
        "operation": None,
        "notes": [],
        "idle_stop_minutes": None,
        "backup_keep": None,
        "players": None,
        "usage": None,
        "idle": None,
        "host": None,
        "ports": {},
    }
    assert client.patch("/api/v1/server/1/start").status_code == 404


def test_a_disk_that_never_existed_is_not_kept(client: Client, world: World) -> None:
    """A server that never started leaves nothing behind, and nothing blocks the next server with its id."""
    client.post("/api/v1/server/1/", {**SIZES, "start": False})
    assert world.claims[1]["status"]["phase"] == "Pending"
    assert client.delete("/api/v1/server/1/").json == {"success": True}
    assert world.claims == {}
    assert client.get("/api/v1/disk/").json == {"success": True, "disks": []}
    assert problem(client.delete("/api/v1/server/1/")) == (404, "server-not-found")

    # An uninstall by hand leaves the claim. It is not a kept disk, and the next server gets a new claim.
    client.post("/api/v1/server/1/", {**SIZES, "disk_gb": 20, "start": False})
    world.forget(1)
    assert list(world.claims) == [1]
    assert client.get("/api/v1/disk/").json == {"success": True, "disks": []}
    assert client.post("/api/v1/server/1/", {**SIZES, "start": False}).status_code == 201
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
        {"status": {"phase": "Pending"}, "spec": {"selector": {"matchLabels": {"velero.io/dynamic-pv-restore": "a"}}}},
        {"status": {"phase": "Pending"}, "metadata": {"annotations": {}}},
    ],
    ids=["lost", "bound to a volume", "filled from a snapshot", "waits for a tool", "created by someone else"],
)
def test_a_disk_that_may_hold_a_world_is_kept(client: Client, world: World, claim: dict[str, Any]) -> None:
    """Only a claim that surely never had a volume is not kept."""
    client.post("/api/v1/server/1/", {**SIZES, "start": False})
    existing = world.claims[1]
    for key, value in claim.items():
        existing[key] = {**existing[key], **value}
    client.delete("/api/v1/server/1/")
    assert list(world.claims) == [1]
    assert problem(client.post("/api/v1/server/1/", SIZES)) == (409, "disk-kept")
    assert client.get("/api/v1/disk/").json["disks"][0]["id"] == 1  # type: ignore[index]


# -- change ------------------------------------------------------------------------------------------------


def test_a_resize_changes_only_the_size(client: Client, world: World) -> None:
    """Values that an operator has set stay, and a stopped server stays stopped."""
    client.post("/api/v1/server/1/", {**SIZES, "options": {"motd": "hi"}})
    world.values[1]["nodeSelector"] = {"disk": "fast"}
    world.values[1]["environment"]["MOTD"] = "by hand"
    before = world.values[1]
    assert client.patch("/api/v1/server/1/", {"ram_gb": 4}).json == {"success": True, "restarting": True}
    assert world.values[1] == {**before, "ramGb": 4}
    client.patch("/api/v1/server/1/stop")
    assert client.patch("/api/v1/server/1/", {"ram_gb": 5}).json == {"success": True, "restarting": False}
    assert world.values[1] == {**before, "ramGb": 5, "replicas": 0}


def test_a_change_to_the_same_values_changes_nothing(client: Client, world: World) -> None:
    """The call is idempotent, and an empty change does nothing."""
    client.post("/api/v1/server/1/", SIZES)
    bodies: tuple[dict[str, Any], ...] = ({}, SIZES, {"options": {}}, {"options": {"motd": None}})
    for body in bodies:
        assert client.patch("/api/v1/server/1/", body).json == {"success": True, "restarting": False}
    assert world.history == [("install", 1)]


def test_options_are_changed_by_name(client: Client, world: World) -> None:
    """Other options stay, and null resets one to its default."""
    client.post("/api/v1/server/1/", {**SIZES, "options": {"motd": "hi", "mode": "creative"}})
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


#: What the first version rendered for `{"ops": ["Ada", "Eve"], "whitelist": ["Ada"], "pvp": false}`.
OLD_ENVIRONMENT = {
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
        # The same list again: an earlier version may have left a removed player in the file.
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
def test_an_old_server_gets_exactly_the_requested_change(
    client: Client, world: World, options: dict[str, Any], difference: dict[str, str]
) -> None:
    """The changed option is rendered by today's template; other options and the version stay."""
    client.post("/api/v1/server/1/", {**SIZES, "options": {"ops": ["Ada", "Eve"], "whitelist": ["Ada"], "pvp": False}})
    world.values[1]["environment"] = dict(OLD_ENVIRONMENT)
    assert client.patch("/api/v1/server/1/", {"options": options}).json == {"success": True, "restarting": True}
    assert world.values[1]["environment"] == {**OLD_ENVIRONMENT, **difference}
    assert client.patch("/api/v1/server/1/", {"options": options}).json == {"success": True, "restarting": False}


def test_a_server_keeps_its_version(client: Client, world: World) -> None:
    """Only the option `version` changes the version in the values."""
    client.post("/api/v1/server/1/", SIZES)
    world.values[1]["environment"]["VERSION"] = "1.20.6"
    client.patch("/api/v1/server/1/", {"ram_gb": 4, "options": {"motd": "hi", "type": "PAPER"}})
    client.patch("/api/v1/server/1/restart")
    assert world.values[1]["environment"]["VERSION"] == "1.20.6"
    client.patch("/api/v1/server/1/", {"options": {"version": "1.21.1"}})
    assert world.values[1]["environment"]["VERSION"] == "1.21.1"


NUMBERS = [1.0, 1000.0, 0.1, -0.0, 1e-7, 1.5e300, 2**53, 2**53 + 1, -(2**63), 10**30, 0, 7]


def test_a_number_is_returned_unchanged(make_app: Any, world: World, tmp_path: Path) -> None:
    """Helm's conversion of numbers does not change it, and repeating the create changes nothing."""
    client = Client(make_app(games_dir=_pong(tmp_path)).test_client())
    for id, number in enumerate(NUMBERS, 1):
        path, options = f"/api/v1/server/{id}/", {"speed": number}
        body = {**SIZES, "game": "pong", "options": options}
        assert client.post(path, body).status_code == 201
        world.through_helm(id)
        assert client.post(path, body).status_code == 200
        answers = client.get(path).json, client.get("/api/v1/server/").json["servers"][id - 1]  # type: ignore[index]
        assert [json.dumps(answer["options"]) for answer in answers] == [json.dumps(options)] * 2  # type: ignore[index]
        assert client.patch(path, {"options": options}).json == {"success": True, "restarting": False}


def test_the_numbers_of_an_old_server_are_still_read(make_app: Any, world: World, tmp_path: Path) -> None:
    """Its options are a mapping in which Helm wrote 1.0 as 1; true is still a different value."""
    client = Client(make_app(games_dir=_pong(tmp_path)).test_client())
    body = {**SIZES, "game": "pong", "options": {"speed": 1.0}}
    client.post("/api/v1/server/1/", body)
    world.values[1]["server"]["options"] = {"speed": 1}
    world.apply(1, world.values[1])
    assert client.get("/api/v1/server/1/").json["options"] == {"speed": 1}  # type: ignore[index]
    assert client.post("/api/v1/server/1/", body).status_code == 200
    assert client.post("/api/v1/server/1/", {**body, "options": {"speed": True}}).status_code == 409
    client.patch("/api/v1/server/1/", {"options": {"speed": True}})
    assert client.get("/api/v1/server/1/").json["options"] == {"speed": True}  # type: ignore[index]


def _pong(parent: Path) -> Path:
    """A folder with a game whose option accepts any number or a boolean."""
    folder = parent / "games"
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
def test_an_invalid_change_is_refused(client: Client, world: World, body: dict[str, Any], field: str) -> None:
    """The answer is 422 and names the field, and nothing changes."""
    client.post("/api/v1/server/1/", SIZES)
    answer = client.patch("/api/v1/server/1/", {"ram_gb": 4, **body})
    assert answer.json is not None
    assert (answer.status_code, list(answer.json["errors"])) == (422, [field])
    assert world.history == [("install", 1)]


def test_a_disk_never_shrinks_and_grows_if_its_class_allows_it(client: Client, world: World) -> None:
    """A size that is not possible answers 409 and names the limit; growing does not restart the game."""
    client.post("/api/v1/server/1/", SIZES)
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
    unbound = client.patch("/api/v1/server/1/", {"disk_gb": 11})
    assert problem(unbound) == (409, "disk-cannot-grow")
    assert unbound.json is not None
    assert unbound.json["errors"] == {"disk_gb": ["must be 10 until the server's first start, which creates the disk"]}
    assert world.history == [("install", 1)]
    world.claims[1]["status"] = {"phase": "Bound"}
    assert client.patch("/api/v1/server/1/", {"disk_gb": 11}).json == {"success": True, "restarting": False}
    assert world.values[1]["diskGb"] == 11


def test_a_restart_of_a_stopped_server_starts_it(client: Client, world: World) -> None:
    """Service managers behave in the same way."""
    client.post("/api/v1/server/1/", {**SIZES, "start": False})
    client.patch("/api/v1/server/1/restart")
    assert world.values[1]["replicas"] == 1


@pytest.mark.parametrize("call", ["PATCH start", "PATCH stop", "PATCH restart", "PATCH port/rcon", "GET rcon", "GET "])
def test_an_unknown_server_is_not_found(client: Client, call: str) -> None:
    """Every call answers 404."""
    method, path = call.split(" ")
    assert problem(client.call(method, f"/api/v1/server/5/{path}")) == (404, "server-not-found")
    assert problem(client.patch("/api/v1/server/5/", {"ram_gb": 2})) == (404, "server-not-found")
    assert problem(client.patch("/api/v1/server/5/port/sftp")) == (404, "server-not-found")


def test_an_operation_in_progress_is_a_conflict(client: Client) -> None:
    """Every write gets 409 with `Retry-After`, and reads still work."""
    client.post("/api/v1/server/1/", SIZES)
    releases = client.flask.application.extensions["gameserver"].releases
    lock = releases._locks[1]
    locked, release = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            locked.set()
            release.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    locked.wait(10)
    try:
        for method, path, body in (
            ("POST", "", SIZES),
            ("PATCH", "", {"ram_gb": 3}),
            ("PATCH", "restart", None),
            ("DELETE", "", None),
        ):
            answer = client.call(method, f"/api/v1/server/1/{path}", body)
            assert problem(answer) == (409, "operation-in-progress")
            assert answer.headers["Retry-After"] == "1"
        assert client.get("/api/v1/server/1/").status_code == 200
    finally:
        release.set()
        thread.join()


# -- reads -------------------------------------------------------------------------------------------------


def test_the_reason_of_a_crash_ends_with_the_games_last_lines(client: Client, world: World) -> None:
    """It has five lines of the log."""
    client.post("/api/v1/server/1/", SIZES)
    termination = {"reason": "Error", "exitCode": 1, "finishedAt": TIME}
    world.pods[1]["status"] = {"containerStatuses": [{"name": "game", "state": {"terminated": termination}}]}
    world.logs[1] = "\n".join("abcdefg")
    status = client.get("/api/v1/server/1/").json
    assert status is not None
    assert status["reason"] == "The game crashed (exit code 1). Its last log lines: c | d | e | f | g"


def test_events_explain_why_there_is_no_pod(client: Client, world: World) -> None:
    """The reason quotes the event of a refused pod."""
    client.post("/api/v1/server/1/", SIZES)
    del world.pods[1]
    world.events[1] = [{"reason": "FailedCreate", "message": "x failed error: violates PodSecurity: no"}]
    status = client.get("/api/v1/server/1/").json
    assert status is not None
    assert (status["state"], status["reason"]) == ("failed", "Pod security refused the server's pod: : no")


def test_servers_are_listed_by_pages(client: Client) -> None:
    """Each server is listed once, in the order of ids."""
    for id in (10, 9, 100):
        client.post(f"/api/v1/server/{id}/", SIZES)
    first = client.get("/api/v1/server/?limit=2").json
    assert first is not None
    assert ([server["id"] for server in first["servers"]], first["continue"]) == ([9, 10], "10")
    second = client.get(f"/api/v1/server/?limit=2&continue={first['continue']}").json
    server = client.get("/api/v1/server/100/").json
    assert server is not None
    assert server.pop("success") is True
    assert second == {"success": True, "servers": [server], "continue": None}


def test_private_rcon_has_an_address_inside_the_cluster(client: Client) -> None:
    """It is the port and the name of the Service."""
    client.post("/api/v1/server/1/", {**SIZES, "rcon": "private"})
    inside = {"host": "server-1-rcon.gameservers.svc", "port": 25575}
    assert client.patch("/api/v1/server/1/port/rcon").json == {"success": True, "protocol": "TCP", **inside}
    assert client.get("/api/v1/server/1/rcon").json == {"success": True, "password": "password-1", **inside}


def test_without_file_access_there_is_no_sftp_port(client: Client) -> None:
    """The call answers 501, and the server does not list the port."""
    client.post("/api/v1/server/1/", SIZES)
    assert problem(client.patch("/api/v1/server/1/port/sftp")) == (501, "file-access-not-installed")
    status = client.get("/api/v1/server/1/").json
    assert status is not None
    assert list(status["ports"]) == ["primary", "rcon"]


def test_a_port_that_is_not_ready_differs_from_a_missing_one(client: Client, world: World) -> None:
    """It answers 503 with `Retry-After` until it is ready, and 404 if the operator has turned it off."""
    client.post("/api/v1/server/1/", SIZES)
    entry = world.services["server-1"]["spec"]["ports"].pop()
    assert problem(client.patch("/api/v1/server/1/port/rcon")) == (404, "port-not-found")
    del entry["nodePort"]
    world.services["server-1"]["spec"]["ports"].append(entry)
    answer = client.patch("/api/v1/server/1/port/rcon")
    assert problem(answer) == (503, "port-not-ready")
    assert answer.headers["Retry-After"] == "2"


def test_the_operators_host_replaces_the_nodes(make_app: Any) -> None:
    """Players then reach all servers under one name."""
    client = Client(make_app(external_host="play.example").test_client())
    client.post("/api/v1/server/1/", SIZES)
    answer = client.patch("/api/v1/server/1/port/primary").json
    assert answer is not None
    assert answer["host"] == "play.example"


def test_games_are_listed(client: Client) -> None:
    """Each game has its ports, its licence and the schema of its options."""
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


def test_a_server_has_the_same_state_in_every_call_and_in_the_metrics(client: Client, world: World) -> None:
    """This is true even if only events explain why there is no pod."""
    client.post("/api/v1/server/1/", SIZES)
    world.pods.clear()
    refused = {"reason": "FailedCreate", "message": "exceeded quota: mem, requested: 2Gi", "firstTimestamp": TIME}
    world.events[1] = [refused]
    server = client.get("/api/v1/server/1/").json
    assert server is not None
    assert (server["state"], server["reason"]) == ("failed", "A quota refused the server's pod: mem, requested: 2Gi")
    assert client.get("/api/v1/server/").json["servers"] == [  # type: ignore[index]
        {key: value for key, value in server.items() if key != "success"}
    ]
    assert [server["state"] for server in count_servers(FakeCluster(world))] == ["failed"]
