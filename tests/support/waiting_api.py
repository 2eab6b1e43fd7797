"""The API over fakes, for a WSGI server: `tests.support.waiting_api:app`. Its servers run only when a test says so.

`GET /run/<id>` makes a server's game answer; `GET /write/<id>/<text>/<times>` makes it write to its log;
`GET /metrics` has the metrics.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from functools import partial

from flask import Flask
from prometheus_client import generate_latest

from service.app import create_app
from service.assembly import build_context
from service.kube.times import stamp
from service.records.store import RecordStore
from service.settings import Settings
from service.telemetry import logs
from service.telemetry.metrics import REGISTRY
from tests.support.fakes import FakeCluster, FakeReleases
from tests.support.memory_kube import LabelledKube
from tests.support.slow_world import SlowWorld


def build() -> Flask:
    settings = Settings.from_environment(os.environ)
    logs.configure(settings.log_level, settings.log_format)
    world = SlowWorld()
    records = partial(RecordStore, LabelledKube(), settings.servers_namespace)
    app = create_app(build_context(settings, FakeCluster(world), FakeReleases(world), records=records))

    @app.route("/run/<int:id>")
    def run(id: int) -> dict[str, bool]:
        world.answer(id)
        return {"success": True}

    @app.route("/write/<int:id>/<text>/<int:times>")
    def write(id: int, text: str, times: int) -> dict[str, bool]:
        world.write(id, *[text] * times, at=stamp(datetime.now(UTC), micro=True))
        return {"success": True}

    @app.route("/metrics")
    def metrics() -> bytes:
        return generate_latest(REGISTRY)

    return app


app = build()
