"""A server's schedules, as the release's values and the StatefulSet's annotation hold them. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from service.schedules import times

NAME = re.compile(r"[a-z0-9-]{1,32}")
_ESCAPED = re.compile("[<>&\u2028\u2029]")
MOST_SCHEDULES, MOST_STEPS = 20, 20
MOST_BYTES = 64 * 1024
"""How much all schedules of a server may have together. An object's annotations have room for four times as much."""
# Longer ones are few, or somebody wants to fill the memory of the API and the controller with them.
_LONGEST_REMEMBERED = 4096
SHORTEST_TIMEOUT, DEFAULT_TIMEOUT, LONGEST_TIMEOUT = 60, 3600, 21600
"""For how many seconds a run may last."""
ONLY_WHEN = ("running", "stopped", "empty")
ACTIONS = {
    "backup": "backup:create",
    "command": "console:write",
    "restart": "server:power",
    "start": "server:power",
    "stop": "server:power",
    "wait": None,
}
"""Each step, and the scope that it needs."""


@dataclass(frozen=True)
class Step:
    """One step of a schedule: one of ACTIONS; `seconds` is for `wait`, `text` for `command`."""

    action: str
    seconds: int = 0
    text: str = ""

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> Step:
        """The step in an object with one key; raises ValueError if it is unknown."""
        [(action, content)] = value.items()
        if action not in ACTIONS:
            raise ValueError("unknown step")
        if action == "command":
            return cls(action, text=str(content))
        return cls(action, int(content) if action == "wait" else 0)

    @property
    def value(self) -> dict[str, Any]:
        """The same as an object with one key."""
        return {self.action: {"wait": self.seconds, "command": self.text}.get(self.action, {})}


@dataclass(frozen=True)
class SetBy:
    """Who set a schedule, and what they were allowed to do then.

    Attributes:
        token: The name of the token.
        since: When they set it.
        scopes: The token's scopes then; no bundles.
        customer, servers: To whose servers, and to which, the token was confined; None for all.
    """

    token: str
    since: datetime
    scopes: frozenset[str]
    customer: str | None = None
    servers: frozenset[int] | None = None


@dataclass(frozen=True)
class Schedule:
    """A schedule.

    Attributes:
        cron, timezone: When it is due; see times.py.
        steps: What a run does, in this order.
        only_when: One of ONLY_WHEN: what the server must be when the schedule is due; None for anything.
        enabled: Whether it is due at all.
        timeout_s: After how many seconds a run ends before its next step.
        created: When a schedule of this name was first set, in microseconds: it tells it from an earlier one.
        by: Who set it.
    """

    cron: str
    timezone: str
    steps: tuple[Step, ...]
    only_when: str | None
    enabled: bool
    timeout_s: int
    created: str
    by: SetBy

    @property
    def scopes(self) -> frozenset[str]:
        """The scopes that its steps need."""
        return frozenset(scope for step in self.steps if (scope := ACTIONS[step.action]))

    def next_after(self, id: int, name: str, moment: datetime) -> datetime | None:
        """When it is due first after `moment`, as `name` of server `id`; None if never."""
        return times.next_after(times.resolved(self.cron, id, name), self.timezone, moment) if self.enabled else None

    def latest_until(self, id: int, name: str, moment: datetime, after: datetime) -> datetime | None:
        """When it was due last, after `after` and not after `moment`; None if it was not."""
        cron = times.resolved(self.cron, id, name)
        return times.latest_until(cron, self.timezone, moment, after) if self.enabled else None


def values_of(schedule: Schedule) -> dict[str, Any]:
    """The schedule as the release's values hold it."""
    by = schedule.by
    return {
        "cron": schedule.cron,
        "timezone": schedule.timezone,
        "steps": [step.value for step in schedule.steps],
        "onlyWhen": schedule.only_when or "",
        "enabled": schedule.enabled,
        "timeoutSeconds": schedule.timeout_s,
        "created": schedule.created,
        "by": {
            "token": by.token,
            "since": by.since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "scopes": sorted(by.scopes),
            **({} if by.customer is None else {"customer": by.customer}),
            # As text, because Helm keeps only 53 bits of a number.
            **({} if by.servers is None else {"servers": [str(id) for id in sorted(by.servers)]}),
        },
    }


def size_of(values: Mapping[str, Any]) -> int:
    """How many bytes these schedules have in the annotation, where Go writes some characters as 6 bytes each.

    https://pkg.go.dev/encoding/json#Marshal
    """
    text = json.dumps(values, separators=(",", ":"), ensure_ascii=False)
    return len(_ESCAPED.sub(r"\\u0000", text).encode())


def of_values(values: Any) -> dict[str, Schedule]:
    """The schedules by name, from the release's values. Those that an operator has written wrongly are left out."""
    schedules = {}
    for name, value in values.items() if isinstance(values, Mapping) else ():
        try:
            schedules[str(name)] = _schedule(value)
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
            continue
    return schedules


def of_annotation(text: str | None) -> Mapping[str, Schedule]:
    """The same from the text of the StatefulSet's annotation; None if it has none."""
    return _of_short(text) if len(text or "") <= _LONGEST_REMEMBERED else _of_text(text)


@lru_cache(maxsize=4096)
def _of_short(text: str | None) -> Mapping[str, Schedule]:
    return _of_text(text)


def _of_text(text: str | None) -> Mapping[str, Schedule]:
    try:
        return of_values(json.loads(text or "{}"))
    except (ValueError, RecursionError):
        return {}


def next_due(
    text: str | None, id: int, now: datetime, counts: Callable[[Schedule], bool] = lambda schedule: True
) -> datetime | None:
    """When the next run of any schedule of a server is due.

    Args:
        text: The annotation `gameserver/schedules` of its StatefulSet.
        id: The server's id.
        now: A time with a zone; the run is due after it.
        counts: Whether a schedule counts.
    """
    due = (schedule.next_after(id, name, now) for name, schedule in of_annotation(text).items() if counts(schedule))
    return min((time for time in due if time is not None), default=None)


def _schedule(value: Mapping[str, Any]) -> Schedule:
    steps = tuple(Step.of(step) for step in value["steps"])
    by = value["by"]
    only_when = value.get("onlyWhen") or None
    if only_when not in (None, *ONLY_WHEN):
        raise ValueError("unknown onlyWhen")
    if times.mistake_in(value["cron"]) or not times.is_timezone(value["timezone"]):
        raise ValueError("wrong time")
    servers = by.get("servers")
    return Schedule(
        cron=value["cron"],
        timezone=value["timezone"],
        steps=steps,
        only_when=only_when,
        enabled=value.get("enabled", True) is not False,
        timeout_s=int(value.get("timeoutSeconds", DEFAULT_TIMEOUT)),
        created=str(value.get("created", "")),
        by=SetBy(
            token=str(by["token"]),
            since=_time(by["since"]),
            scopes=frozenset(map(str, by["scopes"])),
            customer=by.get("customer"),
            servers=None if servers is None else frozenset(map(int, servers)),
        ),
    )


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError("a time without a zone")
    return time
