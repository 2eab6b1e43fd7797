"""The commands that change or read a server's disk: how a world comes back.

`lay-out` brings it beside, `place` puts it into its place, `undo` takes it back, `clean` removes what was kept, `prove`
tries a backup on a scratch disk, and `inspect` says beforehand whether it can be.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from backup_job import changes, own_folder, permissions, placing, replacing
from backup_job.content import Content
from backup_job.errors import JobFailed
from backup_job.own_folder import WORLD
from backup_job.request import Request
from backup_job.tree import Sum

_TREE = "tree"
_PROOF = "proof"
#: What a disk needs beside the files: the journal, and what the file system takes for itself.
_SPARE, _SPARE_BYTES = 0.02, 1 << 20
#: The answer has to fit into 4096 bytes.
_NAMED_BYTES = 2000


def inspect(request: Request) -> dict[str, Any]:
    """Whether a backup is there, is whole and fits. Nothing is changed.

    Returns:
        `found` and `whole` (always true), `files`, `size_bytes`, `needed_bytes` (of a disk, at most), `free_bytes` and
        `total_bytes` of the server's disk, `fits_beside`, and the first of the paths that are not in the backup.

    Raises:
        JobFailed: `backup-missing`, `backup-damaged`, `too-large` (even if the disk had nothing else), `not-ours`.
    """
    with own_folder.told(), changes.opened(str(request.places.world)) as root:
        free, everything = own_folder.free(root)
        permissions.require_ours(root, request.paths)
    total, missing = Content(request).measure()
    needed = total.space + round(total.space * _SPARE) + _SPARE_BYTES
    if total.space > everything:
        raise JobFailed("too-large", "The backup is larger than the disk.")
    return {
        "found": True,
        "whole": True,
        **_counted(total),
        "needed_bytes": needed,
        "free_bytes": free,
        "total_bytes": everything,
        "fits_beside": needed <= free,
        "missing_paths": list(_few(missing)),
    }


def lay_out(request: Request) -> dict[str, Any]:
    """Lay a backup out as `restore-<operation>/world`, and compare it. What an earlier try has left there goes first.

    Raises:
        JobFailed: `placing-began`: that folder may have the world of before. `backup-missing`, `backup-damaged`,
            `path-missing`, `disk-full`, or `restore-differs`: then nothing is left of it.
    """
    name = f"restore-{request.operation}"
    if request.to == "scratch":
        with own_folder.told(), changes.opened(str(request.places.scratch)) as scratch:
            return _counted(_fill(request, scratch, name))
    with own_folder.held(request.places.world) as (_root, own):
        done = any(placing.finished(own, request.operation, kind) for kind in ("before", "placed"))
        if done or placing.unfinished(own, request.operation):
            raise JobFailed("placing-began", "The world of this operation is being put into its place already.")
        return _counted(_fill(request, own, name))


def place(request: Request) -> dict[str, Any]:
    """Put into its place what is laid out, and keep the world of before as `before-<operation>`.

    From the scratch disk, nothing is kept. That disk ends with its pod, so a Job that follows a killed one has to lay
    out again: it does so by itself if the request says what.

    Returns:
        `before`: whether the world of before is on the disk.
    """
    with own_folder.held(request.places.world) as (root, own):
        if request.origin == "beside":
            placing.place(root, own, request.operation, request.paths)
            return {"before": True}
        if not placing.finished(own, request.operation, "placed"):
            with _scratch(request, own) as laid_out:
                replacing.place(root, own, laid_out, request.operation, request.paths)
        return {"before": False}


def undo(request: Request) -> dict[str, Any]:
    """Put the world of before a restore (or an undo) back; what it replaces is kept as `before-<operation>`.

    Raises:
        JobFailed: `before-missing`.
    """
    with own_folder.held(request.places.world) as (root, own):
        placing.undo(root, own, request.before, request.operation)
    return {"before": True}


def clean(request: Request) -> dict[str, Any]:
    """Remove what operations have left in the product's own folder.

    Raises:
        JobFailed: `placing-began`: one of them is not finished, so its folder may have parts of the server's world.
    """
    with own_folder.held(request.places.world) as (_root, own):
        for operation in request.operations:
            if placing.unfinished(own, operation):
                raise JobFailed("placing-began", "A world is being put into its place.")
            for kind in ("clean", "restore", "before", "placed"):
                _clean(own, f"{kind}-{operation}", f"clean-{operation}")
    return {}


def _clean(own: int, name: str, as_name: str) -> None:
    """Remove a folder of ours. It loses its name first, so that nobody takes half of it for a world."""
    if (folder := own_folder.part(own, name)) is None:
        return
    os.close(folder)
    if name != as_name:
        changes.move(own, name, own, as_name)
    changes.remove(own, as_name)


def prove(request: Request) -> dict[str, Any]:
    """Restore a backup to the scratch disk, compare it with its list, and remove it again.

    Raises:
        JobFailed: `backup-missing`, `backup-damaged`, `restore-differs`, `disk-full`.
    """
    with own_folder.told(), changes.opened(str(request.places.scratch)) as scratch:
        total = _fill(request, scratch, _PROOF)
        changes.remove(scratch, _PROOF)
    return _counted(total)


def _fill(request: Request, parent: int, name: str) -> Sum:
    """Have the backup in a folder that is not there, or is of an earlier try; in its `world` once all is compared."""
    own_folder.make_empty(parent, name)
    try:
        with changes.opened(name, parent) as folder:
            changes.make_folder(folder, _TREE)
            with changes.opened(_TREE, folder) as tree:
                found, total = Content(request).bring(tree)
                changes.sync_disk(tree)
                changes.move(tree, found, folder, WORLD)
            changes.remove(folder, _TREE)
            changes.sync(folder)
        changes.sync(parent)
        return total
    except (JobFailed, OSError):
        # It may have filled the disk.
        changes.remove(parent, name)
        raise


@contextmanager
def _scratch(request: Request, own: int) -> Iterator[int]:
    """The world on the scratch disk, open."""
    name = f"restore-{request.operation}"
    with changes.opened(str(request.places.scratch)) as scratch:
        if placing.copied(own, request.operation):
            # It is on the server's disk, and this one may be another pod's.
            yield scratch
            return
        if not _laid_out(scratch, name):
            if not (request.snapshot or request.source):
                raise JobFailed("nothing-laid-out", "No world is laid out for this operation.")
            _fill(request, scratch, name)
        with changes.opened(name, scratch) as found, changes.opened(WORLD, found) as world:
            yield world


def _laid_out(scratch: int, name: str) -> bool:
    if not changes.is_folder(changes.look(scratch, name)):
        return False
    with changes.opened(name, scratch) as found:
        return changes.is_folder(changes.look(found, WORLD))


def _counted(total: Sum) -> dict[str, Any]:
    answer: dict[str, Any] = {"files": total.files, "size_bytes": total.size}
    if total.unreadable:
        answer["unreadable"] = {"count": total.unreadable, "paths": list(_few(total.paths or []))}
    return answer


def _few(paths: list[str]) -> Iterator[str]:
    room = _NAMED_BYTES
    for path in paths[:10]:
        # As JSON writes it, at worst.
        room -= 6 * len(path)
        if room >= 0:
            yield path
