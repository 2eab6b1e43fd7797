"""docs/limits.md has the numbers of the code and of the charts."""

from __future__ import annotations

import re
import runpy
from typing import Any

import pytest
import yaml

from disk_agent.lastlines import secret, text
from local.paths import ROOT
from service import app, settings
from service.api import event_schemas, log_schemas, schemas
from service.backups import records as backup_records
from service.console import commands, turns
from service.controller import observe
from service.controller import worlds as controller_worlds
from service.errors import PROBLEMS
from service.events import log as event_log
from service.events import segments
from service.helm import command as helm_command
from service.logs import follow, lines, source
from service.operations import backups, bulk, console, restore, tokens, worlds
from service.players import query
from service.progress import follow as progress
from service.records import store
from service.schedules import spec, times
from service.web import followers, hooks, parking
from service.webhooks import deliveries, retries, sender
from service.webhooks import records as webhooks

ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs" / "limits.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith(("| what |", "| **"))
]
DEFAULTS = settings.Settings()


def size(number: int) -> str:
    """A number of bytes as the page writes it."""
    unit = "MiB" if number % 2**20 == 0 else "KiB"
    assert number % 2**10 == 0
    return f"{number // (2**20 if unit == 'MiB' else 2**10)} {unit}"


def chart(path: str, name: str = "api") -> Any:
    """A default of a chart."""
    value = yaml.safe_load((ROOT / "charts" / name / "values.yaml").read_text())
    for part in path.split("."):
        value = value[part]
    return value


def sftp(file: str, setting: str) -> int:
    """The number after a setting in a file of the SFTP image."""
    found = re.findall(rf"\b{setting} (\d+)", (ROOT / "images" / "sftp" / file).read_text())
    assert len(found) == 1
    return int(found[0])


GUNICORN = runpy.run_path(str(ROOT / "service" / "serving" / "gunicorn.conf.py"))
EXPECTED = {
    "open connections": GUNICORN["worker_connections"],
    "calls at once": hooks.CALLS_AT_ONCE,
    "calls that change something, of these": hooks.OPERATIONS_AT_ONCE,
    "helm operations": chart("helmProcesses"),
    "calls that wait (`wait=…`, commands)": parking.MOST,
    "calls that wait, of one token": parking.MOST_OF_A_TOKEN,
    "calls that wait, of a customer": parking.MOST_OF_A_CUSTOMER,
    "body of a request": size(app.LARGEST_BODY),
    "changes of one server at once": 1,
    "servers, or events, on a page": schemas.LARGEST_LIMIT,
    "memory of a server": f"{DEFAULTS.max_ram_gb} GiB",
    "disk of a server": f"{DEFAULTS.max_disk_gb} GiB",
    "tokens and login links": tokens.MAX_RECORDS,
    "length of a command": f"{commands.LONGEST_COMMAND} bytes",
    "commands at once": turns.AT_ONCE,
    "commands after these": f"{turns.PER_SECOND:.0f} a second",
    "games that are sent commands at once": turns.MOST_GAMES,
    "time for a command, with the wait for its turn": f"{console.SECONDS:.0f} s",
    "output of a command": size(console.LONGEST_OUTPUT),
    "clients that follow a log or a start": followers.MOST,
    "of these, with one token": followers.MOST_OF_A_TOKEN,
    "logs that are read for followers": follow.MOST_SERVERS,
    "what waits for a client that does not read": size(followers.BUFFER_BYTES),
    "a log's newest lines, for all who follow it": size(source.RING_BYTES),
    "what a client that comes back is sent of a log before the newest lines": size(follow.MOST_BYTES_BEHIND),
    "how much of a log is read": f"{size(source.BYTES_A_SECOND)} a second",
    "time that a start is followed": f"{progress.LONGEST_SECONDS / 60:.0f} min",
    "lines of an answer": log_schemas.MOST_LINES,
    "bytes of an answer": size(lines.MOST_BYTES),
    "length of a line": f"{lines.LONGEST} characters",
    "names of players": query.MOST_NAMES,
    "length of a player's name": f"{query.LONGEST_NAME} characters",
    "servers named in a call": schemas.MOST_IDS,
    "unfinished operations": bulk.MOST_UNFINISHED,
    "operations that are kept for a day": bulk.MOST_KEPT,
    "servers of all these operations": bulk.MOST_SERVERS,
    **{
        f"{name}, of {whose}": most[number]
        for number, name in enumerate(
            ("unfinished operations", "operations that are kept for a day", "servers of all these operations")
        )
        for whose, most in (
            ("confined tokens together", bulk.most_of_confined()),
            ("a customer", bulk.MOST_OF_A_CUSTOMER),
        )
    },
    "servers that are changed at once": DEFAULTS.bulk_at_once,
    "servers that are changed in a minute": DEFAULTS.bulk_per_minute,
    "schedules": spec.MOST_SCHEDULES,
    "all schedules together, with each `<`, `>` and `&` as 6 bytes": size(spec.MOST_BYTES),
    "steps": spec.MOST_STEPS,
    "how often a schedule is due": f"once in {times.CLOSEST.total_seconds() / 60:.0f} min",
    "steps of schedules at once": DEFAULTS.controller_operations_at_once,
    "new backups": f"{backups.MOST_RECENT} in {backups.RECENT.total_seconds() / 60:.0f} min",
    "backups that are kept": DEFAULTS.backups_per_server,
    "size of a server's backups": f"{DEFAULTS.backup_gb_per_server} GiB",
    "backups that are remembered, with failed ones": backup_records.MOST,
    "backups at once": DEFAULTS.backups_at_once,
    "restores, undos and clones at once, with the backups that they need": (
        DEFAULTS.backups_at_once * controller_worlds.RESTORES_TO_A_BACKUP
    ),
    "unfinished backups and restores": worlds.MOST_UNFINISHED,
    "files of a partial restore": restore.MOST_PATHS,
    "their paths together": size(restore.MOST_PATH_BYTES),
    "events in the log": segments.MAX_EVENTS,
    "bytes in the log": size(segments.MAX_BYTES),
    "one event": size(event_log.LONGEST_EVENT),
    "changes that wait for the active controller": observe.MAX_CHANGES,
    "time that a read of events waits": f"{event_schemas.LONGEST_WAIT} s",
    "webhooks": webhooks.MOST,
    "of these, a customer's own": webhooks.MOST_OF_A_CUSTOMER,
    "events that wait for another try": deliveries.MOST_WAITING,
    "time for a delivery": f"{sender.SECONDS:.0f} s",
    "time until an event is given up": f"{retries.LONGEST / retries.HOUR:.0f} h",
    "one record (a Secret)": size(store.LARGEST),
    "revisions of a release": helm_command.HISTORY,
    "last lines that are kept of a game that has ended, packed": size(text.PACKED_BYTES),
    "last lines that are kept, in all": size(secret.MOST_BYTES),
    "sessions": chart("limits.sessionsPerServer", "sftp-daemonset"),
    "sessions, of these": sftp("sshd_config", "MaxSessions"),
    "data in memory": size(sftp("supervise", "ulimit -d") * 2**10),
    "wrong passwords in a row": chart("limits.passwordGuesses", "sftp-daemonset"),
}
"""What each row must say; sizes and times as the page writes them."""
ELSEWHERE = {
    "time until a stream ends after its token, server or suspension",
}
"""Rows whose numbers are no constants."""


def test_every_number_is_that_of_the_code() -> None:
    """A row that is new wants a line above."""
    shown = {row[0]: row[2] for row in ROWS if row[0] not in ELSEWHERE}
    assert shown == {name: str(number) for name, number in EXPECTED.items()}
    assert len(ROWS) == len({row[0] for row in ROWS}) == len(EXPECTED) + len(ELSEWHERE)
    # What is shown once is the same twice.
    assert event_schemas.LARGEST_LIMIT == schemas.LARGEST_LIMIT


@pytest.mark.parametrize("row", [row for row in ROWS if row[3]], ids=lambda row: row[0])
def test_every_chart_value_exists_and_has_that_default(row: list[str]) -> None:
    """In the chart that the row names."""
    name, _, of = row[3].partition("` of gameserver-")
    default = chart(name.strip("`"), "sftp-daemonset" if of == "sftp" else "api")
    assert row[2].removesuffix(" GiB") == str(default)


def test_every_problem_exists() -> None:
    """With the status that the page says."""
    for row in ROWS:
        for status, slug in re.findall(r"(\d{3}) `([a-z-]+)`", row[4]):
            assert PROBLEMS[slug].status == int(status), row
