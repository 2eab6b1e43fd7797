"""Which Secrets there may be: of servers that have a disk, and the newest of them."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest

from disk_agent.lastlines.secret import MOST_BYTES, OVERHEAD, Kept, kept, left_over, secret, secret_name, too_many

UID = "6cf83f54-aaaa-4000-8000-000000000001"
ABOUT = {
    "pod": "pod",
    "restarts": 2,
    "created": "2026-11-27T11:00:00Z",
    "ended": "2026-11-27T12:00:00Z",
    "cut": True,
}
KEPT = Kept(f"log-{UID}", "7", OVERHEAD + 5, "2026-11-27T12:00:00Z", "2026-11-27T11:00:00Z", "u", "4")


def test_the_secret() -> None:
    """The whole object, and what its metadata alone tell."""
    made = secret(f"log-{UID}", "7", b"lines", ABOUT)
    assert made == {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": f"log-{UID}",
            "labels": {
                "app.kubernetes.io/component": "kept-log",
                "app.kubernetes.io/part-of": "gameserver-cluster",
                "app.kubernetes.io/managed-by": "sftp-agent",
                "gameserver/id": "7",
            },
            "annotations": {
                "gameserver/log-bytes": "5",
                "gameserver/log-created": "2026-11-27T11:00:00Z",
                "gameserver/log-ended": "2026-11-27T12:00:00Z",
            },
        },
        "type": "Opaque",
        "data": {"log.gz": base64.b64encode(b"lines").decode(), "about": made["data"]["about"]},
    }
    assert json.loads(base64.b64decode(made["data"]["about"])) == ABOUT
    assert kept({"metadata": {**made["metadata"], "uid": "u", "resourceVersion": "4"}}) == KEPT


@pytest.mark.parametrize("uid", ["", "a b", "../x", "-a", "a-", "A", "a" * 64, "a\n"])
def test_a_uid_that_cannot_be_part_of_a_name(uid: str) -> None:
    """Somebody may have set any uid by hand."""
    assert secret_name(uid) is None


@pytest.mark.parametrize("annotations", [None, {}, {"gameserver/log-bytes": "-5"}, {"gameserver/log-bytes": "٣"}])
def test_an_unknown_size_counts_as_large(annotations: Any) -> None:
    """And as the oldest, so that it goes first."""
    found = kept({"metadata": {"name": "log-x", "annotations": annotations}})
    assert (found.bytes, found.ended) == (OVERHEAD + (1 << 20), "")


def test_the_oldest_go_first() -> None:
    """As many as must, whatever the order of the list."""
    secrets = [replace(KEPT, name=f"log-{n}", bytes=10, ended=f"2026-11-2{n}T12:00:00Z") for n in range(9)]
    assert too_many(secrets[::-1], 90) == []
    assert [each.name for each in too_many(secrets[::-1], 75)] == ["log-0", "log-1"]
    assert too_many([replace(KEPT, bytes=MOST_BYTES)]) == []


def test_what_no_disk_has_is_left_over() -> None:
    """Unless it is new: the claims that are known may be some moments old."""
    secrets = [replace(KEPT, name=f"log-{name}") for name in "abc"]
    secrets.append(replace(KEPT, name="log-d", ended="2026-11-27T12:30:00Z"))
    assert [each.name for each in left_over(secrets, ["b"], "2026-11-27T12:20:00Z")] == ["log-a", "log-c"]
