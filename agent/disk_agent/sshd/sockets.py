"""The sockets to which sshd and its sessions log, by syslog(3).

A session logs to the /dev/log in its chroot, so the socket that a line arrives on identifies its server reliably. If a
session finds no socket because the agent is restarting, it drops the line and continues.
"""

from __future__ import annotations

import os
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from disk_agent.logs import Fields
from disk_agent.sshd.journal import Journal
from disk_agent.sshd.logs import event
from disk_agent.sshd.peers import Peers

# The sessions' lines are gathered for this many seconds, at most this many lines per server: a folder of small files
# logs thousands of lines a second, and waking the agent (and the container runtime) for each of them would cost the
# transfer a fifth of its speed. A session that logs faster than that has to wait.
GATHER_SECONDS, MAX_LINES = 0.1, 2000
# How often to log the number of lines that were left out, in seconds.
FLUSH_SECONDS = 10.0


class Sockets:
    """The /dev/log of sshd and of each chroot.

    All events go to the journal; `on_event` is called with those that sshd itself logs. Thread-safe.
    """

    def __init__(self, own: Path, on_event: Callable[[Fields], None]) -> None:
        self._on_event = on_event
        self.peers = Peers()
        self.journal = Journal(self.serves)
        self._selector = selectors.DefaultSelector()
        self._bound: dict[str, tuple[socket.socket, int]] = {}
        self._lock = threading.Lock()
        self._own = _bind(own, socket.SOCK_DGRAM)

    def start(self) -> None:
        """Start the threads that read the sockets."""
        for name, target in (("sshd-log", self._receive), ("sessions-log", self._gather)):
            threading.Thread(target=target, name=name, daemon=True).start()

    def bind(self, server: str, path: Path) -> None:
        """Listen at `path` for a server. Idempotent."""
        with self._lock:
            if server in self._bound and _inode(path) == self._bound[server][1]:
                return
            self._close(server)
            # A stream socket, which syslog(3) uses if it finds no datagram socket. The kernel queues only ten
            # datagrams, but as many connections (OpenSSH makes one per line) as the backlog allows.
            listening = _bind(path, socket.SOCK_STREAM)
            listening.listen(MAX_LINES)
            listening.setblocking(False)
            self._bound[server] = (listening, _inode(path))
            self._selector.register(listening, selectors.EVENT_READ, server)

    def serves(self, server: str) -> bool:
        """Whether this server's disk is on this node."""
        return server in self._bound

    def close(self, server: str) -> None:
        """Stop listening for a server."""
        with self._lock:
            self._close(server)

    def _close(self, server: str) -> None:
        if server in self._bound:
            listening, _ = self._bound.pop(server)
            self._selector.unregister(listening)
            listening.close()

    def _receive(self) -> None:
        """Handle sshd's own lines immediately: refused passwords and new sessions are counted from them."""
        while True:
            fields = event(self._own.recv(8192).decode(errors="backslashreplace"), None)
            if fields is not None:
                fields = self.peers.update(fields, time.monotonic())
                if fields["event"] != "connection":
                    self.journal.write(fields)
                self._on_event(fields)

    def _gather(self) -> None:
        """Handle the sessions' lines, many at once."""
        while True:
            if not self._selector.select(FLUSH_SECONDS):
                self.journal.flush()
                continue
            time.sleep(GATHER_SECONDS)
            lines = [(line, key.data) for key, _ in self._selector.select(0) for line in _queued_lines(key.fileobj)]
            self.journal.write(*(fields for line, server in lines if (fields := event(line, server)) is not None))


def _queued_lines(listening: Any) -> Iterator[str]:
    """The lines queued at a chroot's socket, one per connection."""
    for _ in range(MAX_LINES):
        try:
            connection, _ = listening.accept()
        except OSError:  # The queue is empty, or the socket was closed.
            return
        with connection:
            try:
                line = connection.recv(8192, socket.MSG_DONTWAIT)
            except OSError:
                line = _received_later(connection)
        if line:
            yield line.decode(errors="backslashreplace")


def _received_later(connection: socket.socket) -> bytes:
    """The line of a session that has connected but not sent yet, or b"" after a second: the others must not wait."""
    connection.settimeout(1)
    try:
        return connection.recv(8192)
    except OSError:
        return b""


def _bind(path: Path, kind: socket.SocketKind) -> socket.socket:
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, kind)
    listening.bind(str(path))
    # Sessions log as the game's uid.
    path.chmod(0o666)
    return listening


def _inode(path: Path) -> int:
    try:
        return os.lstat(path).st_ino
    except OSError:
        return -1
