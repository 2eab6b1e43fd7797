"""Many calls at once over both replicas, and a replica that dies in the middle of a call."""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
import requests

from service.kube.client import Kube, path
from tests.cluster.conftest import SERVERS_NAMESPACE, Cluster
from tests.cluster.replicas import first_process, logged, pods, processes_of
from tests.support.waiting import until

SMALL = {"ram_gb": 1, "disk_gb": 1, "start": False}


def at_once(calls: Sequence[Callable[[], requests.Response]]) -> list[requests.Response]:
    """The answers to calls that all start at the same moment."""
    together = threading.Barrier(len(calls))

    def send(call: Callable[[], requests.Response]) -> requests.Response:
        together.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(send, calls))


def revisions(cluster: Cluster, server: int) -> dict[str, str]:
    """The status of each revision of a server's release."""
    secrets = cluster.get("secrets", "-l", f"owner=helm,name=server-{server}")["items"]
    labels = [secret["metadata"]["labels"] for secret in secrets]
    return {each["version"]: each["status"] for each in labels}


def daemon_of(pod: dict[str, Any]) -> int:
    """The helm-daemon of a replica, as its pid on this machine."""
    (daemon,) = (pid for pid, command in processes_of(pod["metadata"]["uid"]) if b"helm-daemon" in command)
    return daemon


def claims(cluster: Cluster, server: int) -> list[str]:
    """The uids of a server's claims."""
    return [claim["metadata"]["uid"] for claim in cluster.get("pvc", "-l", f"gameserver/id={server}")["items"]]


def took_part(cluster: Cluster, server: int) -> set[str]:
    """The replicas that answered calls about this server."""
    lines = logged(cluster, "service.access")
    return {line["pod"] for line in lines if line["path"].startswith(f"/api/v1/server/{server}/")}


def test_many_creates_of_one_server_make_one(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """One create answers 201. The others answer 200, or 409 with Retry-After while it runs."""
    server = new_server()
    answers = at_once([lambda: cluster.call("POST", f"/api/v1/server/{server}/", SMALL)] * 20)
    counted = Counter(answer.status_code for answer in answers)
    assert counted[201] == 1, counted
    assert counted[200] + counted[409] == 19, counted
    for answer in answers:
        if answer.status_code == 409:
            assert answer.json()["type"] == "/problems/operation-in-progress"
            assert int(answer.headers["Retry-After"]) >= 1
    assert revisions(cluster, server) == {"1": "deployed"}
    assert len(took_part(cluster, server)) > 1


def test_starts_and_stops_at_once_end_as_one_of_them(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """The server ends in the state requested by a call that got 200. The release, the StatefulSet and the API agree."""
    server = new_server()
    cluster.create(server, start=False)
    states = ["running", "stopped"] * 10
    verbs = {"running": "start", "stopped": "stop"}

    def call(to: str) -> Callable[[], requests.Response]:
        return lambda: cluster.call("PATCH", f"/api/v1/server/{server}/{verbs[to]}")

    answers = at_once([call(to) for to in states])
    confirmed = {to for to, answer in zip(states, answers, strict=True) if answer.status_code == 200}
    refused = [answer for answer in answers if answer.status_code != 200]
    assert confirmed
    assert {(answer.status_code, "Retry-After" in answer.headers) for answer in refused} <= {(409, True)}
    end = cluster.status(server)["wanted"]
    assert end in confirmed
    assert cluster.get("statefulset", f"server-{server}")["spec"]["replicas"] == (end == "running")
    assert list(revisions(cluster, server).values()).count("deployed") == 1
    cluster.until_state(server, end)
    assert len(took_part(cluster, server)) > 1


@pytest.mark.long
def test_creates_of_fifty_servers_at_once_all_succeed(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """Some of them get 429, because two replicas cannot take 50 calls at once, and succeed when they are sent again."""
    servers = [new_server() for _ in range(50)]
    waited = []

    def persistent(method: str, path: str, body: object = None) -> requests.Response:
        deadline = time.monotonic() + 60
        while (answer := cluster.call(method, path, body)).status_code == 429 and time.monotonic() < deadline:
            waited.append(path)
            time.sleep(int(answer.headers["Retry-After"]))
        return answer

    def create(server: int) -> Callable[[], requests.Response]:
        return lambda: persistent("POST", f"/api/v1/server/{server}/", SMALL)

    def erase(server: int) -> Callable[[], requests.Response]:
        return lambda: persistent("DELETE", f"/api/v1/server/{server}/?disk=erase")

    assert [answer.status_code for answer in at_once([create(server) for server in servers])] == [201] * 50
    assert waited
    releases = [secret["metadata"]["labels"] for secret in cluster.get("secrets", "-l", "owner=helm")["items"]]
    created = [each for each in releases if each["name"] in {f"server-{server}" for server in servers}]
    assert [(each["version"], each["status"]) for each in created] == [("1", "deployed")] * 50
    assert [answer.status_code for answer in at_once([erase(server) for server in servers])] == [200] * 50


@pytest.mark.alone
def test_a_create_survives_the_death_of_its_replica(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """The connection breaks. The same call, sent again, completes the server, and the replica comes back."""
    server = new_server()
    address = f"/api/v1/server/{server}/"
    kube, before = Kube(), pods(cluster)
    # Helm runs for a few tenths of a second only, so the processes are looked up before.
    processes = {name: first_process(pod) for name, pod in before.items()}
    daemons = {name: daemon_of(pod) for name, pod in before.items()}
    lease = path("coordination.k8s.io/v1", SERVERS_NAMESPACE, "leases", f"server-{server}")
    release = path("v1", SERVERS_NAMESPACE, "secrets", f"sh.helm.release.v1.server-{server}.v1")
    with ThreadPoolExecutor(1) as pool:
        creating: Future[requests.Response] = pool.submit(cluster.call, "POST", address, {"ram_gb": 1, "disk_gb": 1})
        while (held := kube.get(lease)) is None or not held["spec"].get("holderIdentity"):
            assert not creating.done()
        dying = held["spec"]["holderIdentity"].split("/")[0]
        # The release's Secret is the first sign that helm runs. It goes on in steps, so it is not done before the kill.
        os.kill(daemons[dying], signal.SIGSTOP)
        while kube.get(release, metadata=True) is None:
            assert not creating.done()
            os.kill(daemons[dying], signal.SIGCONT)
            time.sleep(0.01)
            os.kill(daemons[dying], signal.SIGSTOP)
        # Like the kernel when memory runs out.
        os.kill(processes[dying], signal.SIGKILL)
    assert isinstance(creating.exception(), requests.ConnectionError)
    assert list(revisions(cluster, server).values()) == ["pending-install"]
    disks = claims(cluster, server)

    deadline, again = time.monotonic() + 30, 0
    while again not in (200, 201):
        assert time.monotonic() < deadline, again
        try:
            answer = cluster.call("POST", address, {"ram_gb": 1, "disk_gb": 1})
            again = answer.status_code
            time.sleep(int(answer.headers.get("Retry-After", 0)))
        except requests.ConnectionError:
            time.sleep(0.5)
    assert set(revisions(cluster, server).values()) == {"superseded", "deployed"}
    assert len(claims(cluster, server)) == 1
    assert set(disks) <= set(claims(cluster, server))
    cluster.until_state(server, "running")

    def back() -> bool:
        (container,) = pods(cluster)[dying]["status"]["containerStatuses"]
        restarts = before[dying]["status"]["containerStatuses"][0]["restartCount"]
        return bool(container["ready"]) and container["restartCount"] == restarts + 1

    until(back, 30)
