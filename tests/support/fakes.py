"""Fakes of service/operations/interfaces.py, over one small in-memory cluster.

They keep the same contract as the real implementations: tests/contract runs the same tests against both.
"""

from __future__ import annotations

import errno
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from copy import deepcopy
from dataclasses import replace
from typing import Any

from service.console.stdin import Attachment
from service.errors import (
    ClusterUnavailable,
    FieldConflict,
    FileAccessNotInstalled,
    InvalidRequest,
    NoNodePortLeft,
    OperationInProgress,
    Problem,
    RefusedByCluster,
    ReleaseMissing,
    ServerNotFound,
)
from service.files.accounts import Account
from service.kube.types import Object
from service.logs.kept import KeptLog
from service.logs.lines import MOST_BYTES, Run, lines_of, nanoseconds
from service.operations.interfaces import Listener
from service.records.secret import Change, Records
from service.servers.accessors import game_status, uid
from service.servers.consumption import Consumption
from service.servers.names import ID, KEPT_SINCE, REUSED_SINCE, SCHEDULES
from service.servers.objects import Objects, RconPassword, ServerObjects, own_and_former, run_of
from service.servers.restored import taken_up
from service.servers.spec import never_used, server_uid
from service.servers.usage import Usage
from service.servers.values import Values, runs
from service.tokens import Token, TokensFile, digest_of, holder
from service.tokenstore.records import TOKEN, all_of

NAMESPACE = "gameservers"
TIME = "2026-01-31T12:00:00Z"
ANNOTATION = "gameserver/server"
FINGERPRINT = "SHA256:5wMa5f3+SChKrHuo9dV1OICOElmgHT9h7Mkkb4uyCoQ"


_FIXED = ("dataSource", "volumeName")


def _defers(values: Values) -> bool:
    return bool(values.get("storage", {}).get("deferred"))


def _time(line: str) -> int:
    """The time of a line of a log, in seconds since 1970."""
    return (nanoseconds(line.partition(" ")[0]) or 0) // 10**9


class World:
    """The objects of the in-memory cluster, and what a test may do to it."""

    def __init__(self) -> None:
        self.values: dict[int, Values] = {}
        self.revisions: dict[int, list[str]] = {}
        self.statefulsets: dict[int, Object] = {}
        self.pods: dict[int, Object] = {}
        self.claims: dict[int, Object] = {}
        self.services: dict[str, Object] = {}
        # The names of the Services in a release's manifest, whether or not the cluster has them.
        self.made_services: dict[int, list[str]] = {}
        self.events: dict[int, list[Object]] = {}
        # What connects to the standard input of a server's game.
        self.inputs: dict[int, Callable[[float], AbstractContextManager[Attachment]]] = {}
        self.nodes: dict[str, Object] = {}
        self.volumes: dict[str, Object] = {}
        # The Jobs that make disks, and their pods. A Job makes its disk at once, unless a test says otherwise.
        self.jobs: dict[int, Object] = {}
        self.job_pods: dict[int, Object] = {}
        self.makes_disks = True
        # Of each game: what it has written, and what it had written before its last restart.
        self.logs: dict[int, str] = {}
        self.previous_logs: dict[int, str] = {}
        self.away = False
        self.password_since = TIME
        self.expandable = False
        # Whether the storage can make snapshots.
        self.snapshots = False
        # The addresses of the node that has the disks.
        self.host, self.host_ipv6 = "203.0.113.7", "2001:db8::7"
        # Whether the storage grows a disk at once; otherwise its claim stays as it is.
        self.grows = True
        # What the agents say about the disks, by server.
        self.usage: dict[int, Usage] = {}
        # What the games use, by server.
        self.consumption: dict[int, Consumption] = {}
        self.node_port, self.last_node_port = 31000, 32767
        # Who has subscribed; a test that changes something calls `tell`.
        self.listeners: list[Listener] = []
        # The problem that the next write of Helm raises.
        self.failure: Problem | None = None
        self.history: list[tuple[str, int]] = []
        # The chart of each release.
        self.charts: dict[int, str] = {}

    def tell(self, id: int, kind: str, before: Object | None, now: Object, deleted: bool = False) -> None:
        """Tell a change to all who have subscribed, as the watches do."""
        for listener in self.listeners:
            listener(id, kind, before, now, deleted)

    def write(self, id: int, *texts: str, at: str = TIME) -> None:
        """Make the server's game write lines to its log."""
        self.logs[id] = self.logs.get(id, "") + "".join(f"{at} {text}\n" for text in texts)

    def log_lines(self, id: int, *, previous: bool = False) -> list[str]:
        """What the server's game has written, each line with its time; with `previous`, in its run before."""
        return (self.previous_logs if previous else self.logs).get(id, "").splitlines(keepends=True)

    def ended(self, id: int) -> bool:
        """Whether the game's container has ended."""
        return "terminated" in (game_status(self.pods.get(id, {})) or {}).get("state", {})

    def restart(self, id: int) -> None:
        """Make the server's game crash and start again in the same pod."""
        self.previous_logs[id] = self.logs.pop(id, "")
        status = self.pods[id]["status"]
        count = (game_status(self.pods[id]) or {}).get("restartCount", 0)
        state = {"name": "game", "restartCount": count + 1, "state": {"running": {"startedAt": TIME}}}
        self.pods[id] = {**self.pods[id], "status": {**status, "containerStatuses": [state]}}

    def check(self) -> None:
        if self.away:
            raise ClusterUnavailable

    def apply(self, id: int, values: Values) -> None:
        """Create the objects of the gameserver chart, with the fields that the API reads. Raises NoNodePortLeft."""
        name, server, before = f"server-{id}", values.get("server", {}), self.statefulsets.get(id)
        record = {
            "game": values.get("game", "minecraft"),
            "ram_gb": values.get("ramGb", 2),
            "disk_gb": values.get("diskGb", 10),
            "options": server.get("options", {}),
            "customer": server.get("customer", ""),
        } | {key: server[key] for key in ("uid", "suspended", "restoring") if server.get(key)}
        named = {"idle_stop_minutes": "idleStopMinutes", "idle_stopped": "idleStopped", "backup_keep": "backupKeep"}
        record |= {key: server[name] for key, name in named.items() if server.get(name)}
        replicas = 0 if server.get("restoring") else values.get("replicas", 1)
        annotations = {ANNOTATION: json.dumps(record)}
        schedules = {SCHEDULES: json.dumps(values["schedules"])} if values.get("schedules") else {}
        # Helm leaves annotations alone that others have written.
        others = dict(self.statefulsets.get(id, {}).get("metadata", {}).get("annotations", {}))
        others.pop(SCHEDULES, None)
        metadata = {
            "name": name,
            "namespace": NAMESPACE,
            "labels": {"gameserver/id": str(id)},
            "creationTimestamp": TIME,
        }
        self.statefulsets[id] = {
            "metadata": {**metadata, "annotations": {**others, **annotations, **schedules}},
            "spec": {"replicas": replicas, "template": {"spec": {"containers": [{"name": "game"}]}}},
            "status": {},
        }
        storage, existing = values.get("storage", {}), self.claims.get(id, {}).get("spec")
        if existing is not None or not storage.get("deferred"):
            # What cannot be changed stays.
            source = {"dataSource": storage["dataSource"]} if storage.get("dataSource") else {}
            fixed = source if existing is None else {k: existing[k] for k in _FIXED if k in existing}
            self.claims[id] = {
                "metadata": {**metadata, "annotations": annotations},
                "spec": {
                    "accessModes": ["ReadWriteOnce"],
                    "resources": {"requests": {"storage": f"{record['disk_gb']}Gi"}},
                    **fixed,
                },
                "status": self._claim_status(id, f"{record['disk_gb']}Gi", runs=bool(replicas)),
            }
        public = values.get("rcon", {}).get("visibility", "public") == "public"
        ports = values.get("ports", [{"name": "primary", "port": 25565, "protocol": "TCP"}])
        listed = [*ports, {"name": "rcon", "port": 25575, "protocol": "TCP"}] if public else ports
        services = [
            self._service(name, "NodePort", listed),
            self._service(f"{name}-sftp", "NodePort", [{"name": "sftp", "port": 22, "protocol": "TCP"}]),
        ]
        if server.get("suspended") and services[1]:
            self.services[f"{name}-sftp"]["metadata"]["annotations"] = {"gameserver/suspended": "true"}
        self.made_services[id] = [name, f"{name}-sftp"]
        if not public:
            self._service(f"{name}-rcon", "ClusterIP", [{"name": "rcon", "port": 25575, "protocol": "TCP"}])
            self.made_services[id].append(f"{name}-rcon")
        self.pods.pop(id, None)
        if replicas:
            self.run(id)
        self.tell(id, "statefulset", before, self.statefulsets[id])
        # Helm creates everything that it can before it reports that a part was refused.
        if not all(services):
            raise NoNodePortLeft

    def _claim_status(self, id: int, size: str, *, runs: bool) -> dict[str, Any]:
        """As with a storage class that waits for the first pod."""
        if not self.bound(id):
            return {"phase": "Bound", "capacity": {"storage": size}} if runs else {"phase": "Pending"}
        status: dict[str, Any] = self.claims[id]["status"]
        return {**status, "capacity": {"storage": size}} if self.grows else status

    def through_helm(self, id: int) -> None:
        """Store the values as Helm does: numbers become doubles, and whole ones are written without a fraction."""

        def doubled(value: Any) -> Any:
            if isinstance(value, Mapping):
                return {key: doubled(inner) for key, inner in value.items()}
            if isinstance(value, list):
                return [doubled(inner) for inner in value]
            if isinstance(value, bool) or not isinstance(value, int | float):
                return value
            return int(float(value)) if float(value).is_integer() and abs(value) < 1e21 else float(value)

        self.values[id] = doubled(self.values[id])
        self.apply(id, self.values[id])

    def bound(self, id: int) -> bool:
        """Whether the server's disk has a volume."""
        return bool(self.claims.get(id, {}).get("status", {}).get("phase") == "Bound")

    def run(self, id: int) -> None:
        """Make the server's game answer."""
        self.pods[id] = {
            "metadata": {"name": f"server-{id}-0", "uid": "pod", "creationTimestamp": TIME},
            "spec": {"containers": [{"name": "game"}]},
            "status": {
                "phase": "Running",
                "startTime": TIME,
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": TIME}],
            },
        }

    def _service(self, name: str, type_: str, ports: Sequence[Mapping[str, Any]]) -> bool:
        """Create the Service; False if there are not enough node ports for it."""
        existing = {port["name"]: port for port in self.services.get(name, {}).get("spec", {}).get("ports", [])}
        missing = [port for port in ports if port["name"] not in existing]
        if type_ == "NodePort" and len(missing) > self.last_node_port - self.node_port:
            return False
        entries = []
        for port in ports:
            entry = dict(port)
            if type_ == "NodePort":
                entry["nodePort"] = existing.get(port["name"], {}).get("nodePort") or self._next_port()
            entries.append(entry)
        self.services[name] = {
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"type": type_, "ports": entries},
            "status": {},
        }
        return True

    def _next_port(self) -> int:
        self.node_port += 1
        return self.node_port

    def forget(self, id: int) -> None:
        """Remove everything but the disk, which the chart keeps at an uninstall."""
        self.values.pop(id, None)
        self.revisions.pop(id, None)
        statefulset = self.statefulsets.pop(id, None)
        self.pods.pop(id, None)
        self.jobs.pop(id, None)
        self.job_pods.pop(id, None)
        for name in (f"server-{id}", f"server-{id}-sftp", f"server-{id}-rcon"):
            self.services.pop(name, None)
        if statefulset is not None:
            self.tell(id, "statefulset", statefulset, statefulset, deleted=True)


class FakeCluster:
    """service.operations.interfaces.Cluster, over a World."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._annotating = threading.RLock()

    def server(self, id: int) -> ServerObjects:
        self.world.check()
        return self._objects(id)

    def addressed(self, id: int) -> ServerObjects:
        return self.server(id)

    def servers(
        self, limit: int, continue_: str | None, wanted: Callable[[ServerObjects], bool] | None = None
    ) -> tuple[list[ServerObjects], str | None]:
        self.world.check()
        if continue_ is not None and not continue_.isdigit():
            raise InvalidRequest(errors={"continue": ["is not from an earlier answer"]})
        after = int(continue_ or 0)
        ids = sorted(id for id in self._ids() if id > after)
        listed = [server for server in map(self._objects, ids) if wanted is None or wanted(server)]
        return listed[:limit], str(listed[limit - 1].id) if len(listed) > limit else None

    def known(self, id: int) -> ServerObjects | None:
        self.world.check()
        return self._objects(id) if id in self._ids() else None

    def known_servers(self) -> Iterator[ServerObjects]:
        return (self._objects(id) for id in self.known_ids())

    def known_ids(self) -> list[int]:
        self.world.check()
        return sorted(self._ids())

    def subscribe(self, listener: Listener) -> None:
        self.world.listeners.append(listener)

    def annotate(self, id: int, uid: str, name: str, change: Callable[[str | None], str | None]) -> str | None:
        self.world.check()
        with self._annotating:
            statefulset = self.world.statefulsets.get(id)
            if statefulset is None or server_uid(ServerObjects(id, statefulset)) != uid:
                raise ServerNotFound
            annotations = dict(statefulset["metadata"].get("annotations", {}))
            old = annotations.pop(name, None)
            text = change(old)
            if text == old:
                return text
            if text is not None:
                annotations[name] = text
            now = {**statefulset, "metadata": {**statefulset["metadata"], "annotations": annotations}}
            self.world.statefulsets[id] = now
            self.world.tell(id, "statefulset", statefulset, now)
        return text

    def service(self, name: str) -> Object | None:
        self.world.check()
        return deepcopy(self.world.services.get(name))

    def rcon_password(self, id: int) -> RconPassword | None:
        self.world.check()
        return RconPassword(f"password-{id}", self.world.password_since) if id in self.world.values else None

    def econ_password(self, id: int) -> str | None:
        self.world.check()
        return f"econ-{id}" if (self.world.values.get(id, {}).get("econ") or {}).get("enabled") else None

    @contextmanager
    def attached(self, id: int, pod: str, seconds: float) -> Iterator[Attachment]:
        self.world.check()
        found = self.world.pods.get(id)
        if found is None or uid(found) != pod or id not in self.world.inputs:
            raise ConnectionError(errno.ESTALE, "its pod has gone")
        with self.world.inputs[id](seconds) as attachment:
            yield attachment

    def kept_disks(self) -> list[Object]:
        self.world.check()
        kept = [deepcopy(claim) for id, claim in self.world.claims.items() if id not in self.world.revisions]
        return [claim for claim in kept if claim["metadata"].get("labels") and not never_used(claim)]

    def disks(self) -> list[tuple[Object, Usage | None]]:
        self.world.check()
        return [(deepcopy(claim), self.world.usage.get(id)) for id, claim in self.world.claims.items()]

    def usage(self, claim: Object | None) -> Usage | None:
        return self.world.usage.get(int(claim["metadata"]["labels"][ID])) if claim else None

    def keep_disk(self, id: int, since: str) -> None:
        self.world.check()
        if id in self.world.claims:
            self.world.claims[id]["metadata"].setdefault("annotations", {})[KEPT_SINCE] = since

    def reuse_disk(self, id: int, since: str) -> None:
        self.world.check()
        if id in self.world.claims:
            changes = taken_up(self.world.claims[id], id, NAMESPACE)
            changes["annotations"] |= {KEPT_SINCE: None, REUSED_SINCE: since}
            metadata = self.world.claims[id]["metadata"]
            for field in ("labels", "annotations"):
                merged = {**(metadata.get(field) or {}), **changes[field]}
                metadata[field] = {name: text for name, text in merged.items() if text is not None}

    def volume(self, name: str) -> Object | None:
        self.world.check()
        return deepcopy(self.world.volumes.get(name))

    def disk_job(self, id: int) -> ServerObjects:
        self.world.check()
        job, pod = self.world.jobs.get(id), self.world.job_pods.get(id)
        return replace(self._objects(id), statefulset=deepcopy(job), pod=deepcopy(pod), services={}, releases=())

    def make_disk(self, job: Object) -> None:
        self.world.check()
        id = int(job["metadata"]["labels"]["gameserver/id"])
        if id in self.world.jobs:
            return
        self.world.history.append(("make disk", id))
        self.world.jobs[id] = deepcopy(job)
        if self.world.makes_disks:
            self.world.job_pods[id] = {"metadata": {"name": f"server-{id}-disk-x"}, "status": {"phase": "Succeeded"}}
            self.world.claims[id]["status"] = {"phase": "Bound"}

    def erase_disk(self, id: int, confirm: Callable[[], None], *, unless_used: bool = False) -> None:
        self.world.check()
        if unless_used and not never_used(self.world.claims.get(id, {})):
            return
        confirm()
        self.world.history.append(("erase", id))
        # The claim is deleted once no pod uses it.
        if id in self.world.pods:
            self.world.claims[id]["metadata"]["deletionTimestamp"] = TIME
        else:
            self.world.claims.pop(id, None)

    def disk_has_snapshots(self, claim: Object) -> bool:
        self.world.check()
        return self.world.snapshots

    def disk_class_expandable(self, claim: Object) -> bool:
        self.world.check()
        return self.world.expandable

    def host(self, objects: Objects, families: Sequence[str] = ()) -> str | None:
        self.world.check()
        bound = (objects.claim or {}).get("status", {}).get("phase") == "Bound"
        host = self.world.host_ipv6 if tuple(families)[:1] == ("IPv6",) else self.world.host
        return host if bound else None

    def consumption(self, objects: Objects) -> Consumption | None:
        return self.world.consumption.get(objects.id) if objects.statefulset and objects.pod else None

    def pod_log_tail(self, id: int, pod: str, lines: int, previous: bool) -> str:
        self.world.check()
        if not self._is_still(id, pod):
            return ""
        return "\n".join(self.world.logs.get(id, "").splitlines()[-lines:])

    def log_text(self, id: int, pod: str, *, tail: int | None, since: int | None, previous: bool = False) -> str | None:
        self.world.check()
        if not self._is_still(id, pod):
            return None
        lines = [line for line in self.world.log_lines(id, previous=previous) if since is None or _time(line) >= since]
        text = "".join(lines if tail is None else lines[-tail:])
        return text.encode()[: MOST_BYTES + 1].decode(errors="replace")

    @contextmanager
    def log_stream(
        self, id: int, *, tail: int | None, since: int | None, follow: bool = True, previous: bool = False
    ) -> Iterator[Iterator[bytes] | None]:
        seen, run = len(self.world.log_lines(id)), self.pod_run(id)
        written = self.world.log_lines(id, previous=previous)
        old = [line for line in (written if previous else written[:seen]) if since is None or _time(line) >= since]
        if not follow:
            yield iter(["".join(old).encode()])
            return
        yield None if run is None else self._written(id, run, seen, old if tail is None else old[-tail:])

    def _written(self, id: int, run: tuple[str, int], seen: int, old: list[str]) -> Iterator[bytes]:
        """What is in the log, and then what a test adds to it, until the game's run ends."""
        ends = time.monotonic() + 60
        yield "".join(old).encode()
        while time.monotonic() < ends and self.pod_run(id) == run and not self.world.ended(id):
            new = self.world.log_lines(id)[seen:]
            seen += len(new)
            if new:
                yield "".join(new).encode()
            time.sleep(0.01)

    def pod_run(self, id: int) -> tuple[str, int] | None:
        self.world.check()
        return run_of(self.world.statefulsets.get(id), self.world.pods.get(id))

    def _is_still(self, id: int, pod: str) -> bool:
        return id in self.world.pods and (uid(self.world.pods[id]) or "") == pod

    def ready(self) -> bool:
        return not self.world.away

    def _ids(self) -> set[int]:
        return {*self.world.statefulsets, *self.world.revisions, *self.world.pods}

    def _objects(self, id: int) -> ServerObjects:
        world, name = self.world, f"server-{id}"
        names = (name, f"{name}-rcon", f"{name}-sftp")
        own, former = own_and_former(world.statefulsets.get(id), world.pods.get(id))
        return ServerObjects(
            id=id,
            statefulset=deepcopy(world.statefulsets.get(id)),
            pod=deepcopy(own),
            former_pod=deepcopy(former),
            claim=deepcopy(world.claims.get(id)),
            services={each: deepcopy(world.services[each]) for each in names if each in world.services},
            events=tuple(deepcopy(world.events.get(id, []))),
            nodes=deepcopy(world.nodes),
            usage=world.usage.get(id) if id in world.claims else None,
            releases=tuple(
                {
                    "name": f"sh.helm.release.v1.{name}.v{version}",
                    "labels": {"status": status, "version": str(version)},
                    "creationTimestamp": TIME,
                }
                for version, status in enumerate(world.revisions.get(id, []), 1)
            ),
        )


class FakeReleases:
    """service.operations.interfaces.Releases, over a World, of an API that came with the chart `chart`."""

    def __init__(self, world: World, chart: str = "0.1.0") -> None:
        self.world = world
        self.chart = chart
        self._locks: dict[int, threading.RLock] = {}
        self._guard = threading.Lock()

    @contextmanager
    def locked(self, id: int, wait: float = 0.0) -> Iterator[None]:
        self.world.check()
        with self._guard:
            lock = self._locks.setdefault(id, threading.RLock())
        if not lock.acquire(timeout=wait):
            raise OperationInProgress
        try:
            yield
        finally:
            lock.release()

    def confirm(self, id: int) -> None:
        self.world.check()

    def install(self, id: int, values: Values) -> None:
        with self.locked(id):
            self._upgrade("install", id, values)

    def current(self, id: int) -> Values | None:
        self.world.check()
        return deepcopy(self.world.values.get(id))

    def missing(self, id: int) -> list[str]:
        world, name = self.world, f"server-{id}"
        if id not in world.values:
            return []
        services = world.made_services[id]
        return [
            *([] if id in world.claims or _defers(world.values[id]) else [f"PersistentVolumeClaim {name}"]),
            *(f"Service {service}" for service in services if service not in world.services),
            *([] if id in world.statefulsets else [f"StatefulSet {name}"]),
        ]

    def change(self, id: int, change: Callable[[Values], Values]) -> bool:
        with self.locked(id):
            values = self.current(id)
            if values is None:
                raise ReleaseMissing if id in self.world.statefulsets else ServerNotFound
            changed = change(deepcopy(values))
            sound = self.world.revisions[id][-1] == "deployed"
            # Whoever else has scaled the server owns the field.
            replicas = self.world.statefulsets.get(id, {}).get("spec", {}).get("replicas", int(runs(values)))
            if sound and replicas not in (int(runs(values)), int(runs(changed))):
                raise FieldConflict
            if changed == values and sound and not self.missing(id):
                return False
            try:
                self._upgrade("change", id, changed)
            except RefusedByCluster:
                # The real one goes back to the old values, or each later write would be refused, too.
                self._upgrade("restore", id, values)
                raise
            return True

    def upgrade(self, id: int) -> bool:
        with self.locked(id):
            values = self.current(id)
            if values is None:
                raise ReleaseMissing if id in self.world.statefulsets else ServerNotFound
            sound = self.world.revisions[id][-1] == "deployed"
            if self.world.charts[id] == self.chart and sound and not self.missing(id):
                return False
            self._upgrade("upgrade", id, values)
            return True

    def uninstall(self, id: int) -> bool:
        with self.locked(id):
            if id not in self.world.revisions:
                return False
            self.world.history.append(("uninstall", id))
            self.world.forget(id)
            return True

    def _upgrade(self, kind: str, id: int, values: Values) -> None:
        world = self.world
        world.history.append((kind, id))
        failure, world.failure = world.failure, None
        revisions = world.revisions.setdefault(id, [])
        world.values[id] = deepcopy(values)
        world.charts[id] = self.chart
        if failure is not None:
            revisions.append("failed")
            raise failure
        try:
            world.apply(id, values)
        except NoNodePortLeft:
            revisions.append("failed")
            raise
        revisions[:] = ["superseded"] * len(revisions) + ["deployed"]


class FakeTokens:
    """service.operations.interfaces.Tokens, in memory. Two of them with the same `records` are two replicas."""

    def __init__(self, file: TokensFile, records: dict[str, str] | None = None) -> None:
        self.operators = file.operators
        self.records = {} if records is None else records
        self._lock = threading.Lock()

    def caller(self, authorization: str | None) -> Token:
        issued = [record.token for key, record in all_of(self.records).items() if key.startswith(TOKEN)]
        return holder([*self.operators(), *issued], digest_of(authorization))

    def issued(self) -> Records:
        return dict(self.records)

    def heard_of(self, key: str) -> bool:
        return key in self.records

    def change(self, change: Change) -> None:
        with self._lock:
            for key, text in change(dict(self.records)).items():
                self.records.pop(key, None)
                if text is not None:
                    self.records[key] = text


class FakeAccounts:
    """service.operations.interfaces.Accounts, in memory."""

    def __init__(self) -> None:
        self.accounts: dict[int, Account] = {}
        self.installed = True
        self.local = True

    def host_keys(self) -> list[str]:
        self._check()
        return [FINGERPRINT]

    def account(self, id: int) -> Account:
        self._check()
        return self.accounts.get(id, Account())

    def change(self, id: int, change: Callable[[Account], Account]) -> Account:
        self.accounts[id] = change(self.account(id))
        return self.accounts[id]

    def remove(self, id: int) -> None:
        self.accounts.pop(id, None)

    def node_local(self, claim: Object) -> bool:
        self._check()
        return self.local

    def _check(self) -> None:
        if not self.installed:
            raise FileAccessNotInstalled()


class FakeKeptLogs:
    """service.operations.interfaces.KeptLogs, in memory."""

    def __init__(self) -> None:
        self.logs: dict[str, KeptLog] = {}
        self.away = False
        self.reads = 0

    def keep(self, uid: str, *lines: str, pod: str = "ended", ended: str = TIME, cut: bool = False) -> None:
        """What an agent does when a server's game has ended; each line has a time and a text."""
        run = Run(pod, 0)
        self.logs[uid] = KeptLog(run, ended, cut, tuple(lines_of(run, "".join(f"{line}\n" for line in lines))))

    def read(self, uid: str) -> KeptLog | None:
        self._check()
        self.reads += 1
        return self.logs.get(uid)

    def remove(self, uid: str) -> None:
        self._check()
        self.logs.pop(uid, None)

    def _check(self) -> None:
        if self.away:
            raise ClusterUnavailable
