"""The contract of the Kubernetes client, for the one in memory and the one of a real cluster."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from service.kube.client import Conflict, Kube, path
from service.kube.types import Object
from service.settings import Settings
from tests.support.memory_kube import MemoryKube


class Maps:
    """The ConfigMaps of a namespace. Each test creates its own."""

    def __init__(self, kube: Kube, namespace: str, name: str) -> None:
        self.kube = kube
        self.collection = path("v1", namespace, "configmaps")
        self.path = f"{self.collection}/{name}"
        self._name = name

    def create(self) -> Object:
        """Create the ConfigMap, whose text is "first"."""
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": self._name}, "data": {"said": "first"}}
        return self.kube.create(self.collection, body)

    def text(self) -> str | None:
        """The text of the ConfigMap; None if there is no ConfigMap."""
        config_map = self.kube.get(self.path)
        return None if config_map is None else str(config_map["data"]["said"])


@pytest.fixture(params=["memory", pytest.param("real", marks=pytest.mark.cluster)])
def maps(request: pytest.FixtureRequest, new_id: Callable[[], int]) -> Maps:
    """Each test with this fixture runs against both kinds."""
    name = f"contract-{new_id()}"
    if request.param == "memory":
        return Maps(MemoryKube(), "gameservers", name)
    settings: Settings = request.getfixturevalue("real_settings")
    return Maps(Kube(), settings.servers_namespace, name)


def with_text(config_map: Object, text: str) -> Object:
    """The ConfigMap with another text."""
    return {**config_map, "data": {"said": text}}


def test_a_missing_object_is_none(maps: Maps) -> None:
    """get returns None for a missing object, and get_all returns None in its place."""
    assert maps.kube.get(maps.path) is None
    created = maps.create()
    assert maps.kube.get_all([f"{maps.path}-no", maps.path]) == [None, created]


def test_a_created_object_is_read_again(maps: Maps) -> None:
    """An object is read as create returned it, with a uid and a version."""
    created = maps.create()
    assert created["metadata"]["uid"]
    assert created["metadata"]["resourceVersion"]
    assert maps.kube.get(maps.path) == created


def test_no_object_is_created_twice(maps: Maps) -> None:
    """A second create of the same name raises Conflict and changes nothing."""
    created = maps.create()
    with pytest.raises(Conflict):
        maps.create()
    assert maps.kube.get(maps.path) == created


def test_a_replacement_has_another_version_and_the_same_uid(maps: Maps) -> None:
    """A replaced object has another version and the same uid."""
    created = maps.create()
    replaced = maps.kube.replace(maps.path, with_text(created, "second"))
    assert maps.kube.get(maps.path) == replaced
    assert replaced["data"] == {"said": "second"}
    assert replaced["metadata"]["uid"] == created["metadata"]["uid"]
    assert replaced["metadata"]["resourceVersion"] != created["metadata"]["resourceVersion"]


def test_only_the_current_version_is_replaced(maps: Maps) -> None:
    """replace raises Conflict if the object has changed since it was read, or is gone."""
    created = maps.create()
    maps.kube.replace(maps.path, with_text(created, "second"))
    with pytest.raises(Conflict):
        maps.kube.replace(maps.path, with_text(created, "third"))
    assert maps.text() == "second"
    maps.kube.delete(maps.path)
    with pytest.raises(Conflict):
        maps.kube.replace(maps.path, with_text(created, "fourth"))
    assert maps.text() is None


def test_a_merge_keeps_what_it_does_not_name(maps: Maps) -> None:
    """A merge keeps what it does not name, null removes a key, and the result is returned."""
    created = maps.create()
    merged = maps.kube.merge(maps.path, {"data": {"more": "text"}})
    assert merged is not None
    assert merged["data"] == {"said": "first", "more": "text"}
    assert maps.kube.get(maps.path) == merged
    assert merged["metadata"]["resourceVersion"] != created["metadata"]["resourceVersion"]
    assert (maps.kube.merge(maps.path, {"data": {"said": None}}) or {})["data"] == {"more": "text"}


def test_a_merge_of_an_old_version_is_refused(maps: Maps) -> None:
    """A merge that names an old version raises Conflict."""
    version = maps.create()["metadata"]["resourceVersion"]
    precondition = {"metadata": {"resourceVersion": version}}
    assert maps.kube.merge(maps.path, {**precondition, "data": {"more": "text"}})
    with pytest.raises(Conflict):
        maps.kube.merge(maps.path, {**precondition, "data": {"said": "second"}})
    assert maps.text() == "first"


def test_a_merge_into_a_missing_object_returns_none(maps: Maps) -> None:
    """A merge into a missing object returns None and creates nothing."""
    assert maps.kube.merge(maps.path, {"data": {"said": "second"}}) is None
    assert maps.kube.get(maps.path) is None


def test_a_delete_of_a_missing_object_is_no_error(maps: Maps) -> None:
    """delete of a missing object does nothing."""
    maps.kube.delete(maps.path)
    maps.create()
    maps.kube.delete(maps.path)
    maps.kube.delete(maps.path)
    assert maps.text() is None


@pytest.mark.parametrize("meant", [{"version": "1"}, {"uid": "another"}])
def test_a_delete_of_another_one_is_refused(maps: Maps, meant: dict[str, str]) -> None:
    """delete raises Conflict if the object has another version or uid than the given one."""
    maps.kube.replace(maps.path, with_text(maps.create(), "second"))
    with pytest.raises(Conflict):
        maps.kube.delete(maps.path, **meant)
    assert maps.text() == "second"


def test_a_delete_of_this_one_is_done(maps: Maps) -> None:
    """delete with the current uid and version deletes the object."""
    metadata = maps.create()["metadata"]
    maps.kube.delete(maps.path, uid=metadata["uid"], version=metadata["resourceVersion"])
    assert maps.text() is None


def test_an_object_that_is_created_again_is_another_one(maps: Maps) -> None:
    """An object that is created again has a new uid, so a delete of the old one raises Conflict."""
    before = maps.create()["metadata"]["uid"]
    maps.kube.delete(maps.path)
    maps.create()
    with pytest.raises(Conflict):
        maps.kube.delete(maps.path, uid=before)
    assert maps.text() == "first"
