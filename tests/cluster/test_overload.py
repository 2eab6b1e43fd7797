"""Too much load brings 429s and more replicas, and less load removes replicas again."""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.cluster.conftest import Cluster
from tests.cluster.load import Load, helms, repeated
from tests.cluster.replicas import NAMESPACE, get, pods
from tests.cluster.traffic import Traffic, upgrade
from tests.support.waiting import until

SERVERS = 60


def created(cluster: Cluster, new_server: Callable[[], int]) -> tuple[list[int], float]:
    """Stopped servers, and how many of them the API created per second."""
    servers = [new_server() for _ in range(SERVERS)]
    began = time.monotonic()
    with ThreadPoolExecutor(8) as callers:
        list(callers.map(lambda server: cluster.create(server, start=False), servers))
    return servers, len(servers) / (time.monotonic() - began)


def desired(cluster: Cluster) -> int:
    """The number of replicas that the autoscaler has set in the Deployment."""
    count: int = get(cluster, "deployment", "api")["spec"]["replicas"]
    return count


def fewest(cluster: Cluster) -> int:
    """The number of replicas without load."""
    count: int = get(cluster, "horizontalpodautoscaler", "api")["spec"]["minReplicas"]
    return count


def settle(cluster: Cluster) -> None:
    """Wait until only the smallest number of replicas is left and all others have ended."""
    least = fewest(cluster)
    until(lambda: desired(cluster) == len(pods(cluster)) == least, 300, lambda: f"{sorted(pods(cluster))}")


def restarts(replicas: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """How often each pod's container was restarted."""
    statuses = {name: pod["status"].get("containerStatuses", []) for name, pod in replicas.items()}
    return {name: sum(status["restartCount"] for status in each) for name, each in statuses.items()}


def slots(cluster: Cluster) -> int:
    """The number of helm processes that a replica may run at once."""
    container = get(cluster, "deployment", "api")["spec"]["template"]["spec"]["containers"][0]
    return int(next(variable["value"] for variable in container["env"] if variable["name"] == "HELM_PROCESSES"))


@pytest.mark.long
def test_five_times_the_load_is_turned_away_in_time(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """Excess calls get 429 with Retry-After, replicas are added, nothing fails or restarts, and no queue grows.

    The normal load is what all replicas together handle for eight callers that wait for their answers. On the local
    cluster the machine is the limit, and one replica could use it up alone.
    """
    settle(cluster)
    before = pods(cluster)
    servers, carried = created(cluster, new_server)
    most: Counter[str] = Counter()
    waits: list[float] = []

    def count() -> None:
        for pod, running in helms().items():
            most[pod] = max(most[pod], running)

    def probe() -> None:
        began = time.monotonic()
        assert cluster.call("GET", "/healthcheck").json() == {"alive": True}
        waits.append(time.monotonic() - began)

    with repeated(count, 0.5), repeated(probe, 1.0), Load(cluster, servers, 5 * carried) as load:
        until(lambda: desired(cluster) > fewest(cluster), 120, "no replica was added")
        time.sleep(30)
    after = pods(cluster)
    counts = Counter(answer.status for answer in load.answers)
    slowest = max(answer.seconds for answer in load.answers)
    print(f"carried {carried:.1f}/s; of {len(load.answers)} answers {dict(counts)}, the slowest after {slowest:.1f} s;")
    print(f"probes after {max(waits):.1f} s; helms at once {sorted(most.values())}; replicas {len(after)}")
    assert not load.failures, f"{len(load.failures)}: {load.failures[:10]}"
    assert counts[200] > 0
    assert counts[429] > 0
    assert all(answer.retry_after for answer in load.answers if answer.status != 200)
    # A call waits at most 10 seconds for a slot, then helm runs on a busy machine. A queue would grow without limit.
    assert slowest < 30
    assert max(waits) < 5, "Kubernetes' probes wait for 5 seconds"
    # None, while every replica's helm-daemon runs.
    assert max(most.values(), default=0) <= slots(cluster)
    assert restarts(after) == dict.fromkeys(after, 0) | restarts(before)
    assert cluster.done("PATCH", f"/api/v1/server/{servers[0]}/stop") == {"success": True}


@pytest.mark.long
def test_replicas_come_and_go_with_the_load(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """Replicas grow to the maximum, which a helm upgrade keeps, and shrink to the minimum without a failed request."""
    most = get(cluster, "horizontalpodautoscaler", "api")["spec"]["maxReplicas"]
    assert most >= 4
    servers, carried = created(cluster, new_server)
    with Load(cluster, servers, 2 * carried):
        until(lambda: desired(cluster) == most, 180, lambda: f"{desired(cluster)} replicas")
    cluster.run("kubectl", "-n", NAMESPACE, "rollout", "status", "deployment/api", "--timeout=120s")
    upgrade(cluster, "--set-string", f"service.annotations.tried={time.time_ns()}")
    assert desired(cluster) == most
    # Few enough that the autoscaler sees no load.
    with Traffic(cluster, new_server, pause=4):
        settle(cluster)
