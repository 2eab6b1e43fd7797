"""What those are told who follow the start of a server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from service.progress import follow
from service.progress.follow import FollowedStarts, Seen, StartWish, step_message
from service.servers.objects import ServerObjects
from service.servers.progress import Mark, Step
from service.web.followers import Feed
from tests.unit.service.servers.test_progress import RUNS, SCHEDULED, T0, T1, pod, server, statefulset

STOPPED = server(statefulset=statefulset(0, generation=1))
STARTED = server(pod=pod(SCHEDULED, creationTimestamp=T1))
STARTED_BEFORE = server(pod=pod(SCHEDULED, creationTimestamp=T0, uid="older-01"))
LOADING = server(pod=pod(SCHEDULED, container=RUNS, creationTimestamp=T1))
REPLACED = server(statefulset=statefulset(uid="workload-1"))


class Serving:
    """In the place of `web.followers.Followers`: it keeps the feed for the test."""

    feed: Feed

    def add(self, client: object, feed: Feed, *connection: object) -> None:
        self.feed = feed


class Silent:
    """A cluster whose watches hear nothing."""

    def known(self, id: int) -> ServerObjects | None:
        return None

    def subscribe(self, listener: Callable[..., None]) -> None:
        pass


def feed_of(objects: ServerObjects, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The feed of a client that has called when the server was like this. Nobody looks at the server but the test."""
    monkeypatch.setattr(FollowedStarts, "_look_after", lambda self: None)
    serving = Serving()
    starts = FollowedStarts(Silent(), serving)  # type: ignore[arg-type]
    starts.add(StartWish(1, "shop", False, lambda: None, Seen.of(objects)), None, b"", False)  # type: ignore[arg-type]
    return serving.feed


def told(feed: Feed) -> list[str]:
    """The steps that the client is told now."""
    texts = []
    while (message := feed.next()) is not None:
        texts.append(message.text.decode().split()[1])
    return texts


@pytest.mark.parametrize("before", [STOPPED, STARTED_BEFORE, REPLACED, ServerObjects(1)])
def test_what_the_watches_show_from_before_is_no_news(before: ServerObjects, monkeypatch: pytest.MonkeyPatch) -> None:
    """They may be a moment behind what the call has read. Once they have caught up, what they show counts."""
    feed = feed_of(STARTED, monkeypatch)
    assert told(feed) == ["disk", "scheduled"]
    feed.see(Seen.of(before))
    assert told(feed) == []
    feed.see(Seen.of(LOADING))
    assert told(feed) == ["image", "loading"]
    feed.see(Seen.of(ServerObjects(1)))
    assert told(feed) == ["deleted"]


def test_watches_that_stay_behind_are_believed_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server may have been deleted right after the call."""
    monkeypatch.setattr(follow, "_BEHIND_SECONDS", -1.0)
    feed = feed_of(STARTED, monkeypatch)
    feed.see(Seen.of(ServerObjects(1)))
    assert told(feed) == ["deleted"]


def test_another_server_with_the_id_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server that was followed is deleted."""
    feed = feed_of(STARTED, monkeypatch)
    feed.see(Seen.of(STARTED))
    told(feed)
    feed.see(Seen.of(REPLACED))
    assert told(feed) == ["deleted"]


def test_a_client_that_does_not_read_costs_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told what is so when it reads."""
    feed = feed_of(STARTED, monkeypatch)
    for _ in range(1000):
        feed.see(Seen.of(STARTED))
    feed.see(Seen.of(LOADING))
    assert told(feed) == ["disk", "scheduled", "image", "loading"]


def test_a_reason_is_one_line() -> None:
    """Kubernetes' messages may have several, and what a terminal obeys."""
    message = step_message(Step("failed", None, "failed", "one\ntwo\x1b[2J\u202e", Mark("c", "p", 0, 2, "failed-00")))
    assert message.text == b"- failed: one two [2J \n"
    assert message.event.count(b"\n") == 4
    assert b"\\u001b" in message.event
