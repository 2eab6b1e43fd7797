"""The pods' consumption is read behind the answers, for all servers at once."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.cluster import consumption
from service.cluster.consumption import PodConsumption
from service.kube.times import stamp
from tests.support.memory_kube import MemoryKube
from tests.support.waiting import until


class Metrics(MemoryKube):
    """Kubernetes with some pods' metrics."""

    def __init__(self, *names: str, there: bool = True) -> None:
        super().__init__()
        self.names, self.there = names, there

    def get(self, path: str, *, metadata: bool = False, **query: str | int) -> dict[str, Any] | None:
        self._ask("LIST", path)
        if not self.there:
            return None
        assert query == {"labelSelector": "gameserver/id"}
        usage = {"cpu": "1", "memory": "1Gi"}
        at = stamp(datetime.now(UTC))
        items = [
            {"metadata": {"name": name}, "timestamp": at, "containers": [{"name": "game", "usage": usage}]}
            for name in self.names
        ]
        return {"items": items}


def pod(id: int = 1) -> dict[str, Any]:
    started = stamp(datetime.now(UTC) - timedelta(minutes=1))
    status = {"name": "game", "state": {"running": {"startedAt": started}}}
    return {"metadata": {"name": f"server-{id}-0"}, "status": {"containerStatuses": [status]}}


def settled(pods: PodConsumption) -> None:
    until(lambda: not pods._reading, 20)


def test_a_hundred_looks_read_one_list() -> None:
    """The first one waits for nothing."""
    kube = Metrics("server-1-0", "server-2-0")
    pods = PodConsumption(kube, "games")
    pods.of(pod())
    settled(pods)
    for _ in range(100):
        for id in (1, 2):
            found = pods.of(pod(id))
            assert found is not None
            assert (found.memory_gb, found.cpu) == (1.0, 1.0)
        assert pods.of(pod(3)) is None
        assert pods.of(None) is None
    assert kube.asked == ["LIST /apis/metrics.k8s.io/v1beta1/namespaces/games/pods"]
    pods._due = 0
    pods.of(pod())
    settled(pods)
    assert len(kube.asked) == 2


@pytest.mark.parametrize("away", [False, True])
def test_without_metrics_it_is_unknown(away: bool, caplog: pytest.LogCaptureFixture) -> None:
    """A cluster without a metrics-server, and one that does not answer. It is asked more rarely."""
    kube = Metrics(there=False)
    if away:
        kube.away()
    pods = PodConsumption(kube, "games")
    before = time.monotonic()
    assert pods.of(pod()) is None
    settled(pods)
    assert pods.of(pod()) is None
    assert pods._due >= before + consumption.FAILED_AGAIN_SECONDS
    assert not caplog.records
