"""Webhooks on the real cluster: what calls cause reaches a receiver, also when the active controller is killed."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook as Verifier

from tests.cluster.conftest import Cluster
from tests.cluster.controller.place import Place, place_of
from tests.support.receivers import Receiver, receiving, status
from tests.support.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.own_namespace]

CONFIG, SECRETS = "webhooks", "webhook-secrets"


@pytest.fixture
def place(cluster: Cluster, tmp_path: Path) -> Iterator[Place]:
    """The receivers listen on this machine's loopback address, so the controllers are in its network."""
    with place_of(
        cluster,
        tmp_path,
        secrets=(CONFIG, SECRETS),
        on_node=False,
        WEBHOOKS_SECRET=CONFIG,
        WEBHOOK_SECRETS_SECRET=SECRETS,
        WEBHOOK_ALLOWED="127.0.0.0/8",
        ACCEPTED_EULAS="minecraft",
    ) as place:
        yield place


def written(place: Place) -> dict[str, str]:
    """All that was written down: the processes' logs, and what the namespace's objects say."""
    kinds = "secrets,configmaps,statefulsets,events,leases"
    objects = json.loads(place.cluster.run("kubectl", "-n", place.namespace, "get", kinds, "-o", "json"))["items"]
    return {"logs": place.logged()} | {
        f"{item['kind'].lower()} {item['metadata']['name']}": "".join(
            base64.b64decode(text).decode() for text in (item.get("data") or {}).values()
        )
        if item["kind"] == "Secret"
        else json.dumps(item)
        for item in objects
    }


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
        contents = written(place)
        uid = json.loads(contents[f"secret {CONFIG}"])["uid"]
        assert receiver.ids[0] in contents[f"secret webhook-{uid}"]
        assert rotated in contents.pop(f"secret {SECRETS}")
        for text in (secret, rotated):
            assert [name for name, content in contents.items() if text.removeprefix("whsec_") in content] == []
        assert receiver.url not in contents["logs"]
        place.call("DELETE", "/webhook/shop")
        assert secret not in written(place)[f"secret {SECRETS}"]
