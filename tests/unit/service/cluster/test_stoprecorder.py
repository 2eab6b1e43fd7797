"""How a server stopped is recorded while it stops."""

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
REQUESTED, SOON, LATE = "2026-01-31T12:00:00Z", "2026-01-31T12:00:03Z", "2026-01-31T12:02:00Z"
DELETED: dict[str, Any] = {"deletionTimestamp": LATE, "deletionGracePeriodSeconds": 120}
FAILED = "Its last start failed: The game crashed (exit code 1)."


def statefulset(replicas: int = 0, **annotations: str) -> Object:
    return {"metadata": {"name": "server-1", "annotations": annotations}, "spec": {"replicas": replicas}}


def pod(container: Object, uid: str = "one", **metadata: Any) -> Object:
    resources = {"limits": {"memory": "1Gi"}}
    return {
        "metadata": {"uid": uid, "creationTimestamp": REQUESTED, **metadata},
        "spec": {"containers": [{"name": "game", "resources": resources}]},
        "status": {"containerStatuses": [{"name": "game", "containerID": "c", **container}]},
    }


RUNS = {"started": True, "state": {"running": {"startedAt": REQUESTED}}}


def terminated(code: int, finished: str = SOON, **fields: Any) -> dict[str, Any]:
    return {"state": {"terminated": {"exitCode": code, "startedAt": REQUESTED, "finishedAt": finished, **fields}}}


class Kube(MemoryKube):
    """Its merges check the version and change annotations only."""

    def merge(self, path: str, body: Object) -> None:
        self._ask("PATCH", path)
        stored = self.objects[path]
        if body["metadata"]["resourceVersion"] != stored["metadata"]["resourceVersion"]:
            raise Conflict(path)
        annotations = {**stored["metadata"].get("annotations", {}), **body["metadata"]["annotations"]}
        remaining = {name: text for name, text in annotations.items() if text is not None}
        self._stored(path, {**stored, "metadata": {**stored["metadata"], "annotations": remaining}})


class Cluster:
    """One server and a recorder, whose work is done immediately instead of in its thread."""

    def __init__(self, replicas: int = 0) -> None:
        self.kube = Kube()
        self.server = ServerObjects(1)
        self.recorder = StopRecorder(self.kube, "games", lambda id: self.server)
        self.set(statefulset(replicas))

    def set(self, statefulset: Object) -> None:
        stored = self.kube.objects.get(PATH, {"metadata": {}})
        annotations = {**stored["metadata"].get("annotations", {}), **statefulset["metadata"]["annotations"]}
        self.kube._stored(PATH, {**statefulset, "metadata": {**statefulset["metadata"], "annotations": annotations}})
        self.server = ServerObjects(1, statefulset=self.kube.objects[PATH], events=self.server.events)

    def run(self, change: Callable[[StopRecorder], None]) -> Stop | None:
        change(self.recorder)
        while not self.recorder._work.empty():
            self.recorder._work.get()[1]()
        return stop_of(self.kube.objects[PATH])

    def pod(self, before: Object | None, now: Object, *, deleted: bool = False) -> Stop | None:
        return self.run(lambda recorder: recorder.pod_changed(1, before, now, deleted))


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (terminated(0), None),
        # How Java exits after SIGTERM, once its hooks are done, and after Ctrl-C.
        (terminated(143), None),
        (terminated(130), None),
        (terminated(1), "The game failed as it stopped (exit code 1); its last save may be incomplete."),
        (terminated(137, LATE), "The game had not stopped after 120 s and was killed; unsaved progress is lost."),
        (terminated(137), "The game was killed as it stopped (exit code 137); unsaved progress is lost."),
        (
            terminated(137, reason="OOMKilled"),
            "The game ran out of memory as it stopped (its limit is 1 GiB); unsaved progress is lost.",
        ),
        (
            terminated(137, reason="ContainerStatusUnknown"),
            "Its node lost track of the game as it stopped. Whether it saved its world is unknown.",
        ),
    ],
)
def test_a_stop_is_recorded_with_what_went_wrong(end: dict[str, Any], reason: str | None) -> None:
    """The kubelet reports the end before the pod is deleted, and again as it is deleted; the record stays the same."""
    cluster = Cluster()
    stopping, stopped = pod(RUNS, **DELETED), pod(end, **DELETED)
    was_killed = reason is not None and reason.endswith("unsaved progress is lost.")
    stop = Stop("one", end["state"]["terminated"]["finishedAt"], reason, killed=was_killed)
    assert cluster.pod(pod(RUNS), stopping) == Stop("one", REQUESTED, None, LATE)
    assert cluster.pod(stopping, stopped) == stop
    writes = cluster.kube.asked.count(f"PATCH {PATH}")
    # The kubelet deletes the pod in the end, once everything is cleaned up.
    last_deletion: dict[str, Any] = {"deletionTimestamp": "2026-01-31T12:02:05Z", "deletionGracePeriodSeconds": 0}
    final = pod(end, **last_deletion)
    assert cluster.pod(stopped, final) == cluster.pod(final, final, deleted=True)
    recorded = stop_of(cluster.kube.objects[PATH])
    assert recorded == stop
    # Another replica is late.
    assert cluster.pod(pod(RUNS), stopping) is not None
    assert cluster.kube.asked.count(f"PATCH {PATH}") == writes == 2


@pytest.mark.parametrize(
    ("ready_changed", "claim"),
    [(REQUESTED, "it was not ready for players yet."), (SOON, "unsaved progress is lost."), (None, "is lost.")],
)
def test_only_a_game_that_was_ready_can_lose_progress(ready_changed: str | None, claim: str) -> None:
    """A real image that still downloads its game ignores SIGTERM, until it is killed."""
    cluster, stopped = Cluster(), pod(terminated(137, LATE), **DELETED)
    if ready_changed:
        stopped["status"]["conditions"] = [{"type": "Ready", "status": "False", "lastTransitionTime": ready_changed}]
    stop = cluster.pod(pod(RUNS, **DELETED), stopped)
    assert stop is not None
    assert stop.killed
    assert (stop.reason or "").startswith("The game had not stopped after 120 s and was killed; ")
    assert (stop.reason or "").endswith(claim)


def test_a_node_whose_clock_is_behind_hides_no_failed_save() -> None:
    """By the node's clock, the game ended before the stop was asked for. It was seen running after that."""
    early, failure = (
        "2026-01-31T11:59:57Z",
        "The game failed as it stopped (exit code 1); its last save may be incomplete.",
    )
    cluster = Cluster()
    stopping, stopped = pod(RUNS, **DELETED), pod(terminated(1, early), **DELETED)
    cluster.pod(pod(RUNS), stopping)
    assert cluster.pod(stopping, stopped) == Stop("one", REQUESTED, failure)
    assert cluster.pod(stopped, stopped, deleted=True) == Stop("one", REQUESTED, failure)

    cluster = Cluster()
    killed = pod(terminated(137, early), **DELETED)
    cluster.pod(pod(RUNS), stopping)
    stop = cluster.pod(stopping, killed)
    assert stop is not None
    assert stop.killed


REMOVED = "Its pod was removed before its game had ended. Whether it saved its world, or still runs, is unknown."


def test_a_pod_that_was_removed_before_its_game_had_ended_is_no_clean_stop() -> None:
    """As by `kubectl delete --force`, which sets the grace period to 0. The next start removes the record."""
    cluster = Cluster()
    stopping = pod(RUNS, **DELETED)
    cluster.pod(pod(RUNS), stopping)
    at_once: dict[str, Any] = {"deletionTimestamp": SOON, "deletionGracePeriodSeconds": 0}
    assert cluster.pod(stopping, pod(RUNS, **at_once), deleted=True) == Stop("one", SOON, REMOVED)
    # Another replica had no watch in that time. It knows less, and takes nothing away.
    assert cluster.pod(stopping, stopping, deleted=True) == Stop("one", SOON, REMOVED)

    cluster = Cluster()
    assert cluster.pod(pod(RUNS), pod(RUNS, **at_once), deleted=True) == Stop("one", SOON, REMOVED)


def test_a_pod_that_was_gone_when_the_watch_came_back_may_have_stopped_well() -> None:
    """Its last version that was seen says nothing about its end."""
    cluster = Cluster()
    stopping = pod(RUNS, **DELETED)
    cluster.pod(pod(RUNS), stopping)
    assert cluster.pod(stopping, stopping, deleted=True) == Stop("one", REQUESTED, None)


def test_a_server_that_is_created_without_a_start_is_stopped_since_then() -> None:
    """It is recorded, because a later change of the StatefulSet looks like a stop that nobody saw."""
    cluster = Cluster()
    created = {**statefulset(), "metadata": {"creationTimestamp": REQUESTED, "generation": 1}}
    assert cluster.run(lambda recorder: recorder.statefulset_changed(1, None, created, False)) == Stop(
        "", REQUESTED, None
    )
    changed = {**created, "metadata": {"creationTimestamp": REQUESTED, "generation": 2}}
    cluster = Cluster()
    assert cluster.run(lambda recorder: recorder.statefulset_changed(1, None, changed, False)) is None


def test_a_failed_start_is_recorded() -> None:
    """A crash loop, with its reason from before the stop; the pod's end does not change it."""
    cluster = Cluster()
    crash = terminated(1, "2026-01-31T11:59:00Z")
    loop = {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": crash["state"]}
    # The kubelet shows the last run's end as the container's end.
    stopped = pod(crash, **DELETED)
    assert cluster.pod(pod(loop), pod(loop, **DELETED)) == Stop("one", REQUESTED, FAILED)
    assert cluster.pod(pod(loop, **DELETED), stopped, deleted=True) == Stop("one", REQUESTED, FAILED)


def test_a_failed_start_without_a_container_is_recorded() -> None:
    """An unscheduled pod is deleted immediately. The kubelet says that it lost a container without an image."""
    reason = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "2 node(s) had taints"}
    cluster = Cluster()
    cluster.server = ServerObjects(1, statefulset=cluster.server.statefulset, claim={"status": {"phase": "Bound"}})
    waiting = {"metadata": {"uid": "one"}, "spec": {}, "status": {"conditions": [reason]}}
    recorded = cluster.pod(waiting, waiting, deleted=True)
    assert recorded is not None
    assert recorded.reason == "Its last start failed: No node can take the server. (2 node(s) had taints)"

    cluster = Cluster()
    pulling = {"containerID": "", "image": "a:1", "state": {"waiting": {"reason": "ErrImageNeverPull"}}}
    lost = {"containerID": "", "state": {"terminated": {"exitCode": 137, "reason": "ContainerStatusUnknown"}}}
    cluster.pod(pod(pulling), pod(pulling, **DELETED))
    recorded = cluster.pod(pod(pulling, **DELETED), pod(lost, **DELETED))
    assert recorded == Stop("one", REQUESTED, "Its last start failed: The image a:1 was not found.")


def test_a_refused_pod_is_recorded() -> None:
    """There is no pod that could show it."""
    cluster = Cluster(1)
    refused = {"reason": "FailedCreate", "message": "exceeded quota: mem", "involvedObject": {"uid": PATH}}
    cluster.server = ServerObjects(1, statefulset=cluster.server.statefulset, events=(refused,))
    cluster.set(statefulset(0))
    recorded = cluster.run(lambda recorder: recorder.statefulset_changed(1, statefulset(1), statefulset(0), False))
    assert recorded is not None
    assert recorded.reason == "Its last start failed: A quota refused the server's pod: mem"


def test_a_restart_is_no_stop() -> None:
    """Nor is a pod that Kubernetes moves: the new pod replaces it."""
    cluster = Cluster(1)
    assert cluster.pod(pod(RUNS, **DELETED), pod(terminated(137, LATE), **DELETED)) is None


def test_a_new_server_does_not_get_its_predecessors_stop() -> None:
    """The predecessor's pod may end after the new server was created. The list keeps the pod's owner to detect that."""
    cluster = Cluster()
    owner: dict[str, Any] = {"ownerReferences": [{"kind": "StatefulSet", "controller": True, "uid": "another"}]}
    stopped = index._trim_pod(pod(terminated(1), **DELETED, **owner))
    assert cluster.pod(None, stopped, deleted=True) is None
    own: dict[str, Any] = {"ownerReferences": [{"kind": "StatefulSet", "controller": True, "uid": PATH}]}
    assert cluster.pod(None, index._trim_pod(pod(terminated(1), **DELETED, **own)), deleted=True) is not None


def test_a_start_removes_the_record() -> None:
    """The next stop gets a new record, even if no replica saw the start."""
    cluster = Cluster()
    cluster.pod(pod(RUNS, **DELETED), pod(terminated(1), **DELETED))
    cluster.set(statefulset(1))
    started = cluster.server.statefulset
    assert started is not None
    assert cluster.run(lambda recorder: recorder.statefulset_changed(1, None, started, False)) is None
    assert LAST_STOP not in cluster.kube.objects[PATH]["metadata"]["annotations"]

    cluster = Cluster()
    cluster.pod(pod(RUNS, **DELETED), pod(terminated(1), **DELETED))
    clean = pod(terminated(0, LATE), "two", **DELETED)
    assert cluster.pod(pod(RUNS, "two", **DELETED), clean) == Stop("two", LATE, None)


def test_a_frozen_replica_does_not_overwrite_a_later_record() -> None:
    """A later stop is recorded already."""
    cluster = Cluster()
    late = Stop("two", LATE, None)
    cluster.pod(pod(RUNS, "two", **DELETED), pod(terminated(0, LATE), "two", **DELETED))
    assert cluster.pod(pod(RUNS, **DELETED), pod(terminated(1), **DELETED)) == late


def test_the_controller_may_write_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the recorder reads and writes again; it never overwrites a version that it has not read."""
    monkeypatch.setattr("service.cluster.stoprecorder.time.sleep", lambda seconds: None)
    cluster = Cluster()

    def controller(method: str, path: str) -> None:
        if method == "PATCH" and cluster.kube.asked.count(f"PATCH {PATH}") < 4:
            cluster.kube._stored(PATH, cluster.kube.objects[PATH])

    cluster.kube.before = controller
    assert cluster.pod(pod(RUNS, **DELETED), pod(terminated(1), **DELETED)) is not None
    assert cluster.kube.asked.count(f"PATCH {PATH}") == 4


def test_while_kubernetes_is_away_nothing_breaks() -> None:
    """A stop that could not be recorded then is not recorded later."""
    cluster = Cluster()
    cluster.kube.away()
    with pytest.raises(ClusterUnavailable):
        cluster.pod(pod(RUNS, **DELETED), pod(terminated(1), **DELETED))
    cluster.kube.back()
    assert stop_of(cluster.kube.objects[PATH]) is None


def test_a_long_reason_is_cut() -> None:
    """An annotation's size is limited."""
    recorded = stop_of({"metadata": {"annotations": {LAST_STOP: Stop("a", "b", "x" * 10**6).as_text()}}})
    assert recorded is not None
    assert recorded.reason == "x" * LONGEST_REASON
