"""How full the disks are, from a watch of the records that the agents on the nodes write."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from service.kube.client import Kube, path
from service.kube.types import Object
from service.kube.watch import Kind, Watch
from service.servers.disks import volume_of
from service.servers.usage import KEY, LABEL, Usage, parse

log = logging.getLogger(__name__)

# The watch groups objects by server; these belong to none.
_ALL = 0
_MAX_NODES = 10_000


class DiskUsage:
    """How full each disk is, as the agents last said. Thread-safe.

    No call waits for this watch or fails because of it: what it does not know is unknown.
    """

    def __init__(self, kube: Kube, namespace: str) -> None:
        kind = Kind(
            path("v1", namespace, "configmaps"), f"{LABEL}=true", self._read, lambda item: _ALL, max_objects=_MAX_NODES
        )
        self._watch = Watch(kube, kind)
        self._logged: set[str] = set()
        # The records that the watch had, and what they say by volume.
        self._merged: tuple[Mapping[str, Object], dict[str, Usage]] = {}, {}

    def start(self) -> None:
        """Start the watch. Idempotent."""
        self._watch.start()

    def of(self, claim: Object | None) -> Usage | None:
        """How full the claim's disk is; None if that is unknown."""
        volume = volume_of(claim)
        return self._by_volume().get(volume) if volume else None

    def _by_volume(self) -> dict[str, Usage]:
        # The watch makes a new mapping with each change.
        records = self._watch.of(_ALL)
        merged_of, merged = self._merged
        if records is not merged_of:
            merged = {}
            for record in records.values():
                for volume, usage in record["disks"].items():
                    # A network disk may have moved to another node.
                    if volume not in merged or merged[volume].as_of < usage.as_of:
                        merged[volume] = usage
            self._merged = records, merged
        return merged

    def _read(self, item: Object) -> Object:
        """A record as the watch keeps it. Only the watch's thread calls this."""
        name = item["metadata"]["name"]
        usages, mistakes = parse(str((item.get("data") or {}).get(KEY, "")))
        # The agent writes every minute, so a mistake is logged once.
        if not mistakes:
            self._logged.discard(name)
        elif name not in self._logged:
            self._logged.add(name)
            more = f", and {len(mistakes) - 1} more" if len(mistakes) > 1 else ""
            log.warning("what ConfigMap %s says about disks is ignored: %s%s", name, mistakes[0], more)
        return {"disks": usages}
