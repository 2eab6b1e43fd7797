"""Times as Kubernetes writes them: RFC 3339, in UTC."""

from __future__ import annotations

from datetime import UTC, datetime


def stamp(time: datetime, *, micro: bool = False) -> str:
    """A time to the second, or to the microsecond where Kubernetes asks for a MicroTime."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ" if micro else "%Y-%m-%dT%H:%M:%SZ")


def now() -> str:
    """The present time, to the second."""
    return stamp(datetime.now(UTC))
