"""A place with backups: a namespace for their Jobs, a store, and operations accepted as the API does it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from local import nodes
from service.backups.records import KIND, Backup, BackupStore, ServerBackups
from service.kube.client import Kube
from service.operations.operation import Operation, OperationStore, Server, new_operation
from service.records.store import RecordStore
from service.servers.objects import ServerObjects
from service.servers.spec import server_uid
from service.tokens import Token
from tests.cluster.conftest import Cluster
from tests.cluster.controller.place import Place, new_name, place_of
from tests.cluster.replicas import NAMESPACE as API_NAMESPACE
from tests.support.backup_world import new_id
from tests.support.s3 import S3, s3
from tests.support.waiting import until

SHOP = Token("shop", "", frozenset({"admin"}))
RECOVERY = "the operator's recovery key"
SNAPSHOTS = ("volumesnapshots.snapshot.storage.k8s.io",)


@dataclass
class Worlds:
    """A place whose controller makes backups.

    Attributes:
        place: The place.
        store: Its store; None if it has none.
    """

    place: Place
    store: S3 | None

    def __post_init__(self) -> None:
        kube = Kube(connections=4)
        self._operations = OperationStore(partial(RecordStore, kube, self.place.namespace))
        self._backups = BackupStore(RecordStore(kube, self.place.namespace, KIND))

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return self.place.cluster.run("kubectl", "-n", self.place.namespace, *arguments, stdin=stdin)

    def get(self, *arguments: str) -> dict[str, Any]:
        """The output of `kubectl get … -o json`."""
        found: dict[str, Any] = json.loads(self.kubectl("get", *arguments, "-o", "json"))
        return found

    def create(self, id: int, game: str = "teeworlds", **more: Any) -> Server:
        """A server whose game runs."""
        body = {"ram_gb": 1, "disk_gb": 1, "game": game, **more}
        self.place.call("POST", f"/server/{id}/?wait=running&timeout_s=180", body)
        return self.server(id)

    def server(self, id: int) -> Server:
        """The server as an operation names it."""
        uid = server_uid(ServerObjects(id, self.get("statefulset", f"server-{id}")))
        assert uid is not None
        return Server(id, uid, "")

    def kept(self, server: Server) -> ServerBackups:
        """What is kept about the server's backups."""
        return self._backups.of(server.uid) or ServerBackups(server.uid, server.id, server.customer)

    def accept(self, server: Server, action: str = "backup", backup: str = "") -> Operation:
        """Accept an operation on a server's world."""
        argument = {"backup": backup or new_id()}
        operation = new_operation(SHOP, None, action, "now", argument, {"argument": argument}, [server])
        return self._operations.create(operation, [server])

    def operation(self, operation: Operation) -> Operation:
        """The operation as it is now."""
        found = self._operations.get(operation.id)
        assert found is not None
        return found

    def found(self, id: str) -> Operation:
        """The operation with this id."""
        found = self._operations.get(id)
        assert found is not None
        return found

    def cancel(self, operation: Operation) -> None:
        self._operations.cancel(self.operation(operation))

    def until_phase(self, operation: Operation, *phases: str, seconds: float = 120) -> str:
        """Wait until the operation is at one of the phases, or has ended; the phase."""
        until(
            lambda: (found := self.operation(operation)).ended or found.work.get("phase") in phases,
            seconds,
            lambda: f"{self.operation(operation)} {self.place.logged()}",
        )
        return str(self.operation(operation).work.get("phase"))

    def ended(self, operation: Operation, seconds: float = 180) -> Operation:
        """The operation when it has ended."""
        until(
            lambda: self.operation(operation).ended,
            seconds,
            lambda: f"{self.operation(operation)} {self.jobs()} {self.place.logged()}",
        )
        return self.operation(operation)

    def backed_up(self, server: Server, seconds: float = 180) -> Backup:
        """A new backup of the server."""
        operation = self.ended(self.accept(server), seconds)
        assert operation.state == "done", f"{operation} {self.place.logged()}"
        return self.backup(operation)

    def backup(self, operation: Operation) -> Backup:
        """The backup of an operation."""
        assert operation.target is not None
        backup = self.kept(operation.target).backup(operation.argument["backup"])
        assert backup is not None
        return backup

    def files(self, server: Server, snapshot: str) -> list[str]:
        """The paths of the files in a snapshot of the store."""
        listed = [json.loads(line) for line in self.restic(server, "ls", snapshot).splitlines()]
        return [node["path"] for node in listed if node.get("type") == "file"]

    def stored(self, server: Server, tag: str = "") -> list[dict[str, Any]]:
        """The server's snapshots in the store."""
        found: list[dict[str, Any]] = json.loads(self.restic(server, "snapshots", *(["--tag", tag] if tag else [])))
        return found

    def restic(self, server: Server, *arguments: str, password: str = RECOVERY) -> str:
        """What restic says of the server's repository, with the recovery key."""
        assert self.store is not None
        credentials = {"AWS_ACCESS_KEY_ID": self.store.access, "AWS_SECRET_ACCESS_KEY": self.store.secret}
        location = f"s3:{self.store.endpoint}/worlds/{server.uid}"
        return subprocess.run(
            ["restic", "--no-cache", "--no-lock", "--json", "-r", location, *arguments],
            env={"PATH": "/usr/bin:/bin", **credentials, "RESTIC_PASSWORD": password},
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    def jobs(self) -> list[str]:
        """The Jobs of backups in both namespaces, and their pods."""
        selector = "app.kubernetes.io/name=gameserver-backup"
        found = []
        for namespace in filter(None, (self.place.namespace, self.place.environment.get("BACKUP_NAMESPACE"))):
            command = ("kubectl", "-n", namespace, "get", "jobs,pods", "-l", selector, "-o", "name")
            found += self.place.cluster.run(*command).split()
        # The Job that makes the catalogue is no operation's, and ends by itself.
        return [name for name in found if "/backup-catalogue" not in name]

    def snapshots(self) -> list[str]:
        """The VolumeSnapshots."""
        return self.kubectl("get", *SNAPSHOTS, "-o", "name").split()

    def until_tidy(self, snapshots: int = 0) -> None:
        """Wait until neither a Job nor a Secret of one is left, and so many snapshots are."""

        def tidy() -> bool:
            secrets = self.kubectl("get", "secrets", "-l", "gameserver/backup-job", "-o", "name").split()
            return not self.jobs() and not secrets and len(self.snapshots()) == snapshots

        until(tidy, 90, lambda: f"{self.jobs()} {self.snapshots()} {self.place.logged()}")

    def debt(self, id: int) -> str | None:
        """What is owed to the server's game."""
        annotations: Mapping[str, str] = self.get("statefulset", f"server-{id}")["metadata"].get("annotations", {})
        return annotations.get("gameserver/save-owed")

    def replaced(self, process: subprocess.Popen[bytes]) -> None:
        """Kill the controller, and let the next one take over at once instead of after the dead one's 15 seconds."""
        process.kill()
        process.wait()
        self.kubectl("delete", "lease", "gameserver-controller", "--ignore-not-found")


def image(cluster: Cluster) -> str:
    """The image of the Jobs, as the local cluster has it."""
    values = json.loads(cluster.run("helm", "-n", API_NAMESPACE, "get", "values", "api", "-o", "json"))
    found = values["backups"]["image"]
    return f"{found['repository']}:{found['tag']}"


def on_a_node() -> tuple[str, tuple[str, ...]]:
    """The address of a node, which pods reach, and what runs a command in its network."""
    number, process = next(iter(nodes.running().items()))
    return nodes.Node(number).address, ("nsenter", f"--net=/proc/{process}/ns/net", "--")


def store_on_node(folder: Path) -> AbstractContextManager[S3]:
    """A store that pods reach."""
    return s3(folder, *on_a_node())


@contextmanager
def worlds_of(
    cluster: Cluster,
    folder: Path,
    *,
    stored: bool = True,
    on_node: bool = True,
    store: S3 | None = None,
    values: Mapping[str, Any] = MappingProxyType({}),
    **settings: str,
) -> Iterator[Worlds]:
    """A place with backups; with a store that pods reach (a new one, unless there is `store`), or none."""
    variables: dict[str, Any] = {"ACCEPTED_EULAS": "minecraft", "BACKUP_IMAGE": image(cluster), **settings}
    if not stored:
        with place_of(cluster, folder, on_node=on_node, values=values, **variables) as place:
            yield Worlds(place, None)
        return
    name = new_name()
    jobs = f"{name}-backups"
    with nullcontext(store) if store else store_on_node(folder / "s3") as store:
        variables |= {"BACKUP_STORE": json.dumps(store.store()), "BACKUP_NAMESPACE": jobs}
        variables |= {"BACKUP_STORE_SECRET": "store", "BACKUP_RECOVERY_SECRET": "recovery"}
        with place_of(cluster, folder, on_node=on_node, name=name, values=values, **variables) as place:
            cluster.run("kubectl", "create", "namespace", jobs)
            try:
                cluster.run("kubectl", "label", "namespace", jobs, "pod-security.kubernetes.io/enforce=restricted")
                for namespace in (name, jobs):
                    give(cluster, namespace, "store", credentials=store.credentials())
                give(cluster, jobs, "recovery", password=RECOVERY)
                yield Worlds(place, store)
            finally:
                cluster.run("kubectl", "delete", "namespace", jobs, "--wait=false")


def give(cluster: Cluster, namespace: str, name: str, **texts: str) -> None:
    """Create or change a Secret."""
    metadata = {"name": name, "namespace": namespace}
    manifest = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": texts}
    cluster.run("kubectl", "apply", "-f", "-", stdin=json.dumps(manifest))
