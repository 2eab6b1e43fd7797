"""The Secret with the last lines of a server, and which Secrets there may be. Pure."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from disk_agent.objects import Object

COMPONENT = "kept-log"
MOST_BYTES = 64 * 1024 * 1024
"""How much is kept of all servers together, packed."""
OVERHEAD = 2048
"""What a Secret takes besides."""

# A server's uid becomes part of a name.
_UID = re.compile(r"[0-9a-z](?:[0-9a-z-]{0,61}[0-9a-z])?", re.ASCII)
_BYTES, _CREATED, _ENDED = (f"gameserver/log-{name}" for name in ("bytes", "created", "ended"))


@dataclass(frozen=True)
class Kept:
    """A Secret that exists, as its metadata describes it.

    Attributes:
        name: Its name.
        server: The server's id.
        bytes: How much it takes of `MOST_BYTES`.
        ended: When the run ended whose lines it has.
        created: When that run's pod was created.
        uid, version: Its own uid and resourceVersion.
    """

    name: str
    server: str
    bytes: int
    ended: str
    created: str
    uid: str
    version: str


def secret_name(uid: str) -> str | None:
    """The name of the Secret of the server with this uid; None if the uid cannot be part of a name."""
    return f"log-{uid}" if _UID.fullmatch(uid) else None


def secret(name: str, server: str, data: bytes, about: Mapping[str, Any]) -> dict[str, Any]:
    """The Secret.

    Args:
        name: Its name.
        server: The server's id.
        data: The packed lines.
        about: `pod`, `restarts`, `created`, `ended` and `cut`: the run that wrote them, when its pod was created and
            ended (RFC 3339), and whether something before them is left out.
    """
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "labels": {
                "app.kubernetes.io/component": COMPONENT,
                "app.kubernetes.io/part-of": "gameserver-cluster",
                "app.kubernetes.io/managed-by": "sftp-agent",
                "gameserver/id": server,
            },
            # So that a list of metadata tells how much there is, and which is the oldest.
            "annotations": {_BYTES: str(len(data)), _CREATED: about["created"], _ENDED: about["ended"]},
        },
        "type": "Opaque",
        "data": {
            "log.gz": base64.b64encode(data).decode(),
            "about": base64.b64encode(json.dumps(about).encode()).decode(),
        },
    }


def kept(item: Object) -> Kept:
    """A Secret's metadata."""
    metadata = item["metadata"]
    annotations = metadata.get("annotations") or {}
    size = annotations.get(_BYTES) or ""
    return Kept(
        name=metadata["name"],
        server=(metadata.get("labels") or {}).get("gameserver/id", ""),
        # Unknown sizes count as the largest, and are the first to go.
        bytes=OVERHEAD + (int(size) if re.fullmatch("[0-9]{1,6}", size, re.ASCII) else 1 << 20),
        ended=annotations.get(_ENDED) or "",
        created=annotations.get(_CREATED) or "",
        uid=metadata.get("uid", ""),
        version=metadata.get("resourceVersion", ""),
    )


def too_many(secrets: Iterable[Kept], most: int = MOST_BYTES) -> list[Kept]:
    """The oldest Secrets, without which the others take at most `most` bytes."""
    oldest_first = sorted(secrets, key=lambda each: (each.ended, each.name))
    size = sum(each.bytes for each in oldest_first)
    dropped = []
    for each in oldest_first:
        if size <= most:
            break
        size -= each.bytes
        dropped.append(each)
    return dropped


def left_over(secrets: Iterable[Kept], uids: Iterable[str], before: str) -> list[Kept]:
    """The Secrets that seem to belong to no disk: no claim has their server's uid, and they are older than `before`."""
    names = {f"log-{uid}" for uid in uids}
    return [each for each in secrets if each.name not in names and each.ended < before]


def owner_uid(pod: Object) -> str:
    """The uid of the StatefulSet that has made a pod; "" if none has."""
    owners = pod["metadata"].get("ownerReferences") or []
    return next((owner["uid"] for owner in owners if owner.get("kind") == "StatefulSet"), "")
