"""How the start of a real server goes, as those hear it who follow."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import requests

from tests.cluster.conftest import Cluster

ALL = ["disk", "scheduled", "image", "loading", "running"]


def follow(cluster: Cluster, server: int, **headers: str) -> Iterator[dict[str, Any]]:
    """The steps that a client is told, each with its id, until the stream ends."""
    headers |= {"Authorization": f"Bearer {cluster.api_token}", "Accept": "text/event-stream"}
    url = f"{cluster.api_url}/api/v1/server/{server}/progress"
    with requests.get(url, headers=headers, stream=True, timeout=90) as answer:
        assert answer.status_code == 200, answer.text
        id, ends = "", time.monotonic() + 240
        for line in answer.iter_lines(chunk_size=1):
            # Heartbeats would keep a stream open that has nothing to tell.
            assert time.monotonic() < ends, f"the last step was {id}"
            name, _, text = line.decode().partition(": ")
            if name == "id":
                id = text
            elif name == "data":
                yield {**json.loads(text), "id": id}


def test_a_start_is_told_to_its_end(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """From a disk to a game that answers, and again after a restart; whoever has heard the end need not come back."""
    server = new_server()
    cluster.create(server, game="teeworlds")
    steps = list(follow(cluster, server))
    assert [step["step"] for step in steps] == ALL, steps
    assert {step["state"] for step in steps[:-1]} == {"starting"}
    assert (steps[-1]["state"], steps[-1]["reason"]) == ("running", None)
    assert [bool(step["at"]) for step in steps] == [False, True, False, True, True]
    last = {"Last-Event-ID": steps[-1]["id"]}
    url = f"{cluster.api_url}/api/v1/server/{server}/progress"
    headers = {"Authorization": f"Bearer {cluster.api_token}", **last}
    assert requests.get(url, headers=headers, timeout=30).status_code == 204
    cluster.done("PATCH", f"/api/v1/server/{server}/restart")
    again = list(follow(cluster, server, **last))
    assert [step["step"] for step in again][-4:] == ALL[1:], again
    assert steps[-1]["id"] != again[-1]["id"]


def test_a_start_that_fails_is_told_with_its_reason(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """The stream goes on: with an image that exists the server runs, and a stop ends the next stream."""
    server = new_server()
    cluster.create(server, game="teeworlds", start=False)
    assert [step["step"] for step in follow(cluster, server)] == ["stopped"]
    image = cluster.get("statefulset", f"server-{server}")["spec"]["template"]["spec"]["containers"][0]["image"]
    cluster.helm_upgrade(server, "--set", "image.tag=no-such-tag")
    cluster.done("PATCH", f"/api/v1/server/{server}/start")
    steps = follow(cluster, server)
    told = [next(steps)]
    while not (told[-1]["reason"] or "").startswith("The image "):
        assert len(told) < 10, told
        told.append(next(steps))
    assert (told[-1]["step"], told[-1]["state"]) == ("failed", "failed")
    # For a moment, a pod may be one that no node can take.
    assert [step["step"] for step in told if step["step"] != "failed"] == ["disk", "scheduled"], told
    cluster.helm_upgrade(server, "--set", f"image.tag={image.rpartition(':')[2]}")
    rest = [step["step"] for step in steps]
    assert rest[-4:] == ALL[1:], rest
