"""Times as Kubernetes writes them: RFC 3339 in UTC."""

from __future__ import annotations

from datetime import UTC, datetime


def stamp(time: datetime, *, micro: bool = False) -> str:
    """Format a time, in whole seconds or (with `micro`) in microseconds, which Kubernetes calls a MicroTime."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ" if micro else "%Y-%m-%dT%H:%M:%SZ")


def now() -> str:
    """The current time, in whole seconds."""
    return stamp(datetime.now(UTC))
