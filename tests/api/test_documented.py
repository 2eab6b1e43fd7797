"""Answers as the handbook shows them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from service.app import create_app
from service.settings import Settings
from service.tokens import TokensFile
from tests.api.conftest import Client
from tests.docs.snippets import block
from tests.support.fakes import FakeAccounts, FakeCluster, FakeReleases, FakeTokens, World


def test_the_error_is_answered_as_written(client: Client) -> None:
    """docs/api.md, word for word."""
    client.post("/api/v1/server/1/", {"ram_gb": 2, "disk_gb": 20})
    answer = client.patch("/api/v1/server/1/", {"disk_gb": 10})
    assert answer.json == json.loads(block("docs/api.md", '{"success": false'))


def test_an_account_is_answered_as_written(world: World, settings: Settings) -> None:
    """docs/sftp.md: the body is taken, with a key in the place of the three dots, and the answer has those fields."""
    request, _, answer = block("docs/sftp.md", "PUT").partition("}")
    method, path, body = (request + "}").split(maxsplit=2)
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFHIk1fcvkbOiWR9x0gQaLX2X3X7ReyNFw0u0UV/cXC6"
    app = create_app(
        replace(settings, sftp_namespace="gameserver-sftp"), FakeCluster(world), FakeReleases(world), FakeAccounts()
    )
    client = Client(app.test_client())
    client.post(path.removesuffix("/sftp"), {"ram_gb": 2, "disk_gb": 10})
    found = client.call(method, path, json.loads(body.replace("ssh-ed25519 AAAA…", key))).json
    written = json.loads(answer)
    assert found is not None
    assert {name: type(value) for name, value in found.items()} == {
        name: type(value) for name, value in written.items()
    }
    assert found | {"password": "", "host_keys": []} == written | {
        "password": "", "host_keys": [], "public_keys": [f"{key} me@home"]
    }  # fmt: skip


def called(page: str, first: str, client: Client) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a block's call is answered, and what it says beneath that it is."""
    request, _, answer = block(page, first).partition("\n")
    method, path, body = request.split(maxsplit=2)
    found = client.call(method, path, json.loads(body)).json
    assert found is not None
    return found, json.loads(answer)


def test_a_token_is_answered_as_written(world: World, settings: Settings) -> None:
    """docs/api.md, but for what is another each time."""
    client = Client(
        create_app(settings, FakeCluster(world), FakeReleases(world), tokens=_tokens(settings)).test_client()
    )
    found, written = called("docs/api.md", "POST /api/v1/token ", client)
    assert found | {"token": "", "expires": ""} == written | {"token": "", "expires": ""}
    assert found["token"].startswith(written["token"].removesuffix("…"))
    assert len(found["expires"]) == len(written["expires"])


def test_a_login_link_is_answered_as_written(world: World, settings: Settings) -> None:
    """docs/api.md, but for what is another each time."""
    client = Client(
        create_app(settings, FakeCluster(world), FakeReleases(world), tokens=_tokens(settings)).test_client()
    )
    found, written = called("docs/api.md", "POST /api/v1/login-link ", client)
    assert found.keys() == written.keys()
    assert found["link"].startswith(written["link"].removesuffix("…"))
    assert len(found["expires"]) == len(written["expires"])


def _tokens(settings: Settings) -> FakeTokens:
    assert settings.tokens_file
    return FakeTokens(TokensFile(settings.tokens_file))
