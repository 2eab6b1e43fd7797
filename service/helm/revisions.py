"""Helm's record of a release: one Secret a revision, read and mended without a helm process.

A revision's Secret is called `sh.helm.release.v1.<release>.v<n>`, carries `name`, `owner`, `status` and `version` as
labels, and its payload is the release as JSON, gzipped, in base64 (and once more, as Secrets are).
https://github.com/helm/helm/blob/v4.1.4/pkg/storage/driver/secrets.go
"""

from __future__ import annotations

import base64
import gzip
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from service.errors import OperationFailed, OperationInProgress
from service.kube.client import Conflict, Kube, path
from service.kube.types import Object
from service.servers.values import Values

log = logging.getLogger(__name__)

PENDING = frozenset({"pending-install", "pending-upgrade", "pending-rollback"})
UNFINISHED = PENDING | {"uninstalling"}
KEEPS_POD = "keepPodInRevision"
"""The value of the chart gameserver that names the revision which leaves a running pod alone."""
_RECOVERED = "The process that worked on this revision died; the game server API marked it failed."


@dataclass(frozen=True)
class Release:
    """One revision of a release.

    `values` are those that it was given, but for KEEPS_POD; `keeps_pod` says that it left a running pod as it was;
    `manifest` is what the chart made of the values, as YAML.
    """

    values: Values
    keeps_pod: bool
    manifest: str


class Revisions:
    """The release Secrets in one namespace."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        self._kube = kube
        self._namespace = namespace

    def of(self, release: str) -> tuple[Object, ...]:
        """The metadata of the release's Secrets as they are now, oldest first.

        A list that is sure to be current makes the API server wait for etcd's next progress mark, up to 100 ms. So the
        list here comes from its cache, and reads by name, which are always current, tell what the cache has missed.
        """
        found = list(self.cached(release))
        if not found:
            [first] = self._metadata(release, 1)
            return () if first is None else (first, *self._newer(release, 2))
        last_number = number(found[-1])
        last, newer = self._metadata(release, last_number, last_number + 1)
        if last is None:
            # Uninstalled or pruned a moment ago; which, only a current list can tell.
            return self._listed(release, "")
        found[-1] = last
        return (*found, *(() if newer is None else (newer, *self._newer(release, last_number + 2))))

    def cached(self, release: str) -> tuple[Object, ...]:
        """The same from the API server's cache, which may be some milliseconds behind."""
        return self._listed(release, "0")

    def all(self) -> list[Object]:
        """The metadata of every release Secret of the namespace."""
        found = self._kube.all(self._path(), metadata=True, labelSelector="owner=helm")
        return [item["metadata"] for item in found]

    def read(self, revision: Object) -> Release | None:
        """What this revision holds; None where it has gone meanwhile."""
        secret = self._kube.get(self._path(revision["name"]))
        if secret is None:
            return None
        payload = _decoded(secret)
        values = dict(payload.get("config") or {})
        return Release(values, bool(values.pop(KEEPS_POD, 0) == number(revision)), str(payload.get("manifest") or ""))

    def fail(self, revision: Object) -> None:
        """Mark an unfinished revision as failed, so that helm goes on from it.

        Raises OperationInProgress where somebody writes to it at the same time: then it is not dead.
        """
        secret = self._kube.get(self._path(revision["name"]))
        if secret is None or status(secret["metadata"]) not in PENDING:
            raise OperationInProgress
        payload = _decoded(secret)
        payload["info"] = {**payload.get("info", {}), "status": "failed", "description": _RECOVERED}
        secret["data"] = {**secret["data"], "release": _encoded(payload)}
        # The label is what helm searches by, the payload what it believes: both have to say the same.
        modified = str(int(datetime.now(UTC).timestamp()))
        secret["metadata"]["labels"] |= {"status": "failed", "modifiedAt": modified}
        try:
            self._kube.replace(self._path(revision["name"]), secret)
        except Conflict as conflict:
            raise OperationInProgress from conflict

    def _listed(self, release: str, version: str) -> tuple[Object, ...]:
        about = f"owner=helm,name={release}"
        found = self._kube.all(self._path(), metadata=True, labelSelector=about, resourceVersion=version)
        return in_order([item["metadata"] for item in found])

    def _newer(self, release: str, first: int) -> Iterator[Object]:
        """The revisions from number `first` on."""
        while (found := self._metadata(release, first)[0]) is not None:
            yield found
            first += 1

    def _metadata(self, release: str, *numbers: int) -> list[Object | None]:
        """The revisions' metadata, read side by side; None for each that is not there."""
        paths = [self._path(f"sh.helm.release.v1.{release}.v{each}") for each in numbers]
        found = self._kube.get_all(paths, metadata=True)
        return [None if one is None else cast(Object, one["metadata"]) for one in found]

    def _path(self, name: str = "") -> str:
        return path("v1", self._namespace, "secrets", name)


def in_order(revisions: Sequence[Object]) -> tuple[Object, ...]:
    """Release Secrets' metadata, oldest first."""
    return tuple(sorted(revisions, key=number))


def status(revision: Object) -> str:
    """`deployed`, `failed`, `pending-upgrade`, …"""
    return str(revision.get("labels", {}).get("status", ""))


def age(revision: Object) -> float:
    """The seconds since helm last said something about this revision, by this machine's clock."""
    label = revision.get("labels", {}).get("modifiedAt", "")
    made = datetime.fromisoformat(revision["creationTimestamp"]).timestamp()
    return datetime.now(UTC).timestamp() - max(made, float(label) if label.isdigit() else 0.0)


def number(revision: Object) -> int:
    """The revision's number, from 1 on; 0 where it has none that makes sense."""
    label = str(revision.get("labels", {}).get("version", ""))
    return int(label) if label.isdigit() else 0


def _decoded(secret: Object) -> dict[str, Any]:
    try:
        packed = base64.b64decode(base64.b64decode(secret["data"]["release"]))
        return cast(dict[str, Any], json.loads(gzip.decompress(packed)))
    except (KeyError, ValueError, OSError, EOFError) as error:
        log.error("the release Secret %s cannot be read: %s", secret["metadata"]["name"], error)
        raise OperationFailed("Helm's record of this server cannot be read; the operator has to mend it.") from error


def _encoded(payload: dict[str, Any]) -> str:
    packed = gzip.compress(json.dumps(payload).encode(), mtime=0)
    return base64.b64encode(base64.b64encode(packed)).decode()
