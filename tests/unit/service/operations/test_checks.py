"""Whether a release's values are still those of the server that a call names."""

from __future__ import annotations

import json
from typing import Any

import pytest

from service.errors import ServerNotFound
from service.operations.checks import require_same_server
from service.operations.visibility import Target
from service.servers.names import SERVER
from service.servers.objects import ServerObjects
from service.servers.spec import ServerSpec, spec_of_objects

ACME = {"customer": "acme"}
FIRST = {**ACME, "uid": "first"}


def statefulset(record: Any) -> dict[str, Any]:
    return {"metadata": {"uid": "made-by-kubernetes", "annotations": {SERVER: json.dumps(record)}}}


@pytest.mark.parametrize(
    ("before", "now", "is_same"),
    [
        (FIRST, FIRST, True),
        (FIRST, {**ACME, "uid": "second"}, False),
        (FIRST, {"customer": "umbrella", "uid": "second"}, False),
        (FIRST, ACME, True),
        (FIRST, {"customer": "umbrella"}, False),
        (FIRST, {}, False),
        (ACME, ACME, True),
        (ACME, {"customer": "umbrella", "uid": "second"}, False),
        ({}, {}, True),
        ({}, {"uid": "second", "customer": "umbrella"}, False),
        (None, FIRST, True),
        (None, ACME, True),
        (None, {"customer": "umbrella", "uid": "second"}, False),
        (None, {}, False),
    ],
)
def test_a_server_is_known_by_its_uid_or_else_by_its_customer(
    before: dict[str, Any] | None, now: dict[str, Any], is_same: bool
) -> None:
    """`before` is what its StatefulSet says, None if it is missing; then the spec is that of acme's release."""
    objects = ServerObjects(7, statefulset=None if before is None else statefulset(before))
    target = Target(7, objects, spec_of_objects(objects) or ServerSpec("minecraft", 1, 1, customer="acme"))
    current = {"game": "minecraft", "ramGb": 3, "server": now}
    if not is_same:
        with pytest.raises(ServerNotFound):
            require_same_server(target, current)
        return
    spec = require_same_server(target, current)
    assert (spec.ram_gb, spec.customer) == (3, now.get("customer", ""))


def test_a_server_of_which_nothing_is_known_is_not_the_same() -> None:
    """Its StatefulSet says nothing, and it had no release when the call came: what has one now came later."""
    objects = ServerObjects(7, statefulset={"metadata": {}})
    with pytest.raises(ServerNotFound):
        require_same_server(Target(7, objects, None), {"server": {}})
