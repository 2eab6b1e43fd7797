"""What a game uses, from what was measured of its pod."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.servers.consumption import Consumption, consumption_of

NOW = datetime(2026, 11, 27, 2, 10, 20, tzinfo=UTC)
POD = {
    "metadata": {"name": "server-4-0"},
    "status": {"containerStatuses": [{"name": "game", "state": {"running": {"startedAt": "2026-11-27T02:00:00Z"}}}]},
}


def measured(at: str = "2026-11-27T02:10:09Z", **usage: Any) -> dict[str, Any]:
    """As metrics-server says it."""
    containers = [
        {"name": "sidecar", "usage": {"cpu": "7", "memory": "7Gi"}},
        {"name": "game", "usage": {"cpu": "8519307n", "memory": "1572864Ki", **usage}},
    ]
    return {"metadata": {"name": "server-4-0"}, "timestamp": at, "window": "10s", "containers": containers}


def test_a_game_uses_what_was_measured() -> None:
    """In GiB and CPUs."""
    assert consumption_of(POD, measured(), NOW) == Consumption(1.5, 0.009, "2026-11-27T02:10:09Z")
    many = measured(cpu="2500m", memory="1G")
    assert consumption_of(POD, many, NOW) == Consumption(0.931, 2.5, "2026-11-27T02:10:09Z")


@pytest.mark.parametrize(
    "answer",
    [
        None,
        {},
        {"timestamp": "2026-11-27T02:10:09Z", "containers": None},
        {"timestamp": "2026-11-27T02:10:09Z", "containers": [{"name": "game"}]},
        measured(cpu="much"),
        measured(memory=None),
        measured("yesterday"),
        # Of the game's run, or the pod, before this one.
        measured("2026-11-27T01:59:59Z"),
    ],
)
def test_what_was_not_measured_is_unknown(answer: Any) -> None:
    """Never 0."""
    assert consumption_of(POD, answer, NOW) is None


def test_what_was_measured_long_ago_is_unknown() -> None:
    """And what was measured of a game that does not run."""
    assert consumption_of(POD, measured(), NOW + timedelta(minutes=2)) is None
    assert consumption_of(None, measured(), NOW) is None
    assert consumption_of({"metadata": {}, "status": {}}, measured(), NOW) is None
