"""What a server is wanted to be: its spec, and where it stands.

The spec is in the release's own values; the chart repeats it in an annotation of the StatefulSet, so that
reads need no release. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from service.servers.names import SERVER
from service.servers.objects import Objects


def own_uid(objects: Objects) -> str | None:
    """The uid that the server was given with its create; None of one that an earlier API made, or a hand."""
    uid: str | None = (_annotation(objects.statefulset) or {}).get("uid")
    return uid or None


def uid_of_values(values: Mapping[str, Any]) -> str | None:
    """The same, out of a release's values."""
    uid: str | None = _mapping(values.get("server")).get("uid")
    return uid or None


def server_uid(objects: Objects) -> str | None:
    """What tells this server from others that had its id before; of one without, made by an earlier API, its
    StatefulSet's. None where neither is there to be read.
    """
    metadata = _mapping(_mapping(objects.statefulset).get("metadata"))
    return own_uid(objects) or metadata.get("uid")


@dataclass(frozen=True)
class ServerSpec:
    """A server as a client asked for it; sizes in GiB, `rcon` public or private, `customer` "" for none."""

    game: str
    ram_gb: int
    disk_gb: int
    options: Mapping[str, Any] = field(default_factory=dict)
    customer: str = ""
    rcon: str = "public"

    def difference(self, other: ServerSpec) -> list[str]:
        """The names of the fields in which `other` is not the same."""
        return [name for name in self.__dataclass_fields__ if not same(getattr(self, name), getattr(other, name))]


def same(one: Any, other: Any) -> bool:
    """Whether two values of JSON are the same: 1 is 1.0, as to Helm, which knows one kind of number; True is not 1."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def stored_options(options: Mapping[str, Any]) -> Mapping[str, Any] | str:
    """The options as a release's values hold them: as text, if there is a number in them that Helm would change.

    It takes each for a double: 9007199254740993 ends in 2 then, and 1.0 is 1.
    """
    return json.dumps(options, ensure_ascii=False, sort_keys=True) if _changes(options) else options


def _changes(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_changes, value.values()))
    if isinstance(value, list):
        return any(map(_changes, value))
    return isinstance(value, float) or (isinstance(value, int) and abs(value) > 2**53)


def spec_of_values(values: Mapping[str, Any]) -> ServerSpec:
    """The spec within a release's values. A hand may have written them, so nothing is taken for granted."""
    server = _mapping(values.get("server"))
    return ServerSpec(
        game=str(values.get("game") or "minecraft"),
        ram_gb=_number(values.get("ramGb")),
        disk_gb=_number(values.get("diskGb")),
        options=_options(server.get("options")),
        customer=str(server.get("customer") or ""),
        rcon=str(_mapping(values.get("rcon")).get("visibility") or "public"),
    )


def spec_of_objects(objects: Objects) -> ServerSpec | None:
    """The spec that the chart has written on the StatefulSet, or None where there is none to read."""
    return _annotated(objects.statefulset)


def customer_of_claim(claim: Mapping[str, Any]) -> str | None:
    """Whose disk this is, or None where the claim does not say."""
    spec = _annotated(claim)
    return None if spec is None else spec.customer


def never_used(claim: Mapping[str, Any]) -> bool:
    """Whether this is a claim that the chart made and that no volume was ever bound to: there is no world to lose.

    One with a source has its world elsewhere, until the first pod that uses it, and nothing is said of a claim that
    something else has made.
    """
    spec = _mapping(claim.get("spec"))
    filled = spec.get("volumeName") or spec.get("dataSource") or spec.get("dataSourceRef")
    return claim.get("status", {}).get("phase") == "Pending" and not filled and _annotated(claim) is not None


def _annotation(thing: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    annotations = _mapping(_mapping(_mapping(thing).get("metadata")).get("annotations"))
    try:
        return _mapping(json.loads(annotations[SERVER]))
    except (KeyError, TypeError, ValueError):
        return None


def _annotated(thing: Mapping[str, Any] | None) -> ServerSpec | None:
    if (found := _annotation(thing)) is None:
        return None
    return ServerSpec(
        game=str(found.get("game") or ""),
        ram_gb=_number(found.get("ram_gb")),
        disk_gb=_number(found.get("disk_gb")),
        options=_options(found.get("options")),
        customer=str(found.get("customer") or ""),
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _options(value: Any) -> Mapping[str, Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return {}
    return _mapping(value)


def _number(value: Any) -> int:
    # Helm keeps numbers as floats when they come from YAML through Go's any.
    return int(value) if isinstance(value, int | float) and value == value and abs(value) < 2**53 else 0
