"""Log lines and the server and the request that they name, in any thread."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from typing import Any

import pytest
from structlog.contextvars import bound_contextvars

from service.cluster.stoprecorder import StopRecorder
from service.errors import ClusterUnavailable
from service.helm import releases
from service.helm.pool import HelmPool
from service.helm.releases import HelmReleases
from service.kube import leases
from service.kube.leases import Lease, Leases
from service.servers.values import Values
from service.settings import Settings
from service.telemetry import logs
from tests.support.memory_kube import MemoryKube
from tests.support.waiting import until
from tests.unit.service.helm.test_pool import lease as good_lease
from tests.unit.service.helm.test_releases import FakeHelmClient, Kube

Lines = Callable[[], list[dict[str, Any]]]
log = logging.getLogger("some.module")
WATCH = "service.kube.watch"


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Lines:
    """The log lines, without those of watches that other tests leave running."""
    monkeypatch.setattr(caplog.handler, "formatter", logs.JsonFormatter())
    caplog.set_level(logging.INFO)
    return lambda: [line for line in map(json.loads, caplog.text.splitlines()) if line["logger"] != WATCH]


def bound(line: dict[str, Any]) -> tuple[str, int | None, str | None]:
    """The logger, the server and the request id of a line."""
    return line["logger"], line.get("server"), line.get("request_id")


def test_bound_values_are_on_every_line_until_they_are_unbound(lines: Lines) -> None:
    """This includes libraries' lines; the fields of a line win."""
    with bound_contextvars(server=4711, request_id="r-1"):
        log.info("one")
        logging.getLogger("gunicorn.error").warning("two")
        log.info("three", extra={"fields": {"server": None}})
    log.info("four")
    assert [bound(line) for line in lines()] == [
        ("some.module", 4711, "r-1"),
        ("gunicorn.error", 4711, "r-1"),
        ("some.module", None, "r-1"),
        ("some.module", None, None),
    ]
    assert list(lines()[0]) == ["time", "level", "logger", "message", "request_id", "server"]


def test_an_error_has_its_stack_trace(lines: Lines) -> None:
    """The stack trace is part of the one line."""
    try:
        raise ValueError("of\nthe test")
    except ValueError:
        log.exception("it failed")
    (line,) = lines()
    assert line["level"] == "error"
    assert line["error"].startswith("Traceback (most recent call last):\n")
    assert line["error"].endswith("ValueError: of\nthe test")


def test_the_console_format_is_text() -> None:
    """It has the same content."""
    record = log.makeRecord("some.module", logging.WARNING, __file__, 1, "it %s", ("failed",), None)
    with bound_contextvars(server=4711):
        text = logs.FORMATS["console"]().format(record)
    assert "it failed" in text
    assert "4711" in text
    assert not text.startswith("{")


def test_the_console_format_shows_errors() -> None:
    """It shows the stack trace in several lines."""
    try:
        raise ValueError("of the test")
    except ValueError:
        record = log.makeRecord("some.module", logging.ERROR, __file__, 1, "it failed", (), sys.exc_info())
    text = logs.FORMATS["console"]().format(record)
    assert "ValueError" in text
    assert "of the test" in text


def test_a_log_line_of_a_leases_renewal_names_the_server(monkeypatch: pytest.MonkeyPatch, lines: Lines) -> None:
    """Another thread renews the Lease."""
    for name, value in {"DURATION": 1.5, "RENEW_EVERY": 0.1, "MARGIN": 1.3}.items():
        monkeypatch.setattr(leases, name, value)
    kube = MemoryKube()
    with bound_contextvars(server=1, request_id="r-1"), Leases(kube, "games", "pod-1").hold("server-1"):
        kube.away()
        until(lambda: lines() != [], 10, "no line")
    assert bound(lines()[0]) == ("service.kube.leases", 1, "r-1")


def test_a_log_line_of_helm_names_the_server(lines: Lines) -> None:
    """helm runs in a thread that all operations share."""

    async def work() -> None:
        log.info("working")

    with bound_contextvars(server=1, request_id="r-1"):
        HelmPool(1).run(good_lease(), work)
    assert [bound(line) for line in lines()] == [("some.module", 1, "r-1")]


def test_every_log_line_of_an_operation_names_the_server(monkeypatch: pytest.MonkeyPatch, lines: Lines) -> None:
    """This includes the recovery after the operation."""

    class Breaking(FakeHelmClient):
        def upgrade(self, kind: str, release: str, values: Values, lease: object, **more: bool) -> None:
            assert isinstance(lease, Lease)
            lease.abandon()
            log.info("failing")
            raise ClusterUnavailable

    helm = Breaking(Kube())
    helm.store("deployed", {"replicas": 1})
    monkeypatch.setattr(releases, "HelmClient", lambda settings, kube, done, daemon_runs: helm)
    monkeypatch.setattr(releases, "CONVERGE_PAUSE", 0.01)
    monkeypatch.setattr(releases, "CONVERGE_TRIES", 1)
    with bound_contextvars(request_id="r-1"), pytest.raises(ClusterUnavailable):
        HelmReleases(Settings(), helm._kube).change(1, lambda values: {**values, "ramGb": 2})
    until(lambda: any("has not converged yet" in line["message"] for line in lines()), 10, "no line")
    assert {bound(line)[1:] for line in lines()} == {(1, "r-1")}


def test_a_log_line_of_a_recorded_stop_names_the_server(lines: Lines) -> None:
    """No request causes it."""

    def fail(id: int) -> None:
        raise ClusterUnavailable

    recorder = StopRecorder(MemoryKube(), "games", fail)
    recorder.start()
    recorder.pod_changed(7, None, {"metadata": {"uid": "u-1"}}, deleted=True)
    until(lambda: lines() != [], 10, "no line")
    assert [bound(line) for line in lines()] == [("service.cluster.stoprecorder", 7, None)]
