"""A Job's request is refused unless it is exactly what its command knows."""

from __future__ import annotations

import json
from typing import Any

import pytest

from backup_job.errors import JobFailed
from backup_job.places import Places
from backup_job.request import Store, parse

SNAPSHOT = "0123456789abcdef" * 4
S3 = {"kind": "s3", "endpoint": "https://s3.example.com", "bucket": "worlds", "prefix": "a/b", "region": "eu-1"}
SFTP = {"kind": "sftp", "host": "store.example.com", "port": 2022, "user": "backup", "path": "/srv/worlds"}
BACKUP = {"store": S3, "uid": "u-1", "backup": "b-1", "settings": {"a": 1}, "source": "/world"}


def test_a_request_is_read() -> None:
    request = parse("backup", json.dumps(BACKUP), Places())
    assert request.store == Store("s3", "https://s3.example.com", "worlds", "a/b", "eu-1")
    assert (request.uid, request.backup, request.settings, request.first_pass) == ("u-1", "b-1", {"a": 1}, False)
    assert str(request.tree()) == "/world"


def test_what_a_store_may_leave_out_has_a_default() -> None:
    store = {"kind": "sftp", "host": "h", "user": "u", "path": "worlds"}
    request = parse("catalogue", json.dumps({"store": store}), Places())
    assert request.store == Store("sftp", host="h", port=22, user="u", path="worlds")


@pytest.mark.parametrize(
    ("command", "values"),
    [
        ("place", {"operation": "op-1", "from": "beside", "paths": ["world/level.dat", "-n", "*", "a\nb"]}),
        ("undo", {"operation": "op-2", "before": "op-1"}),
        ("clean", {"operations": ["op-1", "op-2"]}),
        ("prove", {"store": {"kind": "folder"}, "uid": "u-1", "snapshot": SNAPSHOT}),
        ("inspect", {"source": "/source"}),
        ("lay-out", {"operation": "op-1", "to": "scratch", "store": SFTP, "uid": "u", "snapshot": SNAPSHOT}),
        ("forget", {"store": S3, "uid": "u-1", "snapshots": [], "backups": ["b-1"], "erase": True}),
    ],
)
def test_each_command_has_its_own(command: str, values: dict[str, Any]) -> None:
    assert parse(command, json.dumps(values), Places()).command == command


@pytest.mark.parametrize(
    ("command", "changed"),
    [
        ("destroy", {}),
        ("backup", {"uid": None}),
        ("backup", {"paths": []}),
        ("backup", {"uid": "../other"}),
        ("backup", {"uid": "-r"}),
        ("backup", {"uid": "catalogue"}),
        ("backup", {"uid": "u\n"}),
        ("backup", {"backup": "b,tag"}),
        ("backup", {"settings": []}),
        ("backup", {"source": "/etc"}),
        ("backup", {"first_pass": "yes"}),
        ("backup", {"store": {**S3, "kind": "ftp"}}),
        ("backup", {"store": {**S3, "user": "u"}}),
        ("backup", {"store": {**S3, "bucket": "a/b"}}),
        ("backup", {"store": {**S3, "endpoint": "file:///etc"}}),
        ("backup", {"store": {**S3, "endpoint": "https://user:word@host"}}),
        ("backup", {"store": {**S3, "prefix": "../other"}}),
        ("backup", {"store": {"kind": "s3"}}),
        ("backup", {"store": {**SFTP, "host": "-oProxyCommand=x"}}),
        ("backup", {"store": {**SFTP, "user": "a -o b"}}),
        ("backup", {"store": {**SFTP, "path": "a b"}}),
        ("backup", {"store": {**SFTP, "port": True}}),
        ("prove", {"snapshot": "latest"}),
        ("place", {"paths": ["../x"]}),
        ("place", {"paths": ["/x"]}),
        ("place", {"paths": ["a//b"]}),
        ("place", {"paths": [".gameserver/before-op-1"]}),
        ("place", {"paths": ["x"] * 101}),
        ("place", {"from": "elsewhere"}),
        ("inspect", {"uid": "u-1"}),
    ],
)
def test_anything_else_is_refused(command: str, changed: dict[str, Any]) -> None:
    """A word that restic or ssh would take for an option is refused too."""
    whole: dict[str, dict[str, Any]] = {
        "backup": BACKUP,
        "prove": {"store": S3, "uid": "u-1", "snapshot": SNAPSHOT},
        "place": {"operation": "op-1", "from": "beside"},
    }
    values = {**whole.get(command, {}), **changed}
    text = json.dumps({key: value for key, value in values.items() if value is not None})
    with pytest.raises(JobFailed) as failed:
        parse(command, text, Places())
    assert failed.value.code == "bad-request"


@pytest.mark.parametrize("text", ["", "[]", "{", '"x"'])
def test_what_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(JobFailed):
        parse("clean", text, Places())
