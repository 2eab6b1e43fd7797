"""Fixtures: the app with fakes in place of Kubernetes and Helm, and a client that sends a token."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from service.app import create_app
from service.assembly import build_context
from service.games import catalogue
from service.records.store import RecordStore
from service.settings import Settings
from tests.support import tokens
from tests.support.fakes import FakeCluster, FakeReleases, World
from tests.support.memory_kube import LabelledKube

SIZES = {"ram_gb": 2, "disk_gb": 10}
"""The body of a create with only the required fields."""

TOKENS: dict[str, dict[str, Any]] = {
    "shop": {"scopes": ["read", "operate", "admin"]},
    "reader": {"scopes": ["read"]},
    "operator": {"scopes": ["read", "operate"]},
    "acme": {"scopes": ["read", "operate", "admin"], "customer": "acme"},
}
"""The entries of the operator's tokens, by name; the token itself is `<name>-secret`."""

LOAD = catalogue.load


class Client:
    """A client of the API that takes the name of a token instead of the token itself."""

    def __init__(self, client: FlaskClient) -> None:
        self.flask = client

    def call(self, method: str, path: str, body: object = None, *, token: str = "shop", **more: Any) -> TestResponse:
        headers = {"Authorization": f"Bearer {token}-secret", **more.pop("headers", {})}
        if body is not None:
            more["json"] = body
        return self.flask.open(path, method=method, headers=headers, **more)

    def get(self, path: str, **more: Any) -> TestResponse:
        return self.call("GET", path, **more)

    def post(self, path: str, body: object = None, **more: Any) -> TestResponse:
        return self.call("POST", path, body, **more)

    def patch(self, path: str, body: object = None, **more: Any) -> TestResponse:
        return self.call("PATCH", path, body, **more)

    def delete(self, path: str, **more: Any) -> TestResponse:
        return self.call("DELETE", path, **more)


@pytest.fixture(autouse=True)
def _load_built_in_games_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reuse the built-in games, because loading them renders every option and takes longer than most tests."""
    built_in = (catalogue.BUILT_IN,)
    monkeypatch.setattr(
        catalogue, "load", lambda *folders, chart: _built_in() if folders == built_in else LOAD(*folders, chart=chart)
    )


@cache
def _built_in() -> Mapping[str, catalogue.Game]:
    return LOAD(catalogue.BUILT_IN)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    entries = [tokens.entry(name, f"{name}-secret", **more) for name, more in TOKENS.items()]
    path = tokens.write(tmp_path / "tokens.json", *entries)
    return replace(Settings(), tokens_file=path, accepted_eulas=frozenset({"minecraft"}))


@pytest.fixture
def make_app(world: World, settings: Settings) -> Callable[..., Flask]:
    """Create the app over `world`, with some settings changed. All apps have the same records."""
    records = partial(RecordStore, LabelledKube(), settings.servers_namespace)

    def make(**changes: Any) -> Flask:
        return create_app(
            build_context(replace(settings, **changes), FakeCluster(world), FakeReleases(world), records=records)
        )

    return make


@pytest.fixture
def client(make_app: Callable[..., Flask]) -> Client:
    return Client(make_app().test_client())
