"""What the API says about its own version."""

from __future__ import annotations

from prometheus_client import generate_latest

import service
from service.telemetry.metrics import REGISTRY
from tests.api.conftest import Client


def test_the_openapi_document_has_the_products_version(client: Client) -> None:
    """The paths' `v1` changes only with an incompatible API; the version changes with every release."""
    document = client.flask.get("/openapi.json").json
    assert document is not None
    assert document["info"]["version"] == service.__version__


def test_a_metric_says_which_version_runs() -> None:
    """So that a dashboard shows how far an upgrade of the replicas is."""
    line = f'gameserver_api_build_info{{version="{service.__version__}"}} 1.0'
    assert line in generate_latest(REGISTRY).decode().splitlines()
