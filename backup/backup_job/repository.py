"""What a Job does with repositories: each server's, by its uid, and the catalogue that names them all.

A server's repository has two keys: the server's own, and the operator's recovery key. The catalogue has the recovery
key alone. Only Jobs of the backups' namespace have the recovery key, and nothing of a customer is mounted there.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import random
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from backup_job import restic
from backup_job.errors import JobFailed
from backup_job.places import Places
from backup_job.request import CATALOGUE, Request, Store

#: Where a snapshot has the server's settings, and the catalogue's what it says of a server. Below our own /tmp.
_SETTINGS = "settings.json"
_ABOUT = "about.json"
#: The product's own folder on a server's disk.
OWN_FOLDER = ".gameserver"
_FIRST_KEYS = 32
#: Bytes of the names of unreadable files in an answer, of which Kubernetes keeps 4096.
_NAMES_BYTES = 2000
_NAME_LETTERS = 200


def catalogue(request: Request) -> dict[str, Any]:
    """Make the catalogue, unless there is one. Two at once would spoil it: the controller runs one of these.

    Raises:
        JobFailed: the store cannot be used, or the catalogue has another recovery key.
    """
    _make(_store(request), CATALOGUE, request.places, [request.places.recovery])
    return {}


def init(request: Request) -> dict[str, Any]:
    """Make the server's repository with both keys and its entry in the catalogue; each only if it is not there.

    Raises:
        JobFailed: `catalogue-missing`; the store cannot be used; `wrong-key`: neither key opens the repository.
    """
    store, places = _store(request), request.places
    about = {**request.about, "uid": request.uid}
    repository = _catalogue(store, places)
    try:
        entries = restic.snapshots(repository, "--tag", f"uid={request.uid}")
    except JobFailed as failed:
        if failed.code == "repository-missing":
            raise JobFailed("catalogue-missing", "The store has no catalogue yet.") from None
        raise
    _make(store, request.uid, places, [places.password, places.recovery])
    if not entries or _read(repository, entries[-1].id, _ABOUT) != about:
        with _written(places, _ABOUT, about) as file:
            options = ("--host", request.uid, "--tag", f"uid={request.uid}")
            restic.run(repository, "backup", *options, file, folder=places.root)
    return {}


def _make(store: Store, name: str, places: Places, keys: list[Path]) -> None:
    """Make a repository that each of `keys` opens, or complete one that a killed Job began.

    restic writes a key, and then the configuration that it opens. A Job that is killed between leaves a key that opens
    nothing, and if a later one had the same password, restic could take the wrong one of them and the repository was
    lost. So a repository is made with one of a few passwords that are derived from the recovery key, and that password
    is replaced when the others are in.
    """
    refusals = []
    for key in keys:
        refusals.append(_refusal(restic.repository(store, name, places, key)))
        if refusals[-1] == "repository-missing":
            break
    closed = [key for key, refusal in zip(keys, refusals, strict=False) if refusal is not None]
    if not closed:
        return
    if len(closed) < len(keys) and "repository-missing" not in refusals:
        (opener,) = [key for key in keys if key not in closed]
        _add_keys(restic.repository(store, name, places, opener), closed)
        return
    with _first_keys(name, places) as first:
        if "repository-missing" in refusals:
            begun = restic.repository(store, name, places, random.choice(first))  # noqa: S311 (which is no secret)
            restic.run(begun, "init", limit=restic.FIRST_CONTACT)
        else:
            begun = _opened(restic.repository(store, name, places, key) for key in first)
        _add_keys(begun, keys)
        (own,) = [key["id"] for key in restic.run(begun, "key", "list").json() if key["current"]]
        # It is in nobody's way where nothing can be deleted.
        with suppress(JobFailed):
            restic.run(restic.repository(store, name, places, keys[0]), "key", "remove", own)


def _opened(repositories: Iterable[restic.Repository]) -> restic.Repository:
    """The first whose key opens it."""
    for repository in repositories:
        if _refusal(repository) is None:
            return repository
    raise JobFailed("wrong-key", "Neither key opens the repository.")


def _refusal(repository: restic.Repository) -> str | None:
    """Why the key does not open it, `wrong-key` or `repository-missing`; None if it does."""
    try:
        restic.snapshots(repository)
    except JobFailed as failed:
        if failed.code in ("wrong-key", "repository-missing"):
            return failed.code
        raise
    return None


def _add_keys(repository: restic.Repository, keys: Iterable[Path]) -> None:
    for key in keys:
        restic.run(repository, "key", "add", "--new-password-file", str(key))


@contextmanager
def _first_keys(name: str, places: Places) -> Iterator[list[Path]]:
    """Files with the passwords of which one begins a repository."""
    recovery = places.recovery.read_bytes().strip()
    files = []
    try:
        for number in range(_FIRST_KEYS):
            file = places.temporary / f"first-key-{number}"
            derived = hmac.new(recovery, f"{name}/{number}".encode(), hashlib.sha256).hexdigest()
            with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as opened:
                opened.write(derived)
            files.append(file)
        yield files
    finally:
        for file in files:
            file.unlink()


def backup(request: Request) -> dict[str, Any]:
    """Bring the world, without the product's own folder, and the server's settings into the store as one snapshot.

    If a Job that was killed had made the backup's snapshot already, that is the answer: it was made when the game held
    still, or earlier. The second one goes with the next `forget`. To look before would cost each backup a second.

    The answer: `snapshot`, `files` (regular ones), `size_bytes`, `added_bytes` (before compression), `unreadable`
    {`count`, `paths`}, `empty`.

    Raises:
        JobFailed: `world-missing`, `repository-missing`, `store-full` and what else a store can have.
    """
    places = request.places
    tree = Path(request.tree())
    if not tree.is_dir():
        raise JobFailed("world-missing", "The server's disk is not there.")
    repository = restic.repository(_store(request), request.uid, places)
    tag = f"{'first-pass' if request.first_pass else 'backup'}={request.backup}"
    with _written(places, _SETTINGS, request.settings) as file:
        finished = restic.run(
            repository,
            "backup",
            *("--host", request.uid, "--tag", tag),
            *(option for path in _left_out(tree) for option in ("--exclude", _literally(path))),
            *(tree.name, file),
            folder=places.root,
            # Some of it could not be read; the rest is a backup nevertheless.
            accepted=(0, 3),
            limit=restic.FIRST_CONTACT,
        )
        settings_bytes = (places.root / file).stat().st_size
    summary = next(json.loads(line) for line in reversed(finished.output) if '"summary"' in line)
    files = summary["total_files_processed"] - 1
    size = summary["total_bytes_processed"] - settings_bytes
    snapshot = restic.snapshots(repository, "--tag", tag)[0].id
    if not snapshot.startswith(summary["snapshot_id"]):
        files, size = _counted(repository, snapshot)
    return {
        "snapshot": snapshot,
        "files": files,
        "size_bytes": size,
        "added_bytes": summary["data_added"],
        "unreadable": _unreadable(finished.unreadable, [_inside(path, tree) for path in finished.paths]),
        "empty": files == 0,
    }


def _counted(repository: restic.Repository, snapshot: str) -> tuple[int, int]:
    """How many files a snapshot has, and how many bytes are in them."""
    sizes: list[int] = []
    restic.listing(repository, snapshot, lambda node: sizes.append(node.size) if node.kind == "file" else None)
    return len(sizes), sum(sizes)


def _left_out(tree: Path) -> list[Path]:
    """What of a disk is not the world's: our own folder, and the folder that ext4 makes for its repairs."""
    left_out = [tree / OWN_FOLDER]
    repairs = tree / "lost+found"
    try:
        found = repairs.lstat()
    except OSError:
        return left_out
    # A customer's own folder of that name is theirs.
    return [*left_out, repairs] if stat.S_ISDIR(found.st_mode) and found.st_uid == 0 else left_out


def _literally(path: Path) -> str:
    """A pattern of restic's that matches this path alone."""
    return "".join(f"\\{letter}" if letter in "*?[\\" else letter for letter in str(path))


def _inside(path: str, tree: Path) -> str:
    """A path that restic complains of, from the world's folder; `.` is that folder."""
    for above in (str(tree), tree.name):
        if path == above:
            return "."
        if path.startswith(f"{above}/"):
            return path[len(above) + 1 :]
    return path


def _unreadable(count: int, paths: list[str]) -> dict[str, Any]:
    kept: list[str] = []
    for path in paths:
        cut = path if len(path) <= _NAME_LETTERS else path[:_NAME_LETTERS] + "…"
        if len(json.dumps([*kept, cut])) <= _NAMES_BYTES:
            kept.append(cut)
    return {"count": count, "paths": kept}


def forget(request: Request) -> dict[str, Any]:
    """Forget snapshots, free their space, and check the repository's structure.

    Forgotten are those of `snapshots`, those of `backups`, those of first passes and those that a repeated Job made a
    second time: no backup is under way now. With `erase` it is all of them, and the catalogue's entry.

    The answer: `stored_bytes` (None if it cannot be told), `checked`, `error` (what the check found, None if nothing).

    Raises:
        JobFailed: `locked`, or what else a store can have. Damage is an answer.
    """
    store, places = _store(request), request.places
    repository = restic.repository(store, request.uid, places)
    made: set[str] = set()
    going = [
        snapshot.id for snapshot in restic.snapshots(repository) if request.erase or _goes(snapshot, request, made)
    ]
    # Dead commands' locks go here, as soon as restic can tell: a backup passes by those that are shared.
    restic.run(repository, "unlock")
    if going:
        restic.run(repository, "forget", *going)
    if request.erase:
        _strike_out(_catalogue(store, places), request.uid)
    damage = _damage(repository, "prune") or _damage(repository, "check")
    stored = None if damage else restic.run(repository, "stats", "--mode", "raw-data").json()["total_size"]
    return {"stored_bytes": stored, "checked": True, "error": damage}


def _goes(snapshot: restic.Snapshot, request: Request, made: set[str]) -> bool:
    """Whether a snapshot goes. `made` has the tags of those before, and gets this one's."""
    tags = {*snapshot.tags}
    twice = tags & made
    made |= tags
    return bool(
        twice
        or snapshot.id in request.snapshots
        or tags & {f"backup={backup}" for backup in request.backups}
        or any(tag.startswith("first-pass=") for tag in tags)
    )


def _damage(repository: restic.Repository, command: str) -> str | None:
    try:
        restic.run(repository, command)
    except JobFailed as failed:
        if failed.code != "repository-damaged":
            raise
        return failed.message
    return None


def _strike_out(repository: restic.Repository, uid: str) -> None:
    """Take a server out of the catalogue."""
    if entries := [entry.id for entry in restic.snapshots(repository, "--tag", f"uid={uid}")]:
        restic.run(repository, "forget", "--prune", *entries)


def settings(request: Request) -> dict[str, Any]:
    """The values of the server's release when a backup was made, as `settings`.

    Raises:
        JobFailed: `snapshot-missing`, or what else a store can have.
    """
    repository = restic.repository(_store(request), request.uid, request.places)
    return {"settings": _read(repository, request.snapshot, _SETTINGS)}


def catalogued(store: Store, places: Places) -> list[dict[str, Any]]:
    """What the catalogue says of each server: `uid`, and what its `init` was told about it. With the recovery key.

    Raises:
        JobFailed: as for restic.run.
    """
    repository = _catalogue(store, places)
    newest = {snapshot.host: snapshot.id for snapshot in restic.snapshots(repository)}
    return [_read(repository, snapshot, _ABOUT) for snapshot in newest.values()]


def stored_backups(store: Store, uid: str, places: Places) -> list[restic.Snapshot]:
    """A server's backups in the store, the oldest first. With the recovery key.

    A backup that was made twice, by a Job that was killed and repeated, is there once: the first one counts.

    Raises:
        JobFailed: as for restic.run.
    """
    first: dict[str, restic.Snapshot] = {}
    for snapshot in restic.snapshots(restic.repository(store, uid, places, places.recovery)):
        for tag in snapshot.tags:
            if tag.startswith("backup="):
                first.setdefault(tag, snapshot)
    return list(first.values())


def stored_settings(store: Store, uid: str, snapshot: str, places: Places) -> dict[str, Any]:
    """The values of the server's release when this backup was made. With the recovery key.

    Raises:
        JobFailed: as for restic.run.
    """
    return _read(restic.repository(store, uid, places, places.recovery), snapshot, _SETTINGS)


def _store(request: Request) -> Store:
    assert request.store is not None, "the command's request has a store"
    return request.store


def _catalogue(store: Store, places: Places) -> restic.Repository:
    return restic.repository(store, CATALOGUE, places, places.recovery)


def _read(repository: restic.Repository, snapshot: str, name: str) -> dict[str, Any]:
    """One of our own files in a snapshot."""
    value = restic.run(repository, "dump", snapshot, f"/tmp/{name}").json()  # noqa: S108 (a path in a snapshot)
    if not isinstance(value, dict):
        raise JobFailed("repository-damaged", f"The snapshot's {name} cannot be read.")
    return value


@contextmanager
def _written(places: Places, name: str, value: Any) -> Iterator[str]:
    """A file of our own for a snapshot; its path from the root, where restic runs: so it is `/tmp/…` in each."""
    file = places.temporary / name
    file.write_text(json.dumps(value, sort_keys=True))
    try:
        yield str(file.relative_to(places.root))
    finally:
        file.unlink()
