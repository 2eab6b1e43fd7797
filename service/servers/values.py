"""Turns a server's spec into its release's values, and changes of the spec into changes of the values.

Pure: every function returns a new mapping and leaves its arguments unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from datetime import datetime
from typing import Any

from service.kube.times import stamp
from service.servers.spec import ServerSpec, Suspension, same, stored_options

Values = dict[str, Any]

# If only these values change, the pod template stays the same; all others may be part of it.
_NOT_IN_POD = {"server", "schedules", "diskGb", "service", "sftp", "networkPolicy", "test"}
# The consoles that servers of an earlier version do not have. (Theirs is RCON, or none.)
_CONSOLES = ("econ", "stdin")
_PARTLY_NOT_IN_POD = {"rcon": {"visibility"}, "storage": {"className", "accessMode", "dataSource", "deferred"}}


def deep_merge(*layers: Mapping[str, Any]) -> Values:
    """Merge all layers into one mapping. Mappings are merged; of all other values, lists too, the last layer's wins."""
    merged: Values = {}
    for layer in layers:
        for key, value in layer.items():
            lower = merged.get(key)
            both = isinstance(lower, Mapping) and isinstance(value, Mapping)
            merged[key] = deep_merge(lower, value) if both else deepcopy(value)  # type: ignore[arg-type]
    return merged


def values_of(id: int, spec: ServerSpec, rendered: Mapping[str, Any], operator: Mapping[str, Any]) -> Values:
    """The values of a new server, except whether it runs.

    Args:
        id: The server's id.
        spec: Its spec, which overrides all other values.
        rendered: The values that the game's template rendered from the spec.
        operator: The operator's own values: the template's override those in `all`, and those in `games.<name>`
            override the template's.
    """
    games = operator.get("games") or {}
    more: Values = {"idleStopMinutes": spec.idle_stop_minutes} if spec.idle_stop_minutes else {}
    if spec.backup_keep is not None:
        more["backupKeep"] = vars(spec.backup_keep)
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
        # Replace the options instead of merging them, so that removed options disappear.
    ) | {"server": {"id": str(id), "customer": spec.customer, "options": stored_options(spec.options), **more}}


def with_uid(values: Mapping[str, Any], uid: str) -> Values:
    """The same values with the server's uid."""
    return deep_merge(values, {"server": {"uid": uid}})


def started(values: Mapping[str, Any], running: bool) -> Values:
    """The same values, for a running or a stopped server."""
    result = {**deepcopy(dict(values)), "replicas": 1 if running else 0}
    if isinstance(server := result.get("server"), dict) and (running or runs(values)):
        server.pop("idleStopped", None)
    return result


def with_console(values: Mapping[str, Any], made: Mapping[str, Any]) -> Values:
    """The same values with the console that a create would give the server today, unless they say what it has.

    Args:
        values: The server's values.
        made: The values that a create would make.
    """
    return deep_merge({key: made[key] for key in _CONSOLES if key in made}, values)


def idle_stopped(values: Mapping[str, Any], now: datetime) -> Values:
    """The same values, for a server that is stopped because nobody plays on it."""
    return deep_merge(started(values, False), {"server": {"idleStopped": stamp(now)}})


def restarted(values: Mapping[str, Any], now: datetime) -> Values:
    """The same values, for a running server whose pod was created after `now` (in whole seconds)."""
    return {**started(values, True), "restartedAt": stamp(now)}


def suspended(values: Mapping[str, Any], suspension: Suspension) -> Values:
    """The same values, for a stopped server that is suspended."""
    server = {**(values.get("server") or {}), "suspended": vars(suspension)}
    return started({**values, "server": server}, False)


def unsuspended(values: Mapping[str, Any]) -> Values:
    """The same values, for a server that is not suspended; whether it runs stays."""
    result = deepcopy(dict(values))
    if isinstance(server := result.get("server"), dict):
        server.pop("suspended", None)
    return result


def restoring(values: Mapping[str, Any], operation: str) -> Values:
    """The same values, for a server that does not run while this operation restores its world."""
    return deep_merge(values, {"server": {"restoring": operation}})


def restored(values: Mapping[str, Any]) -> Values:
    """The same values, for a server whose world is in its place again; it runs if it was to run."""
    result = deepcopy(dict(values))
    if isinstance(server := result.get("server"), dict):
        server.pop("restoring", None)
    return result


def without_disk(values: Mapping[str, Any]) -> Values:
    """The same values, for a server whose disk is not made yet."""
    return deep_merge(values, {"storage": {"deferred": True}})


def with_disk(values: Mapping[str, Any], snapshot: str = "") -> Values:
    """The same values, for a server whose disk is a copy of this VolumeSnapshot, or empty."""
    result = deepcopy(dict(values))
    storage = {name: value for name, value in (result.get("storage") or {}).items() if name != "deferred"}
    if snapshot:
        storage["dataSource"] = {"kind": "VolumeSnapshot", "name": snapshot}
    return {
        **{key: value for key, value in result.items() if key != "storage"},
        **({"storage": storage} if storage else {}),
    }


def restarted_since(values: Mapping[str, Any], moment: datetime) -> bool:
    """Whether the server was restarted at `moment` (in whole seconds) or later; an operator's own text is no time."""
    try:
        return datetime.fromisoformat(str(values.get("restartedAt") or "")) >= moment.replace(microsecond=0)
    except (TypeError, ValueError):
        return False


def changed(current: Mapping[str, Any], before: Mapping[str, Any], after: Mapping[str, Any]) -> Values:
    """`current` with exactly the differences between `before` and `after` applied.

    Values that an operator has set in `current` stay, unless the change concerns the same key.
    """
    result = deepcopy(dict(current))
    for key in before.keys() - after.keys():
        result.pop(key, None)
    for key, value in after.items():
        if key in before and same(before[key], value):
            continue
        old, present = before.get(key), result.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping) and isinstance(present, Mapping):
            result[key] = changed(present, old, value)
        else:
            result[key] = deepcopy(value)
    return result


def runs(values: Mapping[str, Any]) -> bool:
    """Whether the server should run now."""
    return bool(values.get("replicas", 1) != 0) and not (values.get("server") or {}).get("restoring")


def completed(current: Mapping[str, Any], without: Mapping[str, Any], whole: Mapping[str, Any]) -> Values:
    """`current` with the values that `whole` has in addition to `without`, unless `current` sets them itself."""
    result = deepcopy(dict(current))
    for key, value in whole.items():
        if key in without and same(without[key], value):
            continue
        present, less = result.setdefault(key, deepcopy(value)), without.get(key, {})
        if isinstance(value, Mapping) and isinstance(present, Mapping) and isinstance(less, Mapping):
            result[key] = completed(present, less, value)
    return result


def restarts(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether a change from one set of values to the other restarts a running game."""
    return runs(after) and _pod_values(before) != _pod_values(after)


def _pod_values(values: Mapping[str, Any]) -> Values:
    parts = {key: value for key, value in values.items() if key not in _NOT_IN_POD}
    for key, excluded in _PARTLY_NOT_IN_POD.items():
        if isinstance(part := parts.get(key), Mapping):
            parts[key] = {name: value for name, value in part.items() if name not in excluded}
            if not parts[key]:
                del parts[key]
    return parts


def reachable(values: Mapping[str, Any], external_host: str) -> Values:
    """The same values, so that every node accepts the server's traffic if the operator has one address for all nodes.

    The chart overrides this by a traffic policy of the operator's, which is a value of its own and stays.

    Args:
        values: The server's values.
        external_host: The operator's address for all nodes; "" if there is none.
    """
    if external_host:
        return deep_merge(values, {"server": {"behindOneHost": True}})
    result = deepcopy(dict(values))
    if isinstance(server := result.get("server"), dict):
        server.pop("behindOneHost", None)
    return result
