"""The counts of all servers and their disks, for the metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from service.operations.interfaces import Cluster
from service.servers.accessors import is_bound
from service.servers.disks import size_bytes
from service.servers.spec import spec_of_objects
from service.servers.state import state_of

_PAGE = 500


@dataclass(frozen=True)
class CountedDisk:
    """A disk as the metrics count it.

    Attributes:
        enforced: `true` if its size is a limit, `false` if not, else `unknown`.
        fill: `ok`, `nearly-full`, `full` or `unknown`.
        size, used: Bytes; None if unknown.
    """

    enforced: str
    fill: str
    size: int
    used: int | None


def count_servers(cluster: Cluster) -> Iterator[Mapping[str, str]]:
    """For every server, a mapping with its `game` (empty if unknown) and its `state`."""
    continue_: str | None = None
    while True:
        page, continue_ = cluster.servers(_PAGE, continue_)
        for objects in page:
            spec = spec_of_objects(objects)
            yield {"game": spec.game if spec else "", "state": state_of(objects).state}
        if continue_ is None:
            return


def count_disks(cluster: Cluster) -> Iterator[CountedDisk]:
    """Every disk, those of servers and the kept ones. A claim without a volume is no disk yet."""
    now = datetime.now(UTC)
    for claim, usage in cluster.disks():
        if is_bound(claim):
            size = size_bytes(claim)
            if usage is None:
                yield CountedDisk("unknown", "unknown", size, None)
            else:
                enforced = "true" if usage.enforced else "false"
                yield CountedDisk(enforced, usage.fill(now) or "unknown", size, usage.used)
