"""A server's spec, and how to read it from a release's values or from a StatefulSet. Pure.

The spec is in the release's values. The chart repeats it in an annotation of the StatefulSet, so that reads need no
release.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from service.servers.names import SERVER
from service.servers.objects import Objects
from service.settings import Keep


def own_uid(objects: Objects) -> str | None:
    """The uid that the server got with its create; None if an earlier API or an operator created it without one."""
    uid: str | None = (_annotation(objects.statefulset) or {}).get("uid")
    return uid or None


def uid_of_values(values: Mapping[str, Any]) -> str | None:
    """The same from a release's values."""
    uid: str | None = _mapping(values.get("server")).get("uid")
    return uid or None


def uid_of_claim(claim: Mapping[str, Any]) -> str | None:
    """The uid of the server whose disk this is, also of a deleted one; None if it had none of its own."""
    uid: str | None = (_annotation(claim) or {}).get("uid")
    return uid or None


def server_uid(objects: Objects) -> str | None:
    """The uid that distinguishes this server from earlier ones with the same id.

    For a server without one it is the StatefulSet's uid; None if there is no StatefulSet either.
    """
    metadata = _mapping(_mapping(objects.statefulset).get("metadata"))
    return own_uid(objects) or metadata.get("uid")


def idle_stopped_at(objects: Objects) -> str | None:
    """When the server was stopped because nobody played on it (RFC 3339); None if it was not, or has started since."""
    at = (_annotation(objects.statefulset) or {}).get("idle_stopped")
    return at if isinstance(at, str) and at else None


@dataclass(frozen=True)
class Suspension:
    """That customers may not use a server.

    Attributes:
        reason: Why, in the shop's or the operator's words.
        since: Since when, as an RFC 3339 time; None if an operator has suspended it by hand without one.
    """

    reason: str
    since: str | None


@dataclass(frozen=True)
class ServerSpec:
    """A server as a client requested it.

    Attributes:
        game: The game's name.
        ram_gb, disk_gb: Sizes in GiB.
        options: The game's options.
        customer: The customer; "" for none.
        rcon: "public" or "private".
        idle_stop_minutes: The server stops when nobody has played for so long; 0 for never.
        backup_keep: How many of its schedules' backups stay; None for the operator's default.
        suspended: Set while the server is suspended. A create says nothing about it, so it does not count as a
            difference.
        restoring: The id of the operation that restores its world or fills its new disk; "" for none. Meanwhile it
            does not run. It does not count as a difference either.
    """

    game: str
    ram_gb: int
    disk_gb: int
    options: Mapping[str, Any] = field(default_factory=dict)
    customer: str = ""
    rcon: str = "public"
    idle_stop_minutes: int = 0
    backup_keep: Keep | None = None
    suspended: Suspension | None = field(default=None, compare=False)
    restoring: str = field(default="", compare=False)

    def difference(self, other: ServerSpec) -> list[str]:
        """The names of the fields in which `other` differs."""
        names = [field.name for field in fields(self) if field.compare]
        return [name for name in names if not same(getattr(self, name), getattr(other, name))]


def same(first: Any, second: Any) -> bool:
    """Whether two JSON values are equal. 1 equals 1.0, because Helm has one type of number; True does not equal 1."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(same(value, second[key]) for key, value in first.items())
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(same, first, second))
    return isinstance(first, bool) == isinstance(second, bool) and bool(first == second)


def stored_options(options: Mapping[str, Any]) -> Mapping[str, Any] | str:
    """The options as a release's values store them: as JSON text, if they contain a number that Helm would change.

    Helm treats every number as a double: 9007199254740993 becomes 9007199254740992, and 1.0 becomes 1.
    """
    return json.dumps(options, ensure_ascii=False, sort_keys=True) if _changed_by_helm(options) else options


def _changed_by_helm(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_changed_by_helm, value.values()))
    if isinstance(value, list):
        return any(map(_changed_by_helm, value))
    return isinstance(value, float) or (isinstance(value, int) and abs(value) > 2**53)


def spec_of_values(values: Mapping[str, Any]) -> ServerSpec:
    """The spec in a release's values. An operator may have written them by hand, so any field may be malformed."""
    server = _mapping(values.get("server"))
    return ServerSpec(
        game=str(values.get("game") or "minecraft"),
        ram_gb=_number(values.get("ramGb")),
        disk_gb=_number(values.get("diskGb")),
        options=_options(server.get("options")),
        customer=str(server.get("customer") or ""),
        rcon=str(_mapping(values.get("rcon")).get("visibility") or "public"),
        idle_stop_minutes=max(0, _number(server.get("idleStopMinutes"))),
        backup_keep=_keep(server.get("backupKeep")),
        suspended=_suspension(server.get("suspended")),
        restoring=str(server.get("restoring") or ""),
    )


def spec_of_objects(objects: Objects) -> ServerSpec | None:
    """The spec that the chart has written on the StatefulSet; None if there is none."""
    return _annotated(objects.statefulset)


def customer_of_claim(claim: Mapping[str, Any]) -> str | None:
    """The customer whose disk this is ("" for none); None if the claim has no spec."""
    spec = _annotated(claim)
    return None if spec is None else spec.customer


def suspension_of_claim(claim: Mapping[str, Any]) -> Suspension | None:
    """The suspension of the server whose disk this is; on a kept disk, that of the deleted server."""
    spec = _annotated(claim)
    return None if spec is None else spec.suspended


def restoring_of_claim(claim: Mapping[str, Any]) -> str:
    """The id of the operation that was restoring the world on this disk, on a kept one at its deletion; or ""."""
    spec = _annotated(claim)
    return "" if spec is None else spec.restoring


def never_used(claim: Mapping[str, Any]) -> bool:
    """Whether the chart made this claim and no volume was ever bound to it, so there is no world to lose.

    A claim with a data source has its world there until the first pod uses it, and one with a selector waits for a
    volume that a tool such as Velero fills. Of a claim that the chart did not make, nothing is known, so it counts as
    used.
    """
    spec = _mapping(claim.get("spec"))
    has_data = any(spec.get(field) for field in ("volumeName", "dataSource", "dataSourceRef", "selector"))
    return claim.get("status", {}).get("phase") == "Pending" and not has_data and _annotated(claim) is not None


def _annotation(object_: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    annotations = _mapping(_mapping(_mapping(object_).get("metadata")).get("annotations"))
    try:
        return _mapping(json.loads(annotations[SERVER]))
    except (KeyError, TypeError, ValueError):
        return None


def _annotated(object_: Mapping[str, Any] | None) -> ServerSpec | None:
    if (record := _annotation(object_)) is None:
        return None
    return ServerSpec(
        game=str(record.get("game") or ""),
        ram_gb=_number(record.get("ram_gb")),
        disk_gb=_number(record.get("disk_gb")),
        options=_options(record.get("options")),
        customer=str(record.get("customer") or ""),
        idle_stop_minutes=max(0, _number(record.get("idle_stop_minutes"))),
        backup_keep=_keep(record.get("backup_keep")),
        suspended=_suspension(record.get("suspended")),
        restoring=str(record.get("restoring") or ""),
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _suspension(value: Any) -> Suspension | None:
    """Whatever is not empty suspends the server: a mistake of an operator's must not open it."""
    if not value:
        return None
    parts = _mapping(value)
    return Suspension(str(parts.get("reason") or ""), str(parts.get("since") or "") or None)


def _keep(value: Any) -> Keep | None:
    numbers = {part.name: max(0, _number(_mapping(value).get(part.name))) for part in fields(Keep)}
    # One that keeps nothing is an operator's mistake: a new backup must never be the one that goes.
    return Keep(**numbers) if any(numbers.values()) else None


def _options(value: Any) -> Mapping[str, Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return {}
    return _mapping(value)


def _number(value: Any) -> int:
    # Helm turns numbers from YAML into floats.
    return int(value) if isinstance(value, int | float) and value == value and abs(value) < 2**53 else 0
