"""The notes about a server follow from its objects."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.kube.times import stamp
from service.servers.names import NEW_SINCE, SERVER
from service.servers.notes import Note, notes_of
from service.servers.objects import ServerObjects
from service.servers.usage import Usage
from tests.unit.service.servers.test_disks import NO_ROOM, PENDING, claim, condition
from tests.unit.service.servers.test_state import (
    EXHAUSTED,
    NEW_CLAIM,
    NO_SPACE,
    READY,
    T0,
    event,
    pod,
    statefulset,
    unschedulable,
)

GIB = 2**30


def noted(**parts: Any) -> list[Note]:
    return notes_of(ServerObjects(**{"id": 1, "statefulset": statefulset(), "claim": claim(), **parts}))


def usage(used: float, *, full: bool = False) -> Usage:
    """How full the disk is, as an agent says it; the time is the test's own."""
    return Usage("", True, int(used * GIB), 10 * GIB, full)


@pytest.mark.parametrize(
    ("used", "notes"),
    [
        (usage(8.9), []),
        (usage(9.5), [Note("disk-nearly-full", "The disk is nearly full: 9.5 of 10 GiB are used.")]),
        (
            usage(10),
            [Note("disk-full", "The disk is full: 10 of 10 GiB are used. Delete files, or make the disk larger.")],
        ),
        (
            usage(1.25, full=True),
            [
                Note(
                    "disk-full",
                    "The disk holds as many files as it can, although only 1.25 of 10 GiB are used. Delete files.",
                )
            ],
        ),
        (Usage("", enforced=False), []),
        (Usage("2026-01-01T00:00:00Z", True, 10 * GIB, 10 * GIB, full=True), []),
    ],
)
def test_a_full_disk_is_noted(used: Usage, notes: list[Note]) -> None:
    """Whether or not the server runs, from 90 % on."""
    used = replace(used, as_of=used.as_of or stamp(datetime.now(UTC)))
    assert noted(usage=used) == notes
    assert noted(usage=used, statefulset=statefulset(0)) == notes


@pytest.mark.parametrize(
    ("of", "replicas", "notes"),
    [
        (claim("20Gi"), 1, [Note("disk-growing", "The disk is growing to 20 GiB.")]),
        (claim("20Gi", "10Gi", PENDING), 1, [Note("disk-growing", "The disk is growing to 20 GiB.")]),
        (claim("20Gi"), 0, [Note("disk-growing", "The disk is growing to 20 GiB.")]),
        (
            claim("20Gi", "10Gi", PENDING),
            0,
            [Note("disk-grows-at-next-start", "The disk grows to 20 GiB at the server's next start.")],
        ),
        (
            claim("20Gi", "10Gi", PENDING, condition("NodeResizeError", NO_ROOM)),
            1,
            [
                Note(
                    "disk-growth-failed",
                    "The disk has not grown to 20 GiB: the pool has 3 GiB left. The storage tries again. To take the "
                    "growth back, set `disk_gb` to 10.",
                )
            ],
        ),
    ],
)
def test_a_growth_is_noted_until_it_has_ended(of: dict[str, Any], replicas: int, notes: list[Note]) -> None:
    """With what it waits for."""
    assert noted(claim=of, statefulset=statefulset(replicas)) == notes


def test_a_disk_for_which_there_is_no_room_is_noted() -> None:
    """By the scheduler, or by the driver. Once there is a disk, what was said before no longer counts."""
    waits, failure = pod(None, unschedulable(NO_SPACE)), (event("ProvisioningFailed", EXHAUSTED),)
    sentence = "No node that could take the server has room for its disk of 100 GiB."
    assert noted(claim=NEW_CLAIM, pod=waits) == [Note("no-disk-space-on-nodes", sentence)]
    told = f"The storage has no room for the server's disk of 100 GiB. ({EXHAUSTED})"
    assert noted(claim=NEW_CLAIM, pod=pod(), events=failure) == [Note("no-disk-space-on-nodes", told)]
    # Only a preemption would lack it.
    full = f"0/2 nodes are available: 2 Insufficient memory. preemption: {NO_SPACE}"
    assert noted(claim=NEW_CLAIM, pod=pod(None, unschedulable(full))) == []
    other = (event("ProvisioningFailed", "storageclass not found"),)
    assert noted(claim=NEW_CLAIM, pod=pod(), events=other) == []
    assert noted(pod=pod({}, READY), events=failure) == []
    assert noted(claim=NEW_CLAIM) == []


def test_a_disk_that_is_gone_is_noted() -> None:
    """Also of a stopped server, whose next start makes an empty one. A clone's, or a new server's, is still to come."""
    missing = Note(
        "disk-missing",
        "The claim server-1 of the server's disk is missing. A start makes a new, empty disk. If the volume is still "
        "there, the operator can bring it back before that.",
    )
    assert noted(claim=None) == noted(claim=None, statefulset=statefulset(0)) == [missing]
    clone = statefulset(0, annotations={SERVER: '{"restoring": "op-1"}'})
    assert noted(claim=None, statefulset=clone) == []
    assert noted(claim=None, statefulset=statefulset(creationTimestamp=stamp(datetime.now(UTC)))) == []
    assert noted(claim=None, statefulset=statefulset(deletionTimestamp=T0)) == []
    assert noted(claim=None, statefulset=None) == []


@pytest.mark.parametrize(("days", "slugs"), [(0, ["disk-new"]), (29, ["disk-new"]), (31, []), (None, [])])
def test_a_disk_that_was_made_anew_is_noted_for_a_month(days: int | None, slugs: list[str]) -> None:
    """The world of before is not on it."""
    since = "nonsense" if days is None else stamp(datetime.now(UTC) - timedelta(days=days))
    made = claim()
    made["metadata"]["annotations"] = {NEW_SINCE: since}
    assert [note.slug for note in noted(claim=made)] == slugs
    assert noted(claim=made, statefulset=None) == []
