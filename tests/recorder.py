"""A pytest plugin that records which tests failed: `pytest -p tests.recorder --record FILE`.

The file is `{"passed": number of tests, "failed": {test: the reason in one line}}`. A test fails if its setup or
teardown fails. A session that breaks down (killed, a test file with an error, a lost worker) writes no file.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option for the file."""
    parser.addoption("--record", type=Path, required=True, metavar="FILE", help="record what passed and failed")


def pytest_configure(config: pytest.Config) -> None:
    """Register one recorder per session. xdist's workers report everything to the process that started them."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Recorder(config.getoption("record")))


class _Recorder:
    def __init__(self, file: Path) -> None:
        self._file = file
        self._passed: set[str] = set()
        self._failed: dict[str, str] = {}
        self._broken = False

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Called for each test file."""
        self._broken |= report.failed

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Called for each test's setup, call and teardown. For a crashed worker, xdist calls it with another phase."""
        self._broken |= report.when not in ("setup", "call", "teardown")
        if report.failed:
            self._failed.setdefault(report.nodeid, _why(report))
        elif report.when == "call" and report.passed:
            self._passed.add(report.nodeid)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """Called once, at the end."""
        if not self._broken:
            passed = len(self._passed - self._failed.keys())
            self._file.write_text(json.dumps({"passed": passed, "failed": self._failed}))


def _why(report: pytest.TestReport) -> str:
    """The last line of a failure, which has the place, and the message of the exception."""
    *_, last = report.longreprtext.splitlines() or ["no reason was given"]
    crash = getattr(report.longrepr, "reprcrash", None)
    return f"{last}: {crash.message.splitlines()[0]}" if crash and crash.message else last
