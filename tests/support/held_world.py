"""A server of the in-memory cluster whose game has a real RCON, for tests of holding its world still."""

from __future__ import annotations

from functools import cache, partial
from types import SimpleNamespace
from typing import Any, cast

from service.console.commands import Console, Save
from service.games.catalogue import BUILT_IN, Game, load
from service.operations.context import Context
from service.records.store import RecordStore
from service.servers.names import SAVE_OWED
from service.servers.objects import Objects
from service.servers.saveowed import SaveDebt, debt_of_text
from service.settings import Settings
from tests.support.fakes import TIME, FakeCluster, FakeReleases, World
from tests.support.memory_kube import MemoryKube
from tests.support.rcon_game import HERE

OPERATION = "op-0123456789abcdef0123456789"


@cache
def minecraft() -> Save:
    """The commands of Minecraft's own folder, so that this is tested too."""
    return cast(Save, load(BUILT_IN)["minecraft"].save)


def console_at(world: World, id: int, port: int, **state: Any) -> None:
    """The server's game runs, or has another state, and its RCON is at a port of this machine."""
    world.run(id)
    pod = world.pods[id]
    pod["metadata"]["uid"] = f"pod-{id}"
    pod["spec"]["containers"][0]["ports"] = [{"name": "rcon", "containerPort": port, "protocol": "TCP"}]
    running = {"running": {"startedAt": TIME}}
    status = {"name": "game", "containerID": f"containerd://{id}", "state": state or running}
    pod["status"] |= {"podIP": HERE, "containerStatuses": [status]}


class HeldWorld:
    """A cluster with one server, 1, whose game listens at a port of this machine."""

    def __init__(self, port: int) -> None:
        self.world, self.kube, self.port = World(), MemoryKube(), port
        self.cluster = FakeCluster(self.world)
        self.save = minecraft()
        self.game = SimpleNamespace(console=Console("rcon"), save=self.save)
        self.context = Context(
            settings=Settings(),
            cluster=self.cluster,
            releases=FakeReleases(self.world),
            accounts=cast(Any, None),
            tokens=cast(Any, None),
            games=cast("dict[str, Game]", {"minecraft": self.game, "luanti": SimpleNamespace(console=None, save=None)}),
            operator_values={},
            records=partial(RecordStore, cast(Any, self.kube), "gameservers"),
            events=None,
            webhooks=None,
        )
        self.create("minecraft")

    def create(self, game: str) -> None:
        """Create the server with another game."""
        self.world.values[1] = {"game": game, "server": {"uid": "uid-1"}, "replicas": 1}
        self.world.apply(1, self.world.values[1])
        self.start("first")

    def start(self, name: str) -> None:
        """The server's game starts, in a pod of its own."""
        self.world.run(1)
        pod = self.world.pods[1]
        pod["metadata"]["uid"] = f"pod-{name}"
        pod["spec"]["containers"][0]["ports"] = [
            {"name": "primary", "containerPort": 25565, "protocol": "TCP"},
            {"name": "rcon", "containerPort": self.port, "protocol": "TCP"},
        ]
        pod["status"]["podIP"] = HERE
        self.container(name)

    def container(self, name: str, **state: Any) -> None:
        """The game's container is this one, running unless another state is given."""
        self.world.pods[1]["status"]["containerStatuses"] = [
            {"name": "game", "containerID": f"containerd://{name}", "state": state or {"running": {"startedAt": TIME}}}
        ]

    def change(self, **fields: Any) -> None:
        """Change the commands of the game's folder."""
        self.game.save = Save(**{**vars(self.save), **fields})

    @property
    def objects(self) -> Objects:
        return self.cluster.server(1)

    @property
    def debt(self) -> SaveDebt | None:
        """What is owed to the game, as the annotation has it."""
        return debt_of_text(self.world.statefulsets[1]["metadata"]["annotations"].get(SAVE_OWED))

    def owe(self, debt: SaveDebt) -> None:
        """Write what somebody owes to the game."""
        self.cluster.annotate(1, "uid-1", SAVE_OWED, lambda _: debt.as_text())
