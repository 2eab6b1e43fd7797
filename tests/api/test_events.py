"""The call that reads the log of events."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from local.paths import ROOT
from service.app import create_app
from service.assembly import build_context
from service.events.event import TYPES, Event, event_id
from service.events.log import EventLog
from service.events.reader import EventReader
from service.events.segments import KIND
from service.records.store import RecordStore
from service.settings import Settings
from tests.api.conftest import SIZES, Client
from tests.docs.snippets import block
from tests.support import tokens
from tests.support.fakes import NAMESPACE, FakeCluster, FakeReleases, World
from tests.support.memory_kube import LabelledKube
from tests.support.waiting import until

PATH = "/api/v1/event/"
TIME = "2026-11-27T04:00:00Z"


class Log:
    """The log that the API reads, and its writer."""

    def __init__(self) -> None:
        self.kube = LabelledKube()
        self.writer = EventLog(RecordStore(self.kube, NAMESPACE, KIND))
        self.writer.open()

    def tell(self, *events: Event) -> None:
        self.writer.append(events, {})


def event(number: int, type_: str = "running", **more: Any) -> Event:
    """The event `number` of a server."""
    fields = {"server": 1, "uid": "u", "customer": "", "data": {"restarts": number}, **more}
    return Event(event_id(fields["uid"], type_, number), type_, TIME, **fields)


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def client(world: World, settings: Settings, log: Log) -> Client:
    """A client of an API with this log. Its token `one` is confined to the server 1, whoever has it."""
    assert settings.tokens_file is not None
    entries = [tokens.entry(name, f"{name}-secret", **more) for name, more in HOLDERS.items()]
    settings = replace(settings, tokens_file=tokens.write(settings.tokens_file, *entries))
    records = partial(RecordStore, log.kube, NAMESPACE)
    return Client(
        create_app(build_context(settings, FakeCluster(world), FakeReleases(world), records=records)).test_client()
    )


HOLDERS: dict[str, dict[str, Any]] = {
    "shop": {"scopes": ["read", "operate", "admin"]},
    "acme": {"scopes": ["read"], "customer": "acme"},
    "one-of-acme": {"scopes": ["read"], "customer": "acme", "servers": [1]},
    "one": {"scopes": ["read"], "servers": [1]},
}


def read(client: Client, query: str = "", token: str = "shop") -> dict[str, Any]:
    answer = client.get(f"{PATH}?{query}", token=token)
    assert answer.status_code == 200, answer.json
    assert answer.json is not None
    return dict(answer.json)


def places(answer: dict[str, Any]) -> Sequence[int]:
    return [each["position"] for each in answer["events"]]


def test_an_empty_log_has_no_events(client: Client) -> None:
    """And a cursor with which to begin."""
    assert read(client) == {"success": True, "events": [], "cursor": "0"}
    assert read(client, "after=0") == {"success": True, "events": [], "cursor": "0"}


def test_events_come_page_by_page(client: Client, log: Log) -> None:
    """Each with all that is known of it; the cursor goes on where the page ended."""
    log.tell(*(event(number) for number in range(5)))
    first = read(client, "limit=2")
    assert first["events"][1] == {
        "id": event_id("u", "running", 1),
        "type": "running",
        "time": TIME,
        "server": 1,
        "uid": "u",
        "customer": "",
        "number": 2,
        "position": 2,
        "data": {"restarts": 1},
    }
    assert first["cursor"] == "2"
    rest = read(client, f"after={first['cursor']}")
    assert places(rest) == [3, 4, 5]
    assert read(client, f"after={rest['cursor']}") == {"success": True, "events": [], "cursor": "5"}


def test_a_filter_moves_the_cursor_past_what_it_leaves_out(client: Client, log: Log) -> None:
    """Otherwise a client would look at the same events again and again."""
    log.tell(event(1), event(2, "crashed"), event(3, server=2, uid="v"), event(4, "out-of-memory"), event(5))
    assert places(read(client, "type=crashed")) == [2]
    assert places(read(client, "type=crashed,out-of-memory")) == [2, 4]
    assert places(read(client, "server=2")) == [3]
    assert read(client, "server=3")["cursor"] == "5"
    assert read(client, "type=crashed&limit=1")["cursor"] == "2"


def test_a_customer_sees_the_events_of_own_servers(client: Client, log: Log, world: World) -> None:
    """By the customer that the event names. An id that another customer had before shows nothing of that."""
    log.tell(
        event(1, customer="other", uid="old"),
        event(1, customer="acme", uid="mine"),
        event(1, customer="acme", uid="second", server=2),
        event(1, uid="nobodys", server=3),
    )
    client.post("/api/v1/server/1/", {**SIZES, "customer": "acme"})
    assert places(read(client)) == [1, 2, 3, 4]
    assert places(read(client, token="acme")) == [2, 3]
    assert places(read(client, "server=1", token="acme")) == [2]
    assert places(read(client, token="one-of-acme")) == [2]
    assert places(read(client, token="one")) == []
    log.tell(event(2, customer="acme", uid=world.values[1]["server"]["uid"]))
    until(lambda: places(read(client, token="one")) == [5])


def test_a_waiting_call_is_answered_at_once(client: Client, log: Log) -> None:
    """As soon as there is an event that it asks for."""
    log.tell(event(1))
    writer = threading.Timer(0.4, lambda: log.tell(event(2, "crashed"), event(3)))
    writer.start()
    began = time.monotonic()
    answer = read(client, "after=1&type=running&wait=10")
    assert places(answer) == [3]
    assert answer["cursor"] == "3"
    assert 0.3 < time.monotonic() - began < 3
    writer.join()


def test_a_waiting_call_ends_without_events(client: Client, log: Log) -> None:
    """After the time that it asked for."""
    log.tell(event(1))
    began = time.monotonic()
    assert read(client, "after=1&wait=1") == {"success": True, "events": [], "cursor": "1"}
    assert 0.9 < time.monotonic() - began < 3


@pytest.mark.parametrize(
    ("change", "status", "seen"),
    [({"customer": "acme"}, 200, [3]), ({"scopes": ["files"]}, 403, []), ({"sha256": "0" * 64}, 401, [])],
    ids=["confined", "without-scope", "revoked"],
)
def test_a_waiting_call_is_answered_with_the_rights_that_its_token_has_then(
    client: Client, log: Log, settings: Settings, change: dict[str, Any], status: int, seen: list[int]
) -> None:
    """It may have been revoked meanwhile."""
    log.tell(event(1))
    assert settings.tokens_file is not None
    file = settings.tokens_file

    def meanwhile() -> None:
        tokens.write(file, tokens.entry("shop", "shop-secret", **change))
        log.tell(event(2), event(3, customer="acme"))

    timer = threading.Timer(0.4, meanwhile)
    timer.start()
    answer = client.get(f"{PATH}?after=1&wait=10")
    timer.join()
    assert (answer.status_code, places({"events": [], **(answer.json or {})})) == (status, seen)


def test_what_the_log_no_longer_has_is_told(client: Client, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes too late gets the event `dropped` first, with how many there were."""
    monkeypatch.setattr("service.events.log.MAX_EVENTS", 100)
    for start in range(0, 1000, 50):
        log.tell(*(event(number, data={"reason": "x" * 300}) for number in range(start, start + 50)))
    oldest = 1001 - log.writer.count
    assert 1 < oldest <= 901
    # The watch may not have heard yet that the last segment was dropped.
    until(lambda: read(client)["events"][0]["position"] == oldest)
    late = read(client, "after=0&type=crashed")
    assert [each["type"] for each in late["events"]] == ["dropped"]
    assert late["events"][0]["data"] == {"reason": "The log no longer has these events.", "events": oldest - 1}
    assert late["events"][0]["position"] == oldest - 1
    assert read(client, f"after={oldest - 1}&limit=1")["events"][0]["type"] == "running"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("after=x", "after"),
        ("after=-1", "after"),
        ("server=0", "server"),
        ("server=92233720368547758070", "server"),
        ("type=nope", "type"),
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("wait=31", "wait"),
        ("sever=1", "sever"),
    ],
)
def test_a_malformed_query_is_refused(client: Client, query: str, field: str) -> None:
    """422, with the field."""
    answer = client.get(f"{PATH}?{query}")
    assert answer.json is not None
    assert (answer.status_code, list(answer.json["errors"])) == (422, [field])


def test_a_cursor_beyond_the_log_is_refused(client: Client, log: Log) -> None:
    """After somebody has deleted the log, a client must not wait for events that it has missed."""
    log.tell(event(1))
    for after in (7, 7000):
        answer = client.get(f"{PATH}?after={after}")
        assert answer.json is not None
        assert (answer.status_code, answer.json["type"]) == (409, "/problems/events-reset")


def test_while_kubernetes_is_away_the_events_are_not_answered(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """503, and not the events of some time ago as if there were no others."""
    assert read(client)["events"] == []
    monkeypatch.setattr(EventReader, "lost_for", lambda self: 4.0)
    answer = client.get(PATH)
    assert answer.json is not None
    assert (answer.status_code, answer.json["type"]) == (503, "/problems/cluster-unavailable")


def test_the_answer_is_as_documented(client: Client, log: Log) -> None:
    """The example in docs/api.md has the fields of a real event."""
    request, _, answer = block("docs/api.md", "GET /api/v1/event").partition("\n")
    log.tell(*(event(number) for number in range(42)))
    actual = client.get(request.split()[1]).json
    documented = json.loads(answer)
    assert actual is not None
    assert actual | {"events": []} == documented | {"events": []}
    assert list(actual["events"][0]) == list(documented["events"][0])


def test_each_type_is_documented() -> None:
    """In docs/api.md, in the table of types."""
    text = (ROOT / "docs/api.md").read_text()
    for type_ in TYPES:
        assert f"| `{type_}` |" in text
