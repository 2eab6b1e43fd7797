"""A Kubernetes API in memory, as far as `service.kube.Kube` shows it: versions, conflicts, and being away.

Of single objects it keeps the same contract: tests/contract/test_kube.py runs against both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from typing import Any

from service.errors import ClusterUnavailable
from service.kube.client import Conflict, Gone, Kube
from service.kube.types import Object


class MemoryKube(Kube):
    """`before` is called with each method and path, and may raise; `events` are what watches yield, one list each."""

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.version = 0
        self._deleted: Counter[str] = Counter()
        self.before: Callable[[str, str], None] = lambda method, path: None
        self.asked: list[str] = []
        self.lists: list[list[Object]] = []
        self.events: list[list[Object]] = []

    def away(self) -> None:
        def refuse(method: str, path: str) -> None:
            raise ClusterUnavailable

        self.before = refuse

    def back(self) -> None:
        self.before = lambda method, path: None

    def _ask(self, method: str, path: str) -> None:
        self.asked.append(f"{method} {path}")
        self.before(method, path)

    def _stored(self, path: str, body: Object) -> Object:
        self.version += 1
        # What is made again under a name is another object.
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
        where = f"{path}/{body['metadata']['name']}"
        if where in self.objects:
            raise Conflict(where)
        return self._stored(where, body)

    def replace(self, path: str, body: Object) -> Object:
        self._ask("PUT", path)
        there = self.objects.get(path)
        if there is None or there["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"]:
            raise Conflict(path)
        return self._stored(path, body)

    def delete(self, path: str, *, uid: str = "", version: str = "") -> None:
        self._ask("DELETE", path)
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
