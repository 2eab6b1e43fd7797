"""What a hostile game writes reaches its reader harmless, through the real kubelet; a schedule's command reaches it."""

from __future__ import annotations

import re

import pytest
import requests

from service.logs.entries import GAP
from service.logs.lines import LONGEST
from tests.cluster.console.talking import create, following, order
from tests.cluster.controller.place import Place
from tests.support.followers import Reader
from tests.support.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.own_namespace]

#: What is written, and what is shown of it.
LINES = [
    (b"\x1b[31mred\x1b[0m", "red"),
    (b"\x1b]0;title\x07x", "\ufffd]0;title\ufffdx"),
    (b"\x1b]52;c;cm0gLXJm\x1b\\x", None),
    (b"nul\x00l", "nul\ufffdl"),
    (b"bell\x07 back\x08", "bell\ufffd back\ufffd"),
    (b"\xff\xfe\xc3(", None),
    (b"\xed\xa0\x80", None),
    (b"over\rwritten", "over\ufffdwritten"),
    ("one\u2028two\u2029three\x85four".encode(), "one\ufffdtwo\ufffdthree\ufffdfour"),
    ("abc\u202edef\u2066ghi".encode(), "abc\ufffddef\ufffdghi"),
    (b"windows\r", "windows"),
    (b"id: 1\rdata: forged\r\revent: end", "id: 1\ufffddata: forged\ufffd\ufffdevent: end"),
    (b"data: x", "data: x"),
    (b": comment", ": comment"),
    (b"", ""),
]
HARMFUL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def log(place: Place, id: int, query: str = "tail=5000") -> str:
    """The last lines of a server's log."""
    answer = requests.get(
        f"{place.api.url}/api/v1/server/{id}/log?{query}", headers={"Authorization": "Bearer test"}, timeout=30
    )
    assert answer.ok, answer.text
    answer.encoding = "utf-8"
    return answer.text


def test_hostile_bytes_harm_nobody(place: Place) -> None:
    """Nothing that a terminal or a client would obey comes through, and each line keeps its id."""
    create(place, 1)
    reader = Reader([place.api.url], 1)
    reader.start()
    until(lambda: reader.lines, 30, place.logged)
    text = following(place, 1, events=False)
    written = [*(line for line, _ in LINES), b"y" * (1 << 19), b"the end"]
    order(place, 1, do="raw", hex=b"".join(line + b"\n" for line in written).hex())
    until(lambda: "the end" in reader.texts(), 60, place.logged)
    shown = reader.texts()[1:]
    assert len(shown) == len(written)
    for (_, expected), got in zip(LINES, shown, strict=False):
        assert expected is None or got == expected
        assert not HARMFUL.search(got)
    assert shown[-2] == "y" * LONGEST + " [the line is cut]"
    assert len({id for id, _ in reader.lines}) == len(reader.lines)

    # The same lines, read at once and followed as plain text.
    assert log(place, 1).split("\n")[1:-1] == shown
    followed = b""
    for chunk in text.iter_content(None):
        followed += chunk
        if followed.endswith(b"the end\n"):
            break
    assert followed.decode().split("\n")[1:-1] == shown

    # Of a line that is as long as an answer may be, the beginning is shown, and the next one is in order.
    order(place, 1, do="raw", hex=(b"z" * (1 << 20) + b"\nthe next").hex())
    until(lambda: reader.texts()[-1].startswith("z"), 60, place.logged)
    order(place, 1, do="raw", hex=b"\n".hex())
    until(lambda: reader.texts()[-1] == "the next", 60, place.logged)
    assert reader.texts()[-2] == "z" * LONGEST + " [the line is cut]"
    cut, *rest = log(place, 1).splitlines()
    assert "left out" in cut
    assert rest[-1] == "the next"

    # Whoever comes back after any of these lines gets all that follow.
    for number in range(1, len(reader.lines), 4):
        again = Reader([place.api.url], 1)
        again.lines = reader.lines[:number]
        again.start()
        until(lambda again=again: len(again.lines) >= len(reader.lines), 30, place.logged)  # type: ignore[misc]
        again.stopped.set()
        assert again.lines == reader.lines
        assert GAP not in [note for note, _ in again.notes]
    reader.stopped.set()


def test_a_schedules_command_reaches_the_game(place: Place) -> None:
    """What it says is in the log; a command that fails is an event, which tells nothing of the command's text."""
    schedule = {"cron": "0 0 1 1 *", "steps": [{"command": "say the night begins"}]}
    with place.controller("one"):
        place.until_begun()
        create(place, 2)
        place.call("PUT", "/server/2/schedule/nightly", schedule)
        place.call("POST", "/server/2/schedule/nightly/run")
        until(lambda: "said the night begins\n" in log(place, 2), 60, place.logged)
        until(lambda: outcome(place) == "succeeded", 60, place.logged)
        place.call("PATCH", "/server/2/stop")
        # Until it has ended, it takes commands.
        until(lambda: place.call("GET", "/server/2/")["state"] == "stopped", 60, place.logged)
        place.call("POST", "/server/2/schedule/nightly/run")
        until(lambda: outcome(place) == "failed", 60, place.logged)
        until(lambda: "schedule-failed" in place.types(), 30, place.logged)
        [event] = [event for event in place.events() if event["type"] == "schedule-failed"]
        assert event["server"] == 2
        assert "the night begins" not in str(event)
        assert "the night begins" not in place.logged()


def outcome(place: Place) -> str | None:
    """How the latest run of the schedule has ended."""
    run = place.call("GET", "/server/2/schedule/nightly")["last_run"]
    return run["outcome"] if run else None
