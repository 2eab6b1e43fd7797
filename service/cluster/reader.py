"""All reads of Kubernetes, and the few writes that do not go through Helm.

Every method may raise ClusterUnavailable. One server is read live, each object by its name, so that every replica sees
every write immediately. Lists come from `index.py`.

Rights that this needs:

    in the servers' namespace
        statefulsets (apps)                     get list watch patch
        pods, services                          get list watch
        jobs (batch)                            get create
        persistentvolumeclaims                  get list watch patch delete
        secrets                                 get list watch
        events, configmaps                      list watch
        pods/log                                get
        pods (metrics.k8s.io)                   list
    in the whole cluster
        nodes                                   list
        persistentvolumes                       get
        storageclasses (storage.k8s.io)         get
        volumesnapshotclasses (snapshot.storage.k8s.io)  list
"""

from __future__ import annotations

import base64
import errno
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import quote

from service.cluster.consumption import PodConsumption
from service.cluster.hosts import Hosts
from service.cluster.index import Listener, ServerIndex
from service.cluster.live import LiveDiskJob, LiveServer
from service.cluster.nodes import Nodes
from service.cluster.usage import DiskUsage
from service.errors import OperationInProgress, Problem, ServerNotFound
from service.helm.revisions import Revisions, status
from service.kube.attach import Attachment
from service.kube.client import Conflict, Kube, path
from service.kube.times import stamp
from service.kube.types import Object
from service.logs.lines import MOST_BYTES
from service.servers.accessors import CONTAINER, annotation, claims_of, sorted_events, trimmed_event, uid
from service.servers.consumption import Consumption
from service.servers.names import BACKUP_JOB, ID, KEPT_SINCE, REUSED_SINCE, econ_name, pod_name, rcon_name, server_name
from service.servers.objects import Objects, RconPassword, ServerObjects, run_of
from service.servers.reasons import READ_EVENTS
from service.servers.restored import taken_up
from service.servers.spec import never_used, server_uid
from service.servers.usage import Usage
from service.servers.volumes import DiskNode
from service.settings import Settings

READY_SECONDS = 2.0
_TRIES = 3
_ANNOTATE_TRIES = 10
# The system's randomness, as in kube/watch.py.
_random = random.SystemRandom()


class ClusterReader:
    """Reads the cluster. Create it after a fork: it has sockets and starts threads."""

    def __init__(self, settings: Settings, kube: Kube | None = None) -> None:
        self._namespace = settings.servers_namespace
        self._snapshot_class = settings.backup_snapshot_class
        self._kube = kube or Kube()
        self._revisions = Revisions(self._kube, self._namespace)
        self.nodes = Nodes(self._kube)
        self._usage = DiskUsage(self._kube, self._namespace)
        self._consumption = PodConsumption(self._kube, self._namespace)
        self._hosts = Hosts(self._kube)
        self._index = ServerIndex(self._kube, self._namespace, self.nodes, self._usage, self.node_of)
        self._answered_at = float("-inf")

    def start(self) -> None:
        """Start to fill the list of servers now; otherwise this starts with the first page."""
        self._index.start()

    # -- servers -------------------------------------------------------------------------------------------

    def server(self, id: int) -> LiveServer:
        """The objects of one server, read live."""
        return LiveServer(self, id)

    def addressed(self, id: int) -> Objects:
        """The objects of one server, for questions about the address of the game; see `interfaces.Cluster`.

        These are the most frequent calls, so one object is read instead of five. Whose the server is stays the same for
        as long as its Service exists, and the disk's node hardly ever changes.
        """
        known, name = self._index.server(id) if self._index.is_complete() else None, server_name(id)
        if known is not None and self._hosts.host(known) is not None:
            service = self.service(name)
            if service is not None and uid(service) == uid(known.services.get(name)):
                return replace(known, services={**known.services, name: service})
        return self.server(id)

    def servers(
        self, limit: int, continue_: str | None, wanted: Callable[[ServerObjects], bool] | None = None
    ) -> tuple[list[ServerObjects], str | None]:
        """A page of all servers, sorted by id.

        Args:
            limit: How many servers a page has at most.
            continue_: What the previous page returned; None for the first page.
            wanted: Which servers to list; None for all.

        Returns:
            The servers, and what to pass as `continue_` for the next page; None after the last.

        Raises:
            InvalidRequest: `continue_` is malformed.
        """
        self._answers()
        return self._index.page(limit, continue_, wanted)

    def known(self, id: int) -> ServerObjects | None:
        """The objects of one server as the watches have them; None if there is no such server."""
        self._index.start()
        self._index.check()
        return self._index.server(id)

    def known_servers(self) -> Iterator[ServerObjects]:
        """The objects of all servers, by id, as the watches have them."""
        return (server for id in self._index.ids() if (server := self._index.server(id)) is not None)

    def sees_all(self) -> bool:
        """Whether the watches have received all that exists, and are up to date."""
        return self._index.is_complete()

    def known_ids(self) -> list[int]:
        """The ids of all servers, in order, as the watches have them."""
        return [server.id for server in self.known_servers()]

    def subscribe(self, listener: Listener) -> None:
        """Call `listener` with each change from now on; see `operations.interfaces.Listener`."""
        self._index.subscribe(listener)

    def annotate(self, id: int, uid: str, name: str, change: Callable[[str | None], str | None]) -> str | None:
        """Write `change(current text)` to an annotation of the server's StatefulSet; see `interfaces.Cluster`."""
        statefulset_path = path("apps/v1", self._namespace, "statefulsets", server_name(id))
        for attempt in range(_ANNOTATE_TRIES):
            statefulset = self._kube.get(statefulset_path)
            if statefulset is None or server_uid(ServerObjects(id, statefulset)) != uid:
                raise ServerNotFound
            text = annotation(statefulset, name)
            new = change(text)
            if new == text:
                return text
            version = statefulset["metadata"]["resourceVersion"]
            body = {"metadata": {"resourceVersion": version, "annotations": {name: new}}}
            try:
                if self._kube.merge(statefulset_path, body) is None:
                    raise ServerNotFound
                return new
            except Conflict:
                # The StatefulSet controller writes to the same object.
                time.sleep(_random.uniform(0, 0.05 * 2 ** min(attempt, 3)))
        raise OperationInProgress

    def events(self, id: int) -> tuple[Object, ...]:
        """The events of pod, StatefulSet and claim that a state may depend on, newest last."""
        return self.events_of([server_name(id), pod_name(id)])

    def events_of(self, names: Sequence[str]) -> tuple[Object, ...]:
        """The events of the objects with these names that a state may depend on, newest last."""
        collection = path("v1", self._namespace, "events")
        selectors = [quote(f"involvedObject.name={name}") for name in names]
        lists = self._kube.get_all([f"{collection}?fieldSelector={selector}" for selector in selectors])
        events = [event for list_ in lists for event in (list_ or {}).get("items") or []]
        return sorted_events([trimmed_event(event) for event in events if event.get("reason") in READ_EVENTS])

    def service(self, name: str) -> Object | None:
        """The Service with this name, read live."""
        return self.get("v1", "services", name)

    def rcon_password(self, id: int) -> RconPassword | None:
        """RCON's password; None if the server has none."""
        secret = self.get("v1", "secrets", rcon_name(id))
        if secret is None or (password := _password(secret)) is None:
            return None
        return RconPassword(password, _written_at(secret))

    def econ_password(self, id: int) -> str | None:
        """The password of the external console; None if the server has none."""
        secret = self.get("v1", "secrets", econ_name(id))
        return None if secret is None else _password(secret)

    @contextmanager
    def attached(self, id: int, pod: str, seconds: float) -> Iterator[Attachment]:
        """A connection to the standard input of the game, and to what it writes; see `interfaces.Cluster`."""
        where = path("v1", self._namespace, "pods", pod_name(id), "attach")
        streams = {"stdin": "true", "stdout": "true", "stderr": "true"}
        with self._kube.attached(where, seconds, container=CONTAINER, **streams) as attachment:
            # The name may have become that of another pod. One that is still there now was there before.
            if not self._is_still(id, pod):
                raise ConnectionError(errno.ESTALE, "its pod has gone")
            yield attachment

    def consumption(self, objects: Objects) -> Consumption | None:
        """What the server's game uses, as last measured; None if that is unknown. This waits for nothing."""
        # Without a StatefulSet, nobody knows whose the pod is.
        return self._consumption.of(objects.pod if objects.statefulset is not None else None)

    def pod_log_tail(self, id: int, pod: str, lines: int, previous: bool) -> str:
        """The last lines of the game's log; see `interfaces.Cluster`."""
        query: dict[str, str | int] = {"tailLines": lines, "limitBytes": 65536, "previous": str(previous).lower()}
        text = self._kube.text(self._log_path(id), container="game", **query) or ""
        return text if self._is_still(id, pod) else ""

    def log_text(self, id: int, pod: str, *, tail: int | None, since: int | None, previous: bool = False) -> str | None:
        """The game's log with timestamps, read at once; see `interfaces.Cluster`."""
        query = _log_query(tail, since) | {"limitBytes": MOST_BYTES + 1, "previous": str(previous).lower()}
        text = self._kube.text(self._log_path(id), **query)
        return text if self._is_still(id, pod) else None

    @contextmanager
    def log_stream(
        self, id: int, *, tail: int | None, since: int | None, follow: bool = True, previous: bool = False
    ) -> Iterator[Iterator[bytes] | None]:
        """The game's log with timestamps as it is written; see `interfaces.Cluster`."""
        query = _log_query(tail, since) | {"follow": str(follow).lower(), "previous": str(previous).lower()}
        with self._kube.text_stream(self._log_path(id), **query) as chunks:
            yield chunks

    def _log_path(self, id: int) -> str:
        return path("v1", self._namespace, "pods", pod_name(id), "log")

    def pod_run(self, id: int) -> tuple[str, int] | None:
        """The uid of the server's pod, and how often its game has restarted; see `interfaces.Cluster`."""
        targets = [("apps/v1", "statefulsets", server_name(id)), ("v1", "pods", pod_name(id))]
        return run_of(*self.get_all(targets))

    def _is_still(self, id: int, pod: str) -> bool:
        """Whether the pod of the server's name is the one with this uid.

        What was read before by the name alone is then of this pod, if the pod was there earlier too.
        """
        return uid(self.get("v1", "pods", pod_name(id))) == pod

    # -- disks ---------------------------------------------------------------------------------------------

    def kept_disks(self) -> list[Object]:
        """The claims of all kept disks, sorted by id."""
        newest: dict[str, Object] = {}
        for revision in sorted(self._revisions.all(), key=lambda metadata: int(metadata["labels"].get("version", 0))):
            newest[revision["labels"].get("name", "")] = revision
        installed = {name for name, revision in newest.items() if status(revision) != "uninstalled"}
        claims = self._kube.all(path("v1", self._namespace, "persistentvolumeclaims"), labelSelector=ID)
        # A person may have restored a claim with its labels, but under another name.
        own = [claim for claim in claims if claim["metadata"]["name"] == f"server-{claim['metadata']['labels'][ID]}"]
        kept = [claim for claim in own if claim["metadata"]["name"] not in installed and not never_used(claim)]
        return sorted(kept, key=lambda claim: int(claim["metadata"]["labels"][ID]))

    def disks(self) -> list[tuple[Object, Usage | None]]:
        """The claims of all servers and kept disks, from the watches, each with how full its disk is."""
        self._answers()
        return [(claim, self._usage.of(claim)) for claim in self._index.claims()]

    def usage(self, claim: Object | None) -> Usage | None:
        """How full the claim's disk is, as its node's agent last said; None if that is unknown."""
        self._usage.start()
        return self._usage.of(claim)

    def keep_disk(self, id: int, since: str) -> None:
        """Note on the claim that its server was deleted at `since`."""
        self._annotate_claim(id, {KEPT_SINCE: since})

    def reuse_disk(self, id: int, since: str) -> None:
        """Note on the claim that a server was created with it at `since`, and make it the release's; see `taken_up`.

        Raises:
            OperationInProgress: Others kept changing the claim at the same time.
        """
        for _ in range(_TRIES):
            claim = self.get("v1", "persistentvolumeclaims", server_name(id))
            if claim is None:
                return
            metadata = taken_up(claim, id, self._namespace)
            metadata["annotations"] |= {KEPT_SINCE: None, REUSED_SINCE: since}
            with suppress(Conflict):
                self._kube.merge(self._claim_path(id), {"metadata": metadata})
                return
        raise OperationInProgress()

    def volume(self, name: str) -> Object | None:
        """The PersistentVolume with this name, read live."""
        return self._kube.get(f"/api/v1/persistentvolumes/{quote(name, safe='')}")

    def disk_job(self, id: int) -> LiveDiskJob:
        """The Job that makes the server's disk, its pod and the claim, read live; see `LiveDiskJob`."""
        return LiveDiskJob(self, id)

    def make_disk(self, job: Object) -> None:
        """Create the Job, unless there is one with its name."""
        with suppress(Conflict):
            self._kube.create(path("batch/v1", self._namespace, "jobs"), job)

    def pods_of(self, job: str) -> list[Object]:
        """The pods of the Job with this name, read live."""
        return self._kube.all(path("v1", self._namespace, "pods"), labelSelector=f"batch.kubernetes.io/job-name={job}")

    def disk_is_awaited(self, id: int) -> bool:
        """Whether a Job of a backup or restore waits for a node on which it would get the disk with this id.

        Its pod names the claim, and holds it only from when it has a node.
        https://kubernetes.io/docs/concepts/storage/persistent-volumes/#storage-object-in-use-protection
        """
        pods = self._kube.all(path("v1", self._namespace, "pods"), labelSelector=f"{BACKUP_JOB}={id}")
        return any(not pod["spec"].get("nodeName") and server_name(id) in claims_of(pod) for pod in pods)

    def erase_disk(self, id: int, confirm: Callable[[], None], *, unless_used: bool = False) -> None:
        """Begin to delete the claim; its volume is deleted once no pod uses it. Idempotent.

        If this process was frozen after it read the claim, another may have the server's Lease by now: `confirm` raises
        then. If the freeze comes after `confirm`, the claim's version protects it, because every create that uses the
        disk first writes on the claim.

        Args:
            id: The server's id.
            confirm: Raises ClusterUnavailable if this process no longer holds the server's Lease.
            unless_used: Delete only a claim that never had a volume.

        Raises:
            OperationInProgress: Others kept changing the claim at the same time.
        """
        for _ in range(_TRIES):
            claim = self.get("v1", "persistentvolumeclaims", server_name(id))
            # Never delete a claim with the same name that is not the product's.
            if claim is None or claim["metadata"].get("labels", {}).get(ID) != str(id):
                return
            if unless_used and not never_used(claim):
                return
            confirm()
            metadata = claim["metadata"]
            # Kubernetes may be writing to it, such as that it has a volume now.
            with suppress(Conflict):
                self._kube.delete(self._claim_path(id), uid=metadata["uid"], version=metadata["resourceVersion"])
                return
        raise OperationInProgress

    def disk_has_snapshots(self, claim: Object) -> bool:
        """Whether the storage of the claim's volume can make snapshots of it: a CSI driver with a class of them."""
        name = claim.get("spec", {}).get("volumeName")
        volume = self.volume(name) if name else None
        driver = ((volume or {}).get("spec", {}).get("csi") or {}).get("driver")
        if not driver or self._snapshot_class:
            return bool(driver)
        # Kubernetes knows no such classes unless somebody has installed snapshots.
        classes = self._kube.get("/apis/snapshot.storage.k8s.io/v1/volumesnapshotclasses") or {}
        return any(each.get("driver") == driver for each in classes.get("items") or [])

    def disk_class_expandable(self, claim: Object) -> bool:
        """Whether the claim's StorageClass allows disks to grow."""
        name = claim.get("spec", {}).get("storageClassName")
        storage_class = self._kube.get(f"/apis/storage.k8s.io/v1/storageclasses/{name}") if name else None
        return bool((storage_class or {}).get("allowVolumeExpansion"))

    def _annotate_claim(self, id: int, annotations: dict[str, str | None]) -> None:
        self._kube.merge(self._claim_path(id), {"metadata": {"annotations": annotations}})

    def _claim_path(self, id: int) -> str:
        return path("v1", self._namespace, "persistentvolumeclaims", server_name(id))

    # -- the cluster itself --------------------------------------------------------------------------------

    def host(self, objects: Objects, families: Sequence[str] = ()) -> str | None:
        """An address of the node that has the server's disk; see `interfaces.Cluster`."""
        return self._hosts.host(objects, families)

    def node_of(self, claim: Object) -> DiskNode | None:
        """The node that has a claim's disk; None if no node is known to have it."""
        return self._hosts.node_of(claim)

    def ready(self) -> bool:
        """Whether Kubernetes answers the API's requests."""
        try:
            self._ping()
        except Problem:
            return False
        return True

    def _answers(self) -> None:
        # A watch of a frozen API server looks like one without changes. So ask Kubernetes, but not for every page.
        if time.monotonic() - self._answered_at > READY_SECONDS:
            self._ping()

    def _ping(self) -> None:
        self._kube.get(path("apps/v1", self._namespace, "statefulsets"), limit=1)
        self._answered_at = time.monotonic()

    # -- for LiveServer ------------------------------------------------------------------------------------

    def get(self, group: str, kind: str, name: str) -> Object | None:
        """One object of the servers' namespace, read live; None if it does not exist."""
        return self._kube.get(path(group, self._namespace, kind, name))

    def get_all(self, targets: Sequence[tuple[str, str, str]]) -> list[Object | None]:
        """Several objects by group, kind and name, read in parallel."""
        return self._kube.get_all([path(group, self._namespace, kind, name) for group, kind, name in targets])

    def releases(self, id: int, *, current: bool) -> tuple[Object, ...]:
        """The metadata of the release's Secrets, oldest first; some milliseconds old unless `current` is set."""
        if current:
            return self._revisions.of(server_name(id))
        known = self._index.releases(id)
        return self._revisions.cached(server_name(id)) if known is None else known


def _log_query(tail: int | None, since: int | None) -> dict[str, str | int]:
    """What a read of a game's log asks for."""
    query: dict[str, str | int] = {"container": "game", "timestamps": "true"}
    if tail is not None:
        query["tailLines"] = tail
    if since is not None:
        query["sinceTime"] = stamp(datetime.fromtimestamp(since, UTC))
    return query


def _password(secret: Object) -> str | None:
    """The password in a Secret of the chart's."""
    encoded = (secret.get("data") or {}).get("password")
    return base64.b64decode(encoded).decode() if encoded else None


def _written_at(secret: Object) -> str:
    """When the password in a Secret was written (RFC 3339), or shortly after that.

    The chart only ever writes it when it makes the Secret. Whoever replaces it in place owns it from then on; helm owns
    it too again after its next upgrade, which writes the same password and moves helm's time.
    https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management
    """
    metadata = secret["metadata"]
    others = [
        entry
        for entry in metadata.get("managedFields") or []
        if not str(entry.get("manager")).lower().startswith("helm")
    ]
    times = [
        str(entry.get("time") or "")
        for entry in others
        if "f:password" in ((entry.get("fieldsV1") or {}).get("f:data") or {})
    ]
    return max(str(metadata["creationTimestamp"]), min(times, default=""))
