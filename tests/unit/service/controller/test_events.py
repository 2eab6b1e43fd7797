"""The writer of the log of events: what it forgets, and what does not stop it."""

from __future__ import annotations

import pytest

from service.controller import events as events_module
from service.events.event import Event
from service.events.facts import Facts
from tests.support.event_world import EventWorld
from tests.unit.service.events.test_walk import TERM, Controller, FragileKube, by_server, logged


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pauses."""
    for name in ("FLUSH_SECONDS", "SAVE_SECONDS", "LOOK_SECONDS", "FORGET_SECONDS"):
        monkeypatch.setattr(events_module, name, 0.0)


@pytest.fixture
def world() -> EventWorld:
    return EventWorld()


def started(world: EventWorld) -> Controller:
    controller = Controller(world, FragileKube())
    controller.caught_up()
    return controller


def test_servers_that_were_there_before_the_first_controller_count_as_told(world: EventWorld) -> None:
    """Their events begin with what happens next."""
    world.create(1)
    for _ in range(3):
        world.step(1)
    kube = FragileKube()
    controller = Controller(world, kube)
    controller.caught_up()
    assert logged(kube) == []
    world.crash(1, 1)
    controller.caught_up()
    assert [(event.type, event.number) for event in logged(kube)] == [("crashed", 1)]


def test_deleted_servers_are_forgotten(world: EventWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """After some minutes; otherwise the records would grow with each server that ever was."""
    controller = started(world)
    world.create(1)
    world.delete(1)
    controller.caught_up()
    assert [each.deleted != "" for each in controller.events._state.load()[1]] == [True]  # type: ignore[index]
    monkeypatch.setattr(events_module, "TOMBSTONE_SECONDS", -10.0)
    controller.events.turn(TERM)
    assert 1 not in (controller.events._state.load() or {})
    assert controller.events._told == {}


def test_a_server_that_cannot_be_told_stops_no_other(world: EventWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody knows what all the objects in a cluster look like."""
    controller = started(world)
    tell = controller.events._tell

    def fail(facts: Facts) -> None:
        if facts.id == 1:
            raise ZeroDivisionError
        tell(facts)

    monkeypatch.setattr(controller.events, "_tell", fail)
    world.create(1)
    world.create(2)
    controller.caught_up()
    assert [event.server for event in logged(controller.kube)] == [2]


def test_events_of_others_have_their_place(world: EventWorld) -> None:
    """What another part of the controller adds is numbered with the rest, and written once."""
    controller = started(world)
    world.create(1)
    controller.caught_up()
    [created] = logged(controller.kube)
    failed = Event("id", "schedule-failed", created.time, 1, created.uid, created.customer)
    controller.events.add(failed)
    controller.events.add(failed)
    controller.caught_up()
    world.step(1)
    controller.caught_up()
    assert by_server(logged(controller.kube)) == {created.uid: ["created", "schedule-failed", "started"]}
