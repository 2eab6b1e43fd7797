"""A server's uid is read from its objects or its values."""

from __future__ import annotations

from typing import Any

import pytest

from service.servers.objects import ServerObjects
from service.servers.spec import server_uid, uid_of_values


@pytest.mark.parametrize(
    ("annotation", "uid"),
    [
        ('{"game": "minecraft", "uid": "own"}', "own"),
        # Created by an API that set none, or written by hand.
        ('{"game": "minecraft"}', "statefulset's"),
        ('{"uid": ""}', "statefulset's"),
        ("[]", "statefulset's"),
        ("{", "statefulset's"),
        (None, "statefulset's"),
    ],
)
def test_a_server_has_a_uid_that_others_with_its_id_do_not(annotation: str | None, uid: str) -> None:
    """Its own, or its StatefulSet's."""
    annotations = {} if annotation is None else {"gameserver/server": annotation}
    statefulset = {"metadata": {"uid": "statefulset's", "annotations": annotations}}
    assert server_uid(ServerObjects(1, statefulset=statefulset)) == uid


def test_without_a_statefulset_there_is_no_uid() -> None:
    """For example, while a deleted server's game is still stopping."""
    assert server_uid(ServerObjects(1)) is None


def test_malformed_values_have_no_uid() -> None:
    """An operator may have written anything there."""
    malformed: list[Any] = [None, [], "x", {}, {"uid": None}, {"uid": ""}]
    for server in malformed:
        assert uid_of_values({"server": server}) is None
    assert uid_of_values({"server": {"uid": "own"}}) == "own"
