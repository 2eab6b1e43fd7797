"""Pods with a store, in which a server has its repository already."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.backup_jobs import Pod

UID = "server-uid"
ABOUT = {"id": 4711, "customer": "acme", "game": "minecraft"}
SETTINGS = {"server": {"uid": UID, "customer": "acme"}, "storage": {"size": "1Gi"}}


def backup(number: int = 1, **more: Any) -> dict[str, Any]:
    """A backup's request."""
    return {"uid": UID, "backup": f"b-{number}", "settings": SETTINGS, "source": "/world", **more}


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder store with the catalogue and the repository of one server: each takes restic seconds to make."""
    pod = Pod(tmp_path_factory.mktemp("template"))
    pod.done("catalogue", {})
    pod.done("init", {"uid": UID, "about": ABOUT})
    return pod.places.repositories


@pytest.fixture
def pod(tmp_path: Path, template: Path) -> Pod:
    """A pod whose folder store has the server's repository; the world has a file."""
    made = Pod(tmp_path)
    made.copy_store(template)
    (made.world / "level.dat").write_bytes(b"a world")
    return made


@pytest.fixture
def bare(tmp_path: Path) -> Callable[..., Pod]:
    """Makes a pod whose store has nothing."""
    return lambda name="bare", **more: Pod(tmp_path / name, **more)
