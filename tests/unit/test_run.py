"""How .ci/run treats tests that fail. Each test runs it in a small checkout with tests of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from local.paths import ROOT

# Each starts several pytests.
pytestmark = pytest.mark.slow

#: A test that fails once and then passes. A file next to it records that it has failed.
ONCE = """
def test_unlucky_{0}(request):
    record = request.path.with_suffix(".failed-{0}")
    if not record.exists():
        record.touch()
        raise RuntimeError("bad luck {0}")
"""
GOOD = "def test_good():\n    pass\n"
NEEDS_THE_CLUSTER = "import pytest\n\n@pytest.mark.cluster\n"


class Checkout:
    """A checkout whose linters pass, and in which `python -m local` only prints its arguments."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for file in (".ci/run", "Makefile", "setup.cfg", "tests/__init__.py", "tests/run.py", "tests/recorder.py"):
            (folder / file).parent.mkdir(exist_ok=True)
            shutil.copy2(ROOT / file, folder / file)
        self.write("local/__main__.py", "import sys\nprint('local', *sys.argv[1:])\n")
        self.write("tests/charts/lint.py", "")
        self.write("local/lint.py", "")
        for file in ("test_cluster.py", "disks/test_disks.py", "controller/test_controller.py"):
            self.write(f"tests/cluster/{file}", f"{NEEDS_THE_CLUSTER}{GOOD}")
        self.write("tests/cluster/test_alone.py", f"{NEEDS_THE_CLUSTER}@pytest.mark.alone\n{GOOD}")
        self.write("tests/contract/test_own_namespace.py", f"{NEEDS_THE_CLUSTER}@pytest.mark.own_namespace\n{GOOD}")
        (folder / "tests/cluster/files").mkdir()
        tools = folder / ".local/venv/bin"
        for tool in ("ruff", "mypy", "lint-imports", "yamllint", "codespell"):
            self.write(f".local/venv/bin/{tool}", "#!/bin/sh\n")
            (tools / tool).chmod(0o755)
        self.write(".local/venv/bin/python", f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        (tools / "python").chmod(0o755)

    def write(self, file: str, text: str) -> None:
        (self.folder / file).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / file).write_text(text)

    def run(self, *command: str) -> tuple[bool, str]:
        """Whether the command succeeded, and its output."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "MAKE", "RETRY"))}
        # Most of a pytest's start is plugins that no test here needs.
        clean |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "xdist.plugin"}
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=clean,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.returncode == 0, done.stdout

    def ci(self) -> tuple[bool, str]:
        """Whether .ci/run passed, and its output. It always cleans up."""
        passed, output = self.run(".ci/run")
        assert output.count("local clean\n") == 1
        return passed, output


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_a_run_without_failures_passes(checkout: Checkout) -> None:
    """No test runs twice."""
    checkout.write("tests/test_a.py", GOOD)
    passed, output = checkout.ci()
    assert passed
    assert output.count("1 passed") == 6
    assert "once more" not in output


def test_a_flaky_test_is_named_and_the_run_passes(checkout: Checkout) -> None:
    """Up to three tests, failing in setup, call or teardown, run again, each alone, after all others."""
    checkout.write("tests/test_a.py", GOOD + ONCE.format("here"))
    teardown = (
        ONCE.format("late").replace("def test_", "@pytest.fixture\ndef ").replace("record =", "yield\n    record =")
    )
    torn = "@pytest.mark.parametrize('x', ['a b::[c]'])\ndef test_torn(unlucky_late, x):\n    pass\n"
    checkout.write(
        "tests/cluster/test_cluster.py",
        f"import pytest\npytestmark = pytest.mark.cluster\n{ONCE.format('there')}{teardown}\n{torn}",
    )
    passed, output = checkout.ci()
    assert passed, output
    names = {
        "tests/test_a.py::test_unlucky_here": "here",
        "tests/cluster/test_cluster.py::test_unlucky_there": "there",
        "tests/cluster/test_cluster.py::test_torn[a b::[c]]": "late",
    }
    _, _, flaky = output.partition("\nflaky:\n")
    for line, (name, reason) in zip(flaky.splitlines()[:-1], names.items(), strict=True):
        assert line.startswith(f"  {name}: tests/"), flaky
        assert line.endswith(f": RuntimeError: bad luck {reason}"), flaky
        assert f"\nonce more, alone: {name}\n" in output
    # The sessions of the disks' and the controller's tests, and each of the three tests alone.
    assert output.count("=== 1 passed in ") == 5
    assert "failed twice" not in output


def test_a_test_that_fails_twice_fails_the_run(checkout: Checkout) -> None:
    """The flaky test is still named, and the other sessions have run."""
    checkout.write("tests/test_a.py", ONCE.format("here") + "\ndef test_wrong():\n    assert 1 == 2\n")
    passed, output = checkout.ci()
    assert not passed
    assert "\nflaky:\n  tests/test_a.py::test_unlucky_here: " in output
    assert "\nfailed twice:\n  tests/test_a.py::test_wrong\n" in output
    for deselected, sessions in ((1, 1), (3, 2)):
        assert output.count(f"1 passed, {deselected} deselected") == sessions


@pytest.mark.long
def test_four_flaky_tests_are_too_many(checkout: Checkout) -> None:
    """All four are named, though each passes the second time."""
    checkout.write("tests/test_a.py", GOOD + "".join(ONCE.format(number) for number in range(4)))
    passed, output = checkout.ci()
    assert not passed
    _, _, flaky = output.partition("\nflaky:")
    assert flaky.count("\n  tests/test_a.py::test_unlucky_") == 4
    assert "4 flaky tests: at most 3 are allowed" in output


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("test_b.py", "import nothing_of_that_name\n"),
        ("test_b.py", "import os\n\ndef test_crash():\n    os._exit(1)\n"),
        ("cluster/test_b.py", f"import os\n{NEEDS_THE_CLUSTER}def test_crash():\n    os._exit(1)\n"),
        ("cluster/test_b.py", f"import os\n{NEEDS_THE_CLUSTER}def test_killed():\n    os.kill(os.getpid(), 9)\n"),
        ("conftest.py", "def pytest_unconfigure():\n    raise SystemExit(3)\n"),
        ("conftest.py", "def pytest_configure():\n    raise ValueError\n"),
        ("conftest.py", "def pytest_collection_modifyitems(items):\n    items[:] = []\n"),
        ("conftest.py", "import pytest\n\n@pytest.fixture(autouse=True)\ndef skipped():\n    pytest.skip()\n"),
    ],
    ids=["collection", "worker", "pytest", "killed", "end", "start", "no tests", "skipped"],
)
def test_a_session_that_breaks_down_fails_the_run(file: str, text: str, checkout: Checkout) -> None:
    """Nothing runs again, even if its tests passed: a test that never ran must not count as passed."""
    checkout.write("tests/test_a.py", GOOD + ONCE.format("here"))
    checkout.write(f"tests/{file}", text)
    passed, output = checkout.ci()
    assert not passed
    assert "once more" not in output


def test_the_linters_run_once(checkout: Checkout) -> None:
    """A linter's complaint is never flaky."""
    checkout.write("tests/test_a.py", GOOD)
    checkout.write(".local/venv/bin/mypy", "#!/bin/sh\necho complaint\nexit 1\n")
    passed, output = checkout.ci()
    assert not passed
    assert output.count("complaint") == 1
    assert "passed" not in output


def test_a_cluster_that_does_not_start_fails_the_run(checkout: Checkout) -> None:
    """No test runs."""
    checkout.write(
        "local/__main__.py", "import sys\nprint('local', *sys.argv[1:])\nsys.exit(sys.argv[1] == 'cluster')\n"
    )
    passed, output = checkout.ci()
    assert not passed
    assert "passed" not in output


@pytest.mark.long
def test_make_test_runs_nothing_again(checkout: Checkout) -> None:
    """`make test` runs all sessions and reports the failures."""
    checkout.write("tests/test_a.py", ONCE.format("here"))
    passed, output = checkout.run("make", "test")
    assert not passed
    assert "1 failed" in output
    assert "1 passed" in output
    assert "once more" not in output


@pytest.mark.long
def test_many_failures_are_not_run_again(checkout: Checkout) -> None:
    """Running a whole suite again would take too long."""
    checkout.write("tests/test_a.py", GOOD + "".join(ONCE.format(number) for number in range(11)))
    passed, output = checkout.ci()
    assert not passed
    assert "11 tests failed: too many to be tried again" in output
    assert "once more" not in output
