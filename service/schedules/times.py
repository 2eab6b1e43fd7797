"""When a schedule is due: cron expressions, time zones and daylight saving. Pure.

An expression is Debian cron's, with five fields. It means the wall clock of a time zone, so daylight saving matters:

- A schedule at fixed times (neither its minute nor its hour starts with `*`) runs once for each of its times. A time
  that does not exist runs at the moment when the clock jumps; one that comes twice runs the first time.
- Any other follows the clock: it does not run in an hour that does not exist, and runs in both of an hour that comes
  twice.

https://manpages.debian.org/cron.8 ("daylight saving")
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

CLOSEST = timedelta(minutes=5)
"""The shortest time from one due time of a schedule to the next, by the clock."""
LONGEST_CRON = 100
_FIELDS = ("minute", "hour", "day of month", "month", "day of week")
_DAY = 24 * 60
# A zone of the system's own choice, and one that means "not set".
_NOT_ZONES = {"localtime", "Factory"}


def is_timezone(name: str) -> bool:
    """Whether there is a time zone with this name, such as `Europe/Berlin`."""
    return name in _timezones()


def mistake_in(cron: str) -> str | None:
    """What is wrong with the expression, as a message about the field; None if it can be used."""
    fields = cron.split(" ")
    if len(cron) > LONGEST_CRON or not cron.isascii() or len(fields) != len(_FIELDS) or not all(fields):
        return f"must have five fields, with one space between them: {', '.join(_FIELDS)}"
    wrong = "is not a cron expression"
    for number, name in enumerate(_FIELDS):
        alone = ["0", "0", "*", "*", "*"]
        alone[number] = fields[number]
        if _parsed(resolved(" ".join(alone), 1, "")) is None:
            return f"{wrong}: its {name} is invalid"
    parsed = _parsed(resolved(cron, 1, ""))
    if parsed is None or next(parsed, None) is None:
        return "never comes: no month has such a day"
    times = sorted(hour * 60 + minute for hour in parsed.hours for minute in parsed.minutes)
    # The last time of a day and the first of the next count as neighbours, even if these days are not.
    gaps = (later - earlier for earlier, later in zip(times, [*times[1:], times[0] + _DAY], strict=True))
    if min(gaps) < CLOSEST.total_seconds() / 60:
        return "comes too often: there must be at least 5 minutes from one time to the next"
    return None


def resolved(cron: str, id: int, name: str) -> str:
    """The expression with a number for each `H`, which spreads the schedules of all servers over the hour and the day.

    Args:
        cron: The expression. `H` may be its whole minute, its whole hour, or both.
        id: The server's id.
        name: The schedule's name. A server's schedules get different numbers.
    """
    minute, hour, *days = cron.split(" ")
    hashed = int.from_bytes(hashlib.sha256(f"{id}/{name}".encode()).digest()[:8], "big")
    return " ".join(
        (
            str(hashed % 60) if minute == "H" else minute,
            str(hashed // 60 % 24) if hour == "H" else hour,
            *days,
        )
    )


def next_after(cron: str, timezone: str, moment: datetime) -> datetime | None:
    """The first due time after `moment`, in UTC; None if none ever comes, or the expression or the zone is invalid.

    Args:
        cron: The expression, without `H`; see `resolved`.
        timezone: The zone whose clock it means.
        moment: A time with a zone.
    """
    if not is_timezone(timezone) or _parsed(cron) is None:
        return None
    zone = ZoneInfo(timezone)
    minute, hour, *_ = cron.split(" ")
    if minute.startswith("*") or hour.startswith("*"):
        return _next_by_the_clock(cron, zone, moment.astimezone(UTC))
    for due in CronSim(cron, moment.astimezone(zone)):
        # The clock that was set back shows a time again that has been.
        if (instant := due.astimezone(UTC)) > moment:
            return instant
    return None


def latest_until(cron: str, timezone: str, moment: datetime, after: datetime) -> datetime | None:
    """The last due time after `after` and not after `moment`, in UTC; None if there is none."""
    latest, end = None, moment
    due = next_after(cron, timezone, after)
    while due is not None and due <= moment:
        latest = due
        # Halve what is left, because years of due times may lie in it.
        middle = latest + (end - latest) / 2
        due = next_after(cron, timezone, middle)
        while (due is None or due > moment) and middle - latest >= timedelta(minutes=1):
            end, middle = middle, latest + (middle - latest) / 2
            due = next_after(cron, timezone, middle)
    return latest


def _next_by_the_clock(cron: str, zone: ZoneInfo, moment: datetime) -> datetime | None:
    """The first time after `moment` at which the zone's clock shows a time of the expression; each in UTC."""
    start, offset, after = moment, _offset(zone, moment), moment
    while (wall := next(CronSim(cron, (after + offset).replace(tzinfo=None)), None)) is not None:
        due = wall.replace(tzinfo=UTC) - offset
        if _offset(zone, due) == offset:
            return due
        # The clock changes before then. Go on from that second, with the clock as it is afterwards.
        start = _change(zone, start, due)
        offset, after = _offset(zone, start), start - timedelta(seconds=1)
    return None


def _change(zone: ZoneInfo, earlier: datetime, later: datetime) -> datetime:
    """The first second with another offset than `earlier` has; `later` has another one."""
    first, last = int(earlier.timestamp()), int(later.timestamp())
    before = _offset(zone, earlier)
    while last - first > 1:
        middle = (first + last) // 2
        if _offset(zone, datetime.fromtimestamp(middle, UTC)) == before:
            first = middle
        else:
            last = middle
    return datetime.fromtimestamp(last, UTC)


def _offset(zone: ZoneInfo, moment: datetime) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta()


@lru_cache(maxsize=1)
def _timezones() -> frozenset[str]:
    return frozenset(available_timezones() - _NOT_ZONES)


def _parsed(cron: str) -> CronSim | None:
    try:
        return CronSim(cron, datetime(2026, 1, 1, tzinfo=UTC)) if len(cron.split()) == len(_FIELDS) else None
    except (CronSimError, ValueError, AssertionError):
        return None
