"""A suspended server on the real cluster: its game stops, its sessions end, and its customer cannot start it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.cluster.conftest import Cluster
from tests.cluster.files.servers import Server, eventually

REASON = "Invoice 17 is overdue."


@dataclass
class Customer:
    """A customer with a token of the API and a key for the files of a running server."""

    cluster: Cluster
    token: str
    files: Server

    def call(self, method: str, path: str, body: Any = None) -> requests.Response:
        """Call the API with the customer's token."""
        return self.cluster.call(method, f"/api/v1/server/{self.files.number}/{path}", body, token=self.token)


@pytest.fixture
def customer(
    cluster: Cluster, new_server: Callable[[], int], nodes: list[dict[str, str]], tmp_path: Path
) -> Iterator[Customer]:
    """The customer of a running Teeworlds server."""
    id = new_server()
    name = f"suspension-{id}"
    files = Server.with_new_key(id, "", tmp_path, tuple(node["address"] for node in nodes))
    cluster.create(id, game="teeworlds", customer=name)
    asked = {"name": name, "scopes": ["read", "operate", "server:delete"], "customer": name, "expires_in_s": 600}
    customer = Customer(cluster, cluster.done("POST", "/api/v1/token", asked)["token"], files)
    cluster.until_state(id, "running")
    assert customer.call("PUT", "sftp", {"public_keys": [files.public_key]}).status_code == 200
    eventually(files.reachable, 10, "the customer has access")
    yield customer
    cluster.call("DELETE", f"/api/v1/token/{name}")


def test_a_suspension_ends_sessions_and_its_end_brings_them_back(customer: Customer) -> None:
    """An open session ends within 10 seconds, and no login works. An operator's upgrade keeps the suspension.

    Afterwards the key works again, the files are all there, and the customer can start the server.
    """
    cluster, files = customer.cluster, customer.files
    server = f"/api/v1/server/{files.number}"
    with files.openssh_session() as openssh:
        assert openssh.stdin
        openssh.stdin.write(b"mkdir before\n")
        openssh.stdin.flush()
        eventually(lambda: "before" in files.openssh("ls -1"), 10, "the session works")
        cluster.done("PATCH", f"{server}/suspend", {"reason": REASON})
        eventually(lambda: not files.reachable(), 10, "no login works")
        # OpenSSH's sftp notices at its next command, or dies of SIGPIPE because its ssh has ended.
        openssh.communicate(b"ls\n", timeout=10)
        assert openssh.returncode in (255, -signal.SIGPIPE)
    stopped = cluster.until_state(files.number, "stopped", seconds=30)
    assert (stopped["wanted"], stopped["suspended"]["reason"]) == ("stopped", REASON)

    cluster.helm_upgrade(files.number, "--set", "ramGb=2")
    assert cluster.status(files.number)["suspended"] == stopped["suspended"]
    for method, path, body in (
        ("PATCH", "start", None),
        ("PATCH", "restart", None),
        ("PUT", "sftp", {"password": True}),
        ("DELETE", "", None),
    ):
        refused = customer.call(method, path, body)
        assert refused.status_code == 403, refused.text
        assert (refused.json()["type"], REASON in refused.json()["detail"]) == ("/problems/server-suspended", True)
    assert not files.reachable()

    cluster.done("PATCH", f"{server}/unsuspend")
    assert cluster.status(files.number)["suspended"] is None
    eventually(files.reachable, 10, "the key works again")
    assert "before" in files.openssh("ls -1")
    assert customer.call("PATCH", "start").status_code == 200
    cluster.until_state(files.number, "running")
