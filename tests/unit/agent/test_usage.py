"""The record of how full this node's disks are: what is in it, and when it is written."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest

from disk_agent.usage import MAX_BYTES, Use, config_map, moved, record, use
from tests.docs.snippets import block

GB = 1 << 30
HALF = Use(5 * GB, 10 * GB, full=False)
AS_OF = "2026-11-26T22:45:10Z"


def counts(*, free: int = 300, available: int = 300, inodes: int = 1000, free_inodes: int = 10) -> os.statvfs_result:
    """statvfs(3): 1000 blocks of 4 KiB."""
    return os.statvfs_result((1 << 20, 4096, 1000, free, available, inodes, free_inodes, free_inodes, 0, 255))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (counts(), Use(700 * 4096, 1000 * 4096, full=False)),
        (counts(free=0, available=0), Use(1000 * 4096, 1000 * 4096, full=True)),
        (counts(free=256, available=256), Use(744 * 4096, 1000 * 4096, full=False)),
        (counts(free=255, available=255), Use(745 * 4096, 1000 * 4096, full=True)),
        # Blocks that the file system keeps for itself are of no use to a customer.
        (counts(free=16, available=0), Use(984 * 4096, 1000 * 4096, full=True)),
        (counts(free_inodes=0), Use(700 * 4096, 1000 * 4096, full=True)),
        # btrfs counts no inodes.
        (counts(inodes=0, free_inodes=0), Use(700 * 4096, 1000 * 4096, full=False)),
    ],
)
def test_a_disk_is_full_when_a_customer_can_write_nothing_more(answer: os.statvfs_result, expected: Use) -> None:
    assert use(answer) == expected


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (HALF, HALF, False),
        (HALF, replace(HALF, used=HALF.used + GB // 11), False),
        (HALF, replace(HALF, used=HALF.used + GB // 9), True),
        (HALF, replace(HALF, used=HALF.used - GB // 9), True),
        # Past 90 % and past 100 %, however little it is.
        (replace(HALF, used=9 * GB - 1), replace(HALF, used=9 * GB), True),
        (replace(HALF, used=9 * GB), replace(HALF, used=9 * GB - 1), True),
        (replace(HALF, used=10 * GB - 1), Use(10 * GB, 10 * GB, full=True), True),
        (Use(10 * GB, 10 * GB, full=True), replace(HALF, used=10 * GB - 1), True),
        # It has grown.
        (HALF, replace(HALF, size=11 * GB), True),
        (None, None, False),
        (None, HALF, True),
        (HALF, None, True),
    ],
)
def test_a_change_that_matters_is_news(before: Use | None, after: Use | None, *, expected: bool) -> None:
    assert moved({"pv": before}, {"pv": after}) is expected


def test_a_disk_that_appears_or_goes_is_news() -> None:
    assert moved({}, {"pv": None})
    assert moved({"pv": HALF, "other": None}, {"pv": HALF})


def test_the_record_names_each_volume() -> None:
    text, left_out = record({"pvc-2": None, "pvc-1": HALF}, AS_OF)
    assert (json.loads(text), left_out) == (
        {
            "as_of": AS_OF,
            "disks": {"pvc-1": {"used": 5 * GB, "size": 10 * GB, "full": False}, "pvc-2": {"enforced": False}},
        },
        0,
    )


def test_the_record_is_as_documented() -> None:
    documented = json.loads(block("docs/sftp.md", '{"as_of": '))
    limited, unlimited = documented["disks"]
    text, _ = record({limited: Use(734_003_200, 1_020_702_720, full=False), unlimited: None}, AS_OF)
    assert json.loads(text) == documented


def test_the_record_is_bounded_and_disks_without_a_limit_go_first() -> None:
    names = [f"pvc-{number:036}" for number in range(1000)]
    uses = {name: HALF if int(name[4:]) % 2 else None for name in names}
    text, left_out = record(uses, AS_OF)
    disks = json.loads(text)["disks"]
    assert MAX_BYTES - 100 < len(text) <= MAX_BYTES
    assert len(disks) == len(names) - left_out
    assert {name for name in names if uses[name]} <= disks.keys()


def test_the_record_goes_with_its_node() -> None:
    assert config_map("one", "n", "gameservers", "{}") == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": "disk-usage-one",
            "namespace": "gameservers",
            "labels": {"gameserver/disk-usage": "true"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "one", "uid": "n"}],
        },
        "data": {"disks.json": "{}"},
    }
