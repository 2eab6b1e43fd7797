"""The reporter writes when there is news, and no disk keeps it from telling about the others."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from disk_agent import reporter as module
from disk_agent.kube import ApiError
from disk_agent.objects import Volume
from disk_agent.reporter import Reporter
from disk_agent.usage import Use
from tests.unit.agent.test_plan import SETTINGS

GB = 1 << 30
HALF = Use(5 * GB, 10 * GB, full=False)
FULL = Use(10 * GB, 10 * GB, full=True)
ONE, TWO = (Volume(name, "one", f"/volumes/{name}", "gameservers/server-7", is_mount=True) for name in ("pv-1", "pv-2"))


class Cluster:
    """The Node and the record, as the API server keeps them; `broken` is the error that every request gets."""

    def __init__(self) -> None:
        self.broken: Exception | None = None
        self.requests: list[tuple[str, str, str]] = []
        self.bodies: list[dict[str, Any]] = []
        self.node_uid, self.record_uid = "n1", "r1"

    def request(self, method: str, path: str, body: Any = None, content_type: str = "application/json") -> Any:
        self.requests.append((method, path, content_type))
        if self.broken:
            raise self.broken
        if method == "GET":
            return {"metadata": {"uid": self.node_uid}}
        self.bodies.append(body)
        return {"metadata": {"uid": self.record_uid}}

    @property
    def disks(self) -> list[Any]:
        """What was written, one entry for each write."""
        return [json.loads(body["data"]["disks.json"])["disks"] for body in self.bodies]

    @property
    def owners(self) -> list[str]:
        return [body["metadata"]["ownerReferences"][0]["uid"] for body in self.bodies]


class Node:
    """The node's disks: what each answers when it is measured. An Event makes it hang until the event is set."""

    def __init__(self) -> None:
        self.volumes = [ONE]
        self.answers: dict[str, Use | OSError | threading.Event | None] = {"pv-1": HALF, "pv-2": HALF}
        self.measured: list[str] = []

    def measure(self, volume: Volume) -> Use | None:
        self.measured.append(volume.name)
        answer = self.answers[volume.name]
        if isinstance(answer, threading.Event):
            answer.wait(10)
            return HALF
        if isinstance(answer, OSError):
            raise answer
        return answer


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def node() -> Iterator[Node]:
    node = Node()
    yield node
    for answer in node.answers.values():
        if isinstance(answer, threading.Event):
            answer.set()


@pytest.fixture
def reporter(cluster: Cluster, node: Node) -> Reporter:
    return Reporter(cluster, SETTINGS, lambda: node.volumes, node.measure)  # type: ignore[arg-type]


WRITTEN = {"used": 5 * GB, "size": 10 * GB, "full": False}


def test_the_record_is_applied_whatever_was_there_before(cluster: Cluster, reporter: Reporter) -> None:
    began = datetime.now(UTC).replace(microsecond=0)
    reporter.step(0)
    assert cluster.requests == [
        ("GET", "/api/v1/nodes/one", "application/json"),
        (
            "PATCH",
            "/api/v1/namespaces/gameservers/configmaps/disk-usage-one?fieldManager=sftp-agent.gameserver&force=true",
            "application/apply-patch+yaml",
        ),
    ]
    assert (cluster.disks, cluster.owners) == ([{"pv-1": WRITTEN}], ["n1"])
    as_of = datetime.fromisoformat(json.loads(cluster.bodies[0]["data"]["disks.json"])["as_of"])
    assert began <= as_of <= datetime.now(UTC)


def test_it_is_written_again_when_there_is_news_or_after_a_minute(
    cluster: Cluster, node: Node, reporter: Reporter
) -> None:
    reporter.step(0)
    reporter.step(10)
    reporter.step(59)
    assert len(cluster.bodies) == 1
    reporter.step(60)
    assert len(cluster.bodies) == 2
    node.answers["pv-1"] = FULL
    reporter.step(70)
    node.volumes = [ONE, TWO]
    reporter.step(80)
    node.volumes = [TWO]
    reporter.step(90)
    full = {"used": 10 * GB, "size": 10 * GB, "full": True}
    assert cluster.disks[2:] == [{"pv-1": full}, {"pv-1": full, "pv-2": WRITTEN}, {"pv-2": WRITTEN}]


def test_small_steps_add_up(cluster: Cluster, node: Node, reporter: Reporter) -> None:
    """What counts is the distance to what was written, not to what was seen last."""
    for number in range(6):
        node.answers["pv-1"] = Use(HALF.used + number * GB // 40, HALF.size, full=False)
        reporter.step(number)
    assert [disks["pv-1"]["used"] - HALF.used for disks in cluster.disks] == [0, 5 * GB // 40]


def test_a_node_without_disks_clears_an_earlier_record_and_is_quiet(
    cluster: Cluster, node: Node, reporter: Reporter
) -> None:
    node.volumes = []
    reporter.step(0)
    reporter.step(100)
    assert cluster.disks == [{}]


def test_a_disk_without_a_limit_says_so_and_one_that_is_not_mounted_says_nothing(
    cluster: Cluster, node: Node, reporter: Reporter
) -> None:
    node.volumes = [ONE, TWO]
    node.answers = {"pv-1": None, "pv-2": OSError("not mounted")}
    reporter.step(0)
    assert cluster.disks == [{"pv-1": {"enforced": False}}]
    node.answers = {"pv-1": OSError("not mounted"), "pv-2": HALF}
    reporter.step(10)
    assert cluster.disks[1:] == [{"pv-2": WRITTEN}]


def test_a_disk_that_hangs_hangs_alone(
    cluster: Cluster,
    node: Node,
    reporter: Reporter,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its last values stay for a minute. It costs one thread and one log line, however long it hangs."""
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.1)
    node.volumes = [ONE, TWO]
    reporter.step(0)
    released = threading.Event()
    node.answers["pv-1"] = released
    node.answers["pv-2"] = FULL
    with caplog.at_level(logging.WARNING):
        for now in (10, 20, 30):
            reporter.step(now)
    assert node.measured.count("pv-1") == 2
    # The threads of other tests in this process may still log.
    assert [message for name, _, message in caplog.record_tuples if name == module.log.name] == ["disk does not answer"]
    full = {"used": 10 * GB, "size": 10 * GB, "full": True}
    assert cluster.disks[-1] == {"pv-1": WRITTEN, "pv-2": full}

    monkeypatch.setattr(module, "REMEMBERED_SECONDS", 0.0)
    node.volumes = [ONE]
    reporter.step(40)
    assert cluster.disks[-1] == {}

    released.set()
    monkeypatch.setattr(module, "REMEMBERED_SECONDS", 60.0)
    monkeypatch.setattr(module, "ANSWER_SECONDS", 5.0)
    reporter.look()
    reporter.step(50)
    assert cluster.disks[-1] == {"pv-1": WRITTEN}


@pytest.mark.parametrize("error", [OSError("refused"), ApiError(503, "later"), ApiError(403, "no right")])
def test_what_could_not_be_written_is_written_later_and_logged_once(
    cluster: Cluster, reporter: Reporter, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    cluster.broken = error
    reporter.step(0)
    reporter.step(10)
    cluster.broken = None
    reporter.step(20)
    assert cluster.disks == [{"pv-1": WRITTEN}]
    assert [record.getMessage() for record in caplog.records] == ["usage not written"]


def test_a_record_that_went_with_an_earlier_node_of_this_name_gets_the_new_one(
    cluster: Cluster, reporter: Reporter
) -> None:
    reporter.step(0)
    cluster.node_uid, cluster.record_uid = "n2", "r2"
    reporter.step(60)
    reporter.step(120)
    reporter.step(180)
    assert cluster.owners == ["n1", "n1", "n2", "n2"]
    assert [method for method, _, _ in cluster.requests].count("GET") == 2


def test_disks_that_do_not_fit_are_counted_once_in_the_log(
    cluster: Cluster, node: Node, reporter: Reporter, caplog: pytest.LogCaptureFixture
) -> None:
    node.volumes = [Volume(f"pvc-{number:036}", "one", "/volumes/x", "gameservers/server-7") for number in range(900)]
    node.answers = {volume.name: HALF for volume in node.volumes}
    reporter.step(0)
    reporter.step(60)
    left_out = 900 - len(cluster.disks[0])
    assert left_out > 0
    # Threads of earlier tests may log too.
    fields = [record.__dict__.get("fields") or {} for record in caplog.records]
    assert [each for each in fields if "disks" in each] == [{"disks": left_out}]
