"""A server in memory whose backups are made by the real machine: Jobs, snapshots, a store, and a game that holds still.

`settle` does what Kubernetes, its nodes and the storage do meanwhile.
"""

from __future__ import annotations

import base64
import itertools
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

from service.backups.records import Backup
from service.backups.runner import JobRunner
from service.backups.snapshots import GROUP, VolumeSnapshots
from service.controller.backup import BackUp
from service.controller.worlds import Machine, Next, Run
from service.kube.client import path
from service.kube.times import now
from service.kube.types import Object
from service.operations.context import Context
from service.operations.hold import Held
from service.operations.operation import Operation, Server, new_operation
from service.records.store import RecordStore
from service.servers.objects import Objects
from service.settings import Settings
from service.tokens import Token
from tests.support.fakes import FakeCluster, FakeReleases, World
from tests.support.memory_kube import LabelledKube

NAMESPACE, JOBS = "gameservers", "gameservers-backups"
SERVER = Server(1, "uid-1", "alice")
DRIVER = "disk-driver.gameserver"
BACKUP = f"b-{'1' * 20}"
SETTINGS = Settings(
    backup_store={"kind": "folder"},
    backup_namespace=JOBS,
    backup_image="backup:1",
    backup_recovery_secret="recovery",
)

UNSCHEDULED = {"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/1 nodes have room."}]}


def new_id() -> str:
    """An id for a backup."""
    return f"b-{secrets.token_hex(10)}"


class Killed(BaseException):
    """The controller was killed."""


@dataclass
class Stored:
    """A snapshot in the store: its tag, and whether the game held still when the world was copied."""

    id: str
    tag: str
    still: bool


@dataclass
class Store:
    """The store.

    Attributes:
        catalogue: Whether it has a catalogue.
        repositories: The snapshots of each repository.
        fails: What the program answers instead, by command: a code for each attempt, "" for none.
        size: The size of the world in bytes.
        unreadable: How many files cannot be read.
    """

    catalogue: bool = False
    repositories: dict[str, list[Stored]] = field(default_factory=dict)
    fails: dict[str, list[str]] = field(default_factory=dict)
    size: int = 1000
    unreadable: int = 0
    _ids: itertools.count[int] = field(default_factory=itertools.count)

    def answer(self, command: str, request: Mapping[str, Any], still: bool) -> dict[str, Any]:
        """What the Jobs' program answers."""
        if (codes := self.fails.get(command)) and (code := codes.pop(0)):
            return {"ok": False, "code": code, "message": f"It says {code}."} if code != "killed" else {}
        if command == "catalogue":
            self.catalogue = True
            return {"ok": True}
        uid = request["uid"]
        if command == "init":
            if not self.catalogue:
                return {"ok": False, "code": "catalogue-missing", "message": "There is none."}
            self.repositories.setdefault(uid, [])
            return {"ok": True}
        if uid not in self.repositories:
            return {"ok": False, "code": "repository-missing", "message": "There is none."}
        tag = f"{'first-pass' if request.get('first_pass') else 'backup'}={request['backup']}"
        snapshots = self.repositories[uid]
        found = next((each for each in snapshots if each.tag == tag), None)
        if found is None:
            found = Stored(f"{next(self._ids):064x}", tag, still)
            snapshots.append(found)
        return {
            "ok": True,
            "snapshot": found.id,
            "files": 3 if self.size else 0,
            "size_bytes": self.size,
            "added_bytes": self.size // 2,
            "unreadable": {"count": self.unreadable, "paths": ["closed"] if self.unreadable else []},
            "empty": not self.size,
        }


class BackupWorld:
    """The server 1, and a machine that makes its backups.

    Attributes:
        settings: The settings of the controller.
        store: The store.
        snapshots: Whether the storage takes snapshots; one that is stuck never gets any further.
        full: Whether it has no room for a copy of one.
        still: The operation for which the game holds still; "" while it goes on.
        saves: Whether the game has commands that let it hold still.
        lost: Commands whose pods run on a node that does not answer any more, and are never gone.
    """

    def __init__(self, settings: Settings = SETTINGS, *, snapshots: bool = True) -> None:
        self.settings = settings
        self.world, self.kube, self.store = World(), LabelledKube(), Store()
        self.cluster = FakeCluster(self.world)
        self.snapshots, self.stuck, self.full = snapshots, False, False
        self.still, self.saves = "", True
        self.jobs_run: list[str] = []
        self.lost: set[str] = set()
        self.context = Context(
            settings=settings,
            cluster=self.cluster,
            releases=FakeReleases(self.world),
            accounts=cast(Any, None),
            tokens=cast(Any, None),
            games=cast(Any, {"teeworlds": SimpleNamespace(console=None, save=None)}),
            operator_values={},
            records=partial(RecordStore, cast(Any, self.kube), NAMESPACE),
            events=None,
            webhooks=None,
        )
        self.world.values[1] = {"game": "teeworlds", "server": {"uid": SERVER.uid, "customer": "alice"}, "replicas": 1}
        self.world.apply(1, self.world.values[1])
        self.disk("claim-1")
        if snapshots:
            metadata = {"name": "snapshots"}
            self.kube.objects[f"/apis/{GROUP}/volumesnapshotclasses/snapshots"] = {
                "metadata": metadata, "driver": DRIVER, "deletionPolicy": "Delete",
            }  # fmt: skip
        self.machine = self.new_machine()

    def disk(self, uid: str) -> None:
        """The server's claim is this one."""
        self.world.claims[1]["metadata"]["uid"] = uid
        self.world.claims[1]["spec"]["volumeName"] = "pv-1"
        node = {"key": "kubernetes.io/hostname", "operator": "In", "values": ["node1"]}
        required = {"required": {"nodeSelectorTerms": [{"matchExpressions": [node]}]}}
        csi = {"csi": {"driver": DRIVER}} if self.snapshots else {}
        self.world.volumes["pv-1"] = {"spec": {**csi, "nodeAffinity": required}}

    def stop(self) -> None:
        """Stop the server."""
        self._replicas(0)

    def start(self) -> None:
        """Start the server."""
        self._replicas(1)

    def _replicas(self, replicas: int) -> None:
        generation = self.world.statefulsets[1]["metadata"].get("generation", 1)
        self.world.values[1]["replicas"] = replicas
        self.world.apply(1, self.world.values[1])
        self.world.statefulsets[1]["metadata"]["generation"] = generation + 1
        self.disk("claim-1")

    def delete(self) -> None:
        """Delete the server with its disk."""
        self.world.forget(1)
        self.world.claims.pop(1, None)

    def new_machine(self) -> Machine:
        """The machine of a controller that has just started."""
        runner = JobRunner(cast(Any, self.kube), NAMESPACE, self.settings.backup_namespace)
        snapshots = VolumeSnapshots(cast(Any, self.kube), NAMESPACE)
        return BackUp(self.context, runner, snapshots, self._hold, self._release, sleep=lambda seconds: self.settle())

    # -- the game -------------------------------------------------------------------------------------------

    def _hold(self, context: Context, objects: Objects, operation: str, lasts: float) -> Held:
        self.kube.before("HOLD", "")
        if not self.saves:
            return Held("crash-like", "This game has no command that makes it hold still.")
        self.still = operation
        self.kube.before("HELD", "")
        return Held("game-saved")

    def _release(self, context: Context, objects: Objects, operation: str) -> Held:
        self.kube.before("RELEASE", "")
        held, self.still = self.still, ""
        self.kube.before("RELEASED", "")
        if held != operation:
            return Held("crash-like", "The game was let go before the copy was made.")
        return Held("game-saved")

    # -- the cluster ----------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Take the snapshots, run the Jobs, and delete what has no owner any more."""
        for name, item in list(self.kube.objects.items()):
            if "/volumesnapshots/" in name and "status" not in item and not self.stuck:
                status = {"readyToUse": True, "creationTime": now()}
                self.kube.objects[name] = {**item, "status": status, "still": bool(self.still)}
            if "/jobs/" in name and "status" not in item:
                self._run(name, item)
        jobs = {item["metadata"]["uid"] for name, item in self.kube.objects.items() if "/jobs/" in name}
        for name, item in list(self.kube.objects.items()):
            owners = item["metadata"].get("ownerReferences", [])
            if owners and owners[0]["uid"] not in jobs and "deletionTimestamp" not in item["metadata"]:
                del self.kube.objects[name]

    def _run(self, name: str, job: Object) -> None:
        namespace = name.split("/namespaces/")[1].split("/")[0]
        spec = job["spec"]["template"]["spec"]
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        secrets = [volume["secret"]["secretName"] for volume in volumes.values() if "secret" in volume]
        found = {each: self.kube.objects.get(path("v1", namespace, "secrets", each)) for each in secrets}
        if any(secret is None for each, secret in found.items() if each != "recovery"):
            return
        request_secret = found[volumes["request"]["secret"]["secretName"]]
        assert request_secret is not None
        request = json.loads(base64.b64decode(request_secret["data"]["request.json"]))
        command = spec["containers"][0]["args"][0]
        still = bool(self.still)
        if "source" in volumes:
            source = volumes["source"]["ephemeral"]["volumeClaimTemplate"]["spec"]["dataSource"]["name"]
            snapshot = self.kube.objects.get(path(GROUP, NAMESPACE, "volumesnapshots", source))
            if snapshot is None or "status" not in snapshot:
                return
            if self.full:
                self._report(name, job, None, None)
                return
            still = snapshot["still"]
        self.jobs_run.append(command)
        if command in self.lost:
            ends = {"deletionTimestamp": "2026-11-01T00:00:10Z", "deletionGracePeriodSeconds": 10}
            self._report(name, job, "FailureTarget", {"running": {}}, **ends)
            return
        answer = self.store.answer(command, request, still)
        kind = "Complete" if answer.get("ok") else "Failed"
        self._report(name, job, kind, {"terminated": {"message": json.dumps(answer) if answer else ""}})

    def _report(self, name: str, job: Object, kind: str | None, state: Object | None, **of_pod: Any) -> None:
        """The Job has this condition, and its pod's container this state; None: no node has room for the pod."""
        conditions = [{"type": kind, "status": "True"}] if kind else []
        self.kube.objects[name] = {**job, "status": {"conditions": conditions}}
        metadata = job["metadata"]
        namespace = metadata["namespace"]
        labels = {**metadata["labels"], "batch.kubernetes.io/job-name": metadata["name"]}
        # A pod of an earlier Job with this name may still be there.
        pods = (path("v1", namespace, "pods", f"{metadata['name']}-{letter}") for letter in "xyz")
        pod = next(each for each in pods if each not in self.kube.objects)
        self.kube.objects[pod] = {
            "metadata": {
                "name": pod.rpartition("/")[2], "uid": "pod", "labels": labels,
                "ownerReferences": [{"uid": metadata["uid"], "controller": True}], **of_pod,
            },
            "status": {"containerStatuses": [{"name": "backup", "state": state}]} if state else UNSCHEDULED,
        }  # fmt: skip

    # -- operations -----------------------------------------------------------------------------------------

    def operation(self, **argument: Any) -> Operation:
        """An operation that makes the backup BACKUP."""
        maker = Token("shop", "", frozenset({"admin"}))
        return new_operation(maker, None, "backup", "now", {"backup": BACKUP, **argument}, {}, [SERVER])

    def run(
        self,
        operation: Operation,
        *,
        lost: int = -1,
        between: Callable[[str], object] = lambda phase: None,
        work: Mapping[str, Any] | None = None,
    ) -> Next:
        """Carry the operation out to its end.

        Args:
            operation: The operation.
            lost: The number of the call of the machine whose answer is not recorded, because the controller is killed.
            between: Called with the phase before each call of the machine.
            work: Where to begin.
        """
        work = dict(work or {})
        for call in range(400):
            between(str(work.get("phase", "begin")))
            self.settle()
            try:
                next_ = self.machine.advance(Run(operation, SERVER, work))
            except Killed:
                self.kube.before = lambda method, path: None
                self.machine = self.new_machine()
                continue
            if call == lost:
                self.machine = self.new_machine()
                continue
            work = dict(next_.work) if next_.work is not None else work
            # The operation's record is JSON.
            work = json.loads(json.dumps(work))
            if next_.state != "running":
                return replace(next_, work=work)
        raise AssertionError(f"it does not end: {work}")

    def kill_at(self, call: int) -> Callable[[], bool]:
        """Kill the controller when it calls Kubernetes or the game for the `call`th time; returns whether it has."""
        calls = itertools.count()
        killed = []

        def before(method: str, path: str) -> None:
            if next(calls) == call:
                killed.append(True)
                raise Killed

        self.kube.before = before
        return lambda: bool(killed)

    @property
    def backup(self) -> Backup:
        """The backup."""
        kept = self.context.backups.of(SERVER.uid)
        backup = None if kept is None else kept.backup(BACKUP)
        assert backup is not None
        return backup

    @property
    def stored(self) -> list[Stored]:
        """The backup's snapshots in the store."""
        return [each for each in self.store.repositories.get(SERVER.uid, []) if each.tag == f"backup={BACKUP}"]

    def left(self, *kinds: str) -> list[str]:
        """The objects of these kinds, as settled, without the Job that makes the catalogue, which is no operation's."""
        self.settle()
        found = [name for name in self.kube.objects if "/backup-catalogue" not in name]
        return [name for name in found if any(f"/{kind}/" in name for kind in kinds)]
