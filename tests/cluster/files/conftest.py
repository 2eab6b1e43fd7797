"""Three servers: Alice's and Carol's on the first node, Bob's on the last. A failing test shows the agents' logs."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import pytest

from tests.cluster import evidence
from tests.cluster.files.servers import PASSWORD_HASH, Server, eventually, get, reachable

ALICE, BOB, CAROL = 9_100_001, 9_100_002, 9_100_003


@pytest.fixture(scope="session")
def nodes() -> list[dict[str, str]]:
    """Each node's name and address."""
    return [
        {"name": node["metadata"]["name"], "address": address["address"]}
        for node in get("nodes")["items"]
        for address in node["status"]["addresses"]
        if address["type"] == "InternalIP"
    ]


@pytest.fixture(scope="session")
def servers(
    nodes: list[dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, Server, Server]]:
    """Alice's, Bob's and Carol's server, running and reachable."""
    folder = tmp_path_factory.mktemp("keys")
    addresses = tuple(node["address"] for node in nodes)
    created = (
        Server.with_new_key(ALICE, nodes[0]["name"], folder, addresses),
        Server.with_new_key(BOB, nodes[-1]["name"], folder, addresses),
        Server.with_new_key(CAROL, nodes[0]["name"], folder, addresses),
    )
    with reachable(*created):
        yield created


@pytest.fixture
def alice(servers: tuple[Server, Server, Server]) -> Iterator[Server]:
    """Alice's server, on the first node."""
    yield from _restored(servers[0])


@pytest.fixture
def bob(servers: tuple[Server, Server, Server]) -> Iterator[Server]:
    """Bob's server, on the last node."""
    yield from _restored(servers[1])


@pytest.fixture
def carol(servers: tuple[Server, Server, Server]) -> Iterator[Server]:
    """Carol's server, on the first node."""
    yield from _restored(servers[2])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that fails shows the last lines of the agents' logs."""
    report = yield
    if report.failed:
        report.sections.append(evidence.of_agents())
    return report


def _restored(server: Server) -> Iterator[Server]:
    """The server. Its account is reset after the test."""
    yield server
    server.set_account(keys=[server.public_key], password_hash=PASSWORD_HASH)
    eventually(server.reachable, 20, f"{server.user} has access again")
