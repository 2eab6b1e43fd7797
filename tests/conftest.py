"""What the tests of several folders share."""

import os
import re
from pathlib import Path

import pytest

_LOCAL = Path(__file__).resolve().parent.parent / ".local"


def pytest_configure(config: pytest.Config) -> None:
    """The environment of a shell that has read .local/env, with the kubectl and helm that go with it."""
    env = _LOCAL / "env"
    if env.exists():
        os.environ.update(re.findall(r"^export (\w+)=(.*)$", env.read_text(), re.MULTILINE))
    os.environ["PATH"] = f"{_LOCAL / 'bin'}:{os.environ['PATH']}"
