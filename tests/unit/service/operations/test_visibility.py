"""Whether the server that a call names is suspended, whatever of it is left."""

from __future__ import annotations

import json
from typing import Any

import pytest

from service.operations.visibility import Target
from service.servers.names import SERVER
from service.servers.objects import ServerObjects
from service.servers.spec import ServerSpec, Suspension

SUSPENSION = Suspension("The invoice is overdue.", "2026-01-01T00:00:00Z")
OPEN, SUSPENDED = ServerSpec("minecraft", 1, 1), ServerSpec("minecraft", 1, 1, suspended=SUSPENSION)


def claim(record: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"annotations": {SERVER: json.dumps(record)}}}


@pytest.mark.parametrize(
    ("spec", "disk", "suspended"),
    [
        (SUSPENDED, None, SUSPENSION),
        (SUSPENDED, claim({}), SUSPENSION),
        (OPEN, None, None),
        (OPEN, claim({"suspended": vars(SUSPENSION)}), None),
        (None, claim({"suspended": vars(SUSPENSION)}), SUSPENSION),
        (None, claim({}), None),
        (None, None, None),
    ],
)
def test_the_spec_says_whether_a_server_is_suspended_or_else_its_disk(
    spec: ServerSpec | None, disk: dict[str, Any] | None, suspended: Suspension | None
) -> None:
    """A server of which nothing but the disk can be read, or a deleted one, does not come open by that."""
    assert Target(7, ServerObjects(7, claim=disk), spec).suspended == suspended
