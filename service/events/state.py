"""Keeps what was told of each server, so that another controller can go on where this one ended.

It may be some seconds behind the log: whoever goes on from it computes some events again, with the same ids, and the
log takes each id once.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from service.events.changes import Told
from service.records.store import Record, RecordStore, RecordTooLarge

log = logging.getLogger(__name__)

KIND = "event-state"
"""The kind of the records."""
SHARDS = 64
"""Into how many records the servers are divided, by their id."""
_DEFAULTS = {field.name: field.default for field in fields(Told)}

ToldById = Mapping[int, Sequence[Told]]


class EventState:
    """What was told of the servers, in records. Not thread-safe. Every method may raise ClusterUnavailable.

    Args:
        store: The records of the kind KIND.
    """

    def __init__(self, store: RecordStore) -> None:
        self._store = store
        self._records: dict[str, Record] = {}

    def load(self) -> dict[int, tuple[Told, ...]] | None:
        """What was told, by the servers' ids; None if no controller has ever saved anything."""
        self._records = {record.name: record for record in self._store.all()}
        if _shard(0) not in self._records:
            return None
        told = {}
        for record in self._records.values():
            for key, text in record.data.items():
                try:
                    told[int(key)] = _read(text)
                except (TypeError, ValueError):
                    log.warning("what was told of server %s is not readable, and begins again", key)
        return told

    def save(self, told: ToldById) -> None:
        """Save what was told of some servers; nothing is kept of those of which nothing was told.

        Raises:
            Conflict: Another has written. The next call reads what it wrote over.
        """
        shards: dict[str, dict[str, str | None]] = {}
        for id, each in told.items():
            shards.setdefault(_shard(id), {})[str(id)] = _written(each) if each else None
        # Last, because only with this one the servers that exist count as told; see `load`.
        for name in sorted(shards, reverse=True):
            self._save(name, shards[name])

    def _save(self, name: str, data: Mapping[str, str | None]) -> None:
        try:
            record = self._records.pop(name, None) or self._store.get(name)
            texts = {key: text for key, text in data.items() if text is not None}
            self._records[name] = self._store.change(record, data) if record else self._store.create(name, texts)
        except RecordTooLarge:
            log.error(
                "what was told of servers does not fit in the record %s; after a restart, events may be missing", name
            )


def _shard(id: int) -> str:
    return f"{id % SHARDS:02}"


def _written(told: Sequence[Told]) -> str:
    """Only what differs from the defaults, because there may be many servers."""
    texts = [
        {name: value for name, default in _DEFAULTS.items() if (value := getattr(each, name)) != default}
        for each in told
    ]
    return json.dumps(texts, ensure_ascii=False, separators=(",", ":"))


def _read(text: str) -> tuple[Told, ...]:
    return tuple(Told(**_known(entry)) for entry in json.loads(text))


def _known(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Without what only a later version of this product knows."""
    return {name: value for name, value in entry.items() if name in _DEFAULTS}
