"""A spec to values, and a change of the spec to a change of them."""

from __future__ import annotations

from datetime import UTC, datetime

from service.servers.spec import ServerSpec, spec_of_values
from service.servers.values import changed, completed, deep_merge, reachable, restarted, restarts, started, values_of

RECORD = ServerSpec("minecraft", 4, 20, {"motd": "hi"}, "acme", "private")


def test_layers_merge_deeply_and_lists_are_replaced() -> None:
    """The later layer wins, and no layer is changed."""
    one = {"a": {"x": 1, "y": [1, 2]}, "b": 1}
    two = {"a": {"y": [3]}, "b": {"z": 1}}
    assert deep_merge(one, two) == {"a": {"x": 1, "y": [3]}, "b": {"z": 1}}
    assert one == {"a": {"x": 1, "y": [1, 2]}, "b": 1}


def test_values_of_a_new_server() -> None:
    """Operator's all < template < operator's for the game < the spec."""
    operator = {
        "all": {"image": {"tag": "all", "pullPolicy": "Never"}, "ramGb": 99},
        "games": {
            "minecraft": {"image": {"repository": "mine"}, "server": {"options": {"sneaky": 1}}},
            "other": {"x": 1},
        },
    }
    rendered = {"image": {"tag": "template", "repository": "template"}, "environment": {"MOTD": "hi"}}
    assert values_of(7, RECORD, rendered, operator) == {
        "game": "minecraft",
        "server": {"id": "7", "customer": "acme", "options": {"motd": "hi"}},
        "ramGb": 4,
        "diskGb": 20,
        "rcon": {"visibility": "private"},
        "image": {"tag": "template", "repository": "mine", "pullPolicy": "Never"},
        "environment": {"MOTD": "hi"},
    }


def test_the_record_comes_back_out_of_the_values() -> None:
    """What was asked for is what is remembered."""
    assert spec_of_values(values_of(7, RECORD, {}, {})) == RECORD


def test_a_record_of_values_that_a_hand_wrote_is_still_a_record() -> None:
    """Nothing in them is taken for granted."""
    odd = {"server": "x", "ramGb": 3.0, "diskGb": "many", "rcon": None}
    assert spec_of_values(odd) == ServerSpec("minecraft", 3, 0)


def test_records_differ_by_type_too() -> None:
    """True is not 1 in an option."""
    other = ServerSpec("minecraft", 5, 20, {"motd": "hi"}, "acme", "private")
    assert RECORD.difference(RECORD) == []
    assert RECORD.difference(other) == ["ram_gb"]
    assert ServerSpec("g", 1, 1, {"a": 1}).difference(ServerSpec("g", 1, 1, {"a": True})) == ["options"]


def test_start_stop_and_restart_touch_only_their_keys() -> None:
    """What a hand has set stays."""
    values = {"replicas": 1, "nodeSelector": {"a": "b"}}
    now = datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert started(values, False) == {"replicas": 0, "nodeSelector": {"a": "b"}}
    assert restarted(started(values, False), now) == {**values, "restartedAt": "2026-01-31T12:00:00Z"}
    assert values == {"replicas": 1, "nodeSelector": {"a": "b"}}


def test_a_change_touches_only_what_differs() -> None:
    """Hand-made values survive, unless the change is about them; what a template dropped goes."""
    current = {"ramGb": 2, "environment": {"MOTD": "hand", "SEED": "1", "HAND": "x"}, "cpu": {"limit": "2"}}
    before = {"ramGb": 2, "environment": {"MOTD": "old", "SEED": "1"}, "gone": 1}
    after = {"ramGb": 4, "environment": {"MOTD": "old", "MODE": "creative"}, "ports": [1]}
    assert changed(current, before, after) == {
        "ramGb": 4,
        "environment": {"MOTD": "hand", "MODE": "creative", "HAND": "x"},
        "cpu": {"limit": "2"},
        "ports": [1],
    }


def test_completing_adds_what_is_missing_and_changes_nothing() -> None:
    """Of what belongs to an option a hand's own stays; what belongs to another one is left alone."""
    without = {"environment": {"OTHER": "x"}, "ports": [1]}
    whole = {"environment": {"OTHER": "x", "OPS": "a", "EXISTING": "SYNC"}, "ports": [1], "extra": {"a": 1}}
    current = {"environment": {"OPS": "by hand"}}
    assert completed(current, without, whole) == {
        "environment": {"OPS": "by hand", "EXISTING": "SYNC"},
        "extra": {"a": 1},
    }
    assert current == {"environment": {"OPS": "by hand"}}


def test_only_changes_of_the_pod_restart_it() -> None:
    """And only where it runs."""
    assert restarts({"ramGb": 1, "replicas": 1}, {"ramGb": 2, "replicas": 1})
    assert not restarts({"ramGb": 1, "replicas": 0}, {"ramGb": 2, "replicas": 0})
    assert not restarts({"diskGb": 1, "server": {}}, {"diskGb": 2, "server": {"options": {}}})
    assert not restarts({}, {"rcon": {"visibility": "private"}, "storage": {"className": "fast"}, "sftp": {}})
    assert restarts({}, {"rcon": {"visibility": "private", "port": 1}})
    assert restarts({"storage": {"mountPath": "/a"}}, {"storage": {"mountPath": "/b"}})


def test_one_address_for_all_nodes_needs_all_nodes_to_answer() -> None:
    """Unless the operator has said otherwise."""
    cluster = {"service": {"externalTrafficPolicy": "Cluster"}}
    assert reachable({"ramGb": 1}, "") == {"ramGb": 1}
    assert reachable({"ramGb": 1}, "play.example") == {"ramGb": 1, **cluster}
    local = {"service": {"externalTrafficPolicy": "Local", "type": "NodePort"}}
    assert reachable(local, "play.example") == local
