"""The real cluster and the API in it, as `make run` sets them up."""

import itertools
import json
import os
import secrets
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests

from local.paths import ROOT
from tests.cluster import commands, evidence
from tests.support.waiting import until

SERVERS_NAMESPACE = "gameservers"

#: Each test session counts its server ids from a random start, so that two sessions at the same time do not collide.
_ids = itertools.count(10_000 + secrets.randbelow(10**6) * 1000)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests of this folder with `cluster`, and put the tests of files/ and the search for secrets last.

    The servers of files/ run until the session ends. The search for secrets looks through the traces of all other
    tests.
    """
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cluster)
    items.sort(key=lambda item: (item.path.name == "test_secrets_stay_secret.py", item.path.parent.name == "files"))


@dataclass
class Cluster:
    """The cluster: calls of the API, and `kubectl` and `helm`."""

    api_url: str
    api_token: str
    kubeconfig: str
    node_ip: str
    servers: list[int] = field(default_factory=list)
    #: Every password and token in the API's responses, by call.
    secrets: dict[str, str] = field(default_factory=dict)

    def run(self, *command: str, stdin: str | None = None) -> str:
        """Run `kubectl …` or `helm …` and return what it prints. Raises AssertionError with its stderr."""
        return commands.run(*command, stdin=stdin)

    def get(self, *arguments: str) -> dict[str, Any]:
        """The output of `kubectl get … -o json` in the servers' namespace."""
        output = self.run("kubectl", "-n", SERVERS_NAMESPACE, "get", *arguments, "-o", "json")
        objects: dict[str, Any] = json.loads(output)
        return objects

    def call(self, method: str, path: str, body: Any = None, *, token: str | None = None) -> requests.Response:
        """Call the API once, with `body` as JSON unless it is None."""
        response = requests.request(
            method,
            f"{self.api_url}{path}",
            json=body,
            headers={"Authorization": f"Bearer {token or self.api_token}"},
            timeout=30,
        )
        for kind in ("password", "token", "secret"):
            if f'"{kind}":"' in response.text and response.ok:
                self.secrets[f"{method} {path}"] = response.json()[kind]
        return response

    def settled(self, method: str, path: str, body: Any = None, *, seconds: float = 60) -> requests.Response:
        """The response to a call, sent again for up to `seconds` while the API answers with Retry-After."""
        deadline = time.monotonic() + seconds
        while True:
            response = self.call(method, path, body)
            if "Retry-After" not in response.headers or time.monotonic() > deadline:
                return response
            time.sleep(0.5)

    def done(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """The JSON of a call that must succeed, sent again for a minute while the API asks for that."""
        response = self.settled(method, path, body)
        assert response.ok, f"{method} {path}: {response.status_code} {response.text}"
        answer: dict[str, Any] = response.json()
        return answer

    def create(self, server: int, **more: object) -> dict[str, Any]:
        """Create a small server."""
        return self.done("POST", f"/api/v1/server/{server}/", {"ram_gb": 1, "disk_gb": 1, **more})

    def helm_upgrade(self, server: int, *arguments: str, chart: Path = ROOT / "charts" / "gameserver") -> None:
        """An operator's `helm upgrade --reuse-values` of one server."""
        release = f"server-{server}"
        self.run("helm", "-n", SERVERS_NAMESPACE, "upgrade", release, str(chart), "--reuse-values", *arguments)

    def status(self, server: int) -> dict[str, Any]:
        """The API's answer about a server."""
        return self.done("GET", f"/api/v1/server/{server}/")

    def address_of(self, server: int) -> str:
        """The address of the server's node."""
        node = self.get("node", self.get("pod", f"server-{server}-0")["spec"]["nodeName"])
        addresses = {address["type"]: address["address"] for address in node["status"]["addresses"]}
        return str(addresses["InternalIP"])

    def until_state(self, server: int, *states: str, seconds: float = 90) -> dict[str, Any]:
        """Wait until the server is in one of `states`, and return the API's answer about it."""
        seen: dict[str, Any] = {}

        def reached() -> bool:
            nonlocal seen
            seen = self.status(server)
            return seen["state"] in states

        until(reached, seconds, lambda: f"server {server} is {seen}, not {states}")
        return seen


@pytest.fixture(scope="session")
def shared_cluster() -> Cluster:
    """The cluster, for fixtures that outlive a test."""
    assert "API_URL" in os.environ, "no cluster: `make test` brings one up, or `make run`"
    return Cluster(
        api_url=os.environ["API_URL"],
        api_token=os.environ["API_TOKEN"],
        kubeconfig=os.environ["KUBECONFIG"],
        node_ip=os.environ["NODE_IP"],
    )


@pytest.fixture
def cluster(shared_cluster: Cluster) -> Iterator[Cluster]:
    """The cluster. The servers with ids from `new_server` are erased after the test."""
    shared_cluster.servers = []
    yield shared_cluster
    for server in shared_cluster.servers:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            answer = shared_cluster.call("DELETE", f"/api/v1/server/{server}/?disk=erase")
            if answer.status_code in (200, 404):
                break
            time.sleep(0.5)
        else:
            pytest.fail(f"server {server} is not erased: {answer.status_code} {answer.text}")


@pytest.fixture
def new_server(cluster: Cluster) -> Callable[[], int]:
    """A function that returns an id that no server has. The server is erased after the test."""

    def take() -> int:
        server = next(_ids)
        cluster.servers.append(server)
        return server

    return take


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that fails shows pods, events and logs of the cluster and of its own servers."""
    report = yield
    if report.failed:
        cluster = (getattr(item, "funcargs", None) or {}).get("cluster")
        servers = cluster.servers if isinstance(cluster, Cluster) else []
        report.sections.extend([*evidence.of_servers(servers), *evidence.of_cluster()])
    return report
