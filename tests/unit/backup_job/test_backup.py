"""Worlds are brought to a store with the real restic: what is in a snapshot, and what the answer says of it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from backup_job import restic
from backup_job.request import Store
from tests.support.backup_jobs import AS_GAME, Pod
from tests.unit.backup_job.conftest import SETTINGS, UID, backup

pytestmark = pytest.mark.tools

#: Names as a hostile customer gives them.
HOSTILE = [
    b"two\nlines",
    b"\xff\xe2\x82 not UTF-8",
    b"-rf",
    b"--help",
    b"*",
    b"[a]?",
    b" ",
    b"back\\slash",
    b"\x1b[31mred",
]


def listed(pod: Pod, snapshot: str) -> dict[str, tuple[str, int]]:
    """The world in a snapshot: kind and size by path."""
    nodes: dict[str, tuple[str, int]] = {}

    def add(node: restic.Node) -> None:
        nodes[node.path] = (node.kind, node.size)

    restic.listing(restic.repository(Store("folder"), UID, pod.places), snapshot, add)
    return nodes


def test_a_world_and_its_settings_are_one_snapshot(pod: Pod) -> None:
    (pod.world / "region").mkdir()
    (pod.world / "region" / "r.0.0.mca").write_bytes(b"x" * 100)
    (pod.world / ".gameserver" / "before-op-1").mkdir(parents=True)
    (pod.world / ".gameserver" / "before-op-1" / "old").write_text("not the world")
    (pod.world / "region" / ".gameserver").write_text("a customer's own")
    answer = pod.done("backup", backup())
    snapshot = answer.pop("snapshot")
    assert 0 < answer.pop("added_bytes") < 10_000
    expected = {"files": 3, "size_bytes": 7 + 100 + 16, "unreadable": {"count": 0, "paths": []}, "empty": False}
    assert answer == expected
    assert listed(pod, snapshot) == {
        ".": ("dir", 0),
        "level.dat": ("file", 7),
        "region": ("dir", 0),
        "region/.gameserver": ("file", 16),
        "region/r.0.0.mca": ("file", 100),
    }
    assert pod.done("settings", {"uid": UID, "snapshot": snapshot}) == {"settings": SETTINGS}
    (made,) = json.loads(pod.restic("snapshots", "--json"))
    assert (made["id"], made["hostname"], made["tags"]) == (snapshot, UID, ["backup=b-1"])


def test_a_repeated_backup_is_the_one_that_was_made_first(pod: Pod) -> None:
    """A killed Job made it when the game held still; now the game may write."""
    first = pod.done("backup", backup())
    (pod.world / "level.dat").write_bytes(b"while the game runs")
    (pod.world / "late").write_bytes(b"y")
    again = pod.done("backup", backup())
    assert 0 < again.pop("added_bytes") < 10_000
    assert again == {key: value for key, value in first.items() if key != "added_bytes"}


def test_a_second_pass_reads_what_has_changed_alone(pod: Pod) -> None:
    (pod.world / "big").write_bytes(os.urandom(3_000_000))
    first = pod.done("backup", backup(first_pass=True))
    (pod.world / "late").write_bytes(b"news")
    answer = pod.done("backup", backup())
    assert answer["snapshot"] != first["snapshot"]
    assert (answer["files"], answer["size_bytes"]) == (3, 7 + 3_000_000 + 4)
    assert answer["added_bytes"] < 10_000 < 3_000_000 < first["added_bytes"]
    made = json.loads(pod.restic("snapshots", "--json"))
    assert [item["tags"] for item in made] == [["first-pass=b-1"], ["backup=b-1"]]
    assert made[1]["parent"] == first["snapshot"]


def test_a_copy_of_a_snapshot_of_the_disk_is_read_as_well(pod: Pod) -> None:
    (pod.places.source / "level.dat").write_bytes(b"held still")
    answer = pod.done("backup", backup(source="/source"))
    assert listed(pod, answer["snapshot"]) == {".": ("dir", 0), "level.dat": ("file", 10)}


def test_names_of_any_bytes_are_kept(pod: Pod) -> None:
    for name in HOSTILE:
        Path(os.fsdecode(os.fsencode(pod.world) + b"/" + name)).write_bytes(name)
    answer = pod.done("backup", backup())
    assert (answer["files"], answer["unreadable"]["count"]) == (1 + len(HOSTILE), 0)
    names = {restic.as_listed(os.fsdecode(name)): ("file", len(name)) for name in HOSTILE}
    assert listed(pod, answer["snapshot"]) == {".": ("dir", 0), "level.dat": ("file", 7), **names}
    pod.restic("restore", answer["snapshot"], "--target", str(pod.places.scratch))
    restored = {os.fsencode(file.name): file.read_bytes() for file in (pod.places.scratch / "world").iterdir()}
    assert restored == {**{name: name for name in HOSTILE}, b"level.dat": b"a world"}


def test_links_and_pipes_are_neither_followed_nor_waited_for(pod: Pod) -> None:
    (pod.world / "link").symlink_to("/etc/passwd")
    (pod.world / "loop").symlink_to(".")
    os.mkfifo(pod.world / "pipe")
    (pod.world / ".gameserver").symlink_to("/etc")
    os.link(pod.world / "level.dat", pod.world / "again")
    answer = pod.done("backup", backup())
    assert (answer["files"], answer["size_bytes"]) == (2, 14)
    assert listed(pod, answer["snapshot"]) == {
        ".": ("dir", 0),
        "again": ("file", 7),
        "level.dat": ("file", 7),
        "link": ("symlink", 0),
        "loop": ("symlink", 0),
        "pipe": ("fifo", 0),
    }


def test_what_cannot_be_read_is_named(pod: Pod) -> None:
    """The rest is a backup. What is unchanged need not be read again."""
    (pod.world / "closed").mkdir()
    (pod.world / "closed" / "inside").touch()
    (pod.world / "secret").write_text("x")
    (pod.world / "known").write_text("x")
    # root reads it, and nothing of it changes.
    (pod.world / "known").chmod(0)
    pod.done("backup", backup(1))
    (pod.world / "new\nsecret").write_text("y")
    for name in ("closed", "secret", "new\nsecret"):
        (pod.world / name).chmod(0)
    (pod.world / "secret").write_text("changed")
    answer = pod.done("backup", backup(2), AS_GAME)
    assert answer["unreadable"]["count"] == 3
    assert sorted(answer["unreadable"]["paths"]) == ["closed", "new\nsecret", "secret"]


def test_an_answer_stays_small_whatever_names_are(pod: Pod) -> None:
    for number in range(20):
        (pod.world / (f"{number:02}" + "\N{PILE OF POO}" * 60)).write_text("x")
        (pod.world / (f"{number:02}" + "\N{PILE OF POO}" * 60)).chmod(0)
    answer = pod.done("backup", backup(), AS_GAME)
    assert answer["unreadable"]["count"] == 20
    assert 1 <= len(answer["unreadable"]["paths"]) <= 10


def test_an_empty_world_says_so(pod: Pod) -> None:
    (pod.world / "level.dat").unlink()
    (pod.world / "region").mkdir()
    answer = pod.done("backup", backup())
    assert (answer["files"], answer["size_bytes"], answer["empty"]) == (0, 0, True)


def test_a_disk_that_is_not_there_is_no_empty_world(pod: Pod) -> None:
    (pod.world / "level.dat").unlink()
    pod.world.rmdir()
    assert pod.run("backup", backup())["code"] == "world-missing"


def test_an_unmade_repository_is_said_to_be_missing(pod: Pod) -> None:
    assert pod.run("backup", {**backup(), "uid": "another"})["code"] == "repository-missing"


def test_a_snapshot_that_is_not_there_is_said_to_be_missing(pod: Pod) -> None:
    assert pod.run("settings", {"uid": UID, "snapshot": "0" * 64})["code"] == "snapshot-missing"
