"""The Jobs that make, restore and check backups: their manifests, and what one has answered. Pure.

A Job runs the program backup/backup_job. What it is to do is in a Secret that it mounts, so that nothing of a customer
and no password stands in a manifest, an argument or an environment. It answers with its termination message.

A disk that is only read or filled for a while is a generic ephemeral volume: Kubernetes makes it for the pod and
deletes it with the pod, so nobody needs the right to delete claims.
https://kubernetes.io/docs/concepts/storage/ephemeral-volumes/#generic-ephemeral-volumes
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from service.kube.types import Object
from service.servers.accessors import condition, deleted_at
from service.servers.names import BACKUP_JOB
from service.servers.restricted import restricted_container, restricted_pod
from service.servers.volumes import HOSTNAME

OPERATION_LABEL = "gameserver/operation"
"""Label of the Jobs, their pods and their Secrets: the id of the operation that they belong to."""
CONTAINER = "backup"
KEPT_SECONDS = 600
"""How long a finished Job stays, in case that whoever needs its answer is away."""
LARGEST_ANSWER = 4096
DEFAULT_SECURITY: Mapping[str, Any] = {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000}
"""The ids of a Job that mounts no server's disk."""

# What decides which nodes take the game's pod, and whose its disk is.
_OF_THE_GAME = ("priorityClassName", "runtimeClassName", "schedulerName", "securityContext", "tolerations")
_CACHE_SIZE = "2Gi"


@dataclass(frozen=True)
class Scratch:
    """An empty volume, or a copy of a snapshot, that is there as long as the Job's pod.

    Attributes:
        class_name: The storage class.
        gb: Its size in GiB.
        snapshot: The VolumeSnapshot that it is a copy of; "" for an empty one.
    """

    class_name: str
    gb: int
    snapshot: str = ""


@dataclass(frozen=True)
class JobSpec:
    """What a Job is to be.

    Attributes:
        name: Its name, which follows from its operation and phase; the names of its Secrets follow from it.
        namespace: The servers' namespace, or the backups' for Jobs that no disk of a customer is mounted in.
        command: The program's command, such as `backup`.
        request: What it is to do, as JSON; see backup/backup_job/request.py.
        server: The server's id; 0 for the store as a whole.
        operation: The operation's id, or another word for whom it belongs to.
        image: The image of the program.
        pull_secrets: The names of Secrets for pulling it.
        uid: The server's uid, whose part of a folder store is mounted if there is no recovery key; "" for no server.
        key: The name of the Secret with the repository's password; "" for none.
        recovery: The name of the Secret with the recovery key; "" for none.
        store_secret: The name of the Secret for the store; "" for none.
        store_claim: The claim that is the store; "" if the store is not a folder.
        world: The claim that is mounted at /world; "" for none.
        read_only: Whether /world is only read.
        source: The copy of a snapshot that is mounted at /source, or None.
        scratch: The volume that is mounted at /scratch, or None.
        node: The node that has the disk, or None.
        pod: The game's pod template's `spec`, which the Job's pod is like; {} without a game.
        resources: The container's resources.
        deadline: After how many seconds Kubernetes ends the Job.
    """

    name: str
    namespace: str
    command: str
    request: Mapping[str, Any]
    server: int
    operation: str
    image: str
    pull_secrets: Sequence[str] = ()
    uid: str = ""
    key: str = ""
    recovery: str = ""
    store_secret: str = ""
    store_claim: str = ""
    world: str = ""
    read_only: bool = False
    source: Scratch | None = None
    scratch: Scratch | None = None
    node: str | None = None
    pod: Mapping[str, Any] = field(default_factory=dict)
    resources: Mapping[str, Any] = field(default_factory=dict)
    deadline: int = 6 * 3600


def job(spec: JobSpec) -> Object:
    """The manifest of the Job."""
    labels = _labels(spec)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": spec.name, "namespace": spec.namespace, "labels": labels},
        "spec": {
            "activeDeadlineSeconds": spec.deadline,
            "backoffLimit": 0,
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            "template": {"metadata": {"labels": labels}, "spec": _pod_spec(spec)},
        },
    }


def request_secret(spec: JobSpec, owner_uid: str) -> Object:
    """The manifest of the Secret with the Job's request; `owner_uid` is the Job's uid."""
    body = json.dumps(spec.request, ensure_ascii=False)
    return owned_secret(spec, request_name(spec), {"request.json": body}, owner_uid)


def owned_secret(spec: JobSpec, name: str, data: Mapping[str, str], owner_uid: str) -> Object:
    """The manifest of a Secret that ends with the Job."""
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": spec.name, "uid": owner_uid}
    metadata: Object = {
        "name": name,
        "namespace": spec.namespace,
        "labels": _labels(spec),
        "ownerReferences": [owner],
    }
    encoded = {key: base64.b64encode(text.encode()).decode() for key, text in data.items()}
    return {"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": metadata, "data": encoded}


def request_name(spec: JobSpec) -> str:
    """The name of the Secret with the Job's request."""
    return f"{spec.name}-request"


def key_name(uid: str) -> str:
    """The name of the Secret with the password of the server's repository."""
    return f"backup-key-{uid}"


def _labels(spec: JobSpec) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": "gameserver-backup",
        "app.kubernetes.io/component": "backup",
        "app.kubernetes.io/part-of": "gameserver-cluster",
        "app.kubernetes.io/managed-by": "gameserver-controller",
        BACKUP_JOB: str(spec.server) if spec.server else "store",
        OPERATION_LABEL: spec.operation,
    }


def _pod_spec(spec: JobSpec) -> Object:
    volumes, mounts = _volumes(spec)
    like = {key: spec.pod[key] for key in _OF_THE_GAME if spec.pod.get(key)}
    return {
        **like,
        **({"affinity": _affinity(spec.node)} if spec.node else {}),
        **restricted_pod(
            like.get("securityContext") or DEFAULT_SECURITY, spec.pod.get("imagePullSecrets", []), spec.pull_secrets
        ),
        "terminationGracePeriodSeconds": 10,
        "containers": [
            {
                "name": CONTAINER,
                "image": spec.image,
                "imagePullPolicy": "IfNotPresent",
                "args": [spec.command],
                "resources": dict(spec.resources),
                "securityContext": restricted_container(),
                "volumeMounts": mounts,
            }
        ],
        "volumes": volumes,
    }


def _affinity(node: str) -> Object:
    expression = {"key": HOSTNAME, "operator": "In", "values": [node]}
    terms = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}


def _volumes(spec: JobSpec) -> tuple[list[Object], list[Object]]:
    """The pod's volumes, and where its container mounts them."""
    volumes: list[Object] = []
    mounts: list[Object] = []

    def mount(name: str, path: str, source: Object, read_only: bool = False, sub_path: str = "") -> None:
        volumes.append({"name": name, **source})
        only = {"readOnly": True} if read_only else {}
        mounts.append({"name": name, "mountPath": path, **only, **({"subPath": sub_path} if sub_path else {})})

    def secret(name: str, path: str, secret_name: str) -> None:
        if secret_name:
            mount(name, path, {"secret": {"secretName": secret_name, "defaultMode": 0o440}}, read_only=True)

    secret("request", "/run/gameserver/request", request_name(spec))
    secret("key", "/run/gameserver/key", spec.key)
    secret("recovery", "/run/gameserver/recovery", spec.recovery)
    secret("store-access", "/run/gameserver/store", spec.store_secret)
    if spec.store_claim:
        claim = {"persistentVolumeClaim": {"claimName": spec.store_claim}}
        if spec.recovery:
            mount("store", "/store", claim)
        else:
            # A Job with a customer's data sees only that server's part of the store.
            mount("store", f"/store/{spec.uid}", claim, sub_path=spec.uid)
    if spec.world:
        claim = {"persistentVolumeClaim": {"claimName": spec.world}}
        mount("world", "/world", claim, spec.read_only)
    if spec.source is not None:
        mount("source", "/source", _ephemeral(spec.source, spec), True)
    if spec.scratch is not None:
        mount("scratch", "/scratch", _ephemeral(spec.scratch, spec))
    mount("cache", "/cache", {"emptyDir": {"sizeLimit": _CACHE_SIZE}})
    mount("tmp", "/tmp", {"emptyDir": {"sizeLimit": "1Gi"}})  # noqa: S108
    return volumes, mounts


def _ephemeral(scratch: Scratch, spec: JobSpec) -> Object:
    claim: Object = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": f"{scratch.gb}Gi"}},
    }
    if scratch.class_name:
        claim["storageClassName"] = scratch.class_name
    if scratch.snapshot:
        claim["dataSource"] = {
            "apiGroup": "snapshot.storage.k8s.io",
            "kind": "VolumeSnapshot",
            "name": scratch.snapshot,
        }
    return {"ephemeral": {"volumeClaimTemplate": {"metadata": {"labels": _labels(spec)}, "spec": claim}}}


@dataclass(frozen=True)
class JobState:
    """What has become of a Job.

    Attributes:
        state: `missing`, `running`, `done` or `failed`.
        answer: What the program has answered; {} without an answer.
        code: Of a failed one: the program's word for it, or `no-answer` (killed, or ended by its deadline).
        message: Of a failed one: why, in plain words.
        waits: Of a running one whose pod does not run: why, as Kubernetes says; "" if nothing is known.
        started: Whether its program has begun.
        lost_since: Of a running one that is to end: since when its pod should have ended (RFC 3339); "" for one that
            goes on. A pod on a node that does not answer never ends, and nor does its Job before Kubernetes knows that
            the pod has: https://kubernetes.io/docs/concepts/workloads/controllers/job/#terminal-job-conditions
    """

    state: str
    answer: Mapping[str, Any] = field(default_factory=dict)
    code: str = ""
    message: str = ""
    waits: str = ""
    started: bool = False
    lost_since: str = ""

    def lost_for(self, now: datetime) -> timedelta:
        """For how long the Job has not ended although it is to; 0 for one that goes on or has ended."""
        return now - datetime.fromisoformat(self.lost_since) if self.lost_since else timedelta()


def job_state(job: Object | None, pods: Sequence[Object]) -> JobState:
    """What has become of a Job, from the Job and its pods."""
    if job is None or "deletionTimestamp" in job["metadata"]:
        return JobState("missing")
    pod = pods[0] if pods else None
    complete = condition(job, "Complete").get("status") == "True"
    over = condition(job, "Failed")
    if not complete and over.get("status") != "True":
        ending = condition(job, "FailureTarget").get("status") == "True"
        lost_since = deleted_at(pod) if ending else None
        return JobState("running", waits=_waits(pod), started=_has_started(pod), lost_since=lost_since or "")
    answer = _answer(pod)
    if complete and answer.get("ok") is True:
        return JobState("done", answer)
    reason = str(over.get("message") or "The Job's pod ended without an answer.")
    return JobState("failed", answer, str(answer.get("code") or "no-answer"), str(answer.get("message") or reason))


def _answer(pod: Object | None) -> Mapping[str, Any]:
    statuses = (pod or {}).get("status", {}).get("containerStatuses") or []
    for status in statuses:
        text = ((status.get("state") or {}).get("terminated") or {}).get("message") or ""
        try:
            answer = json.loads(text)
        except ValueError:
            continue
        if isinstance(answer, dict):
            return answer
    return {}


def _has_started(pod: Object | None) -> bool:
    statuses = (pod or {}).get("status", {}).get("containerStatuses") or []
    return any(status.get("state", {}).keys() & {"running", "terminated"} for status in statuses)


def _waits(pod: Object | None) -> str:
    if pod is None:
        return ""
    scheduled = condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        return str(scheduled.get("message") or "")
    for status in pod.get("status", {}).get("containerStatuses") or []:
        waiting = (status.get("state") or {}).get("waiting") or {}
        if waiting.get("message"):
            return f"{waiting.get('reason')}: {waiting['message']}"
    return ""
