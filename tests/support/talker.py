"""A game for tests that writes to its log what it is told, has a remote console (RCON), and counts Minecraft's pings.

It is a program of its own, on the standard library, which a pod runs: `python3 talker.py`. On its port 7777 each
connection sends one order as a line of JSON, and gets `done` or what went wrong:

    {"do": "count", "from": 1, "to": 10000, "rate": 1000}   numbered lines, at most so many a second, with the time
    {"do": "flood", "seconds": 5, "rate": 100000}           the same without end
    {"do": "raw", "hex": "1b5b"}                            bytes as they are
    {"do": "die"}                                           end at once, as in a crash
    {"do": "counted"}                                       how many pings and commands there were
"""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PORT, RCON_PORT = 7777, 25575
STEP = 0.01
_counted = {"pings": 0, "commands": 0}
_writing = threading.Lock()


def write(data: bytes) -> None:
    """Write to the log, whole."""
    with _writing:
        while data:
            data = data[os.write(1, data) :]


def count(order: dict[str, Any]) -> None:
    """Write numbered lines."""
    number, last, rate = order["from"], order["to"], order["rate"]
    padding = order.get("padding", "")
    began = time.monotonic()
    while number <= last:
        due = min(last, order["from"] + int((time.monotonic() - began) * rate))
        if number <= due:
            now = time.time()
            write("".join(f"line {each} {now:.6f}{padding}\n" for each in range(number, due + 1)).encode())
            number = due + 1
        time.sleep(STEP)


def flood(order: dict[str, Any]) -> None:
    """Write many lines, in pieces as large as a pipe."""
    ends, number, began = time.monotonic() + order["seconds"], 0, time.monotonic()
    while time.monotonic() < ends:
        now = time.time()
        write("".join(f"flood {each} {now:.6f}\n" for each in range(number, number + 1000)).encode())
        number += 1000
        time.sleep(max(0.0, began + number / order["rate"] - time.monotonic()))
    write(f"flooded {number} {time.monotonic() - began:.1f}\n".encode())


def carry_out(order: dict[str, Any]) -> str:
    """Carry out an order; returns what to answer."""
    match order["do"]:
        case "count":
            count(order)
        case "flood":
            flood(order)
        case "raw":
            write(bytes.fromhex(order["hex"]))
        case "die":
            os._exit(3)
        case "counted":
            return json.dumps(_counted)
        case other:
            return f"cannot {other}"
    return "done"


def ordered(client: socket.socket) -> None:
    """Serve an order, or a ping of Minecraft, which begins with its length."""
    with client:
        data = client.recv(65536)
        if not data.startswith(b"{"):
            _counted["pings"] += bool(data)
            status = json.dumps({"players": {"online": 2, "max": 5, "sample": []}}).encode()
            body = b"\0" + bytes([len(status)]) + status
            client.sendall(bytes([len(body)]) + body)
            client.recv(65536)
            return
        while not data.endswith(b"\n"):
            data += client.recv(65536)
        client.sendall(carry_out(json.loads(data)).encode())


def commanded(client: socket.socket) -> None:
    """Serve a client of RCON. `say` writes to the log, `big` answers much, and anything else is answered as it is."""
    password = Path(os.environ["RCON_PASSWORD_FILE"]).read_text().strip()
    with client:
        while head := _exactly(client, 4):
            (length,) = struct.unpack("<i", head)
            data = _exactly(client, length)
            number, kind = struct.unpack("<ii", data[:8])
            text, answer = data[8:-2].decode(), ""
            if kind == 3:
                number, answer = (number if text == password else -1), ""
            elif kind == 2:
                _counted["commands"] += 1
                answer = f"heard {text}"
                if text.startswith("say "):
                    write(f"said {text[4:]}\n".encode())
            body = struct.pack("<ii", number, 2 if kind == 3 else 0) + answer.encode() + b"\0\0"
            client.sendall(struct.pack("<i", len(body)) + body)


def _exactly(client: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length and (more := client.recv(length - len(data))):
        data += more
    return data if len(data) == length else b""


def serve(port: int, each: Callable[[socket.socket], None]) -> None:
    """Serve each client of a port in a thread of its own, for ever."""
    with socket.create_server(("0.0.0.0", port), backlog=256) as server:
        while True:
            client, _ = server.accept()
            threading.Thread(target=each, args=(client,), daemon=True).start()


if __name__ == "__main__":
    threading.Thread(target=serve, args=(RCON_PORT, commanded), daemon=True).start()
    write(b"the talker listens\n")
    serve(PORT, ordered)
