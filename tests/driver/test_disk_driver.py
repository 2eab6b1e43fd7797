"""The Go tests of disk-driver/, each one a test here; csi-sanity is one of them."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from local import binaries, paths

pytestmark = pytest.mark.tools

_MODULE = paths.ROOT / "disk-driver"
_TEST = re.compile(r"^func (Test\w+)\(t \*testing\.T\)", re.MULTILINE)
_NAMES = sorted(name for file in _MODULE.glob("integration/*_test.go") for name in _TEST.findall(file.read_text()))
#: What a test mounts and starts goes with its namespaces, also when it is killed.
_ALONE = ("unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child", "--mount-proc")
_SECONDS = 300


@pytest.fixture(scope="session")
def go_tests() -> Path:
    """The compiled tests of disk-driver/integration."""
    return binaries.disk_driver_tests()


@pytest.fixture(scope="session")
def driver() -> Path:
    """The compiled driver."""
    return binaries.disk_driver()


def _run(go_tests: Path, name: str, folder: Path, driver: Path, **environment: str) -> str:
    """What a Go test prints that passes, in namespaces of its own."""
    result = subprocess.run(
        [*_ALONE, go_tests, f"-test.run=^{name}$", "-test.v"],
        cwd=folder,
        env={
            **os.environ,
            "DISK_DRIVER": str(driver),
            "TMPDIR": str(folder),
            "CSI_SANITY": str(binaries.csi_sanity()),
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=_SECONDS,
    )
    assert result.returncode == 0, result.stdout[-20_000:]
    return result.stdout


@pytest.mark.parametrize("name", _NAMES)
def test_driver(name: str, go_tests: Path, driver: Path, tmp_path: Path) -> None:
    """What the comment on the Go test says."""
    output = _run(go_tests, name, tmp_path, driver)
    assert f"--- PASS: {name} " in output


@pytest.mark.long
def test_hundreds_of_kills(go_tests: Path, driver: Path, tmp_path: Path) -> None:
    """Kills lose nothing and leak nothing, however many there are."""
    _run(go_tests, "TestKillsLoseNothingAndLeakNothing", tmp_path, driver, KILLS="1000")


def test_pure_parts(tmp_path: Path) -> None:
    """The unit tests beside the driver's packages."""
    result = subprocess.run(
        [binaries._go(_MODULE), "test", "./..."], cwd=_MODULE, capture_output=True, text=True, timeout=_SECONDS
    )
    assert result.returncode == 0, result.stdout + result.stderr
