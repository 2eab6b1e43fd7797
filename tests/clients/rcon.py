"""Source RCON: one command over a connection of its own.

The protocol: https://developer.valvesoftware.com/wiki/Source_RCON_Protocol.
"""

import socket
import struct
import sys

_LOGIN, _COMMAND, _END = 3, 2, 0


class LoginRefused(Exception):
    """The server does not take this password."""


def command(host: str, port: int, password: str, line: str, timeout: float = 10) -> str:
    """Log in, run `line` on the server's console, and return the whole answer.

    Raises:
        LoginRefused: the password is wrong.
        OSError: nobody answers there within `timeout` seconds.
    """
    with socket.create_connection((host, port), timeout) as connection:
        _send(connection, 1, _LOGIN, password)
        if _receive(connection)[0] != 1:
            raise LoginRefused(f"{host}:{port} refuses the password")
        _send(connection, 2, _COMMAND, line)
        # A long answer comes in many packets. The server also answers this packet, whose type it does not know,
        # and that answer marks the end of the first one.
        _send(connection, 3, _END, "")
        answer = ""
        while True:
            packet, body = _receive(connection)
            if packet == 3:
                return answer
            answer += body


def _send(connection: socket.socket, packet: int, kind: int, body: str) -> None:
    data = struct.pack("<ii", packet, kind) + body.encode() + b"\0\0"
    connection.sendall(struct.pack("<i", len(data)) + data)


def _receive(connection: socket.socket) -> tuple[int, str]:
    (length,) = struct.unpack("<i", _exactly(connection, 4))
    data = _exactly(connection, length)
    packet: int = struct.unpack("<i", data[:4])[0]
    return packet, data[8:-2].decode(errors="replace")


def _exactly(connection: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        part = connection.recv(length - len(data))
        if not part:
            raise ConnectionError("the server ended the connection")
        data += part
    return data


if __name__ == "__main__":
    print(command(sys.argv[1], int(sys.argv[2]), sys.argv[3], " ".join(sys.argv[4:])))
