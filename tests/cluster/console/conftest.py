"""One place for all tests of this folder; each test has servers of its own in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.conftest import Cluster
from tests.cluster.console.talking import talking
from tests.cluster.controller.place import Place


@pytest.fixture(scope="session")
def place(shared_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """An API of the tests' own, whose games are talkers."""
    with talking(shared_cluster, tmp_path_factory.mktemp("console")) as place:
        yield place
