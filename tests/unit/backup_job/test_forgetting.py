"""Which snapshots go. Pure: the rest of `forget` is restic's."""

from __future__ import annotations

from typing import Any

import pytest

from backup_job.repository import _goes
from backup_job.request import Request
from backup_job.restic import Snapshot

#: The oldest first, as restic.snapshots has them.
SNAPSHOTS = [
    Snapshot("1" * 64, "2026-11-27T01:00:00Z", ("first-pass=b-1",), "u"),
    Snapshot("2" * 64, "2026-11-27T01:00:01Z", ("backup=b-1",), "u"),
    Snapshot("3" * 64, "2026-11-27T02:00:00Z", ("backup=b-2",), "u"),
    # A repeated Job made it.
    Snapshot("4" * 64, "2026-11-27T02:00:01Z", ("backup=b-2",), "u"),
    # An operator's own.
    Snapshot("5" * 64, "2026-11-27T03:00:00Z", (), "u"),
    Snapshot("6" * 64, "2026-11-27T03:00:01Z", (), "u"),
]


@pytest.mark.parametrize(
    ("asked", "going"),
    [
        ({}, "14"),
        ({"snapshots": ("2" * 64,)}, "124"),
        ({"snapshots": ("3" * 64,)}, "134"),
        ({"snapshots": ("9" * 64,), "backups": ("b-9",)}, "14"),
        ({"backups": ("b-2",)}, "134"),
    ],
)
def test_first_passes_and_what_was_made_twice_go_with_what_is_asked(asked: dict[str, Any], going: str) -> None:
    made: set[str] = set()
    request = Request("forget", **asked)
    assert "".join(snapshot.id[0] for snapshot in SNAPSHOTS if _goes(snapshot, request, made)) == going
