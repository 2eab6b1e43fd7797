"""The sessions of a server: sshd's processes, told apart by the title that sshd gives each of them.

sshd names the user in its title before it looks at the password or the key, so a session that is not found
here after the account files were changed has yet to read the changed files.
"""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

# "sshd: server-1 [priv]", "sshd: server-1@notty", "sshd: server-1@internal-sftp"; sshd-session from OpenSSH 9.8 on.
_TITLE = re.compile(rb"sshd(?:-session|-auth)?: server-([1-9][0-9]{0,18})(?:[ @]|\0|$)")
_MONITOR = re.compile(rb"sshd(?:-session)?: server-([1-9][0-9]{0,18}) \[priv\]")


def end(servers: set[str], proc: Path = Path("/proc")) -> None:
    """Kill all sessions of the servers, and wait (for at most 2 s) until they are gone."""
    deadline = time.monotonic() + 2
    while servers and (found := _processes(servers, proc)) and time.monotonic() < deadline:
        for process in found:
            _kill(process, servers, proc)
        time.sleep(0.02)


def end_surplus(server: str, allowed: int, proc: Path = Path("/proc")) -> int:
    """End the newest sessions of a server beyond the allowed number; gives how many."""
    monitors = []
    for process in _processes({server}, proc):
        if _MONITOR.match(_title(process, proc)):
            monitors.append((_started(process, proc), process))
    surplus = [process for _, process in sorted(monitors)[allowed:]]
    for process in surplus:
        _kill(process, {server}, proc)
    return len(surplus)


def _processes(servers: set[str], proc: Path) -> list[int]:
    return [number for number in _numbers(proc) if _server(number, proc) in servers]


def _numbers(proc: Path) -> list[int]:
    return [int(path.name) for path in proc.iterdir() if path.name.isdigit()]


def _server(process: int, proc: Path) -> str | None:
    found = _TITLE.match(_title(process, proc))
    return found[1].decode() if found else None


def _title(process: int, proc: Path) -> bytes:
    try:
        return (proc / str(process) / "cmdline").read_bytes()
    except OSError:
        return b""


def _started(process: int, proc: Path) -> int:
    """Start time in clock ticks since boot: proc(5), field 22, counted after the name in brackets."""
    try:
        return int((proc / str(process) / "stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, IndexError):
        return 0


def _kill(process: int, servers: set[str], proc: Path) -> None:
    """Kill the process if it is still a session of these servers: its number may have been given away."""
    try:
        descriptor = os.pidfd_open(process)
    except OSError:
        return
    try:
        if _server(process, proc) in servers:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except ProcessLookupError:
        pass
    finally:
        os.close(descriptor)
