"""One server, read part by part."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest

from service.cluster.live import LiveServer
from service.cluster.reader import ClusterReader

Wanted = Sequence[tuple[str, str, str]]


class Reads:
    """As much of service.cluster.Cluster as a LiveServer asks, over objects by "kind/name"; keeps what was asked."""

    def __init__(self, **objects: Any) -> None:
        self.objects = objects
        self.asked: list[list[str]] = []

    def get_all(self, wanted: Wanted) -> list[Any]:
        names = [f"{kind}/{name}" for _, kind, name in wanted]
        self.asked.append(names)
        return [self.objects.get(name) for name in names]

    def service(self, name: str) -> Any:
        return self.get_all([("v1", "services", name)])[0]

    def server(self) -> LiveServer:
        return LiveServer(cast(ClusterReader, self), 7)


def test_servers_are_read_side_by_side() -> None:
    """A read that takes long, as while Kubernetes hangs, does not hold up the reads of other servers."""
    both = threading.Barrier(2, timeout=5)

    class Slow(Reads):
        def get_all(self, wanted: Wanted) -> list[Any]:
            both.wait()
            return super().get_all(wanted)

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda slow: slow.server().pod, (Slow(), Slow())))
    assert found == [None, None]


MAIN = [
    "statefulsets/server-7",
    "pods/server-7-0",
    "persistentvolumeclaims/server-7",
    "services/server-7",
    "services/server-7-sftp",
]
RCON = {"ports": [{"name": "rcon"}]}


@pytest.mark.parametrize(
    ("container", "service", "more"),
    [
        # public, private, none, and while nothing is there
        (RCON, RCON, []),
        (RCON, {"ports": [{"name": "primary"}]}, [["services/server-7-rcon"]]),
        ({"ports": [{"name": "primary"}]}, {"ports": [{"name": "primary"}]}, []),
        (RCON, None, []),
    ],
)
def test_all_is_read_at_once_and_only_once(container: Any, service: Any, more: list[list[str]]) -> None:
    """One answer of the API does not tell of two moments; only a private RCON takes a second look."""
    reads = Reads(**{"statefulsets/server-7": {"spec": {"template": {"spec": {"containers": [container]}}}}})
    if service is not None:
        reads.objects["services/server-7"] = {"spec": service}
    server = reads.server()
    assert server.statefulset is server.statefulset is not None
    assert server.pod is None
    assert server.services == ({} if service is None else {"server-7": {"spec": service}})
    assert reads.asked == [MAIN, *more]
