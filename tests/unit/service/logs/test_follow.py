"""What followers of a log are sent, and what is counted of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from service.logs import follow, source
from service.logs.backlog import Piece
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


@pytest.fixture
def behind(monkeypatch: pytest.MonkeyPatch) -> tuple[FollowedLogs, Any]:
    """A follower that is behind, and its feed; whoever reads on for it is the test."""
    monkeypatch.setattr(source.Source, "read", lambda self: None)
    monkeypatch.setattr(FollowedLogs, "read_on", lambda self, feed: None)
    serving = Serving()
    logs = FollowedLogs(None, serving)  # type: ignore[arg-type]
    wish = Wish(1, None, "t", False, lambda: None, (entry(1, 10),), Place(RUN, 1, 1), behind=True)
    logs.add(wish, None, b"", False)  # type: ignore[arg-type]
    return logs, serving.feed


def piece(*numbers: int, complete: bool = False) -> Piece:
    return Piece(tuple(entry(number, 10) for number in numbers), Place(RUN, numbers[-1], 1), complete)


def test_one_that_is_behind_gets_piece_after_piece(behind: tuple[FollowedLogs, Any]) -> None:
    """Then what is in the ring, without what it has already. Only from then on does it keep the log read."""
    logs, feed = behind
    assert list(iter(feed.next, None)) == [entry(1, 10)]
    feed.has_read(piece(2, 3))
    assert list(iter(feed.next, None)) == [entry(2, 10), entry(3, 10)]
    assert logs._logs == {}
    logs.attach(feed, feed.last)
    for number in (3, 4, 5):
        feed.followed.ring.add(entry(number, 10))
    feed.has_read(piece(4, complete=True))
    assert list(iter(feed.next, None)) == [entry(4, 10), entry(5, 10)]


def test_what_has_left_the_ring_meanwhile_is_read_too(behind: tuple[FollowedLogs, Any]) -> None:
    """A gap is told once, and only if there is nothing more to read."""
    logs, feed = behind
    logs.attach(feed, Place(RUN, 7, 1))
    feed.followed.ring.add(entry(8, 10))
    feed.has_read(piece(2, complete=True))
    assert list(iter(feed.next, None)) == [entry(1, 10), entry(2, 10)]
    feed.has_read(Piece((follow._GAP,), Place(RUN, 2, 1), complete=True))
    assert list(iter(feed.next, None)) == [follow._GAP, entry(8, 10)]


@pytest.mark.parametrize("reason", ["too much", "not read"])
def test_one_that_stays_behind_goes_on_with_the_newest_lines(
    behind: tuple[FollowedLogs, Any], monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    """It is told one gap."""
    _, feed = behind
    if reason == "too much":
        feed._left = 1
        feed.has_read(piece(2))
        sent = [entry(1, 10), entry(2, 10), follow._GAP]
    else:
        monkeypatch.setattr(follow, "_BACKLOG_SECONDS", -1.0)
        feed.tick()
        sent = [follow._GAP]
    feed.followed.source.first = Place(RUN, 8, 1)
    feed.followed.ring.add(entry(9, 10))
    assert list(iter(feed.next, None)) == [*sent, entry(9, 10)]


def test_a_piece_that_cannot_be_read_is_tried_again(
    behind: tuple[FollowedLogs, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, feed = behind
    asked: list[Any] = []
    monkeypatch.setattr(FollowedLogs, "read_on", lambda self, feed: asked.append(feed))
    feed.begin(lambda: list(iter(feed.next, None)))
    feed.pump()
    feed.has_read(None)
    feed.tick()
    feed.tick()
    assert asked == [feed, feed]


def test_one_that_is_gone_does_not_keep_the_log_read(behind: tuple[FollowedLogs, Any]) -> None:
    """Also if it went while its next piece was read."""
    logs, feed = behind
    feed.close()
    logs.attach(feed, feed.last)
    assert logs._logs == {}
