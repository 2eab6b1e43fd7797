"""What a server is wanted to be, read from where it stands."""

from __future__ import annotations

import pytest

from service.servers.objects import ServerObjects
from service.servers.spec import server_uid, uid_of_values


@pytest.mark.parametrize(
    ("annotation", "uid"),
    [
        ('{"game": "minecraft", "uid": "own"}', "own"),
        # Made by an API that gave none, or written by hand.
        ('{"game": "minecraft"}', "statefulset's"),
        ('{"uid": ""}', "statefulset's"),
        ("[]", "statefulset's"),
        ("{", "statefulset's"),
        (None, "statefulset's"),
    ],
)
def test_a_server_is_told_from_others_of_its_id(annotation: str | None, uid: str) -> None:
    """By its own uid, or by that of its StatefulSet."""
    annotations = {} if annotation is None else {"gameserver/server": annotation}
    statefulset = {"metadata": {"uid": "statefulset's", "annotations": annotations}}
    assert server_uid(ServerObjects(1, statefulset=statefulset)) == uid


def test_what_is_not_there_has_no_uid() -> None:
    """As while a deleted server's game still ends."""
    assert server_uid(ServerObjects(1)) is None


def test_a_hand_may_have_written_anything_into_the_values() -> None:
    """Then there is no uid in them."""
    for server in (None, [], "x", {}, {"uid": None}, {"uid": ""}):
        assert uid_of_values({"server": server}) is None
    assert uid_of_values({"server": {"uid": "own"}}) == "own"
