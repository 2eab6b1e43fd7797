"""Two hundred servers' accounts on one node."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.cluster.commands import on_node
from tests.cluster.files.servers import SERVERS, SFTP, Server, agent, apply, eventually, in_sftp_pod, kubectl

pytestmark = pytest.mark.long

MANY, FIRST, LOGINS = 200, 9_101_000, 25
FOLDER = "/opt/local-path-provisioner/many"
MARK = "test=many-accounts"


@pytest.fixture
def crowd(alice: Server) -> Iterator[list[Server]]:
    """199 stopped servers on Alice's node, each with a folder. The test creates their objects."""
    servers = [replace(alice, number=FIRST + number) for number in range(MANY - 1)]
    on_node(alice.node, f"mkdir -p {FOLDER} && cd {FOLDER} && seq {FIRST} {FIRST + MANY - 2} | xargs mkdir -p")
    on_node(alice.node, f"chown -R 1000:1000 {FOLDER}")
    yield servers
    kubectl("delete", "secrets", "-n", SFTP, "-l", MARK, "--ignore-not-found", "--wait=false")
    kubectl("delete", "services,pvc", "-n", SERVERS, "-l", MARK, "--ignore-not-found", "--wait=false")
    kubectl("delete", "pv", "-l", MARK, "--ignore-not-found", "--wait=false")
    eventually(lambda: mounted(alice) <= 20, 60, "the mounts are gone")
    on_node(alice.node, f"rm -rf {FOLDER}")


def mounted(server: Server) -> int:
    """How many disks the SFTP pod of the server's node has mounted."""
    return int(in_sftp_pod(server.node, "grep -c ' /srv/sftp/server-' /proc/self/mountinfo || true"))


def login_seconds(server: Server) -> float:
    """How many seconds a login takes."""
    began = time.monotonic()
    assert server.reachable()
    return time.monotonic() - began


def compared(alice: Server, bob: Server) -> tuple[float, float]:
    """The median seconds of a login on Alice's node and on Bob's, measured in turns."""
    pairs = [(login_seconds(alice), login_seconds(bob)) for _ in range(LOGINS)]
    return statistics.median(pair[0] for pair in pairs), statistics.median(pair[1] for pair in pairs)


def test_a_login_is_as_fast_and_the_agent_small(alice: Server, bob: Server, crowd: list[Server]) -> None:
    """With 200 accounts a login takes less than 1.3 times as long, and the agent's VmRSS is under 100 MiB.

    Bob's node keeps its few accounts. Logins there, in turns with Alice's, show how busy the machine is.
    """
    few, bobs_before = compared(alice, bob)
    labels = dict([MARK.split("=")])
    objects = [
        thing
        for server in crowd
        for thing in (*server.static(f"{FOLDER}/{server.number}"), server.account([alice.public_key]))
    ]
    for thing in objects:
        thing["metadata"]["labels"] = {**thing["metadata"]["labels"], **labels}
        if thing["kind"] == "Service":
            # No node port, because kube-proxy's rules would be measured, too. Alice's port leads to the same sshd.
            thing["spec"]["type"] = "ClusterIP"
    began = time.monotonic()
    apply(*objects)
    last = replace(crowd[-1])
    last.__dict__["port"] = alice.port
    eventually(last.reachable, 120, "the last of them has access")
    eventually(lambda: mounted(alice) >= MANY, 60, "all disks are mounted")
    print(f"{len(crowd)} made and mounted in {time.monotonic() - began:.1f} s")
    many, bobs_after = compared(alice, bob)
    ratio = (many / few) / (bobs_after / bobs_before)
    memory = int(in_sftp_pod(alice.node, f"grep VmRSS /proc/{agent(alice.node)}/status").split()[1])
    print(f"login {few:.3f} s -> {many:.3f} s (other node {bobs_before:.3f} -> {bobs_after:.3f}), ratio {ratio:.2f}")
    print(f"agent {memory / 1024:.1f} MiB with {mounted(alice)} accounts")
    assert ratio < 1.3
    assert memory < 100 * 1024
