"""Decides whether a server is in a back-off. Pure."""

from __future__ import annotations

from service.servers.accessors import game_status
from service.servers.objects import Objects
from service.servers.state import state_of


def in_backoff(objects: Objects) -> bool:
    """Whether Kubernetes failed to run the server and now waits, for up to minutes, before it tries again.

    This happens after crashes, after a game has ended by itself too often, while an image cannot be pulled, and while a
    quota or a policy refuses the pod. It is never true of a pod whose container runs, whatever the game's state.
    """
    current = state_of(objects)
    if objects.statefulset is None or current.wanted != "running":
        return False
    if current.state in ("running", "stopping", "deleting"):
        return False
    if objects.pod is None:
        return current.state == "failed"
    container = (game_status(objects.pod) or {}).get("state") or {}
    waits = current.state == "failed" or (container.get("waiting") or {}).get("reason") == "CrashLoopBackOff"
    return waits and "deletionTimestamp" not in objects.pod["metadata"] and "running" not in container
