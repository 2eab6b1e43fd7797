"""Idle stop on the real cluster: the API and the controller as processes of their own, and real games."""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from local import nodes
from local.paths import ROOT
from tests.cluster.conftest import Cluster
from tests.cluster.replicas import NAMESPACE
from tests.cluster.test_addresses import players
from tests.support import tokens
from tests.support.gunicorn import Served
from tests.support.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.own_namespace]

#: A minute of the idle stop, in seconds. A server runs for ten of them at least.
MINUTE = 2
EMPTY, PLAYED = 1, 2


@dataclass
class Shop:
    """Calls the API about the servers of a namespace of its own."""

    cluster: Cluster
    url: str
    namespace: str

    def call(self, method: str, id: int, body: Any = None) -> dict[str, Any]:
        answer = requests.request(
            method, f"{self.url}/api/v1/server/{id}/", json=body, headers={"Authorization": "Bearer test"}, timeout=60
        )
        assert answer.ok, answer.text
        shown: dict[str, Any] = answer.json()
        return shown

    def idle(self, id: int) -> dict[str, Any]:
        idle: dict[str, Any] = self.call("GET", id)["idle"]
        return idle

    def until(self, id: int, seconds: float, **expected: Any) -> dict[str, Any]:
        """Wait until GET shows these fields of the server; fields of `idle` count too."""
        shown: dict[str, Any] = {}

        def reached() -> bool:
            nonlocal shown
            shown = self.call("GET", id)
            flat = {**shown, **(shown["idle"] or {})}
            return all(flat[name] == value for name, value in expected.items())

        until(reached, seconds, lambda: f"not {expected} but {shown}")
        return shown


@contextmanager
def own_namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace as the API's chart makes it; all of it is gone at the end."""
    name = f"idle-{uuid.uuid4().hex[:8]}"
    cluster.run("kubectl", "create", "namespace", name)
    try:
        cluster.run("kubectl", "label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
        yield name
    finally:
        cluster.run("kubectl", "delete", "namespace", name, "--wait=false")


@pytest.fixture
def shop(cluster: Cluster, tmp_path: Path) -> Iterator[Shop]:
    values = json.loads(cluster.run("helm", "-n", NAMESPACE, "get", "values", "api", "-o", "json"))["serverValues"]
    (tmp_path / "server-values.yaml").write_text(json.dumps({"all": {}, **values}))
    with own_namespace(cluster) as namespace:
        environment = {
            "KUBECONFIG": cluster.kubeconfig,
            "SERVERS_NAMESPACE": namespace,
            "POD_NAMESPACE": namespace,
            "TOKENS_FILE": str(tokens.write(tmp_path / "tokens.json", tokens.entry("test"))),
            "SERVER_VALUES_FILE": str(tmp_path / "server-values.yaml"),
            "IDLE_MINUTE_SECONDS": str(MINUTE),
            "IDLE_STOP_MIN": "1",
            "DRAIN_SECONDS": "1",
        }
        api = Served.start(tmp_path, environment)
        try:
            api.until_alive()
            with controller(environment, tmp_path):
                yield Shop(cluster, api.url, namespace)
        finally:
            api.kill()


@contextmanager
def controller(environment: dict[str, str], folder: Path) -> Iterator[None]:
    """The controller, in the network of a node, because the addresses of pods lead nowhere outside the nodes."""
    network = f"--net=/proc/{next(iter(nodes.running().values()))}/ns/net"
    with (folder / "controller.log").open("wb") as log:
        process = subprocess.Popen(
            ["nsenter", network, "--", sys.executable, "-m", "service.controller"],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "METRICS_PORT": "0", "POD_NAME": "controller", **environment},
            stdout=log,
            stderr=log,
        )
        try:
            yield
        finally:
            process.terminate()
            process.wait(30)
            sys.stdout.write((folder / "controller.log").read_text())


def test_a_server_stops_when_nobody_plays(shop: Shop) -> None:
    """Its values say so, and the next start removes that. One on which somebody plays runs until he leaves."""
    for id in (EMPTY, PLAYED):
        body = {"game": "teeworlds", "ram_gb": 1, "disk_gb": 1, "idle_stop_minutes": 3}
        shop.call("POST", id, body)
    for id in (EMPTY, PLAYED):
        shop.until(id, 60, state="running")
    primary = shop.call("GET", PLAYED)["ports"]["primary"]
    with players(primary["host"], primary["port"], 1) as refused:
        assert refused == [""]
        shop.until(
            PLAYED, 20, players=1, stops_at=None,
            kept_up_by={"slug": "players", "detail": "One player is on the server."},
        )  # fmt: skip
        waits = shop.until(EMPTY, 20, state="running", players=0, kept_up_by=None)["idle"]
        assert waits["since"] < waits["stops_at"]
        stopped = shop.until(EMPTY, 60, state="stopped")
        assert stopped["reason"] == "It was stopped because nobody was playing."
        assert waits["stops_at"] <= stopped["idle"]["stopped_at"]
        output = shop.cluster.run("helm", "-n", shop.namespace, "get", "values", f"server-{EMPTY}", "-o", "json")
        values = json.loads(output)
        assert (values["replicas"], values["server"]["idleStopped"]) == (0, stopped["idle"]["stopped_at"])
        assert shop.idle(PLAYED)["kept_up_by"]["slug"] == "players"
    shop.until(PLAYED, 60, state="stopped", wanted="stopped")
    assert shop.idle(PLAYED)["stopped_at"] is not None
