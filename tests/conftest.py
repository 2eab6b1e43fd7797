"""The environment of all tests."""

import gc
import os
from pathlib import Path

import pytest

from local import paths
from tests.support.environment import local_environment

_CHARTS, _CLUSTER, _CONTRACT = (Path(__file__).parent / folder for folder in ("charts", "cluster", "contract"))


def pytest_configure(config: pytest.Config) -> None:
    """Put the helm and kubectl that `make run` compiles first on the PATH."""
    os.environ["PATH"] = f"{paths.BIN}:{os.environ['PATH']}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the charts' tests with `tools`, and the cluster's tests outside tests/cluster with `own_namespace`."""
    for item in items:
        if _CHARTS in item.path.parents:
            # `helm template` renders what they look at.
            item.add_marker(pytest.mark.tools)
        if _CLUSTER not in item.path.parents and item.get_closest_marker("cluster"):
            if not {_CHARTS, _CONTRACT} & set(item.path.parents):
                raise pytest.UsageError(f"{item.nodeid}: `make test` looks for tests on the cluster in other folders")
            item.add_marker(pytest.mark.own_namespace)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Read .local/env, as a shell would, if a test needs the cluster. Other tests must not see its token."""
    # Thousands of tests and their modules stay until the end: the collector need not look through them again and again.
    gc.freeze()
    if paths.ENV.exists() and any(item.get_closest_marker("cluster") for item in session.items):
        os.environ.update(local_environment())
