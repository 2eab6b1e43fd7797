"""The API behaves as its OpenAPI document says; schemathesis generates the requests."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings, strategies
from jsonschema import Draft202012Validator
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    positive_data_acceptance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from local.paths import ROOT
from service.api import events
from service.api.event_schemas import LONGEST_WAIT
from service.app import create_app
from service.assembly import build_context
from service.games import catalogue
from service.records.store import RecordStore
from service.settings import Settings
from service.tokens import TokensFile
from service.web import streaming
from service.webhooks.addresses import Reach
from service.webhooks.urls import mistake
from tests.support import tokens
from tests.support.fakes import FakeAccounts, FakeCluster, FakeReleases, FakeTokens, World
from tests.support.webhooks import Place


def _app() -> Any:
    file = tokens.write(Path(tempfile.mkdtemp()) / "tokens.json", tokens.entry("t"))
    world, place = World(), Place()
    for id in (1, 2, 3):
        world.values[id] = {"game": "minecraft", "ramGb": 2, "diskGb": 10, "replicas": 0}
        world.revisions[id] = ["deployed"]
        world.apply(id, world.values[id])
    app = create_app(
        build_context(
            Settings(
                tokens_file=file,
                accepted_eulas=frozenset({"minecraft"}),
                sftp_namespace="gameserver-sftp",
            ),
            FakeCluster(world),
            FakeReleases(world),
            FakeAccounts(),
            FakeTokens(TokensFile(file)),
            partial(RecordStore, place.kube, place.settings.servers_namespace),
            place.webhooks,
        )
    )
    app.extensions["gameserver"].events.start()
    assert app.extensions["gameserver"].events.wait(5)
    return app


_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIL2mCL181PUlONafAsoXZ401Tu1OFFE/3KvxBdZIunej"
schemathesis.openapi.format("ssh-public-key", strategies.text("abc ", max_size=9).map(f"{_KEY} {{}}".format))
_CRONS = ["H 4 * * *", "0 4 * * *", "*/5 * * * *", "30 2 1,15 * MON-FRI", "H H L * *"]
schemathesis.openapi.format("cron", strategies.sampled_from(_CRONS))
schemathesis.openapi.format("timezone", strategies.sampled_from(["UTC", "Europe/Berlin", "Australia/Lord_Howe"]))
# The only URIs in requests are those of webhooks.
schemathesis.openapi.format(
    "uri", strategies.from_regex(r"https://[a-z]{1,20}\.example/[a-z?=&]{0,20}", fullmatch=True)
)
schema = schemathesis.openapi.from_wsgi("/openapi.json", _app())
_EDGES = "OPENAPI_EDGES"
"""With this variable, requests at the edges of each schema are made too. To prepare them takes half a minute."""
schema.config.phases.coverage.enabled = _EDGES in os.environ


GAMES = catalogue.load(catalogue.BUILT_IN)
MINECRAFT, OPTIONS = GAMES["minecraft"], {name for game in GAMES.values() for name in game.schema["properties"]}


@schema.hook
def filter_body(context: Any, body: Any) -> bool:
    """Skip three kinds of bodies that the document cannot describe.

    For JSON Schema 2.0 is an integer, but not for this API. And the options of a change must be those of the server's
    game, which is Minecraft here. A webhook's URL leads nowhere inside.
    """
    if not isinstance(body, dict) or any(_whole_float(value) for value in body.values()):
        return not isinstance(body, dict)
    if isinstance(url := body.get("url"), str) and mistake(url, Reach()):
        return False
    options = body.get("options")
    if context.operation.method.upper() != "PATCH" or not isinstance(options, dict):
        return True
    return not (options.keys() & OPTIONS) or not MINECRAFT.errors(
        {name: value for name, value in options.items() if value is not None}
    )


@schema.hook
def filter_query(context: Any, query: Any) -> bool:
    """Skip queries with an empty list: it disappears from the URL, so the query arrives as a valid one."""
    return not isinstance(query, dict) or [] not in query.values()


def _whole_float(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_whole_float(part) for part in value.values())
    if isinstance(value, list):
        return any(_whole_float(part) for part in value)
    return isinstance(value, float) and value.is_integer()


@pytest.fixture(autouse=True, scope="module")
def no_other_replica() -> Iterator[None]:
    """No cursor comes from another replica, so no call waits for that one's events, and no stream goes on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(events, "BEHIND_SECONDS", 0.0)
        patch.setattr(streaming, "LONGEST_IN_A_THREAD", 0.0)
        yield


@schema.parametrize()
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_answer_matches_the_document(case: schemathesis.Case[Any]) -> None:
    """No answer has a 5xx or an undocumented status, header, type or body; only valid requests are accepted."""
    wait = str((case.query or {}).get("wait"))
    if wait.isdecimal() and 0 < int(wait) <= LONGEST_WAIT:
        # It would wait for an event.
        case.query["wait"] = "0"
    if "." in str((case.path_parameters or {}).get("name")) and isinstance(case.body, dict):
        # Such a name says whose webhook it is; OpenAPI cannot say that `customer` must not contradict it.
        case.body.pop("customer", None)
    case.call_and_validate(
        headers={"Authorization": "Bearer t"},
        checks=[
            not_a_server_error,
            content_type_conformance,
            negative_data_rejection,
            positive_data_acceptance,
            response_headers_conformance,
            response_schema_conformance,
            status_code_conformance,
            unsupported_method,
        ],
    )


@pytest.mark.long
def test_every_answer_to_requests_at_the_edges_matches_the_document() -> None:
    """The same, in a pytest of its own: each process that collects the tests would prepare those requests."""
    test = f"{__file__}::{test_every_answer_matches_the_document.__name__}"
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", test]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, _EDGES: "true"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:]


def test_only_the_public_operations_need_no_token() -> None:
    """The document says so."""
    public = {
        path
        for path, operations in schema.raw_schema["paths"].items()
        for operation in operations.values()
        if isinstance(operation, dict) and operation.get("security") == []
    }
    assert public == {"/healthcheck", "/readyz", "/api/v1/login/{code}"}


def test_every_default_is_a_valid_value() -> None:
    """A client that is generated from the document may send it."""
    parts = list(_parts(schema.raw_schema))
    assert len(parts) > 50
    wrong = {
        where: part["default"]
        for where, part in parts
        if not Draft202012Validator({**part, "components": schema.raw_schema["components"]}).is_valid(part["default"])
    }
    assert not wrong


def _parts(part: Any, where: str = "#") -> Iterator[tuple[str, dict[str, Any]]]:
    """Each schema with a default, and where it is."""
    if isinstance(part, dict):
        if "type" in part and "default" in part:
            yield where, part
        for key, value in part.items():
            yield from _parts(value, f"{where}/{key}")
    elif isinstance(part, list):
        for number, value in enumerate(part):
            yield from _parts(value, f"{where}/{number}")


def test_what_can_be_followed_comes_as_text_or_as_events() -> None:
    """The document has both."""
    for call in ("log", "progress"):
        answer = schema.raw_schema["paths"][f"/api/v1/server/{{id}}/{call}"]["get"]["responses"]["200"]
        text = {"schema": {"type": "string"}}
        assert answer["content"] == {"text/plain": text, "text/event-stream": text}


def test_the_pages_have_no_external_links() -> None:
    """They work in a cluster without Internet access."""
    client = _app().test_client()
    for path in ("/docs", "/problems/", "/problems/disk-kept"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert not [word for word in ("src=", 'href="http', "url(", "@import") if word in answer.text], path


def test_no_link_of_the_pages_is_broken() -> None:
    """Every link leads to a page or to an anchor."""
    client = _app().test_client()
    page = client.get("/docs").text
    links = set(re.findall(r'href="([^"]+)"', page))
    assert {"/openapi.json", "/problems/", "/problems/disk-kept", "#MinecraftOptions"} <= links
    for link in links:
        if link.startswith("#"):
            assert f'id="{link[1:]}"' in page, link
        else:
            assert client.get(link).status_code == 200, link


@pytest.mark.parametrize("path", ["/problems/nope", "/problems/.."])
def test_an_unknown_problem_has_no_page(path: str) -> None:
    """It answers 404."""
    assert _app().test_client().get(path, headers={"Authorization": "Bearer t"}).status_code == 404
