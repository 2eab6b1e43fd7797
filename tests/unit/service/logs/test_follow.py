"""What followers of a log are sent, and what is counted of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from service.logs import follow, source
from service.logs.entries import GAP, Entry, line_entry
from service.logs.follow import FollowedLogs, Wish
from service.logs.lines import Line, Place, Run
from service.telemetry.metrics import REGISTRY
from service.web.followers import Feed

RUN = Run("pod", 0)


class Serving:
    """In the place of `web.followers.Followers`: it keeps the feed for the test, and calls back at once."""

    feed: Feed

    def require_room(self, kind: str, token: str) -> None:
        pass

    def add(self, client: object, feed: Feed, *connection: object) -> None:
        self.feed = feed

    def call(self, callback: Callable[..., None], *arguments: Any) -> None:
        callback(*arguments)


def entry(number: int, size: int) -> Entry:
    return line_entry(Line(Place(RUN, number, 1), f"{number:<{size}}"))


def count(name: str) -> float:
    return REGISTRY.get_sample_value(f"gameserver_api_{name}") or 0.0


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Any, Any]]:
    """Adds a follower of a log that nobody reads; returns its feed, and the log."""
    monkeypatch.setattr(source.Source, "read", lambda self: None)
    serving = Serving()
    logs = FollowedLogs(None, serving)  # type: ignore[arg-type]

    def add(backlog: tuple[Entry, ...] = ()) -> tuple[Any, Any]:
        logs.add(Wish(1, None, "t", False, lambda: None, backlog), None, b"", False)  # type: ignore[arg-type]
        return serving.feed, logs._logs[1, None]

    return add


def test_a_follower_that_falls_behind_hears_of_its_gap(
    added: Callable[..., tuple[Any, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what it was not sent is counted to the byte."""
    monkeypatch.setattr(source, "RING_BYTES", 2000)
    feed, log = added()
    entries = [entry(number, 90) for number in range(100)]
    log.ring.add(entries[0])
    assert feed.next() == entries[0]
    before = count("log_gaps_total"), count("log_dropped_bytes_total")
    for each in entries[1:]:
        log.ring.add(each)
    gap, *rest = iter(feed.next, None)
    assert (gap.text.decode(), rest) == (f"--- {GAP} ---\n", entries[-len(rest) :])
    dropped = sum(len(each.event) for each in entries[1 : -len(rest)])
    assert (count("log_gaps_total") - before[0], count("log_dropped_bytes_total") - before[1]) == (1, dropped)


def test_a_backlog_that_is_not_read_is_given_up(
    added: Callable[..., tuple[Any, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a while; the client hears of the gap."""
    backlog = (entry(1, 10), entry(2, 10))
    feed, _ = added(backlog)
    before = count("log_dropped_bytes_total")
    assert feed.next() == backlog[0]
    feed.tick()
    monkeypatch.setattr(follow, "_BACKLOG_SECONDS", -1.0)
    feed.tick()
    assert [each.text.decode() for each in iter(feed.next, None)] == [f"--- {GAP} ---\n"]
    assert count("log_dropped_bytes_total") - before == len(backlog[1].event)


def test_the_logs_that_are_read_are_counted(added: Callable[..., tuple[Any, Any]]) -> None:
    """One for all its followers, until the last is gone."""
    feeds = [added()[0] for _ in range(2)]
    _, log = added()
    assert count("followed_logs") == 1
    for feed in (*feeds, *log.feeds):
        feed.close()
    assert not log.source._wanted()
    assert count("followed_logs") == 0


def test_a_log_that_has_ended_does_not_take_away_the_next_one(added: Callable[..., tuple[Any, Any]]) -> None:
    """Its source asks twice whether anyone wants more; meanwhile the server may have a follower again."""
    feed, ended = added()
    feed.close()
    assert not ended.source._wanted()
    _, log = added()
    assert not ended.source._wanted()
    _, same = added()
    assert log is same is not ended
    assert count("followed_logs") == 1
    for each in tuple(log.feeds):
        each.close()
    assert not log.source._wanted()
    assert count("followed_logs") == 0
