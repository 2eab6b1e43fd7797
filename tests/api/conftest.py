"""The app over fakes, and a client with a token."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from service.app import create_app
from service.games import catalogue
from service.settings import Settings
from tests.support import tokens
from tests.support.fakes import FakeCluster, FakeReleases, World

TOKENS = {
    "shop": {"scopes": ["read", "operate", "admin"]},
    "reader": {"scopes": ["read"]},
    "operator": {"scopes": ["read", "operate"]},
    "acme": {"scopes": ["read", "operate", "admin"], "customer": "acme"},
}

LOAD = catalogue.load


class Client:
    """Calls of the API with a token's name in place of its secret."""

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
def _built_in_games_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are the same for all tests, and to try every option of every game takes longer than most tests do."""
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
    """The app over the world, with some settings changed."""

    def make(**changes: Any) -> Flask:
        return create_app(replace(settings, **changes), FakeCluster(world), FakeReleases(world))

    return make


@pytest.fixture
def client(make_app: Callable[..., Flask]) -> Client:
    return Client(make_app().test_client())
