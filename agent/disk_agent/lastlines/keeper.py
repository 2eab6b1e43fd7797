"""Keeps the last lines of the games that end on this node: one thread looks at the logs, another writes Secrets.

Nothing else is known of a pod than its folder's name, so its server is asked for while it runs. A later server may have
the same id, and even the same disk: the pod's StatefulSet says which server it is of.
"""

from __future__ import annotations

import http.client
import logging
import random
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from disk_agent.kube import METADATA, METADATA_LIST, ApiError, Kube
from disk_agent.lastlines.podlogs import Pod, PodLogs, RunLog
from disk_agent.lastlines.secret import COMPONENT, Kept, kept, left_over, owner_uid, secret, secret_name, too_many
from disk_agent.lastlines.text import lines_of, packed
from disk_agent.objects import Claim, server_uid
from disk_agent.settings import Settings

log = logging.getLogger(__name__)
# The system's randomness, so that no thread advances a generator that others have seeded.
_random = random.SystemRandom()

LOOK_SECONDS = 1.0
AGAIN_SECONDS = 10.0
"""When a server is asked for again after an error."""
TRIES = 10
MOST_WAITING = 256
"""How many ended runs may wait to be written; each takes up to 16 KiB."""
SWEEP_SECONDS = 600.0
SWEEP_AFTER_WRITE = 60.0
MOST_DELETED = 200
"""How many Secrets one sweep deletes for each reason."""
LEFT_AFTER = timedelta(minutes=10)

_MERGE = "application/merge-patch+json"


@dataclass(frozen=True)
class Owner:
    """Whose pod a pod is: its server's uid, "" if that is not known, and when the pod was created."""

    uid: str
    created: str = ""


@dataclass
class Ended:
    """The last lines of a run, on their way into their Secret."""

    pod: Pod
    name: str
    body: dict[str, Any]
    uid: str
    created: str
    tries: int = 0
    next_try: float = 0.0


class Keeper:
    """Both threads.

    Args:
        kube: The API server.
        settings: The agent's settings.
        claims: Returns the claims of all servers.
        logs: The logs on this node.
    """

    def __init__(self, kube: Kube, settings: Settings, claims: Callable[[], Iterable[Claim]], logs: PodLogs) -> None:
        self._kube = kube
        self._claims = claims
        self._logs = logs
        servers = f"namespaces/{settings.servers_namespace}"
        self._pods_path = f"/api/v1/{servers}/pods"
        self._statefulsets_path = f"/apis/apps/v1/{servers}/statefulsets"
        self._claims_path = f"/api/v1/{servers}/persistentvolumeclaims"
        self._secrets_path = f"/api/v1/namespaces/{settings.namespace}/secrets"
        self._wake = threading.Event()
        self._lock = threading.Lock()
        # Written by the thread that looks, under the lock.
        self._pods: list[Pod] = []
        self._runs: list[RunLog] = []
        # Used by the thread that writes.
        self._owners: dict[Pod, Owner] = {}
        self._ask_again: dict[Pod, float] = {}
        self._waiting: list[Ended] = []
        self._swept, self._sweep_at = float("-inf"), _random.uniform(0, SWEEP_SECONDS)
        # What was logged last of each kind of trouble.
        self._errors: dict[str, str] = {}

    def start(self) -> None:
        """Start the threads. The claims must be complete."""
        self._sweep_at += time.monotonic()
        threading.Thread(target=self._forever, args=[self._look_once], name="pod logs", daemon=True).start()
        threading.Thread(target=self._forever, args=[self._write_once], name="last lines", daemon=True).start()

    def _forever(self, step: Callable[[], None]) -> None:
        while True:
            try:
                step()
            except Exception:
                # Access to files must not end for it.
                log.exception("last lines failed")
                time.sleep(AGAIN_SECONDS)

    def _look_once(self) -> None:
        self.look()
        time.sleep(LOOK_SECONDS)

    def _write_once(self) -> None:
        self._wake.wait(1.0 if self._waiting else AGAIN_SECONDS)
        self._wake.clear()
        self.write(time.monotonic())

    # -- the logs ------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Look at the logs once."""
        ended = self._logs.look()
        pods = self._logs.pods()
        with self._lock:
            news = bool(ended) or pods != self._pods
            self._pods = pods
            self._runs += ended
            dropped = self._runs[:-MOST_WAITING]
            del self._runs[:-MOST_WAITING]
        for run in dropped:
            _not_kept(run.pod, "too many ended at once")
            run.close()
        if news:
            self._wake.set()

    # -- the Secrets ---------------------------------------------------------------------------------------

    def write(self, now: float) -> None:
        """Ask for the servers of new pods, and write what has ended."""
        with self._lock:
            pods, runs = list(self._pods), self._runs
            self._runs = []
        for pod in {*pods, *(run.pod for run in runs)}:
            self._ask(pod, now)
        for run in runs:
            self._take(run)
        self._owners = {pod: self._owners[pod] for pod in pods if pod in self._owners}
        self._ask_again = {pod: self._ask_again[pod] for pod in pods if pod in self._ask_again}
        self._waiting = [ended for ended in self._waiting if ended.next_try > now or not self._write(ended, now)]
        if now >= self._sweep_at:
            self._sweep(now)

    def _ask(self, pod: Pod, now: float) -> None:
        if pod in self._owners or self._ask_again.get(pod, now) > now:
            return
        try:
            self._owners[pod] = self._owner(pod)
        except (ApiError, OSError, http.client.HTTPException) as error:
            self._ask_again[pod] = now + AGAIN_SECONDS
            self._complain("server of a pod not known", error)

    def _owner(self, pod: Pod) -> Owner:
        """Whose pod it is. Raises ApiError or OSError."""
        found = self._get(f"{self._pods_path}/server-{pod.server}-0")
        if found is None or found["metadata"]["uid"] != pod.uid:
            return Owner("")
        statefulset = self._get(f"{self._statefulsets_path}/server-{pod.server}")
        if statefulset is None or statefulset["metadata"]["uid"] != owner_uid(found):
            return Owner("")
        return Owner(server_uid(statefulset["metadata"]), found["metadata"]["creationTimestamp"])

    def _get(self, path: str) -> Any:
        try:
            return self._kube.request("GET", path, accept=METADATA)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def _take(self, run: RunLog) -> None:
        """Read and pack the end of a log, and let go of its files."""
        try:
            data, whole = run.end()
        except OSError as error:
            _not_kept(run.pod, str(error))
            return
        finally:
            run.close()
        owner = self._owners.get(run.pod, Owner(""))
        name = secret_name(owner.uid)
        if name is None:
            _not_kept(run.pod, "it is not known which server's pod it was")
            return
        lines, cut = lines_of(data, whole=whole)
        text = packed(lines, cut=cut)
        if text is None:
            _not_kept(run.pod, "its log is empty")
            return
        about = {
            "pod": run.pod.uid,
            "restarts": run.restarts,
            "created": owner.created,
            "ended": _stamp(datetime.now(UTC)),
            "cut": text.cut,
        }
        body = secret(name, run.pod.server, text.data, about)
        self._waiting.append(Ended(run.pod, name, body, owner.uid, owner.created))
        for dropped in self._waiting[:-MOST_WAITING]:
            _not_kept(dropped.pod, "too many wait to be written")
        del self._waiting[:-MOST_WAITING]

    def _write(self, ended: Ended, now: float) -> bool:
        """Write one Secret; returns False to be tried again."""
        if not any(claim.server == ended.pod.server and claim.uid == ended.uid for claim in self._claims()):
            _not_kept(ended.pod, "its disk is being erased, or is another server's")
            return True
        try:
            self._put(ended)
        except (ApiError, OSError, http.client.HTTPException) as error:
            ended.tries += 1
            if ended.tries >= TRIES:
                _not_kept(ended.pod, str(error))
                return True
            ended.next_try = now + _random.uniform(0.5, 1) * min(60, 2**ended.tries)
            self._complain("last lines not written", error)
            return False
        self._sweep_at = min(self._sweep_at, max(now, self._swept + SWEEP_AFTER_WRITE))
        return True

    def _put(self, ended: Ended) -> None:
        """Create or replace the Secret, unless it has the lines of a later pod. Raises ApiError or OSError."""
        found = self._list({"fieldSelector": f"metadata.name={ended.name}"})
        fields = {"server": int(ended.pod.server), "pod": ended.pod.uid}
        if not found:
            self._kube.request("POST", self._secrets_path, ended.body)
        elif found[0].created > ended.created:
            _not_kept(ended.pod, "a later pod has ended already")
            return
        else:
            metadata = {**ended.body["metadata"], "resourceVersion": found[0].version}
            body = {"metadata": metadata, "data": ended.body["data"]}
            self._kube.request("PATCH", f"{self._secrets_path}/{ended.name}", body, _MERGE)
        log.info("last lines kept", extra={"fields": fields})

    def _list(self, query: dict[str, str]) -> list[Kept]:
        """The Secrets with last lines, without the lines. Raises ApiError or OSError."""
        query = {"labelSelector": f"app.kubernetes.io/component={COMPONENT}", **query}
        listed = self._kube.request("GET", f"{self._secrets_path}?{urlencode(query)}", accept=METADATA_LIST)
        return [kept(item) for item in listed["items"] or ()]

    # -- what may stay -------------------------------------------------------------------------------------

    def _sweep(self, now: float) -> None:
        """Delete what is too much, and what belongs to no disk any more. All agents do this, whoever has written."""
        self._swept, self._sweep_at = now, now + _random.uniform(0.5, 1) * SWEEP_SECONDS
        try:
            # From the API server's memory.
            secrets = self._list({"resourceVersion": "0"})
            oldest = too_many(secrets)
            for each in oldest[:MOST_DELETED]:
                self._delete(each, "there is no room for them")
            if len(oldest) > MOST_DELETED:
                self._sweep_at = now + SWEEP_AFTER_WRITE
            before = _stamp(datetime.now(UTC) - LEFT_AFTER)
            left = left_over(secrets, (claim.uid for claim in self._claims() if claim.uid), before)
            for each in left[:MOST_DELETED]:
                # What the watch has may be old, and leaves out a disk that is not bound.
                if not self._has_disk(each):
                    self._delete(each, "the server's disk is gone")
        except (ApiError, OSError, http.client.HTTPException) as error:
            self._complain("last lines not looked through", error)

    def _has_disk(self, secret: Kept) -> bool:
        query = urlencode({"fieldSelector": f"metadata.name=server-{secret.server}"})
        claims = self._kube.request("GET", f"{self._claims_path}?{query}", accept=METADATA_LIST)["items"] or ()
        return any(secret_name(server_uid(claim["metadata"])) == secret.name for claim in claims)

    def _delete(self, secret: Kept, reason: str) -> None:
        """Delete a Secret at the version that was read: its server may have ended again since."""
        body = {"preconditions": {"uid": secret.uid, "resourceVersion": secret.version}}
        try:
            self._kube.request("DELETE", f"{self._secrets_path}/{secret.name}", body)
        except ApiError as error:
            if error.status not in (404, 409):
                raise
            return
        log.info("last lines dropped", extra={"fields": {"server": secret.server, "reason": reason}})

    def _complain(self, event: str, error: Exception) -> None:
        """Log an error, unless it is the one before again."""
        if self._errors.get(event) != str(error):
            self._errors[event] = str(error)
            log.warning(event, extra={"fields": {"error": str(error)}})


def keeper(kube: Kube, settings: Settings, claims: Callable[[], Iterable[Claim]]) -> Keeper:
    """The keeper of this node's logs."""
    return Keeper(kube, settings, claims, PodLogs(Path(settings.pod_logs), settings.servers_namespace))


def _not_kept(pod: Pod, reason: str) -> None:
    log.warning("last lines not kept", extra={"fields": {"server": int(pod.server), "pod": pod.uid, "error": reason}})


def _stamp(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")
