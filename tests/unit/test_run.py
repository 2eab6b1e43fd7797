"""What .ci/run makes of tests that fail: run in a checkout with tests of its own."""

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

#: A test that passes the second time; each has a file of its own to remember by.
ONCE = """
def test_unlucky_{0}(request):
    tried = request.path.with_suffix(".tried-{0}")
    if not tried.exists():
        tried.touch()
        raise RuntimeError("bad luck {0}")
"""
GOOD = "def test_good():\n    pass\n"
NEEDS_THE_CLUSTER = "import pytest\n\n@pytest.mark.cluster\n"


class Checkout:
    """A checkout whose linters are content, and in which `python -m local` only says what it is asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for file in (".ci/run", "Makefile", "setup.cfg", "tests/__init__.py", "tests/run.py", "tests/recorder.py"):
            (folder / file).parent.mkdir(exist_ok=True)
            shutil.copy2(ROOT / file, folder / file)
        self.write("local/__main__.py", "import sys\nprint('local', *sys.argv[1:])\n")
        self.write("tests/charts/lint.py", "")
        self.write("local/lint.py", "")
        self.write("tests/test_cluster.py", f"{NEEDS_THE_CLUSTER}{GOOD}")
        for mark in ("alone", "own_namespace"):
            self.write(f"tests/test_{mark}.py", f"{NEEDS_THE_CLUSTER}@pytest.mark.{mark}\n{GOOD}")
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
        """Whether the command was content, and what it printed."""
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
        """Whether .ci/run let the change land, and what it printed after pytest's own lines; it cleans up always."""
        passed, said = self.run(".ci/run")
        assert said.count("local clean\n") == 1
        return passed, said


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_all_is_well(checkout: Checkout) -> None:
    """Nothing is run twice."""
    checkout.write("tests/test_a.py", GOOD)
    passed, said = checkout.ci()
    assert passed
    assert said.count("1 passed") == 4
    assert "once more" not in said


def test_what_fails_once_is_named_and_lands(checkout: Checkout) -> None:
    """Up to three tests, from different parts, in setup, call or teardown; each alone, after all others."""
    checkout.write("tests/test_a.py", GOOD + ONCE.format("here"))
    teardown = (
        ONCE.format("late").replace("def test_", "@pytest.fixture\ndef ").replace("tried =", "yield\n    tried =")
    )
    torn = "@pytest.mark.parametrize('x', ['a b::[c]'])\ndef test_torn(unlucky_late, x):\n    pass\n"
    checkout.write(
        "tests/test_cluster.py",
        f"import pytest\npytestmark = pytest.mark.cluster\n{ONCE.format('there')}{teardown}\n{torn}",
    )
    passed, said = checkout.ci()
    assert passed, said
    names = {
        "tests/test_a.py::test_unlucky_here": "here",
        "tests/test_cluster.py::test_unlucky_there": "there",
        "tests/test_cluster.py::test_torn[a b::[c]]": "late",
    }
    _, _, flaky = said.partition("\nflaky:\n")
    for line, (name, what) in zip(flaky.splitlines()[:-1], names.items(), strict=True):
        assert line.startswith(f"  {name}: tests/test_"), flaky
        assert line.endswith(f": RuntimeError: bad luck {what}"), flaky
        assert f"\nonce more, alone: {name}\n" in said
    assert said.count("=== 1 passed in ") == 3
    assert "failed twice" not in said


def test_what_fails_twice_does_not_land(checkout: Checkout) -> None:
    """The flaky one is named all the same, and the other parts have run."""
    checkout.write("tests/test_a.py", ONCE.format("here") + "\ndef test_wrong():\n    assert 1 == 2\n")
    passed, said = checkout.ci()
    assert not passed
    assert "\nflaky:\n  tests/test_a.py::test_unlucky_here: " in said
    assert "\nfailed twice:\n  tests/test_a.py::test_wrong\n" in said
    assert said.count("1 passed, 4 deselected") == 3


def test_four_flaky_tests_are_too_many(checkout: Checkout) -> None:
    """Each passes the second time; all are named."""
    checkout.write("tests/test_a.py", GOOD + "".join(ONCE.format(number) for number in range(4)))
    passed, said = checkout.ci()
    assert not passed
    _, _, flaky = said.partition("\nflaky:")
    assert flaky.count("\n  tests/test_a.py::test_unlucky_") == 4
    assert "4 flaky tests: no more than 3 are borne with" in said


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("test_b.py", "import nothing_of_that_name\n"),
        ("test_b.py", "import os\n\ndef test_crash():\n    os._exit(1)\n"),
        ("test_b.py", f"import os\n{NEEDS_THE_CLUSTER}def test_crash():\n    os._exit(1)\n"),
        ("test_b.py", f"import os\n{NEEDS_THE_CLUSTER}def test_killed():\n    os.kill(os.getpid(), 9)\n"),
        ("conftest.py", "def pytest_unconfigure():\n    raise SystemExit(3)\n"),
        ("conftest.py", "def pytest_configure():\n    raise ValueError\n"),
        ("conftest.py", "def pytest_collection_modifyitems(items):\n    items[:] = []\n"),
        ("conftest.py", "import pytest\n\n@pytest.fixture(autouse=True)\ndef skipped():\n    pytest.skip()\n"),
    ],
    ids=["collection", "worker", "pytest", "killed", "end", "start", "no tests", "skipped"],
)
def test_a_run_that_broke_down_does_not_land(file: str, text: str, checkout: Checkout) -> None:
    """However its tests did: nothing is tried again, so that nothing that was not run passes for good."""
    checkout.write("tests/test_a.py", GOOD + ONCE.format("here"))
    checkout.write(f"tests/{file}", text)
    passed, said = checkout.ci()
    assert not passed
    assert "once more" not in said


def test_the_linters_get_one_try(checkout: Checkout) -> None:
    """What they have against a change is no bad luck."""
    checkout.write("tests/test_a.py", GOOD)
    checkout.write(".local/venv/bin/mypy", "#!/bin/sh\necho complaint\nexit 1\n")
    passed, said = checkout.ci()
    assert not passed
    assert said.count("complaint") == 1
    assert "passed" not in said


def test_a_cluster_that_does_not_come_up_gets_one_try(checkout: Checkout) -> None:
    """No test has run then."""
    checkout.write(
        "local/__main__.py", "import sys\nprint('local', *sys.argv[1:])\nsys.exit(sys.argv[1] == 'cluster')\n"
    )
    passed, said = checkout.ci()
    assert not passed
    assert "passed" not in said


def test_by_hand_nothing_is_tried_again(checkout: Checkout) -> None:
    """`make test` runs all parts and says at once what failed."""
    checkout.write("tests/test_a.py", ONCE.format("here"))
    passed, said = checkout.run("make", "test")
    assert not passed
    assert "1 failed" in said
    assert "1 passed" in said
    assert "once more" not in said


def test_a_whole_suite_that_fails_is_not_tried_again(checkout: Checkout) -> None:
    """That is no bad luck, and would take hours."""
    checkout.write("tests/test_a.py", GOOD + "".join(ONCE.format(number) for number in range(11)))
    passed, said = checkout.ci()
    assert not passed
    assert "11 tests failed: too many to be tried again" in said
    assert "once more" not in said
