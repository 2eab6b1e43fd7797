"""A server's spec to the values of its release, and a change of the spec to a change of them.

Pure: mappings in, new mappings out; nothing that is passed in is changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from datetime import datetime
from typing import Any

from service.kube.times import stamp
from service.servers.spec import ServerSpec, same, stored_options

Values = dict[str, Any]

# Changes to these alone leave the running pod as it is; everything else is taken to be in its template.
_OUTSIDE_THE_POD = {"server", "diskGb", "service", "sftp", "networkPolicy", "test"}
_OUTSIDE_IN_PART = {"rcon": {"visibility"}, "storage": {"className", "accessMode"}}


def deep_merge(*layers: Mapping[str, Any]) -> Values:
    """One mapping of all layers, the later winning; mappings merge, everything else (lists too) is replaced."""
    merged: Values = {}
    for layer in layers:
        for key, value in layer.items():
            below = merged.get(key)
            both = isinstance(below, Mapping) and isinstance(value, Mapping)
            merged[key] = deep_merge(below, value) if both else deepcopy(value)  # type: ignore[arg-type]
    return merged


def values_of(id: int, spec: ServerSpec, rendered: Mapping[str, Any], operator: Mapping[str, Any]) -> Values:
    """The values of a new server, without whether it runs.

    `rendered` is what the game's template made of the spec, `operator` the operator's own values
    (`all`, and by game `games.<name>`): those for the game win over the template, the spec over both.
    """
    games = operator.get("games") or {}
    return deep_merge(
        operator.get("all") or {},
        rendered,
        games.get(spec.game) or {},
        {
            "game": spec.game,
            "server": {"id": str(id), "customer": spec.customer},
            "ramGb": spec.ram_gb,
            "diskGb": spec.disk_gb,
            "rcon": {"visibility": spec.rcon},
        },
        # Whole, not merged: an option that is gone has to be gone.
    ) | {"server": {"id": str(id), "customer": spec.customer, "options": stored_options(spec.options)}}


def with_uid(values: Mapping[str, Any], uid: str) -> Values:
    """The same server, under a name that no other ever has."""
    return deep_merge(values, {"server": {"uid": uid}})


def started(values: Mapping[str, Any], running: bool) -> Values:
    """The same server, wanted running or stopped."""
    return {**deepcopy(dict(values)), "replicas": 1 if running else 0}


def restarted(values: Mapping[str, Any], now: datetime) -> Values:
    """The same server, wanted running, in a pod made after `now` (to the second)."""
    return {**started(values, True), "restartedAt": stamp(now)}


def changed(current: Mapping[str, Any], before: Mapping[str, Any], after: Mapping[str, Any]) -> Values:
    """`current` with the differences between `before` and `after`, and no other.

    What an operator's hand has set in `current` stays, unless the change itself is about that very key.
    """
    result = deepcopy(dict(current))
    for key in before.keys() - after.keys():
        result.pop(key, None)
    for key, value in after.items():
        if key in before and same(before[key], value):
            continue
        old, here = before.get(key), result.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping) and isinstance(here, Mapping):
            result[key] = changed(here, old, value)
        else:
            result[key] = deepcopy(value)
    return result


def runs(values: Mapping[str, Any]) -> bool:
    """Whether the server is wanted running."""
    return bool(values.get("replicas", 1) != 0)


def completed(current: Mapping[str, Any], without: Mapping[str, Any], whole: Mapping[str, Any]) -> Values:
    """`current` with what `whole` has beyond `without`, where it has nothing itself."""
    result = deepcopy(dict(current))
    for key, value in whole.items():
        if key in without and same(without[key], value):
            continue
        here, less = result.setdefault(key, deepcopy(value)), without.get(key, {})
        if isinstance(value, Mapping) and isinstance(here, Mapping) and isinstance(less, Mapping):
            result[key] = completed(here, less, value)
    return result


def restarts(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether going from one set of values to the other restarts a running game."""
    return runs(after) and _of_the_pod(before) != _of_the_pod(after)


def _of_the_pod(values: Mapping[str, Any]) -> Values:
    parts = {key: value for key, value in values.items() if key not in _OUTSIDE_THE_POD}
    for key, outside in _OUTSIDE_IN_PART.items():
        if isinstance(part := parts.get(key), Mapping):
            parts[key] = {name: value for name, value in part.items() if name not in outside}
            if not parts[key]:
                del parts[key]
    return parts


def reachable(values: Mapping[str, Any], external_host: str) -> Values:
    """The same server, made so that its port answers at the operator's one address for all nodes, if there is one.

    What the operator has said about it goes before.
    """
    service = values.get("service") or {}
    if not external_host or service.get("externalTrafficPolicy"):
        return deepcopy(dict(values))
    return deep_merge(values, {"service": {"externalTrafficPolicy": "Cluster"}})
