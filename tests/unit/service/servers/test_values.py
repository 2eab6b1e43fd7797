"""Specs become values, and changes of a spec become changes of the values."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from service.servers.spec import ServerSpec, Suspension, spec_of_values
from service.servers.values import (
    changed,
    completed,
    deep_merge,
    idle_stopped,
    reachable,
    restarted,
    restarted_since,
    restarts,
    started,
    suspended,
    unsuspended,
    values_of,
)

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
SPEC = ServerSpec("minecraft", 4, 20, {"motd": "hi"}, "acme", "private")


def test_layers_merge_deeply_and_lists_are_replaced() -> None:
    """The later layer wins, and no layer is changed."""
    lower = {"a": {"x": 1, "y": [1, 2]}, "b": 1}
    upper = {"a": {"y": [3]}, "b": {"z": 1}}
    assert deep_merge(lower, upper) == {"a": {"x": 1, "y": [3]}, "b": {"z": 1}}
    assert lower == {"a": {"x": 1, "y": [1, 2]}, "b": 1}


def test_values_of_a_new_server() -> None:
    """Precedence: the operator's `all` < the template < the operator's for the game < the spec."""
    operator = {
        "all": {"image": {"tag": "all", "pullPolicy": "Never"}, "ramGb": 99},
        "games": {
            "minecraft": {"image": {"repository": "mine"}, "server": {"options": {"sneaky": 1}}},
            "other": {"x": 1},
        },
    }
    rendered = {"image": {"tag": "template", "repository": "template"}, "environment": {"MOTD": "hi"}}
    assert values_of(7, SPEC, rendered, operator) == {
        "game": "minecraft",
        "server": {"id": "7", "customer": "acme", "options": {"motd": "hi"}},
        "ramGb": 4,
        "diskGb": 20,
        "rcon": {"visibility": "private"},
        "image": {"tag": "template", "repository": "mine", "pullPolicy": "Never"},
        "environment": {"MOTD": "hi"},
    }


def test_the_spec_can_be_read_back_from_the_values() -> None:
    """It is the spec that was requested."""
    assert spec_of_values(values_of(7, SPEC, {}, {})) == SPEC


def test_malformed_values_still_give_a_spec() -> None:
    """An operator may have written anything there."""
    odd = {"server": "x", "ramGb": 3.0, "diskGb": "many", "rcon": None}
    assert spec_of_values(odd) == ServerSpec("minecraft", 3, 0)


def test_specs_also_differ_by_type() -> None:
    """True and 1 are different options."""
    other = ServerSpec("minecraft", 5, 20, {"motd": "hi"}, "acme", "private")
    assert SPEC.difference(SPEC) == []
    assert SPEC.difference(other) == ["ram_gb"]
    assert ServerSpec("g", 1, 1, {"a": 1}).difference(ServerSpec("g", 1, 1, {"a": True})) == ["options"]


def test_start_stop_and_restart_touch_only_their_keys() -> None:
    """Values that an operator has set stay."""
    values = {"replicas": 1, "nodeSelector": {"a": "b"}}
    now = datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert started(values, False) == {"replicas": 0, "nodeSelector": {"a": "b"}}
    assert restarted(started(values, False), now) == {**values, "restartedAt": "2026-01-31T12:00:00Z"}
    assert values == {"replicas": 1, "nodeSelector": {"a": "b"}}


def test_an_idle_stop_is_in_the_values_until_the_next_start_or_stop() -> None:
    """A stopped server that is stopped again, or suspended, still says why it was stopped first."""
    running = {"replicas": 1, "server": {"uid": "u"}, "env": "x"}
    stopped = {"replicas": 0, "server": {"uid": "u", "idleStopped": "2026-01-31T12:00:00Z"}, "env": "x"}
    assert idle_stopped(running, NOW) == stopped
    assert started(stopped, False) == stopped
    assert started(stopped, True) == running
    assert restarted(stopped, NOW) == {**running, "restartedAt": "2026-01-31T12:00:00Z"}
    # An operator has started it by hand, and then its customer stops it.
    assert started({**stopped, "replicas": 1}, False) == {**running, "replicas": 0}
    assert idle_stopped({"replicas": 1}, NOW) == {
        "replicas": 0,
        "server": {"idleStopped": "2026-01-31T12:00:00Z"},
    }
    assert not restarts(running, {**running, "server": {"idleStopMinutes": 30}})


def test_the_minutes_of_idle_stop_are_in_the_values_if_there_are_any() -> None:
    """What an operator wrote wrongly means never."""
    spec = ServerSpec("teeworlds", 1, 1, idle_stop_minutes=30)
    made = values_of(4, spec, {}, {})
    assert made["server"]["idleStopMinutes"] == 30
    assert spec_of_values(made) == spec
    assert "idleStopMinutes" not in values_of(4, ServerSpec("teeworlds", 1, 1), {}, {})["server"]
    for wrong in (-5, "30", None, float("nan"), [30]):
        assert spec_of_values({"server": {"idleStopMinutes": wrong}}).idle_stop_minutes == 0


def test_a_suspension_touches_only_its_key_and_stops_the_server() -> None:
    """Its end takes it away again, and leaves whether the server runs. It does not count as a difference of specs."""
    values = {"replicas": 1, "ramGb": 4, "server": {"customer": "acme", "options": {"motd": "hi"}}}
    suspension = Suspension("Overdue.", "2026-01-31T12:00:00Z")
    after = suspended(values, suspension)
    assert after == {
        "replicas": 0,
        "ramGb": 4,
        "server": {
            "customer": "acme",
            "options": {"motd": "hi"},
            "suspended": {"reason": "Overdue.", "since": "2026-01-31T12:00:00Z"},
        },
    }
    assert spec_of_values(after).suspended == suspension
    assert spec_of_values(after).difference(spec_of_values(values)) == []
    assert unsuspended(after) == {**values, "replicas": 0}
    assert unsuspended({**after, "replicas": 1}) == values
    assert not restarts({**after, "replicas": 1}, values)
    assert unsuspended({}) == {}
    assert spec_of_values(values).suspended is None
    assert values["replicas"] == 1


def test_a_change_touches_only_what_differs() -> None:
    """An operator's values stay, unless the change concerns them. Values that a template no longer has are removed."""
    current = {"ramGb": 2, "environment": {"MOTD": "operator", "SEED": "1", "ADDED": "x"}, "cpu": {"limit": "2"}}
    before = {"ramGb": 2, "environment": {"MOTD": "old", "SEED": "1"}, "gone": 1}
    after = {"ramGb": 4, "environment": {"MOTD": "old", "MODE": "creative"}, "ports": [1]}
    assert changed(current, before, after) == {
        "ramGb": 4,
        "environment": {"MOTD": "operator", "MODE": "creative", "ADDED": "x"},
        "cpu": {"limit": "2"},
        "ports": [1],
    }


def test_completing_adds_missing_values_and_changes_none() -> None:
    """Values of the option that an operator has set stay. Values of other options are not added."""
    without = {"environment": {"OTHER": "x"}, "ports": [1]}
    whole = {"environment": {"OTHER": "x", "OPS": "a", "EXISTING": "SYNC"}, "ports": [1], "extra": {"a": 1}}
    current = {"environment": {"OPS": "operator"}}
    assert completed(current, without, whole) == {
        "environment": {"OPS": "operator", "EXISTING": "SYNC"},
        "extra": {"a": 1},
    }
    assert current == {"environment": {"OPS": "operator"}}


def test_only_changes_of_the_pod_restart_the_game() -> None:
    """And only if the server runs."""
    assert restarts({"ramGb": 1, "replicas": 1}, {"ramGb": 2, "replicas": 1})
    assert not restarts({"ramGb": 1, "replicas": 0}, {"ramGb": 2, "replicas": 0})
    assert not restarts({"diskGb": 1, "server": {}}, {"diskGb": 2, "server": {"options": {}}})
    assert not restarts({}, {"rcon": {"visibility": "private"}, "storage": {"className": "fast"}, "sftp": {}})
    assert restarts({}, {"rcon": {"visibility": "private", "port": 1}})
    assert restarts({"storage": {"mountPath": "/a"}}, {"storage": {"mountPath": "/b"}})


def test_with_one_address_for_all_nodes_every_node_accepts_traffic() -> None:
    """And only the disk's own node once that address is taken away. A policy of the operator's own stays."""
    assert reachable({"ramGb": 1}, "") == {"ramGb": 1}
    policy = {"externalTrafficPolicy": "Cluster", "type": "NodePort"}
    for own in ({"server": {"id": "1"}}, {"server": {"id": "1"}, "service": policy}):
        marked = reachable(own, "play.example")
        assert marked == {**own, "server": {"id": "1", "behindOneHost": True}}
        assert reachable(marked, "play.example") == marked
        assert reachable(marked, "") == own
        assert not restarts({**own, "replicas": 1}, {**marked, "replicas": 1})


@pytest.mark.parametrize(
    ("text", "since"),
    [
        ("2026-01-31T12:00:00Z", True),
        ("2026-01-31T12:00:01Z", True),
        ("2026-01-31T11:59:59Z", False),
        ("2026-01-31T12:00:00", False),
        ("now", False),
        ("", False),
        (None, False),
    ],
)
def test_a_restart_that_was_done_is_known(text: str | None, since: bool) -> None:
    """To the second. What an operator has written there by hand says nothing."""
    moment = datetime(2026, 1, 31, 12, 0, 0, 500_000, tzinfo=UTC)
    assert restarted_since({"restartedAt": text}, moment) is since
