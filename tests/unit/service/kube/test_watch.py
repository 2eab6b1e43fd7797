"""A watch keeps all objects, continues after errors, and does not hammer an API server that is away."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from service.cluster import index
from service.cluster.index import ServerIndex
from service.cluster.nodes import Nodes
from service.cluster.usage import DiskUsage
from service.errors import ClusterUnavailable
from service.kube import watch
from service.kube.client import Gone
from service.kube.types import Object
from service.kube.watch import Kind, Watch
from tests.support.memory_kube import MemoryKube
from tests.support.waiting import until


def item(id: int, version: int = 1, **fields: Any) -> Object:
    labels = {"gameserver/id": str(id)}
    return {"metadata": {"name": f"server-{id}", "labels": labels, "resourceVersion": str(version)}, **fields}


def event(kind: str, changed: Object) -> Object:
    return {"type": kind, "object": changed}


KIND = Kind("/items", "gameserver/id", lambda item: item, index._id_of_label)


class Stop(BaseException):
    """Ends the endless loop."""


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses of the loop, which does not really wait."""
    pauses: list[float] = []
    monkeypatch.setattr("service.kube.watch.time.sleep", pauses.append)
    return pauses


def run(kube: MemoryKube, requests: int) -> Watch:
    """Run the loop for a number of requests."""
    watching = Watch(kube, KIND)
    before = kube.before

    def count(method: str, path: str) -> None:
        if len(kube.asked) > requests:
            raise Stop
        before(method, path)

    kube.before = count
    with pytest.raises(Stop):
        watching._run()
    return watching


def test_it_keeps_the_objects_of_the_list_and_the_events(pauses: list[float]) -> None:
    """Added, modified and deleted ones. Objects without a server are left out."""
    kube = MemoryKube()
    other = {"metadata": {"name": "x", "labels": {"gameserver/id": "no number"}, "resourceVersion": "3"}}
    kube.lists = [[item(1), item(2), other]]
    kube.events = [
        [
            event("ADDED", item(3, 2)),
            event("MODIFIED", item(2, 3, spec=1)),
            event("DELETED", item(1, 4)),
            event("ADDED", {**other}),
            event("BOOKMARK", {"metadata": {"resourceVersion": "9"}}),
        ]
    ]
    watching = run(kube, 2)
    assert sorted(watching.ids()) == [2, 3]
    assert watching.of(2) == {"server-2": item(2, 3, spec=1)}
    assert watching.of(1) == {}
    assert watching._version == "9"
    assert pauses == []


def test_after_410_it_lists_again(pauses: list[float]) -> None:
    """The missed changes are lost; the new list replaces everything."""
    kube = MemoryKube()
    kube.lists = [[item(1), item(2)], [item(2), item(3)]]
    watching = run(kube, 3)
    assert kube.asked[:3] == ["LIST /items", "WATCH /items", "LIST /items"]
    assert sorted(watching.ids()) == [2, 3]
    assert len(pauses) == 1


def test_an_error_within_the_watch_lists_again(pauses: list[float]) -> None:
    """An API server may also send 410 inside a response with status 200."""
    kube = MemoryKube()
    kube.lists = [[item(1)], [item(2)]]
    kube.events = [[event("ERROR", {"code": 410, "message": "too old resource version"})]]
    assert run(kube, 3).ids() == [2]


def test_while_the_cluster_is_away_the_pauses_grow(pauses: list[float]) -> None:
    """Up to a limit, and no two replicas make the same pauses."""
    kube = MemoryKube()
    kube.away()
    watching = run(kube, 12)
    assert len(pauses) == 12
    assert all(low * 0.5 <= pause <= low for low, pause in zip([0.5, 1, 2, 4], pauses, strict=False))
    assert all(4 <= pause <= 8 for pause in pauses[4:])
    assert len(set(pauses)) == 12
    assert not watching.wait(0)
    assert watching.ids() == []


def test_after_an_outage_it_continues_where_it_stopped(pauses: list[float]) -> None:
    """Without a 410 it needs no new list, and keeps its objects."""
    kube = MemoryKube()
    kube.lists = [[item(1)]]
    kube.events = [[event("ADDED", item(2, 7))], [event("ADDED", item(3, 8))]]

    def away_once(method: str, path: str) -> None:
        if len(kube.asked) == 3:
            raise ClusterUnavailable

    kube.before = away_once
    watching = run(kube, 4)
    assert kube.asked[:4] == ["LIST /items", "WATCH /items", "WATCH /items", "WATCH /items"]
    assert sorted(watching.ids()) == [1, 2, 3]
    assert watching.lost_for() == 0


class Blocking(MemoryKube):
    """Its lists are empty, and its watches last until `breaks` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.breaks = threading.Event()

    def listed(self, path: str, *, metadata: bool = False, **query: str | int) -> tuple[list[Object], str]:
        self._ask("LIST", path)
        return [], "1"

    def watch(self, path: str, version: str, *, metadata: bool, seconds: int, **query: Any) -> Any:
        self._ask("WATCH", path)
        yield {"type": "CONNECTED"}
        self.breaks.wait()
        raise Gone(path)


def test_an_outdated_page_is_not_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the watches are interrupted for longer than a moment, a page is an error until they recover."""
    monkeypatch.setattr(index, "GAP_SECONDS", 0.2)
    monkeypatch.setattr(watch, "LONGEST_PAUSE", 0.1)
    kube = Blocking()
    servers = ServerIndex(kube, "games", {}, DiskUsage(kube, "games"))
    assert servers.page(10, None) == ([], None)
    kube.away()
    kube.breaks.set()

    def error() -> str:
        try:
            assert servers.page(10, None) == ([], None)
        except ClusterUnavailable as problem:
            return str(problem)
        return ""

    until(lambda: "not been up to date" in error())
    kube.breaks.clear()
    kube.back()
    until(lambda: error() == "")


def test_without_a_first_list_a_page_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty page would be wrong."""
    monkeypatch.setattr(index, "SYNC_SECONDS", 0.1)
    kube = MemoryKube()
    kube.away()
    with pytest.raises(ClusterUnavailable, match="not complete yet"):
        ServerIndex(kube, "games", {}, DiskUsage(kube, "games")).page(10, None)


def test_only_the_fields_that_are_read_are_kept() -> None:
    """Of a pod template, its size and image: whole templates of two thousand servers would fill the memory."""
    container = {"name": "game", "image": "i", "resources": {"limits": {}}, "env": [{"name": "A", "value": "b"}]}
    spec = {"containers": [container], "volumes": [], "nodeName": "n"}
    pod = {"metadata": {"name": "p", "managedFields": []}, "spec": spec, "status": {"phase": "Running"}}
    kept = {"containers": [{"name": "game", "image": "i", "resources": {"limits": {}}}], "nodeName": "n"}
    assert index._trim_pod(pod) == {"metadata": {"name": "p"}, "spec": kept, "status": {"phase": "Running"}}
    # Only a pod that waits for a node has a reason that depends on its tolerations.
    spec["tolerations"] = [{"operator": "Exists"}]
    assert index._trim_pod(pod)["spec"] == kept
    waits = {**pod, "spec": {key: spec[key] for key in spec if key != "nodeName"}}
    assert index._trim_pod(waits)["spec"] == {"containers": kept["containers"], "tolerations": spec["tolerations"]}
    statefulset = {"metadata": {"name": "s"}, "spec": {"replicas": 1, "template": {"metadata": {}, "spec": spec}}}
    assert index._trim_statefulset(statefulset) == {
        "metadata": {"name": "s"},
        "spec": {"replicas": 1, "template": {"metadata": {}, "spec": kept}},
    }


def refusal(number: int, *, reason: str = "FailedCreate", of: str = "StatefulSet", name: str = "server-7") -> Object:
    return {
        "metadata": {"name": f"{name}.{number}", "managedFields": [], "resourceVersion": str(number)},
        "involvedObject": {"kind": of, "name": name, "uid": "u"},
        "reason": reason,
        "message": "m" * 5000,
        "firstTimestamp": None,
        "eventTime": "2026-01-31T12:00:00.123456Z",
        "series": {"count": 2, "lastObservedTime": f"2026-01-31T12:00:{number:02}.000000Z"},
        "source": {"component": "statefulset-controller"},
    }


def test_few_events_are_kept_and_little_of_them(pauses: list[float]) -> None:
    """However many there are: only the newest that a state is read from, and only the fields that are read."""
    kube = MemoryKube()
    kube.lists = [[refusal(number) for number in range(1, 31)]]
    others = [
        refusal(40, reason="BackOff"),
        refusal(41, of="Deployment"),
        refusal(42, name="api-0", of="Pod"),
    ]
    kube.events = [[event("ADDED", item) for item in (*others, refusal(43, of="Pod", name="server-7-0"))]]
    events = ServerIndex(kube, "games", {}, DiskUsage(kube, "games"))._events[0]
    before = kube.before

    def count(method: str, path: str) -> None:
        if len(kube.asked) > 2:
            raise Stop
        before(method, path)

    kube.before = count
    with pytest.raises(Stop):
        events._run()
    assert events.ids() == [7]
    kept = events.of(7)
    assert list(kept) == [*(f"server-7.{number}" for number in range(12, 31)), "server-7-0.43"]
    assert kept["server-7.30"] == {
        "metadata": {"name": "server-7.30"},
        "involvedObject": {"uid": "u"},
        "reason": "FailedCreate",
        "message": "m" * 1000,
        "firstTimestamp": "2026-01-31T12:00:00.123456Z",
        "lastTimestamp": "2026-01-31T12:00:30.000000Z",
    }


def test_a_listener_is_called_with_each_object(pauses: list[float]) -> None:
    """And with the object before, for lists and events alike."""
    kube = MemoryKube()
    calls: list[tuple[Any, ...]] = []
    kube.lists = [[item(1)]]
    kube.events = [[event("MODIFIED", item(1, 2)), event("DELETED", item(1, 3))]]
    watching = Watch(kube, KIND, lambda *call: calls.append(call))

    def count(method: str, path: str) -> None:
        if len(kube.asked) > 2:
            raise Stop

    kube.before = count
    with pytest.raises(Stop):
        watching._run()
    assert calls == [
        (1, None, item(1), False),
        (1, item(1), item(1, 2), False),
        (1, item(1, 2), item(1, 3), True),
    ]


def test_a_listener_hears_of_what_is_gone_from_a_new_list(pauses: list[float]) -> None:
    """With the last version that was seen, as if the watch had received its deletion."""
    kube = MemoryKube()
    kube.lists = [[item(1), item(2)], [item(2, 5)]]
    calls: list[tuple[Any, ...]] = []
    watching = Watch(kube, KIND, lambda *call: calls.append(call))

    def count(method: str, path: str) -> None:
        if len(kube.asked) > 3:
            raise Stop

    kube.before = count
    with pytest.raises(Stop):
        watching._run()
    assert calls[2:] == [(1, item(1), item(1), True), (2, item(2), item(2, 5), False)]


def test_nodes_are_read_on_demand_and_kept_for_some_seconds() -> None:
    """Only the fields that a state needs are kept."""
    kube = MemoryKube()
    ready = {"type": "Ready", "status": "True"}
    status = {"conditions": [ready], "images": [{"names": ["large"]}]}
    metadata = {"name": "node1", "labels": {"kubernetes.io/hostname": "one", "more": "text"}}
    taint = {"key": "dedicated", "effect": "NoSchedule"}
    spec = {"podCIDR": "10.0.0.0/24", "taints": [taint]}
    kube.lists = [[{"metadata": metadata, "spec": spec, "status": status}]]
    nodes = Nodes(kube)
    assert kube.asked == []
    kept = {
        "metadata": {"name": "node1", "labels": {"kubernetes.io/hostname": "one"}},
        "spec": {"unschedulable": False, "taints": [taint]},
        "status": {"conditions": [ready]},
    }
    assert dict(nodes) == {"node1": kept}
    assert "node2" not in nodes
    assert kube.asked == ["LIST /api/v1/nodes"]


def test_a_watch_starts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every read that needs it may start it."""
    runs: list[Watch] = []
    monkeypatch.setattr(Watch, "_run", lambda self: runs.append(self))
    watching = Watch(MemoryKube(), KIND)
    for _ in range(3):
        watching.start()
    until(lambda: runs)
    assert runs == [watching]
