"""What a server's pod uses of its node, as the metrics API says it. Pure.

https://github.com/kubernetes/metrics/blob/master/pkg/apis/metrics/v1beta1/types.go
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from service.kube.quantity import number_of
from service.kube.times import stamp
from service.kube.types import Object
from service.servers.accessors import game_status, named_game

# After this time a measurement no longer says what the pod uses now. Whoever measures does so each 15 to 60 seconds.
_VALID = timedelta(seconds=120)


@dataclass(frozen=True)
class Consumption:
    """What a game uses, as the API shows it.

    Attributes:
        memory_gb: Its memory in GiB, with three decimals: what it could not do without at that time.
        cpu: CPUs, on average over the last moments, with three decimals.
        as_of: When that was measured (RFC 3339).
    """

    memory_gb: float
    cpu: float
    as_of: str


def consumption_of(pod: Object | None, measured: Mapping[str, Any] | None, now: datetime) -> Consumption | None:
    """What the game in the pod uses; None if that is unknown.

    Args:
        pod: The server's pod.
        measured: What was measured last of the pod with its name, as a PodMetrics; None if nothing was.
        now: The current time.
    """
    started = (((game_status(pod) or {}).get("state") or {}).get("running") or {}).get("startedAt") if pod else None
    if started is None or measured is None:
        return None
    try:
        usage = named_game(measured.get("containers") or [])["usage"]
        at = datetime.fromisoformat(measured["timestamp"])
        # The pod before this one had the same name, and the game's run before this one the same pod.
        if at <= datetime.fromisoformat(started) or now - at > _VALID:
            return None
        memory, cpu = number_of(usage["memory"]), number_of(usage["cpu"])
    except (KeyError, TypeError, ValueError):
        return None
    return Consumption(round(float(memory) / 2**30, 3), round(float(cpu), 3), stamp(at.astimezone(UTC)))
