"""Those who follow something, as the thread that serves them has them."""

from __future__ import annotations

import socket
from collections.abc import Callable

from service.web.followers import Client, Followers
from service.web.messages import Message


class Silent:
    """A feed that has nothing to say."""

    def begin(self, pump: Callable[[], None]) -> None:
        pass

    def next(self) -> Message | None:
        return None

    def tick(self) -> None:
        pass

    def close(self) -> None:
        pass


def test_a_client_that_vanishes_is_noticed() -> None:
    """By the kernel's probes, because plain text has no heartbeats: it would keep its place for ever."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname(), timeout=60) as client,
    ):
        served, _ = listener.accept()
        with served.dup() as same:
            Followers().add(Client("log", "t", False, lambda: None), Silent(), served, b"head", False)
            assert client.recv(100) == b"head"
            assert same.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            # The last would cut off one that is there and only does not read for a while.
            options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
            assert [same.getsockopt(socket.IPPROTO_TCP, option) for option in options] == [30, 15, 4, 0]
