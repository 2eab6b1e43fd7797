"""What customers see of a real game's console."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import requests

from tests.cluster.conftest import Cluster
from tests.support.waiting import until


def following(cluster: Cluster, server: int, **headers: str) -> Iterator[str]:
    """The lines of the events of those who follow the server's log."""
    headers |= {"Authorization": f"Bearer {cluster.api_token}", "Accept": "text/event-stream"}
    url = f"{cluster.api_url}/api/v1/server/{server}/log?follow=true"
    answer = requests.get(url, headers=headers, stream=True, timeout=60)
    assert answer.status_code == 200, answer.text
    return (line.decode() for line in answer.iter_lines(chunk_size=1))


def test_a_log_is_read_and_followed_over_a_restart(cluster: Cluster, new_server: Callable[[], int]) -> None:
    """Each line comes once; a follower that comes back gets the lines after the one that it names."""
    server = new_server()
    cluster.create(server, game="teeworlds")
    log = f"/api/v1/server/{server}/log"
    cluster.until_state(server, "running")
    until(lambda: len(cluster.call("GET", log).text.splitlines()) > 3, 20)
    whole = cluster.call("GET", f"{log}?tail=5000").text.splitlines()
    assert cluster.call("GET", f"{log}?tail=2").text.splitlines() == whole[-2:]

    lines = following(cluster, server)
    seen: list[str] = []
    while [line for line in seen if line.startswith("data: ")] != [f"data: {line}" for line in whole]:
        seen.append(next(lines))
    ids = [line for line in seen if line.startswith("id: ")]
    assert len(set(ids)) == len(whole)

    again = following(cluster, server, **{"Last-Event-ID": ids[-2].removeprefix("id: ")})
    assert next(again) == ids[-1]
    assert next(again) == f"data: {whole[-1]}"

    cluster.done("PATCH", f"/api/v1/server/{server}/restart")
    for stream in (lines, again):
        rest: list[str] = []
        while not re.search(r"event: note\ndata: the game has started again\n\nid: .*\ndata: ", "\n".join(rest)):
            rest.append(next(stream))
