"""How the start of a server goes, told as it goes."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from service.progress import follow
from service.settings import Settings
from service.telemetry.metrics import REGISTRY
from service.web import followers
from tests.api.conftest import SIZES, Client
from tests.api.streams import listen, until_text
from tests.docs.snippets import block
from tests.support import tokens
from tests.support.fakes import TIME, World
from tests.support.gunicorn import Served

SERVER = "/api/v1/server/1"
PROGRESS = f"{SERVER}/progress"
EVENTS = {"Accept": "text/event-stream"}
ALL = ["disk", "scheduled", "image", "loading", "running"]
CONTAINER = {"name": "game", "image": "game:1", "imageID": "sha256:0", "restartCount": 0}
RUNS = {**CONTAINER, "state": {"running": {"startedAt": TIME}}}
CRASHED = {**CONTAINER, "state": {"terminated": {"exitCode": 1, "startedAt": TIME, "finishedAt": TIME}}}
RUNS_AGAIN = {**RUNS, "restartCount": 1}


def pod(*containers: dict[str, Any], ready: bool = False, uid: str = "pod") -> dict[str, Any]:
    """A pod that has a node."""
    conditions = [{"type": "PodScheduled", "status": "True", "lastTransitionTime": TIME}]
    if ready:
        conditions.append({"type": "Ready", "status": "True", "lastTransitionTime": TIME})
    return {
        "metadata": {"name": "server-1-0", "uid": uid, "creationTimestamp": TIME},
        "spec": {"containers": [{"name": "game"}]},
        "status": {"conditions": conditions, "containerStatuses": list(containers)},
    }


def becomes(world: World, now: dict[str, Any]) -> None:
    """Change the pod of server 1, of which the watches hear."""
    before, world.pods[1] = world.pods.get(1), now
    world.tell(1, "pod", before, now)


@pytest.fixture
def starting(client: Client, world: World) -> Client:
    """A client of an API with the server 1, whose pod has a node."""
    assert client.post(f"{SERVER}/", SIZES).status_code == 201
    becomes(world, pod())
    return client


def steps(text: str) -> list[str]:
    """The steps in server-sent events."""
    return [json.loads(data)["step"] for data in re.findall(r"^data: (\{.*)$", text, re.MULTILINE)]


def ids(text: str) -> list[str]:
    return re.findall(r"^id: (.*)$", text, re.MULTILINE)


def test_a_start_is_told_as_lines(starting: Client, world: World) -> None:
    """It begins with what is behind it, goes on as the watches hear of more, and ends when the server runs."""
    pieces = listen(starting, PROGRESS)
    assert until_text(pieces, "scheduled\n") == f"- disk\n{TIME} scheduled\n"
    becomes(world, pod(RUNS))
    assert until_text(pieces, "loading\n") == f"- image\n{TIME} loading\n"
    becomes(world, pod(RUNS, ready=True))
    assert "".join(pieces) == f"{TIME} running\n"


def test_a_start_is_told_as_events(starting: Client, world: World) -> None:
    """Each has the step, the state with its reason, and an id."""
    pieces = listen(starting, PROGRESS, events=True)
    text = until_text(pieces, '"scheduled"')
    becomes(world, pod(RUNS, ready=True))
    text += "".join(pieces)
    assert steps(text) == ALL
    assert (text.count("event: progress\n"), len(set(ids(text)))) == (5, 5)
    *_, last = re.findall(r"^data: (.*)$", text, re.MULTILINE)
    assert json.loads(last) == {"step": "running", "at": TIME, "state": "running", "reason": None}


def test_the_answers_are_as_documented(client: Client, world: World) -> None:
    """As lines, and as events."""
    call, expected = block("docs/api.md", "GET /api/v1/server/4711/progress").split("\n", 1)
    times = re.findall(r"^(2\S+) ", expected, re.MULTILINE)
    assert client.post("/api/v1/server/4711/", SIZES).status_code == 201
    world.claims[4711]["metadata"]["uid"] = "1f0c5a3e-0000"
    now = pod({**RUNS, "state": {"running": {"startedAt": times[1]}}}, uid="9b27d4e1-0000")
    now["status"]["conditions"][0]["lastTransitionTime"] = times[0]
    world.pods[4711] = now
    event = block("docs/api.md", "event: progress").strip()
    answer = client.get("/api/v1/server/4711/progress", headers=EVENTS)
    assert event in until_text((piece.decode() for piece in answer.iter_encoded()), '"loading"')
    now["status"]["conditions"].append({"type": "Ready", "status": "True", "lastTransitionTime": times[2]})
    assert client.call(*call.split()).text.strip() == expected.strip()


def test_a_crash_and_the_next_start_are_told(starting: Client, world: World) -> None:
    """With the reason. The stream goes on after a failure."""
    pieces = listen(starting, PROGRESS)
    becomes(world, pod(RUNS))
    until_text(pieces, "loading\n")
    becomes(world, pod(CRASHED))
    assert until_text(pieces, "\n") == f"{TIME} failed: The game crashed (exit code 1).\n"
    becomes(world, pod(RUNS_AGAIN))
    assert until_text(pieces, "\n") == f"{TIME} loading\n"
    becomes(world, pod(RUNS_AGAIN, ready=True))
    assert "".join(pieces) == f"{TIME} running\n"


def test_a_client_that_comes_back_hears_of_what_is_new(starting: Client, world: World) -> None:
    """It sends the last id. Once the start is over, and it knows that, it is told to come no more."""
    had = ids(until_text(listen(starting, PROGRESS, events=True), '"scheduled"'))
    becomes(world, pod(RUNS, ready=True))
    text = "".join(listen(starting, PROGRESS, events=True, **{"Last-Event-ID": had[-1]}))
    assert steps(text) == ["image", "loading", "running"]
    answer = starting.get(PROGRESS, headers={**EVENTS, "Last-Event-ID": ids(text)[-1]})
    assert (answer.status_code, answer.data) == (204, b"")
    assert steps("".join(listen(starting, PROGRESS, events=True))) == ALL


def test_the_last_id_may_come_in_the_query(starting: Client, world: World) -> None:
    """As some polyfills of EventSource have it; the header comes first."""
    becomes(world, pod(RUNS, ready=True))
    first, *_, last = ids("".join(listen(starting, PROGRESS, events=True)))
    assert starting.get(f"{PROGRESS}?lastEventId={last}", headers=EVENTS).status_code == 204
    text = "".join(listen(starting, f"{PROGRESS}?lastEventId={last}", events=True, **{"Last-Event-ID": first}))
    assert steps(text) == ALL[1:]


def test_a_stop_and_a_deletion_end_it(starting: Client, world: World) -> None:
    """A stopped server is told at once, too; after a deletion there is nothing to follow."""
    pieces = listen(starting, PROGRESS)
    until_text(pieces, "scheduled\n")
    starting.patch(f"{SERVER}/stop")
    assert re.fullmatch(r"\S+ stopped\n", "".join(pieces))
    assert re.fullmatch(r"\S+ stopped\n", "".join(listen(starting, PROGRESS)))
    starting.patch(f"{SERVER}/start")
    becomes(world, pod())
    pieces = listen(starting, PROGRESS)
    until_text(pieces, "scheduled\n")
    starting.delete(f"{SERVER}/")
    assert "".join(pieces) == "- deleted\n"
    assert starting.get(PROGRESS).status_code == 404


def test_it_ends_for_those_who_may_not_follow_any_more(
    client: Client, world: World, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the customer of a server that is suspended while it stops, and with a token that is revoked."""
    monkeypatch.setattr(follow, "LOOK_SECONDS", 3600.0)
    customer = tokens.entry("acme", "acme-secret", scopes=["server:read"], customer="acme")
    shop, support = tokens.entry("shop", "shop-secret"), tokens.entry("support", "support-secret")
    assert settings.tokens_file is not None
    tokens.write(settings.tokens_file, customer, shop, support)
    client.post(f"{SERVER}/", {**SIZES, "customer": "acme"})
    becomes(world, pod())
    pieces = {name: listen(client, PROGRESS, token=name) for name in ("acme", "support")}
    for each in pieces.values():
        until_text(each, "scheduled\n")
    # Its game takes a while to stop, so the start has not ended yet.
    world.listeners.clear()
    client.patch(f"{SERVER}/suspend", {"reason": "Abuse."})
    world.pods[1] = pod()
    assert "the server is suspended" in "".join(pieces["acme"])
    assert client.get(PROGRESS, token="acme").status_code == 403
    tokens.write(settings.tokens_file, customer, shop)
    assert "the token is no longer valid" in "".join(pieces["support"])


def test_it_does_not_go_on_for_ever(starting: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a quarter of an hour the client is told to come back."""
    monkeypatch.setattr(follow, "LONGEST_SECONDS", 0.5)
    text = "".join(listen(starting, PROGRESS, events=True))
    assert steps(text) == ["disk", "scheduled"]
    assert text.endswith("retry: 1000\nevent: end\ndata: 0 minutes are over; come back\n\n")


def test_logs_and_starts_have_limits_together(starting: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """429 for a token and for a replica that has too many."""

    def refused(kind: str) -> float:
        labels = {"kind": kind, "limit": "token"}
        return REGISTRY.get_sample_value("gameserver_api_followers_refused_total", labels) or 0.0

    monkeypatch.setattr(followers, "MOST_OF_A_TOKEN", 1)
    before = refused("progress"), refused("log")
    pieces = listen(starting, PROGRESS)
    until_text(pieces, "scheduled\n")
    for path in (PROGRESS, f"{SERVER}/log?follow=true"):
        answer = starting.get(path)
        assert answer.json is not None
        assert (answer.status_code, answer.json["type"]) == (429, "/problems/too-many-followers")
        assert answer.headers["Retry-After"] == "5"
    assert (refused("progress"), refused("log")) == (before[0] + 1, before[1] + 1)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """gunicorn with its real configuration and worker, over fakes; server 1 is starting."""
    served = Served.over_fakes(tmp_path)
    assert requests.post(f"{served.url}{SERVER}/", json=SIZES, headers={"Authorization": "Bearer t"}, timeout=10).ok
    yield served
    served.kill()


def test_with_the_real_worker(served: Served) -> None:
    """The events come as they happen; a drain tells those who are left to come back."""
    headers = {"Authorization": "Bearer t", **EVENTS}
    with requests.get(f"{served.url}{PROGRESS}", headers=headers, timeout=30, stream=True) as answer:
        lines = (line.decode() for line in answer.iter_lines(chunk_size=1))
        text = "\n".join(next(lines) for _ in range(3))
        assert steps(text) == ["disk"]
        metrics = requests.get(f"{served.url}/metrics", headers=headers, timeout=10).text
        assert 'gameserver_api_followers{kind="progress"} 1.0' in metrics
        assert 'gameserver_api_followers{kind="log"} 0.0' in metrics
        assert requests.get(f"{served.url}/run/1", headers=headers, timeout=10).ok
        assert steps("\n".join(lines)) == ALL[1:]
    assert requests.post(
        f"{served.url}/api/v1/server/2/", json=SIZES, headers={"Authorization": "Bearer t"}, timeout=10
    ).ok
    url = f"{served.url}/api/v1/server/2/progress"
    with requests.get(url, headers=headers, timeout=30, stream=True) as answer:
        served.process.send_signal(signal.SIGTERM)
        assert answer.text.endswith("retry: 1000\nevent: end\ndata: this replica ends; come back\n\n")
    assert served.process.wait(30) == 0
