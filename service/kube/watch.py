"""Objects of one kind, kept in memory by a list and a watch.

The official client's informer asks a failing API server again without any pause, so the loop here is our own: it
relists after 410 Gone, and after an error it waits, longer each time and with jitter, so that many replicas do not
come back at once. https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from service.errors import Problem
from service.kube.client import Gone, Kube
from service.kube.types import Object

log = logging.getLogger(__name__)
# The machine's own randomness: no thread of the watch moves the state that others seed.
_random = random.SystemRandom()

# A watch lasts this long; the server ends it, and the next goes on from the same place. Where it says nothing for as
# long as nothing happens, it has to end before the silence is taken for a dead connection (kube.py).
SECONDS = (240, 300)
SILENT_SECONDS = (60, 80)
LONGEST_PAUSE = 8.0


@dataclass(frozen=True)
class Kind:
    """What to watch: where, which of them, whether only metadata, what of an object to keep, and whose it is.

    `id_of` gives the server's id for an object, or None for one that is no server's. `fields` selects by fields, and
    of one server's objects only the `most` that changed last are kept. `bookmarks` says that the API server speaks
    up on this watch now and then, even when nothing happens.
    """

    path: str
    selector: str
    trim: Callable[[Object], Object]
    id_of: Callable[[Object], int | None]
    metadata: bool = False
    fields: str = ""
    most: int = 100
    bookmarks: bool = True

    @property
    def query(self) -> dict[str, str]:
        wanted = {"labelSelector": self.selector, "fieldSelector": self.fields}
        return {name: text for name, text in wanted.items() if text}


Seen = Callable[[int, Object | None, Object, bool], None]
"""Told of each object that the watch sees: the server's id, the object before if there was one, the object, and
whether it is gone. It must not keep the watch waiting."""


def _untold(id: int, before: Object | None, item: Object, gone: bool) -> None:
    """Nobody wants to know."""


class Watch:
    """The objects of one kind, by server id and then by name."""

    def __init__(self, kube: Kube, kind: Kind, seen: Seen = _untold) -> None:
        self._kube = kube
        self._kind = kind
        self._seen = seen
        self._lock = threading.Lock()
        self._groups: dict[int, dict[str, Object]] = {}
        self._version = ""
        self._lost_since: float | None = time.monotonic()
        self._synced = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._run, name=f"watch {self._kind.path}", daemon=True).start()

    def wait(self, seconds: float) -> bool:
        """Whether the first list is there, or comes within `seconds`."""
        return self._synced.wait(seconds)

    def lost_for(self) -> float:
        """The seconds for which changes have not been heard of; 0 while all is well."""
        since = self._lost_since
        return 0.0 if since is None else time.monotonic() - since

    def ids(self) -> list[int]:
        with self._lock:
            return list(self._groups)

    def of(self, id: int) -> Mapping[str, Object]:
        """The objects of one server by name; not changed later."""
        return self._groups.get(id, {})

    # -- the loop ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        failures = 0
        while True:
            try:
                if not self._version:
                    self._list()
                self._follow()
                failures = 0
                continue
            except Gone:
                # Compacted away: what was missed is only to be had from a new list.
                self._version = ""
            except Problem as error:
                log.warning("watch of %s: %s", self._kind.path, error.__cause__ or error)
            except Exception:
                log.exception("watch of %s", self._kind.path)
                self._version = ""
            self._lost_since = self._lost_since or time.monotonic()
            failures += 1
            time.sleep(min(LONGEST_PAUSE, 0.25 * 2 ** min(failures, 10)) * _random.uniform(0.5, 1))

    def _list(self) -> None:
        items, version = self._kube.listed(self._kind.path, metadata=self._kind.metadata, **self._kind.query)
        groups: dict[int, dict[str, Object]] = {}
        for item in items:
            if (id := self._kind.id_of(item)) is not None:
                group = groups.setdefault(id, {})
                group[item["metadata"]["name"]] = self._kind.trim(item)
                self._bound(group)
        with self._lock:
            before, self._groups = self._groups, groups
        self._version = version
        self._lost_since = None
        self._synced.set()
        for id, group in groups.items():
            for name, item in group.items():
                self._seen(id, before.get(id, {}).get(name), item, False)

    def _bound(self, group: dict[str, Object]) -> None:
        while len(group) > self._kind.most:
            del group[next(iter(group))]

    def _follow(self) -> None:
        seconds = _random.randint(*(SECONDS if self._kind.bookmarks else SILENT_SECONDS))
        for event in self._kube.watch(
            self._kind.path, self._version, metadata=self._kind.metadata, seconds=seconds, **self._kind.query
        ):
            if event["type"] == "CONNECTED":
                self._lost_since = None
            elif event["type"] == "ERROR":
                # Mostly code 410; whatever it is, only a new list is sure to go on from.
                raise Gone(str(event["object"].get("message")))
            else:
                self._version = event["object"]["metadata"]["resourceVersion"]
                if event["type"] != "BOOKMARK":
                    self._apply(event["type"] == "DELETED", event["object"])

    def _apply(self, deleted: bool, item: Object) -> None:
        id, name = self._kind.id_of(item), item["metadata"]["name"]
        if id is None:
            return
        # A new dict each time: readers hold on to the old one without a lock.
        before, trimmed = self._groups.get(id, {}), self._kind.trim(item)
        group = {key: value for key, value in before.items() if key != name}
        if not deleted:
            group[name] = trimmed
            self._bound(group)
        with self._lock:
            if group:
                self._groups[id] = group
            else:
                self._groups.pop(id, None)
        self._seen(id, before.get(name), trimmed, deleted)
