"""The controller as the chart installs it: one of its pods is active, and the other goes on after it."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from service.controller.leader import NAME
from tests.cluster.conftest import Cluster
from tests.cluster.replicas import NAMESPACE, first_process
from tests.docs.snippets import block
from tests.support.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.own_namespace]

SELECTOR = ("-l", "app.kubernetes.io/component=controller,app.kubernetes.io/instance=api")
PROGRAM = "service.controller"
TAKEOVER_SECONDS = 20


def pods(cluster: Cluster) -> dict[str, dict[str, Any]]:
    """The controller's pods by name."""
    items = cluster.get("-n", NAMESPACE, "pods", *SELECTOR)["items"]
    return {pod["metadata"]["name"]: pod for pod in items if "deletionTimestamp" not in pod["metadata"]}


def holder(cluster: Cluster) -> str:
    """Who holds the Lease: the name of the pod and, after a slash, what is new with each process; "" if nobody does."""
    leases = cluster.get("-n", "gameservers", "leases")["items"]
    identities = [lease["spec"]["holderIdentity"] for lease in leases if lease["metadata"]["name"] == NAME]
    return str(identities[0]) if identities else ""


def restarts(cluster: Cluster, name: str) -> int:
    """How often the pod's container has been started again."""
    return sum(status["restartCount"] for status in pods(cluster)[name]["status"].get("containerStatuses", []))


def is_ready(pod: dict[str, Any]) -> bool:
    conditions = {condition["type"]: condition["status"] for condition in pod["status"].get("conditions", [])}
    return conditions.get("Ready") == "True"


@contextmanager
def killed(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGKILL)
    yield


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Freeze the container: its init, and the controller, which is its child."""
    children = [
        pid,
        *map(int, subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True).stdout.split()),
    ]
    for each in children:
        os.kill(each, signal.SIGSTOP)
    try:
        yield
    finally:
        for each in children:
            # The kubelet may have given the container up meanwhile.
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGCONT)


@contextmanager
def cut_off(pid: int) -> Iterator[None]:
    """Drop all packets of the pod. Its network outlives the process."""
    with Path(f"/proc/{pid}/ns/net").open() as network:

        def iptables(action: str) -> None:
            for chain in ("INPUT", "OUTPUT"):
                net = f"--net=/proc/{os.getpid()}/fd/{network.fileno()}"
                subprocess.run(["nsenter", net, "iptables", "-w", action, chain, "-j", "DROP"], check=True)

        iptables("-I")
        try:
            yield
        finally:
            iptables("-D")


@pytest.mark.parametrize("harm", [killed, frozen, cut_off])
def test_another_pod_goes_on(cluster: Cluster, harm: Callable[[int], Any]) -> None:
    """Within 20 seconds, whatever happens to the active process; that one ends, and its pod begins again."""
    until(lambda: len(pods(cluster)) == 2 and all(map(is_ready, pods(cluster).values())) and holder(cluster), 120)
    active = holder(cluster)
    name = active.partition("/")[0]
    before = restarts(cluster, name)
    began = time.monotonic()
    with harm(first_process(pods(cluster)[name], PROGRAM)):
        until(lambda: holder(cluster) not in ("", active), TAKEOVER_SECONDS + 5)
    assert time.monotonic() - began < TAKEOVER_SECONDS
    # Nothing that the old one had begun goes on, because its process ends.
    until(lambda: restarts(cluster, name) > before and is_ready(pods(cluster)[name]), 60)
    assert holder(cluster) != active


def test_the_docs_say_how_to_find_the_active_pod(cluster: Cluster) -> None:
    """The command in docs/operations.md."""
    until(lambda: holder(cluster) != "", TAKEOVER_SECONDS)
    command = block("docs/operations.md", "kubectl -n gameservers get lease gameserver-controller")
    assert cluster.run("sh", "-ec", command).strip().partition("/")[0] in pods(cluster)
