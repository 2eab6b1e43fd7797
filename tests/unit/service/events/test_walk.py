"""A random walk of servers and controllers, compared with what has to be in the log."""

from __future__ import annotations

import itertools
import random
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from typing import Any, cast

import pytest

from service.controller import events as events_module
from service.controller.events import Events
from service.controller.leader import Term
from service.errors import ClusterUnavailable
from service.events.event import Event
from service.events.segments import KIND, events_of
from service.kube.client import Conflict
from service.kube.types import Object
from service.records.store import RecordStore
from tests.support.event_world import EventWorld, ObservedCluster
from tests.support.memory_kube import MemoryKube


class Killed(BaseException):
    """The controller is killed at this point."""


class FragileKube(MemoryKube):
    """One whose writes may end with the death of the writer, or without an answer, before or after they are done."""

    def __init__(self) -> None:
        super().__init__()
        self.fate: Callable[[], BaseException | None] = lambda: None

    def _stored(self, path: str, body: Object) -> Object:
        if fate := self.fate():
            raise fate
        stored = super()._stored(path, body)
        if fate := self.fate():
            raise fate
        return stored

    def listed(self, path: str, *, metadata: bool = False, **query: str | int) -> tuple[list[Object], str]:
        label = str(query["labelSelector"]).partition("=")[2]
        items = [
            item for name, item in self.objects.items() if item["metadata"]["labels"]["gameserver/record"] == label
        ]
        return items, str(self.version)


class Always:
    """The term of a pod that is the active one."""

    @contextmanager
    def step(self) -> Any:
        yield

    def sleep(self, seconds: float) -> None:
        """Not at all."""


TERM = cast("Term", Always())


class Controller:
    """One of the controller's pods, whose threads run when the test says so."""

    def __init__(self, world: EventWorld, kube: MemoryKube, *, hears: bool = True) -> None:
        self.cluster: ObservedCluster = world.observed()
        self.world = world
        self.kube = kube
        self.events = Events(self.cluster.as_cluster(), partial(RecordStore, kube, "gameservers"))
        self.observer = self.events._observer
        self.cluster.subscribe(self.observer._heard)
        if hears:
            self.hear(10**6)

    def hear(self, count: int) -> None:
        """Its watches receive some changes."""
        self.cluster.hear(count)
        self.observer.turn(0)

    def write(self) -> None:
        """It is the active one and writes what it knows."""
        self.observer.lead()
        for _ in range(2):
            try:
                self.events.turn(TERM)
            except Conflict:
                self.events._is_open = False
            except ClusterUnavailable:
                pass
            self.observer.turn(0)

    def caught_up(self) -> None:
        """It writes until nothing is left."""
        self.hear(10**6)
        while True:
            self.write()
            if not (self.events._unwritten or self.observer._facts or self.observer._changes or self.events._doubtful):
                return

    def die(self) -> None:
        self.world.observers.remove(self.cluster)


def logged(kube: MemoryKube) -> list[Event]:
    """All events of the log."""
    events: list[Event] = []
    for record in RecordStore(kube, "gameservers", KIND).all():
        events += events_of(record.data)
    return events


def by_server(events: list[Event]) -> Mapping[str, list[str]]:
    """The types of each server's events; their numbers have no holes, and no event is there twice."""
    assert [event.position for event in events] == list(range(1, len(events) + 1))
    assert len({event.id for event in events}) == len(events)
    types: dict[str, list[str]] = {}
    for event in events:
        each = types.setdefault(event.uid, [])
        each.append(event.type)
        assert event.number == len(each)
    return types


def act(world: EventWorld, chance: random.Random) -> None:
    """Something happens to one of five ids."""
    world.now += timedelta(seconds=1)
    id = chance.randint(1, 5)
    if id not in world.statefulsets:
        if chance.random() < 0.3:
            world.create(id, start=chance.random() < 0.8)
        else:
            world.step(id)
        return
    action = chance.choices(
        [
            world.step,
            world.start,
            world.stop,
            world.delete,
            world.suspend,
            world.unsuspend,
            world.idle_stop,
            lambda id: world.crash(id, 1),
            lambda id: world.crash(id, 137, "OOMKilled"),
            lambda id: world.crash(id, 0, "Completed"),
            world.restart_at_once,
            world.kill,
        ],
        [40, 5, 3, 2, 1, 2, 1, 3, 2, 1, 2, 1],
    )[0]
    action(id)


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pauses."""
    monkeypatch.setattr(events_module, "FLUSH_SECONDS", 0.0)
    monkeypatch.setattr(events_module, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(events_module, "LOOK_SECONDS", 0.0)


@pytest.mark.parametrize("seed", range(8))
def test_everything_is_told_once_and_in_order(seed: int) -> None:
    """With one controller, however late its watches are."""
    chance, world, kube = random.Random(seed), EventWorld(), FragileKube()
    controller = Controller(world, kube)
    controller.caught_up()
    for _ in range(300):
        act(world, chance)
        if chance.random() < 0.5:
            controller.hear(chance.randint(0, 8))
        if chance.random() < 0.3:
            controller.write()
    controller.caught_up()
    assert by_server(logged(kube)) == world.expected


@pytest.mark.parametrize("seed", range(16))
def test_nothing_is_lost_while_one_of_two_controllers_lives(seed: int) -> None:
    """The active one is killed before or after any write, writes without an answer, or comes back after a freeze."""
    chance, world, kube = random.Random(seed), EventWorld(), FragileKube()
    active, standby, frozen = Controller(world, kube), Controller(world, kube), None
    active.caught_up()

    def fate() -> BaseException | None:
        return chance.choices([None, Killed(), ClusterUnavailable()], [93, 4, 3])[0]

    for _ in range(300):
        act(world, chance)
        for each in (active, standby):
            if chance.random() < 0.5:
                each.hear(chance.randint(0, 8))
        if chance.random() < 0.4:
            try:
                kube.fate = fate
                active.write()
            except Killed:
                kube.fate = lambda: None
                frozen = active
                active.die()
                # Before it takes over, its watches have had seconds.
                active, standby = standby, Controller(world, kube)
                active.caught_up()
            kube.fate = lambda: None
        if frozen is not None and frozen.events._is_open and chance.random() < 0.3:
            with suppress(Conflict):
                frozen.events.turn(TERM)
            frozen = None
    active.caught_up()
    assert by_server(logged(kube)) == world.expected


@pytest.mark.parametrize("order", [*itertools.permutations(["statefulset", "pod", "release"])])
def test_a_new_controller_says_what_was_wanted_whichever_watch_is_first(order: tuple[str, ...]) -> None:
    """A server whose pod ends is not deleted because nobody has heard of its StatefulSet yet."""
    world, kube = EventWorld(), FragileKube()
    controller = Controller(world, kube)
    controller.caught_up()
    world.create(1)
    for _ in range(3):
        world.step(1)
    controller.caught_up()
    controller.die()
    world.stop(1)
    world.step(1)
    controller = Controller(world, kube, hears=False)
    world.step(1)
    controller.cluster.waiting = deque(sorted(controller.cluster.waiting, key=lambda change: order.index(change[1])))
    controller.caught_up()
    told = [(event.type, event.data.get("wanted")) for event in logged(kube)]
    assert told == [("created", None), ("started", None), ("running", None), ("stopped", "stopped")]


@pytest.mark.parametrize("seed", range(8))
def test_after_an_outage_the_log_has_what_can_still_be_known(seed: int) -> None:
    """No controller lives for a while. Then nothing is there twice or in the wrong order, and each end is there."""
    chance, world, kube = random.Random(seed), EventWorld(), FragileKube()
    controller = Controller(world, kube)
    controller.caught_up()
    for _ in range(10):
        for _ in range(30):
            act(world, chance)
            controller.hear(chance.randint(0, 4))
            if chance.random() < 0.3:
                controller.write()
        controller.die()
        for _ in range(chance.randint(0, 20)):
            act(world, chance)
        controller = Controller(world, kube)
        controller.caught_up()
        for uid, types in by_server(logged(kube)).items():
            assert is_part(types, world.expected[uid])
            assert ("deleted" in types) == ("deleted" in world.expected[uid])
        for id, statefulset in world.statefulsets.items():
            types = by_server(logged(kube))[world.uid(id)]
            expected = world.expected[world.uid(id)]
            assert types[0] == "created"
            pod = world.pods.get(id)
            if pod is not None and pod["metadata"]["ownerReferences"][0]["uid"] == statefulset["metadata"]["uid"]:
                # n restarts of a pod that is there give n events.
                assert ends(types) == ends(expected)


ENDS = {"crashed", "out-of-memory", "exited"}


def ends(types: list[str]) -> int:
    """How many runs have ended since the last pod started."""
    last = len(types) - types[::-1].index("started")
    return sum(type_ in ENDS for type_ in types[last:])


def is_part(types: list[str], expected: list[str]) -> bool:
    """Whether nothing is told that was not so, and what was told of pods is in the right order.

    How a run or a pod ended may be unknown: that is `crashed` or `stopped`. Nothing says whether the server was
    suspended, or stopped for idleness, before or after what happened to its pod meanwhile.
    """
    aside = {"suspended", "unsuspended", "idle-stopped"}
    rest = iter(each for each in expected if each not in aside)
    in_order = all(any(_may_be(type_, each) for each in rest) for type_ in types if type_ not in aside)
    return in_order and all(types.count(type_) <= expected.count(type_) for type_ in aside)


def _may_be(type_: str, each: str) -> bool:
    return type_ == each or (type_ == "crashed" and each in ENDS) or (type_ == "stopped" and each == "killed")
