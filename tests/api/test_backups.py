"""Backups through the API: made, shown, changed and deleted, and by whom."""

from __future__ import annotations

from typing import Any

import pytest

from service.settings import Keep
from tests.api.conftest import SIZES, Client
from tests.support.fakes import World

SERVER = "/api/v1/server/1/"
KEEP = {"last": 2, "hourly": 0, "daily": 7, "weekly": 0}


def test_how_many_backups_stay_is_set_shown_and_taken_back(client: Client, world: World) -> None:
    """By create and change. What is not named is 0; null is the operator's default, and leaves no value."""
    client.post(SERVER, {**SIZES, "backup_keep": {"last": 2, "daily": 7}})
    assert world.values[1]["server"]["backupKeep"] == KEEP
    assert client.get(SERVER).get_json()["backup_keep"] == KEEP
    assert client.post(SERVER, SIZES).status_code == 200
    assert client.post(SERVER, {**SIZES, "backup_keep": None}).status_code == 409
    changed = client.patch(SERVER, {"backup_keep": {"weekly": 1}}).get_json()
    assert changed == {"success": True, "restarting": False}
    assert client.get(SERVER).get_json()["backup_keep"] == vars(Keep(0, 0, 0, 1))
    client.patch(SERVER, {"backup_keep": None})
    assert client.get(SERVER).get_json()["backup_keep"] is None
    assert "backupKeep" not in world.values[1]["server"]


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ({}, "must keep from 1 to 20 in all"),
        ({"last": 20, "daily": 1}, "must keep from 1 to 20 in all"),
        ({"last": -1, "daily": 2}, "must not be negative"),
        ({"last": "2"}, "must be a whole number"),
        ({"last": 1, "yearly": 1}, "unknown field"),
        ([], "must be an object"),
    ],
)
def test_how_many_backups_stay_has_bounds(client: Client, world: World, keep: Any, message: str) -> None:
    """At least one stays, because a new backup must not be the one that goes; and no more than a server may have."""
    client.post(SERVER, SIZES)
    answer = client.patch(SERVER, {"backup_keep": keep})
    assert answer.status_code == 422
    assert message in str(answer.get_json()["errors"])
    assert "backupKeep" not in world.values[1]["server"]
