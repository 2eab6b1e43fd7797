"""What is due for a server's backups, and what follows from a Job."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from service.backups import tasks
from service.backups.jobs import JobState
from service.backups.records import Repository, ServerBackups
from service.backups.tasks import Task, due, outcome
from service.kube.times import stamp

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
SINCE = stamp(NOW - timedelta(minutes=4))
LONG_SINCE = stamp(NOW - timedelta(minutes=6))
LOST = "The node of its pod does not answer."


def failed(code: str) -> JobState:
    return JobState("failed", {}, code, "Why.")


@pytest.mark.parametrize(
    ("kind", "since", "state", "expected"),
    [
        ("forget", SINCE, JobState("missing"), ("running", "")),
        ("forget", LONG_SINCE, JobState("running", started=True), ("running", "")),
        ("forget", SINCE, JobState("running", waits="no node"), ("running", "")),
        ("forget", LONG_SINCE, JobState("running", waits="no node"), ("failed", "no node")),
        ("prove", LONG_SINCE, JobState("running", waits="no node"), ("no-room", "no node")),
        ("prove", LONG_SINCE, JobState("running"), ("no-room", "Its pod does not start.")),
        ("forget", LONG_SINCE, JobState("running", started=True, lost_since=SINCE), ("running", "")),
        ("forget", LONG_SINCE, JobState("running", started=True, lost_since=LONG_SINCE), ("failed", LOST)),
        ("prove", LONG_SINCE, JobState("running", started=True, lost_since=LONG_SINCE), ("no-room", LOST)),
        ("prove", SINCE, JobState("done", {"ok": True}), ("done", "")),
        ("prove", SINCE, failed("disk-full"), ("no-room", "Why.")),
        ("forget", SINCE, failed("disk-full"), ("failed", "Why.")),
        ("prove", SINCE, failed("restore-differs"), ("damaged", "Why.")),
        ("forget", SINCE, failed("repository-missing"), ("damaged", "Why.")),
        ("forget", SINCE, failed("no-answer"), ("failed", "Why.")),
        ("prove", SINCE, failed("wrong-key"), ("wrong-key", "Why.")),
        ("init", SINCE, failed("wrong-key"), ("damaged", "Why.")),
        ("erase", SINCE, failed("repository-missing"), ("done", "")),
        ("erase", SINCE, failed("locked"), ("failed", "Why.")),
        ("erase", SINCE, JobState("done", {"ok": True, "error": "Damaged."}), ("damaged", "Damaged.")),
        ("erase", SINCE, JobState("done", {"ok": True, "error": None}), ("done", "")),
    ],
)
def test_what_has_become_of_a_task(kind: str, since: str, state: JobState, expected: tuple[str, str]) -> None:
    assert outcome(Task(kind, "keep-1", since), state, NOW) == expected


def test_each_server_has_a_moment_of_its_own_in_each_period() -> None:
    day = timedelta(days=1)

    def moments(uid: str) -> list[datetime]:
        """The hours of three days in which it is due, if it is done at once."""
        last, found = NOW, []
        for hour in range(1, 73):
            now = NOW + timedelta(hours=hour)
            if due(stamp(last), day, uid, now):
                last = now
                found.append(now)
        return found

    for uid in ("a", "b", "c"):
        first, *others = moments(uid)
        assert others == [first + day, first + 2 * day]
    assert len({moments(uid)[0] for uid in "abcdefgh"}) > 4


def test_a_task_is_read_as_it_was_written() -> None:
    kept = ServerBackups("uid-1", 1, "acme")
    task = Task("prove", "keep-1", SINCE, backup="b-1", unlisted=("a",), operations=("op-1",))
    assert tasks.task_of(tasks.with_task(kept, task).repository) == task
    assert tasks.with_task(tasks.with_task(kept, task), None) == kept
    assert tasks.task_of(Repository(task={"kind": "forget", "of a later version": 1})) == Task("forget", "", "")


def test_the_answer_of_another_task_changes_nothing() -> None:
    """A controller that was frozen has the answer of a task that another has ended."""
    task, other = Task("forget", "keep-1", SINCE, unlisted=("a",)), Task("forget", "keep-2", SINCE)
    kept = tasks.with_task(ServerBackups("uid-1", 1, "acme", repository=Repository(made=SINCE, unlisted=("a",))), other)
    assert tasks.after(kept, task, {"stored_bytes": 1}, NOW) == kept
    assert tasks.damaged(kept, task, "Why.", NOW) == kept
    assert tasks.postponed(kept, replace(task, kind="prove"), "Why.", NOW) == kept
    assert tasks.with_init(kept, task, NOW) == kept
    assert tasks.dropped(kept, task) == kept
