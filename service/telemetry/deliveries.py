"""Metrics of the deliveries to webhooks. Only the controller imports this module, so only its pods have them."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from service.telemetry.metrics import REGISTRY

_deliveries = Counter(
    "gameserver_webhook_deliveries",
    "Tries to deliver to webhooks, by outcome.",
    ["outcome"],
    registry=REGISTRY,
)
_given_up = Counter(
    "gameserver_webhook_given_up",
    "Events that were not delivered to a webhook after a day of tries, or that the log had dropped by then.",
    registry=REGISTRY,
)
_first_tries = Histogram(
    "gameserver_webhook_first_try_lag_seconds",
    "How long after what an event tells its first try to a webhook began.",
    buckets=(0.5, 1, 2, 5, 10, 30, 60, 300, 1800, 7200),
    registry=REGISTRY,
)


def count_delivery(outcome: str) -> None:
    """Count one try; `outcome` is that of `webhooks.sender.Result`, or `delivered`."""
    _deliveries.labels(outcome).inc()


def count_given_up() -> None:
    """Count one event that a webhook will not get any more."""
    _given_up.inc()


def observe_first_try(lag: float) -> None:
    """Count the first try of an event, `lag` seconds after its time."""
    _first_tries.observe(max(0.0, lag))


@dataclass(frozen=True)
class CountedWebhook:
    """What is counted of a webhook.

    Attributes:
        owner: `provider` or `customer`.
        state: `ok`, `failing` (its last try failed), `ended` (its receiver answered 410) or `disabled`.
        waiting: How many events wait for another try.
        lag: The age of the oldest event that waits for its first try, in seconds.
    """

    owner: str
    state: str
    waiting: int
    lag: float


class _Webhooks(Collector):
    """Counts the webhooks at each scrape."""

    def __init__(self, webhooks: Callable[[], Iterable[CountedWebhook]]) -> None:
        self._webhooks = webhooks

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return self._families()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        counts, waits, lags = families = self._families()
        count: Tally[tuple[str, str]] = Tally()
        waiting: Tally[str] = Tally()
        lag: dict[str, float] = {}
        for webhook in self._webhooks():
            count[webhook.owner, webhook.state] += 1
            waiting[webhook.owner] += webhook.waiting
            lag[webhook.owner] = max(lag.get(webhook.owner, 0.0), webhook.lag)
        for (owner, state), number in sorted(count.items()):
            counts.add_metric([owner, state], number)
        for owner in sorted(lag):
            waits.add_metric([owner], waiting[owner])
            lags.add_metric([owner], lag[owner])
        yield from families

    @staticmethod
    def _families() -> tuple[GaugeMetricFamily, GaugeMetricFamily, GaugeMetricFamily]:
        return (
            GaugeMetricFamily("gameserver_webhooks", "Webhooks by owner and state.", labels=["owner", "state"]),
            GaugeMetricFamily(
                "gameserver_webhook_waiting", "Events that wait for another try to a webhook.", labels=["owner"]
            ),
            GaugeMetricFamily(
                "gameserver_webhook_lag_seconds",
                "The age of the oldest event that waits for its first try to a webhook.",
                labels=["owner"],
            ),
        )


def count_webhooks(webhooks: Callable[[], Iterable[CountedWebhook]]) -> None:
    """Add to `/metrics` the counts of the webhooks to which this pod delivers."""
    REGISTRY.register(_Webhooks(webhooks))
