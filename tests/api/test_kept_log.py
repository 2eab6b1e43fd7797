"""The log of a server that does not run: its last lines, as an agent has kept them."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial

import pytest

from service.app import create_app
from service.assembly import build_context
from service.logs.entries import GAP, NOT_KEPT
from service.logs.lines import nanoseconds
from service.records.store import RecordStore
from service.servers.names import LAST_STOP
from service.servers.stops import Stop
from service.settings import Settings
from tests.api.conftest import SIZES, Client
from tests.api.streams import until_text
from tests.api.test_log import LOG, follow
from tests.docs.snippets import block
from tests.support import tokens
from tests.support.fakes import FakeAccounts, FakeCluster, FakeKeptLogs, FakeReleases, World
from tests.support.memory_kube import LabelledKube

ENDED = "2026-11-27T12:30:00Z"
NOTE = f"--- these are the last lines of a run that ended at {ENDED} ---\n"
SECOND = f"one.0.{nanoseconds('2026-11-27T12:00:01Z')}.1"
"""The id of the second of the lines."""
LINES = tuple(f"2026-11-27T12:00:0{number}Z {number}" for number in range(5))


@pytest.fixture
def kept_logs() -> FakeKeptLogs:
    return FakeKeptLogs()


@pytest.fixture
def client(world: World, settings: Settings, kept_logs: FakeKeptLogs) -> Client:
    """A client of an API with file access, and with the server 1, which has been stopped."""
    settings = replace(settings, sftp_namespace="gameserver-sftp")
    records = partial(RecordStore, LabelledKube(), settings.servers_namespace)
    context = build_context(
        settings, FakeCluster(world), FakeReleases(world), FakeAccounts(), records=records, kept_logs=kept_logs
    )
    client = Client(create_app(context).test_client())
    assert client.post("/api/v1/server/1/", {**SIZES, "customer": "acme"}).status_code == 201
    assert client.patch("/api/v1/server/1/stop").status_code == 200
    return client


def uid(world: World) -> str:
    """The uid of server 1."""
    return str(world.values[1]["server"]["uid"])


def test_a_stopped_server_answers_its_last_lines(client: Client, world: World, kept_logs: FakeKeptLogs) -> None:
    """After a note that says so. `tail` and `since` count."""
    kept_logs.keep(uid(world), *LINES, ended=ENDED)
    answer = client.get(LOG)
    assert (answer.status_code, answer.mimetype) == (200, "text/plain")
    assert answer.text == NOTE + "0\n1\n2\n3\n4\n"
    assert client.get(f"{LOG}?tail=2").text == NOTE + "3\n4\n"
    assert client.get(f"{LOG}?since=2026-11-27T12:00:04Z").text == NOTE + "4\n"
    assert client.get(f"{LOG}?since=2026-11-27T13:00:00Z").text == NOTE


def test_a_cut_answer_says_so(client: Client, world: World, kept_logs: FakeKeptLogs) -> None:
    """As docs/api.md shows it, unless what is missing was not asked for."""
    kept_logs.keep(uid(world), *LINES, ended=ENDED, cut=True)
    notes = f"{NOTE}--- {NOT_KEPT} ---\n"
    assert client.get(LOG).text == f"{notes}0\n1\n2\n3\n4\n"
    assert block("docs/api.md", "--- these are").strip() == notes.strip()
    assert client.get(f"{LOG}?tail=1").text == NOTE + "4\n"


def test_lines_of_a_run_before_the_last_one_say_so(client: Client, world: World, kept_logs: FakeKeptLogs) -> None:
    """No agent has seen the last run end."""
    kept_logs.keep(uid(world), *LINES, pod="one", ended=ENDED)
    annotations = world.statefulsets[1]["metadata"]["annotations"]
    annotations[LAST_STOP] = Stop("one", "2026-11-27T12:29:58Z", None).as_text()
    assert client.get(f"{LOG}?tail=1").text == NOTE + "4\n"
    annotations[LAST_STOP] = Stop("two", "2026-11-27T14:00:00Z", None).as_text()
    assert "; nothing is kept of the last run ---" in client.get(LOG).text


def test_a_server_that_runs_answers_its_own_log(client: Client, world: World, kept_logs: FakeKeptLogs) -> None:
    """Nothing is asked of what is kept."""
    kept_logs.keep(uid(world), *LINES)
    client.patch("/api/v1/server/1/start")
    world.write(1, "now")
    assert client.get(LOG).text == "now\n"
    assert kept_logs.reads == 0


def test_without_kept_lines_there_is_no_log(client: Client, kept_logs: FakeKeptLogs) -> None:
    """Also if there are those of another server; and they are asked for once."""
    kept_logs.keep("another", *LINES)
    answer = client.get(LOG)
    assert answer.json is not None
    assert (answer.status_code, answer.json["type"]) == (409, "/problems/no-log")
    assert kept_logs.reads == 1


def test_a_suspended_servers_customer_is_refused(
    client: Client, world: World, kept_logs: FakeKeptLogs, settings: Settings
) -> None:
    """As with a server that runs."""
    kept_logs.keep(uid(world), *LINES, ended=ENDED)
    customer = tokens.entry("acme", "acme-secret", scopes=["console:read"], customer="acme")
    assert settings.tokens_file is not None
    tokens.write(settings.tokens_file, customer, tokens.entry("shop", "shop-secret"))
    client.patch("/api/v1/server/1/suspend", {"reason": "Abuse."})
    for query in ("", "?follow=true"):
        assert client.get(LOG + query, token="acme").status_code == 403
    assert client.get(LOG).status_code == 200


def test_an_erase_deletes_them(client: Client, world: World, kept_logs: FakeKeptLogs) -> None:
    """Of a server, and of a kept disk; a delete that keeps the disk keeps them. The next server has none."""
    first = uid(world)
    kept_logs.keep(first, *LINES)
    assert client.delete("/api/v1/server/1/").status_code == 200
    assert kept_logs.logs.keys() == {first}
    assert client.delete("/api/v1/server/1/?disk=erase").status_code == 200
    assert kept_logs.logs == {}
    client.post("/api/v1/server/1/", SIZES)
    assert uid(world) != first
    kept_logs.keep(uid(world), *LINES)
    assert client.delete("/api/v1/server/1/?disk=erase").status_code == 200
    assert kept_logs.logs == {}


def test_a_create_that_erases_the_disk_deletes_them(client: Client, world: World, kept_logs: FakeKeptLogs) -> None:
    """So does one that takes the disk over: the server is another."""
    first = uid(world)
    kept_logs.keep(first, *LINES)
    client.delete("/api/v1/server/1/")
    reused = client.post("/api/v1/server/1/", {**SIZES, "customer": "acme", "disk": "reuse", "start": False})
    assert reused.status_code == 201
    assert kept_logs.logs == {}
    assert client.get(LOG).status_code == 409
    kept_logs.keep(second := uid(world), *LINES)
    client.delete("/api/v1/server/1/")
    assert client.post("/api/v1/server/1/", {**SIZES, "disk": "erase"}).status_code == 201
    assert second not in kept_logs.logs


def test_a_follower_gets_them_first(client: Client, world: World, kept_logs: FakeKeptLogs) -> None:
    """Then the log goes on when the game starts."""
    kept_logs.keep(uid(world), *LINES, ended=ENDED)
    pieces = follow(client, "&tail=1")
    assert (
        until_text(pieces, "does not run")
        == f"{NOTE}4\n--- the game does not run; its log goes on when it starts ---\n"
    )
    client.patch("/api/v1/server/1/start")
    world.write(1, "now")
    assert until_text(pieces, "now") == "--- the game has started again ---\nnow\n"


def resumed(client: Client, id: str, end: str) -> list[str]:
    """What a follower receives that comes back with the id of its last line, until `end` has come."""
    text = until_text(follow(client, events=True, **{"Last-Event-ID": id}), end)
    return re.findall("^data: (.*)$", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("id", "expected"),
    [
        (SECOND, [NOTE.strip("- \n"), "2", "3", "4"]),
        # What was written between is not kept.
        ("one.0.1.1", [NOTE.strip("- \n"), GAP, "0", "1", "2", "3", "4"]),
        ("other.0.1.1", [NOTE.strip("- \n"), GAP, "0", "1", "2", "3", "4"]),
        # A later run than what is kept.
        ("other.0.1999999999000000000.1", [GAP]),
    ],
)
def test_a_follower_resumes_in_the_kept_lines(
    client: Client, world: World, kept_logs: FakeKeptLogs, id: str, expected: list[str]
) -> None:
    """By the id that its last line had while the game ran."""
    kept_logs.keep(uid(world), *LINES, pod="one", ended=ENDED, cut=True)
    assert resumed(client, id, "does not run")[:-1] == expected


@pytest.mark.parametrize(
    ("id", "expected"),
    [
        (SECOND, ["2", "3", "4", "the game has started again", "now"]),
        ("one.0.1.1", [GAP, "0", "1", "2", "3", "4", "the game has started again", "now"]),
        ("other.0.1.1", [GAP, "now"]),
    ],
)
def test_a_follower_resumes_over_a_stop(
    client: Client, world: World, kept_logs: FakeKeptLogs, id: str, expected: list[str]
) -> None:
    """What the run wrote that has ended meanwhile is told, too, as far as it is kept."""
    kept_logs.keep(uid(world), *LINES, pod="one", ended=ENDED, cut=True)
    client.patch("/api/v1/server/1/start")
    world.write(1, "now")
    assert resumed(client, id, "now") == expected


def test_kubernetes_away_is_no_answer_about_the_log(client: Client, kept_logs: FakeKeptLogs) -> None:
    """503, and an erase does not go on, so that nothing is left of it."""
    kept_logs.away = True
    assert client.get(LOG).status_code == 503
    assert client.delete("/api/v1/server/1/?disk=erase").status_code == 503
