"""What the servers' pods use, from one list of the metrics API for all of them, where the cluster has that API."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from service.errors import Problem
from service.kube.client import Kube, path
from service.kube.types import Object
from service.servers.consumption import Consumption, consumption_of
from service.servers.names import ID

log = logging.getLogger(__name__)

AGAIN_SECONDS = 15.0
FAILED_AGAIN_SECONDS = 60.0
"""How long the list is not read again: after it was read, and after it could not be read."""


class PodConsumption:
    """What each pod uses, as last measured. Thread-safe.

    No call waits for the list or fails because of it: a look has it read behind the answer.
    """

    def __init__(self, kube: Kube, namespace: str) -> None:
        self._kube = kube
        self._path = path("metrics.k8s.io/v1beta1", namespace, "pods")
        self._lock = threading.Lock()
        self._due = float("-inf")
        self._reading = False
        self._pods: Mapping[str, Mapping[str, Any]] = {}

    def of(self, pod: Object | None) -> Consumption | None:
        """What the game in the pod uses; None if that is unknown."""
        if pod is None:
            return None
        with self._lock:
            if not self._reading and time.monotonic() >= self._due:
                self._reading = True
                threading.Thread(target=self.read, name="metrics", daemon=True).start()
        return consumption_of(pod, self._pods.get(pod["metadata"]["name"]), datetime.now(UTC))

    def read(self) -> None:
        """Read the list."""
        pods: dict[str, Mapping[str, Any]] = {}
        listed: Object | None = None
        try:
            # This API has no pages. A cluster without it answers 404.
            listed = self._kube.get(self._path, labelSelector=ID)
            pods = {item["metadata"]["name"]: item for item in (listed or {}).get("items") or []}
        except Problem as problem:
            log.debug("what the pods use is unknown: %s", problem.detail)
        except Exception:
            log.exception("what the pods use could not be read")
        with self._lock:
            self._pods, self._reading = pods, False
            self._due = time.monotonic() + (FAILED_AGAIN_SECONDS if listed is None else AGAIN_SECONDS)
