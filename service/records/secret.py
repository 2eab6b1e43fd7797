"""Records that share one Secret of the API's own namespace, which the chart creates: a key for each.

Rights that this needs for the Secret, by its name: `get` and `patch` to read and write, `list` and `watch` to watch.
"""

from __future__ import annotations

import base64
import logging
import random
import time
from collections.abc import Callable, Mapping

from service.errors import ClusterContended, OperationFailed
from service.kube.client import Conflict, Kube, path
from service.kube.types import Object
from service.kube.watch import Kind, Watch
from service.records.store import decoded

log = logging.getLogger(__name__)
# The machine's own randomness, as in kube/watch.py.
_random = random.SystemRandom()

TRIES, PAUSE = 8, 0.2
# Watch groups objects by a server's id. The watch here has one object, under this id.
_NO_SERVER = 0

Records = Mapping[str, str]
"""The text of each record by its key."""
Change = Callable[[Records], Mapping[str, str | None]]
"""Takes the current records and returns those to write, with None for each one to remove."""


class SecretRecords:
    """The records in one Secret. Thread-safe. Every method may raise ClusterUnavailable and OperationFailed.

    Args:
        kube: The Kubernetes client.
        namespace: The API's own namespace.
        name: The Secret's name.
        title: What a problem calls the Secret if it does not exist.
    """

    def __init__(self, kube: Kube, namespace: str, name: str, title: str = "A Secret of the API") -> None:
        self._kube = kube
        self._namespace = namespace
        self._name = name
        self._title = title

    def read(self) -> Records:
        """The current records, read from Kubernetes."""
        return self._read()[0]

    def change(self, change: Change) -> None:
        """Write the result of `change`, all or nothing; if another wrote meanwhile, read again and repeat.

        Raises:
            ClusterContended: Others wrote again and again.
        """
        for _ in range(TRIES):
            records, version = self._read()
            changes = change(records)
            if not changes:
                return
            data = {
                key: None if text is None else base64.b64encode(text.encode()).decode() for key, text in changes.items()
            }
            try:
                if self._kube.merge(self.path, {"metadata": {"resourceVersion": version}, "data": data}) is None:
                    raise self._missing()
                return
            except Conflict:
                time.sleep(_random.uniform(0, PAUSE))
        raise ClusterContended()

    def watch(self, listener: Callable[[Records], None] = lambda records: None) -> Watch:
        """A watch that calls `listener` with all records whenever one has changed. It is not started yet."""
        collection = path("v1", self._namespace, "secrets")
        kind = Kind(collection, "", _trim, lambda _: _NO_SERVER, fields=f"metadata.name={self._name}")
        return Watch(
            self._kube, kind, lambda _, before, secret, deleted: listener({} if deleted else decoded(secret["data"]))
        )

    def seen_by(self, watch: Watch) -> Object | None:
        """The Secret's name and data as this object's watch has them; None if it knows no such Secret."""
        return watch.of(_NO_SERVER).get(self._name)

    @property
    def path(self) -> str:
        """The Secret's path."""
        return path("v1", self._namespace, "secrets", self._name)

    def _read(self) -> tuple[Records, str]:
        secret = self._kube.get(self.path)
        if secret is None:
            raise self._missing()
        return decoded(secret.get("data") or {}), secret["metadata"]["resourceVersion"]

    def _missing(self) -> OperationFailed:
        log.error("the Secret %s/%s does not exist; a helm upgrade creates it again", self._namespace, self._name)
        return OperationFailed(f"{self._title} does not exist; the operator must create it again.")


def _trim(secret: Object) -> Object:
    return {"metadata": {"name": secret["metadata"]["name"]}, "data": secret.get("data") or {}}
