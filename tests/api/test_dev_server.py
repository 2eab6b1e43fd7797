"""The API under Flask's own server, as `make dev` runs it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from werkzeug.serving import make_server

from tests.api.conftest import SIZES


@pytest.fixture
def url(make_app: Any) -> Iterator[str]:
    """The address of the API."""
    server = make_server("127.0.0.1", 0, make_app(), threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/api/v1/server/1/", b'{"ram_gb": 0}', 422),
        ("/api/v1/server/1/", b'{"ram_gb": ', 400),
        ("/api/v1/server/x", b"{}", 404),
        ("/api/v1/server/1/command", b'{"command": "say hi"}', 404),
        ("/api/v1/server/1/", b'"' + b"a" * 2_000_000 + b'"', 413),
    ],
)
def test_a_refusal_waits_for_no_more_than_the_body(url: str, path: str, body: bytes, status: int) -> None:
    """Whether the body was read before or not, the client gets its answer on a connection that stays open."""
    headers = {"Authorization": "Bearer shop-secret", "Content-Type": "application/json"}
    with requests.Session() as session:
        answer = session.post(f"{url}{path}", data=body, headers=headers, timeout=10)
        assert (answer.status_code, answer.json()["success"]) == (status, False)
        assert session.post(f"{url}/api/v1/server/1/", json=SIZES, headers=headers, timeout=10).status_code == 201
