"""Tells what happens to the servers: the active pod writes it to the log of events."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from service.controller.leader import Deposed, Term
from service.controller.observe import Observer
from service.errors import Problem
from service.events.changes import TOMBSTONE_SECONDS, Told, changes, missing, tell_apart
from service.events.event import Event
from service.events.facts import Facts, facts_of
from service.events.log import EventLog
from service.events.segments import KIND
from service.events.state import KIND as STATE_KIND
from service.events.state import EventState
from service.kube.client import Conflict
from service.kube.times import now, stamp
from service.operations.interfaces import Cluster, RecordStores
from service.telemetry import metrics

log = logging.getLogger(__name__)

FLUSH_SECONDS = 0.2
"""The log is written at most this often."""
SAVE_SECONDS = 2.0
"""What was told is saved at most this often."""
LOOK_SECONDS = 1.0
"""A server about which the watches and Kubernetes disagree is looked at again after this time."""
FORGET_SECONDS = 60.0
COMPLETE_SECONDS = 10.0
MAX_ADDED = 10_000


class Events:
    """The part of the controller that tells events. `add` is thread-safe.

    Args:
        cluster: The cluster, whose watches have not started yet.
        records: The store of each kind of record.
    """

    def __init__(self, cluster: Cluster, records: RecordStores) -> None:
        self._cluster = cluster
        self._observer = Observer(cluster)
        self._log = EventLog(records(KIND))
        self._state = EventState(records(STATE_KIND))
        self._is_open = False
        self._told: dict[int, tuple[Told, ...]] | None = None
        self._facts: deque[Facts] = deque()
        self._unwritten: list[Event] = []
        self._added: list[Event] = []
        self._lock = threading.Lock()
        self._unsaved: set[int] = set()
        # Something is missing of these servers in memory, but not in Kubernetes.
        self._doubtful: set[int] = set()
        self._flushed_at = self._saved_at = self._looked_at = self._forgot_at = float("-inf")
        self._waits_since: float | None = None

    def start(self) -> None:
        """Start to observe."""
        self._observer.start()

    def lead(self, term: Term) -> None:
        """Begin to write."""
        metrics.show_events(self.lag, lambda: self._observer.dropped)
        self._observer.lead()
        threading.Thread(target=self._run, args=(term,), name="events", daemon=True).start()

    def add(self, event: Event) -> None:
        """Tell an event that does not follow from the server's objects; only the active pod may call this.

        It is written soon, but not if the process ends before. Whoever adds it adds it again until the log has it.
        """
        with self._lock:
            if len(self._added) >= MAX_ADDED:
                log.error(
                    "an event of the type %s at server %d is lost: too many are waiting", event.type, event.server
                )
                return
            self._added.append(event)

    def lag(self) -> float:
        """For how many seconds something has been waiting that the log lacks."""
        since = self._waits_since
        return max(self._observer.oldest(), 0.0 if since is None else time.monotonic() - since)

    # -- the thread --------------------------------------------------------------------------------------------

    def _run(self, term: Term) -> None:
        while True:
            try:
                self.turn(term)
            except Deposed:
                return
            except Conflict:
                # If another is the active one now, the next step is refused.
                log.warning("another has written to the log of events; it is read again")
                self._is_open = False
            except Problem as problem:
                log.warning("cannot write events: %s", problem.detail)
                time.sleep(FLUSH_SECONDS)
            except Exception:
                log.exception("cannot write events")
                self._is_open = False
                time.sleep(1)

    def turn(self, term: Term) -> None:
        """Write what has happened since the last call, after waiting for it a little."""
        if not self._is_open:
            with term.step():
                self._log.open()
                self._is_open = True
        if self._told is None:
            self._take_over(term)
        if not self._unwritten:
            self._waits_since = None
            self._facts.extend(self._observer.take(0 if self._facts else FLUSH_SECONDS))
            while self._facts:
                self._waits_since = self._waits_since or time.monotonic()
                try:
                    self._tell(self._facts[0])
                except Problem:
                    # Kubernetes has to be asked again.
                    raise
                except Exception:
                    # One server must not keep the events of all others up.
                    log.exception("cannot tell what happened to server %d", self._facts[0].id)
                self._facts.popleft()
        with self._lock:
            self._unwritten += self._added
            self._added = []
        if self._unwritten:
            self._write(term)
        self._save(term)
        if self._doubtful and time.monotonic() > self._looked_at + LOOK_SECONDS:
            self._looked_at = time.monotonic()
            self._observer.look(self._doubtful)
            self._doubtful = set()

    def _take_over(self, term: Term) -> None:
        """Go on where the log ends, with what this pod has seen while another was the active one."""
        deadline = time.monotonic() + COMPLETE_SECONDS
        while not self._observer.is_complete() and time.monotonic() < deadline:
            # Otherwise Kubernetes would have to be asked about each server that the watches have not received yet.
            term.sleep(FLUSH_SECONDS)
        told = self._state.load()
        seen = self._observer.take(0)
        if told is None:
            self._begin(term)
            return
        events = []
        for facts in seen:
            new, told[facts.id] = changes(told.get(facts.id, ()), facts)
            events += new
        self._told = told
        self._unsaved.update(told)
        self._put(events)
        self._observer.look({*told, *self._observer.ids()})

    def _begin(self, term: Term) -> None:
        """The very first time: the servers that exist count as told."""
        at, told = now(), dict[int, tuple[Told, ...]]()
        for objects in self._cluster.known_servers():
            told[objects.id] = changes((), facts_of(objects, at))[1]
        with term.step():
            # Nothing is known of a server 0, but its record shows that there was a first time.
            self._state.save({**told, 0: ()})
        self._told = told

    def _tell(self, facts: Facts) -> None:
        assert self._told is not None
        events, told = changes(self._told.get(facts.id, ()), facts)
        if gone := missing(told, facts):
            # A watch may be behind what was told.
            live = facts_of(self._cluster.server(facts.id), now())
            if gone <= missing(told, live):
                more, told = changes(told, replace(facts, sure=True, exists=live.exists))
                events += more
            if missing(told, facts):
                self._doubtful.add(facts.id)
        if told != self._told.get(facts.id, ()):
            self._told[facts.id] = told
            self._unsaved.add(facts.id)
        self._put(events)

    def _put(self, events: Sequence[Event]) -> None:
        """Queue events, apart from those that the log has and those that come before such a one."""
        by_server: dict[str, list[Event]] = {}
        for event in events:
            by_server.setdefault(event.uid, []).append(event)
        for each in by_server.values():
            self._unwritten += tell_apart(each, self._log.has)

    def _write(self, term: Term) -> None:
        time.sleep(max(0.0, self._flushed_at + FLUSH_SECONDS - time.monotonic()))
        with term.step():
            written = self._log.append(self._unwritten, self._numbers())
        self._flushed_at = time.monotonic()
        self._unwritten = []
        self._waits_since = None
        for event in written:
            self._number(event)
            lag = datetime.now(UTC) - datetime.fromisoformat(event.time)
            metrics.count_event(event.type, max(0.0, lag.total_seconds()))
        metrics.show_event_log(self._log.count, self._log.size)

    def _numbers(self) -> Mapping[str, int]:
        told = self._told or {}
        ids = {event.server for event in self._unwritten}
        return {each.uid: each.number for id in ids for each in told.get(id, ())}

    def _number(self, event: Event) -> None:
        assert self._told is not None
        told = self._told.get(event.server, ())
        self._told[event.server] = tuple(
            replace(each, number=event.number) if each.uid == event.uid else each for each in told
        )
        self._unsaved.add(event.server)

    def _forget(self) -> None:
        """Forget servers that were deleted long ago."""
        assert self._told is not None
        oldest = stamp(datetime.now(UTC) - timedelta(seconds=TOMBSTONE_SECONDS))
        for id, told in self._told.items():
            rest = tuple(each for each in told if not each.deleted or each.deleted > oldest)
            if rest != told:
                self._told[id] = rest
                self._unsaved.add(id)

    def _save(self, term: Term) -> None:
        """Save what is told, which the log has by now."""
        if time.monotonic() > self._forgot_at + FORGET_SECONDS:
            self._forgot_at = time.monotonic()
            self._forget()
        if not self._unsaved or time.monotonic() < self._saved_at + SAVE_SECONDS:
            return
        assert self._told is not None
        with term.step():
            self._state.save({id: self._told.get(id, ()) for id in self._unsaved})
        self._saved_at = time.monotonic()
        for id in self._unsaved:
            if not self._told.get(id):
                self._told.pop(id, None)
        self._unsaved.clear()
