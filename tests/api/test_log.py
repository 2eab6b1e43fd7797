"""The log of a server's game."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.logs.backlog import Piece
from service.logs.entries import CUT, GAP, note_entry
from service.logs.follow import _Feed
from service.servers.consumption import Consumption
from service.settings import Settings
from tests.api.conftest import SIZES, Client
from tests.api.streams import listen, until_text
from tests.support import tokens
from tests.support.fakes import World
from tests.support.waiting import until

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
    assert text.startswith(note_entry(CUT).text.decode())
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


def follow(client: Client, query: str = "", **options: Any) -> Iterator[str]:
    """What a follower receives, piece by piece; see `listen`."""
    return listen(client, f"{LOG}?follow=true{query}", **options)


def test_a_follower_gets_old_and_new_lines(running: Client, world: World) -> None:
    """The last lines, and then each as it is written."""
    world.write(1, "one", "two")
    pieces = follow(running, "&tail=1")
    assert until_text(pieces, "two") == "two\n"
    world.write(1, "three")
    assert until_text(pieces, "three") == "three\n"


def test_following_goes_on_over_a_restart(running: Client, world: World) -> None:
    """It says so."""
    world.write(1, "one")
    pieces = follow(running)
    assert until_text(pieces, "one") == "one\n"
    world.restart(1)
    world.write(1, "two")
    assert until_text(pieces, "two") == "--- the game has started again ---\ntwo\n"


def test_events_have_ids_and_can_be_resumed(running: Client, world: World) -> None:
    """With `Last-Event-ID` nothing is lost or repeated, also of lines with the same time, and over a restart."""
    world.write(1, "one", "two", "three")
    text = until_text(follow(running, events=True), "three")
    ids = re.findall(r"^id: (.*)$", text, re.MULTILINE)
    assert (len(set(ids)), text.count("data: ")) == (3, 3)
    again = until_text(follow(running, events=True, **{"Last-Event-ID": ids[1]}), "three")
    assert again == f"id: {ids[2]}\ndata: three\n\n"
    assert until_text(follow(running, f"&lastEventId={ids[1]}", events=True), "three") == again
    both = follow(running, f"&lastEventId={ids[1]}", events=True, **{"Last-Event-ID": ids[0]})
    assert until_text(both, "three").count("data: ") == 2
    world.restart(1)
    world.write(1, "four")
    again = until_text(follow(running, events=True, **{"Last-Event-ID": ids[1]}), "four")
    assert re.findall("^data: (.*)$", again, re.MULTILINE) == ["three", "the game has started again", "four"]


def test_a_resume_beyond_what_there_is_tells_a_gap(running: Client, world: World) -> None:
    """Of a pod that is gone."""
    world.write(1, "one")
    text = until_text(follow(running, events=True, **{"Last-Event-ID": "other.0.1.1"}), "one")
    assert re.findall("^data: (.*)$", text, re.MULTILINE) == [GAP, "one"]


@pytest.mark.parametrize("number", [1, 9])
@pytest.mark.parametrize("shared", [False, True])
def test_a_resume_gets_all_that_there_is(
    running: Client, world: World, monkeypatch: pytest.MonkeyPatch, number: int, shared: bool
) -> None:
    """More than 1 MiB too, in pieces, and whether or not another one follows; of what is gone, one gap is told."""
    sizes: list[int] = []
    monkeypatch.setattr("service.logs.follow._Feed.has_read", _measured(sizes))
    world.write(1, "first", at="2026-01-31T12:00:00Z")
    world.write(1, *(f"{number} {'x' * 1000}" for number in range(1499)), "last", at="2026-01-31T12:00:01Z")
    if shared:
        until_text(follow(running, "&tail=1"), "last")
    time = int(datetime(2026, 1, 31, 12, tzinfo=UTC).timestamp())
    headers = {"Last-Event-ID": f"pod.0.{time}000000000.{number}"}
    text = until_text(follow(running, events=True, **headers), "data: last\n\n")
    world.write(1, "new", at="2026-01-31T12:00:02Z")
    said = [line.partition(" ")[0] for line in re.findall("^data: (.*)$", text, re.MULTILINE)]
    assert said == [*([GAP.split()[0]] if number == 9 else []), *map(str, range(1499)), "last"]
    assert len(sizes) > 10
    assert max(sizes) < 160 * 1024


def _measured(sizes: list[int]) -> Callable[[_Feed, Piece], None]:
    """As `_Feed.has_read`, and how large each piece is goes to `sizes`."""
    original = _Feed.has_read

    def has_read(self: _Feed, piece: Piece) -> None:
        sizes.append(sum(len(entry.event) for entry in piece.entries))
        original(self, piece)

    return has_read


@pytest.mark.parametrize("ahead", ["since", "Last-Event-ID"])
def test_who_names_a_time_to_come_hides_no_line_from_others(running: Client, world: World, ahead: str) -> None:
    """What one client sends touches what that client gets alone."""
    world.write(1, "one")
    if ahead == "since":
        later = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        first = follow(running, f"&since={later}")
    else:
        first = follow(running, events=True, **{"Last-Event-ID": f"pod.0.9{'0' * 18}.1"})
        until_text(first, GAP)
    until(lambda: "log of server 1" in {thread.name for thread in threading.enumerate()})
    second = follow(running)
    assert until_text(second, "one") == "one\n"
    world.write(1, "two", at="2026-01-31T12:00:01Z")
    assert until_text(second, "two") == "two\n"


def test_two_followers_share_one_read(running: Client, world: World) -> None:
    """Each gets every line once."""
    world.write(1, "one")
    first, second = follow(running), follow(running)
    for pieces in (first, second):
        assert until_text(pieces, "one") == "one\n"
    world.write(1, "two")
    for pieces in (first, second):
        assert until_text(pieces, "two") == "two\n"
    assert [thread.name for thread in threading.enumerate()].count("log of server 1") >= 1


def test_a_stopped_server_can_be_followed(running: Client, world: World) -> None:
    """The log begins when the game starts."""
    running.patch("/api/v1/server/1/stop")
    pieces = follow(running)
    assert "does not run" in until_text(pieces, "---\n")
    running.patch("/api/v1/server/1/start")
    world.write(1, "one")
    assert until_text(pieces, "one") == "one\n"


def test_following_ends(client: Client, world: World, settings: Settings) -> None:
    """For the customer when the server is suspended, with a token when it is revoked, for all when the server goes."""
    customer = tokens.entry("acme", "acme-secret", scopes=["console:read"], customer="acme")
    shop, support = tokens.entry("shop", "shop-secret"), tokens.entry("support", "support-secret")
    assert settings.tokens_file is not None
    tokens.write(settings.tokens_file, customer, shop, support)
    client.post("/api/v1/server/1/", {**SIZES, "customer": "acme"})
    followers = {name: follow(client, token=name) for name in ("acme", "shop", "support")}
    world.write(1, "one")
    for pieces in followers.values():
        until_text(pieces, "one")
    client.patch("/api/v1/server/1/suspend", {"reason": "Abuse."})
    assert "the server is suspended" in "".join(followers["acme"])
    assert client.get(LOG, token="acme").status_code == 403
    tokens.write(settings.tokens_file, customer, shop)
    assert "the token is no longer valid" in "".join(followers["support"])
    client.delete("/api/v1/server/1/")
    assert "the server is gone" in "".join(followers["shop"])


def test_a_follower_gets_no_line_of_the_next_server(
    running: Client, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which has the id of the deleted one, also before the follower hears that its own server is gone."""
    monkeypatch.setattr("service.web.followers.CHECK_SECONDS", 2.5)
    world.pods[1]["metadata"]["uid"] = "first"
    world.write(1, "one")
    pieces = follow(running)
    assert until_text(pieces, "one") == "one\n"
    running.delete("/api/v1/server/1/?disk=erase")
    del world.logs[1]
    assert running.post("/api/v1/server/1/", SIZES).status_code == 201
    world.write(1, "secret")
    assert until_text(follow(running), "secret") == "secret\n"
    rest = "".join(pieces)
    assert rest.endswith("--- the server is gone ---\n")
    assert not re.search("secret|started again", rest)


@pytest.fixture
def former(running: Client, world: World) -> Client:
    """A client of an API whose server 1 was deleted and made again, while the pod of the deleted one still ends."""
    world.statefulsets[1]["metadata"]["uid"] = "new"
    world.pods[1]["metadata"] |= {"uid": "former", "ownerReferences": [{"controller": True, "uid": "old"}]}
    world.write(1, "secret")
    return running


def test_no_line_is_read_of_the_pod_that_a_deleted_server_left(former: Client) -> None:
    """The new server has no log yet."""
    answer = former.get(LOG)
    assert answer.json is not None
    assert (answer.status_code, answer.json["type"]) == (409, "/problems/no-log")


@pytest.mark.parametrize("headers", [{}, {"Last-Event-ID": "former.0.1.1"}])
def test_no_line_is_followed_of_the_pod_that_a_deleted_server_left(
    former: Client, world: World, headers: dict[str, str]
) -> None:
    """Neither at first nor when it goes on; the new server's own pod is followed."""
    pieces = follow(former, events=True, **headers)
    text = until_text(pieces, "does not run")
    world.write(1, "secret")
    world.logs[1] = ""
    world.pods[1]["metadata"] |= {"uid": "own", "ownerReferences": [{"controller": True, "uid": "new"}]}
    world.write(1, "one")
    text += until_text(pieces, "data: one")
    assert "secret" not in text


def test_the_state_says_that_a_pod_of_before_still_ends(former: Client, world: World) -> None:
    """Its own game does not run yet, and nothing that is known of the other one is shown."""
    world.consumption[1] = Consumption(1.0, 0.5, "2026-01-31T12:00:00Z")
    server = former.get("/api/v1/server/1/").json
    assert server is not None
    assert (server["state"], server["usage"], server["players"]) == ("starting", None, None)
    assert server["reason"] == "The game of an earlier server with this id still ends. This one starts then."


def test_there_are_limits(running: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """429 for a token and for a replica that has too many."""
    for limit in ("MOST", "MOST_OF_A_TOKEN"):
        with monkeypatch.context() as patch:
            patch.setattr(f"service.web.followers.{limit}", 0)
            answer = running.get(f"{LOG}?follow=true")
            assert answer.json is not None
            assert (answer.status_code, answer.json["type"]) == (429, "/problems/too-many-followers")
