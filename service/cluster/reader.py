"""All reads of Kubernetes, and the few writes that are no Helm's.

Every method may raise ClusterUnavailable. One server is read live, object by object and by name, so that any replica
sees any write at once; lists come from `listing.py`.

Rights that this needs:

    in the servers' namespace
        statefulsets (apps), pods, services     get list watch
        persistentvolumeclaims                  get list watch patch delete
        secrets                                 get list watch
        events                                  list watch
        pods/log                                get
    in the whole cluster
        nodes                                   list
        persistentvolumes                       get
        storageclasses (storage.k8s.io)         get
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Sequence
from urllib.parse import quote

from service.cluster.hosts import Hosts
from service.cluster.index import Listing
from service.cluster.live import LiveServer
from service.cluster.nodes import Nodes
from service.errors import OperationInProgress, Problem
from service.helm.revisions import Revisions, status
from service.kube.client import Conflict, Kube, path
from service.kube.types import Object
from service.servers.accessors import sorted_events, trimmed_event
from service.servers.names import ID, KEPT_SINCE, REUSED_SINCE, pod_name, rcon_name, server_name
from service.servers.objects import Objects, RconPassword, ServerObjects
from service.servers.reasons import READ_EVENTS
from service.servers.spec import never_used
from service.settings import Settings

READY_SECONDS = 2.0


class ClusterReader:
    """The cluster as the API sees it. To be made after a fork."""

    def __init__(self, settings: Settings, kube: Kube | None = None) -> None:
        self._namespace = settings.servers_namespace
        self._kube = kube or Kube()
        self._revisions = Revisions(self._kube, self._namespace)
        self.nodes = Nodes(self._kube)
        self._listing = Listing(self._kube, self._namespace, self.nodes)
        self._hosts = Hosts(self._kube)
        self._answered = float("-inf")

    def start(self) -> None:
        """Begin to fill the list of servers, which otherwise begins when it is first asked for."""
        self._listing.start()

    # -- servers -------------------------------------------------------------------------------------------

    def server(self, id: int) -> LiveServer:
        """The objects of one server as they are now."""
        return LiveServer(self, id)

    def servers(self, limit: int, continue_: str | None) -> tuple[list[ServerObjects], str | None]:
        """A page of all servers, by id, and what to pass as `continue_` for the next."""
        # A watch on a server that has frozen looks like one on which nothing happens; so ask, but not every time.
        if time.monotonic() - self._answered > READY_SECONDS:
            self._ask()
        return self._listing.page(limit, continue_)

    def events(self, id: int) -> tuple[Object, ...]:
        """Those events of pod, StatefulSet and claim that a state may be read from, newest last."""
        where = path("v1", self._namespace, "events")
        selectors = [quote(f"involvedObject.name=server-{id}{pod}") for pod in ("", "-0")]
        lists = self._kube.get_all([f"{where}?fieldSelector={selector}" for selector in selectors])
        found = [event for some in lists for event in (some or {}).get("items") or []]
        return sorted_events([trimmed_event(event) for event in found if event.get("reason") in READ_EVENTS])

    def service(self, name: str) -> Object | None:
        """The Service called `name`, as it is now."""
        return self.get("v1", "services", name)

    def rcon_password(self, id: int) -> RconPassword | None:
        """RCON's password, None where the server has none."""
        secret = self.get("v1", "secrets", rcon_name(id))
        if secret is None or not (packed := (secret.get("data") or {}).get("password")):
            return None
        return RconPassword(base64.b64decode(packed).decode(), secret["metadata"]["creationTimestamp"])

    def pod_log_tail(self, id: int, lines: int, previous: bool) -> str:
        """The last lines of the game's log, or of the container's before it; "" where there is none."""
        where = path("v1", self._namespace, "pods", pod_name(id), "log")
        return (
            self._kube.text(where, container="game", tailLines=lines, limitBytes=65536, previous=str(previous).lower())
            or ""
        )

    # -- disks ---------------------------------------------------------------------------------------------

    def kept_disks(self) -> list[Object]:
        """The claims that outlived their server, by id."""
        newest: dict[str, Object] = {}
        for revision in sorted(self._revisions.all(), key=lambda one: int(one["labels"].get("version", 0))):
            newest[revision["labels"].get("name", "")] = revision
        installed = {name for name, revision in newest.items() if status(revision) != "uninstalled"}
        claims = self._kube.all(path("v1", self._namespace, "persistentvolumeclaims"), labelSelector=ID)
        kept = [claim for claim in claims if claim["metadata"]["name"] not in installed and not never_used(claim)]
        return sorted(kept, key=lambda claim: int(claim["metadata"]["labels"][ID]))

    def keep_disk(self, id: int, since: str) -> None:
        """Write on the claim since when it outlives its server."""
        where = path("v1", self._namespace, "persistentvolumeclaims", server_name(id))
        self._kube.merge(where, {"metadata": {"annotations": {KEPT_SINCE: since}}})

    def reuse_disk(self, id: int, since: str) -> None:
        """Write on the claim that a server has it again."""
        where = path("v1", self._namespace, "persistentvolumeclaims", server_name(id))
        self._kube.merge(where, {"metadata": {"annotations": {KEPT_SINCE: None, REUSED_SINCE: since}}})

    def erase_disk(self, id: int, confirm: Callable[[], None], *, unless_used: bool = False) -> None:
        """Begin to delete the claim; its volume goes with it once no pod uses it. Idempotent.

        With `unless_used` only a claim that never had a volume.

        Whoever froze since the claim was read has lost the Lease, which `confirm` says, or loses it later: then the
        claim's version tells, as each create that takes the disk writes on the claim first.
        """
        name = server_name(id)
        claim = self.get("v1", "persistentvolumeclaims", name)
        # A claim of the same name that is not ours is nobody's to delete.
        if claim is None or claim["metadata"].get("labels", {}).get(ID) != str(id):
            return
        if unless_used and not never_used(claim):
            return
        try:
            confirm()
            where = path("v1", self._namespace, "persistentvolumeclaims", name)
            about = claim["metadata"]
            self._kube.delete(where, uid=about["uid"], version=about["resourceVersion"])
        except Conflict as conflict:
            if unless_used:
                # Somebody has begun to use it.
                return
            raise OperationInProgress from conflict

    def disk_class_expandable(self, claim: Object) -> bool:
        """Whether the claim's StorageClass lets a disk grow."""
        name = claim.get("spec", {}).get("storageClassName")
        found = self._kube.get(f"/apis/storage.k8s.io/v1/storageclasses/{name}") if name else None
        return bool((found or {}).get("allowVolumeExpansion"))

    # -- the cluster itself --------------------------------------------------------------------------------

    def host(self, objects: Objects) -> str | None:
        """An address of the node that has the server's disk, None while there is none."""
        return self._hosts.host(objects)

    def ready(self) -> bool:
        """Whether Kubernetes answers what the API asks of it."""
        try:
            self._ask()
        except Problem:
            return False
        return True

    def _ask(self) -> None:
        self._kube.get(path("apps/v1", self._namespace, "statefulsets"), limit=1)
        self._answered = time.monotonic()

    # -- for LiveServer ------------------------------------------------------------------------------------

    def get(self, group: str, kind: str, name: str) -> Object | None:
        """One object of the servers' namespace, as it is now."""
        return self._kube.get(path(group, self._namespace, kind, name))

    def get_all(self, wanted: Sequence[tuple[str, str, str]]) -> list[Object | None]:
        """Several of them by group, kind and name, read side by side."""
        return self._kube.get_all([path(group, self._namespace, kind, name) for group, kind, name in wanted])

    def releases(self, id: int, *, current: bool) -> tuple[Object, ...]:
        """The metadata of the release Secrets, oldest first; some milliseconds old unless it has to be `current`."""
        if current:
            return self._revisions.of(server_name(id))
        known = self._listing.releases(id)
        return self._revisions.cached(server_name(id)) if known is None else known
