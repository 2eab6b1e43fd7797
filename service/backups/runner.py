"""Creates, reads and deletes the Jobs of backups, and keeps the servers' keys.

Rights that this needs in the servers' namespace, and in the backups':

    jobs       get list watch create delete      both
    pods       list                              both
    secrets    get create                        the servers' namespace
    secrets    create                            the backups' namespace: the operator's recovery key is there
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress

from service.backups.jobs import (
    OPERATION_LABEL,
    JobSpec,
    JobState,
    job,
    job_state,
    key_name,
    owned_secret,
    request_secret,
)
from service.errors import ClusterUnavailable
from service.kube.client import Conflict, Kube, path
from service.kube.types import Object
from service.kube.watch import Kind, Watch
from service.servers.accessors import owner_uid, uid
from service.servers.names import BACKUP_JOB

_BATCH = "batch/v1"
_KEY_LABEL = "gameserver/backup-key"


class JobRunner:
    """The Jobs. Thread-safe. Every method may raise ClusterUnavailable and RefusedByCluster.

    Args:
        kube: The Kubernetes client.
        servers_namespace: The servers' namespace, which has their keys.
        backup_namespace: The backups' namespace; "" without a store.
    """

    def __init__(self, kube: Kube, servers_namespace: str, backup_namespace: str) -> None:
        self._kube = kube
        self._servers_namespace = servers_namespace
        self._backup_namespace = backup_namespace

    def run(self, spec: JobSpec) -> JobState:
        """Create the Job unless it is there, and return what has become of it. It can be called again and again.

        The Secrets that it mounts come after it, because they are owned by it; its pod waits for them. In the backups'
        namespace one of them is a copy of the server's key, whose name is `spec.key`.
        """
        existing = self._kube.get(self._job(spec))
        if existing is None:
            try:
                existing = self._kube.create(path(_BATCH, spec.namespace, "jobs"), job(spec))
            except Conflict:
                existing = self._kube.get(self._job(spec))
        state = self._state(spec, existing)
        if existing is not None and state.state == "running" and not state.started:
            for manifest in self._secrets(spec, existing["metadata"]["uid"]):
                with suppress(Conflict):
                    self._kube.create(path("v1", spec.namespace, "secrets"), manifest)
        return state

    def _secrets(self, spec: JobSpec, owner: str) -> Iterator[Object]:
        yield request_secret(spec, owner)
        if spec.key and spec.namespace != self._servers_namespace:
            name = self.key(spec.uid)
            if (key := self._kube.get(path("v1", self._servers_namespace, "secrets", name))) is None:
                raise ClusterUnavailable
            yield owned_secret(spec, spec.key, {"password": base64.b64decode(key["data"]["password"]).decode()}, owner)

    def look(self, spec: JobSpec) -> JobState:
        """What has become of the Job."""
        return self._state(spec, self._kube.get(self._job(spec)))

    def remove(self, spec: JobSpec) -> bool:
        """Delete the Job with its pod and Secrets; returns whether it and its pod are gone already."""
        if (existing := self._kube.get(self._job(spec))) is not None:
            self._delete(spec.namespace, existing)
        return existing is None and not self._pods(spec)

    def remove_all(self, operation: str) -> bool:
        """Delete all Jobs of an operation; returns whether they and their pods are gone already."""
        remaining = 0
        for namespace in filter(None, (self._servers_namespace, self._backup_namespace)):
            selector = f"{OPERATION_LABEL}={operation}"
            jobs = self._kube.all(path(_BATCH, namespace, "jobs"), labelSelector=selector)
            for each in jobs:
                self._delete(namespace, each)
            remaining += len(jobs) + len(self._kube.all(path("v1", namespace, "pods"), labelSelector=selector))
        return not remaining

    def _delete(self, namespace: str, existing: Object) -> None:
        with suppress(Conflict):
            name, uid = existing["metadata"]["name"], existing["metadata"]["uid"]
            self._kube.delete(path(_BATCH, namespace, "jobs", name), uid=uid)

    def has_key(self, uid: str) -> bool:
        """Whether there is a password of the server's repository."""
        return self._kube.get(path("v1", self._servers_namespace, "secrets", key_name(uid)), metadata=True) is not None

    def key(self, uid: str) -> str:
        """The name of the Secret with the password of the server's repository; it is made if there is none."""
        name = key_name(uid)
        with suppress(Conflict):
            self._kube.create(
                path("v1", self._servers_namespace, "secrets"),
                {
                    "apiVersion": "v1",
                    "kind": "Secret",
                    "type": "Opaque",
                    "metadata": {"name": name, "labels": {_KEY_LABEL: uid}},
                    "data": {"password": _encoded(secrets.token_urlsafe(48))},
                },
            )
        return name

    def forget_key(self, uid: str) -> None:
        """Delete the password of a server's repository, after which only the recovery key opens it."""
        self._kube.delete(path("v1", self._servers_namespace, "secrets", key_name(uid)))

    def watch(self, namespace: str, wake: Callable[[], None]) -> Watch:
        """A watch that calls `wake` when a Job has changed; it is not started yet."""
        kind = Kind(path(_BATCH, namespace, "jobs"), BACKUP_JOB, _only_name, lambda item: 0, max_objects=10_000)
        return Watch(self._kube, kind, lambda *_: wake())

    def _state(self, spec: JobSpec, existing: Object | None) -> JobState:
        if existing is None:
            return job_state(None, [])
        # On a node that does not answer, the pod of an earlier Job with this name may still be there.
        return job_state(existing, [pod for pod in self._pods(spec) if owner_uid(pod) == uid(existing)])

    def _pods(self, spec: JobSpec) -> list[Object]:
        selector = f"batch.kubernetes.io/job-name={spec.name}"
        return self._kube.all(path("v1", spec.namespace, "pods"), labelSelector=selector)

    @staticmethod
    def _job(spec: JobSpec) -> str:
        return path(_BATCH, spec.namespace, "jobs", spec.name)


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _only_name(item: Object) -> Object:
    return {"metadata": {"name": item["metadata"]["name"]}}
