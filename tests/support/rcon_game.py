"""A game with RCON for tests: it reads packets as Minecraft does, and does what a test tells it."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

HERE = "127.0.0.1"
PASSWORD = "password-1"
LOGIN, ANSWER, COMMAND = 3, 0, 2


def packet(number: int, kind: int, body: str | bytes = "") -> bytes:
    """A packet of RCON."""
    text = body.encode() if isinstance(body, str) else body
    data = struct.pack("<ii", number, kind) + text + b"\0\0"
    return struct.pack("<i", len(data)) + data


class RconGame:
    """A game whose world can be held still.

    Attributes:
        port: Its port on 127.0.0.1.
        saving: Whether it saves by itself.
        flushed: How often it was told to save everything.
        said: The commands that it has got, in order.
        answers: Its answer to a command, where that is not Minecraft's; None for no answer at all.
        pause: Seconds before each answer.
        reads_after: Seconds before it reads on: what a client has sent meanwhile comes in the same read.
        before: Called with each command before it is carried out.
    """

    def __init__(self, server: socket.socket) -> None:
        self.port: int = server.getsockname()[1]
        self.saving, self.flushed = True, 0
        self.said: list[str] = []
        self.answers: dict[str, str | None] = {}
        self.pause = self.reads_after = 0.0
        self.password = PASSWORD
        self.before: Callable[[str], None] = lambda command: None
        self.clients = 0

    def do(self, command: str) -> str | None:
        """Carry out a command; returns the answer."""
        self.before(command)
        self.said.append(command)
        if command in self.answers:
            return self.answers[command]
        match command:
            case "save-off" | "save-on":
                on = command == "save-on"
                if self.saving == on:
                    return f"Saving is already turned {'on' if on else 'off'}"
                self.saving = on
                return f"Automatic saving is now {'enabled' if on else 'disabled'}"
            case "save-all flush":
                self.flushed += 1
                return "Saving the game (this may take a moment!)Saved the game"
        return f"Unknown or incomplete command: {command}"

    def serve(self, client: socket.socket) -> None:
        self.clients += 1
        with client, suppress(OSError):
            while data := client.recv(1460):
                if self.reads_after:
                    time.sleep(self.reads_after)
                    data += _more(client)
                length, number, kind = struct.unpack("<iii", data[:12])
                if length != len(data) - 4:
                    return
                body = data[12:-2].decode()
                if kind == LOGIN:
                    client.sendall(packet(number if body == self.password else -1, COMMAND))
                elif kind == COMMAND:
                    time.sleep(self.pause)
                    answer = self.do(body)
                    if answer is None:
                        continue
                    text = answer.encode()
                    for start in range(0, len(text) or 1, 4096):
                        client.sendall(packet(number, ANSWER, text[start : start + 4096]))
                else:
                    client.sendall(packet(number, ANSWER, "Unknown request 0"))


def _more(client: socket.socket) -> bytes:
    """What has come already."""
    try:
        return client.recv(1460, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return b""


@contextmanager
def rcon_game() -> Iterator[RconGame]:
    """A game that runs."""
    with socket.create_server((HERE, 0)) as server:
        game = RconGame(server)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    client, _ = server.accept()
                    threading.Thread(target=game.serve, args=(client,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield game
        server.shutdown(socket.SHUT_RDWR)


@contextmanager
def stranger(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server whose first client `talk` gets; yields its port."""
    with socket.create_server((HERE, 0)) as server:

        def serve() -> None:
            client, _ = server.accept()
            with client, suppress(OSError):
                talk(client)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        thread.join(10)
