"""Whether a server waits for Kubernetes' next try. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from service.edges import Object, Objects
from service.state import state_of


def in_backoff(objects: Objects, events: Sequence[Object]) -> bool:
    """Whether Kubernetes failed to run the server and now waits, for up to minutes, before it tries again.

    That is so after crashes, while an image cannot be pulled, and while a quota or a policy refuses the pod. A pod
    whose container runs is never meant, whatever state the game in it is in.
    """
    if objects.statefulset is None or state_of(objects, events).state != "failed":
        return False
    if objects.pod is None:
        return True
    containers = objects.pod.get("status", {}).get("containerStatuses", [])
    deleted = "deletionTimestamp" in objects.pod["metadata"]
    return not deleted and not any("running" in container.get("state", {}) for container in containers)
