"""How full disks are, from the records that the agents on the nodes write. Pure.

An agent writes one ConfigMap per node, with the key `disks.json`:

    {"as_of": "2026-11-26T22:45:10Z",
     "disks": {"pvc-1": {"used": 1073741824, "size": 10737418240, "full": false}, "pvc-2": {"enforced": false}}}

`disks` is by the name of the PersistentVolume. `used` and `size` are bytes of a disk that is a file system of its own.
`{"enforced": false}` is a folder that shares its file system with others, so nothing limits it. `full` also means that
no further file can be created. The agents run as root on other machines, so everything is checked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from service.kube.times import stamp

LABEL = "gameserver/disk-usage"
"""Label of the ConfigMaps with the records; its value is `true`."""
KEY = "disks.json"
"""The record's key in a ConfigMap's `data`."""
LARGEST_RECORD = 64 * 1024
"""A longer record is ignored as a whole; an agent writes at most 60,000 bytes."""
NEARLY_FULL = 0.9
"""From this share of its size on, a disk is nearly full."""
# An agent writes each minute. After this time its record no longer says how full a disk is now.
_VALID = timedelta(minutes=10)
_LARGEST_SIZE = 2**63
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII)
_VOLUME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")

Fill = Literal["ok", "nearly-full", "full"]


@dataclass(frozen=True)
class Usage:
    """How full a disk was at the time `as_of` (RFC 3339).

    Attributes:
        as_of: When the node's agent looked.
        enforced: Whether the disk is a file system of its own, so that its size is a limit.
        used, size: Bytes; None unless `enforced`.
        full: Whether the agent could write no more.
    """

    as_of: str
    enforced: bool
    used: int | None = None
    size: int | None = None
    full: bool = False

    def fill(self, now: datetime) -> Fill | None:
        """How full the disk is; None if it has no limit, or if the record is not of now."""
        if self.used is None or self.size is None or abs(now - datetime.fromisoformat(self.as_of)) > _VALID:
            return None
        if self.full or self.used >= self.size:
            return "full"
        return "nearly-full" if self.used >= NEARLY_FULL * self.size else "ok"


def parse(text: str) -> tuple[dict[str, Usage], list[str]]:
    """The disks in a record by the name of their volume, and what is wrong with the record.

    Entries that are not valid are left out. If the record as a whole is not valid, there are no disks.
    """
    if len(text.encode(errors="replace")) > LARGEST_RECORD:
        return {}, [f"it is longer than {LARGEST_RECORD} bytes"]
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        return {}, [f"it is not JSON: {str(error)[:100]}"]
    if not isinstance(record, dict) or not isinstance(record.get("disks"), dict):
        return {}, ["it has no `disks`"]
    if (as_of := _time(record.get("as_of"))) is None:
        return {}, ["`as_of` is not an RFC 3339 time"]
    usages, mistakes = {}, []
    for volume, entry in record["disks"].items():
        usage = _usage(as_of, entry)
        if usage is None or not _VOLUME.fullmatch(volume):
            mistakes.append(f"the entry {volume[:80]!r} is not valid")
        else:
            usages[volume] = usage
    return usages, mistakes


def _time(text: Any) -> str | None:
    """An RFC 3339 time in whole seconds and UTC; None if `text` is not one."""
    if not isinstance(text, str) or not _TIME.fullmatch(text):
        return None
    try:
        return stamp(datetime.fromisoformat(text).astimezone(UTC))
    except (ValueError, OverflowError):
        return None


def _usage(as_of: str, entry: Any) -> Usage | None:
    if not isinstance(entry, Mapping):
        return None
    enforced = entry.get("enforced", True)
    if enforced is False:
        return Usage(as_of, enforced=False)
    used, size, full = entry.get("used"), entry.get("size"), entry.get("full")
    if enforced is not True or not (_is_size(used) and _is_size(size) and size and isinstance(full, bool)):
        return None
    return Usage(as_of, enforced=True, used=used, size=size, full=full)


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LARGEST_SIZE
