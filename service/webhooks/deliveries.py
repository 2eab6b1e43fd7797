"""How far the deliveries of a webhook are: its record in Kubernetes, and what each try changes in it. Pure.

The record has a cursor and what waits for another try. Of each event up to the cursor there was a first try; if it
failed, the event waits, is given up, or was delivered since. So whoever continues from a record misses nothing, and may
repeat what came after the record was written last.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from service.kube.times import stamp
from service.webhooks.retries import next_try, requested
from service.webhooks.sender import Result

KIND = "webhook"
"""The kind of the records; a record's name is its webhook's uid."""
MOST_WAITING = 1000
"""How many events of a webhook wait for another try. While so many do, there are no first tries."""
MOST_TRIES = 50
"""How many tries are kept, the newest."""
LONGEST_ANSWER = 200
"""How many characters of an answer are kept."""
FAILING_TRIES = 3
"""After so many failed tries in a row, one that is delivered brings all that wait forward: the receiver is back."""
_LARGEST_ANSWER = 300
"""The bytes that the kept part of an answer may take in the record, which has at most 64 KiB."""


@dataclass(frozen=True)
class Waiting:
    """An event whose tries have failed so far.

    Attributes:
        position: The event's position in the log.
        tries: How many there were.
        due: When the next one is due, in Unix seconds.
        first: When the first one was made.
        dropped: For an event that says that others were dropped: how many; otherwise 0. It is not in the log.
    """

    position: int
    tries: int
    due: float
    first: float
    dropped: int = 0


@dataclass(frozen=True)
class Try:
    """One try, as the list of deliveries shows it. Times are in RFC 3339; `next` is None if it was the last."""

    id: str
    type: str
    server: int | None
    attempt: int
    time: str
    outcome: str
    status: int | None
    detail: str
    answer: str
    ms: int
    next: str | None


@dataclass
class Deliveries:
    """How far a webhook's deliveries are.

    Attributes:
        starts: The `starts` of the webhook for which this is. Another one begins anew.
        cursor: The position of the last event that had its first try, or that the webhook does not want.
        waiting: What waits for another try, by position.
        tries: The last tries, the newest first.
        failures: How many tries in a row have failed.
        ended: Why nothing is sent any more, or "".
        tested: The id of the last test that was made.
    """

    starts: int = 0
    cursor: int = 0
    waiting: dict[int, Waiting] = field(default_factory=dict)
    tries: list[Try] = field(default_factory=list)
    failures: int = 0
    ended: str = ""
    tested: str = ""

    def begin(self, starts: int, after: int) -> None:
        """Begin after a position, because the webhook was enabled there. Does nothing if this has been done."""
        if starts != self.starts:
            self.starts, self.cursor = starts, after
            self.waiting, self.failures, self.ended = {}, 0, ""

    def first_due(self) -> Waiting | None:
        """What is due first of all that waits."""
        return min(self.waiting.values(), key=lambda one: (one.due, one.position), default=None)

    def hurry(self, now: float) -> None:
        """Make what is due first due at once."""
        if (one := self.first_due()) is not None:
            self.waiting[one.position] = replace(one, due=min(one.due, now))

    def hurry_all(self, now: float) -> None:
        """Make all that waits due at once."""
        self.waiting = {key: replace(one, due=min(one.due, now)) for key, one in self.waiting.items()}

    def note(
        self,
        made: Try,
        result: Result,
        waiting: Waiting,
        now: float,
        random: float,
    ) -> str:
        """Take in one try of an event.

        Args:
            made: The try; its `next` is filled in here.
            result: What came of it.
            waiting: The event as it waited for this try; `tries` does not count it yet.
            now: The time, in Unix seconds.
            random: From 0 to 1, for the jitter of the next one.

        Returns:
            What becomes of the event: `delivered`, `waiting`, `given-up` or `ended`.
        """
        self.waiting.pop(waiting.position, None)
        due = None
        if result.delivered:
            if self.failures >= FAILING_TRIES:
                self.hurry_all(now)
            self.failures = 0
            became = "delivered"
        elif result.status == 410:
            self.failures += 1
            self.ended = "The receiver answered 410: it wants no more events."
            self.waiting = {}
            became = "ended"
        else:
            self.failures += 1
            moment = datetime.fromtimestamp(now, UTC)
            due = next_try(waiting.tries + 1, waiting.first, now, requested(result.retry_after, moment), random)
            became = "given-up" if due is None else "waiting"
            if due is not None:
                self.waiting[waiting.position] = replace(waiting, tries=waiting.tries + 1, due=due)
        self._keep(replace(made, next=None if due is None else stamp(datetime.fromtimestamp(due, UTC))))
        return became

    def note_test(self, made: Try, result: Result, now: float) -> None:
        """Take in the try of a test. If it was delivered, the receiver is back; if it failed, it counts for nothing."""
        self.tested = made.id
        if result.delivered:
            self.hurry_all(now)
            self.failures = 0
        self._keep(made)

    def _keep(self, made: Try) -> None:
        self.tries = [made, *self.tries][:MOST_TRIES]


def excerpt(text: str) -> str:
    """The beginning of an answer, as it is kept: without control characters, and bounded in characters and bytes."""
    plain = "".join(char if char.isprintable() else " " for char in text[:LONGEST_ANSWER]).strip()
    while len(json.dumps(plain, ensure_ascii=False).encode()) > _LARGEST_ANSWER:
        plain = plain[:-10]
    return plain


def written(deliveries: Deliveries) -> dict[str, str]:
    """The data of the record."""
    rows = (
        f"{one.position},{one.tries},{one.due:.0f},{one.first:.0f}{f',{one.dropped}' if one.dropped else ''}"
        for one in deliveries.waiting.values()
    )
    state = {
        "starts": deliveries.starts,
        "cursor": deliveries.cursor,
        "failures": deliveries.failures,
        "ended": deliveries.ended,
        "tested": deliveries.tested,
    }
    # Without the fields' names, which would take a tenth of the record.
    tries = [astuple(one) for one in deliveries.tries]
    return {
        "state": json.dumps(state),
        "waiting": " ".join(rows),
        "tries": json.dumps(tries, ensure_ascii=False, separators=(",", ":")),
    }


def read(data: Mapping[str, str]) -> Deliveries:
    """The deliveries in a record's data. Raises ValueError if they cannot be read."""
    try:
        state: dict[str, Any] = json.loads(data["state"])
        rows = [[int(part) for part in row.split(",")] for row in data.get("waiting", "").split()]
        tries: Sequence[Sequence[Any]] = json.loads(data.get("tries") or "[]")
        return Deliveries(
            waiting={row[0]: Waiting(*row) for row in rows},
            tries=[Try(*one) for one in tries],
            **state,
        )
    except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise ValueError("the record of a webhook's deliveries cannot be read") from error
