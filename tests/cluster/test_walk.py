"""The random walk of tests/support/walk.py over the real cluster."""

import itertools
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.cluster.conftest import SERVERS_NAMESPACE, Cluster
from tests.support.walk import SLOTS, Answer, Walk

GAP = 10
_first = itertools.count(8 * 10**15 + int(time.time() * 10) % 10**9 * 1000, GAP)


class ClusterWalk(Walk):
    """Over the API in the cluster, with ids that no other walk has used."""

    def __init__(self, cluster: Cluster) -> None:
        first = next(_first)
        super().__init__([first + slot for slot in range(SLOTS)])
        self.cluster = cluster

    def call(self, method: str, path: str, body: Any = None) -> Answer:
        response = self.cluster.call(method, path, body)
        return Answer(response.status_code, response.json(), "Retry-After" in response.headers)

    def disk(self, id: int) -> str | None:
        uid: str = self.cluster.get("pvc", f"server-{id}")["metadata"]["uid"]
        return uid

    def disk_in_the_making(self, id: int) -> bool:
        return bool(self.cluster.get("pvc", f"server-{id}")["status"]["phase"] == "Pending")

    def is_gone(self, id: int) -> bool:
        kinds, label = "statefulsets,services,persistentvolumeclaims,pods", f"gameserver/id={id}"
        return self.cluster.run("kubectl", "-n", SERVERS_NAMESPACE, "get", kinds, "-l", label, "-o", "name") == ""


def walk(cluster: Cluster, walks: int, steps: int) -> None:
    """Make that many walks of at most that many steps."""

    class Here(ClusterWalk):
        def __init__(self) -> None:
            super().__init__(cluster)

    run_state_machine_as_test(
        Here,
        settings=settings(
            max_examples=walks,
            stateful_step_count=steps,
            deadline=None,
            # To shrink a walk on a real cluster would take an hour, so a failing walk is shown as it is.
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )


def test_a_short_walk_agrees_with_the_model(cluster: Cluster) -> None:
    """Whatever calls come in whatever order, servers and disks match the model, on three ids."""
    walk(cluster, walks=2, steps=14)


@pytest.mark.long
def test_a_long_walk_agrees_with_the_model(cluster: Cluster) -> None:
    """The same for about a quarter of an hour."""
    walk(cluster, walks=12, steps=40)
