"""A cluster in memory whose servers live, and what has to be in the log of events about them.

Each observer hears of changes when the test says so, as from watches of its own.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from service.kube.times import stamp
from service.kube.types import Object
from service.operations.interfaces import Cluster, Listener
from service.servers.objects import ServerObjects
from service.servers.usage import Usage

BEGIN = datetime(2026, 11, 27, 12, tzinfo=UTC)


class EventWorld:
    """The servers, and for each uid the types of its events so far."""

    def __init__(self) -> None:
        self.version = 0
        self.now = BEGIN
        self.statefulsets: dict[int, Object] = {}
        self.pods: dict[int, Object] = {}
        self.releases: dict[int, Object] = {}
        self.usage: dict[int, Usage] = {}
        self.expected: dict[str, list[str]] = {}
        self.observers: list[ObservedCluster] = []
        # The server of each StatefulSet, by their uids.
        self._owners: dict[str, str] = {}
        self._uids = 0

    def observed(self) -> ObservedCluster:
        """The cluster as a new process sees it."""
        cluster = ObservedCluster(self)
        self.observers.append(cluster)
        return cluster

    # -- verbs ---------------------------------------------------------------------------------------------------

    def create(self, id: int, *, start: bool = True) -> None:
        """A server with a uid of its own; an earlier one with this id must be gone."""
        self._uids += 1
        uid = f"server-{self._uids}"
        self.expected[uid] = ["created"]
        self._put(self.releases, "release", id, {"metadata": {"name": f"sh.{id}", "labels": {"status": "deployed"}}})
        record = {"uid": uid, "customer": f"c{id}", "game": "teeworlds", "ram_gb": 1, "disk_gb": 2}
        statefulset = {
            "metadata": {
                "name": f"server-{id}",
                "uid": f"workload-{self._uids}",
                "generation": 1,
                "creationTimestamp": self.time(),
                "annotations": {"gameserver/server": json.dumps(record)},
            },
            "spec": {"replicas": int(start)},
            "status": {},
        }
        self._put(self.statefulsets, "statefulset", id, statefulset)

    def start(self, id: int) -> None:
        self._set(id, 1)

    def stop(self, id: int) -> None:
        self._set(id, 0)

    def suspend(self, id: int) -> None:
        if "suspended" not in self._record(id):
            self.expected[self.uid(id)].append("suspended")
            self._set(id, 0, suspended={"reason": "unpaid", "since": self.time()})

    def unsuspend(self, id: int) -> None:
        if "suspended" in self._record(id):
            self.expected[self.uid(id)].append("unsuspended")
            self._set(id, 0, suspended=None)

    def idle_stop(self, id: int) -> None:
        self.expected[self.uid(id)].append("idle-stopped")
        self._set(id, 0, idle_stopped=self.time())

    def delete(self, id: int) -> None:
        """Uninstall the release; the pod ends later, with `step`."""
        uid, pod = self.uid(id), self.pods.get(id)
        self._drop(self.statefulsets, "statefulset", id)
        self._drop(self.releases, "release", id)
        if pod is None or self._owner(pod) != uid or _is_told(pod):
            self.expected[uid].append("deleted")

    # -- Kubernetes ----------------------------------------------------------------------------------------------

    def step(self, id: int) -> None:
        """The next thing that Kubernetes does with the server's pod."""
        statefulset, pod = self.statefulsets.get(id), self.pods.get(id)
        if pod is None:
            if statefulset is not None and statefulset["spec"]["replicas"]:
                self._start_pod(id, statefulset)
            return
        owner = pod["metadata"]["ownerReferences"][0]["uid"]
        wanted = statefulset is not None and statefulset["spec"]["replicas"] and statefulset["metadata"]["uid"] == owner
        status = pod["status"]["containerStatuses"][0]
        if "deletionTimestamp" in pod["metadata"]:
            self._end_pod(id, "stopped")
        elif not wanted:
            deadline = stamp(self.now + timedelta(seconds=30))
            if _has_ended(status):
                self._ended(id, pod, "stopped")
            self._pod(id, metadata={"deletionTimestamp": deadline, "deletionGracePeriodSeconds": 30})
        elif "waiting" in status["state"]:
            self._run(id, status)
        elif "terminated" in status["state"]:
            # The kubelet shows a back-off first.
            ended = status["state"]["terminated"]
            self._container(id, state={"waiting": {"reason": "CrashLoopBackOff"}}, lastState={"terminated": ended})
        elif not _is_ready(pod):
            self.expected[self._owner(pod)].append("running")
            self._pod(id, ready="True")

    def crash(self, id: int, code: int, reason: str = "Error") -> None:
        """The game ends by itself, if it runs."""
        pod = self.pods.get(id)
        if pod is None or "deletionTimestamp" in pod["metadata"]:
            return
        status = pod["status"]["containerStatuses"][0]
        if "running" not in status["state"]:
            return
        types = {"OOMKilled": "out-of-memory", "Completed": "exited"}
        self.expected[self._owner(pod)].append(types.get(reason, "crashed"))
        self._container(id, state={"terminated": self._terminated(status, code, reason)}, ready="False")

    def restart_at_once(self, id: int) -> None:
        """The kubelet starts a game again before anybody sees that it ended."""
        self.crash(id, 1)
        pod = self.pods.get(id)
        if pod is None or "deletionTimestamp" in pod["metadata"]:
            return
        if "terminated" in pod["status"]["containerStatuses"][0]["state"]:
            self._run(id, pod["status"]["containerStatuses"][0])

    def kill(self, id: int) -> None:
        """A stopping game is killed."""
        pod = self.pods.get(id)
        if pod is not None and "deletionTimestamp" in pod["metadata"]:
            self._end_pod(id, "killed")

    def fill(self, id: int, *, full: bool) -> None:
        """The disk becomes full, or is freed."""
        before = self.usage.get(id)
        if full and not (before and before.full):
            self.expected[self.uid(id)].append("disk-full")
        as_of = stamp(datetime.now(UTC))
        self.usage[id] = Usage(as_of, enforced=True, used=100 if full else 10, size=100, full=full)

    # -- reads ---------------------------------------------------------------------------------------------------

    def time(self) -> str:
        return stamp(self.now)

    def uid(self, id: int) -> str:
        return str(self._record(id)["uid"])

    def objects(self, id: int) -> ServerObjects:
        return ServerObjects(
            id,
            statefulset=self.statefulsets.get(id),
            pod=self.pods.get(id),
            releases=tuple(release["metadata"] for release in [self.releases.get(id)] if release),
            usage=self.usage.get(id),
        )

    # -- the objects ---------------------------------------------------------------------------------------------

    def _record(self, id: int) -> dict[str, Any]:
        annotations = self.statefulsets[id]["metadata"]["annotations"]
        return cast("dict[str, Any]", json.loads(annotations["gameserver/server"]))

    def _set(self, id: int, replicas: int, **fields: Any) -> None:
        statefulset = deepcopy(self.statefulsets[id])
        record = {key: value for key, value in {**self._record(id), **fields}.items() if value is not None}
        statefulset["metadata"]["annotations"]["gameserver/server"] = json.dumps(record)
        statefulset["metadata"]["generation"] += 1
        statefulset["spec"]["replicas"] = replicas
        self._put(self.statefulsets, "statefulset", id, statefulset)

    def _start_pod(self, id: int, statefulset: Object) -> None:
        self._uids += 1
        pod = {
            "metadata": {
                "name": f"server-{id}-0",
                "uid": f"pod-{self._uids}",
                "creationTimestamp": self.time(),
                "ownerReferences": [{"controller": True, "uid": statefulset["metadata"]["uid"]}],
            },
            "spec": {"containers": [{"name": "game"}], "nodeName": "node"},
            "status": {
                "conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": self.time()}],
                "containerStatuses": [{"name": "game", "restartCount": 0, "state": {"waiting": {}}}],
            },
        }
        self.expected[self.uid(id)].append("started")
        self._put(self.pods, "pod", id, pod)

    def _run(self, id: int, status: Object) -> None:
        ended = status["state"].get("terminated") or (status.get("lastState") or {}).get("terminated")
        run = status["restartCount"] + bool(ended)
        state = {"running": {"startedAt": self.time()}}
        last = {"terminated": ended} if ended else {}
        self._container(id, state=state, lastState=last, restartCount=run, containerID=f"run-{run}")

    def _terminated(self, status: Object, code: int, reason: str) -> Object:
        began = status["state"]["running"]["startedAt"]
        number = status["restartCount"]
        at = self.time()
        return {
            "exitCode": code, "reason": reason, "startedAt": began, "finishedAt": at, "containerID": f"run-{number}"
        }  # fmt: skip

    def _container(self, id: int, *, ready: str = "False", **fields: Any) -> None:
        pod = deepcopy(self.pods[id])
        pod["status"]["containerStatuses"][0].update(fields)
        self.pods[id] = pod
        self._pod(id, ready=ready)

    def _pod(self, id: int, *, metadata: Object | None = None, ready: str | None = None) -> None:
        pod = deepcopy(self.pods[id])
        pod["metadata"].update(metadata or {})
        condition = pod["status"]["conditions"][0]
        if ready is not None and ready != condition["status"]:
            condition.update(status=ready, lastTransitionTime=self.time())
        self._put(self.pods, "pod", id, pod)

    def _end_pod(self, id: int, type_: str) -> None:
        pod = self.pods[id]
        status = pod["status"]["containerStatuses"][0]
        runs = "running" in status["state"]
        if not _is_told(pod):
            self._ended(id, pod, type_ if runs else "stopped")
        if runs:
            code = 137 if type_ == "killed" else 143
            self._container(id, state={"terminated": self._terminated(status, code, "Error")})
        self._drop(self.pods, "pod", id)

    def _ended(self, id: int, pod: Object, type_: str) -> None:
        uid = self._owner(pod)
        self.expected[uid].append(type_)
        if id not in self.statefulsets or self.uid(id) != uid:
            self.expected[uid].append("deleted")

    def _owner(self, pod: Object) -> str:
        """The uid of the server that a pod belongs to."""
        return self._owners[pod["metadata"]["ownerReferences"][0]["uid"]]

    def _put(self, objects: dict[int, Object], kind: str, id: int, item: Object) -> None:
        self.version += 1
        item["metadata"]["resourceVersion"] = str(self.version)
        if kind == "statefulset":
            uid = json.loads(item["metadata"]["annotations"]["gameserver/server"])["uid"]
            self._owners[item["metadata"]["uid"]] = uid
        before, objects[id] = objects.get(id), item
        self._notify(id, kind, before, item, False)

    def _drop(self, objects: dict[int, Object], kind: str, id: int) -> None:
        self.version += 1
        item = deepcopy(objects.pop(id))
        item["metadata"]["resourceVersion"] = str(self.version)
        self._notify(id, kind, item, item, True)

    def _notify(self, id: int, kind: str, before: Object | None, item: Object, deleted: bool) -> None:
        for observer in self.observers:
            observer.waiting.append((id, kind, before, deepcopy(item), deleted))


@dataclass
class ObservedCluster:
    """The cluster as one process sees it: as far as its watches have told."""

    world: EventWorld
    waiting: deque[tuple[int, str, Object | None, Object, bool]] = field(default_factory=deque)
    listeners: list[Listener] = field(default_factory=list)
    seen: dict[str, dict[int, Object]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        world = self.world
        for kind, objects in (("statefulset", world.statefulsets), ("pod", world.pods), ("release", world.releases)):
            for id, item in objects.items():
                self.waiting.append((id, kind, None, item, False))

    def hear(self, count: int) -> None:
        """The watches receive up to `count` changes."""
        for _ in range(min(count, len(self.waiting))):
            id, kind, before, item, deleted = self.waiting.popleft()
            objects = self.seen.setdefault(kind, {})
            if deleted:
                objects.pop(id, None)
            else:
                objects[id] = item
            for listener in self.listeners:
                listener(id, kind, before, item, deleted)

    def known(self, id: int) -> ServerObjects | None:
        release = self.seen.get("release", {}).get(id)
        objects = ServerObjects(
            id,
            statefulset=self.seen.get("statefulset", {}).get(id),
            pod=self.seen.get("pod", {}).get(id),
            releases=(release["metadata"],) if release else (),
            usage=self.world.usage.get(id),
        )
        return objects if objects.statefulset or objects.pod or release else None

    def known_servers(self) -> Iterator[ServerObjects]:
        return (objects for id in self.known_ids() if (objects := self.known(id)))

    def known_ids(self) -> list[int]:
        return sorted({id for objects in self.seen.values() for id in objects})

    def subscribe(self, listener: Listener) -> None:
        self.listeners.append(listener)

    def server(self, id: int) -> ServerObjects:
        return replace(self.world.objects(id))

    def as_cluster(self) -> Cluster:
        return cast("Cluster", self)


def _has_ended(status: Object) -> bool:
    """Whether the newest run of a container has ended."""
    return "terminated" in status["state"] or ("waiting" in status["state"] and "lastState" in status)


def _is_told(pod: Object) -> bool:
    """Whether the end of a pod shows before the pod is gone: its game had ended when its deletion was requested."""
    return "deletionTimestamp" in pod["metadata"] and _has_ended(pod["status"]["containerStatuses"][0])


def _is_ready(pod: Object) -> bool:
    return bool(pod["status"]["conditions"][0]["status"] == "True")
