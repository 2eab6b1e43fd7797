"""The agent's loop: watch, plan, apply."""

from __future__ import annotations

import http.client
import logging
import random
import threading
import time
from pathlib import Path

from disk_agent import mounts, objects
from disk_agent.kube import ApiError, Kube
from disk_agent.lastlines.keeper import keeper
from disk_agent.logs import Fields
from disk_agent.node import Node
from disk_agent.objects import Service, Slice, Volume
from disk_agent.plan import MANAGER, View, endpoint_slice, local_disks, plan
from disk_agent.reporter import Reporter, measure
from disk_agent.settings import Settings
from disk_agent.sshd import connections
from disk_agent.sshd.guesses import Guesses
from disk_agent.sshd.limiter import ConnectionLimiter
from disk_agent.sshd.limits import Limits
from disk_agent.sshd.sockets import Sockets
from disk_agent.watch import Watch

log = logging.getLogger(__name__)
# The system's randomness, so that no thread advances a generator that others have seeded.
_random = random.SystemRandom()

# Changes come in bursts (a create makes a claim, a volume, a Service and an account): handle them together.
SETTLE_SECONDS = 0.1
FIRST_RETRY, MAX_RETRY = 1.0, 60.0


class Agent:
    """One node's agent. `own_log` is where sshd itself logs to."""

    def __init__(self, kube: Kube, settings: Settings, own_log: Path = Path("/dev/log")) -> None:
        self._kube = kube
        self._settings = settings
        self._wake = threading.Event()
        self._hurry = threading.Event()
        self._guesses = Guesses(settings.guesses, settings.guess_seconds)
        self._guesses_lock = threading.Lock()
        self._sockets = Sockets(own_log, self._on_event)
        limits = Limits(sessions=settings.sessions)
        self._limiter = ConnectionLimiter(limits, settings.uid, self._sockets.peers, self._sockets.journal)
        self._node = Node(settings, self._sockets)
        servers, wake = f"namespaces/{settings.servers_namespace}", self._wake.set
        self._accounts = Watch(
            kube,
            f"/api/v1/namespaces/{settings.namespace}/secrets",
            "app.kubernetes.io/component=sftp-account",
            objects.account,
            wake,
        )
        self._claims = Watch(kube, f"/api/v1/{servers}/persistentvolumeclaims", "gameserver/id", objects.claim, wake)
        self._volumes = Watch(kube, "/api/v1/persistentvolumes", "", objects.volume, wake)
        self._services = Watch(kube, f"/api/v1/{servers}/services", "gameserver/id", objects.service, wake)
        self._slices_path = f"/apis/discovery.k8s.io/v1/{servers}/endpointslices"
        self._slices = Watch(
            kube,
            self._slices_path,
            f"endpointslice.kubernetes.io/managed-by={MANAGER}",
            objects.endpoint_slice,
            wake,
        )
        root = Path(settings.host_root)
        self._reporter = Reporter(kube, settings, self._local_volumes, lambda volume: measure(root, volume))

    def run(self) -> None:
        """Run forever. Change nothing before all watches have their first list."""
        watches = (self._accounts, self._claims, self._volumes, self._services, self._slices)
        self._sockets.start()
        self._limiter.start()
        for watch in watches:
            watch.start()
        for watch in watches:
            watch.synced.wait()
        threading.Thread(target=self._follow_mounts, name="mounts", daemon=True).start()
        self._reporter.start()
        if self._settings.pod_logs:
            keeper(self._kube, self._settings, self._claims.records).start()
        retry = FIRST_RETRY
        while True:
            self._wake.clear()
            self._hurry.clear()
            if self._step():
                (Path(self._settings.state) / "synced").touch()
                retry, wait = FIRST_RETRY, None
            else:
                retry, wait = min(retry * 2, MAX_RETRY), _random.uniform(retry / 2, retry)
            with self._guesses_lock:
                opening = self._guesses.next_opening(time.monotonic())
            waits = [seconds for seconds in (wait, opening) if seconds is not None]
            self._wake.wait(min(waits) if waits else None)
            self._hurry.wait(SETTLE_SECONDS)

    def _follow_mounts(self) -> None:
        """Plan again when the node has mounted a disk, has unmounted one, or has mounted one anew."""
        for _ in mounts.changes():
            self._wake.set()

    def _local_volumes(self) -> list[Volume]:
        disks = local_disks(self._claims.records(), self._volumes.records(), self._settings)
        return [volume for _, volume in disks.values()]

    def _step(self) -> bool:
        """Plan and apply once; returns False if something has to be tried again."""
        next_plan = plan(
            View(
                self._accounts.records(),
                self._claims.records(),
                self._volumes.records(),
                self._services.records(),
                self._slices.records(),
            ),
            self._settings,
        )
        with self._guesses_lock:
            slowed = self._guesses.slowed(time.monotonic())
        complete = self._node.apply(next_plan.accesses, slowed)
        with self._guesses_lock:
            self._guesses.applied(slowed)
        for service in next_plan.publish:
            complete = self._publish(service) and complete
        for retracted in next_plan.retract:
            complete = self._retract(retracted) and complete
        return complete

    def _publish(self, service: Service) -> bool:
        """Lead a server's SFTP port here, whichever agent wrote before (server-side apply with force)."""
        path = f"{self._slices_path}/{service.name}?fieldManager={MANAGER}&force=true"
        body = endpoint_slice(service, self._settings)
        try:
            self._kube.request("PATCH", path, body, "application/apply-patch+yaml")
        except (ApiError, OSError, http.client.HTTPException) as error:
            log.warning("port not published", extra={"fields": {"server": int(service.server), "error": str(error)}})
            return False
        log.info("port published", extra={"fields": {"server": int(service.server)}})
        return True

    def _retract(self, retracted: Slice) -> bool:
        """Delete an EndpointSlice in the version that was read: the disk's new node may just have written it."""
        body = {"preconditions": {"resourceVersion": retracted.version}}
        try:
            self._kube.request("DELETE", f"{self._slices_path}/{retracted.name}", body)
        except ApiError as error:
            return error.status in (404, 409)
        except (OSError, http.client.HTTPException):
            return False
        return True

    def _on_event(self, event: Fields) -> None:
        """Handle an event from sshd's log: a connection, a login or a wrong password. Called from the log's thread."""
        if event["event"] in ("connection", "login"):
            self._limiter.notify(event["event"])
        elif event["event"] == "login refused" and event.get("method") == "password":
            self._on_wrong_password(event)

    def _on_wrong_password(self, event: Fields) -> None:
        pid, server = event["session"], str(event["server"])
        if self._sockets.peers.get(pid).wrong_passwords >= self._settings.connection_guesses:
            connections.kill_monitor(pid)
            self._sockets.journal.write({**event, "reason": "too many wrong passwords"})
        # Ignore the name of a server without a disk here: anybody can try any id.
        if not self._sockets.serves(server):
            return
        with self._guesses_lock:
            closed = self._guesses.failed(server, time.monotonic())
        if closed:
            log.warning("passwords slowed", extra={"fields": {"server": event["server"]}})
            # Until it is applied, more guesses get through.
            self._hurry.set()
            self._wake.set()
