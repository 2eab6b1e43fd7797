"""The records of all nodes' agents are watched, and a disk is found by its volume."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from service.cluster.usage import DiskUsage
from service.kube.types import Object
from service.servers.usage import Usage
from tests.support.memory_kube import MemoryKube
from tests.unit.service.kube.test_watch import Stop

T0, T1 = "2026-01-31T12:00:00Z", "2026-01-31T12:01:00Z"


def record(node: str, as_of: str, version: int, **disks: Any) -> Object:
    metadata = {"name": f"disk-usage-{node}", "resourceVersion": str(version)}
    return {"metadata": metadata, "data": {"disks.json": json.dumps({"as_of": as_of, "disks": disks})}}


def claim(volume: str) -> Object:
    return {"metadata": {"name": "server-1"}, "spec": {"volumeName": volume} if volume else {}}


def watched(kube: MemoryKube, requests: int = 2) -> DiskUsage:
    """What is known after a number of requests of the watch."""
    usage = DiskUsage(kube, "games")

    def count(method: str, path: str) -> None:
        if len(kube.asked) > requests:
            raise Stop

    kube.before = count
    with pytest.raises(Stop):
        usage._watch._run()
    return usage


def full(size: int) -> dict[str, Any]:
    return {"used": size, "size": size, "full": True}


def test_the_newest_word_about_a_disk_counts() -> None:
    """A network disk may have moved to another node. A node that is gone says nothing."""
    kube = MemoryKube()
    kube.lists = [
        [
            record("a", T0, 1, one=full(1), two=full(2)),
            record("b", T1, 1, one=full(3)),
            record("c", T0, 1, three=full(4)),
        ]
    ]
    kube.events = [
        [
            {"type": "MODIFIED", "object": record("a", T1, 2, two=full(5), four={"enforced": False})},
            {"type": "DELETED", "object": record("c", T0, 3)},
        ]
    ]
    usage = watched(kube)
    assert kube.asked[:2] == ["LIST /api/v1/namespaces/games/configmaps", "WATCH /api/v1/namespaces/games/configmaps"]
    assert {name: usage.of(claim(name)) for name in ("one", "two", "three", "four", "")} == {
        "one": Usage(T1, True, 3, 3, full=True),
        "two": Usage(T1, True, 5, 5, full=True),
        "three": None,
        "four": Usage(T1, enforced=False),
        "": None,
    }
    assert usage.of(None) is None


def test_before_the_first_list_nothing_is_known() -> None:
    """And nobody waits for it."""
    assert DiskUsage(MemoryKube(), "games").of(claim("one")) is None


def test_a_bad_record_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """Not every minute, and again after it was good. What is good in it counts."""
    bad = [record("a", T0, version, one=full(1), two="x", three=7) for version in range(5)]
    kube = MemoryKube()
    kube.lists = [[bad[0], {"metadata": {"name": "other", "resourceVersion": "1"}}]]
    events = [*bad[1:], record("a", T0, 7, one=full(1)), record("a", T0, 8, two="x", one=full(1))]
    kube.events = [[{"type": "MODIFIED", "object": item} for item in events]]
    with caplog.at_level(logging.WARNING, "service.cluster.usage"):
        usage = watched(kube)
    assert [message for message in caplog.messages if "ConfigMap" in message] == [
        "what ConfigMap disk-usage-a says about disks is ignored: the entry 'two' is not valid, and 1 more",
        "what ConfigMap other says about disks is ignored: it is not JSON: Expecting value: line 1 column 1 (char 0)",
        "what ConfigMap disk-usage-a says about disks is ignored: the entry 'two' is not valid",
    ]
    assert usage.of(claim("one")) == Usage(T0, True, 1, 1, full=True)
