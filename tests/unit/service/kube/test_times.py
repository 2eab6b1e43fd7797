"""Times, as Kubernetes writes them."""

from datetime import UTC, datetime, timedelta, timezone

from service.kube.times import now, stamp

TIME = datetime(2026, 3, 1, 0, 30, 5, 42, timezone(timedelta(hours=1)))


def test_times_are_in_utc() -> None:
    """To the second, or to the microsecond of a MicroTime; wherever they were taken."""
    assert (stamp(TIME), stamp(TIME, micro=True)) == ("2026-02-28T23:30:05Z", "2026-02-28T23:30:05.000042Z")


def test_now_is_now() -> None:
    """To the second."""
    assert timedelta(0) <= datetime.now(UTC) - datetime.fromisoformat(now()) < timedelta(seconds=5)
