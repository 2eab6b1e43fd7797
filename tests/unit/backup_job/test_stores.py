"""Stores by S3 (versitygw), by SFTP and in a folder; away, full, refusing; and what a Job shows of its secrets."""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backup_job import repository, restic
from backup_job.errors import JobFailed
from backup_job.request import parse
from tests.support.backup_jobs import Pod
from tests.support.gunicorn import free_ports
from tests.support.s3 import S3, s3
from tests.support.sftp_store import sftp_store
from tests.support.waiting import until
from tests.unit.backup_job.conftest import SETTINGS, UID, backup

pytestmark = pytest.mark.tools


@pytest.fixture
def server(tmp_path: Path, template: Path) -> Iterator[S3]:
    """An S3 server; its bucket has what the template has, below a prefix."""
    shutil.copytree(template, S3(tmp_path / "s3").objects / "a" / "prefix")
    with s3(tmp_path / "s3") as running:
        yield running


@pytest.fixture
def pod(tmp_path: Path, server: S3) -> Pod:
    """A pod whose store is the S3 server."""
    made = Pod(tmp_path / "pod", server.store("a/prefix"))
    made.credentials({"credentials": server.credentials()})
    made.secrets.append(server.secret)
    (made.world / "level.dat").write_bytes(b"a world")
    return made


def in_this_process(pod: Pod, request: dict[str, Any]) -> str:
    """The word for which a backup fails, with the limits that a test has set here."""
    read = parse("backup", json.dumps({"store": dict(pod.store), **request}), pod.places)
    with pytest.raises(JobFailed) as failed:
        repository.backup(read)
    return failed.value.code


def seen(process_group: int) -> str:
    """The arguments and the environments of a group's processes."""
    text = b""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(folder.name)) == process_group:
                text += (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
        except (ProcessLookupError, FileNotFoundError):
            continue
    return text.decode(errors="replace")


def test_a_world_goes_to_s3_and_no_secret_is_seen(pod: Pod) -> None:
    (pod.world / "big").write_bytes(os.urandom(8_000_000))
    # A customer's password.
    pod.secrets.append("rcon-password-of-the-customer")
    settings = {**SETTINGS, "rcon": pod.secrets[-1]}
    process = pod.start("backup", {**backup(), "settings": settings})
    shown = ""
    while process.poll() is None:
        shown += seen(process.pid)
        time.sleep(0.05)
    answer = pod.answer(process)
    assert answer["files"] == 2
    assert "--password-file" in shown
    assert "AWS_SHARED_CREDENTIALS_FILE" in shown
    assert [secret for secret in pod.secrets if secret in shown or secret in pod.log()] == []
    assert pod.done("settings", {"uid": UID, "snapshot": answer["snapshot"]}) == {"settings": settings}
    assert pod.done("forget", {"uid": UID, "snapshots": []})["error"] is None


def test_a_world_goes_to_sftp(pod: Pod, template: Path, tmp_path: Path) -> None:
    shutil.copytree(template, tmp_path / "sftp" / "worlds")
    with sftp_store(tmp_path / "sftp") as running:
        pod.store = running.store()
        pod.credentials(running.files)
        pod.secrets.append(running.files["id_ed25519"])
        answer = pod.done("backup", backup())
        assert (answer["files"], answer["size_bytes"]) == (1, 7)
        known = running.files["known_hosts"]
        pod.credentials({"known_hosts": known.replace("[127.0.0.1]", "[127.0.0.2]")})
        # restic may end before it has passed on what ssh says.
        assert pod.run("backup", backup(2))["code"] in ("store-refused", "store-unreachable")
    assert pod.run("backup", backup(2))["code"] == "store-unreachable"


def test_an_s3_store_that_is_away_is_soon_given_up(pod: Pod, server: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restic, "_AWAY", 2.0)
    server.stop()
    began = time.monotonic()
    assert in_this_process(pod, backup()) == "store-unreachable"
    assert time.monotonic() - began < 20
    pod.store = {**pod.store, "endpoint": "http://no-such-host.invalid"}
    assert in_this_process(pod, backup()) == "store-unreachable"


def test_a_store_that_does_not_answer_is_given_up(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the connection, and then nothing comes."""
    monkeypatch.setattr(restic, "FIRST_CONTACT", 2.0)
    (port,) = free_ports(1)
    with socket.create_server(("127.0.0.1", port)):
        pod.store = {**pod.store, "endpoint": f"http://127.0.0.1:{port}"}
        assert in_this_process(pod, backup()) == "store-unreachable"


@pytest.mark.long
def test_a_store_that_comes_back_takes_the_rest(pod: Pod, server: S3) -> None:
    (pod.world / "big").write_bytes(os.urandom(60_000_000))
    data = server.objects / "a" / "prefix" / UID / "data"
    process = pod.start("backup", backup())
    until(lambda: any(file.is_file() for file in data.rglob("*")), 60)
    server.stop()
    threading.Event().wait(2)
    assert process.poll() is None
    server.start()
    assert pod.answer(process)["files"] == 2
    assert pod.done("forget", {"uid": UID, "snapshots": []})["error"] is None


def test_credentials_that_are_refused_are_said_to_be(pod: Pod, server: S3) -> None:
    pod.credentials({"credentials": server.credentials().replace(server.secret, "wrong")})
    assert pod.run("backup", backup())["code"] == "store-refused"


def on_small_disk(folder: Path, megabytes: int) -> tuple[str, ...]:
    """A command that runs another one with the content of `folder` on a disk of this size."""
    script = (
        'mount -t tmpfs -o size="$1"m small /mnt && cp -a "$2/." /mnt && mount --move /mnt "$2" && shift 2 && exec "$@"'
    )
    return ("unshare", "--mount", "--propagation=private", "sh", "-c", script, "sh", str(megabytes), str(folder))


def test_a_full_folder_store_is_said_to_be_full(tmp_path: Path, template: Path) -> None:
    pod = Pod(tmp_path / "pod")
    pod.copy_store(template)
    (pod.world / "big").write_bytes(os.urandom(40_000_000))
    for folder, megabytes, code in (
        (pod.places.repositories, 20, "store-full"),
        (pod.places.temporary, 4, "disk-full"),
    ):
        (pod.root / "log").unlink(missing_ok=True)
        answer = pod.run("backup", backup(), on_small_disk(folder, megabytes))
        # restic 0.14.0 sometimes panics on its way out, when one of its threads is told of the error before the others.
        panicked = "archiver.(*BlobSaver).Save(0x0" in pod.log()
        assert answer["code"] == ("restic-failed" if panicked else code)


def test_a_full_s3_store_is_said_to_be_full(tmp_path: Path, template: Path) -> None:
    folder = tmp_path / "s3"
    shutil.copytree(template, S3(folder).objects)
    with s3(folder, within=on_small_disk(folder, 20)) as server:
        pod = Pod(tmp_path / "pod", server.store())
        pod.credentials({"credentials": server.credentials()})
        (pod.world / "big").write_bytes(os.urandom(40_000_000))
        assert pod.run("backup", backup())["code"] == "store-full"
