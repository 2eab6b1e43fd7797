"""Looks at the disks of this node every ten seconds, and writes how full they are for the API."""

from __future__ import annotations

import http.client
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

from disk_agent import usage
from disk_agent.kube import ApiError, Kube
from disk_agent.mounts import open_disk
from disk_agent.objects import Volume
from disk_agent.plan import MANAGER
from disk_agent.settings import Settings
from disk_agent.usage import Use

log = logging.getLogger(__name__)

LOOK_SECONDS = 10.0
# A record without news is written this often, so that a reader can tell it from one that nobody writes any more.
WRITE_SECONDS = 60.0
# How long a disk may take to answer, and how long its last answer counts when it does not.
ANSWER_SECONDS, REMEMBERED_SECONDS = 2.0, 60.0

Measure = Callable[[Volume], Use | None]


def measure(root: Path, volume: Volume) -> Use | None:
    """How full a disk is; None if nothing limits it. Never looks at what is in it.

    Args:
        root: Where the node's folders are mounted.
        volume: The disk's volume.

    Raises:
        OSError: It is not mounted, or its folder cannot be opened.
    """
    descriptor, own_file_system = open_disk(root, volume.folder, is_mount=volume.is_mount)
    try:
        return usage.use(os.fstatvfs(descriptor)) if own_file_system else None
    finally:
        os.close(descriptor)


class Reporter:
    """Writes the record of this node's disks.

    Args:
        kube: The API server.
        settings: The agent's settings.
        volumes: Returns the volumes of this node's disks.
        measure: Measures one disk, as `measure` above does.
    """

    def __init__(
        self,
        kube: Kube,
        settings: Settings,
        volumes: Callable[[], Iterable[Volume]],
        measure: Measure,
    ) -> None:
        self._kube = kube
        self._settings = settings
        self._volumes = volumes
        self._measure = measure
        # Each disk's last answer, and when it came.
        self._answers: dict[str, tuple[float, Use | None]] = {}
        self._looks: dict[str, threading.Thread] = {}
        self._silent: set[str] = set()
        self._written: usage.Uses | None = None
        self._written_at = 0.0
        self._node_uid = ""
        self._record_uid = ""
        # What was logged last, so that each trouble is logged once.
        self._error = ""
        self._left_out = 0

    def start(self) -> None:
        """Start the thread."""
        threading.Thread(target=self._run, name="usage", daemon=True).start()

    def _run(self) -> None:
        while True:
            self.step(time.monotonic())
            time.sleep(LOOK_SECONDS)

    def step(self, now: float) -> None:
        """Look at all disks once, and write the record if there is news, or if it is a minute old."""
        uses = self.look()
        due = (
            # An earlier agent's record may have disks that are gone.
            self._written is None
            or usage.moved(self._written, uses)
            or (bool(uses) and now - self._written_at >= WRITE_SECONDS)
        )
        if due and self._write(uses):
            self._written, self._written_at = uses, now

    def look(self) -> dict[str, Use | None]:
        """How full the disks are. Left out are disks that are not mounted, and those without an answer for a minute.

        statvfs(2) of a disk whose device hangs may never return. So each disk is looked at by a thread of its own, and
        not again before that has returned: a disk that hangs costs one thread.
        """
        volumes = {volume.name: volume for volume in self._volumes()}
        for name, volume in volumes.items():
            if name not in self._looks:
                self._looks[name] = threading.Thread(target=self._look_at, args=(volume,), daemon=True)
                self._looks[name].start()
        deadline = time.monotonic() + ANSWER_SECONDS
        for thread in self._looks.values():
            thread.join(max(0.0, deadline - time.monotonic()))
        self._looks = {name: thread for name, thread in self._looks.items() if thread.is_alive()}
        for name in self._looks.keys() - self._silent:
            log.warning("disk does not answer", extra={"fields": {"volume": name}})
        self._silent = set(self._looks)
        oldest = time.monotonic() - REMEMBERED_SECONDS
        answers = {name: answer for name in volumes if (answer := self._answers.get(name))}
        self._answers = {name: answer for name, answer in answers.items() if answer[0] >= oldest}
        return {name: disk for name, (_, disk) in self._answers.items()}

    def _look_at(self, volume: Volume) -> None:
        try:
            self._answers[volume.name] = time.monotonic(), self._measure(volume)
        except OSError:  # Not mounted: `Node` logs it.
            self._answers.pop(volume.name, None)

    def _write(self, uses: usage.Uses) -> bool:
        """Write the record, whichever agent of this node wrote before (server-side apply with force)."""
        as_of = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        text, left_out = usage.record(uses, as_of)
        settings = self._settings
        try:
            if not self._node_uid:
                node = self._kube.request("GET", f"/api/v1/nodes/{settings.node}")
                self._node_uid = str(node["metadata"]["uid"])
            body = usage.config_map(settings.node, self._node_uid, settings.servers_namespace, text)
            path = f"/api/v1/namespaces/{settings.servers_namespace}/configmaps/{body['metadata']['name']}"
            query = f"?fieldManager={MANAGER}&force=true"
            written = self._kube.request("PATCH", path + query, body, "application/apply-patch+yaml")
        except (ApiError, OSError, http.client.HTTPException) as error:
            if str(error) != self._error:
                log.warning("usage not written", extra={"fields": {"error": str(error)}})
            self._error = str(error)
            return False
        self._error = ""
        if left_out > self._left_out:
            log.warning("usage of some disks left out", extra={"fields": {"disks": left_out}})
        self._left_out = left_out
        # A record that was made anew had been deleted, perhaps with an earlier Node of this name: ask for its uid.
        if self._record_uid not in ("", written["metadata"]["uid"]):
            self._node_uid = ""
        self._record_uid = written["metadata"]["uid"]
        return True
