"""How a server's last stop went, as recorded on its StatefulSet. Pure.

Once the pod has gone, Kubernetes no longer knows how it ended, so the API records it in an annotation of the
StatefulSet. The annotation is not part of the release, and Helm's server-side apply leaves other writers' fields alone.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from service.kube.times import stamp
from service.kube.types import Object
from service.servers.accessors import annotation
from service.servers.names import LAST_STOP

LONGEST_REASON = 1000

# A replica records a pod's end within this time, however busy it is.
RECORDED_WITHIN = timedelta(seconds=15)


@dataclass(frozen=True)
class Stop:
    """How a server's pod ended. Times are RFC 3339.

    Attributes:
        pod: The pod's uid; "" if no pod was ever created.
        at: When it ended; while it is still ending, when its deletion was requested.
        reason: What went wrong; None if nothing did.
        due: While the pod is still ending, when it has to have ended; otherwise None.
        killed: Whether the game was killed.
    """

    pod: str
    at: str
    reason: str | None
    due: str | None = None
    killed: bool = False

    def awaited(self, now: datetime) -> bool:
        """Whether the pod is still ending, or has ended so recently that this may not be recorded yet."""
        return self.due is not None and now < datetime.fromisoformat(self.due) + RECORDED_WITHIN

    def as_text(self) -> str:
        """The annotation's text, which `stop_of` reads."""
        reason = self.reason and self.reason[:LONGEST_REASON]
        return json.dumps({**asdict(self), "reason": reason}, ensure_ascii=False)


def stop_of(statefulset: Object) -> Stop | None:
    """A server's last stop, from its StatefulSet; None if none is recorded, or if the annotation is malformed."""
    text = annotation(statefulset, LAST_STOP)
    try:
        fields = json.loads(text or "")
        pod, at, reason, due = fields["pod"], fields["at"], fields["reason"], fields.get("due")
        due = due and stamp(datetime.fromisoformat(due))
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    is_valid = isinstance(pod, str) and isinstance(at, str) and isinstance(reason, str | None)
    return Stop(pod, at, reason, due, fields.get("killed") is True) if is_valid else None
