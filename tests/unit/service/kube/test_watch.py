"""The watch: what it keeps, how it goes on after trouble, and that it never hurries."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from service.cluster import index
from service.cluster.index import Listing
from service.cluster.nodes import Nodes
from service.errors import ClusterUnavailable
from service.kube import watch
from service.kube.client import Gone
from service.kube.types import Object
from service.kube.watch import Kind, Watch
from tests.support.memory_kube import MemoryKube
from tests.support.waiting import until


def thing(id: int, version: int = 1, **more: Any) -> Object:
    labels = {"gameserver/id": str(id)}
    return {"metadata": {"name": f"server-{id}", "labels": labels, "resourceVersion": str(version)}, **more}


def event(kind: str, item: Object) -> Object:
    return {"type": kind, "object": item}


KIND = Kind("/things", "gameserver/id", lambda item: item, index._id_of_label)


class Stop(BaseException):
    """Ends the endless loop."""


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that the loop made, without making them."""
    made: list[float] = []
    monkeypatch.setattr(watch.time, "sleep", made.append)
    return made


def run(kube: MemoryKube, asked: int) -> Watch:
    """Run the loop for so many requests."""
    found = Watch(kube, KIND)
    before = kube.before

    def count(method: str, path: str) -> None:
        if len(kube.asked) > asked:
            raise Stop
        before(method, path)

    kube.before = count
    with pytest.raises(Stop):
        found._run()
    return found


def test_it_keeps_what_the_list_and_the_events_say(pauses: list[float]) -> None:
    """Added, modified, deleted; objects of nobody's are left out."""
    kube = MemoryKube()
    stranger = {"metadata": {"name": "x", "labels": {"gameserver/id": "no number"}, "resourceVersion": "3"}}
    kube.lists = [[thing(1), thing(2), stranger]]
    kube.events = [
        [
            event("ADDED", thing(3, 2)),
            event("MODIFIED", thing(2, 3, spec=1)),
            event("DELETED", thing(1, 4)),
            event("ADDED", {**stranger}),
            event("BOOKMARK", {"metadata": {"resourceVersion": "9"}}),
        ]
    ]
    found = run(kube, 2)
    assert sorted(found.ids()) == [2, 3]
    assert found.of(2) == {"server-2": thing(2, 3, spec=1)}
    assert found.of(1) == {}
    assert found._version == "9"
    assert pauses == []


def test_after_410_it_lists_again(pauses: list[float]) -> None:
    """What was missed is gone for good; the new list replaces everything."""
    kube = MemoryKube()
    kube.lists = [[thing(1), thing(2)], [thing(2), thing(3)]]
    found = run(kube, 3)
    assert kube.asked[:3] == ["LIST /things", "WATCH /things", "LIST /things"]
    assert sorted(found.ids()) == [2, 3]
    assert len(pauses) == 1


def test_an_error_within_the_watch_lists_again(pauses: list[float]) -> None:
    """An API server says 410 inside an answer of 200 too."""
    kube = MemoryKube()
    kube.lists = [[thing(1)], [thing(2)]]
    kube.events = [[event("ERROR", {"code": 410, "message": "too old resource version"})]]
    assert run(kube, 3).ids() == [2]


def test_a_cluster_that_is_away_is_asked_ever_less_often(pauses: list[float]) -> None:
    """The pauses grow up to a limit, and no two replicas make the same ones."""
    kube = MemoryKube()
    kube.away()
    found = run(kube, 12)
    assert len(pauses) == 12
    assert all(low * 0.5 <= pause <= low for low, pause in zip([0.5, 1, 2, 4], pauses, strict=False))
    assert all(4 <= pause <= 8 for pause in pauses[4:])
    assert len(set(pauses)) == 12
    assert not found.wait(0)
    assert found.ids() == []


def test_it_goes_on_where_it_was_after_an_outage(pauses: list[float]) -> None:
    """Short of a 410 there is no need for a new list, and what it kept stays."""
    kube = MemoryKube()
    kube.lists = [[thing(1)]]
    kube.events = [[event("ADDED", thing(2, 7))], [event("ADDED", thing(3, 8))]]

    def away_once(method: str, path: str) -> None:
        if len(kube.asked) == 3:
            raise ClusterUnavailable

    kube.before = away_once
    found = run(kube, 4)
    assert kube.asked[:4] == ["LIST /things", "WATCH /things", "WATCH /things", "WATCH /things"]
    assert sorted(found.ids()) == [1, 2, 3]
    assert found.lost_for() == 0


class Blocking(MemoryKube):
    """Lists nothing, and its watches go on until told to break."""

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


def test_a_list_that_is_out_of_date_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the watches are lost for longer than a moment, the page says so, and it is back by itself."""
    monkeypatch.setattr(index, "GAP_SECONDS", 0.2)
    monkeypatch.setattr(watch, "LONGEST_PAUSE", 0.1)
    kube = Blocking()
    found = Listing(kube, "games", {})
    assert found.page(10, None) == ([], None)
    kube.away()
    kube.breaks.set()

    def complaint() -> str:
        try:
            assert found.page(10, None) == ([], None)
        except ClusterUnavailable as problem:
            return str(problem)
        return ""

    until(lambda: "not been up to date" in complaint())
    kube.breaks.clear()
    kube.back()
    until(lambda: complaint() == "")


def test_a_list_that_never_was_is_said_to_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty page would be a lie."""
    monkeypatch.setattr(index, "SYNC_SECONDS", 0.1)
    kube = MemoryKube()
    kube.away()
    with pytest.raises(ClusterUnavailable, match="not there yet"):
        Listing(kube, "games", {}).page(10, None)


def test_what_is_kept_is_what_is_read() -> None:
    """Of a pod template only what tells its size and image, or two thousand servers would fill the memory."""
    container = {"name": "game", "image": "i", "resources": {"limits": {}}, "env": [{"name": "A", "value": "b"}]}
    spec = {"containers": [container], "volumes": [], "nodeName": "n"}
    pod = {"metadata": {"name": "p", "managedFields": []}, "spec": spec, "status": {"phase": "Running"}}
    kept = {"containers": [{"name": "game", "image": "i", "resources": {"limits": {}}}], "nodeName": "n"}
    assert index._pod(pod) == {"metadata": {"name": "p"}, "spec": kept, "status": {"phase": "Running"}}
    statefulset = {"metadata": {"name": "s"}, "spec": {"replicas": 1, "template": {"metadata": {}, "spec": spec}}}
    assert index._statefulset(statefulset) == {
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
    """Those that a state is read from, the newest, and what is read; however many there are."""
    kube = MemoryKube()
    kube.lists = [[refusal(number) for number in range(1, 31)]]
    others = [
        refusal(40, reason="BackOff"),
        refusal(41, of="Deployment"),
        refusal(42, name="api-0", of="Pod"),
    ]
    kube.events = [[event("ADDED", item) for item in (*others, refusal(43, of="Pod", name="server-7-0"))]]
    events = Listing(kube, "games", {})._events[0]
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


def test_whoever_wants_to_know_is_told_what_was_seen(pauses: list[float]) -> None:
    """With what was there before, from lists and events alike."""
    kube, told = MemoryKube(), []
    kube.lists = [[thing(1)]]
    kube.events = [[event("MODIFIED", thing(1, 2)), event("DELETED", thing(1, 3))]]
    found = Watch(kube, KIND, lambda *seen: told.append(seen))

    def count(method: str, path: str) -> None:
        if len(kube.asked) > 2:
            raise Stop

    kube.before = count
    with pytest.raises(Stop):
        found._run()
    assert told == [
        (1, None, thing(1), False),
        (1, thing(1), thing(1, 2), False),
        (1, thing(1, 2), thing(1, 3), True),
    ]


def test_nodes_are_read_when_one_is_looked_at_and_not_again_at_once() -> None:
    """All that a state needs of them, for some seconds."""
    kube = MemoryKube()
    ready = {"type": "Ready", "status": "True"}
    status = {"conditions": [ready], "images": [{"names": ["large"]}]}
    kube.lists = [[{"metadata": {"name": "node1", "labels": {}}, "spec": {"podCIDR": "10.0.0.0/24"}, "status": status}]]
    nodes = Nodes(kube)
    assert kube.asked == []
    kept = {"metadata": {"name": "node1"}, "spec": {"unschedulable": False}, "status": {"conditions": [ready]}}
    assert dict(nodes) == {"node1": kept}
    assert "node2" not in nodes
    assert kube.asked == ["LIST /api/v1/nodes"]
