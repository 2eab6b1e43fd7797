"""What happens to backups, as events: from the servers' records and from the operations. Pure.

The ids follow from the server, and from the backup, the operation or the moment at which damage was found. So they are
the same whoever tells the events, and however often.
"""

from __future__ import annotations

from collections.abc import Iterator

from service.backups.records import Backup, ServerBackups
from service.events.event import LONGEST_REASON, Event, Type, event_id
from service.operations.operation import Operation

_SUSPICIONS = {
    "empty": "There is no file in it.",
    "smaller": "It is less than half as large as the last good one.",
    "incomplete": "Some files could not be read.",
}


def events_of(kept: ServerBackups, since: str) -> Iterator[Event]:
    """The events of a server's backups from the time `since` on (RFC 3339)."""
    for backup in kept.backups:
        if backup.finished is not None and backup.finished >= since:
            yield from _of_backup(kept, backup)
    repository, proof = kept.repository, kept.repository.proof
    if repository.fault is not None and repository.fault_since is not None and repository.fault_since >= since:
        at = repository.fault_since
        yield _event(kept, "proof-failed", at, ("damaged", at), backup=None, reason=repository.fault[:LONGEST_REASON])
    if proof.get("found") and str(proof.get("since")) >= since:
        at, id = str(proof["since"]), str(proof.get("backup"))
        yield _event(
            kept, "proof-failed", at, (id, "proof", at), backup=id, reason=str(proof["found"])[:LONGEST_REASON]
        )


def event_of(operation: Operation) -> Event | None:
    """The event of a restore, an undo or a clone that has ended; None if there is none."""
    server = operation.target
    if server is None or operation.finished is None or operation.action not in ("restore", "undo-restore", "clone"):
        return None
    if operation.state not in ("done", "failed"):
        return None
    type_ = "restored" if operation.state == "done" else "restore-failed"
    return Event(
        id=event_id(server.uid, operation.id, operation.state),
        type=type_,
        time=operation.finished,
        server=server.id,
        uid=server.uid,
        customer=server.customer,
        data={"operation": operation.id, "action": operation.action, "reason": operation.reason},
    )


def _of_backup(kept: ServerBackups, backup: Backup) -> Iterator[Event]:
    at, about = str(backup.finished), {"backup": backup.id, "trigger": backup.trigger}
    if backup.state == "failed":
        yield _event(kept, "backup-failed", at, (backup.id, "failed"), **about, reason=backup.reason)
    if backup.state == "done":
        size, consistency = backup.size_bytes, backup.consistency
        yield _event(kept, "backup-done", at, (backup.id, "done"), **about, size_bytes=size, consistency=consistency)
    if backup.state == "done" and backup.suspicious is not None:
        reason = _SUSPICIONS.get(backup.suspicious)
        suspicious = backup.suspicious
        yield _event(
            kept, "backup-suspicious", at, (backup.id, "suspicious"), **about, suspicious=suspicious, reason=reason
        )


def _event(kept: ServerBackups, type_: Type, time: str, cause: tuple[str, ...], **data: object) -> Event:
    return Event(event_id(kept.uid, *cause), type_, time, kept.id, kept.uid, kept.customer, data=data)
