"""When schedules are due, above all when clocks change."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from service.schedules import times

CHANGES = {
    "Europe/Berlin": (datetime(2026, 3, 29), datetime(2026, 10, 25)),
    "America/New_York": (datetime(2026, 3, 8), datetime(2026, 11, 1)),
    # By half an hour.
    "Australia/Lord_Howe": (datetime(2026, 4, 5), datetime(2026, 10, 4)),
    # By two hours.
    "Antarctica/Troll": (datetime(2026, 3, 29), datetime(2026, 10, 25)),
    # No longer, and never.
    "Asia/Tehran": (datetime(2026, 3, 22), datetime(2026, 9, 22)),
    "Asia/Kolkata": (datetime(2026, 3, 29), datetime(2026, 10, 25)),
    "UTC": (datetime(2026, 3, 29), datetime(2026, 10, 25)),
}


def due_on(cron: str, timezone: str, day: str) -> list[str]:
    """The due times on a day, as the zone's clock shows them, with the offset."""
    zone = ZoneInfo(timezone)
    moment = datetime.fromisoformat(day).replace(tzinfo=zone).astimezone(UTC) - timedelta(seconds=1)
    found = []
    while (due := times.next_after(cron, timezone, moment)) is not None:
        if (local := due.astimezone(zone)).date().isoformat() != day:
            break
        found.append(f"{local:%H:%M%z}")
        moment = due
    return found


@pytest.mark.parametrize(
    ("cron", "timezone", "day", "due"),
    [
        # The clock jumps from 02:00 to 03:00.
        ("30 2 * * *", "Europe/Berlin", "2026-03-29", ["03:00+0200"]),
        ("0,20,40 2 * * *", "Europe/Berlin", "2026-03-29", ["03:00+0200"]),
        ("0 2,3 * * *", "Europe/Berlin", "2026-03-29", ["03:00+0200"]),
        ("30 3 * * *", "Europe/Berlin", "2026-03-29", ["03:30+0200"]),
        ("0 0-4/2 * * *", "Europe/Berlin", "2026-03-29", ["00:00+0100", "03:00+0200", "04:00+0200"]),
        ("*/30 2 * * *", "Europe/Berlin", "2026-03-29", []),
        ("*/30 1-3 * * *", "Europe/Berlin", "2026-03-29", ["01:00+0100", "01:30+0100", "03:00+0200", "03:30+0200"]),
        # It goes back from 03:00 to 02:00.
        ("30 2 * * *", "Europe/Berlin", "2026-10-25", ["02:30+0200"]),
        ("*/30 2 * * *", "Europe/Berlin", "2026-10-25", ["02:00+0200", "02:30+0200", "02:00+0100", "02:30+0100"]),
        ("0 3 * * *", "Europe/Berlin", "2026-10-25", ["03:00+0100"]),
        # 02:00 to 03:00, and back from 02:00 to 01:00.
        ("30 2 * * *", "America/New_York", "2026-03-08", ["03:00-0400"]),
        ("30 1 * * *", "America/New_York", "2026-11-01", ["01:30-0400"]),
        ("0 */12 * * *", "America/New_York", "2026-11-01", ["00:00-0400", "12:00-0500"]),
        # 02:00 to 02:30, and back from 02:00 to 01:30.
        ("15 2 * * *", "Australia/Lord_Howe", "2026-10-04", ["02:30+1100"]),
        ("*/20 2-3 * * *", "Australia/Lord_Howe", "2026-10-04",
         ["02:40+1100", "03:00+1100", "03:20+1100", "03:40+1100"]),
        ("45 1 * * *", "Australia/Lord_Howe", "2026-04-05", ["01:45+1100"]),
        ("*/15 1 * * *", "Australia/Lord_Howe", "2026-04-05",
         ["01:00+1100", "01:15+1100", "01:30+1100", "01:45+1100", "01:30+1030", "01:45+1030"]),
        # Nothing changes.
        ("30 2 * * *", "Asia/Tehran", "2026-03-22", ["02:30+0330"]),
        ("30 0 * * *", "Asia/Kolkata", "2026-03-29", ["00:30+0530"]),
    ],
)  # fmt: skip
def test_daylight_saving(cron: str, timezone: str, day: str, due: list[str]) -> None:
    """What the page for customers says about the days on which the clock changes."""
    assert due_on(cron, timezone, day) == due


FIELDS = "must have five fields, with one space between them: minute, hour, day of month, month, day of week"
OFTEN = "comes too often: there must be at least 5 minutes from one time to the next"
NEVER = "never comes: no month has such a day"
MINUTES = st.sampled_from(["*", "*/5", "*/7", "*/30", "0", "30", "0,20,40", "15-45/10", "59"])
HOURS = st.sampled_from(["*", "*/2", "*/3", "0", "1", "2", "3", "1-3", "0,2", "23", "2-22/4"])


@settings(max_examples=150, deadline=None)
@given(
    minute=MINUTES,
    hour=HOURS,
    days=st.sampled_from(["* * *", "* * *", "*/2 * *", "* * SUN", "25-31 3,10 *", "1,5 * 0"]),
    zone=st.sampled_from(sorted(CHANGES)),
    which=st.integers(0, 1),
    start=st.integers(-600, 900),
)
def test_each_time_comes_as_the_rules_say(minute: str, hour: str, days: str, zone: str, which: int, start: int) -> None:
    """Compared with every minute around a change, one by one."""
    cron, clock = f"{minute} {hour} {days}", ZoneInfo(zone)
    midnight = CHANGES[zone][which].replace(tzinfo=UTC)
    begin, end = midnight + timedelta(minutes=start), midnight + timedelta(days=2)
    expected, moment, found = _by_brute_force(cron, clock, midnight - timedelta(days=2), end), begin, []
    while (due := times.next_after(cron, zone, moment)) is not None and due <= end:
        found.append(due)
        moment = due
    assert found == [due for due in expected if begin < due <= end]
    latest = times.latest_until(cron, zone, end, begin)
    assert latest == (found[-1] if found else None)


def _by_brute_force(cron: str, zone: ZoneInfo, begin: datetime, end: datetime) -> list[datetime]:
    minute, hour, *_ = cron.split(" ")
    matching = _Walls(cron)
    if minute.startswith("*") or hour.startswith("*"):
        instants = [begin + timedelta(minutes=n) for n in range(int((end - begin).total_seconds() // 60) + 1)]
        return [moment for moment in instants if matching(moment.astimezone(zone))]
    wall, last, due = begin.replace(tzinfo=None) - timedelta(days=1), end.replace(tzinfo=None), set()
    while wall <= last + timedelta(days=1):
        if matching(wall):
            real = wall.replace(tzinfo=zone)
            while real.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != real.replace(tzinfo=None):
                real = (real.replace(tzinfo=None) + timedelta(minutes=1)).replace(tzinfo=zone)
            due.add(real.astimezone(UTC))
        wall += timedelta(minutes=1)
    return sorted(moment for moment in due if begin <= moment <= end)


class _Walls:
    """Whether an expression names a time on the clock, by the sets that cronsim reads from it."""

    def __init__(self, cron: str) -> None:
        self.fields = CronSim(cron, datetime(2026, 1, 1))

    def __call__(self, wall: datetime) -> bool:
        fields = self.fields
        return (
            wall.minute in fields.minutes
            and wall.hour in fields.hours
            and wall.month in fields.months
            and fields.match_day(wall.date())
        )


def test_a_clock_set_back_does_not_make_the_past_due() -> None:
    """In the second 02:10 of the night, the 02:30 of the first has been."""
    moment = datetime(2026, 10, 25, 1, 10, tzinfo=UTC)
    assert times.next_after("30 2 * * *", "Europe/Berlin", moment) == datetime(2026, 10, 26, 1, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("cron", "mistake"),
    [
        ("0 4 * * *", None),
        ("H 4 * * *", None),
        ("H H * * MON-FRI", None),
        ("*/5 * * * *", None),
        ("0 4 L * *", None),
        ("0 0 29 2 *", None),
        ("0 4 1,15 * *", None),
        ("", FIELDS),
        ("0 0 4 * * *", FIELDS),
        ("@daily", FIELDS),
        ("0\t4 * * *", FIELDS),
        ("٣ 4 * * *", FIELDS),
        (f"{'0,' * 60}0 4 * * *", FIELDS),
        ("60 4 * * *", "is not a cron expression: its minute is invalid"),
        ("H/5 * * * *", "is not a cron expression: its minute is invalid"),
        ("0 24 * * *", "is not a cron expression: its hour is invalid"),
        ("0 4 0 * *", "is not a cron expression: its day of month is invalid"),
        ("0 4 H * *", "is not a cron expression: its day of month is invalid"),
        ("0 4 * JANUARY *", "is not a cron expression: its month is invalid"),
        ("0 4 * * 8", "is not a cron expression: its day of week is invalid"),
        ("0 4 30 2 *", NEVER),
        ("0 4 */31 2 MON#5", NEVER),
        ("* 4 * * *", OFTEN),
        ("0,4 4 * * *", OFTEN),
        ("2,58 * * * *", OFTEN),
        ("0,58 0,23 * * *", OFTEN),
    ],
)  # fmt: skip
def test_a_mistake_in_an_expression_is_named(cron: str, mistake: str | None) -> None:
    """And a correct one is accepted."""
    assert times.mistake_in(cron) == mistake


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="0123456789*/-,LW#HMONSU ", max_size=30))
def test_no_expression_is_an_error(cron: str) -> None:
    """Any text is either used or refused, and one that is used is due some day."""
    if times.mistake_in(cron) is None:
        assert times.next_after(times.resolved(cron, 7, "x"), "UTC", datetime(2026, 1, 1, tzinfo=UTC)) is not None


def test_h_spreads_the_schedules_of_many_servers() -> None:
    """Each minute gets its share of 6,000 servers, and a server's own schedules differ."""
    minutes = Counter(times.resolved("H 4 * * *", id, "nightly").split(" ")[0] for id in range(1, 6001))
    assert len(minutes) == 60
    assert max(minutes.values()) < 150
    assert times.resolved("H 4 * * *", 7, "nightly") == times.resolved("H 4 * * *", 7, "nightly")
    assert len({times.resolved("H H * * *", 7, f"s{number}") for number in range(10)}) == 10
    assert times.resolved("0 4 * * *", 7, "nightly") == "0 4 * * *"


def test_time_zones() -> None:
    """Only names of the time zone database are accepted, and never a path."""
    assert all(map(times.is_timezone, CHANGES))
    assert not any(
        map(times.is_timezone, ["", "Europe", "Mars/Phobos", "localtime", "../../etc/passwd", "europe/berlin"])
    )


def test_what_cannot_be_read_is_never_due() -> None:
    """An operator's mistake in the values stops no other schedule."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert times.next_after("nonsense", "UTC", now) is None
    assert times.next_after("0 4 * * *", "Mars/Phobos", now) is None
    assert times.next_after("0 0 */31 2 MON#5", "Europe/Berlin", now) is None
    assert times.next_after("*/9 0 */31 2 MON#5", "Europe/Berlin", now) is None


def test_the_latest_of_years_is_found_quickly() -> None:
    """A controller that was away does not count all that it missed."""
    now, begin = datetime(2026, 7, 1, 12, 3, tzinfo=UTC), datetime(2016, 1, 1, tzinfo=UTC)
    assert times.latest_until("*/5 * * * *", "UTC", now, begin) == datetime(2026, 7, 1, 12, 0, tzinfo=UTC)
    assert times.latest_until("*/5 * * 1 *", "UTC", now, begin) == datetime(2026, 1, 31, 23, 55, tzinfo=UTC)
    assert times.latest_until("0 4 * * *", "UTC", now, datetime(2026, 7, 1, 4, tzinfo=UTC)) is None
