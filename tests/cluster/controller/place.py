"""An API and controllers of a test's own, as processes, for a namespace of their own in the real cluster."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import requests

from local import nodes
from tests.cluster.conftest import Cluster
from tests.cluster.replicas import NAMESPACE as API_NAMESPACE
from tests.cluster.replicas import first_process
from tests.support import controller, tokens
from tests.support.gunicorn import Served
from tests.support.waiting import until

TAKEOVER_SECONDS = 20
_STARTS = "-- a controller starts --"


@dataclass
class Place:
    """An API and controllers of their own, for a namespace of their own."""

    cluster: Cluster
    namespace: str
    environment: dict[str, str]
    folder: Path
    api: Served
    within: tuple[str, ...]

    def call(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """The answer to a call, sent again while the API asks for it."""
        for _ in range(60):
            answer = self.send(method, path, body)
            if "Retry-After" not in answer.headers:
                break
            time.sleep(1)
        assert answer.ok, answer.text
        return dict(answer.json())

    def send(self, method: str, path: str, body: Any = None) -> requests.Response:
        """The response to a call, which is sent once."""
        return requests.request(
            method, f"{self.api.url}/api/v1{path}", json=body, headers={"Authorization": "Bearer test"}, timeout=60
        )

    def events(self) -> list[dict[str, Any]]:
        """All events so far."""
        events: list[dict[str, Any]] = []
        cursor = ""
        while True:
            answer = self.call("GET", f"/event/?limit=500{cursor}")
            if not answer["events"]:
                return events
            events += answer["events"]
            cursor = f"&after={answer['cursor']}"

    def types(self) -> list[str]:
        return [event["type"] for event in self.events()]

    def event(self, number: int, type_: str, seconds: float) -> dict[str, Any]:
        """Wait for the event with this number, which must have this type."""
        until(lambda: len(self.events()) >= number, seconds, lambda: f"{self.types()} {self.logged()}")
        event = self.events()[number - 1]
        assert event["type"] == type_, self.types()
        return event

    def until_begun(self) -> None:
        """Wait until a controller tells events: only later servers have an event `created`."""
        record = ("kubectl", "-n", self.namespace, "get", "secret", "event-state-00", "--ignore-not-found")
        until(lambda: self.cluster.run(*record), 30, self.logged)

    @contextmanager
    def controller(self, name: str) -> Iterator[subprocess.Popen[bytes]]:
        """A pod of the controller, as a process."""
        log = self.folder / f"{name}.log"
        with log.open("a") as file:
            file.write(f"{_STARTS}\n")
        process = controller.start(name, self.environment, log, self.within)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def watches(self, name: str) -> bool:
        """Whether the controller that was started last under this name watches all servers."""
        log = (self.folder / f"{name}.log").read_text()
        return "this pod watches all servers" in log.rpartition(_STARTS)[2]

    def active(self) -> str:
        """The name of the active controller, "" if there is none."""
        return self.holder().partition("/")[0]

    def holder(self) -> str:
        """The name of the active controller and, after a slash, what is new with each process; "" if there is none."""
        kubectl = ("kubectl", "-n", self.namespace, "get", "lease", "gameserver-controller", "--ignore-not-found")
        lease = json.loads(self.cluster.run(*kubectl, "-o", "json") or "{}")
        return str(lease.get("spec", {}).get("holderIdentity", ""))

    def crash(self, id: int = 1) -> None:
        """The game is killed by somebody in its pod."""
        os.kill(first_process(self.pod(id), "teeworlds"), signal.SIGKILL)

    def pod(self, id: int) -> dict[str, Any]:
        """The server's pod."""
        get = ("kubectl", "-n", self.namespace, "get", "pod", f"server-{id}-0", "-o", "json")
        return dict(json.loads(self.cluster.run(*get)))

    def until_running(self, *ids: int, seconds: float = 120) -> None:
        """Wait until each of these servers runs, for each up to `seconds`."""
        for id in ids:
            until(lambda id=id: self.call("GET", f"/server/{id}/")["state"] == "running", seconds, self.logged)  # type: ignore[misc]

    def logged(self) -> str:
        """All that the controllers and the API have logged."""
        return "".join(file.read_text() for file in (*sorted(self.folder.glob("*.log")), self.api.log))


def new_name() -> str:
    """A name for a namespace."""
    return f"controller-{uuid.uuid4().hex[:8]}"


@contextmanager
def place_of(
    cluster: Cluster,
    folder: Path,
    *,
    name: str = "",
    secrets: tuple[str, ...] = (),
    on_node: bool = True,
    api_on_node: bool = False,
    values: Mapping[str, Any] = MappingProxyType({}),
    **settings: str,
) -> Iterator[Place]:
    """A place.

    Args:
        cluster: The cluster.
        folder: For files and logs.
        name: The namespace; "" for any name.
        secrets: Secrets to create without data.
        on_node: Whether its controllers are in the network of a node: the games' addresses lead nowhere else.
        api_on_node: Whether its API is there too.
        values: The operator's values for all servers, besides the games' images.
        settings: Variables in the environment of its API and its controllers.
    """
    name = name or new_name()
    # The games' images, which the local cluster has.
    images = json.loads(cluster.run("helm", "-n", API_NAMESPACE, "get", "values", "api", "-o", "json"))["serverValues"]
    (folder / "server-values.yaml").write_text(json.dumps({**images, "all": {**images.get("all", {}), **values}}))
    cluster.run("kubectl", "create", "namespace", name)
    try:
        cluster.run("kubectl", "label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
        for secret in secrets:
            cluster.run("kubectl", "-n", name, "create", "secret", "generic", secret)
        environment = {
            "PATH": os.environ["PATH"],
            "KUBECONFIG": cluster.kubeconfig,
            "SERVERS_NAMESPACE": name,
            "POD_NAMESPACE": name,
            "TOKENS_FILE": str(tokens.write(folder / "tokens.json", tokens.entry("test"))),
            "SERVER_VALUES_FILE": str(folder / "server-values.yaml"),
            "METRICS_PORT": "0",
            "DRAIN_SECONDS": "1",
            **settings,
        }
        number, process = next(iter(nodes.running().items()))
        node_network = ("nsenter", f"--net=/proc/{process}/ns/net", "--")
        where: dict[str, Any] = {"within": node_network, "host": nodes.Node(number).address} if api_on_node else {}
        api = Served.start(folder, environment, **where)
        try:
            api.until_alive()
            yield Place(cluster, name, environment, folder, api, node_network if on_node else ())
        finally:
            api.kill()
    finally:
        cluster.run("kubectl", "delete", "namespace", name, "--wait=false")
