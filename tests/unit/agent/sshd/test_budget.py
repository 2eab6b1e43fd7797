"""Each server has its share of the log; lines beyond it are counted, and the count is logged."""

from __future__ import annotations

import json
from typing import Any

import pytest

from disk_agent.sshd.budget import FILES, REFUSALS, SESSIONS, Budget, Key
from disk_agent.sshd.journal import Journal
from disk_agent.sshd.peers import Peers

KIB = 1024


def admitted(budget: Budget, key: Key, size: int, limit: tuple[int, float], now: float) -> bool:
    is_admitted = budget.admits(key, limit, now)
    if is_admitted:
        budget.spend(key, size)
    return is_admitted


def test_a_flood_is_cut_off_and_counted_once_it_stops() -> None:
    budget, limit = Budget(), (10 * KIB, 1024.0)
    assert [admitted(budget, (7, "files"), KIB, limit, 0.0) for _ in range(12)] == [True] * 10 + [False] * 2
    assert budget.omitted(1.0) == []
    # The count comes before the next line.
    assert not admitted(budget, (7, "files"), KIB, limit, 1.0)
    assert budget.omitted(5.0) == [((7, "files"), 3)]
    assert budget.omitted(5.0) == []
    assert admitted(budget, (7, "files"), KIB, limit, 5.0)


def test_a_flood_that_continues_is_counted_every_minute() -> None:
    budget, limit = Budget(), (KIB, 1.0)
    for second in range(130):
        admitted(budget, (7, "files"), KIB, limit, float(second))
    assert budget.omitted(130.0) == [((7, "files"), 128)]


def test_each_server_and_kind_of_line_has_its_own_allowance() -> None:
    budget, limit = Budget(), (KIB, 1.0)
    for key in ((7, "files"), (7, "logins"), (8, "files"), (None, "logins")):
        assert admitted(budget, key, KIB, limit, 0.0)
        assert not admitted(budget, key, 1, limit, 0.0)


def test_full_allowances_are_forgotten() -> None:
    budget = Budget()
    admitted(budget, (7, "files"), KIB, FILES, 0.0)
    budget.omitted(3600.0)
    assert not budget._allowances


def test_an_hour_of_one_servers_flood_leaves_most_of_a_kubelets_log() -> None:
    """The kubelet's default is 10 MiB in a file."""
    assert sum(burst + 3600 * rate for burst, rate in (FILES, SESSIONS, REFUSALS)) < 7 * KIB * KIB


def logged(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_one_customers_forty_thousand_files_are_few_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """Another customer's login is logged, and her own."""
    journal = Journal(lambda server: server in ("7", "8"))
    for number in range(40_000):
        path = f"/files/world/{number}"
        journal.write({"event": "file", "server": 7, "operation": "open", "path": path})
    journal.write({"event": "login", "server": 8}, {"event": "login", "server": 7}, {"event": "file", "server": 8})
    lines = logged(capsys)
    assert [(line["event"], line["server"]) for line in lines[-3:]] == [("login", 8), ("login", 7), ("file", 8)]
    assert len(lines) < 7000


def test_servers_of_other_nodes_share_one_allowance(capsys: pytest.CaptureFixture[str]) -> None:
    """A client can name any id."""
    journal = Journal(lambda _: False)
    for number in range(20_000):
        journal.write({"event": "login refused", "server": number, "user": f"server-{number}"})
    assert len(logged(capsys)) < 4000
    journal.flush()


def test_attempts_under_a_servers_name_hide_none_of_its_logins(capsys: pytest.CaptureFixture[str]) -> None:
    journal = Journal(lambda _: True)
    for _ in range(10_000):
        journal.write({"event": "sshd", "server": 7, "text": "Connection closed by user server-7 ::1 port 5 [preauth]"})
        journal.write({"event": "login refused", "server": 7, "method": "password", "user": "server-7"})
    journal.write({"event": "login", "server": 7})
    assert logged(capsys)[-1]["event"] == "login"


def test_a_connections_lines_are_joined() -> None:
    """Client and server are on every line after the first that names them."""
    peers = Peers()
    lines = [
        {"event": "connection", "session": 5, "client": "192.0.2.1", "server": None},
        {"event": "login refused", "session": 5, "method": "password", "server": 7, "client": "192.0.2.1"},
        {"event": "sshd", "session": 5, "server": None, "text": "Connection reset"},
    ]
    joined = [peers.update(line, 0.0) for line in lines]
    assert joined[2] == {**lines[2], "server": 7, "client": "192.0.2.1"}
    assert peers.get(5).wrong_passwords == 1
    # The pid is reused.
    assert peers.update({"event": "sshd", "session": 6, "server": None, "text": ""}, 0.0)["server"] is None
    peers.update({"event": "connection", "session": 5, "client": "192.0.2.9", "server": None}, 1.0)
    assert peers.get(5).server is None
    peers.forget_ended({6}, before=2.0)
    assert len(peers) == 1
