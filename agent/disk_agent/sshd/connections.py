"""The connections of sshd: the processes of each, told apart by the title that sshd gives them.

sshd names the user in its title before it looks at the password or the key, so a connection that is not found
here after the account files were changed has yet to read the changed files.

A connection is several processes: a monitor, which is root's, and below it first one that talks to a stranger,
then one that talks to the customer and runs the session. A session whose monitor has gone works on, so what
counts, and what is ended, is all of them.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

# "sshd: [accepted]", "sshd: server-1 [priv]", "sshd: server-1 [net]", "sshd: server-1@notty",
# "sshd: server-1@internal-sftp"; sshd-session from OpenSSH 9.8 on.
_CONNECTION = re.compile(rb"sshd(?:-session|-auth)?: (?!.*\[listener\])")
_SERVER = re.compile(rb"sshd(?:-session|-auth)?: server-([1-9][0-9]{0,18})(?:[ @]|\0|$)")
_FILES = b"@internal-sftp"
_TICKS = os.sysconf("SC_CLK_TCK")
# A session whose connection is gone has so many seconds to log what it had open.
_LAST_WORDS = 0.3


@dataclass(frozen=True)
class Process:
    """One of sshd's processes. user is who it runs as in the end: a monitor only lends itself the customer's uid."""

    number: int
    parent: int
    started: int
    user: int
    title: bytes


@dataclass(frozen=True)
class Connection:
    """One client's connection. number is the process that sshd's own log lines carry, started is in ticks."""

    number: int
    started: int
    server: str | None
    logged_in: bool
    processes: tuple[Process, ...]

    @property
    def age(self) -> float:
        """In seconds."""
        return time.clock_gettime(time.CLOCK_BOOTTIME) - self.started / _TICKS


def connections(user: int, proc: Path = Path("/proc")) -> list[Connection]:
    """All of them, the oldest first. Customers' sessions run as user."""
    found = {number: process for number in _numbers(proc) if (process := _process(number, proc))}
    trees: dict[int, list[Process]] = {}
    for process in found.values():
        top = process
        while top.parent in found:
            top = found[top.parent]
        trees.setdefault(top.number, []).append(process)
    return sorted(
        (_connection(found[number], processes, user) for number, processes in trees.items()),
        key=lambda one: (one.started, one.number),
    )


def end(servers: set[str], user: int, proc: Path = Path("/proc")) -> None:
    """End all connections of the servers, and wait (for at most 2 s) until they are gone."""
    deadline = time.monotonic() + 2
    while servers and time.monotonic() < deadline:
        found = [one for one in connections(user, proc) if one.server in servers]
        if not found:
            return
        end_connections(found, proc)


def end_connections(ended: Iterable[Connection], proc: Path = Path("/proc")) -> None:
    """Kill all processes of these connections. What works on files goes last: it logs what it had open."""
    processes = [process for one in ended for process in one.processes]
    if not processes:
        return
    _kill_all(processes, lambda process: _FILES not in process.title, proc)
    deadline = time.monotonic() + _LAST_WORDS
    while time.monotonic() < deadline and any(_process(process.number, proc) for process in processes):
        time.sleep(0.02)
    _kill_all(processes, lambda _: True, proc)


def turn_away(number: int, proc: Path = Path("/proc")) -> None:
    """End a stranger's connection by its monitor, without which the process that talks to the stranger ends too."""
    process = _process(number, proc)
    if process is not None:
        _kill(process, proc)


def _connection(top: Process, processes: list[Process], user: int) -> Connection:
    servers = [server[1].decode() for process in processes if (server := _SERVER.match(process.title))]
    return Connection(
        top.number,
        top.started,
        servers[0] if servers else None,
        any(process.user == user for process in processes),
        tuple(processes),
    )


def _numbers(proc: Path) -> list[int]:
    return [int(path.name) for path in proc.iterdir() if path.name.isdigit()]


def _process(number: int, proc: Path) -> Process | None:
    """None for one that is not of a connection, or has gone."""
    try:
        title = (proc / str(number) / "cmdline").read_bytes()
        if not _CONNECTION.match(title):
            return None
        # proc(5): counted after the name, which is in brackets, the second is the parent and the 20th the start.
        stat = (proc / str(number) / "stat").read_text().rpartition(")")[2].split()
        uids = re.search(r"^Uid:\t(\d+)", (proc / str(number) / "status").read_text(), re.MULTILINE)
    except OSError:
        return None
    return Process(number, int(stat[1]), int(stat[19]), int(uids[1]) if uids else 0, title.partition(b"\0")[0])


def _kill_all(processes: list[Process], which: Callable[[Process], bool], proc: Path) -> None:
    for process in processes:
        if which(process):
            _kill(process, proc)


def _kill(process: Process, proc: Path) -> None:
    """Kill the process if it is still the same: its number may have been given away."""
    try:
        descriptor = os.pidfd_open(process.number)
    except OSError:
        return
    try:
        now = _process(process.number, proc)
        if now is not None and now.started == process.started:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except ProcessLookupError:
        pass
    finally:
        os.close(descriptor)
