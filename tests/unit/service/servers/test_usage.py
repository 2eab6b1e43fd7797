"""An agent's record says how full disks are, and what is not valid in it is left out."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from disk_agent import usage as agent
from service.kube.times import stamp
from service.servers.usage import KEY, LABEL, LARGEST_RECORD, Usage, parse

AS_OF = "2026-11-26T22:45:10Z"


def record(**disks: Any) -> str:
    return json.dumps({"as_of": AS_OF, "disks": {name.replace("_", "-"): entry for name, entry in disks.items()}})


def test_a_record_is_read() -> None:
    """Disks with a limit, full ones too, and those without. A later agent may write more."""
    text = record(
        pvc_1={"used": 5, "size": 10, "full": False},
        pvc_2={"used": 10, "size": 10, "full": True, "enforced": True, "inodes": 7},
        pvc_3={"enforced": False},
    )
    assert parse(text) == (
        {
            "pvc-1": Usage(AS_OF, True, 5, 10, full=False),
            "pvc-2": Usage(AS_OF, True, 10, 10, full=True),
            "pvc-3": Usage(AS_OF, enforced=False),
        },
        [],
    )


def test_what_the_agent_writes_is_read() -> None:
    """Its record of a disk with a limit, of a full one, and of one without."""
    uses = {"pvc-1": agent.Use(5, 10, full=False), "pvc-2": agent.Use(9, 10, full=True), "pvc-3": None}
    text, left_out = agent.record(uses, AS_OF)
    assert (parse(text), left_out) == (
        (
            {
                "pvc-1": Usage(AS_OF, True, 5, 10),
                "pvc-2": Usage(AS_OF, True, 9, 10, full=True),
                "pvc-3": Usage(AS_OF, enforced=False),
            },
            [],
        ),
        0,
    )
    assert agent.config_map("a", "uid", "games", text)["metadata"]["labels"] == {LABEL: "true"}
    assert parse(agent.config_map("a", "uid", "games", text)["data"][KEY]) == parse(text)


GOOD = {"used": 5, "size": 10, "full": False}


@pytest.mark.parametrize(
    "entry",
    [
        None,
        [],
        "x",
        {},
        {"enforced": None},
        {"enforced": 0},
        {"enforced": True},
        {**GOOD, "used": -1},
        {**GOOD, "used": 1.5},
        {**GOOD, "used": True},
        {**GOOD, "used": "5"},
        {**GOOD, "used": None},
        {**GOOD, "size": 0},
        {**GOOD, "size": 2**63},
        {**GOOD, "full": 0},
        {**GOOD, "enforced": "no"},
    ],
)
def test_a_bad_entry_is_left_out_alone(entry: Any) -> None:
    """The other disks of the record stay, and the mistake names the disk."""
    assert parse(record(good=GOOD, bad=entry)) == (
        {"good": Usage(AS_OF, True, 5, 10)},
        ["the entry 'bad' is not valid"],
    )


@pytest.mark.parametrize("name", ["", "..", "-a", "a/b", "A", "x" * 254, "a\n"])
def test_a_name_that_no_volume_has_is_left_out(name: str) -> None:
    """Only the names of Kubernetes' objects."""
    usages, mistakes = parse(json.dumps({"as_of": AS_OF, "disks": {name: GOOD}}))
    assert (usages, len(mistakes)) == ({}, 1)


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("", "it is not JSON"),
        ("[" * 60_000, "it is not JSON"),
        ("1" * 60_000, "it is not JSON"),
        ("[]", "it has no `disks`"),
        ('{"as_of": "2026-11-26T22:45:10Z", "disks": []}', "it has no `disks`"),
        ('{"disks": {}}', "`as_of` is not an RFC 3339 time"),
        ('{"as_of": 1, "disks": {}}', "`as_of` is not an RFC 3339 time"),
        ('{"as_of": "2026-11-26", "disks": {}}', "`as_of` is not an RFC 3339 time"),
        ('{"as_of": "2026-11-26T22:45:10", "disks": {}}', "`as_of` is not an RFC 3339 time"),
        ('{"as_of": "2026-13-26T22:45:10Z", "disks": {}}', "`as_of` is not an RFC 3339 time"),
        ('{"as_of": "0001-01-01T00:00:00+14:00", "disks": {}}', "`as_of` is not an RFC 3339 time"),
        ('"' + "x" * LARGEST_RECORD + '"', "it is longer than 65536 bytes"),
    ],
)
def test_a_record_that_is_none_says_nothing(text: str, mistake: str) -> None:
    """However hostile."""
    usages, [message] = parse(text)
    assert usages == {}
    assert message.startswith(mistake)


def test_a_time_is_told_in_utc() -> None:
    """In whole seconds."""
    text = '{"as_of": "2026-11-26T23:45:10.75+01:00", "disks": {"a": {"enforced": false}}}'
    assert parse(text)[0]["a"].as_of == AS_OF


def test_how_full_a_disk_is() -> None:
    """From 90 % on it is nearly full. A record that is not of now, or without a limit, says nothing."""
    now = datetime.now(UTC)

    def fill(used: int, *, full: bool = False, age: float = 0) -> str | None:
        return Usage(stamp(now - timedelta(minutes=age)), True, used, 100, full).fill(now)

    assert [fill(used) for used in (0, 89, 90, 99, 100, 101)] == [
        "ok",
        "ok",
        "nearly-full",
        "nearly-full",
        "full",
        "full",
    ]
    assert fill(5, full=True) == "full"
    assert [fill(5, age=age) for age in (9, 11, -11)] == ["ok", None, None]
    assert Usage(stamp(now), enforced=False).fill(now) is None
