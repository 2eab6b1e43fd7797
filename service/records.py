"""What a server is wanted to be: its record, and where it stands.

The record is in the release's own values; the chart repeats it in an annotation of the StatefulSet, so that
reads need no release. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from service.edges import Objects

ANNOTATION = "gameserver/server"


@dataclass(frozen=True)
class Record:
    """A server as a client asked for it; sizes in GiB, `rcon` public or private, `customer` "" for none."""

    game: str
    ram_gb: int
    disk_gb: int
    options: Mapping[str, Any] = field(default_factory=dict)
    customer: str = ""
    rcon: str = "public"

    def difference(self, other: Record) -> list[str]:
        """The names of the fields in which `other` is not the same."""
        return [name for name in self.__dataclass_fields__ if not _same(getattr(self, name), getattr(other, name))]


def _same(one: Any, other: Any) -> bool:
    # Through JSON, as 1 == True in Python, and not in an option.
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def record_of_values(values: Mapping[str, Any]) -> Record:
    """The record within a release's values. A hand may have written them, so nothing is taken for granted."""
    server = _mapping(values.get("server"))
    return Record(
        game=str(values.get("game") or "minecraft"),
        ram_gb=_number(values.get("ramGb")),
        disk_gb=_number(values.get("diskGb")),
        options=_mapping(server.get("options")),
        customer=str(server.get("customer") or ""),
        rcon=str(_mapping(values.get("rcon")).get("visibility") or "public"),
    )


def record_of_objects(objects: Objects) -> Record | None:
    """The record that the chart has written on the StatefulSet, or None where there is none to read."""
    return _annotated(objects.statefulset)


def customer_of_claim(claim: Mapping[str, Any]) -> str | None:
    """Whose disk this is, or None where the claim does not say."""
    record = _annotated(claim)
    return None if record is None else record.customer


def _annotated(thing: Mapping[str, Any] | None) -> Record | None:
    text = _mapping(_mapping(thing).get("metadata")).get("annotations") or {}
    try:
        found = json.loads(text[ANNOTATION])
    except (KeyError, TypeError, ValueError):
        return None
    found = _mapping(found)
    return Record(
        game=str(found.get("game") or ""),
        ram_gb=_number(found.get("ram_gb")),
        disk_gb=_number(found.get("disk_gb")),
        options=_mapping(found.get("options")),
        customer=str(found.get("customer") or ""),
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _number(value: Any) -> int:
    # Helm keeps numbers as floats when they come from YAML through Go's any.
    return int(value) if isinstance(value, int | float) and value == value and abs(value) < 2**53 else 0
