"""What has become of a Job, from the Job and its pod."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.backups.jobs import JobState, job_state
from service.kube.types import Object

ENDING = "2026-11-27T12:00:10Z"
REQUESTED = "2026-11-27T12:00:00Z"


def job(*conditions: str) -> Object:
    found = [{"type": name, "status": "True", "message": "Its pod has failed."} for name in conditions]
    return {"metadata": {"name": "job"}, "status": {"conditions": found}}


def pod(state: dict[str, Any], *, ends: bool = False) -> Object:
    metadata = {"deletionTimestamp": ENDING, "deletionGracePeriodSeconds": 10} if ends else {}
    return {"metadata": metadata, "status": {"containerStatuses": [{"name": "backup", "state": state}]}}


RUNNING: dict[str, Any] = {"running": {}}
DONE = {"terminated": {"message": '{"ok": true}'}}


@pytest.mark.parametrize(
    ("conditions", "pods", "expected"),
    [
        ((), [], JobState("running")),
        ((), [pod(RUNNING)], JobState("running", started=True)),
        # It is deleted, and Kubernetes has not decided yet what follows for its Job.
        ((), [pod(RUNNING, ends=True)], JobState("running", started=True)),
        (("FailureTarget",), [pod(RUNNING)], JobState("running", started=True)),
        (("FailureTarget",), [pod(RUNNING, ends=True)], JobState("running", started=True, lost_since=REQUESTED)),
        (
            ("FailureTarget", "Failed"),
            [pod(RUNNING, ends=True)],
            JobState("failed", {}, "no-answer", "Its pod has failed."),
        ),
        (("SuccessCriteriaMet", "Complete"), [pod(DONE, ends=True)], JobState("done", {"ok": True})),
    ],
)
def test_a_job_whose_pod_does_not_end_is_known(
    conditions: tuple[str, ...], pods: list[Object], expected: JobState
) -> None:
    assert job_state(job(*conditions), pods) == expected


def test_a_lost_job_says_for_how_long() -> None:
    now = datetime(2026, 11, 27, 12, 5, tzinfo=UTC)
    assert JobState("running", lost_since=REQUESTED).lost_for(now) == timedelta(minutes=5)
    assert JobState("running").lost_for(now) == timedelta()
