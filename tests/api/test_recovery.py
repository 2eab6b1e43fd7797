"""A server that a lost cluster had is created again, and the controller is told to restore its newest backup."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from service.operations.context import Context
from service.settings import Settings
from tests.api.conftest import SIZES, Client
from tests.support import tokens
from tests.support.fakes import World

CALL = "/api/v1/server/4711/_recover"
UID = "6cf83f54-2f7a-4c56-8f58-4b0a4b9d5d3e"
VALUES = {
    "game": "minecraft",
    "ramGb": 2,
    "diskGb": 20,
    "replicas": 1,
    "server": {"id": "4711", "uid": UID, "customer": "acme", "options": {"motd": "hi"}, "restoring": "op-lost"},
    "storage": {"dataSource": {"kind": "VolumeSnapshot", "name": "lost"}},
    "schedules": {"nightly": {"cron": "H 4 * * *"}},
    "keepPodInRevision": 7,
}
BACKUPS = [
    {"id": f"b-{number:020x}", "snapshot": f"{number:064x}", "created": f"2026-11-2{number}T04:00:00Z"}
    for number in (5, 6)
]
BODY: dict[str, Any] = {"uid": UID, "values": VALUES, "backups": BACKUPS}


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    """With a store, and the operator's token for a recovery."""
    entries = [
        tokens.entry("recovery", "recovery-secret", scopes=["recover"]),
        tokens.entry("confined", "confined-secret", scopes=["recover"], customer="acme"),
        tokens.entry("shop", "shop-secret"),
    ]
    path = tokens.write(tmp_path / "tokens.json", *entries)
    return replace(settings, tokens_file=path, backup_store={"kind": "folder"})


@pytest.fixture
def app(make_app: Callable[..., Flask]) -> Flask:
    return make_app()


@pytest.fixture
def client(app: Flask) -> Client:
    return Client(app.test_client())


def changed(**more: Any) -> dict[str, Any]:
    """BODY with other values."""
    return {**deepcopy(BODY), **more}


def test_it_gets_its_uid_its_settings_and_its_backups(client: Client, app: Flask, world: World) -> None:
    """Not what was about the lost cluster. It does not run before its world is there."""
    context: Context = app.extensions["gameserver"]
    answer = client.post(CALL, BODY, token="recovery")
    assert answer.status_code == 202
    operation = answer.get_json()["operation"]
    assert answer.headers["Location"] == f"/api/v1/operation/{operation}"
    assert world.values[4711] == {
        "game": "minecraft",
        "ramGb": 2,
        "diskGb": 20,
        "replicas": 1,
        "server": {"id": "4711", "uid": UID, "customer": "acme", "options": {"motd": "hi"}, "restoring": operation},
        "storage": {"deferred": True},
        "schedules": {"nightly": {"cron": "H 4 * * *"}},
    }
    found = context.operations.get(operation)
    assert found
    assert (found.action, found.argument) == ("clone", {"from": {"backup": BACKUPS[-1]["id"], "uid": UID}})
    kept = context.backups.of(UID)
    assert kept
    assert (kept.id, kept.customer, kept.game, kept.repository.made is None) == (4711, "acme", "minecraft", False)
    assert [(each.id, each.snapshot, each.state, each.where) for each in kept.backups] == [
        (each["id"], each["snapshot"], "done", "store") for each in BACKUPS
    ]


def test_again_it_is_there_already(client: Client, world: World) -> None:
    """The Job can be repeated."""
    client.post(CALL, BODY, token="recovery")
    before = deepcopy(world.values)
    answer = client.post(CALL, BODY, token="recovery")
    assert (answer.status_code, answer.get_json()) == (200, {"success": True, "operation": None})
    assert world.values == before


def test_another_servers_id_is_not_taken(client: Client, world: World) -> None:
    """Whoever has the id now keeps it, and nothing is remembered."""
    client.post("/api/v1/server/4711/", SIZES)
    before = deepcopy(world.values)
    answer = client.post(CALL, BODY, token="recovery")
    assert (answer.status_code, answer.get_json()["type"]) == (409, "/problems/server-exists")
    assert world.values == before


@pytest.mark.parametrize(
    ("body", "token", "status"),
    [
        (BODY, "shop", 403),
        (BODY, "confined", 403),
        (changed(uid="other"), "recovery", 422),
        (changed(values={**VALUES, "server": {**VALUES["server"], "id": "4712"}}), "recovery", 422),  # type: ignore[dict-item]
        (changed(values={"server": 7}), "recovery", 422),
        (changed(values=[]), "recovery", 422),
        (changed(backups=[]), "recovery", 422),
        (changed(backups=[{**BACKUPS[0], "snapshot": "latest"}]), "recovery", 422),
        ({"uid": UID}, "recovery", 422),
    ],
)
def test_what_is_not_for_it_is_refused(
    client: Client, world: World, body: dict[str, Any], token: str, status: int
) -> None:
    """No bundle has the scope: its holder installs any values. Nothing is created."""
    assert client.post(CALL, body, token=token).status_code == status
    assert world.values == {}


def test_without_a_store_there_is_nothing_to_recover_from(make_app: Callable[..., Flask]) -> None:
    """The cluster has to have the store."""
    answer = Client(make_app(backup_store=None).test_client()).post(CALL, BODY, token="recovery")
    assert (answer.status_code, answer.get_json()["type"]) == (409, "/problems/backups-not-possible")
