"""Each server's lines have their share of the log; what goes beyond is counted, and the count is told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from disk_agent.sshd.budget import FILES, REFUSALS, SESSIONS, Budget, Key
from disk_agent.sshd.journal import Journal
from disk_agent.sshd.peers import Peers

KIB = 1024


def admitted(budget: Budget, key: Key, size: int, limit: tuple[int, float], now: float) -> bool:
    found = budget.admits(key, limit, now)
    if found:
        budget.spend(key, size)
    return found


def test_a_flood_is_cut_off_and_told_once_it_has_let_up() -> None:
    budget, limit = Budget(), (10 * KIB, 1024.0)
    assert [admitted(budget, (7, "files"), KIB, limit, 0.0) for _ in range(12)] == [True] * 10 + [False] * 2
    assert budget.omitted(1.0) == []
    # The count comes before the next line.
    assert not admitted(budget, (7, "files"), KIB, limit, 1.0)
    assert budget.omitted(5.0) == [((7, "files"), 3)]
    assert budget.omitted(5.0) == []
    assert admitted(budget, (7, "files"), KIB, limit, 5.0)


def test_a_flood_that_goes_on_is_told_each_minute() -> None:
    budget, limit = Budget(), (KIB, 1.0)
    for second in range(130):
        admitted(budget, (7, "files"), KIB, limit, float(second))
    assert budget.omitted(130.0) == [((7, "files"), 128)]


def test_others_and_other_matters_have_their_own() -> None:
    budget, limit = Budget(), (KIB, 1.0)
    for key in ((7, "files"), (7, "logins"), (8, "files"), (None, "logins")):
        assert admitted(budget, key, KIB, limit, 0.0)
        assert not admitted(budget, key, 1, limit, 0.0)


def test_what_nobody_uses_is_forgotten() -> None:
    budget = Budget()
    admitted(budget, (7, "files"), KIB, FILES, 0.0)
    budget.omitted(3600.0)
    assert not budget._allowances


def test_an_hour_of_one_servers_flood_leaves_most_of_a_kubelets_log() -> None:
    """The kubelet's default is 10 MiB in a file."""
    assert sum(burst + 3600 * rate for burst, rate in (FILES, SESSIONS, REFUSALS)) < 7 * KIB * KIB


def written(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_one_customers_forty_thousand_files_are_few_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """And the login of another, and her own, are there."""
    journal = Journal(lambda server: server in ("7", "8"))
    for number in range(40_000):
        path = f"/files/world/{number}"
        journal.write({"event": "file", "server": 7, "operation": "open", "path": path})
    journal.write({"event": "login", "server": 8}, {"event": "login", "server": 7}, {"event": "file", "server": 8})
    lines = written(capsys)
    assert [(line["event"], line["server"]) for line in lines[-3:]] == [("login", 8), ("login", 7), ("file", 8)]
    assert len(lines) < 7000


def test_names_of_servers_that_are_not_here_share_one_allowance(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever knocks can name any number."""
    journal = Journal(lambda _: False)
    for number in range(20_000):
        journal.write({"event": "login refused", "server": number, "user": f"server-{number}"})
    assert len(written(capsys)) < 4000
    journal.settle()


def test_strangers_who_use_a_servers_name_hide_none_of_its_logins(capsys: pytest.CaptureFixture[str]) -> None:
    journal = Journal(lambda _: True)
    for _ in range(10_000):
        journal.write({"event": "sshd", "server": 7, "text": "Connection closed by user server-7 ::1 port 5 [preauth]"})
        journal.write({"event": "login refused", "server": 7, "method": "password", "user": "server-7"})
    journal.write({"event": "login", "server": 7})
    assert written(capsys)[-1]["event"] == "login"


def test_a_connections_lines_are_put_together() -> None:
    """Client and server are on each line from when one of them has told."""
    peers = Peers()
    lines = [
        {"event": "connection", "session": 5, "client": "192.0.2.1", "server": None},
        {"event": "login refused", "session": 5, "method": "password", "server": 7, "client": "192.0.2.1"},
        {"event": "sshd", "session": 5, "server": None, "text": "Connection reset"},
    ]
    told = [peers.told(line, 0.0) for line in lines]
    assert told[2] == {**lines[2], "server": 7, "client": "192.0.2.1"}
    assert peers.of(5).wrong == 1
    # The number is given away.
    assert peers.told({"event": "sshd", "session": 6, "server": None, "text": ""}, 0.0)["server"] is None
    peers.told({"event": "connection", "session": 5, "client": "192.0.2.9", "server": None}, 1.0)
    assert peers.of(5).server is None
    peers.keep({6}, before=2.0)
    assert len(peers) == 1
