"""The contract of the records, for those over the Kubernetes in memory and those in a real cluster."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from service.kube.client import Conflict, Kube
from service.records.store import LARGEST, RecordStore, RecordTooLarge
from service.settings import Settings
from tests.support.memory_kube import LabelledKube
from tests.support.waiting import until


@pytest.fixture(params=["memory", pytest.param("real", marks=pytest.mark.cluster)])
def store(request: pytest.FixtureRequest, new_id: Callable[[], int]) -> RecordStore:
    """Each test with this fixture runs against both kinds, with a kind of record of its own."""
    kind = f"contract{new_id()}"
    if request.param == "memory":
        return RecordStore(LabelledKube(), "gameservers", kind)
    settings: Settings = request.getfixturevalue("real_settings")
    return RecordStore(Kube(), settings.servers_namespace, kind)


def test_a_record_is_read_as_it_was_written(store: RecordStore) -> None:
    """With its texts, in any language."""
    created = store.create("one", {"state": "running", "reason": "Überlastet ✓"})
    assert created.name == "one"
    assert created.data == {"state": "running", "reason": "Überlastet ✓"}
    assert store.get("one") == created
    assert store.get("two") is None
    store.create("a", {})
    assert [record.name for record in store.all()] == ["a", "one"]


def test_a_name_is_given_once(store: RecordStore) -> None:
    """The second create of a name finds the first."""
    store.create("one", {"a": "first"})
    with pytest.raises(Conflict):
        store.create("one", {"a": "second"})
    record = store.get("one")
    assert record is not None
    assert record.data == {"a": "first"}


def test_a_change_writes_its_keys_alone(store: RecordStore) -> None:
    """None removes a key."""
    created = store.create("one", {"a": "1", "b": "2", "c": "3"})
    changed = store.change(created, {"b": "new", "c": None, "d": "4"})
    assert changed.data == {"a": "1", "b": "new", "d": "4"}
    assert store.get("one") == changed
    assert changed.version != created.version


def test_a_change_of_an_old_version_is_refused(store: RecordStore) -> None:
    """Two writers cannot both have changed the same version; nor can one change what is gone."""
    created = store.create("one", {"a": "1"})
    changed = store.change(created, {"a": "2"})
    with pytest.raises(Conflict):
        store.change(created, {"a": "3"})
    with pytest.raises(Conflict):
        store.delete(created)
    store.delete(changed)
    assert store.get("one") is None
    with pytest.raises(Conflict):
        store.change(changed, {"a": "4"})
    store.delete(changed)


def test_a_record_is_bounded(store: RecordStore) -> None:
    """At 64 KiB, whichever way it would pass them; nothing is written then."""
    created = store.create("one", {"a": "x" * (LARGEST - 10)})
    with pytest.raises(RecordTooLarge):
        store.change(created, {"b": "y" * 10})
    with pytest.raises(RecordTooLarge):
        store.create("two", {"a": "x" * LARGEST})
    assert store.all() == [created]


def test_a_watch_shows_each_change(store: RecordStore) -> None:
    """First what is there, then each change, and what is deleted."""
    told: list[tuple[str, str, bool]] = []
    store.create("one", {"a": "1"})
    watch = store.watch(lambda record, deleted: told.append((record.name, record.data.get("a", ""), deleted)))
    watch.start()
    assert watch.wait(10)
    two = store.create("two", {"a": "2"})
    two = store.change(two, {"a": "3"})
    until(lambda: ("two", "3", False) in told)
    assert watch.get("two") == two
    assert [record.name for record in watch.all()] == ["one", "two"]
    store.delete(two)
    until(lambda: watch.get("two") is None)
    until(lambda: ("two", "3", True) in told)
    assert told[0] == ("one", "1", False)
