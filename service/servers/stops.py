"""How a server's last stop went, as it stands on its StatefulSet. Pure.

The pod is gone by then, and Kubernetes remembers nothing of it. An annotation of the StatefulSet is no part of the
release: Helm's server-side apply leaves alone what another has set.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from service.kube.times import stamp
from service.kube.types import Object
from service.servers.names import LAST_STOP

LONGEST_REASON = 1000


# What a replica sees of a pod's end it writes down within this time, however busy it is.
WRITTEN_WITHIN = timedelta(seconds=15)


@dataclass(frozen=True)
class Stop:
    """The end of the pod with this uid ("" where none was ever made), when it was, and what went wrong.

    While the pod is still ending, `at` is when that was asked for, and `due` when it has to be over; of a pod that
    has ended `due` is None. Times are RFC 3339.
    """

    pod: str
    at: str
    reason: str | None
    due: str | None = None

    def awaited(self, now: datetime) -> bool:
        """Whether the pod is still ending, or has just ended and how is yet to be written down."""
        return self.due is not None and now < datetime.fromisoformat(self.due) + WRITTEN_WITHIN

    def as_text(self) -> str:
        """What `stop_of` reads."""
        reason = self.reason and self.reason[:LONGEST_REASON]
        return json.dumps({**asdict(self), "reason": reason}, ensure_ascii=False)


def stop_of(statefulset: Object) -> Stop | None:
    """The last stop of a stopped server; None where nobody saw it. A hand may have written anything there."""
    text = (statefulset.get("metadata", {}).get("annotations") or {}).get(LAST_STOP)
    try:
        found = json.loads(text or "")
        pod, at, reason, due = found["pod"], found["at"], found["reason"], found.get("due")
        due = due and stamp(datetime.fromisoformat(due))
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    right = isinstance(pod, str) and isinstance(at, str) and isinstance(reason, str | None)
    return Stop(pod, at, reason, due) if right else None
