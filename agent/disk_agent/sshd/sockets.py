"""The sockets to which sshd and its sessions log, by syslog(3).

A session logs to the /dev/log in its chroot, so the socket on which a line comes tells its server for certain.
A session that finds no socket, while the agent starts again, drops the line and goes on.
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

# The sessions' lines are gathered for so many seconds, at most so many of a server's: a folder of small files
# brings thousands a second, and to wake the agent (and whoever keeps the pod's log) for each of them would cost
# the transfer a fifth of its speed. A session that logs faster than that has to wait.
GATHER, MOST = 0.1, 2000
# So often, in seconds, it is looked whether something that was left out is to be told.
SETTLE = 10.0


class Sockets:
    """The /dev/log of sshd and of each chroot. Each event goes to the journal, and sshd's own to heard."""

    def __init__(self, own: Path, heard: Callable[[Fields], None]) -> None:
        self._heard = heard
        self.peers = Peers()
        self.journal = Journal(self.serves)
        self._selector = selectors.DefaultSelector()
        self._bound: dict[str, tuple[socket.socket, int]] = {}
        self._lock = threading.Lock()
        self._own = _bind(own, socket.SOCK_DGRAM)

    def start(self) -> None:
        for name, target in (("sshd-log", self._hear), ("sessions-log", self._gather)):
            threading.Thread(target=target, name=name, daemon=True).start()

    def bind(self, server: str, path: Path) -> None:
        """Listen at a server's path, unless that is done already: twice is once."""
        with self._lock:
            if server in self._bound and _inode(path) == self._bound[server][1]:
                return
            self._close(server)
            # A stream, to which syslog(3) turns when it finds no datagram socket: of datagrams the kernel holds
            # ten, of connections (one a line, as OpenSSH does it) as many as are gathered at once.
            listening = _bind(path, socket.SOCK_STREAM)
            listening.listen(MOST)
            listening.setblocking(False)
            self._bound[server] = (listening, _inode(path))
            self._selector.register(listening, selectors.EVENT_READ, server)

    def serves(self, server: str) -> bool:
        """Whether this server's disk is here."""
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

    def _hear(self) -> None:
        """sshd's own lines, each at once: refused passwords and new sessions are counted by them."""
        while True:
            found = event(self._own.recv(8192).decode(errors="backslashreplace"), None)
            if found is not None:
                found = self.peers.told(found, time.monotonic())
                if found["event"] != "connection":
                    self.journal.write(found)
                self._heard(found)

    def _gather(self) -> None:
        """What the sessions do."""
        while True:
            if not self._selector.select(SETTLE):
                self.journal.settle()
                continue
            time.sleep(GATHER)
            lines = [(line, key.data) for key, _ in self._selector.select(0) for line in _waiting(key.fileobj)]
            self.journal.write(*(fields for line, server in lines if (fields := event(line, server)) is not None))


def _waiting(listening: Any) -> Iterator[str]:
    """The lines that wait at a chroot's socket, a connection each."""
    for _ in range(MOST):
        try:
            connection, _ = listening.accept()
        except OSError:  # nothing more, or closed meanwhile
            return
        with connection:
            try:
                line = connection.recv(8192, socket.MSG_DONTWAIT)
            except OSError:
                line = _late(connection)
        if line:
            yield line.decode(errors="backslashreplace")


def _late(connection: socket.socket) -> bytes:
    """The line of one that has connected and not sent yet; nobody may keep the others waiting."""
    connection.settimeout(1)
    try:
        return connection.recv(8192)
    except OSError:
        return b""


def _bind(path: Path, kind: socket.SocketKind) -> socket.socket:
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, kind)
    listening.bind(str(path))
    # The session logs as the game's uid.
    path.chmod(0o666)
    return listening


def _inode(path: Path) -> int:
    try:
        return os.lstat(path).st_ino
    except OSError:
        return -1
