"""Webhooks over an in-memory Kubernetes: the Secrets, a log of events, and pods of the controller that deliver."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from service.controller.deliver import Deliver
from service.controller.leader import Term
from service.events.event import Event, event_id
from service.events.log import EventLog
from service.events.reader import EventReader
from service.events.segments import KIND as EVENTS
from service.kube.client import path
from service.kube.times import now, stamp
from service.records.store import RecordStore
from service.settings import Settings
from service.webhooks import deliveries, signing
from service.webhooks.deliveries import Deliveries
from service.webhooks.records import Webhook, new_uid, written
from service.webhooks.store import SecretWebhooks, secret_webhooks
from tests.support.memory_kube import LabelledKube
from tests.support.receivers import networks

SYSTEM, SERVERS = "gameserver-system", "gameservers"
CONFIG, SECRETS = "api-webhooks", "api-webhook-secrets"


class Lease:
    """A Lease that a test takes away."""

    def __init__(self) -> None:
        self.left = 15.0

    def remaining(self) -> float:
        return self.left


class Place:
    """What the pods of a cluster share."""

    def __init__(self) -> None:
        self.kube = LabelledKube()
        for name in (CONFIG, SECRETS):
            self.kube.create(path("v1", SYSTEM, "secrets"), {"metadata": {"name": name}})
        self.settings = replace(
            Settings(), webhook_allowed=networks("127.0.0.0/8"), webhooks_secret=CONFIG, webhook_secrets_secret=SECRETS
        )
        self.webhooks = self._webhooks()
        self.store = RecordStore(self.kube, SERVERS, deliveries.KIND)
        self.log = EventLog(RecordStore(self.kube, SERVERS, EVENTS))
        self.log.open()
        self._terms: list[Lease] = []

    def _webhooks(self) -> SecretWebhooks:
        webhooks = secret_webhooks(self.settings, self.kube)
        assert webhooks is not None
        return webhooks

    def reader(self) -> EventReader:
        """The log as a pod reads it."""
        return EventReader(RecordStore(self.kube, SERVERS, EVENTS))

    def pod(self, **more: Any) -> Lease:
        """Make a pod the active one; it is until its Lease is taken away."""
        part = Deliver(self.settings, self.kube, self._webhooks(), self.store, self.reader(), **more)
        part.start()
        lease = Lease()
        part.lead(Term(lease, "pod"))  # type: ignore[arg-type]
        self._terms.append(lease)
        return lease

    def end(self) -> None:
        """End all pods."""
        for lease in self._terms:
            lease.left = 0.0

    def webhook(self, name: str, url: str, **more: Any) -> tuple[Webhook, str]:
        """Make a webhook; returns it and its secret."""
        fields: dict[str, Any] = {
            "owner": None, "types": None, "customer": None, "server": None, "servers": None, "enabled": True,
            "starts": 1, "after": 0, "created": now(), "made_by": "shop",
        }  # fmt: skip
        webhook = Webhook(uid=new_uid(), name=name, url=url, **{**fields, **more})
        secret = signing.new_secret()
        self.webhooks.secrets.change(lambda records: {webhook.uid: signing.written([signing.Secret(secret)])})
        self.change(webhook)
        return webhook, secret

    def change(self, webhook: Webhook) -> None:
        """Write a webhook as it is now."""
        self.webhooks.config.change(lambda records: {webhook.key: written(webhook)})

    def happen(self, count: int = 1, type: str = "crashed", server: int = 7, customer: str = "acme") -> list[str]:
        """Let events happen; returns their ids."""
        beginning = self.log.count
        events = [event(f"{beginning + number}", type, server, customer) for number in range(count)]
        return [one.id for one in self.log.append(events, {})]

    def deliveries(self, webhook: Webhook) -> Deliveries:
        """The webhook's deliveries, as they were saved last."""
        record = self.store.get(webhook.uid)
        return Deliveries() if record is None else deliveries.read(record.data)


def event(cause: str, type: str = "crashed", server: int = 7, customer: str = "acme") -> Event:
    """An event that has just happened."""
    moment = stamp(datetime.now(UTC), micro=True)
    return Event(event_id("uid", cause), type, moment, server, "uid", customer, data={"reason": f"It is {cause}."})


def first_seen(ids: Sequence[str]) -> list[str]:
    """The ids, without repetitions."""
    return list(dict.fromkeys(ids))
