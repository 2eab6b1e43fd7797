"""A game with Teeworlds' external console for tests: it talks as Teeworlds 0.7.5, and does what a test tells it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

HERE = "127.0.0.1"
PASSWORD = "econ-1"
MOST_TRIES = 3


class EconGame:
    """A game.

    Attributes:
        port: Its port on 127.0.0.1.
        said: The commands that it has carried out, in order, without `echo`.
        log: What it also writes before each line that it carries out, as a player's chat may come.
        level: `ec_output_level`: from 1 on it repeats each command.
        bans: Whether it bans an address after MOST_TRIES wrong passwords in one connection (`ec_bantime`).
        hangs: Whether it carries out nothing any more.
        dribbles: Whether it sends byte by byte.
        tries: How many wrong passwords it has got.
    """

    def __init__(self, server: socket.socket) -> None:
        self.port: int = server.getsockname()[1]
        self.said: list[str] = []
        self.log: list[str] = []
        self.answers: dict[str, list[str]] = {"sv_map": ["[Console]: Value: dm1"]}
        self.level, self.bans, self.hangs, self.dribbles = 0, False, False, False
        self.password = PASSWORD
        self.tries, self.banned = 0, False

    def serve(self, client: socket.socket) -> None:
        """Talk to a client."""
        with client, suppress(OSError):
            if self.banned:
                self.write(client, "You have been banned for 5 minutes (Too many authentication tries)")
                return
            self.write(client, "Enter password:")
            tries, inside, rest = 0, False, b""
            while data := client.recv(1400):
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    if inside:
                        if not self.execute(client, line.decode(errors="replace")):
                            return
                    elif line.decode() == self.password:
                        inside = True
                        self.write(client, "Authentication successful. External console access granted.")
                        self.write(client, "[15:18:52][econ]: cid=0 authed")
                    else:
                        tries, self.tries = tries + 1, self.tries + 1
                        self.write(client, f"Wrong password {tries}/{MOST_TRIES}.")
                        self.banned = self.bans and tries == MOST_TRIES
                        if tries == MOST_TRIES:
                            return

    def execute(self, client: socket.socket, line: str) -> bool:
        """Carry out a line, which may have several commands; whether the connection goes on."""
        if self.hangs:
            return True
        if self.level:
            self.write(client, f"[15:18:53][server]: cid=0 cmd='{line}'")
        for text in self.log:
            self.write(client, text)
        for command in line.split(";"):
            name, _, text = command.partition(" ")
            if name == "echo":
                self.write(client, f"[15:18:53][Console]: {text}")
                continue
            self.said.append(command)
            for answer in self.answers.get(command, [f"[Console]: No such command: {name}."]):
                self.write(client, f"[15:18:53]{answer}")
            if command == "logout":
                self.write(client, "Logout")
                return False
        return True

    def write(self, client: socket.socket, line: str) -> None:
        """Send a line as the game ends it."""
        data = line.encode(errors="surrogateescape") + b"\n\0\0"
        for part in [data[n : n + 1] for n in range(len(data))] if self.dribbles else [data]:
            client.sendall(part)
            if self.dribbles:
                time.sleep(0.0005)


@contextmanager
def econ_game() -> Iterator[EconGame]:
    """A game that runs."""
    with socket.create_server((HERE, 0)) as server:
        game = EconGame(server)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    client, _ = server.accept()
                    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    threading.Thread(target=game.serve, args=(client,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield game
        server.shutdown(socket.SHUT_RDWR)
