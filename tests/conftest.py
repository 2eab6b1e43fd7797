"""The environment of all tests."""

import os
import re
from pathlib import Path

import pytest

_LOCAL = Path(__file__).resolve().parent.parent / ".local"


def pytest_configure(config: pytest.Config) -> None:
    """Set the variables of .local/env, if it exists, and put the local cluster's kubectl and helm on the PATH."""
    env = _LOCAL / "env"
    if env.exists():
        os.environ.update(re.findall(r"^export (\w+)=(.*)$", env.read_text(), re.MULTILINE))
    os.environ["PATH"] = f"{_LOCAL / 'bin'}:{os.environ['PATH']}"
