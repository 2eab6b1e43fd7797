"""Records in Kubernetes: what the product has to remember that is neither in a release nor in an object of a server.

A record is a Secret of the servers' namespace, because the API may write Secrets there already and the agents on the
nodes may not even read them. etcd is small, so a record has at most 64 KiB; whoever keeps records bounds their number.

Rights that this needs in the servers' namespace, all of which helm needs too:

    secrets    get list watch create patch delete
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from service.kube.client import Conflict, Kube, path
from service.kube.types import Object
from service.kube.watch import Kind, Watch

LABEL = "gameserver/record"
"""Label of each record's Secret: the kind of the record."""
TYPE = "gameserver/record"
"""Type of each record's Secret."""
LARGEST = 64 * 1024
"""A record's keys and texts together have at most this many bytes."""

# The watch groups objects by server; records belong to none.
_ALL = 0
_MAX_RECORDS = 100_000
T = TypeVar("T")


class RecordTooLarge(ValueError):
    """A record would have more than 64 KiB. Nothing was written."""


@dataclass(frozen=True)
class Record:
    """A record as it is stored.

    Attributes:
        name: Its name, unique within its kind.
        version: Changes with each write.
        data: Its texts by key; a key has letters, digits, `-`, `_` and `.` only.
        created: When it was created (RFC 3339).
    """

    name: str
    version: str
    data: Mapping[str, str]
    created: str


class RecordStore:
    """The records of one kind. Thread-safe. Every method may raise ClusterUnavailable.

    Args:
        kube: The Kubernetes client.
        namespace: The servers' namespace.
        kind: The kind, such as `operation`; a record's Secret is named `<kind>-<name>`.
    """

    def __init__(self, kube: Kube, namespace: str, kind: str) -> None:
        self._kube = kube
        self._namespace = namespace
        self._kind = kind

    def get(self, name: str) -> Record | None:
        """The record with this name; None if there is none."""
        secret = self._kube.get(self._path(name))
        return None if secret is None else self._record(secret)

    def all(self) -> list[Record]:
        """All records of this kind, by name."""
        secrets = self._kube.all(self._path(), labelSelector=f"{LABEL}={self._kind}")
        return sorted(map(self._record, secrets), key=lambda record: record.name)

    def create(self, name: str, data: Mapping[str, str]) -> Record:
        """Create a record; raises Conflict if there is one with this name, and RecordTooLarge."""
        _check_size(data)
        secret: Object = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": TYPE,
            "metadata": {
                "name": self._secret_name(name),
                "labels": {LABEL: self._kind, "app.kubernetes.io/part-of": "gameserver-cluster"},
            },
            "data": _encode(data),
        }
        return self._record(self._kube.create(self._path(), secret))

    def change(self, record: Record, data: Mapping[str, str | None]) -> Record:
        """Write these keys of a record and leave its others; None removes a key.

        Returns:
            The record as it is now.

        Raises:
            Conflict: The record is no longer at `record.version`, or has been deleted.
            RecordTooLarge: It would have more than 64 KiB.
        """
        _check_size({key: text for key, text in {**record.data, **data}.items() if text is not None})
        body: Object = {"metadata": {"resourceVersion": record.version}, "data": _encode(data)}
        secret = self._kube.merge(self._path(record.name), body)
        if secret is None:
            raise Conflict(record.name)
        return self._record(secret)

    def delete(self, record: Record) -> None:
        """Delete a record; one that is gone is no error. Raises Conflict if it is no longer at `record.version`."""
        self._kube.delete(self._path(record.name), version=record.version)

    def watch(self, listener: Callable[[Record, bool], None] = lambda record, deleted: None) -> RecordWatch[Record]:
        """A watch of all records of this kind; see `watch_as`."""
        return self.watch_as(lambda record: record, listener)

    def watch_as(self, read: Callable[[Record], T], listener: Callable[[T, bool], None]) -> RecordWatch[T]:
        """A watch of what all records of this kind say, which is not started yet.

        Args:
            read: Reads a record; called once for each change of it.
            listener: Called with what each record says that the watch receives, and whether it was deleted. It must
                return quickly, because the watch waits for it.
        """
        kind = Kind(
            self._path(),
            f"{LABEL}={self._kind}",
            lambda secret: {"metadata": {"name": secret["metadata"]["name"]}, "record": read(self._record(secret))},
            lambda secret: _ALL,
            max_objects=_MAX_RECORDS,
        )
        return RecordWatch(
            Watch(self._kube, kind, lambda _, before, item, deleted: listener(item["record"], deleted)),
            self._secret_name(""),
        )

    def _record(self, secret: Object) -> Record:
        metadata = secret["metadata"]
        return Record(
            metadata["name"].removeprefix(self._secret_name("")),
            metadata.get("resourceVersion", ""),
            decoded(secret.get("data") or {}),
            metadata.get("creationTimestamp", ""),
        )

    def _path(self, name: str = "") -> str:
        return path("v1", self._namespace, "secrets", self._secret_name(name) if name else "")

    def _secret_name(self, name: str) -> str:
        return f"{self._kind}-{name}"


class RecordWatch(Generic[T]):
    """What the records of one kind say, in memory, kept up to date by a watch. Thread-safe."""

    def __init__(self, watch: Watch, prefix: str) -> None:
        self._watch = watch
        self._prefix = prefix

    def start(self) -> None:
        """Start the watch's thread. Idempotent."""
        self._watch.start()

    def wait(self, seconds: float) -> bool:
        """Wait up to `seconds` for the first list; returns whether it is complete."""
        return self._watch.wait(seconds)

    def lost_for(self) -> float:
        """For how many seconds the watch has been interrupted; 0 while it works."""
        return self._watch.lost_for()

    def get(self, name: str) -> T | None:
        """What the record with this name says; None if the watch knows none."""
        item = self._watch.of(_ALL).get(f"{self._prefix}{name}")
        return None if item is None else item["record"]

    def all(self) -> list[T]:
        """What all records say, by their names."""
        items = self._watch.of(_ALL)
        return [items[name]["record"] for name in sorted(items)]


def _check_size(data: Mapping[str, str]) -> None:
    size = sum(len(key) + len(text.encode()) for key, text in data.items())
    if size > LARGEST:
        raise RecordTooLarge(f"the record would have {size} bytes; at most {LARGEST} are allowed")


def _encode(data: Mapping[str, str | None]) -> dict[str, str | None]:
    return {key: None if text is None else base64.b64encode(text.encode()).decode() for key, text in data.items()}


def decoded(data: Mapping[str, str]) -> dict[str, str]:
    """The texts in a Secret's data."""
    texts = {}
    for key, encoded in data.items():
        try:
            texts[key] = base64.b64decode(encoded).decode()
        except (UnicodeDecodeError, binascii.Error):
            # Somebody has written it by hand. An empty text is no valid entry either, so its reader reports it.
            texts[key] = ""
    return texts
