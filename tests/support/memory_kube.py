"""An in-memory stand-in for `service.kube.client.Kube`, with versions, conflicts and absence.

For single objects it keeps the same contract: tests/contract/test_kube.py runs against both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from functools import partial
from threading import Condition, RLock
from typing import Any

from service.errors import ClusterUnavailable
from service.kube.client import Conflict, Gone, Kube
from service.kube.times import now
from service.kube.types import Object


class MemoryKube(Kube):
    """`before` is called with each method and path, and may raise. Each watch yields one of the lists in `events`.

    Threads may share it: as with Kubernetes, nothing comes between the check of a version and the write.
    """

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.version = 0
        self._writing = RLock()
        self._deleted: Counter[str] = Counter()
        self.before: Callable[[str, str], None] = lambda method, path: None
        self.asked: list[str] = []
        self.lists: list[list[Object]] = []
        self.events: list[list[Object]] = []

    def away(self) -> None:
        """From now on every call raises ClusterUnavailable."""

        def refuse(method: str, path: str) -> None:
            raise ClusterUnavailable

        self.before = refuse

    def back(self) -> None:
        """From now on calls work again."""
        self.before = lambda method, path: None

    def _ask(self, method: str, path: str) -> None:
        self.asked.append(f"{method} {path}")
        self.before(method, path)

    def _stored(self, path: str, body: Object) -> Object:
        self.version += 1
        # An object that is created again has another uid.
        uid = f"{path}#{self._deleted[path]}" if self._deleted[path] else path
        metadata = {"uid": uid, **body["metadata"], "resourceVersion": str(self.version)}
        self.objects[path] = {**deepcopy(body), "metadata": metadata}
        return deepcopy(self.objects[path])

    def get(self, path: str, *, metadata: bool = False, **query: str | int) -> Object | None:
        self._ask("GET", path)
        return deepcopy(self.objects.get(path))

    def get_all(self, targets: Sequence[str], *, metadata: bool = False) -> list[Object | None]:
        return [self.get(target) for target in targets]

    def create(self, path: str, body: Object) -> Object:
        self._ask("POST", path)
        name = f"{path}/{body['metadata']['name']}"
        with self._writing:
            if name in self.objects:
                raise Conflict(name)
            return self._stored(name, body)

    def replace(self, path: str, body: Object) -> Object:
        self._ask("PUT", path)
        with self._writing:
            current = self.objects.get(path)
            if current is None or current["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"]:
                raise Conflict(path)
            return self._stored(path, body)

    def merge(self, path: str, body: Object) -> Object | None:
        self._ask("PATCH", path)
        with self._writing:
            current = self.objects.get(path)
            if current is None:
                return None
            version = current["metadata"]["resourceVersion"]
            if body.get("metadata", {}).get("resourceVersion", version) != version:
                raise Conflict(path)
            return self._stored(path, _merged(current, body))

    def delete(self, path: str, *, uid: str = "", version: str = "") -> None:
        self._ask("DELETE", path)
        with self._writing:
            if path not in self.objects:
                return
            metadata = self.objects[path]["metadata"]
            if version not in ("", metadata["resourceVersion"]) or uid not in ("", metadata["uid"]):
                raise Conflict(path)
            del self.objects[path]
            self._deleted[path] += 1

    def listed(self, path: str, *, metadata: bool = False, **query: str | int) -> tuple[list[Object], str]:
        self._ask("LIST", path)
        return self.lists.pop(0), "1"

    def watch(self, path: str, version: str, *, metadata: bool, seconds: int, **query: Any) -> Iterator[Object]:
        self._ask("WATCH", path)
        if not self.events:
            raise Gone(path)
        yield {"type": "CONNECTED"}
        yield from self.events.pop(0)


class WatchedKube(MemoryKube):
    """One whose lists and watches show its objects: in each collection the object that `fieldSelector` names."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = Condition(self._writing)

    def _differs(self, path: str, seen: Object | None) -> bool:
        return self.objects.get(path) != seen

    def _stored(self, path: str, body: Object) -> Object:
        with self._changed:
            stored = super()._stored(path, body)
            self._changed.notify_all()
            return stored

    def delete(self, path: str, *, uid: str = "", version: str = "") -> None:
        with self._changed:
            super().delete(path, uid=uid, version=version)
            self._changed.notify_all()

    def listed(self, path: str, *, metadata: bool = False, **query: str | int) -> tuple[list[Object], str]:
        self._ask("LIST", path)
        stored = self.objects.get(_named(path, query))
        return [deepcopy(stored)] if stored else [], str(self.version)

    def watch(self, path: str, version: str, *, metadata: bool, seconds: int, **query: Any) -> Iterator[Object]:
        self._ask("WATCH", path)
        yield {"type": "CONNECTED"}
        name, seen = _named(path, query), None
        while True:
            with self._changed:
                self._changed.wait_for(partial(self._differs, name, seen))
                current = deepcopy(self.objects.get(name))
            yield {"type": "DELETED", "object": seen} if current is None else {"type": "MODIFIED", "object": current}
            seen = current


class LabelledKube(MemoryKube):
    """One whose lists and watches show the objects of the collection that `labelSelector` and `fieldSelector` select.

    Of fields, only an object's name can be selected.
    """

    def __init__(self) -> None:
        super().__init__()
        self._changed = Condition(self._writing)
        # Each change: its version, its type, the object's path and the object.
        self._log: list[tuple[int, str, str, Object]] = []

    def create(self, path: str, body: Object) -> Object:
        return super().create(path, {**body, "metadata": {"creationTimestamp": now(), **body["metadata"]}})

    def _stored(self, path: str, body: Object) -> Object:
        with self._changed:
            kind = "MODIFIED" if path in self.objects else "ADDED"
            stored = super()._stored(path, body)
            self._log.append((self.version, kind, path, stored))
            self._changed.notify_all()
            return stored

    def delete(self, path: str, *, uid: str = "", version: str = "") -> None:
        with self._changed:
            before = self.objects.get(path)
            super().delete(path, uid=uid, version=version)
            if before is not None:
                self.version += 1
                metadata = {**before["metadata"], "resourceVersion": str(self.version)}
                self._log.append((self.version, "DELETED", path, {**before, "metadata": metadata}))
                self._changed.notify_all()

    def listed(self, path: str, *, metadata: bool = False, **query: str | int) -> tuple[list[Object], str]:
        self._ask("LIST", path)
        with self._writing:
            items = [deepcopy(item) for name, item in self.objects.items() if _is_listed(path, query, name, item)]
            return items, str(self.version)

    def watch(self, path: str, version: str, *, metadata: bool, seconds: int, **query: Any) -> Iterator[Object]:
        self._ask("WATCH", path)
        yield {"type": "CONNECTED"}
        position = next((i for i, entry in enumerate(self._log) if entry[0] > int(version)), len(self._log))
        while True:
            with self._changed:
                self._changed.wait_for(partial(self._has_more, position))
                entries, position = self._log[position:], len(self._log)
            # A test that has made Kubernetes go away ends its watches too.
            self.before("WATCH", path)
            for _, kind, name, item in entries:
                if _is_listed(path, query, name, item):
                    yield {"type": kind, "object": deepcopy(item)}

    def _has_more(self, position: int) -> bool:
        return len(self._log) > position


def _is_listed(collection: str, query: dict[str, Any], path: str, item: Object) -> bool:
    selectors = [part.partition("=") for part in query.get("labelSelector", "").split(",") if part]
    labels = item["metadata"].get("labels", {})
    in_collection = path.rpartition("/")[0] == collection
    if query.get("fieldSelector", "") not in ("", f"metadata.name={path.rpartition('/')[2]}"):
        return False
    return in_collection and all(labels.get(name) == text if sign else name in labels for name, sign, text in selectors)


def _named(path: str, query: dict[str, Any]) -> str:
    return f"{path}/{query['fieldSelector'].removeprefix('metadata.name=')}"


def _merged(current: Any, patch: Any) -> Any:
    """A JSON Merge Patch (RFC 7386)."""
    if not isinstance(patch, dict):
        return deepcopy(patch)
    merged = dict(current) if isinstance(current, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(merged.get(key), value)
    return merged
