"""What `make test` runs. The tests on the cluster mostly wait, so other tests run beside them:

- first, on the cluster, the tests that need it for themselves; beside them begin those that need no cluster;
- then the others on the cluster; beside them those of disks and of file access, which disturb no other server, those
  of the controller, which mostly wait for Leases to run out, and the others that use only a namespace of their own.

With RETRY=1 in the environment, as .ci/run has it, what failed is run once more when all else is done, each test
alone in a pytest of its own. What passes only then is flaky: it is named, and a few of those fail nothing.
A pytest that broke down (nothing to run, a file that cannot be read, a crash) fails the run in any case.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

CLUSTER = "tests/cluster"
CONTROLLER = f"{CLUSTER}/controller"
_DISKS = (f"{CLUSTER}/disks", f"{CLUSTER}/files")
_SLOWEST = ("--durations=20", "--durations-min=5")
# Each names the folders of its tests: to collect all of them takes seconds of CPU time.
WITHOUT_CLUSTER = ("-m", "not long and not cluster", f"--ignore={CLUSTER}", "-n", "2", *_SLOWEST)
ALONE = (CLUSTER, "-m", "not long and alone", *_SLOWEST)
DISKS = (*_DISKS, "-m", "not long and not alone", *_SLOWEST)
CONTROLLERS = (CONTROLLER, "-m", "not long", *_SLOWEST)
OWN_NAMESPACE = (
    *("tests/charts", CLUSTER, "tests/contract", f"--ignore={CONTROLLER}"),
    *("-m", "not long and own_namespace", *_SLOWEST),
)
SHARED = (
    *(CLUSTER, "-m", "not long and not alone and not own_namespace"),
    *(f"--ignore={folder}" for folder in (*_DISKS, CONTROLLER)),
    *_SLOWEST,
)
#: How many tests may fail once and pass alone.
FLAKY = 3
#: When more than this many fail it is not bad luck, and to try each of them again would take long.
TRIED_AGAIN = 10


@dataclass(frozen=True)
class Session:
    """How a pytest ended: whether it ran tests to the end, and which of them failed, and why."""

    in_order: bool
    failed: Mapping[str, str]

    @property
    def good(self) -> bool:
        """Whether all tests passed."""
        return self.in_order and not self.failed


def pytest(*arguments: str, aside: BinaryIO | None = None, niceness: int = 0) -> Session:
    """Run pytest, with its output on ours or `aside`."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "record.json"
        command = [sys.executable, "-m", "pytest", "-p", "tests.recorder", f"--record={file}", *arguments]
        code = _ended(subprocess.Popen(["nice", "-n", str(niceness), *command], stdout=aside, stderr=aside))
        record: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"passed": 0, "failed": {}}
    passed, failed = record["passed"], record["failed"]
    # pytest's own codes: 0 all passed, 1 some failed. A skipped test has not passed.
    return Session(bool(passed or failed) and code == (1 if failed else 0), failed)


def again(failed: Mapping[str, str]) -> bool:
    """Run each failed test once more, alone; whether all passed, and so few had failed that it was bad luck."""
    if len(failed) > TRIED_AGAIN:
        _say(f"{len(failed)} tests failed: too many to be tried again")
        return False
    flaky = {}
    for test, why in failed.items():
        _say(f"once more, alone: {test}")
        if pytest(test).good:
            flaky[test] = why
    if flaky:
        _say("flaky:", *(f"  {test}: {why}" for test, why in flaky.items()))
    if len(flaky) > FLAKY:
        _say(f"{len(flaky)} flaky tests: at most {FLAKY} are allowed")
    if twice := failed.keys() - flaky.keys():
        _say("failed twice:", *(f"  {test}" for test in sorted(twice)))
    return len(flaky) <= FLAKY and not twice


def main() -> int:
    """Run all parts; 0 when all is well."""
    with ExitStack() as stack:
        outputs = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(4)]
        beside = stack.enter_context(ThreadPoolExecutor(len(outputs)))
        without = beside.submit(pytest, *WITHOUT_CLUSTER, aside=outputs[0], niceness=10)
        alone = pytest(*ALONE)
        disks = beside.submit(pytest, *DISKS, aside=outputs[1])
        controllers = beside.submit(pytest, *CONTROLLERS, aside=outputs[2])
        own_namespace = beside.submit(pytest, *OWN_NAMESPACE, aside=outputs[3])
        shared = pytest(*SHARED)
        sessions = [without.result(), alone, shared, *(lane.result() for lane in (disks, controllers, own_namespace))]
        for output in outputs:
            output.seek(0)
            _say(output.read().decode(errors="replace"))
    failed = {test: why for session in sessions for test, why in session.failed.items()}
    if not all(session.in_order for session in sessions):
        return 1
    return 0 if not failed or (os.environ.get("RETRY") == "1" and again(failed)) else 1


def _ended(process: subprocess.Popen[bytes]) -> int:
    """The exit code; whoever interrupts the tests waits until they have cleaned up."""
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.wait()
        raise


def _say(*lines: str) -> None:
    print(*lines, sep="\n", flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
