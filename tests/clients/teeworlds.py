"""Players of Teeworlds 0.7 that join a server: each takes one of its slots until it leaves or is silent for 10 s.

https://github.com/teeworlds/teeworlds/blob/master/src/engine/shared/network.h: a packet starts with its flags, two
numbers and the receiver's token. In a control packet the message follows.
"""

import json
import secrets
import select
import socket
import sys
import time

_CONTROL, _DATA = bytes([0x04, 0, 0]), bytes([0, 0, 0])
_CONNECT, _ACCEPT, _CLOSE, _TOKEN = b"\x01", b"\x02", b"\x04", b"\x05"
_NO_TOKEN = b"\xff\xff\xff\xff"
_LONGEST_REQUEST = 512
_SECONDS, _AGAIN_SECONDS = 5.0, 0.5
SILENCE = "no answer"


class Player:
    """A player. `refused` is the server's message if it refuses the player, and "" if the player is in.

    A banned player mostly gets no answer: SILENCE.
    """

    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.settimeout(_AGAIN_SECONDS)
        self._socket.connect((host, port))
        self._own = secrets.token_bytes(4)
        self._server = _NO_TOKEN
        try:
            self.refused = self._join()
        except TimeoutError:
            self.refused = SILENCE

    def stay(self) -> None:
        """Tell the server that the player is still there, by a packet without a message."""
        self._socket.send(_DATA + self._server)

    def leave(self) -> None:
        """Leave the server. It bans a player who leaves within a second after joining for a minute."""
        self._socket.send(_CONTROL + self._server + _CLOSE + b"bye\0")
        self._socket.close()

    def _join(self) -> str:
        # The server ignores short requests, so that it cannot be used to flood others.
        answer = self._ask(_CONTROL + _NO_TOKEN + _TOKEN + self._own, _TOKEN + _CLOSE)
        if answer[7:8] == _TOKEN:
            self._server = answer[8:12]
            answer = self._ask(_CONTROL + self._server + _CONNECT + self._own, _ACCEPT + _CLOSE)
        return answer[8:].rstrip(b"\0").decode() if answer[7:8] == _CLOSE else ""

    def _ask(self, request: bytes, expected: bytes) -> bytes:
        """Send the request until an answer comes, as the game's own client does, because UDP loses packets."""
        deadline = time.monotonic() + _SECONDS
        while True:
            self._socket.send(request.ljust(7 + 1 + _LONGEST_REQUEST, b"\0"))
            try:
                while True:
                    answer = self._socket.recv(1500)
                    # Once a player is in, the server also sends the state of the game.
                    if answer[:1] == _CONTROL[:1] and answer[3:7] == self._own and answer[7:8] in expected:
                        return answer
            except TimeoutError:
                if time.monotonic() > deadline:
                    raise


def main() -> None:
    """`HOST PORT NUMBER`: NUMBER players join; prints `refused` of each, and they leave when standard input ends."""
    host, port, number = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    players = [Player(host, port) for _ in range(number)]
    print(json.dumps([player.refused for player in players]), flush=True)
    while not select.select([sys.stdin], [], [], 1)[0]:
        for player in players:
            player.stay()
    for player in players:
        player.leave()


if __name__ == "__main__":
    main()
