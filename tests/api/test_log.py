"""The log of a server's game."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from service.api.log import CUT
from tests.api.conftest import SIZES, Client
from tests.support.fakes import World

LOG = "/api/v1/server/1/log"


@pytest.fixture
def running(client: Client) -> Client:
    """A client of an API with the server 1, which runs."""
    assert client.post("/api/v1/server/1/", SIZES).status_code == 201
    return client


def test_the_last_lines(running: Client, world: World) -> None:
    """They are plain text; `tail` says how many."""
    world.write(1, *map(str, range(300)))
    answer = running.get(LOG)
    assert (answer.status_code, answer.mimetype) == (200, "text/plain")
    assert answer.text == "".join(f"{number}\n" for number in range(100, 300))
    assert running.get(f"{LOG}?tail=2").text == "298\n299\n"


def test_lines_since_a_time(running: Client, world: World) -> None:
    """A time in RFC 3339 counts with its fraction, or it is how long ago."""
    world.write(1, "early", at="2026-01-31T12:00:00.100000000Z")
    world.write(1, "late", at="2026-01-31T12:00:00.200000000Z")
    assert running.get(f"{LOG}?since=2026-01-31T12:00:00.15Z").text == "late\n"
    assert running.get(f"{LOG}?since=2026-01-31T13:00:00%2B01:00").text == "early\nlate\n"
    world.write(1, "now", at=(datetime.now(UTC) - timedelta(minutes=5)).strftime("%Y-%m-%dT%H:%M:%SZ"))
    assert running.get(f"{LOG}?since=10m").text == "now\n"
    assert running.get(f"{LOG}?since=10s").text == ""


def test_nothing_reaches_a_terminal(running: Client, world: World) -> None:
    """Colours are removed, everything else that a terminal obeys is replaced."""
    world.write(1, "\x1b[31mred\x1b[0m \x1b]0;title\x07 \x1b[2J\x9b2J\ta\rb\u202e")
    assert running.get(LOG).text == "red \ufffd]0;title\ufffd \ufffd2J\ta\ufffdb\ufffd\n"


def test_a_long_log_is_cut_and_says_so(running: Client, world: World) -> None:
    """At most 1 MiB; the newest lines are there."""
    world.write(1, *(f"{number} {'x' * 1000}" for number in range(3000)))
    text = running.get(f"{LOG}?tail=3000").text
    assert text.startswith(CUT)
    assert len(text) < 1024 * 1024
    assert text.splitlines()[-1].startswith("2999 ")


def test_without_a_log_it_says_what_to_do(running: Client) -> None:
    """A stopped server has no log, and a server that does not exist is not found."""
    running.patch("/api/v1/server/1/stop")
    answer = running.get(LOG)
    assert answer.json is not None
    assert (answer.status_code, answer.json["type"]) == (409, "/problems/no-log")
    assert "Start the server" in answer.json["detail"]
    assert running.get("/api/v1/server/2/log").status_code == 404


@pytest.mark.parametrize(
    "query", ["tail=0", "tail=5001", "tail=x", "since=yesterday", "since=10", "since=2026-13-01T00:00:00Z", "what=1"]
)
def test_a_query_that_makes_no_sense_is_refused(running: Client, query: str) -> None:
    """422, which names the parameter."""
    answer = running.get(f"{LOG}?{query}")
    assert answer.json is not None
    assert answer.status_code == 422
    assert list(answer.json["errors"]) == [query.partition("=")[0]]
