"""Finds and closes sshd's connections, by their processes and the titles that sshd gives them.

sshd puts the user's name into its title before it checks the password or the key. So a connection that does not show a
user here after the account files have changed will still read the changed files.

A connection has several processes: a monitor, which runs as root, and below it first one that talks to the client
before the login, then one that talks to the customer and runs the session. A session keeps working without its monitor,
so all of its processes count, and all are killed.
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
_TITLE = re.compile(rb"sshd(?:-session|-auth)?: (?!.*\[listener\])")
_SERVER_TITLE = re.compile(rb"sshd(?:-session|-auth)?: server-([1-9][0-9]{0,18})(?:[ @]|\0|$)")
_SFTP_TITLE = b"@internal-sftp"
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
# Seconds for a session without a connection to log the files that it had open.
_LOG_SECONDS = 0.3


@dataclass(frozen=True)
class Process:
    """One of sshd's processes.

    Attributes:
        pid: Its process id.
        parent: Its parent's process id.
        start_ticks: When it started, in clock ticks since boot.
        uid: Its real uid; a monitor changes only its effective uid to the customer's.
        title: What sshd shows as its command line.
    """

    pid: int
    parent: int
    start_ticks: int
    uid: int
    title: bytes


@dataclass(frozen=True)
class Connection:
    """One client's connection.

    Attributes:
        pid: The process id that sshd's own log lines carry.
        start_ticks: When it began, in clock ticks since boot.
        server: The id of the server whose user it names, if any.
        logged_in: Whether the customer's session runs.
        processes: All of its processes.
    """

    pid: int
    start_ticks: int
    server: str | None
    logged_in: bool
    processes: tuple[Process, ...]

    @property
    def sessions(self) -> int:
        """How many SFTP processes it has: a client may open several sessions through one connection."""
        return sum(_SFTP_TITLE in process.title for process in self.processes)

    @property
    def age(self) -> float:
        """How long it has been open, in seconds."""
        return time.clock_gettime(time.CLOCK_BOOTTIME) - self.start_ticks / _TICKS_PER_SECOND


def connections(session_uid: int, proc: Path = Path("/proc")) -> list[Connection]:
    """All connections, oldest first.

    Args:
        session_uid: The uid that customers' sessions run as.
        proc: Where procfs is mounted.
    """
    processes = {pid: process for pid in _pids(proc) if (process := _process(pid, proc))}
    trees: dict[int, list[Process]] = {}
    for process in processes.values():
        top = process
        while top.parent in processes:
            top = processes[top.parent]
        trees.setdefault(top.pid, []).append(process)
    return sorted(
        (_connection(processes[pid], tree, session_uid) for pid, tree in trees.items()),
        key=lambda connection: (connection.start_ticks, connection.pid),
    )


def close_all(servers: set[str], session_uid: int, proc: Path = Path("/proc")) -> None:
    """Close all connections of the servers, and wait (for at most 2 s) until they are gone."""
    deadline = time.monotonic() + 2
    while servers and time.monotonic() < deadline:
        remaining = [connection for connection in connections(session_uid, proc) if connection.server in servers]
        if not remaining:
            return
        close(remaining, proc)


def close(closing: Iterable[Connection], proc: Path = Path("/proc")) -> None:
    """Kill all processes of these connections. SFTP processes go last, so that they can log what they had open."""
    processes = [process for connection in closing for process in connection.processes]
    if not processes:
        return
    _kill_all(processes, lambda process: _SFTP_TITLE not in process.title, proc)
    deadline = time.monotonic() + _LOG_SECONDS
    while time.monotonic() < deadline and any(_process(process.pid, proc) for process in processes):
        time.sleep(0.02)
    _kill_all(processes, lambda _: True, proc)


def kill_monitor(pid: int, proc: Path = Path("/proc")) -> None:
    """Close a connection without a login: without its monitor, the process that talks to the client ends too."""
    process = _process(pid, proc)
    if process is not None:
        _kill(process, proc)


def _connection(top: Process, processes: list[Process], session_uid: int) -> Connection:
    servers = [server[1].decode() for process in processes if (server := _SERVER_TITLE.match(process.title))]
    return Connection(
        top.pid,
        top.start_ticks,
        servers[0] if servers else None,
        any(process.uid == session_uid for process in processes),
        tuple(processes),
    )


def _pids(proc: Path) -> list[int]:
    return [int(path.name) for path in proc.iterdir() if path.name.isdigit()]


def _process(pid: int, proc: Path) -> Process | None:
    """The process with this id; None if it belongs to no connection, or has ended."""
    try:
        title = (proc / str(pid) / "cmdline").read_bytes()
        if not _TITLE.match(title):
            return None
        # proc(5): counted after the name, which is in brackets, the second field is the parent and the 20th the start.
        stat = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
        uids = re.search(r"^Uid:\t(\d+)", (proc / str(pid) / "status").read_text(), re.MULTILINE)
    except OSError:
        return None
    return Process(pid, int(stat[1]), int(stat[19]), int(uids[1]) if uids else 0, title.partition(b"\0")[0])


def _kill_all(processes: list[Process], condition: Callable[[Process], bool], proc: Path) -> None:
    for process in processes:
        if condition(process):
            _kill(process, proc)


def _kill(process: Process, proc: Path) -> None:
    """Kill the process if it is still the same one: its id may have been reused."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except OSError:
        return
    try:
        current = _process(process.pid, proc)
        if current is not None and current.start_ticks == process.start_ticks:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except ProcessLookupError:
        pass
    finally:
        os.close(descriptor)
