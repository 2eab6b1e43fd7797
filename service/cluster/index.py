"""All servers page by page, from watches in memory: 2,000 servers would be 10,000 objects to read each time."""

from __future__ import annotations

import re
import threading
from bisect import bisect_right
from collections.abc import Callable, Mapping
from typing import Any

from service.cluster.stoprecorder import StopRecorder
from service.cluster.usage import DiskUsage
from service.errors import ClusterUnavailable, InvalidRequest
from service.helm.revisions import in_order, status
from service.kube import watch
from service.kube.client import Kube, path
from service.kube.types import Object
from service.kube.watch import Kind, Watch
from service.servers.accessors import owner_uid, sorted_events, trimmed_event
from service.servers.names import ID, pod_name, server_name, service_names
from service.servers.objects import ServerObjects, own_and_former
from service.servers.reasons import READ_EVENTS
from service.servers.volumes import DiskNode, selected_node

SYNC_SECONDS = 3.0
# The API server ends every watch now and then, and the next starts immediately: a shorter interruption is normal.
GAP_SECONDS = 3.0

Listener = Callable[[int, str, Object | None, Object, bool], None]
"""As `operations.interfaces.Listener`."""

_KINDS_OF_EVENTS = {"Pod", "StatefulSet", "PersistentVolumeClaim"}
# The API server does not cache events, so their watches get no bookmarks.
_EVENT_OPTIONS: dict[str, Any] = {"max_objects": 20, "bookmarks": False}
_SERVER_NAME = re.compile(r"server-([1-9][0-9]{0,18})")


class ServerIndex:
    """The servers of one namespace. The watches start with the first page. Thread-safe."""

    def __init__(
        self,
        kube: Kube,
        namespace: str,
        nodes: Mapping[str, Object],
        usage: DiskUsage,
        node_of: Callable[[Object], DiskNode | None] = selected_node,
    ) -> None:
        self._nodes = nodes
        self._node_of = node_of
        self._usage = usage
        self._listeners: list[Listener] = []
        self._stops = StopRecorder(kube, namespace, self.server)
        self._statefulsets = Watch(
            kube,
            Kind(path("apps/v1", namespace, "statefulsets"), ID, _trim_statefulset, _id_of_label),
            self._told("statefulset", self._stops.statefulset_changed),
        )
        self._pods = Watch(
            kube,
            Kind(path("v1", namespace, "pods"), ID, _trim_pod, _id_of_label),
            self._told("pod", self._stops.pod_changed),
        )
        claims = Kind(path("v1", namespace, "persistentvolumeclaims"), ID, _trim, _id_of_label)
        self._claims = Watch(kube, claims, self._told("claim"))
        services = Kind(path("v1", namespace, "services"), ID, _trim, _id_of_label)
        self._services = Watch(kube, services, self._told("service"))
        releases = Kind(path("v1", namespace, "secrets"), "owner=helm", _trim, _id_of_release, metadata=True)
        self._releases = Watch(kube, releases, self._told("release"))
        # Only events that a state may depend on: refusals, and what ends them. All events would be ten times as many.
        self._events = [
            Watch(
                kube,
                Kind(path("v1", namespace, "events"), "", trimmed_event, _id_of_event, **_EVENT_OPTIONS, fields=fields),
                self._told("event"),
            )
            for fields in ("type=Warning", "reason=SuccessfulCreate")
        ]
        self._watches = (
            self._statefulsets,
            self._pods,
            self._claims,
            self._services,
            self._releases,
            *self._events,
        )
        self._lock = threading.Lock()
        self._started = False

    def start(self) -> None:
        """Start the watches. Idempotent."""
        with self._lock:
            if not self._started:
                self._started = True
                self._stops.start()
                self._usage.start()
                for watch in self._watches:
                    watch.start()

    def page(
        self, limit: int, continue_: str | None, wanted: Callable[[ServerObjects], bool] | None = None
    ) -> tuple[list[ServerObjects], str | None]:
        """Up to `limit` servers after the id `continue_`, and the next page's `continue_`; see `ClusterReader.servers`.

        Raises:
            ClusterUnavailable: The list is not complete yet, or out of date.
            InvalidRequest: `continue_` is malformed.
        """
        after = _after(continue_)
        ids = self.ids()
        page: list[ServerObjects] = []
        for id in ids[bisect_right(ids, after) :]:
            server = self.server(id)
            if server is None or (wanted is not None and not wanted(server)):
                continue
            if len(page) == limit:
                return page, str(page[-1].id)
            page.append(server)
        return page, None

    def ids(self) -> list[int]:
        """The ids of all objects of servers, in order; raises ClusterUnavailable as `page`."""
        self.start()
        self.check()
        return sorted({*self._statefulsets.ids(), *self._releases.ids(), *self._pods.ids()})

    def subscribe(self, listener: Listener) -> None:
        """Call `listener` with each change from now on; see `operations.interfaces.Listener`."""
        self._listeners.append(listener)

    def claims(self) -> list[Object]:
        """The claims of all servers and kept disks; raises as `page`."""
        self.start()
        self.check()
        return [claim for id in self._claims.ids() for claim in self._claims.of(id).values()]

    def releases(self, id: int) -> tuple[Object, ...] | None:
        """The metadata of a server's release Secrets, oldest first; None while the watch does not know them."""
        if not self._releases.wait(0) or self._releases.lost_for() > 0:
            return None
        return in_order([secret["metadata"] for secret in self._releases.of(id).values()])

    def is_complete(self) -> bool:
        """Whether the watches are complete and up to date."""
        return all(watch.wait(0) and watch.lost_for() <= GAP_SECONDS for watch in self._watches)

    def check(self) -> None:
        """Raises ClusterUnavailable while the watches are not complete, or out of date."""
        if not all(watch.wait(SYNC_SECONDS) for watch in self._watches):
            raise ClusterUnavailable("The list of servers is not complete yet. Kubernetes has not answered.")
        if (lost := max(watch.lost_for() for watch in self._watches)) > GAP_SECONDS:
            raise ClusterUnavailable(f"The list of servers has not been up to date for {round(lost)} seconds.")

    def _told(self, kind: str, first: watch.Listener = lambda id, before, item, deleted: None) -> watch.Listener:
        """A listener of a watch, which calls `first` and then all who have subscribed."""

        def tell(id: int, before: Object | None, item: Object, deleted: bool) -> None:
            first(id, before, item, deleted)
            for listener in self._listeners:
                listener(id, kind, before, item, deleted)

        return tell

    def server(self, id: int) -> ServerObjects | None:
        """The objects of one server, as the watches have them now; None if there is no such server."""
        name = server_name(id)
        statefulset = self._statefulsets.of(id).get(name)
        releases = in_order([secret["metadata"] for secret in self._releases.of(id).values()])
        pod = self._pods.of(id).get(pod_name(id))
        # A deleted server is shown until its pod has ended.
        if statefulset is None and pod is None and (not releases or status(releases[-1]) == "uninstalled"):
            return None
        own, former = own_and_former(statefulset, pod)
        services = self._services.of(id)
        claim = self._claims.of(id).get(name)
        return ServerObjects(
            id=id,
            statefulset=statefulset,
            pod=own,
            former_pod=former,
            claim=claim,
            services={service: services[service] for service in service_names(id) if service in services},
            events=sorted_events([event for watch in self._events for event in watch.of(id).values()]),
            releases=releases,
            nodes=self._nodes,
            node_of=self._node_of,
            usage=self._usage.of(claim),
        )


def _after(continue_: str | None) -> int:
    if continue_ is None:
        return 0
    if not re.fullmatch(r"[1-9][0-9]{0,18}", continue_):
        raise InvalidRequest(errors={"continue": ["must be the `continue` of an earlier answer"]})
    return int(continue_)


def _id_of_label(item: Object) -> int | None:
    return _id(f"server-{item['metadata'].get('labels', {}).get(ID, '')}")


def _id_of_release(item: Object) -> int | None:
    return _id(item["metadata"].get("labels", {}).get("name", ""))


def _id_of_event(item: Object) -> int | None:
    involved = item.get("involvedObject", {})
    if item.get("reason") not in READ_EVENTS or involved.get("kind") not in _KINDS_OF_EVENTS:
        return None
    name = involved.get("name", "")
    return _id(name.removesuffix("-0") if involved["kind"] == "Pod" else name)


def _id(name: str) -> int | None:
    match = _SERVER_NAME.fullmatch(name)
    return int(match[1]) if match else None


# Two thousand servers have to fit into a small replica's memory, so fields that are never read are removed.

_CONTAINER_FIELDS = ("name", "image", "resources", "ports", "startupProbe")


def _trim(item: Object) -> Object:
    metadata = {
        key: value for key, value in item["metadata"].items() if key not in ("managedFields", "ownerReferences")
    }
    return {**item, "metadata": metadata}


def _trim_pod(item: Object) -> Object:
    spec = _trim_containers(item["spec"])
    if "nodeName" not in spec and "tolerations" in item["spec"]:
        # Only the reasons of a pod without a node ask for them.
        spec["tolerations"] = item["spec"]["tolerations"]
    pod = _trim({**item, "spec": spec})
    if owner := owner_uid(item):
        pod["metadata"]["ownerReferences"] = [{"controller": True, "uid": owner}]
    return pod


def _trim_statefulset(item: Object) -> Object:
    template = item["spec"]["template"]
    spec = {**item["spec"], "template": {**template, "spec": _trim_containers(template["spec"])}}
    return _trim({**item, "spec": spec})


def _trim_containers(spec: dict[str, Any]) -> dict[str, Any]:
    containers = [
        {key: container[key] for key in _CONTAINER_FIELDS if key in container} for container in spec["containers"]
    ]
    for container in containers:
        if "startupProbe" in container:
            probe = container["startupProbe"]
            container["startupProbe"] = {key: value for key, value in probe.items() if key != "exec"}
    return {"containers": containers, **({"nodeName": spec["nodeName"]} if "nodeName" in spec else {})}
