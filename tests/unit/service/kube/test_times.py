"""Times are formatted as Kubernetes writes them."""

from datetime import UTC, datetime, timedelta, timezone

from service.kube.times import now, stamp

TIME = datetime(2026, 3, 1, 0, 30, 5, 42, timezone(timedelta(hours=1)))


def test_times_are_in_utc() -> None:
    """In whole seconds, or in microseconds as a MicroTime, whatever their time zone."""
    assert (stamp(TIME), stamp(TIME, micro=True)) == ("2026-02-28T23:30:05Z", "2026-02-28T23:30:05.000042Z")


def test_now_is_the_current_time() -> None:
    """In whole seconds."""
    assert timedelta(0) <= datetime.now(UTC) - datetime.fromisoformat(now()) < timedelta(seconds=5)
