"""What the Jobs of backups, restores and checks are to be: one function for each command of their program. Pure.

All arguments of a Job follow from the settings, from what is kept about the server's backups, and from its disk. So a
phase that is repeated asks for the same Job, by the same name. backup/backup_job/request.py reads what is asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from service.backups.jobs import JobSpec, Scratch, key_name
from service.backups.records import ServerBackups
from service.kube.types import Object
from service.servers.accessors import is_bound
from service.servers.disks import capacity_gb, claim_gb
from service.servers.objects import Objects
from service.servers.volumes import only_node
from service.settings import Settings

WORLD, SOURCE = "/world", "/source"
"""Where the server's disk is in a Job's pod, and where a copy of a snapshot of it is."""
SHORT_SECONDS = 900
"""The deadline of what moves no customer's data."""


@dataclass(frozen=True)
class Disk:
    """What the Jobs need to know of a server's disk.

    Attributes:
        claim: The name of its claim.
        class_name: Its storage class.
        gb: Its size in GiB.
        driver: The CSI driver of its volume; "" if it has none.
        node: The node that has it, or has it mounted; None if any node can have it.
        pod: The game's pod template's `spec`; {} if the server is gone.
    """

    claim: str
    class_name: str
    gb: int
    driver: str = ""
    node: str | None = None
    pod: Mapping[str, Any] | None = None

    def copy_of(self, snapshot: str) -> Scratch:
        """A volume with the content of a VolumeSnapshot of this disk."""
        return Scratch(self.class_name, self.gb, snapshot)

    def empty(self) -> Scratch:
        """An empty volume of the disk's size."""
        return Scratch(self.class_name, self.gb)


def disk_of(objects: Objects, volume: Object | None) -> Disk | None:
    """The server's disk; None if it has none yet.

    Args:
        objects: The server.
        volume: The PersistentVolume that its claim names.
    """
    claim = objects.claim
    if claim is None or volume is None or not is_bound(claim):
        return None
    template = (objects.statefulset or {}).get("spec", {}).get("template", {})
    return Disk(
        claim=claim["metadata"]["name"],
        class_name=claim["spec"].get("storageClassName") or "",
        gb=capacity_gb(claim) or claim_gb(claim),
        driver=str((volume["spec"].get("csi") or {}).get("driver") or ""),
        # A disk of the network is where its pod is.
        node=only_node(volume["spec"]) or (objects.pod or {}).get("spec", {}).get("nodeName"),
        pod=template.get("spec") or {},
    )


def job_name(operation: str, phase: str, attempt: int = 0) -> str:
    """The name of the Job of an operation's phase; an operation is `op-…` or another word with the uid in it."""
    return f"{operation}-{phase}" + (f"-{attempt}" if attempt else "")


# -- in the backups' namespace: with the recovery key, without anything of a customer ------------------------


def job_for_catalogue(settings: Settings, name: str) -> JobSpec:
    """Make the catalogue of the store. There must never be two of these at once, so `name` is always the same."""
    request = {"store": settings.backup_store}
    return _with_recovery_key(settings, JobSpec(name, "", "catalogue", request, 0, "catalogue", settings.backup_image))


def job_for_init(settings: Settings, server: ServerBackups, operation: str, attempt: int = 0) -> JobSpec:
    """Make the server's repository, or let the server's key open it."""
    about = {"id": server.id, "customer": server.customer, "game": server.game}
    return _of_repository(settings, server, operation, "init", {"about": about}, attempt, SHORT_SECONDS)


def job_for_forget(
    settings: Settings,
    server: ServerBackups,
    operation: str,
    snapshots: Sequence[str],
    backups: Sequence[str] = (),
    *,
    erase: bool = False,
    attempt: int = 0,
) -> JobSpec:
    """Forget snapshots (restic's ids), and those of backups whose Jobs have not answered; then prune and check.

    No other Job may be at work with the repository.
    """
    request = {"snapshots": list(snapshots), "backups": list(backups), "erase": erase}
    return _of_repository(settings, server, operation, "forget", request, attempt, JobSpec.deadline)


def _of_repository(
    settings: Settings,
    server: ServerBackups,
    operation: str,
    command: str,
    request: Mapping[str, Any],
    attempt: int,
    deadline: int,
) -> JobSpec:
    name = job_name(operation, command, attempt)
    request = {"store": settings.backup_store, "uid": server.uid, **request}
    spec = JobSpec(name, "", command, request, server.id, operation, settings.backup_image)
    return replace(_with_recovery_key(settings, spec), uid=server.uid, key=f"{name}-key", deadline=deadline)


def _with_recovery_key(settings: Settings, spec: JobSpec) -> JobSpec:
    return replace(
        _with_store(settings, spec), namespace=settings.backup_namespace, recovery=settings.backup_recovery_secret
    )


# -- in the servers' namespace: with a customer's data, without the recovery key ------------------------------


def job_for_backup(
    settings: Settings,
    server: ServerBackups,
    disk: Disk,
    operation: str,
    backup: str,
    values: Mapping[str, Any],
    *,
    snapshot: str = "",
    first_pass: bool = False,
    attempt: int = 0,
) -> JobSpec:
    """Bring a world to the store.

    Args:
        settings: The settings of the controller.
        server: The server.
        disk: Its disk.
        operation: The operation's id.
        backup: The backup's id.
        values: The values of the server's release.
        snapshot: The VolumeSnapshot to read; "" to read the disk itself.
        first_pass: Whether this only brings what changes little, before the game holds still.
        attempt: The number of the attempt.
    """
    request = {
        "backup": backup,
        "settings": dict(values),
        "source": SOURCE if snapshot else WORLD,
        **({"first_pass": True} if first_pass else {}),
    }
    name = job_name(operation, "first-pass" if first_pass else "backup", attempt)
    spec = _job(settings, server, disk, operation, name, "backup", request, stored=True)
    if snapshot:
        return replace(spec, source=disk.copy_of(snapshot))
    return replace(spec, world=disk.claim, read_only=True)


def job_for_inspect(
    settings: Settings,
    server: ServerBackups,
    disk: Disk,
    operation: str,
    paths: Sequence[str] = (),
    *,
    stored: str = "",
    snapshot: str = "",
    attempt: int = 0,
) -> JobSpec:
    """Whether a backup is whole, has the paths, and fits on the disk.

    The backup is `stored` (restic's id) in the store, or a `snapshot` (the VolumeSnapshot's name) on the node.
    """
    request = {"paths": list(paths), **_from(stored)}
    spec = _job(
        settings, server, disk, operation, job_name(operation, "inspect", attempt), "inspect", request, bool(stored)
    )
    return replace(spec, world=disk.claim, read_only=True, source=None if stored else disk.copy_of(snapshot))


def job_for_lay_out(
    settings: Settings,
    server: ServerBackups,
    disk: Disk,
    operation: str,
    to: str,
    paths: Sequence[str] = (),
    *,
    stored: str = "",
    snapshot: str = "",
    absent: bool = False,
    attempt: int = 0,
) -> JobSpec:
    """Lay a backup out `beside` the world, or in `scratch`; see `job_for_inspect`.

    `absent` says that paths which the backup does not have are no mistake: they go when it is placed.
    """
    request = {"operation": operation, "to": to, "paths": list(paths), **_from(stored)}
    if absent:
        request["absent"] = True
    spec = _job(
        settings, server, disk, operation, job_name(operation, "lay-out", attempt), "lay-out", request, bool(stored)
    )
    return replace(
        spec,
        world=disk.claim,
        source=None if stored else disk.copy_of(snapshot),
        scratch=disk.empty() if to == "scratch" else None,
    )


def job_for_place(
    settings: Settings,
    server: ServerBackups,
    disk: Disk,
    operation: str,
    paths: Sequence[str] = (),
    attempt: int = 0,
) -> JobSpec:
    """Put in place what was laid out beside the world."""
    request = {"operation": operation, "from": "beside", "paths": list(paths)}
    return _on_disk(settings, server, disk, operation, "place", request, attempt)


def job_for_undo(
    settings: Settings, server: ServerBackups, disk: Disk, operation: str, before: str, attempt: int = 0
) -> JobSpec:
    """Bring back the world that the operation `before` has replaced, and that is kept in the disk."""
    request = {"operation": operation, "before": before}
    return _on_disk(settings, server, disk, operation, "undo", request, attempt)


def job_for_clean(
    settings: Settings,
    server: ServerBackups,
    disk: Disk,
    operation: str,
    operations: Sequence[str],
    attempt: int = 0,
) -> JobSpec:
    """Remove what these operations have laid out, or kept in the disk."""
    return _on_disk(settings, server, disk, operation, "clean", {"operations": list(operations)}, attempt)


def job_for_proof(
    settings: Settings, server: ServerBackups, disk: Disk, operation: str, stored: str, attempt: int = 0
) -> JobSpec:
    """Restore a backup (restic's id) into an empty volume like the server's disk, and compare it with its list."""
    name = job_name(operation, "prove", attempt)
    spec = _job(settings, server, disk, operation, name, "prove", {"snapshot": stored}, stored=True)
    # The volume is not the server's, so any node may have it.
    return replace(spec, scratch=disk.empty(), node=None)


def _on_disk(
    settings: Settings,
    server: ServerBackups,
    disk: Disk,
    operation: str,
    command: str,
    request: Mapping[str, Any],
    attempt: int,
) -> JobSpec:
    name = job_name(operation, command, attempt)
    return replace(_job(settings, server, disk, operation, name, command, request, stored=False), world=disk.claim)


def _from(stored: str) -> Mapping[str, Any]:
    return {"snapshot": stored} if stored else {"source": SOURCE}


def _job(
    settings: Settings,
    server: ServerBackups,
    disk: Disk,
    operation: str,
    name: str,
    command: str,
    request: Mapping[str, Any],
    stored: bool,
) -> JobSpec:
    spec = JobSpec(
        name=name,
        namespace=settings.servers_namespace,
        command=command,
        request=request,
        server=server.id,
        operation=operation,
        image=settings.backup_image,
        pull_secrets=settings.backup_image_pull_secrets,
        node=disk.node,
        pod=disk.pod or {},
        resources=settings.backup_job_resources,
    )
    if not stored:
        return spec
    request = {"store": settings.backup_store, "uid": server.uid, **request}
    return replace(_with_store(settings, spec), request=request, uid=server.uid, key=key_name(server.uid))


def _with_store(settings: Settings, spec: JobSpec) -> JobSpec:
    return replace(
        spec,
        pull_secrets=settings.backup_image_pull_secrets,
        resources=settings.backup_job_resources,
        store_secret=settings.backup_store_secret,
        store_claim=settings.backup_store_claim,
    )
