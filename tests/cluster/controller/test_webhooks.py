"""Webhooks on the real cluster: what calls cause reaches a receiver, also when the active controller is killed."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import requests
from standardwebhooks.webhooks import Webhook as Verifier

from local.paths import ROOT
from tests.cluster.conftest import Cluster
from tests.support import tokens
from tests.support.gunicorn import Served
from tests.support.receivers import Receiver, receiving, status
from tests.support.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.own_namespace]

CONFIG, SECRETS = "webhooks", "webhook-secrets"


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
        for _ in range(20):
            answer = requests.request(
                method, f"{self.api.url}/api/v1{path}", json=body, headers={"Authorization": "Bearer test"}, timeout=60
            )
            if "Retry-After" not in answer.headers:
                break
            time.sleep(1)
        assert answer.ok, answer.text
        shown: dict[str, Any] = answer.json()
        return shown

    @contextmanager
    def controller(self, name: str) -> Iterator[subprocess.Popen[bytes]]:
        """A pod of the controller, as a process."""
        with (self.folder / f"{name}.log").open("wb") as log:
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
        return str(lease.get("spec", {}).get("holderIdentity", "")).split("/")[0]

    def uid(self) -> str:
        """The uid of the webhook `shop`."""
        return str(json.loads(self.written()[f"secret {CONFIG}"])["uid"])

    def written(self) -> dict[str, str]:
        """All that was written down: the processes' logs, and what the namespace's objects say."""
        kinds = "secrets,configmaps,statefulsets,events,leases"
        objects = json.loads(self.cluster.run("kubectl", "-n", self.namespace, "get", kinds, "-o", "json"))["items"]
        return {"logs": self.logged()} | {
            f"{item['kind'].lower()} {item['metadata']['name']}": "".join(
                base64.b64decode(text).decode() for text in (item.get("data") or {}).values()
            )
            if item["kind"] == "Secret"
            else json.dumps(item)
            for item in objects
        }

    def logged(self) -> str:
        """All that the processes have logged."""
        return "".join(file.read_text() for file in (*self.folder.glob("*.log"), self.api.log))


@pytest.fixture
def place(cluster: Cluster, tmp_path: Path) -> Iterator[Place]:
    name = f"webhooks-{uuid.uuid4().hex[:8]}"
    cluster.run("kubectl", "create", "namespace", name)
    try:
        cluster.run("kubectl", "label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
        for secret in (CONFIG, SECRETS):
            cluster.run("kubectl", "-n", name, "create", "secret", "generic", secret)
        environment = {
            "PATH": os.environ["PATH"],
            "KUBECONFIG": cluster.kubeconfig,
            "SERVERS_NAMESPACE": name,
            "POD_NAMESPACE": name,
            "TOKENS_FILE": str(tokens.write(tmp_path / "tokens.json", tokens.entry("test"))),
            "ACCEPTED_EULAS": "minecraft",
            "METRICS_PORT": "0",
            "DRAIN_SECONDS": "1",
            "WEBHOOKS_SECRET": CONFIG,
            "WEBHOOK_SECRETS_SECRET": SECRETS,
            "WEBHOOK_ALLOWED": "127.0.0.0/8",
        }
        api = Served.start(tmp_path, environment)
        try:
            api.until_alive()
            yield Place(cluster, name, environment, tmp_path, api)
        finally:
            api.kill()
    finally:
        cluster.run("kubectl", "delete", "namespace", name, "--wait=false")


def lags(receiver: Receiver) -> list[float]:
    """How many seconds after its time each event arrived first; times are in whole seconds."""
    first: dict[str, float] = {}
    for received in receiver.received:
        happened = datetime.fromisoformat(json.loads(received.body)["timestamp"]).timestamp()
        first.setdefault(received.id, received.time - happened)
    return list(first.values())


def test_events_reach_a_receiver_through_a_kill(place: Place) -> None:
    """In order, signed, at least once under one id; the secret is nowhere but in the answer that made it."""
    with ExitStack() as stack:
        receiver = stack.enter_context(receiving(status(500, b"not now"), status(204)))
        made = place.call("PUT", "/webhook/shop", {"url": receiver.url})
        secret = made["secret"]
        controllers = {name: stack.enter_context(place.controller(name)) for name in ("one", "two")}
        until(lambda: place.active() in controllers, 30, place.logged)
        for id in (1, 2, 3):
            place.call("POST", f"/server/{id}/", {"ram_gb": 1, "disk_gb": 1, "start": False})
        until(lambda: len(set(receiver.ids)) >= 3, 30, place.logged)
        assert max(lags(receiver)) < 6, lags(receiver)

        first = place.active()
        place.call("POST", "/server/4/", {"ram_gb": 1, "disk_gb": 1, "start": False})
        controllers[first].kill()
        place.call("DELETE", "/server/1/")
        until(lambda: place.active() not in ("", first), 40, place.logged)

        def events() -> list[str]:
            return [event["id"] for event in place.call("GET", "/event/")["events"]]

        until(lambda: len(events()) >= 5 and set(events()) <= set(receiver.ids), 40, place.logged)
        assert list(dict.fromkeys(receiver.ids)) == events()
        for received in receiver.received:
            Verifier(secret).verify(received.body, dict(received.headers))

        tested = place.call("POST", "/webhook/shop/test")["id"]
        until(lambda: tested in receiver.ids, 10, place.logged)

        def tries() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = place.call("GET", "/webhook/shop/delivery")["deliveries"]
            return found

        until(lambda: tested in [one["id"] for one in tries()], 15, place.logged)
        assert {"delivered"} <= {one["outcome"] for one in tries()}
        assert place.call("GET", "/webhook/shop")["state"] == "ok"

        rotated = place.call("POST", "/webhook/shop/rotate")["secret"]
        written = place.written()
        assert receiver.ids[0] in written[f"secret webhook-{place.uid()}"]
        assert rotated in written.pop(f"secret {SECRETS}")
        for text in (secret, rotated):
            assert [name for name, content in written.items() if text.removeprefix("whsec_") in content] == []
        assert receiver.url not in written["logs"]
        place.call("DELETE", "/webhook/shop")
        assert secret not in place.written()[f"secret {SECRETS}"]
