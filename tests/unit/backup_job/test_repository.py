"""Repositories with the real restic: their keys, the catalogue, what is forgotten, and what damage and locks do."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backup_job import repository, restic
from backup_job.errors import JobFailed
from backup_job.request import Store
from tests.support.backup_jobs import Pod
from tests.support.waiting import until
from tests.unit.backup_job.conftest import ABOUT, SETTINGS, UID, backup

pytestmark = pytest.mark.tools

FOLDER = Store("folder")


def snapshots(pod: Pod) -> list[str]:
    """The ids of the repository's snapshots."""
    return [item["id"] for item in json.loads(pod.restic("snapshots", "--json"))]


def forget(pod: Pod, *ids: str, **more: object) -> dict[str, object]:
    return pod.done("forget", {"uid": UID, "snapshots": list(ids), **more})


def test_init_again_changes_nothing(pod: Pod) -> None:
    """Both keys open the server's repository, the recovery key alone the catalogue."""

    def files() -> set[Path]:
        return {file for file in pod.places.repositories.rglob("*") if file.is_file()}

    assert len(json.loads(pod.restic("key", "list", "--json", key=pod.places.recovery))) == 2
    assert len(json.loads(pod.restic("key", "list", "--json", name="catalogue", key=pod.places.recovery))) == 1
    before = files()
    pod.done("catalogue", {})
    pod.done("init", {"uid": UID, "about": ABOUT})
    assert files() == before
    pod.done("init", {"uid": UID, "about": {**ABOUT, "customer": "new"}})
    assert repository.catalogued(FOLDER, pod.places) == [{**ABOUT, "customer": "new", "uid": UID}]


@pytest.mark.long
def test_the_recovery_key_alone_finds_each_server(pod: Pod) -> None:
    """Its backups, and the settings in them; a first pass is no backup."""
    assert repository.stored_backups(FOLDER, UID, pod.places) == []
    snapshot = pod.done("backup", backup())["snapshot"]
    pod.done("backup", backup(2, first_pass=True))
    pod.places.password.unlink()
    (entry,) = repository.catalogued(FOLDER, pod.places)
    assert entry == {**ABOUT, "uid": UID}
    (found,) = repository.stored_backups(FOLDER, entry["uid"], pod.places)
    assert (found.id, found.tags) == (snapshot, ("backup=b-1",))
    assert repository.stored_settings(FOLDER, UID, found.id, pod.places) == SETTINGS


@pytest.mark.long
def test_a_lost_key_is_replaced_by_init(pod: Pod) -> None:
    pod.key("another key, since the first one is lost")
    assert pod.run("backup", backup())["code"] == "wrong-key"
    pod.done("init", {"uid": UID, "about": ABOUT})
    assert snapshots(pod) == []
    pod.recovery("another operator's")
    assert pod.run("init", {"uid": UID, "about": ABOUT})["code"] == "wrong-key"


def test_init_asks_for_a_catalogue(bare: Callable[..., Pod]) -> None:
    assert bare().run("init", {"uid": UID, "about": ABOUT})["code"] == "catalogue-missing"


@pytest.mark.long
def test_init_is_completed_after_any_kills(bare: Callable[..., Pod], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after one in restic's own init, which leaves a key and no configuration. Each attempt gets further."""
    pod = bare()
    places = pod.places
    keys = [places.password, places.recovery]
    run = restic.run
    # What the last attempt does: every other run of restic asks whether a key opens it.
    for victim in ("init", "key add", "key add", "key list", "key remove"):

        def killed(
            repository: restic.Repository, *arguments: str, victim: str = victim, **options: Any
        ) -> restic.Finished:
            finished = run(repository, *arguments, **options)
            if victim in (arguments[0], " ".join(arguments[:2])):
                if victim == "init" and not (places.repositories / "u" / "keep").exists():
                    (places.repositories / "u" / "config").unlink()
                    (places.repositories / "u" / "keep").touch()
                raise KeyboardInterrupt
            return finished

        monkeypatch.setattr(restic, "run", killed)
        with contextlib.suppress(KeyboardInterrupt):
            repository._make(FOLDER, "u", places, keys)
        assert not list(places.temporary.iterdir())
    monkeypatch.undo()
    repository._make(FOLDER, "u", places, keys)
    (places.world / "level.dat").touch()
    pod.done("backup", {**backup(), "uid": "u"})
    assert len(json.loads(pod.restic("snapshots", "--json", name="u", key=places.recovery))) == 1


@pytest.mark.long
def test_servers_are_made_at_once(template: Path, bare: Callable[..., Pod]) -> None:
    pods = [bare(f"pod-{number}") for number in range(5)]
    pods[0].copy_store(template)
    for pod in pods[1:]:
        pod.places.repositories.rmdir()
        pod.places.repositories.symlink_to(pods[0].places.repositories)
    running = [pod.start("init", {"uid": f"u-{number}", "about": ABOUT}) for number, pod in enumerate(pods)]
    assert [pod.answer(process) for pod, process in zip(pods, running, strict=True)] == [{"ok": True}] * 5
    listed = sorted(entry["uid"] for entry in repository.catalogued(FOLDER, pods[0].places))
    assert listed == [UID, *(f"u-{number}" for number in range(5))]


@pytest.mark.long
def test_what_is_forgotten_frees_its_space(pod: Pod) -> None:
    (pod.world / "big").write_bytes(os.urandom(2_000_000))
    first = pod.done("backup", backup(1))["snapshot"]
    (pod.world / "big").write_bytes(os.urandom(1_000_000))
    second = pod.done("backup", backup(2))["snapshot"]
    pod.done("backup", backup(3))
    answer = forget(pod, first, backups=["b-3"])
    assert snapshots(pod) == [second]
    assert 1_000_000 < answer.pop("stored_bytes") < 1_100_000  # type: ignore[operator]
    assert answer == {"checked": True, "error": None}
    # What is gone already is no mistake; an erased server is in the catalogue no more.
    assert forget(pod, first, erase=True)["error"] is None
    assert snapshots(pod) == []
    assert repository.catalogued(FOLDER, pod.places) == []


def files(pod: Pod, kind: str) -> list[Path]:
    """A repository's files of one kind, the largest first."""
    found = [file for file in (pod.places.repositories / UID / kind).rglob("*") if file.is_file()]
    return sorted((file for file in found if "-tmp-" not in file.name), key=lambda file: -file.stat().st_size)


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.chmod(0o600)
    file.write_bytes(content)


def cut(file: Path) -> None:
    file.chmod(0o600)
    os.truncate(file, 100)


def test_damage_is_found(pod: Pod) -> None:
    """A pack that is lost or cut, an index, a snapshot: `check` looks at the structure. Content is the proof's."""
    (pod.world / "big").write_bytes(os.urandom(100_000))
    pod.done("backup", backup())
    whole = restic.repository(FOLDER, UID, pod.places)
    kept = pod.root / "kept"
    shutil.copytree(whole.location, kept)
    for kind, damage in (("data", Path.unlink), ("data", cut), ("index", flip), ("snapshots", flip)):
        damage(files(pod, kind)[0])
        assert repository._damage(whole, "check") == "The repository is damaged.", (kind, pod.log())
        shutil.rmtree(whole.location)
        shutil.copytree(kept, whole.location)
    files(pod, "data")[0].unlink()
    assert forget(pod) == {"stored_bytes": None, "checked": True, "error": "The repository is damaged."}


def test_a_lost_configuration_is_no_new_repository(pod: Pod) -> None:
    """Otherwise a `backup` after it would look fine, and all earlier ones be lost."""
    (pod.places.repositories / UID / "config").unlink()
    assert pod.run("backup", backup())["code"] == "repository-missing"


def kill_with_lock(pod: Pod, command: str, request: dict[str, object]) -> None:
    """Kill a command's container when restic has a lock."""
    locks = pod.places.repositories / UID / "locks"
    process = pod.start(command, request)
    until(lambda: process.poll() is not None or any(locks.iterdir()), 60)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert any(locks.iterdir())


def test_a_killed_backups_lock_is_in_nobodys_way(pod: Pod) -> None:
    (pod.world / "big").write_bytes(os.urandom(30_000_000))
    kill_with_lock(pod, "backup", backup())
    answer = pod.done("backup", backup())
    assert forget(pod)["error"] is None
    assert snapshots(pod) == [answer["snapshot"]]
    assert not list((pod.places.repositories / UID / "locks").iterdir())


@pytest.mark.long
def test_a_killed_prunes_lock_is_in_nobodys_way(pod: Pod) -> None:
    snapshot = pod.done("backup", backup())["snapshot"]
    kill_with_lock(pod, "forget", {"uid": UID, "snapshots": [snapshot]})
    pod.done("backup", backup(2))
    assert forget(pod, snapshot)["error"] is None


def test_a_living_commands_lock_is_respected(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one on another node is: its host's name is another, and it was renewed just now."""
    monkeypatch.setattr(restic, "LOCKED", 0.0)
    locked = restic.repository(FOLDER, UID, pod.places)
    holder = subprocess.Popen(
        ["restic", "--no-cache", "-r", locked.location, "-p", str(locked.password), "backup", "--stdin"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    until(lambda: any((pod.places.repositories / UID / "locks").iterdir()), 60)
    with pytest.raises(JobFailed) as failed:
        restic.run(locked, "prune")
    assert failed.value.code == "locked"
    holder.communicate(b"more")
    restic.run(locked, "prune")


def test_an_ended_job_removes_its_lock_and_says_so(pod: Pod) -> None:
    # So much that restic is surely not done when it is ended.
    (pod.world / "big").write_bytes(os.urandom(400_000_000))
    locks = pod.places.repositories / UID / "locks"
    process = pod.start("backup", backup())
    until(lambda: files(pod, "data"), 60)
    process.terminate()
    assert pod.answer(process) == {"ok": False, "code": "stopped", "message": "The Job was ended."}
    assert not list(locks.iterdir())
    assert snapshots(pod) == []
