"""Those who follow the start of a server: what they hear comes from the watches, without a request to Kubernetes.

One thread looks at the servers that are followed, as soon as a watch hears of a change. A client keeps no queue: it is
told what the newest look has and it does not.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from service.errors import Problem
from service.kube.types import Object
from service.servers.accessors import created_at, uid
from service.servers.objects import Objects, ServerObjects
from service.servers.progress import ENDS, Mark, Step, new_steps, steps_of
from service.servers.spec import server_uid
from service.web.followers import Client, Followers
from service.web.messages import Message, end

log = logging.getLogger(__name__)

KIND = "progress"
LONGEST_SECONDS = 15 * 60.0
"""How long a client is served before it has to come back."""
LOOK_SECONDS = 2.0
"""How often to look without a change: some states follow from the time."""
_BEHIND_SECONDS = 10.0
"""How long the watches may take to show what was read before."""


class Cluster(Protocol):
    """The part of `operations.interfaces.Cluster` that knows servers from the watches."""

    def known(self, id: int) -> Objects | None: ...
    def subscribe(self, listener: Callable[[int, str, Object | None, Object, bool], None]) -> None: ...


class Seen(NamedTuple):
    """What one look at a server has shown.

    Attributes:
        uid: The server's uid; None if that is unknown.
        workload: The StatefulSet's uid, its generation, and when the pod was created.
        steps: The steps.
    """

    uid: str | None
    workload: tuple[str | None, int, str]
    steps: tuple[Step, ...]

    @classmethod
    def of(cls, objects: Objects) -> Seen:
        """What the objects show."""
        generation = int((objects.statefulset or {}).get("metadata", {}).get("generation") or 0)
        workload = (uid(objects.statefulset), generation, created_at(objects.pod or {}) or "")
        return cls(server_uid(objects), workload, steps_of(objects))

    def shows(self, earlier: Seen) -> bool:
        """Whether this is at least as new as something that was read from Kubernetes."""
        workload, generation, pod = earlier.workload
        return workload is None or (self.workload[0] == workload and self.workload[1:] >= (generation, pod))


@dataclass(frozen=True)
class StartWish:
    """What one client wants.

    Attributes:
        id: The server.
        token: The name of the client's token.
        events: Whether it wants server-sent events.
        ended: Why it may not go on, or None. It is asked now and then, in a thread of its own.
        seen: The server as it was when the client called.
        last: The last step that it was told before; None for nothing.
    """

    id: int
    token: str
    events: bool
    ended: Callable[[], str | None]
    seen: Seen
    last: Mark | None = None


class FollowedStarts:
    """The starts that are followed in this process. Thread-safe. It begins to listen with the first."""

    def __init__(self, cluster: Cluster, followers: Followers) -> None:
        self._cluster = cluster
        self._followers = followers
        self._feeds: dict[int, set[_Feed]] = {}
        self._changed: set[int] = set()
        # Guards both of them.
        self._news = threading.Condition()
        self._listens = False

    def require_room(self, token: str) -> None:
        """Raises TooManyFollowers if this token, or this replica, has too many."""
        self._followers.require_room(KIND, token)

    def add(self, wish: StartWish, connection: socket.socket, head: bytes, chunked: bool) -> None:
        """Serve a client from now on; see `web.streaming.Take`."""
        feed = _Feed(wish, self._gone)
        with self._news:
            self._feeds.setdefault(wish.id, set()).add(feed)
            listens, self._listens = self._listens, True
        if not listens:
            self._cluster.subscribe(self._heard)
            threading.Thread(target=self._look_after, name="starts that are followed", daemon=True).start()
        client = Client(KIND, wish.token, wish.events, wish.ended)
        self._followers.add(client, feed, connection, head, chunked)

    def _gone(self, feed: _Feed) -> None:
        with self._news:
            feeds = self._feeds.get(feed.id, set())
            feeds.discard(feed)
            if not feeds:
                self._feeds.pop(feed.id, None)

    def _heard(self, id: int, kind: str, before: Object | None, item: Object, deleted: bool) -> None:
        """A change, in the thread of a watch."""
        if id in self._feeds:
            with self._news:
                self._changed.add(id)
                self._news.notify()

    def _look_after(self) -> None:
        everything = time.monotonic()
        while True:
            with self._news:
                self._news.wait_for(lambda: self._changed, max(0.0, everything - time.monotonic()))
                ids, self._changed = self._changed, set()
                if time.monotonic() >= everything:
                    ids, everything = set(self._feeds), time.monotonic() + LOOK_SECONDS
            for id in ids:
                self._look(id)

    def _look(self, id: int) -> None:
        try:
            seen = Seen.of(self._cluster.known(id) or ServerObjects(id))
        except Problem as error:
            log.debug("the start of server %d cannot be seen: %s", id, error)
        except Exception:
            log.exception("the start of server %d cannot be seen", id)
        else:
            self._followers.call(self._tell, id, seen)

    def _tell(self, id: int, seen: Seen) -> None:
        with self._news:
            feeds = tuple(self._feeds.get(id, ()))
        for feed in feeds:
            feed.see(seen)


class _Feed:
    """What one client is told. It implements `web.followers.Feed`."""

    def __init__(self, wish: StartWish, gone: Callable[[_Feed], None]) -> None:
        self.id = wish.id
        self._wish = wish
        self._gone = gone
        self._pump: Callable[[], None] = lambda: None
        self._since = time.monotonic()
        self._steps = wish.seen.steps
        self._last = wish.last
        self._caught_up = False

    def see(self, seen: Seen) -> None:
        """Take a new look, unless it is of a time before the client called."""
        first = self._wish.seen
        self._caught_up = self._caught_up or seen.shows(first) or time.monotonic() - self._since > _BEHIND_SECONDS
        if not self._caught_up:
            return
        replaced = first.uid is not None and seen.uid not in (None, first.uid)
        self._steps = steps_of(ServerObjects(self.id)) if replaced else seen.steps
        self._pump()

    def begin(self, pump: Callable[[], None]) -> None:
        self._pump = pump

    def next(self) -> Message | None:
        for step in new_steps(self._steps, self._last):
            self._last = step.mark
            return step_message(step)
        if time.monotonic() - self._since > LONGEST_SECONDS:
            return end(f"{LONGEST_SECONDS / 60:.0f} minutes are over; come back", retry=True)
        return None

    def tick(self) -> None:
        if time.monotonic() - self._since > LONGEST_SECONDS:
            self._pump()

    def close(self) -> None:
        self._gone(self)


def step_message(step: Step) -> Message:
    """What a client is sent about a step."""
    data = json.dumps({"step": step.name, "at": step.at, "state": step.state, "reason": step.reason})
    reason = "".join(letter if letter.isprintable() else " " for letter in step.reason or "")
    text = f"{step.at or '-'} {step.name}{f': {reason}' if reason else ''}\n"
    event = f"event: progress\nid: {step.mark.id}\ndata: {data}\n\n"
    return Message(text.encode(), event.encode(), last=step.name in ENDS)
