"""Helm's record of a release, one Secret per revision. It is read, and repaired, without a helm process.

A revision's Secret is named `sh.helm.release.v1.<release>.v<n>` and has the labels `name`, `owner`, `status` and
`version`. Its payload is the release as gzipped JSON in base64 (twice, because Secrets are in base64 too).
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

import yaml

from service.errors import OperationFailed, OperationInProgress
from service.helm.charts import ChartContent
from service.kube.client import Conflict, Kube, path
from service.kube.types import Object
from service.servers.values import Values

log = logging.getLogger(__name__)

PENDING = frozenset({"pending-install", "pending-upgrade", "pending-rollback"})
UNFINISHED = PENDING | {"uninstalling"}
KEEPS_POD = "keepPodInRevision"
"""The chart gameserver's value that names the revision in which a running pod is left alone."""
# libyaml takes a tenth of the time, if PyYAML was built with it.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_RECOVERED = "The process that worked on this revision died. The game server API marked it as failed."


@dataclass(frozen=True)
class Release:
    """One revision of a release.

    Attributes:
        values: The values that it was given, without KEEPS_POD.
        keeps_pod: Whether it left a running pod alone.
        manifest: The manifests that the chart rendered from the values, as YAML.
        chart: The chart.
    """

    values: Values
    keeps_pod: bool
    manifest: str
    chart: ChartContent


class Revisions:
    """The release Secrets in one namespace."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        self._kube = kube
        self._namespace = namespace

    def of(self, release: str) -> tuple[Object, ...]:
        """The current metadata of the release's Secrets, oldest first.

        For a list that is guaranteed to be current, the API server waits for etcd's next progress mark, up to 100 ms.
        So this reads the list from the API server's cache, and then the revisions that the cache may have missed by
        name, because reads by name are always current.
        """
        revisions = list(self.cached(release))
        if not revisions:
            [first] = self._metadata(release, 1)
            return () if first is None else (first, *self._newer(release, 2))
        last_number = number(revisions[-1])
        last, newer = self._metadata(release, last_number, last_number + 1)
        if last is None:
            # The release was uninstalled or pruned a moment ago. Only a current list shows which.
            return self._listed(release, "")
        revisions[-1] = last
        return (*revisions, *(() if newer is None else (newer, *self._newer(release, last_number + 2))))

    def cached(self, release: str) -> tuple[Object, ...]:
        """The same from the API server's cache, which may be some milliseconds out of date."""
        return self._listed(release, "0")

    def all(self) -> list[Object]:
        """The metadata of every release Secret of the namespace."""
        secrets = self._kube.all(self._path(), metadata=True, labelSelector="owner=helm")
        return [secret["metadata"] for secret in secrets]

    def read(self, revision: Object) -> Release | None:
        """Read a revision from its Secret's metadata; None if the Secret no longer exists.

        Raises:
            OperationFailed: The Secret cannot be decoded.
        """
        secret = self._kube.get(self._path(revision["name"]))
        if secret is None:
            return None
        payload = _decoded(secret)
        values = dict(payload.get("config") or {})
        keeps_pod = bool(values.pop(KEEPS_POD, 0) == number(revision))
        return Release(
            values, keeps_pod, str(payload.get("manifest") or ""), ChartContent.of_record(payload.get("chart") or {})
        )

    def fail(self, revision: Object) -> None:
        """Mark an unfinished revision as failed, so that helm can continue from it.

        Raises:
            OperationInProgress: Somebody writes to it at the same time, so its process is alive.
        """
        secret = self._kube.get(self._path(revision["name"]))
        if secret is None or status(secret["metadata"]) not in PENDING:
            raise OperationInProgress
        payload = _decoded(secret)
        payload["info"] = {**payload.get("info", {}), "status": "failed", "description": _RECOVERED}
        secret["data"] = {**secret["data"], "release": _encoded(payload)}
        # helm searches by the label, and reads the status from the payload. Both have to match.
        modified = str(int(datetime.now(UTC).timestamp()))
        secret["metadata"]["labels"] |= {"status": "failed", "modifiedAt": modified}
        try:
            self._kube.replace(self._path(revision["name"]), secret)
        except Conflict as conflict:
            raise OperationInProgress from conflict

    def _listed(self, release: str, version: str) -> tuple[Object, ...]:
        selector = f"owner=helm,name={release}"
        secrets = self._kube.all(self._path(), metadata=True, labelSelector=selector, resourceVersion=version)
        return in_order([secret["metadata"] for secret in secrets])

    def _newer(self, release: str, first: int) -> Iterator[Object]:
        """The revisions from number `first` on."""
        while (revision := self._metadata(release, first)[0]) is not None:
            yield revision
            first += 1

    def _metadata(self, release: str, *numbers: int) -> list[Object | None]:
        """The revisions' metadata, read in parallel; None for each that does not exist."""
        paths = [self._path(f"sh.helm.release.v1.{release}.v{each}") for each in numbers]
        secrets = self._kube.get_all(paths, metadata=True)
        return [None if secret is None else cast(Object, secret["metadata"]) for secret in secrets]

    def _path(self, name: str = "") -> str:
        return path("v1", self._namespace, "secrets", name)


def objects_of(manifest: str) -> list[Object]:
    """The objects that a manifest describes, in its order."""
    return [part for part in yaml.load_all(manifest, _LOADER) if part]


def in_order(revisions: Sequence[Object]) -> tuple[Object, ...]:
    """Sort release Secrets' metadata, oldest first."""
    return tuple(sorted(revisions, key=number))


def status(revision: Object) -> str:
    """The revision's status, such as `deployed`, `failed` or `pending-upgrade`; "" if it has none."""
    return str(revision.get("labels", {}).get("status", ""))


def age(revision: Object) -> float:
    """The seconds since helm last wrote this revision, by this machine's clock."""
    label = revision.get("labels", {}).get("modifiedAt", "")
    created = datetime.fromisoformat(revision["creationTimestamp"]).timestamp()
    return datetime.now(UTC).timestamp() - max(created, float(label) if label.isdigit() else 0.0)


def number(revision: Object) -> int:
    """The revision's number, from 1 on; 0 if its label is malformed."""
    label = str(revision.get("labels", {}).get("version", ""))
    return int(label) if label.isdigit() else 0


def _decoded(secret: Object) -> dict[str, Any]:
    try:
        packed = base64.b64decode(base64.b64decode(secret["data"]["release"]))
        return cast(dict[str, Any], json.loads(gzip.decompress(packed)))
    except (KeyError, ValueError, OSError, EOFError) as error:
        log.error("the release Secret %s cannot be read: %s", secret["metadata"]["name"], error)
        raise OperationFailed("Helm's record of this server cannot be read. The operator has to repair it.") from error


def _encoded(payload: dict[str, Any]) -> str:
    packed = gzip.compress(json.dumps(payload).encode(), mtime=0)
    return base64.b64encode(base64.b64encode(packed)).decode()
