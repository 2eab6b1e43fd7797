"""Keeps all objects of one kind in memory: lists them once, then watches them.

The official client's informer retries a failing API server without any pause, so this loop is our own. It lists again
after 410 Gone, and waits after an error, longer each time and with jitter, so that many replicas do not return at the
same moment. https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
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
# The system's randomness, so that the watch's threads do not advance a generator that others have seeded.
_random = random.SystemRandom()

# How long a watch lasts, in seconds: the server ends it, and the next continues from the same version. A watch without
# bookmarks may be silent, so it has to end before the client treats the silence as a dead connection (client.py).
SECONDS = (240, 300)
SILENT_SECONDS = (60, 80)
LONGEST_PAUSE = 8.0


@dataclass(frozen=True)
class Kind:
    """What to watch.

    Attributes:
        path: The collection's path.
        selector: A label selector, "" for all objects.
        trim: Reduces an object to the parts to keep.
        id_of: The server's id for an object, or None if the object belongs to no server.
        metadata: Whether to read only the objects' metadata.
        fields: A field selector, "" for all objects.
        max_objects: How many objects of one server to keep: those that changed last.
        bookmarks: Whether the API server sends bookmarks on this watch while nothing changes.
    """

    path: str
    selector: str
    trim: Callable[[Object], Object]
    id_of: Callable[[Object], int | None]
    metadata: bool = False
    fields: str = ""
    max_objects: int = 100
    bookmarks: bool = True

    @property
    def query(self) -> dict[str, str]:
        """The selectors as query parameters."""
        selectors = {"labelSelector": self.selector, "fieldSelector": self.fields}
        return {name: text for name, text in selectors.items() if text}


Listener = Callable[[int, Object | None, Object, bool], None]
"""Called with each object that the watch receives: the server's id, the earlier object if there was one, the object,
and whether it was deleted. It must return quickly, because the watch waits for it."""


def _ignore(id: int, before: Object | None, item: Object, deleted: bool) -> None:
    """A listener that does nothing."""


class Watch:
    """The objects of one kind, by server id and then by name. Thread-safe."""

    def __init__(self, kube: Kube, kind: Kind, listener: Listener = _ignore) -> None:
        self._kube = kube
        self._kind = kind
        self._listener = listener
        self._lock = threading.Lock()
        self._groups: dict[int, dict[str, Object]] = {}
        self._version = ""
        self._lost_since: float | None = time.monotonic()
        self._synced = threading.Event()
        self._started = False

    def start(self) -> None:
        """Start the watch's thread. Idempotent."""
        with self._lock:
            if self._started:
                return
            self._started = True
        threading.Thread(target=self._run, name=f"watch {self._kind.path}", daemon=True).start()

    def wait(self, seconds: float) -> bool:
        """Wait up to `seconds` for the first list; returns whether it is complete."""
        return self._synced.wait(seconds)

    def lost_for(self) -> float:
        """For how many seconds the watch has been interrupted; 0 while it works."""
        since = self._lost_since
        return 0.0 if since is None else time.monotonic() - since

    def ids(self) -> list[int]:
        """The ids of all servers that have such objects."""
        with self._lock:
            return list(self._groups)

    def of(self, id: int) -> Mapping[str, Object]:
        """The objects of one server by name. The mapping does not change later."""
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
                # Only a new list shows the changes that were missed.
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
                self._drop_oldest(group)
        with self._lock:
            before, self._groups = self._groups, groups
        self._version = version
        self._lost_since = None
        self._synced.set()
        for id, group in before.items():
            for name, item in group.items():
                if name not in groups.get(id, {}):
                    # It was deleted while nobody watched; this is the last version that was seen.
                    self._listener(id, item, item, True)
        for id, group in groups.items():
            for name, item in group.items():
                self._listener(id, before.get(id, {}).get(name), item, False)

    def _drop_oldest(self, group: dict[str, Object]) -> None:
        while len(group) > self._kind.max_objects:
            del group[next(iter(group))]

    def _follow(self) -> None:
        seconds = _random.randint(*(SECONDS if self._kind.bookmarks else SILENT_SECONDS))
        for event in self._kube.watch(
            self._kind.path, self._version, metadata=self._kind.metadata, seconds=seconds, **self._kind.query
        ):
            if event["type"] == "CONNECTED":
                self._lost_since = None
            elif event["type"] == "ERROR":
                # Mostly code 410. After any other, a new list is the only safe way to continue.
                raise Gone(str(event["object"].get("message")))
            else:
                self._version = event["object"]["metadata"]["resourceVersion"]
                if event["type"] != "BOOKMARK":
                    self._apply(event["type"] == "DELETED", event["object"])

    def _apply(self, deleted: bool, item: Object) -> None:
        id, name = self._kind.id_of(item), item["metadata"]["name"]
        if id is None:
            return
        # Make a new dict each time: readers use the old one without a lock.
        before, trimmed = self._groups.get(id, {}), self._kind.trim(item)
        group = {key: value for key, value in before.items() if key != name}
        if not deleted:
            group[name] = trimmed
            self._drop_oldest(group)
        with self._lock:
            if group:
                self._groups[id] = group
            else:
                self._groups.pop(id, None)
        self._listener(id, before.get(name), trimmed, deleted)
