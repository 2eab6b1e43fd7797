"""Small readings of Kubernetes' objects, for those that make sense of a server's state. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from service.kube.times import stamp
from service.kube.types import Object

CONTAINER = "game"


def condition(thing: Object, name: str) -> Mapping[str, Any]:
    """A pod's or a node's condition, {} where it has none of that name."""
    found: Mapping[str, Any]
    for found in thing.get("status", {}).get("conditions") or []:
        if found.get("type") == name:
            return found
    return {}


def game_container(pod: Object) -> Mapping[str, Any]:
    """The game's container, as the pod wants it."""
    return _named(pod.get("spec", {}).get("containers") or [])


def game_status(pod: Object) -> Object | None:
    """What the kubelet tells of the game's container; None before it has told anything."""
    return dict(_named(pod.get("status", {}).get("containerStatuses") or [])) or None


def termination(pod: Object) -> Mapping[str, Any] | None:
    """How the game's container has ended, None while it has not: its present run, or the one before a back-off."""
    status = game_status(pod) or {}
    now = status.get("state") or {}
    found: Mapping[str, Any] | None = now.get("terminated")
    if found is None and "waiting" in now:
        found = (status.get("lastState") or {}).get("terminated")
    return found


def uid(thing: Object | None) -> str | None:
    """What tells an object from an earlier one of the same name."""
    found: str | None = (thing or {}).get("metadata", {}).get("uid")
    return found


def owner_uid(thing: Object) -> str | None:
    """The uid of what made the object and looks after it."""
    owners = thing.get("metadata", {}).get("ownerReferences") or []
    found: str | None = next((owner.get("uid") for owner in owners if owner.get("controller")), None)
    return found


def created_at(thing: Object) -> str | None:
    """When the object was made."""
    found: str | None = thing.get("metadata", {}).get("creationTimestamp")
    return found


def deleted_at(thing: Object | None) -> str | None:
    """When its deletion was asked for. Kubernetes writes down when it has to be over, grace period included:
    https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/object-meta/
    """
    about = (thing or {}).get("metadata", {})
    if not (over := about.get("deletionTimestamp")):
        return None
    return stamp(datetime.fromisoformat(over) - timedelta(seconds=about.get("deletionGracePeriodSeconds") or 0))


def revision_created_at(releases: Sequence[Object]) -> str | None:
    """When helm began to write the newest revision."""
    return releases[-1].get("creationTimestamp") if releases else None


def revision_modified_at(releases: Sequence[Object]) -> str | None:
    """When helm last wrote to the newest revision: when it failed, or when its uninstall began."""
    label = str(releases[-1].get("labels", {}).get("modifiedAt", "")) if releases else ""
    return stamp(datetime.fromtimestamp(int(label), UTC)) if label.isdigit() else revision_created_at(releases)


def trimmed_event(event: Object) -> Object:
    """Of an event only what is looked at: there may be many."""
    about, series = event.get("involvedObject", {}), event.get("series") or {}
    first = event.get("firstTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp")
    return {
        "metadata": {"name": event["metadata"]["name"]},
        "involvedObject": {"uid": about.get("uid")},
        "reason": event.get("reason"),
        "message": (event.get("message") or "")[:1000],
        "firstTimestamp": first,
        "lastTimestamp": series.get("lastObservedTime") or event.get("lastTimestamp") or first,
    }


def sorted_events(events: Sequence[Object]) -> tuple[Object, ...]:
    """Events as `trimmed_event` leaves them, newest last."""
    return tuple(sorted(events, key=lambda event: str(event.get("lastTimestamp") or "")))


def seconds_between(earlier: str | None, later: str | None) -> float | None:
    """None where one of them is not known."""
    if not earlier or not later:
        return None
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()


def readable_size(text: str) -> str:
    """`4Gi` as people write it: `4 GiB`."""
    parts = re.fullmatch(r"([0-9.]+)([KMGT]i)", text)
    return f"{parts[1]} {parts[2]}B" if parts else text


def _named(containers: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    return next((one for one in containers if one.get("name") == CONTAINER), {})
