"""Notices that the other side of a silent TCP connection is gone."""

from __future__ import annotations

import socket

# A machine that vanishes closes no connection. After 30 s of silence the kernel probes, and a minute later it gives up.
# TCP_USER_TIMEOUT would be no help: it also cuts off a client that answers the probes, but does not read for a while.
_OPTIONS = ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4))


def keep_alive(connection: socket.socket) -> None:
    """Have the kernel end a TCP connection whose other side answers its probes no more."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _OPTIONS:
        connection.setsockopt(socket.IPPROTO_TCP, option, value)
