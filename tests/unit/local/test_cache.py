"""The cache of what is built: keyed by what it is made from, and never half a thing."""

import json
import os
import time
from pathlib import Path

import pytest

from local import cache, nodes, paths, steps
from tests.support.waiting import until


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setattr(paths, "CACHE", tmp_path / "cache")
    return tmp_path / "cache"


def test_keys_tell_parts_apart() -> None:
    """The same letters, cut elsewhere, are another key."""
    assert cache.key_of("ab", "c") != cache.key_of("a", "bc")
    assert cache.key_of("ab", "c") == cache.key_of("ab", b"c")


def test_keys_of_files_follow_names_modes_and_contents(tmp_path: Path) -> None:
    """Whatever of a file matters to an image changes its key."""
    file = tmp_path / "start"
    file.write_text("one")
    first = cache.key_of_files(tmp_path, [file])
    file.chmod(0o755)
    executable = cache.key_of_files(tmp_path, [file])
    file.write_text("two")
    other = cache.key_of_files(tmp_path, [file])
    renamed = file.rename(tmp_path / "begin")
    assert len({first, executable, other, cache.key_of_files(tmp_path, [renamed])}) == 4


def test_what_is_built_once_is_not_built_again() -> None:
    """The second call finds the first one's folder."""
    built = []

    def build(folder: Path) -> None:
        built.append(folder)
        (folder / "thing").write_text("whole")

    first = cache.built("things", "key", build)
    assert cache.built("things", "key", build) == first
    assert (first / "thing").read_text() == "whole"
    assert len(built) == 1


def test_a_build_that_died_is_not_taken_for_a_finished_one(own_cache: Path) -> None:
    """What a dead build left is thrown away by the next one."""

    def dies(folder: Path) -> None:
        (folder / "thing").write_text("half")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        cache.built("things", "key", dies)
    assert not (own_cache / "things" / "key").exists()
    folder = cache.built("things", "key", lambda folder: (folder / "other").touch())
    assert [path.name for path in (own_cache / "things").iterdir()] == ["key"]
    assert [path.name for path in folder.iterdir()] == ["other"]


def _used_days_ago(kind: str, days: dict[str, float]) -> None:
    """Entries of a kind, each last used so many days ago."""
    for key, ago in days.items():
        folder = paths.CACHE / kind / key
        folder.mkdir(parents=True)
        os.utime(folder, (0, time.time() - ago * 86400))


def _left_by_a_build(kind: str) -> list[str]:
    """The entries of a kind after another thing was built."""
    cache.built(kind, "other-1", lambda _folder: None)
    return sorted(path.name for path in (paths.CACHE / kind).iterdir())


@pytest.mark.parametrize("kind", ["images", "binaries"])
def test_what_nobody_used_for_long_is_removed_by_the_next_build(kind: str) -> None:
    """The two of a name that were used last stay, however old; taking one from the cache is a use."""
    _used_days_ago(kind, {"thing-1": 21, "thing-2": 22, "thing-3": 23})
    cache.built(kind, "thing-3", lambda _folder: pytest.fail("it is there"))
    assert _left_by_a_build(kind) == ["other-1", "thing-1", "thing-3"]


def test_what_a_checkout_may_still_link_to_stays_for_two_weeks() -> None:
    """Of images, which are used only while a command runs, two of a name stay; of all else, whatever is younger."""
    for kind in ("images", "binaries"):
        _used_days_ago(kind, {"thing-1": 9, "thing-2": 8, "thing-3": 7})
    assert _left_by_a_build("images") == ["other-1", "thing-2", "thing-3"]
    assert _left_by_a_build("binaries") == ["other-1", "thing-1", "thing-2", "thing-3"]


def test_a_pid_is_told_from_the_next_process_with_the_same_number() -> None:
    """A process is known by when it started; one that ended, reaped or not, is no process."""
    child = os.fork()
    if child == 0:
        os._exit(0)
    until(lambda: nodes.started_at(child) is None)
    assert nodes.started_at(child) is None
    os.waitpid(child, 0)
    assert nodes.started_at(child) is None
    assert nodes.started_at(os.getpid()) is not None


def test_a_live_cluster_of_another_checkout_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused with the checkout's path while its process 1 lives, and ignored once that is dead."""
    record = tmp_path / "owner.json"
    monkeypatch.setattr(paths, "OWNER", record)
    own = {"pid": os.getpid(), "started": nodes.started_at(os.getpid())}
    record.write_text(json.dumps({"checkout": "/elsewhere", "nodes": {"1": own}}))
    with pytest.raises(steps.StepFailed, match="make -C /elsewhere stop"):
        nodes.refuse_another_checkouts()
    record.write_text(json.dumps({"checkout": "/elsewhere", "nodes": {"1": {**own, "started": "1"}}}))
    nodes.refuse_another_checkouts()
