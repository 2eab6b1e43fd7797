"""Whether a server waits for Kubernetes' next try. Pure."""

from __future__ import annotations

from service.servers.accessors import game_status
from service.servers.objects import Objects
from service.servers.state import state_of


def in_backoff(objects: Objects) -> bool:
    """Whether Kubernetes failed to run the server and now waits, for up to minutes, before it tries again.

    That is so after crashes, and after a game has ended itself too often, while an image cannot be pulled, and while a
    quota or a policy refuses the pod. A pod whose container runs is never meant, whatever state the game in it is in.
    """
    now = state_of(objects)
    if objects.statefulset is None or now.wanted != "running" or now.state in ("running", "stopping", "deleting"):
        return False
    if objects.pod is None:
        return now.state == "failed"
    container = (game_status(objects.pod) or {}).get("state") or {}
    waits = now.state == "failed" or (container.get("waiting") or {}).get("reason") == "CrashLoopBackOff"
    return waits and "deletionTimestamp" not in objects.pod["metadata"] and "running" not in container
