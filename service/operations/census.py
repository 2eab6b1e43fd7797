"""The count of all servers, for the metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from service.operations.interfaces import Cluster
from service.servers.spec import spec_of_objects
from service.servers.state import state_of

_PAGE = 500


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
