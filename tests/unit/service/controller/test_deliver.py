"""Webhooks get the events: in order, signed, at least once, and none waits for another."""

from __future__ import annotations

import json
import logging
import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook as Verifier

from service.api.event_schemas import event_fields
from service.controller import deliver
from service.controller.deliver import body_of
from service.events.event import event_id
from service.events.reader import EventReader
from service.kube.times import now, stamp
from service.telemetry import deliveries as metrics
from service.telemetry.metrics import REGISTRY
from service.webhooks import retries, sender, signing
from service.webhooks.deliveries import Deliveries, Waiting
from service.webhooks.deliveries import written as record_of
from service.webhooks.sender import Result, Sender
from tests.docs.snippets import block
from tests.support.receivers import Receiver, hang, receiving, status
from tests.support.waiting import until
from tests.support.webhooks import SERVERS, Place, event, first_seen


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """A cluster without pods. What is done within seconds is done within tenths."""
    monkeypatch.setattr(retries, "PAUSES", (0.2, 0.4))
    monkeypatch.setattr(deliver, "SAVE_SECONDS", 0.1)
    monkeypatch.setattr(deliver, "LOOK_SECONDS", 0.05)
    # Every pod counts its webhooks; here there are many in one process.
    monkeypatch.setattr(metrics, "count_webhooks", lambda webhooks: None)
    place = Place()
    yield place
    place.end()


def arrived(receiver: Receiver, ids: Sequence[str], seconds: float = 10) -> None:
    """Wait until all these events have arrived, and assert that their first tries came in order."""
    until(lambda: set(ids) <= set(receiver.ids), seconds, lambda: f"{len(set(receiver.ids))} of {len(ids)}")
    assert first_seen([id for id in receiver.ids if id in set(ids)]) == list(ids)


def test_events_arrive_in_order_and_signed(place: Place) -> None:
    """Each once, with the body that the documentation shows, and the record says how far it is."""
    with receiving() as receiver:
        webhook, secret = place.webhook("shop", receiver.url)
        place.pod()
        ids = place.happen(5)
        arrived(receiver, ids)
        assert receiver.ids == ids
        for number, received in enumerate(receiver.received):
            Verifier(secret).verify(received.body, dict(received.headers))
            body = json.loads(received.body)
            data = body["data"]
            assert body == {"type": "crashed", "timestamp": data["time"], "data": data}
            assert data == {
                "id": received.id, "type": "crashed", "time": data["time"], "server": 7, "uid": "uid",
                "customer": "acme", "number": number + 1, "position": number + 1,
                "data": {"reason": f"It is {number}."},
            }  # fmt: skip
        until(lambda: place.deliveries(webhook).cursor == 5)
        known = place.deliveries(webhook)
        assert [(one.id, one.outcome, one.attempt, one.status) for one in known.tries] == [
            (id, "delivered", 1, 204) for id in reversed(ids)
        ]


def test_a_webhook_gets_what_comes_after_it_was_made(place: Place) -> None:
    """And nothing of before."""
    place.happen(3)
    with receiving() as receiver:
        place.webhook("shop", receiver.url, after=2)
        place.pod()
        ids = place.happen(1)
        until(lambda: ids[0] in receiver.ids)
        assert len(receiver.ids) == 2


def test_what_failed_is_tried_again_under_the_same_id(place: Place) -> None:
    """Signed anew; the next event does not wait for it."""
    with receiving(status(500, b"not now"), status(200)) as receiver:
        webhook, secret = place.webhook("shop", receiver.url)
        place.pod()
        first, second = place.happen(2)
        until(lambda: len(receiver.ids) == 3)
        assert receiver.ids == [first, second, first]
        assert receiver.received[0].body == receiver.received[2].body
        for received in receiver.received:
            Verifier(secret).verify(received.body, dict(received.headers))
        until(lambda: len(place.deliveries(webhook).tries) == 3)
        last, _, earlier = place.deliveries(webhook).tries
        assert (earlier.outcome, earlier.status, earlier.answer, earlier.next is None) == (
            "refused",
            500,
            "not now",
            False,
        )
        assert (last.outcome, last.attempt, last.next) == ("delivered", 2, None)


def test_410_ends_a_webhook_until_it_is_enabled_anew(place: Place) -> None:
    """What comes in between is not sent later."""
    with receiving(status(410), status(204)) as receiver:
        webhook, _ = place.webhook("shop", receiver.url)
        place.pod()
        place.happen(1)
        until(lambda: place.deliveries(webhook).ended)
        place.happen(2)
        time.sleep(0.5)
        assert len(receiver.ids) == 1
        place.change(replace(webhook, starts=2, after=3))
        ids = place.happen(1)
        until(lambda: len(receiver.ids) == 2)
        assert receiver.ids[1:] == ids


def test_a_receiver_can_ask_for_time(place: Place) -> None:
    """By 429 with Retry-After."""
    with receiving(status(429, Retry_After="2"), status(204)) as receiver:
        place.webhook("shop", receiver.url)
        place.pod()
        place.happen(1)
        until(lambda: len(receiver.ids) == 2)
        assert 2 <= receiver.received[1].time - receiver.received[0].time < 3


def test_filters(place: Place) -> None:
    """By type, customer and server."""
    with ExitStack() as stack:
        receivers = {
            name: stack.enter_context(receiving()) for name in ("all", "types", "customer", "server", "servers")
        }
        filters: dict[str, dict[str, Any]] = {
            "all": {}, "types": {"types": ("stopped",)}, "customer": {"customer": "acme"}, "server": {"server": 8},
            "servers": {"servers": (7, 9)},
        }  # fmt: skip
        for name, more in filters.items():
            place.webhook(name, receivers[name].url, **more)
        place.pod()
        (a,) = place.happen(1, "crashed", 7, "acme")
        (b,) = place.happen(1, "stopped", 8, "other")
        (c,) = place.happen(1, "stopped", 9, "acme")
        wanted = {"all": [a, b, c], "types": [b, c], "customer": [a, c], "server": [b], "servers": [a, c]}
        until(lambda: {name: one.ids for name, one in receivers.items()} == wanted, 5)


def test_a_webhook_that_is_switched_off_gets_nothing(place: Place) -> None:
    """When it is switched on again, it goes on from there."""
    with receiving() as receiver:
        webhook, _ = place.webhook("shop", receiver.url, enabled=False)
        place.pod()
        place.happen(2)
        time.sleep(0.5)
        assert receiver.ids == []
        place.change(replace(webhook, enabled=True, starts=2, after=2))
        arrived(receiver, place.happen(1))
        place.change(replace(webhook, enabled=False, starts=2, after=2))
        time.sleep(0.3)
        place.happen(1)
        time.sleep(0.5)
        assert len(receiver.ids) == 1


def test_a_deleted_webhook_gets_nothing(place: Place) -> None:
    """Not even what waits. Its record is deleted."""
    with receiving(status(500)) as receiver:
        webhook, _ = place.webhook("shop", receiver.url)
        place.pod()
        place.happen(1)
        until(lambda: place.store.get(webhook.uid))
        place.webhooks.config.change(lambda records: {"shop": None})
        time.sleep(0.5)
        seen = len(receiver.ids)
        place.happen(1)
        time.sleep(1)
        assert len(receiver.ids) == seen
        # The next active pod cleans up.
        place.end()
        place.pod()
        until(lambda: place.store.get(webhook.uid) is None)


def test_customers_webhooks_only_if_the_operator_lets_them(place: Place) -> None:
    """A change of mind reaches those that exist. What the operator lists is not for them."""
    with receiving() as receiver:
        webhook, _ = place.webhook("mine", receiver.url, owner="acme", customer="acme")
        closed = place.pod()
        place.happen(1)
        time.sleep(0.5)
        assert place.deliveries(webhook).tries == []
        closed.left = 0
        place.settings = replace(place.settings, webhooks_for_customers=True)
        place.pod()
        until(lambda: place.deliveries(webhook).tries)
        assert {one.outcome for one in place.deliveries(webhook).tries} == {"forbidden"}
        assert receiver.connections == 0


# -- none waits for another --------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_dead_receiver_with_a_thousand_events_waiting_delays_no_other(place: Place) -> None:
    """Nor does one that never answers."""
    with receiving(hang) as dead, receiving(hang) as slow, receiving() as quick:
        webhook, _ = place.webhook("dead", dead.url)
        place.webhook("slow", slow.url)
        place.webhook("quick", quick.url, after=1000)
        place.happen(1000)
        waiting = {position: Waiting(position, 3, time.time(), time.time() - 60) for position in range(1, 1001)}
        place.store.create(webhook.uid, record_of(Deliveries(1, 1000, waiting, failures=1000)))
        place.pod()
        until(lambda: dead.connections and slow.connections)
        began = time.monotonic()
        ids = place.happen(100)
        arrived(quick, ids)
        assert time.monotonic() - began < 5
        # Of the dead one, first tries wait until there is room: nothing is lost meanwhile.
        assert len(place.deliveries(webhook).waiting) == 1000
        assert place.deliveries(webhook).cursor == 1000


@pytest.mark.slow
def test_a_receiver_that_is_back_gets_everything(place: Place) -> None:
    """What waited for hours comes at once, and then what had no first try because too much waited."""
    with receiving() as receiver:
        webhook, _ = place.webhook("shop", receiver.url)
        ids = place.happen(1005)
        later = time.time() + 3600
        waiting = {position: Waiting(position, 6, later, time.time() - 9000) for position in range(1, 1001)}
        waiting[500] = replace(waiting[500], due=time.time())
        place.store.create(webhook.uid, record_of(Deliveries(1, 1000, waiting, failures=2000)))
        place.pod()
        until(lambda: set(receiver.ids) == set(ids), 60)
        assert len(receiver.ids) == 1005
        until(lambda: place.deliveries(webhook).cursor == 1005 and not place.deliveries(webhook).waiting)


def test_while_too_much_waits_the_receiver_is_asked_now_and_then(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise one that is back would get nothing new until the first of a thousand is due."""
    monkeypatch.setattr(deliver, "PROBE_SECONDS", 0.5)
    monkeypatch.setattr(deliver, "IDLE_SECONDS", 0.2)
    monkeypatch.setattr(deliver, "MOST_WAITING", 10)
    with receiving() as receiver:
        webhook, _ = place.webhook("shop", receiver.url)
        ids = place.happen(12)
        later = time.time() + 3600
        waiting = {position: Waiting(position, 6, later + position, time.time() - 9000) for position in range(1, 11)}
        place.store.create(webhook.uid, record_of(Deliveries(1, 10, waiting, failures=100)))
        place.pod()
        until(lambda: receiver.ids)
        assert receiver.ids[0] == ids[0]
        until(lambda: set(receiver.ids) == set(ids))


@pytest.mark.slow
def test_from_cause_to_first_try_within_five_seconds(place: Place) -> None:
    """For 99 of 100, with 50 webhooks, some of which are dead or slow."""
    with ExitStack() as stack:
        receivers = [stack.enter_context(receiving()) for _ in range(45)]
        for number in range(5):
            place.webhook(f"dead-{number}", stack.enter_context(receiving(hang if number % 2 else status(500))).url)
        for number, receiver in enumerate(receivers):
            place.webhook(f"hook-{number}", receiver.url)
        place.pod()
        ids = []
        for _ in range(20):
            ids += place.happen(2)
            time.sleep(0.1)
        for receiver in receivers:
            arrived(receiver, ids, 30)
        lags = sorted(
            received.time - datetime.fromisoformat(json.loads(received.body)["timestamp"]).timestamp()
            for receiver in receivers
            for received in receiver.received
        )
        assert len(lags) == 45 * 40
    # On a quiet machine it is under 5 s; beside all other tests it took 8 s.
    assert lags[int(len(lags) * 0.99)] < 30


# -- the controller dies -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_at_least_once_through_kills_at_any_point(place: Place) -> None:
    """Under one id each; first tries are in order for each pod, and over all of them."""
    random_ = random.Random(4711)
    answers = [status(204 if random_.random() < 0.7 else 500) for _ in range(5000)]
    with receiving(*answers) as receiver:
        webhook, _ = place.webhook("shop", receiver.url)
        ids: list[str] = []
        pod = place.pod()
        for _ in range(8):
            ids += place.happen(random_.randrange(1, 30))
            time.sleep(random_.random() * 0.5)
            # Frozen rather than killed: what it has on its way still arrives.
            pod.left = 0.0
            pod = place.pod()
        receiver.answers = [status(204)]
        arrived(receiver, ids, 20)
        until(lambda: place.deliveries(webhook).cursor == len(ids) and not place.deliveries(webhook).waiting, 20)
        delivered = {one.id for one in place.deliveries(webhook).tries}
        assert delivered <= set(ids)


def test_a_kill_repeats_only_what_was_not_written(place: Place) -> None:
    """The record is also written between the events of a row."""

    def slowly(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(0.1)
        status(204)(handler)

    with receiving(slowly) as receiver:
        webhook, _ = place.webhook("shop", receiver.url)
        pod = place.pod()
        ids = place.happen(30)
        until(lambda: place.deliveries(webhook).cursor >= 15)
        pod.left = 0.0
        place.pod()
        arrived(receiver, ids)
        assert len(receiver.ids) < 45


def test_a_pod_that_is_not_active_any_more_writes_nothing(place: Place) -> None:
    """It has been replaced; its record would be older than the new pod's."""
    with receiving() as receiver:
        webhook, _ = place.webhook("shop", receiver.url)
        pod = place.pod()
        arrived(receiver, place.happen(1))
        until(lambda: place.deliveries(webhook).cursor == 1)
        pod.left = 0.0
        place.happen(3)
        time.sleep(1)
        assert place.deliveries(webhook).cursor == 1


def test_an_outage_of_kubernetes_stops_no_delivery(place: Place) -> None:
    """The record is written when it is back."""

    def slowly(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(0.3)
        status(204)(handler)

    with receiving(slowly) as receiver:
        webhook, _ = place.webhook("shop", receiver.url)
        place.pod()
        arrived(receiver, place.happen(1))
        until(lambda: place.deliveries(webhook).cursor == 1)
        ids = place.happen(3)
        until(lambda: len(receiver.ids) == 2)
        place.kube.away()
        arrived(receiver, ids)
        time.sleep(0.3)
        place.kube.back()
        until(lambda: place.deliveries(webhook).cursor == 4, 15)


# -- the log -----------------------------------------------------------------------------------------------


def test_an_event_that_the_log_has_dropped_is_given_up(place: Place) -> None:
    """It cannot be sent again."""
    with receiving() as receiver:
        webhook, _ = place.webhook("shop", receiver.url)
        place.happen(2)
        waiting = {99: Waiting(99, 3, time.time(), time.time() - 60)}
        place.store.create(webhook.uid, record_of(Deliveries(1, 2, waiting)))
        place.pod()
        until(lambda: place.deliveries(webhook).waiting == {})
        assert receiver.ids == []


def test_that_events_were_dropped_is_delivered(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under one id and with one body, also when it has to be tried again."""
    monkeypatch.setattr("service.events.log.MAX_EVENTS", 100)
    place.happen(300)
    reader = place.reader()
    reader.start()
    until(lambda: reader.newest == 300)
    beginning = reader.beginning
    assert beginning > 0
    with receiving(status(500), status(500), status(204)) as receiver:
        place.webhook("shop", receiver.url, types=("dropped",))
        place.pod()
        until(lambda: len(receiver.ids) == 3)
        assert set(receiver.ids) == {event_id("", "dropped", 0, beginning)}
        (body,) = {received.body for received in receiver.received}
        assert json.loads(body)["data"] | {"time": ""} == {
            "id": receiver.ids[0], "type": "dropped", "time": "", "server": 0, "uid": "", "customer": "",
            "number": 0, "position": beginning,
            "data": {"reason": "The log no longer has these events.", "events": beginning},
        }  # fmt: skip


def test_the_event_of_a_drop_is_the_readers(place: Place) -> None:
    """Made again for a retry, it is the same."""
    place.happen(3)
    reader: EventReader = place.reader()
    reader.start()
    until(lambda: reader.newest == 3)
    reader._events = reader._events[2:]
    (first, *_), _ = reader.after(0, 10)
    again = deliver._dropped(Waiting(2, 1, 0, 0, 2))
    assert replace(again, time=first.time) == first


def test_a_log_that_begins_anew_is_followed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Someone has deleted its records."""
    monkeypatch.setattr(deliver, "IDLE_SECONDS", 0.2)
    with receiving() as receiver:
        place.webhook("shop", receiver.url)
        place.pod()
        arrived(receiver, place.happen(3))
        for name in [name for name in place.kube.objects if f"/{SERVERS}/secrets/events-" in name]:
            place.kube.delete(name)
        time.sleep(0.5)
        place.log.open()
        ids = place.happen(1, "stopped")
        until(lambda: ids[0] in receiver.ids)


def test_a_pod_that_is_behind_the_api_does_not_begin_anew(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The API may have heard of some events before it."""
    monkeypatch.setattr(deliver, "IDLE_SECONDS", 0.2)
    place.happen(3)
    with receiving() as receiver:
        place.webhook("shop", receiver.url, after=5)
        place.pod()
        time.sleep(0.7)
        ids = place.happen(3)
        until(lambda: receiver.ids == ids)


# -- secrets -----------------------------------------------------------------------------------------------


def test_a_new_secret_signs_at_once_and_the_old_one_beside_it(place: Place) -> None:
    """No restart is needed."""
    with receiving() as receiver:
        webhook, old = place.webhook("shop", receiver.url)
        place.pod()
        arrived(receiver, place.happen(1))
        new = signing.new_secret()
        known = signing.rotated([signing.Secret(old)], new, datetime.now(UTC))
        place.webhooks.secrets.change(lambda records: {webhook.uid: signing.written(known)})
        time.sleep(0.3)
        arrived(receiver, place.happen(1))
        for secret in (old, new):
            Verifier(secret).verify(receiver.received[1].body, dict(receiver.received[1].headers))


def test_nothing_is_sent_without_a_signature(place: Place) -> None:
    """A webhook whose secret is not there waits for it, and that costs no try."""
    with receiving() as receiver:
        webhook, secret = place.webhook("shop", receiver.url)
        place.webhooks.secrets.change(lambda records: {webhook.uid: None})
        place.pod()
        ids = place.happen(1)
        time.sleep(1)
        assert receiver.ids == []
        place.webhooks.secrets.change(lambda records: {webhook.uid: signing.written([signing.Secret(secret)])})
        until(lambda: receiver.ids == ids)


def test_no_secret_and_no_url_is_logged(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """Many receivers take whoever knows their URL."""
    caplog.set_level(logging.DEBUG)
    with receiving(status(500), status(410)) as receiver:
        webhook, secret = place.webhook("shop", f"{receiver.url}&key=hush")
        place.webhooks.config.change(lambda records: {"bad": '{"url": "hush"}'})
        place.webhooks.secrets.change(lambda records: {"bad": "whsec_hush"})
        place.pod()
        place.happen(2)
        until(lambda: place.deliveries(webhook).ended)
        record = place.store.get(webhook.uid)
        assert record is not None
        for text in (caplog.text, *record.data.values()):
            assert secret.removeprefix("whsec_") not in text
            assert "hush" not in text
        assert "webhook shop: The receiver answered 410" in caplog.text
        assert "ignoring bad: the webhook bad cannot be read" in caplog.text


# -- tests, addresses, metrics -----------------------------------------------------------------------------


def test_a_test_is_sent_once(place: Place) -> None:
    """Also by a webhook that is switched off; it is signed, and among the tries."""
    with receiving(status(500)) as receiver:
        webhook, secret = place.webhook("shop", receiver.url, enabled=False)
        place.pod()
        place.change(replace(webhook, test="test-1", test_asked=now()))
        until(lambda: receiver.ids == ["test-1"])
        Verifier(secret).verify(receiver.received[0].body, dict(receiver.received[0].headers))
        assert json.loads(receiver.received[0].body)["type"] == "test"
        until(lambda: place.deliveries(webhook).tested == "test-1")
        (made,) = place.deliveries(webhook).tries
        assert (made.id, made.type, made.status, made.next) == ("test-1", "test", 500, None)
        assert place.deliveries(webhook).failures == 0
        place.end()
        place.pod()
        time.sleep(0.5)
        assert receiver.ids == ["test-1"]


def test_a_repaired_receiver_gets_what_waits(place: Place) -> None:
    """At once after a test that was delivered, or once the webhook has another URL, and not after hours."""
    with receiving() as receiver:
        webhooks = [place.webhook(name, receiver.url, after=1)[0] for name in ("tested", "moved")]
        (waits,) = place.happen(1)
        later = time.time() + 9 * 3600
        for webhook in webhooks:
            waiting = {1: Waiting(1, 8, later, time.time() - 9000)}
            place.store.create(webhook.uid, record_of(Deliveries(1, 1, waiting, failures=1)))
        place.pod()
        tested, moved = webhooks
        place.change(replace(tested, test="test-1", test_asked=now()))
        until(lambda: receiver.ids == ["test-1", waits])
        until(lambda: (place.deliveries(tested).waiting, place.deliveries(tested).failures) == ({}, 0))
        place.change(replace(moved, url=f"{receiver.url}/new"))
        until(lambda: receiver.ids == ["test-1", waits, waits])
        until(lambda: (place.deliveries(moved).waiting, place.deliveries(moved).failures) == ({}, 0))


def test_an_old_test_is_not_sent(place: Place) -> None:
    """Nobody waits for it any more."""
    with receiving() as receiver:
        asked = stamp(datetime.now(UTC) - timedelta(minutes=2))
        place.webhook("shop", receiver.url, test="test-1", test_asked=asked)
        place.pod()
        arrived(receiver, place.happen(1))
        assert len(receiver.ids) == 1


def test_the_nodes_own_addresses_may_not_be_reached(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """They may be public. They are read before anything is sent."""
    node = {"metadata": {"name": "one"}, "status": {"addresses": [
        {"type": "Hostname", "address": "one"}, {"type": "ExternalIP", "address": "8.8.8.8"},
    ]}}  # fmt: skip
    place.kube.create("/api/v1/nodes", node)
    outcomes: list[str] = []

    class Public(Sender):
        def __init__(self, reach: Any) -> None:
            super().__init__(reach, lambda host, port: ["8.8.8.8"])

        def send(self, *arguments: Any) -> Result:
            result = super().send(*arguments)
            outcomes.append(result.outcome)
            return result

    monkeypatch.setattr(deliver, "Sender", Public)
    monkeypatch.setattr(sender, "_connect", lambda *_: pytest.fail("connected"))
    place.webhook("shop", "https://shop.example.com/")
    place.pod()
    place.happen(1)
    until(lambda: outcomes)
    assert outcomes[0] == "forbidden"


def test_what_is_counted(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Webhooks by owner and state, what waits, and how late first tries are; nothing names a webhook."""
    monkeypatch.undo()
    monkeypatch.setattr(deliver, "LOOK_SECONDS", 0.05)
    before = REGISTRY.get_sample_value("gameserver_webhook_deliveries_total", {"outcome": "refused"}) or 0
    with receiving(status(500)) as failing, receiving(hang) as slow, receiving(status(410)) as ended:
        for name, receiver in {"failing": failing, "slow": slow, "ended": ended}.items():
            place.webhook(name, receiver.url)
        place.webhook("off", failing.url, enabled=False)
        place.webhook("mine", failing.url, owner="acme", customer="acme")
        place.pod()
        place.happen(2)

        def value(name: str, **labels: str) -> float | None:
            return REGISTRY.get_sample_value(name, labels)

        until(lambda: value("gameserver_webhook_waiting", owner="provider") == 2)
        until(lambda: value("gameserver_webhooks", owner="provider", state="ended") == 1)
        assert value("gameserver_webhooks", owner="provider", state="failing") == 1
        assert value("gameserver_webhooks", owner="provider", state="ok") == 1
        assert value("gameserver_webhooks", owner="provider", state="disabled") == 1
        assert value("gameserver_webhooks", owner="customer", state="disabled") == 1
        until(lambda: (value("gameserver_webhook_lag_seconds", owner="provider") or 0) > 0.5)
        # On a busy machine the second tries are counted already.
        assert (value("gameserver_webhook_deliveries_total", outcome="refused") or 0) >= before + 3
        assert (value("gameserver_webhook_first_try_lag_seconds_count") or 0) >= 4


def test_the_threads_end_with_the_term(place: Place) -> None:
    """A pod that is not active any more has none that send."""

    def count() -> int:
        return sum(thread.name.startswith("webhook ending-") for thread in threading.enumerate())

    with receiving() as receiver:
        for number in range(5):
            place.webhook(f"ending-{number}", receiver.url)
        pod = place.pod()
        until(lambda: count() == 10)
        pod.left = 0.0
        until(lambda: count() == 0)


def test_it_arrives_as_written(place: Place) -> None:
    """The request has the shape that docs/api.md shows."""
    head, _, shown = block("docs/api.md", "POST /events HTTP/1.1").partition("\n\n")
    named = dict(line.split(": ", 1) for line in head.splitlines()[1:])
    with receiving() as receiver:
        place.webhook("shop", receiver.url)
        place.pod()
        arrived(receiver, place.happen(1))
        (received,) = receiver.received
        assert named.keys() <= received.headers.keys()
        assert received.headers["Content-Type"] == named["Content-Type"]
        assert len(received.headers["webhook-signature"]) == len(named["webhook-signature"])
        body, documented = json.loads(received.body), json.loads(shown)
        assert list(body) == list(documented)
        assert list(body["data"]) == list(documented["data"])


def test_the_body_has_what_the_event_has() -> None:
    """As `GET` shows it. The order of its keys is fixed: every try sends the same bytes."""
    one = replace(event("x"), id="i", time="t", number=1, position=2)
    assert body_of(one) == (
        b'{"type":"crashed","timestamp":"t","data":{"id":"i","type":"crashed","time":"t","server":7,"uid":"uid",'
        b'"customer":"acme","number":1,"position":2,"data":{"reason":"It is x."}}}'
    )
    assert json.loads(body_of(one))["data"] == event_fields(one)
