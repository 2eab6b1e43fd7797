"""How a stop went, written down as it happens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from service.cluster import index
from service.cluster.stoprecorder import StopRecorder
from service.errors import ClusterUnavailable
from service.kube.client import Conflict
from service.kube.types import Object
from service.servers.names import LAST_STOP
from service.servers.objects import ServerObjects
from service.servers.stops import LONGEST_REASON, Stop, stop_of
from tests.support.memory_kube import MemoryKube

PATH = "/apis/apps/v1/namespaces/games/statefulsets/server-1"
ASKED, SOON, LATE = "2026-01-31T12:00:00Z", "2026-01-31T12:00:03Z", "2026-01-31T12:02:00Z"
DELETED = {"deletionTimestamp": LATE, "deletionGracePeriodSeconds": 120}
FAILED = "Its last start had failed: The game crashed (exit code 1)."


def statefulset(replicas: int = 0, **annotations: str) -> Object:
    return {"metadata": {"name": "server-1", "annotations": annotations}, "spec": {"replicas": replicas}}


def pod(container: dict[str, Any], uid: str = "one", **metadata: Any) -> Object:
    resources = {"limits": {"memory": "1Gi"}}
    return {
        "metadata": {"uid": uid, "creationTimestamp": ASKED, **metadata},
        "spec": {"containers": [{"name": "game", "resources": resources}]},
        "status": {"containerStatuses": [{"name": "game", "containerID": "c", **container}]},
    }


RUNS = {"started": True, "state": {"running": {"startedAt": ASKED}}}


def ended(code: int, finished: str = SOON, **more: Any) -> dict[str, Any]:
    return {"state": {"terminated": {"exitCode": code, "startedAt": ASKED, "finishedAt": finished, **more}}}


class Kube(MemoryKube):
    """With merges, under the version that they name."""

    def merge(self, path: str, body: Object) -> None:
        self._ask("PATCH", path)
        there = self.objects[path]
        if body["metadata"]["resourceVersion"] != there["metadata"]["resourceVersion"]:
            raise Conflict(path)
        annotations = {**there["metadata"].get("annotations", {}), **body["metadata"]["annotations"]}
        kept = {name: text for name, text in annotations.items() if text is not None}
        self._stored(path, {**there, "metadata": {**there["metadata"], "annotations": kept}})


class Cluster:
    """One server, a keeper told of it, and its work done at once."""

    def __init__(self, replicas: int = 0) -> None:
        self.kube = Kube()
        self.server = ServerObjects(1)
        self.keeper = StopRecorder(self.kube, "games", lambda id: self.server)
        self.set(statefulset(replicas))

    def set(self, wanted: Object) -> None:
        there = self.kube.objects.get(PATH, {"metadata": {}})
        annotations = {**there["metadata"].get("annotations", {}), **wanted["metadata"]["annotations"]}
        self.kube._stored(PATH, {**wanted, "metadata": {**wanted["metadata"], "annotations": annotations}})
        self.server = ServerObjects(1, statefulset=self.kube.objects[PATH], events=self.server.events)

    def done(self, tell: Callable[[StopRecorder], None]) -> Stop | None:
        tell(self.keeper)
        while not self.keeper._work.empty():
            self.keeper._work.get()[1]()
        return stop_of(self.kube.objects[PATH])

    def pod(self, before: Object | None, now: Object, *, gone: bool = False) -> Stop | None:
        return self.done(lambda keeper: keeper.pod_changed(1, before, now, gone))


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (ended(0), None),
        # Java's own end at SIGTERM, once its hooks are done, and at Ctrl-C.
        (ended(143), None),
        (ended(130), None),
        (ended(1), "The game failed as it stopped (exit code 1); its last save may be incomplete."),
        (ended(137, LATE), "The game had not stopped after 120 s and was killed; what it had not saved is lost."),
        (ended(137), "The game was killed as it stopped (exit code 137); what it had not saved is lost."),
        (
            ended(137, reason="OOMKilled"),
            "The game ran out of memory as it stopped (its limit is 1 GiB); what it had not saved is lost.",
        ),
        (
            ended(137, reason="ContainerStatusUnknown"),
            "Its node lost track of the game as it stopped; nobody saw whether it saved its world.",
        ),
    ],
)
def test_how_a_stop_went(end: dict[str, Any], reason: str | None) -> None:
    """As the kubelet tells it before the pod goes, and once more as it goes: the same."""
    cluster = Cluster()
    stopping, over = pod(RUNS, **DELETED), pod(end, **DELETED)
    assert cluster.pod(pod(RUNS), stopping) == Stop("one", ASKED, None, LATE)
    assert cluster.pod(stopping, over) == Stop("one", end["state"]["terminated"]["finishedAt"], reason)
    writes = cluster.kube.asked.count(f"PATCH {PATH}")
    # As the kubelet deletes it in the end, once all is cleaned up.
    at_once = {"deletionTimestamp": "2026-01-31T12:02:05Z", "deletionGracePeriodSeconds": 0}
    at_last = pod(end, **at_once)
    assert cluster.pod(over, at_last) == cluster.pod(at_last, at_last, gone=True)
    found = stop_of(cluster.kube.objects[PATH])
    assert found == Stop("one", end["state"]["terminated"]["finishedAt"], reason)
    # A replica that is late.
    assert cluster.pod(pod(RUNS), stopping) is not None
    assert cluster.kube.asked.count(f"PATCH {PATH}") == writes == 2


def test_a_start_that_was_given_up_on_is_remembered() -> None:
    """A crash loop, with its reason as it was before the stop; what comes after the end changes nothing of it."""
    cluster = Cluster()
    crash = ended(1, "2026-01-31T11:59:00Z")
    loop = {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": crash["state"]}
    # The kubelet shows the last run as the end of all.
    over = pod(crash, **DELETED)
    assert cluster.pod(pod(loop), pod(loop, **DELETED)) == Stop("one", ASKED, FAILED)
    assert cluster.pod(pod(loop, **DELETED), over, gone=True) == Stop("one", ASKED, FAILED)


def test_a_pod_that_never_had_a_container_is_remembered() -> None:
    """One that no node takes goes at once; of one without an image the kubelet says that it lost it."""
    reason = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "2 node(s) had taints"}
    cluster = Cluster()
    cluster.server = ServerObjects(1, statefulset=cluster.server.statefulset, claim={"status": {"phase": "Bound"}})
    waits = {"metadata": {"uid": "one"}, "spec": {}, "status": {"conditions": [reason]}}
    found = cluster.pod(waits, waits, gone=True)
    assert found is not None
    assert found.reason == "Its last start had failed: No node can take the server. (2 node(s) had taints)"

    cluster = Cluster()
    pulls = {"containerID": "", "image": "a:1", "state": {"waiting": {"reason": "ErrImageNeverPull"}}}
    lost = {"containerID": "", "state": {"terminated": {"exitCode": 137, "reason": "ContainerStatusUnknown"}}}
    cluster.pod(pod(pulls), pod(pulls, **DELETED))
    found = cluster.pod(pod(pulls, **DELETED), pod(lost, **DELETED))
    assert found == Stop("one", ASKED, "Its last start had failed: The image a:1 was not found.")


def test_a_server_that_was_refused_a_pod_is_remembered() -> None:
    """There is no pod to tell it."""
    cluster = Cluster(1)
    refused = {"reason": "FailedCreate", "message": "exceeded quota: mem", "involvedObject": {"uid": PATH}}
    cluster.server = ServerObjects(1, statefulset=cluster.server.statefulset, events=(refused,))
    cluster.set(statefulset(0))
    found = cluster.done(lambda keeper: keeper.statefulset_changed(1, statefulset(1), statefulset(0), False))
    assert found is not None
    assert found.reason == "Its last start had failed: A quota refused the server's pod: mem"


def test_a_restart_is_no_stop() -> None:
    """Nor is a pod that Kubernetes takes elsewhere: what had happened is over with the new one."""
    cluster = Cluster(1)
    assert cluster.pod(pod(RUNS, **DELETED), pod(ended(137, LATE), **DELETED)) is None


def test_a_server_made_anew_has_not_stopped_as_the_one_before_it() -> None:
    """Its predecessor's pod may end after it was made; of a pod's owner the list keeps as much as tells that."""
    cluster = Cluster()
    owner = {"ownerReferences": [{"kind": "StatefulSet", "controller": True, "uid": "another"}]}
    over = index._pod(pod(ended(1), **DELETED, **owner))
    assert cluster.pod(None, over, gone=True) is None
    mine = {"ownerReferences": [{"kind": "StatefulSet", "controller": True, "uid": PATH}]}
    assert cluster.pod(None, index._pod(pod(ended(1), **DELETED, **mine)), gone=True) is not None


def test_a_start_takes_it_away() -> None:
    """And a stop after it begins anew, also where no replica saw the start."""
    cluster = Cluster()
    cluster.pod(pod(RUNS, **DELETED), pod(ended(1), **DELETED))
    cluster.set(statefulset(1))
    started = cluster.server.statefulset
    assert started is not None
    assert cluster.done(lambda keeper: keeper.statefulset_changed(1, None, started, False)) is None
    assert LAST_STOP not in cluster.kube.objects[PATH]["metadata"]["annotations"]

    cluster = Cluster()
    cluster.pod(pod(RUNS, **DELETED), pod(ended(1), **DELETED))
    clean = pod(ended(0, LATE), "two", **DELETED)
    assert cluster.pod(pod(RUNS, "two", **DELETED), clean) == Stop("two", LATE, None)


def test_what_a_frozen_replica_saw_long_ago_changes_nothing() -> None:
    """A later stop stands there already."""
    cluster = Cluster()
    late = Stop("two", LATE, None)
    cluster.pod(pod(RUNS, "two", **DELETED), pod(ended(0, LATE), "two", **DELETED))
    assert cluster.pod(pod(RUNS, **DELETED), pod(ended(1), **DELETED)) == late


def test_the_controller_may_write_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it is read and written again; nothing is ever written over what was read before."""
    monkeypatch.setattr("service.cluster.stoprecorder.time.sleep", lambda seconds: None)
    cluster = Cluster()

    def controller(method: str, path: str) -> None:
        if method == "PATCH" and cluster.kube.asked.count(f"PATCH {PATH}") < 4:
            cluster.kube._stored(PATH, cluster.kube.objects[PATH])

    cluster.kube.before = controller
    assert cluster.pod(pod(RUNS, **DELETED), pod(ended(1), **DELETED)) is not None
    assert cluster.kube.asked.count(f"PATCH {PATH}") == 4


def test_while_kubernetes_is_away_nothing_breaks() -> None:
    """What could not be written down is not made up later."""
    cluster = Cluster()
    cluster.kube.away()
    with pytest.raises(ClusterUnavailable):
        cluster.pod(pod(RUNS, **DELETED), pod(ended(1), **DELETED))
    cluster.kube.back()
    assert stop_of(cluster.kube.objects[PATH]) is None


def test_a_reason_is_not_endless() -> None:
    """An annotation has its limits."""
    found = stop_of({"metadata": {"annotations": {LAST_STOP: Stop("a", "b", "x" * 10**6).as_text()}}})
    assert found is not None
    assert found.reason == "x" * LONGEST_REASON
