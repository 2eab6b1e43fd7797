"""The agent's loop: watch, plan, apply."""

from __future__ import annotations

import http.client
import logging
import random
import threading
import time
from pathlib import Path

from disk_agent import objects
from disk_agent.kube import ApiError, Kube
from disk_agent.logs import Fields
from disk_agent.node import Node
from disk_agent.objects import Service, Slice
from disk_agent.plan import MANAGER, View, endpoint_slice, plan
from disk_agent.settings import Settings
from disk_agent.sshd import connections
from disk_agent.sshd.guesses import Guesses
from disk_agent.sshd.limiter import ConnectionLimiter
from disk_agent.sshd.limits import Limits
from disk_agent.sshd.sockets import Sockets
from disk_agent.watch import Watch

log = logging.getLogger(__name__)

# Changes come in bursts (a create makes a claim, a volume, a Service and an account): take them together.
SETTLE = 0.1
FIRST_RETRY, LONGEST_RETRY = 1.0, 60.0


class Agent:
    """One node's agent."""

    def __init__(self, kube: Kube, settings: Settings, own_log: Path = Path("/dev/log")) -> None:
        self._kube = kube
        self._settings = settings
        self._wake = threading.Event()
        self._hurry = threading.Event()
        self._guesses = Guesses(settings.guesses, settings.guess_seconds)
        self._guesses_lock = threading.Lock()
        self._sockets = Sockets(own_log, self._heard)
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

    def run(self) -> None:
        """For ever. Nothing is changed before all watches know what there is."""
        watches = (self._accounts, self._claims, self._volumes, self._services, self._slices)
        self._sockets.start()
        self._limiter.start()
        for watch in watches:
            watch.start()
        for watch in watches:
            watch.synced.wait()
        retry = FIRST_RETRY
        while True:
            self._wake.clear()
            self._hurry.clear()
            if self._step():
                (Path(self._settings.state) / "synced").touch()
                retry, wait = FIRST_RETRY, None
            else:
                retry, wait = min(retry * 2, LONGEST_RETRY), random.uniform(retry / 2, retry)  # noqa: S311
            with self._guesses_lock:
                opening = self._guesses.next_opening(time.monotonic())
            waits = [seconds for seconds in (wait, opening) if seconds is not None]
            self._wake.wait(min(waits) if waits else None)
            self._hurry.wait(SETTLE)

    def _step(self) -> bool:
        """One pass over all; false when something has to be tried again."""
        decided = plan(
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
        complete = self._node.apply(decided.accesses, slowed)
        with self._guesses_lock:
            self._guesses.applied(slowed)
        for service in decided.publish:
            complete = self._publish(service) and complete
        for found in decided.retract:
            complete = self._retract(found) and complete
        return complete

    def _publish(self, service: Service) -> bool:
        """Point a server's port here. Server-side apply: whichever agent wrote before, this one has the disk."""
        path = f"{self._slices_path}/{service.name}?fieldManager={MANAGER}&force=true"
        body = endpoint_slice(service, self._settings)
        try:
            self._kube.request("PATCH", path, body, "application/apply-patch+yaml")
        except (ApiError, OSError, http.client.HTTPException) as error:
            log.warning("port not published", extra={"fields": {"server": int(service.server), "error": str(error)}})
            return False
        log.info("port published", extra={"fields": {"server": int(service.server)}})
        return True

    def _retract(self, found: Slice) -> bool:
        """Take a slice back, in the version that was seen: the disk's new node may just have written it."""
        body = {"preconditions": {"resourceVersion": found.version}}
        try:
            self._kube.request("DELETE", f"{self._slices_path}/{found.name}", body)
        except ApiError as error:
            return error.status in (404, 409)
        except (OSError, http.client.HTTPException):
            return False
        return True

    def _heard(self, event: Fields) -> None:
        """What sshd's log says about connections, passwords and logins. Called from the log's thread."""
        if event["event"] in ("connection", "login"):
            self._limiter.heard(event["event"])
        elif event["event"] == "login refused" and event.get("method") == "password":
            self._refused(event)

    def _refused(self, event: Fields) -> None:
        process, server = event["session"], str(event["server"])
        if self._sockets.peers.of(process).wrong >= self._settings.connection_guesses:
            connections.turn_away(process)
            self._sockets.journal.write({**event, "reason": "too many wrong passwords"})
        # A name that nobody has is no server's, whatever number is in it.
        if not self._sockets.serves(server):
            return
        with self._guesses_lock:
            closed = self._guesses.failed(server, time.monotonic())
        if closed:
            log.warning("passwords slowed", extra={"fields": {"server": event["server"]}})
            # Each moment until then is good for more guesses.
            self._hurry.set()
            self._wake.set()
