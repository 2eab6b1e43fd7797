"""Keeps all objects of one kind in memory: lists them once, then watches them."""

from __future__ import annotations

import http.client
import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar
from urllib.parse import urlencode

from disk_agent.kube import ApiError, Kube

log = logging.getLogger(__name__)
# The system's randomness, so that no thread advances a generator that others have seeded.
_random = random.SystemRandom()

Record = TypeVar("Record")

PAGE = 500
FIRST_PAUSE, MAX_PAUSE = 0.5, 30.0


class Watch(Generic[Record]):
    """The records of one kind of object. Thread-safe.

    Args:
        kube: The API server.
        path: The collection's path.
        selector: A label selector, "" for all objects.
        convert: Turns an object into its record, or into None if it is to be left out.
        changed: Called after each change, from the watch's own thread.
    """

    def __init__(
        self,
        kube: Kube,
        path: str,
        selector: str,
        convert: Callable[[dict[str, Any]], Record | None],
        changed: Callable[[], None],
    ) -> None:
        self._kube = kube
        self._path = path
        self._selector = selector
        self._convert = convert
        self._changed = changed
        self._records: dict[str, Record] = {}
        # The resourceVersion of the records; empty before the first list.
        self._version = ""
        self._lock = threading.Lock()
        self.synced = threading.Event()

    def records(self) -> list[Record]:
        """The current records."""
        with self._lock:
            return list(self._records.values())

    def start(self) -> None:
        """Start the watch's thread."""
        threading.Thread(target=self.run, name=self._path, daemon=True).start()

    def run(self) -> None:
        """List once, then watch forever.

        The API server may be unreachable at any time. After each failure the watch waits twice as long as after the
        one before, with jitter, so that the agents of all nodes do not return at the same moment. It keeps the records.
        """
        pause = FIRST_PAUSE
        while True:
            began = time.monotonic()
            try:
                if not self._version:
                    self._list()
                self._watch()
                pause = FIRST_PAUSE
            except ApiError as error:
                if error.status == 410:  # The version is too old to continue from: list again.
                    self._version = ""
                self._log(error)
            except (OSError, http.client.HTTPException, ValueError) as error:
                self._log(error)
            else:
                continue
            if time.monotonic() - began > MAX_PAUSE:
                pause = FIRST_PAUSE
            time.sleep(_random.uniform(pause / 2, pause))
            pause = min(pause * 2, MAX_PAUSE)

    def _list(self) -> None:
        records: dict[str, Record] = {}
        continue_ = ""
        while True:
            page = self._kube.request("GET", self._url({"limit": str(PAGE), "continue": continue_}))
            for item in page["items"] or ():
                self._put(records, item)
            continue_ = page["metadata"].get("continue", "")
            if not continue_:
                break
        with self._lock:
            self._records = records
        self._version = page["metadata"]["resourceVersion"]
        self.synced.set()
        self._changed()

    def _watch(self) -> None:
        """Follow the events until the server ends the watch. Raises ApiError or OSError."""
        seconds = _random.randint(240, 360)
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(seconds),
        }
        for event in self._kube.stream(self._url(query), seconds):
            item = event["object"]
            if event["type"] == "ERROR":
                raise ApiError(item.get("code", 500), item.get("message", "the watch failed"))
            if event["type"] == "BOOKMARK":
                self._version = item["metadata"]["resourceVersion"]
                continue
            with self._lock:
                if event["type"] == "DELETED":
                    self._records.pop(_key(item), None)
                else:
                    self._put(self._records, item)
            self._version = item["metadata"]["resourceVersion"]
            self._changed()

    def _put(self, records: dict[str, Record], item: dict[str, Any]) -> None:
        """Store an object's record. A malformed object is left out, so that it does not stop the others."""
        try:
            record = self._convert(item)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            log.warning(
                "object left out", extra={"fields": {"path": self._path, "name": _key(item), "error": repr(error)}}
            )
            record = None
        if record is None:
            records.pop(_key(item), None)
        else:
            records[_key(item)] = record

    def _url(self, query: dict[str, str]) -> str:
        if self._selector:
            query = {**query, "labelSelector": self._selector}
        return f"{self._path}?{urlencode({key: value for key, value in query.items() if value})}"

    def _log(self, error: Exception) -> None:
        log.warning("watch interrupted", extra={"fields": {"path": self._path, "error": str(error)}})


def _key(item: dict[str, Any]) -> str:
    return str(item["metadata"]["name"])
