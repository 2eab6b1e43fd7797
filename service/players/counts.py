"""How many players are on a server: its game is asked where its pod runs.

Where the pod is, the watches know; so this sends no request to Kubernetes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from service.players.query import PROTOCOLS, Query, Unknown, players
from service.servers.accessors import game_container
from service.servers.objects import Objects
from service.servers.spec import spec_of_objects
from service.servers.state import state_of

ASK_SECONDS = 2.0


class Door(NamedTuple):
    """Where a game is asked, and how: a protocol of `query`, the pod's IP address and the game's port."""

    protocol: str
    address: str
    port: int


class PlayerCounts:
    """Counts the players of servers.

    Args:
        known: The objects of a server by its id, from memory; None if there is no such server.
        query: Returns how a game is asked, by its name; None if it cannot be asked.
    """

    def __init__(self, known: Callable[[int], Objects | None], query: Callable[[str], Query | None]) -> None:
        self._known = known
        self._query = query

    def of(self, id: int) -> int:
        """How many players are on the server; raises Unknown, whose message says why, unless its game says so."""
        if (objects := self._known(id)) is None:
            raise Unknown("there is no such server")
        return self.on(objects)

    def on(self, objects: Objects) -> int:
        """The same of the server with these objects."""
        # A pod that is ending, or was not replaced yet, is not the server that players reach next.
        door = self.door(objects, running=state_of(objects).state == "running")
        return players(*door, ASK_SECONDS)

    def door(self, objects: Objects, *, running: bool) -> Door:
        """Where the server's game is asked; raises Unknown, whose message says why, if it cannot be asked.

        Args:
            objects: The server's objects.
            running: Whether its state is `running`.
        """
        spec = spec_of_objects(objects)
        if (query := self._query(spec.game if spec else "")) is None:
            raise Unknown("its game cannot be asked")
        if objects.pod is None or not running:
            raise Unknown("it is not running")
        address = objects.pod.get("status", {}).get("podIP")
        transport = PROTOCOLS[query.protocol].transport
        for port in game_container(objects.pod).get("ports") or []:
            if port.get("name") in (query.port, f"{query.port}-udp") and port.get("protocol", "TCP") == transport:
                if not address:
                    break
                return Door(query.protocol, address, port["containerPort"])
        raise Unknown("it has no address")

    def if_known(self, objects: Objects) -> int | None:
        """The same; None if nobody knows."""
        try:
            return self.on(objects)
        except Unknown:
            return None
