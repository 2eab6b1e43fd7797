"""How a server's last stop went, as it stands on its StatefulSet. Pure.

The pod is gone by then, and Kubernetes remembers nothing of it. An annotation of the StatefulSet is no part of the
release: Helm's server-side apply leaves alone what another has set.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from service.edges import Object

ANNOTATION = "gameserver/last-stop"
LONGEST_REASON = 1000


@dataclass(frozen=True)
class Stop:
    """The end of the pod with this uid ("" where none was ever made), when it was (RFC 3339), and what went wrong."""

    pod: str
    at: str
    reason: str | None

    def as_text(self) -> str:
        """What `stop_of` reads."""
        reason = self.reason and self.reason[:LONGEST_REASON]
        return json.dumps({**asdict(self), "reason": reason}, ensure_ascii=False)


def stop_of(statefulset: Object) -> Stop | None:
    """The last stop of a stopped server; None where nobody saw it. A hand may have written anything there."""
    text = (statefulset.get("metadata", {}).get("annotations") or {}).get(ANNOTATION)
    try:
        found = json.loads(text or "")
        pod, at, reason = found["pod"], found["at"], found["reason"]
    except (KeyError, TypeError, ValueError):
        return None
    right = isinstance(pod, str) and isinstance(at, str) and isinstance(reason, str | None)
    return Stop(pod, at, reason) if right else None
