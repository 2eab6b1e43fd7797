"""Keeps what there is of one kind of object in memory, by a list and then a watch."""

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

Record = TypeVar("Record")

PAGE = 500
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0


class Watch(Generic[Record]):
    """The records of one kind. cut_down turns an object into its record, or None for one to leave out.

    changed is called after each change, from the watch's own thread.
    """

    def __init__(
        self,
        kube: Kube,
        path: str,
        selector: str,
        cut_down: Callable[[dict[str, Any]], Record | None],
        changed: Callable[[], None],
    ) -> None:
        self._kube = kube
        self._path = path
        self._selector = selector
        self._cut_down = cut_down
        self._changed = changed
        self._records: dict[str, Record] = {}
        # The version up to which the records are current; empty before the first list.
        self._version = ""
        self._lock = threading.Lock()
        self.synced = threading.Event()

    def records(self) -> list[Record]:
        """The records of this moment."""
        with self._lock:
            return list(self._records.values())

    def start(self) -> None:
        threading.Thread(target=self.run, name=self._path, daemon=True).start()

    def run(self) -> None:
        """List once, then watch for ever.

        The API server may be away at any time: each failure waits twice as long as the one before, with
        jitter, so that the agents of all nodes do not come back at the same moment. What is known stays.
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
                if error.status == 410:  # the version is too old to go on from: list again
                    self._version = ""
                self._log(error)
            except (OSError, http.client.HTTPException, ValueError) as error:
                self._log(error)
            else:
                continue
            if time.monotonic() - began > LONGEST_PAUSE:
                pause = FIRST_PAUSE
            time.sleep(random.uniform(pause / 2, pause))  # noqa: S311
            pause = min(pause * 2, LONGEST_PAUSE)

    def _list(self) -> None:
        records: dict[str, Record] = {}
        proceed = ""
        while True:
            answer = self._kube.request("GET", self._url({"limit": str(PAGE), "continue": proceed}))
            for found in answer["items"] or ():
                self._put(records, found)
            proceed = answer["metadata"].get("continue", "")
            if not proceed:
                break
        with self._lock:
            self._records = records
        self._version = answer["metadata"]["resourceVersion"]
        self.synced.set()
        self._changed()

    def _watch(self) -> None:
        """Follow the events until the server ends the watch. Raises as Kube does."""
        seconds = random.randint(240, 360)  # noqa: S311
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(seconds),
        }
        for event in self._kube.stream(self._url(query), seconds):
            changed = event["object"]
            if event["type"] == "ERROR":
                raise ApiError(changed.get("code", 500), changed.get("message", "the watch failed"))
            if event["type"] == "BOOKMARK":
                self._version = changed["metadata"]["resourceVersion"]
                continue
            with self._lock:
                if event["type"] == "DELETED":
                    self._records.pop(_key(changed), None)
                else:
                    self._put(self._records, changed)
            self._version = changed["metadata"]["resourceVersion"]
            self._changed()

    def _put(self, records: dict[str, Record], found: dict[str, Any]) -> None:
        """An object that cannot be understood is left out: one broken object must not stop the others."""
        try:
            record = self._cut_down(found)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            log.warning(
                "object left out", extra={"fields": {"path": self._path, "name": _key(found), "error": repr(error)}}
            )
            record = None
        if record is None:
            records.pop(_key(found), None)
        else:
            records[_key(found)] = record

    def _url(self, query: dict[str, str]) -> str:
        if self._selector:
            query = {**query, "labelSelector": self._selector}
        return f"{self._path}?{urlencode({key: value for key, value in query.items() if value})}"

    def _log(self, error: Exception) -> None:
        log.warning("watch interrupted", extra={"fields": {"path": self._path, "error": str(error)}})


def _key(found: dict[str, Any]) -> str:
    return str(found["metadata"]["name"])
