"""The random walk of tests/support/walk.py over the fakes: thousands of steps in seconds."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from flask.testing import FlaskClient
from hypothesis import HealthCheck, settings

from service.app import create_app
from service.assembly import build_context
from service.settings import Settings
from tests.support import tokens
from tests.support.fakes import FakeCluster, FakeReleases, World
from tests.support.walk import Answer, Walk

WORLD = World()


def _client() -> FlaskClient:
    with tempfile.TemporaryDirectory() as folder:
        file = tokens.write(Path(folder) / "tokens.json", tokens.entry("t"))
        options = Settings(tokens_file=file, accepted_eulas=frozenset({"minecraft"}))
        return create_app(build_context(options, FakeCluster(WORLD), FakeReleases(WORLD))).test_client()


CLIENT = _client()


class FakeWalk(Walk):
    """Over the fakes, which are empty again after each walk."""

    def __init__(self) -> None:
        super().__init__([1, 22, 333])

    def call(self, method: str, path: str, body: Any = None) -> Answer:
        response = CLIENT.open(path, method=method, json=body, headers={"Authorization": "Bearer t"})
        # The fakes' pods do not end by themselves.
        for id in [id for id, claim in WORLD.claims.items() if claim["metadata"].get("deletionTimestamp")]:
            WORLD.pods.pop(id, None)
            WORLD.claims.pop(id)
        assert response.json is not None
        return Answer(response.status_code, response.json, "Retry-After" in response.headers)


TestWalk = FakeWalk.TestCase
TestWalk.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
