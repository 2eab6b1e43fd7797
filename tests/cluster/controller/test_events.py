"""The log of events on the real cluster, with controllers that are killed and frozen."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests

from local.paths import ROOT
from tests.cluster.conftest import Cluster
from tests.cluster.replicas import NAMESPACE as API_NAMESPACE
from tests.cluster.replicas import first_process
from tests.support import tokens
from tests.support.gunicorn import Served
from tests.support.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.own_namespace]

TAKEOVER_SECONDS = 20
PATH = "/server/1/"


@dataclass
class Place:
    """An API and controllers of their own, for a namespace of their own."""

    cluster: Cluster
    namespace: str
    environment: dict[str, str]
    folder: Path
    api: Served

    def call(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """The answer to a call, sent again while the API asks for it."""
        while True:
            answer = requests.request(
                method, f"{self.api.url}/api/v1{path}", json=body, headers={"Authorization": "Bearer test"}, timeout=60
            )
            if "Retry-After" not in answer.headers:
                assert answer.ok, answer.text
                return dict(answer.json())
            time.sleep(1)

    def events(self) -> list[dict[str, Any]]:
        """All events so far."""
        events: list[dict[str, Any]] = self.call("GET", "/event/")["events"]
        return events

    def types(self) -> list[str]:
        return [event["type"] for event in self.events()]

    def event(self, number: int, type_: str, seconds: float) -> dict[str, Any]:
        """Wait for the event with this number, which must have this type."""
        until(lambda: len(self.events()) >= number, seconds, lambda: f"{self.types()} {self.logged()}")
        event = self.events()[number - 1]
        assert event["type"] == type_, self.types()
        return event

    @contextmanager
    def controller(self, name: str) -> Iterator[subprocess.Popen[bytes]]:
        """A pod of the controller, as a process."""
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "service.controller"],
                cwd=ROOT,
                env={**self.environment, "POD_NAME": name},
                stdout=log,
                stderr=log,
            )
            try:
                yield process
            finally:
                process.kill()
                process.wait()

    def active(self) -> str:
        """The name of the active controller, "" if there is none."""
        kubectl = ("kubectl", "-n", self.namespace, "get", "lease", "gameserver-controller", "--ignore-not-found")
        lease = json.loads(self.cluster.run(*kubectl, "-o", "json") or "{}")
        return str(lease.get("spec", {}).get("holderIdentity", "")).partition("/")[0]

    def crash(self) -> None:
        """The game is killed by somebody in its pod."""
        pod = json.loads(self.cluster.run("kubectl", "-n", self.namespace, "get", "pod", "server-1-0", "-o", "json"))
        os.kill(first_process(pod, "teeworlds"), signal.SIGKILL)

    def logged(self) -> str:
        """All that the controllers have logged."""
        return "".join(file.read_text() for file in sorted(self.folder.glob("*.log")))


@pytest.fixture
def place(cluster: Cluster, tmp_path: Path) -> Iterator[Place]:
    name = f"events-{uuid.uuid4().hex[:8]}"
    # The games' images, which the local cluster has.
    values = json.loads(cluster.run("helm", "-n", API_NAMESPACE, "get", "values", "api", "-o", "json"))["serverValues"]
    (tmp_path / "server-values.yaml").write_text(json.dumps(values))
    cluster.run("kubectl", "create", "namespace", name)
    try:
        cluster.run("kubectl", "label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
        environment = {
            "PATH": os.environ["PATH"],
            "KUBECONFIG": cluster.kubeconfig,
            "SERVERS_NAMESPACE": name,
            "TOKENS_FILE": str(tokens.write(tmp_path / "tokens.json", tokens.entry("test"))),
            "SERVER_VALUES_FILE": str(tmp_path / "server-values.yaml"),
            "METRICS_PORT": "0",
            "DRAIN_SECONDS": "1",
        }
        api = Served.start(tmp_path, environment)
        try:
            api.until_alive()
            yield Place(cluster, name, environment, tmp_path, api)
        finally:
            api.kill()
    finally:
        cluster.run("kubectl", "delete", "namespace", name, "--wait=false")


def test_nothing_is_lost_or_told_twice_through_a_kill_and_a_freeze(place: Place) -> None:
    """A server's whole life is in the log, in order; from cause to log it takes a second or two."""
    with ExitStack() as stack:
        controllers = {name: stack.enter_context(place.controller(name)) for name in ("one", "two")}
        until(lambda: place.active() in controllers, 30, place.logged)
        # It has begun when its record is there: only later servers have an event `created`.
        record = ("kubectl", "-n", place.namespace, "get", "secret", "event-state-00", "--ignore-not-found")
        until(lambda: place.cluster.run(*record), 30, place.logged)

        place.call("POST", PATH, {"game": "teeworlds", "ram_gb": 1, "disk_gb": 1, "customer": "acme"})
        place.event(3, "running", 90)

        place.crash()
        crashed_at = datetime.now(UTC)
        crash = place.event(4, "crashed", 5)
        assert (datetime.now(UTC) - crashed_at).total_seconds() < 3
        assert crash["data"] == {
            "restarts": 0, "exit_code": 137, "reason": "The game crashed (exit code 137)."
        }  # fmt: skip
        place.event(5, "running", 30)

        # The other one has seen how the run ended, and writes it.
        killed = place.active()
        controllers[killed].kill()
        place.crash()
        crash = place.event(6, "crashed", TAKEOVER_SECONDS + 5)
        assert (crash["data"]["restarts"], crash["data"]["exit_code"]) == (1, 137)
        controllers[killed] = stack.enter_context(place.controller(killed))
        place.event(7, "running", 60)

        frozen = place.active()
        controllers[frozen].send_signal(signal.SIGSTOP)
        place.call("PATCH", f"{PATH}stop")
        stop = place.event(8, "stopped", TAKEOVER_SECONDS + 15)
        assert stop["data"] == {"wanted": "stopped", "exit_code": stop["data"]["exit_code"], "reason": None}
        controllers[frozen].send_signal(signal.SIGCONT)
        # It has lost the Lease, so it ends.
        controllers[frozen].wait(30)

        place.call("DELETE", f"{PATH}?disk=erase")
        place.event(9, "deleted", 20)
        events = place.events()
        assert [event["type"] for event in events] == [
            "created", "started", "running", "crashed", "running", "crashed", "running", "stopped", "deleted"
        ]  # fmt: skip
        assert [event["number"] for event in events] == list(range(1, 10))
        assert len({event["id"] for event in events}) == 9
        assert {(event["server"], event["customer"]) for event in events} == {(1, "acme")}
