"""Schedules in values and in the annotation."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from service.schedules import spec
from service.schedules.spec import Schedule, SetBy, Step

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
BY = SetBy("shop", datetime(2026, 5, 1, tzinfo=UTC), frozenset({"server:power", "schedule"}))
NIGHTLY = Schedule(
    cron="30 4 * * *",
    timezone="Europe/Berlin",
    steps=(Step("stop"), Step("wait", 300), Step("start")),
    only_when=None,
    enabled=True,
    timeout_s=3600,
    created="2026-05-01T00:00:00.000000Z",
    by=BY,
)


def annotation(**schedules: Schedule) -> str:
    """The text that the chart writes; Helm has turned its numbers into floats and back."""
    return json.dumps({name: spec.values_of(schedule) for name, schedule in schedules.items()})


@pytest.mark.parametrize(
    "schedule",
    [
        NIGHTLY,
        replace(NIGHTLY, only_when="empty", enabled=False),
        replace(NIGHTLY, by=replace(BY, customer="acme", servers=frozenset({1, 2**63 - 1}))),
        replace(NIGHTLY, by=replace(BY, customer="", servers=frozenset())),
    ],
)
def test_values_and_back(schedule: Schedule) -> None:
    """A schedule survives its way through values and annotation, also as floats."""
    values = {"nightly": spec.values_of(schedule)}
    assert spec.of_values(values) == {"nightly": schedule}
    floats: Any = json.loads(json.dumps(values), parse_int=float)
    assert spec.of_values(floats) == {"nightly": schedule}
    assert spec.of_annotation(json.dumps(values)) == {"nightly": schedule}


def test_only_short_annotations_are_remembered() -> None:
    """So that memory has a limit, whatever customers set."""
    short, long = annotation(a=NIGHTLY), annotation(a=replace(NIGHTLY, steps=(Step("command", text="x" * 4096),)))
    assert spec.of_annotation(short) is spec.of_annotation(short)
    assert spec.of_annotation(long) is not spec.of_annotation(long)
    assert spec.of_annotation(long)["a"].steps == (Step("command", text="x" * 4096),)


def test_its_size_is_that_of_the_annotation() -> None:
    """Go writes the characters of HTML, and two that end lines in JavaScript, as 6 bytes each; others as they are."""
    assert spec.size_of({"a": [{"wait": 5}]}) == len('{"a":[{"wait":5}]}')
    written = '{"a":"\\u003c\\u003e\\u0026\\u2028\\u2029ä\\"\\\\"}'
    assert spec.size_of(json.loads(written)) == len(written.encode())


@pytest.mark.parametrize(
    "wrong",
    [
        {"cron": "often"},
        {"cron": None},
        {"timezone": "Mars"},
        {"steps": [{"explode": {}}]},
        {"steps": [{"stop": {}, "start": {}}]},
        {"steps": None},
        {"steps": [{"wait": 1e400}]},
        {"onlyWhen": "raining"},
        {"by": {}},
        {"by": {"token": "x", "since": "yesterday", "scopes": []}},
        {"by": {"token": "x", "since": "2026-01-01T00:00:00", "scopes": []}},
        {"by": {"token": "x", "since": "2026-01-01T00:00:00Z", "scopes": [], "servers": ["all"]}},
    ],
)
def test_one_wrong_schedule_leaves_the_others(wrong: dict[str, Any]) -> None:
    """An operator has written one by hand."""
    values = {"broken": {**spec.values_of(NIGHTLY), **wrong}, "nightly": spec.values_of(NIGHTLY), "odd": 7}
    assert spec.of_values(values) == {"nightly": NIGHTLY}


@pytest.mark.parametrize("text", [None, "", "{", "[]", "7", "[" * 10**5])
def test_an_unreadable_annotation_has_no_schedules(text: str | None) -> None:
    """Nor is any due."""
    assert spec.of_annotation(text) == {}
    assert spec.next_due(text, 7, NOW) is None


def test_the_next_run_of_a_server() -> None:
    """It is the first of all its schedules that are enabled."""
    weekly, off = (
        replace(NIGHTLY, cron="0 3 * * SUN"),
        replace(NIGHTLY, cron="5 12 * * *", timezone="UTC", enabled=False),
    )
    text = annotation(nightly=NIGHTLY, weekly=weekly, off=off)
    assert spec.next_due(text, 7, NOW) == datetime(2026, 6, 2, 2, 30, tzinfo=UTC)
    assert spec.next_due(text, 7, datetime(2026, 6, 2, 2, 30, tzinfo=UTC)) == datetime(2026, 6, 3, 2, 30, tzinfo=UTC)
    assert spec.next_due(annotation(off=off), 7, NOW) is None
    spread = {spec.next_due(annotation(nightly=replace(NIGHTLY, cron="H 4 * * *")), id, NOW) for id in range(100)}
    assert len(spread) > 40


def test_a_schedule_needs_the_scopes_of_its_steps() -> None:
    """Waiting needs none."""
    assert NIGHTLY.scopes == {"server:power"}
    assert replace(NIGHTLY, steps=(Step("wait", 1),)).scopes == frozenset()
