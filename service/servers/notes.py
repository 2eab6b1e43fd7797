"""What a person should know about a server besides its state. Pure except for the clock."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, get_args

from service.servers import reasons
from service.servers.accessors import annotation, created_at, deleted_at, wants_pod
from service.servers.disks import growth_of
from service.servers.names import NEW_SINCE
from service.servers.objects import Objects
from service.servers.spec import spec_of_objects
from service.servers.usage import NEARLY_FULL, Usage

Slug = Literal[
    "disk-missing",
    "disk-new",
    "disk-being-deleted",
    "disk-full",
    "disk-nearly-full",
    "disk-growing",
    "disk-grows-at-next-start",
    "disk-growth-failed",
    "no-disk-space-on-nodes",
]
SLUGS: tuple[str, ...] = get_args(Slug)


_HEARD_WITHIN = timedelta(minutes=1)
# For how long a new disk is worth a note.
_NEWS = timedelta(days=30)


@dataclass(frozen=True)
class Note:
    """A note: `slug` says of which kind it is and never changes its meaning; `detail` says it in a sentence or two."""

    slug: Slug
    detail: str


def notes_of(objects: Objects) -> list[Note]:
    """The notes about a server, the most urgent first. Events are read only while its disk is not bound."""
    notes = (
        _missing(objects),
        _new(objects),
        _deleted(objects),
        _no_room(objects),
        _fill(objects.usage),
        _growth(objects),
    )
    return [note for note in notes if note is not None]


def _missing(objects: Objects) -> Note | None:
    statefulset, spec = objects.statefulset, spec_of_objects(objects)
    if statefulset is None or deleted_at(statefulset) or objects.claim is not None:
        return None
    # The claim of a server whose world is put into a new disk is made after its StatefulSet.
    if spec is not None and spec.restoring:
        return None
    # The watches may hear of a new server's StatefulSet first.
    made_at = created_at(statefulset)
    if made_at and datetime.now(UTC) < datetime.fromisoformat(made_at) + _HEARD_WITHIN:
        return None
    return Note(
        "disk-missing",
        f"The claim server-{objects.id} of the server's disk is missing. A start makes a new, empty disk. If the "
        "volume is still there, the operator can bring it back before that.",
    )


def _new(objects: Objects) -> Note | None:
    since = annotation(objects.claim, NEW_SINCE)
    try:
        at = datetime.fromisoformat(since or "")
    except ValueError:
        return None
    if objects.statefulset is None or datetime.now(UTC) > at + _NEWS:
        return None
    return Note("disk-new", f"The claim of the server's disk was missing, so a new, empty disk was made at {since}.")


def _deleted(objects: Objects) -> Note | None:
    if objects.statefulset is None or deleted_at(objects.statefulset) or not deleted_at(objects.claim):
        return None
    return Note(
        "disk-being-deleted",
        f"Somebody has deleted the claim server-{objects.id} of the server's disk. Kubernetes erases the disk as soon "
        "as no game runs on it. Only the operator can still keep it.",
    )


def _fill(usage: Usage | None) -> Note | None:
    fill = None if usage is None else usage.fill(datetime.now(UTC))
    if usage is None or usage.used is None or usage.size is None or fill in (None, "ok"):
        return None
    amount = f"{_gib(usage.used)} of {_gib(usage.size)} GiB are used."
    if fill == "nearly-full":
        return Note("disk-nearly-full", f"The disk is nearly full: {amount}")
    if usage.used < NEARLY_FULL * usage.size:
        return Note("disk-full", f"The disk holds as many files as it can, although only {amount} Delete files.")
    return Note("disk-full", f"The disk is full: {amount} Delete files, or make the disk larger.")


def _growth(objects: Objects) -> Note | None:
    growth = growth_of(objects.claim)
    if growth is None:
        return None
    if growth.failure is not None:
        return Note(
            "disk-growth-failed",
            f"The disk has not grown to {growth.to_gb} GiB: {growth.failure.rstrip('.')}. The storage tries again. To "
            f"take the growth back, set `disk_gb` to {growth.from_gb}.",
        )
    if growth.at_start and not wants_pod(objects.statefulset):
        return Note("disk-grows-at-next-start", f"The disk grows to {growth.to_gb} GiB at the server's next start.")
    return Note("disk-growing", f"The disk is growing to {growth.to_gb} GiB.")


def _no_room(objects: Objects) -> Note | None:
    reason = reasons.no_disk_space(objects)
    return None if reason is None else Note("no-disk-space-on-nodes", reason)


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f}".rstrip("0").rstrip(".")
