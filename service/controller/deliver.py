"""Delivers events to webhooks.

Each webhook has two threads: one makes the first try of each event, in the order of the log; the other tries again, and
makes tests. So a receiver that is slow or dead delays nobody but itself. What became of the tries is written to a
record, at most a few seconds later: whoever goes on from it repeats what was not written yet, under the same id.
"""

from __future__ import annotations

import json
import logging
import random
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from ipaddress import ip_address

from service.controller.leader import Deposed, Term
from service.errors import Problem
from service.events.event import Event, dropped
from service.events.reader import EventReader
from service.kube.client import Conflict, Kube
from service.kube.times import stamp
from service.records.secret import Records
from service.records.store import Record, RecordStore
from service.settings import Settings
from service.telemetry import deliveries as metrics
from service.webhooks import deliveries, signing
from service.webhooks.addresses import Address, Reach
from service.webhooks.deliveries import MOST_WAITING, Deliveries, Try, Waiting, excerpt
from service.webhooks.records import TEST, TEST_SECONDS, Webhook, all_of
from service.webhooks.sender import Result, Sender
from service.webhooks.store import SecretWebhooks

log = logging.getLogger(__name__)
# The machine's own randomness, as in kube/watch.py.
_random = random.SystemRandom()

PAGE = 100
"""How many events are taken from the log at once."""
SAVE_SECONDS = 3.0
"""How old what a record lacks may become, if it is a try."""
MOVED_SECONDS = 60.0
"""The same, if it is only events that the webhook does not want."""
LOOK_SECONDS = 0.25
IDLE_SECONDS = 5.0
"""After how long a thread that waits looks whether it is still needed."""
PROBE_SECONDS = 300.0
"""While so much waits that there are no first tries, one of them is tried again at least this often."""
BEHIND = 1000
"""How far the API may know the log further than this pod does."""
NODES_SECONDS = 60.0
SWEEP_SECONDS = 600.0

Send = Callable[[Webhook, bytes, Mapping[str, str]], Result]
"""Makes a try."""


class Deliver:
    """The part of the controller that delivers.

    Args:
        settings: What the operator lists and refuses, and whether customers may have webhooks.
        kube: Reads the nodes' addresses, which no webhook may reach.
        webhooks: The webhooks, and what they are signed with.
        store: The records of deliveries.
        events: The log of events.
    """

    def __init__(
        self,
        settings: Settings,
        kube: Kube,
        webhooks: SecretWebhooks,
        store: RecordStore,
        events: EventReader,
    ) -> None:
        self._settings = settings
        self._kube = kube
        self._store = store
        self._events = events
        self._inside: Collection[Address] = frozenset()
        self._for_provider, self._for_customers = (
            Sender(Reach(listed, settings.webhook_refused, lambda: self._inside))
            for listed in (settings.webhook_allowed, ())
        )
        self._secrets: dict[str, Sequence[signing.Secret]] = {}
        # None until the watch has told of them: a record of deliveries without its webhook is deleted.
        self._webhooks: Mapping[str, Webhook] | None = None
        self._reported: set[tuple[str, str]] = set()
        self._changed = threading.Event()
        self._config_watch = webhooks.config.watch(self._take_config)
        self._secrets_watch = webhooks.secrets.watch(self._take_secrets)
        self._couriers: dict[str, Courier] = {}

    def start(self) -> None:
        """Start to watch the webhooks, their secrets and the events."""
        self._events.start()
        self._secrets_watch.start()
        self._config_watch.start()
        metrics.count_webhooks(self.count)

    def lead(self, term: Term) -> None:
        """Start to deliver."""
        threading.Thread(target=self._run, args=(term,), name="webhooks", daemon=True).start()

    def count(self) -> Iterator[metrics.CountedWebhook]:
        """Every webhook as it is counted; none in a pod that does not deliver."""
        return (courier.counted() for courier in list(self._couriers.values()))

    # -- what is watched -----------------------------------------------------------------------------------

    def _take_config(self, records: Records) -> None:
        self._webhooks = {one.uid: one for one in all_of(records, self._report).values()}
        self._changed.set()

    def _take_secrets(self, records: Records) -> None:
        known = {}
        for uid, text in records.items():
            try:
                known[uid] = signing.read(text)
            except ValueError as error:
                self._report(uid, str(error))
        self._secrets = known

    def _report(self, key: str, error: str) -> None:
        """Log a record that cannot be read, but only once."""
        if (key, error) not in self._reported:
            self._reported.add((key, error))
            log.warning("ignoring %s: %s", key, error)

    # -- the loop ------------------------------------------------------------------------------------------

    def _run(self, term: Term) -> None:
        read_nodes = swept = float("-inf")
        known: dict[str, Record] | None = None
        while True:
            try:
                webhooks = self._webhooks
                if webhooks is None or not (self._secrets_watch.wait(0) and self._events.wait(0)):
                    term.sleep(LOOK_SECONDS)
                    continue
                if time.monotonic() - read_nodes > NODES_SECONDS:
                    self._read_nodes()
                    read_nodes = time.monotonic()
                if known is None:
                    known = {record.name: record for record in self._store.all()}
                self._hire(term, webhooks, known)
                for courier in list(self._couriers.values()):
                    courier.save(self._store)
                if time.monotonic() - swept > SWEEP_SECONDS:
                    self._sweep(term, webhooks)
                    swept = time.monotonic()
                self._changed.wait(LOOK_SECONDS)
                self._changed.clear()
                term.require()
            except Deposed:
                return
            except Problem as problem:
                log.warning("webhooks: %s", problem.detail)
                self._pause(term)
            except Exception:
                log.exception("webhooks")
                self._pause(term)

    @staticmethod
    def _pause(term: Term) -> None:
        time.sleep(1 if term.remaining() else 0)

    def _hire(self, term: Term, webhooks: Mapping[str, Webhook], known: Mapping[str, Record]) -> None:
        """One courier for each webhook."""
        for uid in self._couriers.keys() - webhooks.keys():
            self._couriers.pop(uid).close()
        for uid, webhook in webhooks.items():
            courier = self._couriers.get(uid)
            if courier is None:
                self._couriers[uid] = courier = Courier(webhook, known.get(uid), self._needs(term))
                courier.take(webhook)
                courier.start()
            else:
                courier.take(webhook)

    def _needs(self, term: Term) -> Needs:
        return Needs(
            term,
            self._events,
            self._send,
            lambda uid: self._secrets.get(uid, ()),
            self._settings.webhooks_for_customers,
        )

    def _send(self, webhook: Webhook, body: bytes, headers: Mapping[str, str]) -> Result:
        """Make a try. What the operator lists is for the provider's own webhooks alone."""
        sender = self._for_provider if webhook.owner is None else self._for_customers
        return sender.send(webhook.url, body, headers)

    def _read_nodes(self) -> None:
        """Learn the nodes' own addresses. On a cloud they may be public."""
        inside = set()
        for node in self._kube.all("/api/v1/nodes", resourceVersion="0"):
            for entry in node.get("status", {}).get("addresses") or []:
                try:
                    inside.add(ip_address(entry.get("address", "")))
                except ValueError:
                    continue  # A name.
        self._inside = frozenset(inside)

    def _sweep(self, term: Term, webhooks: Mapping[str, Webhook]) -> None:
        """Delete the records of webhooks that are gone: their delete could not, or this pod wrote at that moment."""
        for record in self._store.all():
            if record.name not in webhooks:
                with term.step():
                    try:
                        self._store.delete(record)
                    except Conflict:
                        continue


@dataclass(frozen=True)
class Needs:
    """What a courier needs."""

    term: Term
    events: EventReader
    send: Send
    secrets: Callable[[str], Sequence[signing.Secret]]
    for_customers: bool


class Courier:
    """Delivers to one webhook."""

    def __init__(self, webhook: Webhook, record: Record | None, needs: Needs) -> None:
        self._needs = needs
        self._record = record
        self._changed = threading.Condition()
        self._webhook = webhook
        self._closed = False
        self._deliveries = _read(record)
        self._unsaved = self._moved = False
        self._saved_at = float("-inf")
        self._tried_at = time.monotonic()

    def start(self) -> None:
        """Start both threads."""
        for run in (self._make_first_tries, self._try_again):
            threading.Thread(
                target=self._until_closed, args=(run,), name=f"webhook {self._webhook.key}", daemon=True
            ).start()

    def close(self) -> None:
        """Send nothing any more, because the webhook is gone."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def take(self, webhook: Webhook) -> None:
        """Go on with the webhook as it is now."""
        with self._changed:
            if self._deliveries.starts != webhook.starts:
                self._deliveries.begin(webhook.starts, webhook.after)
                self._unsaved = True
            if webhook != self._webhook:
                if webhook.url != self._webhook.url:
                    self._deliveries.hurry_all(time.time())
                    self._unsaved = True
                self._webhook = webhook
                self._changed.notify_all()

    def counted(self) -> metrics.CountedWebhook:
        """The webhook as it is counted."""
        with self._changed:
            known = self._deliveries
            state = "failing" if known.failures else "ok"
            if known.ended:
                state = "ended"
            elif not self._sends():
                state = "disabled"
            lag = 0.0
            if self._sends():
                events, _ = self._needs.events.after(known.cursor, 1, self._wants)
                lag = max(0.0, time.time() - _seconds(events[0].time)) if events else 0.0
            owner = "provider" if self._webhook.owner is None else "customer"
            return metrics.CountedWebhook(owner, state, len(known.waiting), lag)

    def save(self, store: RecordStore) -> None:
        """Write the record, if it lacks something for long enough. Raises Deposed and Problem."""
        with self._changed:
            age = time.monotonic() - self._saved_at
            if not (self._unsaved and age > SAVE_SECONDS) and not (self._moved and age > MOVED_SECONDS):
                return
            data = deliveries.written(self._deliveries)
            self._unsaved = self._moved = False
            self._saved_at = time.monotonic()
        try:
            with self._needs.term.step():
                self._record = _write(store, self._webhook.uid, self._record, data, self._needs.term)
        except BaseException:
            self._unsaved = True
            raise

    # -- the two threads -----------------------------------------------------------------------------------

    def _until_closed(self, run: Callable[[], None]) -> None:
        while True:
            try:
                with self._changed:
                    if self._closed:
                        return
                self._needs.term.require()
                run()
            except Deposed:
                return
            except Exception:
                log.exception("webhook %s", self._webhook.key)
                time.sleep(1)

    def _make_first_tries(self) -> None:
        """Make the first try of the next events, or wait for some."""
        with self._changed:
            if self._sends() and len(self._deliveries.waiting) >= MOST_WAITING:
                if time.monotonic() - self._tried_at > PROBE_SECONDS:
                    self._deliveries.hurry(time.time())
                    self._changed.notify_all()
                self._changed.wait(IDLE_SECONDS)
                return
            if not self._sends():
                self._changed.wait(IDLE_SECONDS)
                return
            starts, cursor = self._deliveries.starts, self._deliveries.cursor
        events, position = self._needs.events.after(cursor, PAGE, self._wants)
        for event in events:
            # `dropped` comes whether it is wanted or not.
            if self._wants(event) and not self._make_first_try(event, starts):
                return
        if position != cursor:
            self._move(position, starts)
        elif not self._needs.events.wait_beyond(position, IDLE_SECONDS):
            self._notice_new_log(position, starts)

    def _make_first_try(self, event: Event, starts: int) -> bool:
        """Returns whether to go on with the next event."""
        with self._changed:
            full = len(self._deliveries.waiting) >= MOST_WAITING
            if self._closed or full or not self._sends() or self._deliveries.starts != starts:
                return False
        self._needs.term.require()
        began = time.time()
        missing = int(event.data.get("events", 0)) if event.type == "dropped" else 0
        waiting = Waiting(event.position, 0, 0, began, missing)
        metrics.observe_first_try(began - _seconds(event.time))
        return self._try(event if not missing else _dropped(waiting), waiting, starts)

    def _move(self, position: int, starts: int) -> None:
        """Note that up to this position there is nothing more to try first."""
        with self._changed:
            if self._deliveries.starts == starts and position > self._deliveries.cursor:
                self._deliveries.cursor = position
                self._moved = True

    def _notice_new_log(self, position: int, starts: int) -> None:
        """If someone has deleted the whole log, its positions begin anew."""
        newest = self._needs.events.newest
        if newest >= position or self._needs.events.lost_for():
            return
        # Or the API, which wrote the position, has heard of events that this pod has not heard of yet.
        anew = newest == 0 or position > newest + BEHIND
        with self._changed:
            if self._deliveries.starts == starts:
                self._deliveries.cursor = 0 if anew else newest
                self._deliveries.waiting = {} if anew else self._deliveries.waiting
                self._unsaved = True

    def _try_again(self) -> None:
        """Make the test that was asked for, or the try that is due; or wait for one."""
        with self._changed:
            webhook, starts = self._webhook, self._deliveries.starts
            test = webhook.test if self._test_is_due() else ""
            waiting = self._deliveries.first_due() if self._sends() else None
            if not test and (waiting is None or waiting.due > time.time()):
                pause = IDLE_SECONDS if waiting is None else min(IDLE_SECONDS, waiting.due - time.time())
                self._changed.wait(max(0.01, pause))
                return
        self._needs.term.require()
        if test:
            self._send_test(webhook)
        elif waiting is not None:
            event = _dropped(waiting) if waiting.dropped else _event_at(self._needs.events, waiting.position)
            if event is None:
                self._give_up(waiting)
            else:
                self._try(event, waiting, starts)

    def _test_is_due(self) -> bool:
        webhook = self._webhook
        if not webhook.test or webhook.test == self._deliveries.tested:
            return False
        return time.time() - _seconds(webhook.test_asked) < TEST_SECONDS

    def _send_test(self, webhook: Webhook) -> None:
        now = time.time()
        event = Event(webhook.test, TEST, _text(now), 0, "", webhook.customer or "", data={"reason": "This is a test."})
        if (result := self._post(event)) is None:
            return
        with self._changed:
            self._deliveries.note_test(_try_of(event, 1, now, result), result, time.time())
            self._unsaved = True
            # What waits may be due now.
            self._changed.notify_all()

    def _give_up(self, waiting: Waiting) -> None:
        """Forget an event that is not in the log any more."""
        with self._changed:
            self._deliveries.waiting.pop(waiting.position, None)
            self._unsaved = True
            self._changed.notify_all()
        metrics.count_given_up()

    # -- one try -------------------------------------------------------------------------------------------

    def _try(self, event: Event, waiting: Waiting, starts: int) -> bool:
        """Make a try and note what became of it. Returns whether it was made, and the webhook is still the same."""
        began = time.time()
        result = self._post(event)
        if result is None:
            return False
        made = _try_of(event, waiting.tries + 1, began, result)
        with self._changed:
            known = self._deliveries
            if known.starts != starts:
                # The webhook was enabled anew meanwhile.
                return False
            became = known.note(made, result, waiting, time.time(), _random.random())
            known.cursor = max(known.cursor, event.position)
            self._tried_at = time.monotonic()
            self._unsaved = True
            # What waits has changed, and so may be what is due first.
            self._changed.notify_all()
        if became == "given-up":
            metrics.count_given_up()
        if became in ("given-up", "ended"):
            log.warning("webhook %s: %s", self._webhook.key, known.ended or "an event is given up after a day of tries")
        return True

    def _post(self, event: Event) -> Result | None:
        """Send an event; None if the webhook's secret is not known (yet)."""
        webhook, secrets = self._webhook, self._needs.secrets(self._webhook.uid)
        if not secrets:
            # Its watch may be behind that of the webhooks by a moment.
            self._needs.term.sleep(0.2)
            return None
        body = body_of(event)
        result = self._needs.send(webhook, body, signing.headers(secrets, event.id, datetime.now(UTC), body))
        metrics.count_delivery(result.outcome)
        return result

    def _sends(self) -> bool:
        """Whether events are sent. The caller holds the lock."""
        open_ = self._webhook.owner is None or self._needs.for_customers
        return open_ and self._webhook.enabled and not self._deliveries.ended

    def _wants(self, event: Event) -> bool:
        return self._webhook.wants(event.type, event.customer or None, event.server)


def body_of(event: Event) -> bytes:
    """What is sent about an event: the event as `GET /api/v1/event` shows it. It is the same at each try."""
    body = {"type": event.type, "timestamp": event.time, "data": asdict(event)}
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def _event_at(events: EventReader, position: int) -> Event | None:
    """The event at a position of the log, or None if it is not there any more."""
    found, _ = events.after(position - 1, 1)
    return found[0] if found and found[0].position == position and found[0].type != "dropped" else None


def _dropped(waiting: Waiting) -> Event:
    """The event that says that events up to this position were dropped. The log has none, so it is made here again."""
    return dropped(waiting.position - waiting.dropped, waiting.position, _text(waiting.first))


def _try_of(event: Event, attempt: int, began: float, result: Result) -> Try:
    return Try(
        id=event.id,
        type=event.type,
        server=event.server or None,
        attempt=attempt,
        time=_text(began),
        outcome=result.outcome,
        status=result.status,
        detail=result.detail[: deliveries.LONGEST_ANSWER],
        answer=excerpt(result.answer),
        ms=round((time.time() - began) * 1000),
        next=None,
    )


def _read(record: Record | None) -> Deliveries:
    if record is None:
        return Deliveries()
    try:
        return deliveries.read(record.data)
    except ValueError as error:
        log.warning("%s: %s; beginning anew", record.name, error)
        return Deliveries()


def _write(store: RecordStore, uid: str, record: Record | None, data: Mapping[str, str], term: Term) -> Record:
    """Write a record, whatever it is at: only the active pod writes there."""
    for _ in range(3):
        term.require()
        try:
            return store.create(uid, data) if record is None else store.change(record, data)
        except Conflict:
            record = store.get(uid)
    raise Conflict(uid)


def _text(seconds: float) -> str:
    return stamp(datetime.fromtimestamp(seconds, UTC))


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
