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

from service.edges import Object
from service.errors import Problem
from service.kube import Gone, Kube

log = logging.getLogger(__name__)
# The machine's own randomness: no thread of the watch moves the state that others seed.
_random = random.SystemRandom()

# A watch lasts this long; the server ends it, and the next goes on from the same place.
SECONDS = (240, 300)
LONGEST_PAUSE = 8.0


@dataclass(frozen=True)
class Kind:
    """What to watch: where, which of them, whether only metadata, what of an object to keep, and whose it is.

    `id_of` gives the server's id for an object, or None for one that is no server's.
    """

    path: str
    selector: str
    trim: Callable[[Object], Object]
    id_of: Callable[[Object], int | None]
    metadata: bool = False


class Watch:
    """The objects of one kind, by server id and then by name."""

    def __init__(self, kube: Kube, kind: Kind) -> None:
        self._kube = kube
        self._kind = kind
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
        items, version = self._kube.listed(
            self._kind.path, metadata=self._kind.metadata, labelSelector=self._kind.selector
        )
        groups: dict[int, dict[str, Object]] = {}
        for item in items:
            if (id := self._kind.id_of(item)) is not None:
                groups.setdefault(id, {})[item["metadata"]["name"]] = self._kind.trim(item)
        with self._lock:
            self._groups = groups
        self._version = version
        self._lost_since = None
        self._synced.set()

    def _follow(self) -> None:
        seconds = _random.randint(*SECONDS)
        for event in self._kube.watch(
            self._kind.path,
            self._version,
            metadata=self._kind.metadata,
            seconds=seconds,
            labelSelector=self._kind.selector,
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
        group = {key: value for key, value in self._groups.get(id, {}).items() if key != name}
        if not deleted:
            group[name] = self._kind.trim(item)
        with self._lock:
            if group:
                self._groups[id] = group
            else:
                self._groups.pop(id, None)
