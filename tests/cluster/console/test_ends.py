"""How long streams end: revoked tokens, suspended servers, deleted servers and drains, with many followers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.cluster.console.talking import Replicas
from tests.cluster.controller.place import Place
from tests.support import tokens
from tests.support.followers import Crowd, Follower, shown
from tests.support.gunicorn import Served
from tests.support.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.own_namespace]

SERVER = 41
SECONDS = 5.0
"""Within which a stream ends that may not go on."""
CUSTOMER: dict[str, Any] = {"scopes": ["server:read", "console:read"], "customer": "acme"}
GROUPS = ("revoked", "customer", "test")


@pytest.fixture(autouse=True)
def customers(place: Place) -> Iterator[None]:
    """More tokens, and a customer's server."""
    write_tokens(place, *GROUPS)
    body = {"game": "talker", "ram_gb": 1, "disk_gb": 1, "customer": "acme"}
    place.call("POST", f"/server/{SERVER}/", body)
    place.until_running(SERVER, seconds=60)
    yield
    write_tokens(place, "test")
    place.call("DELETE", f"/server/{SERVER}/?disk=erase")


def write_tokens(place: Place, *names: str) -> None:
    """The tokens that there are from now on."""
    entries = [tokens.entry(name, **(CUSTOMER if name == "customer" else {})) for name in names]
    tokens.write(place.folder / "tokens.json", *entries)


def until_ended(followers: list[Follower], since: float, text: bytes) -> float:
    """Wait until all have ended, with this text; returns after how many seconds the last had."""
    until(lambda: all(follower.ended for follower in followers), 60, lambda: f"{followers[0].last[-300:]!r}")
    for follower in followers:
        assert text in follower.last, follower.last[-300:]
    return max(follower.ended or 0 for follower in followers) - since


@pytest.mark.parametrize("each", [10, pytest.param(166, marks=pytest.mark.long)])
def test_streams_end_in_time(place: Place, each: int) -> None:
    """When their token is revoked, when their server is suspended for its customer, and when the replica drains."""
    with Replicas(place, 1) as replicas, Crowd() as crowd:
        served = replicas[0]
        groups = {name: [crowd.join(served.url, SERVER, name) for _ in range(each)] for name in GROUPS}
        took = {}

        began = time.monotonic()
        write_tokens(place, "customer", "test")
        took["revoked"] = until_ended(groups["revoked"], began, b"the token is no longer valid")

        place.call("PATCH", f"/server/{SERVER}/suspend", {"reason": "Invoice 17 is overdue."})
        began = time.monotonic()
        took["suspended"] = until_ended(groups["customer"], began, b"the server is suspended")
        assert crowd.left() == each, "the shop's own may go on"

        began = time.monotonic()
        served.process.terminate()
        took["drained"] = until_ended(groups["test"], began, b"retry: 1000\nevent: end\n")
        served.process.wait(60)
        took["exited"] = time.monotonic() - began
        alone = drained_alone(replicas)
    shown(followers=3 * each, exited_without_followers=alone, **took)
    assert took["revoked"] < SECONDS
    assert took["suspended"] < SECONDS
    assert took["exited"] < alone + 10


def drained_alone(replicas: Replicas) -> float:
    """After how many seconds a replica without followers has exited."""
    replicas.start_again(0)
    served: Served = replicas[0]
    served.until_alive()
    assert requests.get(
        f"{served.url}/api/v1/server/{SERVER}/", headers={"Authorization": "Bearer test"}, timeout=30
    ).ok
    began = time.monotonic()
    served.process.terminate()
    served.process.wait(60)
    return time.monotonic() - began
