"""Backups on the real cluster: real games, real snapshots, and a real S3 store."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.conftest import Cluster
from tests.cluster.controller.worlds import Worlds, worlds_of

pytestmark = [pytest.mark.cluster, pytest.mark.own_namespace]


@pytest.fixture(scope="module")
def worlds(shared_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worlds]:
    """A place with a store, and its controller."""
    with (
        worlds_of(shared_cluster, tmp_path_factory.mktemp("worlds")) as worlds,
        worlds.place.controller("one") as process,
    ):
        yield worlds
        process.terminate()
        process.wait(30)


def test_a_world_is_brought_to_the_store(worlds: Worlds) -> None:
    """A backup has the server's files, and leaves neither a Job nor a snapshot behind."""
    server = worlds.create(1)
    worlds.kubectl("exec", "server-1-0", "--", "sh", "-c", "echo mine > /data/mark")
    backup = worlds.backed_up(server)
    assert (backup.state, backup.where, backup.consistency) == ("done", "store", "crash-like")
    assert "mark" in worlds.files(server, backup)
    assert [each["id"] for each in worlds.stored(server)] == [backup.snapshot]
    worlds.until_tidy()
