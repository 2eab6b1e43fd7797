"""Steps, and jobs that run side by side."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from local import paths, steps
from local.steps import Jobs, StepFailed
from tests.support.processes import alive, state_of


@pytest.fixture(autouse=True)
def own_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs of the test's own, and no command that an earlier test ended."""
    monkeypatch.setattr(paths, "LOGS", tmp_path)
    monkeypatch.setattr(steps, "_commands", steps._Commands())


def test_a_step_says_how_it_ended(capsys: pytest.CaptureFixture[str]) -> None:
    """With a tick, or with a cross when its block fails."""
    with steps.step("one"):
        pass
    with pytest.raises(StepFailed), steps.step("two"):
        raise StepFailed("no")
    assert [line.split(" (")[0] for line in capsys.readouterr().out.splitlines()] == ["✓ one", "✗ two"]


def test_jobs_run_side_by_side() -> None:
    """Each of two jobs waits for the other to have begun."""
    jobs, both = Jobs(), threading.Barrier(2)
    for _ in range(2):
        jobs.start(lambda: both.wait(timeout=10))
    jobs.finish()


def test_a_job_comes_after_the_one_that_it_needs() -> None:
    """Although it was started at the same time."""
    jobs, order = Jobs(), list[str]()

    def first() -> None:
        time.sleep(0.1)
        order.append("first")

    jobs.after(jobs.start(first), lambda: order.append("second"))
    jobs.finish()
    assert order == ["first", "second"]


def test_the_first_failure_ends_the_commands_of_the_other_jobs() -> None:
    """Nobody waits for a compiler whose work is of no use any more, and what comes after is not begun."""
    jobs, began = Jobs(), time.monotonic()
    command = jobs.start(lambda: steps.run("sleep", ["sleep", "60"]))
    later: list[str] = []
    jobs.after(command, lambda: later.append("begun"))
    jobs.start(lambda: steps.run("false", ["sh", "-c", "sleep 0.2; echo broken; exit 3"]))
    with pytest.raises(StepFailed, match=r"(?s)false failed with exit code 3.*broken"):
        jobs.finish()
    assert time.monotonic() - began < 30
    assert later == []


def test_the_failure_of_a_jobs_own_jobs_is_the_one_that_is_shown() -> None:
    """They end the commands of all jobs before their own job fails."""
    jobs, inner = Jobs(), Jobs()
    jobs.start(lambda: steps.run("sleep", ["sleep", "60"]))

    def fail() -> None:
        inner.start(lambda: steps.run("false", ["sh", "-c", "sleep 0.2; echo broken; exit 3"]))
        inner.start(lambda: time.sleep(1))
        inner.finish()

    jobs.start(fail)
    with pytest.raises(StepFailed, match=r"(?s)false failed with exit code 3.*broken"):
        jobs.finish()


def test_no_process_of_an_ended_command_stays(tmp_path: Path) -> None:
    """A shell does not pass on the signal that ends it."""
    jobs, pid = Jobs(), tmp_path / "pid"
    jobs.start(lambda: steps.output(["sh", "-c", f"sleep 60 & echo $! >{pid}; wait"]))

    def fail() -> None:
        while not pid.exists() or not pid.read_text():
            time.sleep(0.01)
        raise StepFailed("no")

    jobs.start(fail)
    with pytest.raises(StepFailed, match="no"):
        jobs.finish()
    deadline = time.monotonic() + 10
    while alive(number := int(pid.read_text())):
        assert time.monotonic() < deadline, state_of(number)
        time.sleep(0.01)
