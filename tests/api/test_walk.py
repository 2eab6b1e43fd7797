"""The random walk of walk.py, over the fakes: thousands of steps in seconds."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings

from service.app import create_app
from service.settings import Settings
from tests.api.walk import Answer, Walk
from tests.support import tokens
from tests.support.fakes import FakeCluster, FakeReleases, World


def _client() -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = tokens.write(Path(folder) / "tokens.json", tokens.entry("t"))
        world = World()
        app = create_app(
            Settings(tokens_file=path, accepted_eulas=frozenset({"minecraft"})), FakeCluster(world), FakeReleases(world)
        )
    app.extensions["world"] = world
    return app.test_client()


CLIENT = _client()


def call(method: str, path: str, body: Any) -> Answer:
    answer = CLIENT.open(path, method=method, json=body, headers={"Authorization": "Bearer t"})
    # The fakes' pods have no end of their own.
    world: World = CLIENT.application.extensions["world"]
    for id in [id for id, claim in world.claims.items() if claim["metadata"].get("deletionTimestamp")]:
        world.pods.pop(id, None)
        world.claims.pop(id)
    return answer.status_code, answer.json


class FakeWalk(Walk):
    call = staticmethod(call)
    ids = (1, 22, 333)


TestWalk = FakeWalk.TestCase
TestWalk.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
