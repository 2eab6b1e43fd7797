"""The API answers as the examples in docs/ show."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

from flask import Flask

from local.paths import ROOT
from service.app import create_app
from service.assembly import build_context
from service.backups.records import Backup
from service.kube.times import now
from service.records.store import RecordStore
from service.schedules import runs, spec
from service.servers.idle import Outlook
from service.servers.names import SCHEDULE_RUNS
from service.servers.usage import Usage
from service.settings import Settings
from service.tokens import TokensFile
from tests.api.conftest import SIZES, Client
from tests.docs.snippets import block
from tests.support.fakes import FakeAccounts, FakeCluster, FakeReleases, FakeTokens, World
from tests.support.waiting import until
from tests.support.webhooks import Place


def test_the_error_is_answered_as_written(client: Client) -> None:
    """The error in docs/api.md is what the API answers, word for word."""
    client.post("/api/v1/server/1/", {"ram_gb": 2, "disk_gb": 20})
    answer = client.patch("/api/v1/server/1/", {"disk_gb": 10})
    assert answer.json == json.loads(block("docs/api.md", '{"success": false'))


def test_a_disk_is_shown_as_written(client: Client, world: World) -> None:
    """`GET` has the part that docs/api.md shows, of a disk that is growing."""
    documented = json.loads("{" + block("docs/api.md", '"disk_gb": 20, "disk"') + "}")
    client.post("/api/v1/server/1/", SIZES)
    world.expandable, world.grows = True, False
    client.patch("/api/v1/server/1/", {"disk_gb": 20})
    size = documented["disk"]["size_gb"] * 2**30
    world.usage[1] = Usage(now(), True, int(documented["disk"]["used_gb"] * 2**30), size)
    documented["disk"]["as_of"] = world.usage[1].as_of
    actual = client.get("/api/v1/server/1/").json or {}
    assert {name: actual[name] for name in documented} == documented


def test_a_suspension_is_shown_as_written(client: Client) -> None:
    """The API takes the call in docs/api.md, and `GET` then has the part that it shows."""
    method, path, body = block("docs/api.md", "PATCH /api/v1/server/4711/suspend").split(maxsplit=2)
    client.post("/api/v1/server/4711/", SIZES)
    assert client.call(method, path, json.loads(body)).json == {"success": True}
    shown = client.get("/api/v1/server/4711/").get_json()["suspended"]
    page = (ROOT / "docs" / "api.md").read_text()
    [documented] = re.findall(r'`"suspended": ({.*?})`', page)
    assert shown | {"since": ""} == json.loads(documented) | {"since": ""}
    assert len(shown["since"]) == len(json.loads(documented)["since"])


def test_idle_stop_is_shown_as_written(client: Client, world: World) -> None:
    """The API takes the call in docs/api.md, and `GET` then has the part that it shows, as the controller wrote it."""
    method, path, body = block("docs/api.md", 'PATCH /api/v1/server/4711/   {"idle_stop_minutes"').split(maxsplit=2)
    documented = json.loads("{" + block("docs/api.md", '"idle_stop_minutes": 30, "idle"') + "}")
    client.post(path, {**SIZES, "game": "teeworlds"})
    assert client.call(method, path, json.loads(body)).json == {"success": True, "restarting": False}
    world.pods[4711]["metadata"]["uid"] = "pod"
    idle = documented["idle"]
    since, stops_at = (datetime.fromisoformat(idle[name]) for name in ("since", "stops_at"))
    found = Outlook("pod", idle["players"], since, stops_at)
    world.statefulsets[4711]["metadata"]["annotations"]["gameserver/idle"] = found.as_text()
    actual = client.get(path).json or {}
    assert {name: actual[name] for name in documented} == documented


def test_an_account_is_answered_as_written(world: World, settings: Settings) -> None:
    """The API accepts the request in docs/sftp.md (with a real key), and its answer has the same fields."""
    request, _, answer = block("docs/sftp.md", "PUT").partition("}")
    method, path, body = (request + "}").split(maxsplit=2)
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFHIk1fcvkbOiWR9x0gQaLX2X3X7ReyNFw0u0UV/cXC6"
    app = create_app(
        build_context(
            replace(settings, sftp_namespace="gameserver-sftp"), FakeCluster(world), FakeReleases(world), FakeAccounts()
        )
    )
    client = Client(app.test_client())
    client.post(path.removesuffix("/sftp"), SIZES)
    actual = client.call(method, path, json.loads(body.replace("ssh-ed25519 AAAA…", key))).json
    documented = json.loads(answer)
    assert actual is not None
    assert {name: type(value) for name, value in actual.items()} == {
        name: type(value) for name, value in documented.items()
    }
    assert actual | {"password": "", "host_keys": []} == documented | {
        "password": "", "host_keys": [], "public_keys": [f"{key} me@home"]
    }  # fmt: skip


def call_example(page: str, first: str, client: Client) -> tuple[dict[str, Any], dict[str, Any]]:
    """Send the call of an example; return the actual answer and the documented one."""
    request, _, answer = block(page, first).partition("\n")
    method, path, body = request.split(maxsplit=2)
    actual = client.call(method, path, json.loads(body)).json
    assert actual is not None
    return actual, json.loads(answer)


def test_a_wait_is_answered_as_written(client: Client) -> None:
    """The answer of a start that waits is that of docs/api.md, word for word."""
    request, _, answer = block("docs/api.md", "PATCH /api/v1/server/4711/start").partition("\n")
    method, path = request.split()
    client.post("/api/v1/server/4711/", SIZES)
    assert client.call(method, path).json == json.loads(answer)


def test_an_operation_is_shown_as_written(client: Client) -> None:
    """The calls in docs/ are accepted, and an operation looks as the one in docs/api.md, but for its progress."""
    for id in (4711, 4712):
        client.post(f"/api/v1/server/{id}/", {**SIZES, "customer": "acme"})
    for page in ("docs/api.md", "docs/operations.md"):
        method, path, body = block(page, "POST /api/v1/server/_bulk").split(maxsplit=2)
        assert client.call(method, path, json.loads(body)).status_code == 202
    request, _, answer = block("docs/api.md", "GET /api/v1/operation/op-").partition("\n")
    (operation,) = (
        each for each in (client.get("/api/v1/operation/").json or {})["operations"] if each["action"] == "restart"
    )
    documented = json.loads(answer)
    actual = client.get(f"{request.split()[1].rpartition('/')[0]}/{operation['id']}").json or {}
    changing = ("id", "state", "step", "created", "progress", "servers")
    assert {**actual, **dict.fromkeys(changing, "")} == {**documented, **dict.fromkeys(changing, "")}
    assert actual["progress"].keys() == documented["progress"].keys()
    assert [server["id"] for server in actual["servers"]] == [server["id"] for server in documented["servers"]]
    assert len(actual["id"]) == len(documented["id"])


def test_a_token_is_answered_as_written(world: World, settings: Settings) -> None:
    """The answer is that of docs/api.md, except for the token and the times."""
    client = Client(
        create_app(
            build_context(settings, FakeCluster(world), FakeReleases(world), tokens=_tokens(settings))
        ).test_client()
    )
    actual, documented = call_example("docs/api.md", "POST /api/v1/token ", client)
    assert actual | {"token": "", "expires": ""} == documented | {"token": "", "expires": ""}
    assert actual["token"].startswith(documented["token"].removesuffix("…"))
    assert len(actual["expires"]) == len(documented["expires"])


def test_a_login_link_is_answered_as_written(world: World, settings: Settings) -> None:
    """The answer is that of docs/api.md, except for the code and the time."""
    client = Client(
        create_app(
            build_context(settings, FakeCluster(world), FakeReleases(world), tokens=_tokens(settings))
        ).test_client()
    )
    actual, documented = call_example("docs/api.md", "POST /api/v1/login-link ", client)
    assert actual.keys() == documented.keys()
    assert actual["link"].startswith(documented["link"].removesuffix("…"))
    assert len(actual["expires"]) == len(documented["expires"])


def test_a_schedule_is_set_as_written(client: Client, world: World) -> None:
    """The request in docs/api.md is accepted, and after a run the answer has the part that is shown."""
    method, path, body = block("docs/api.md", "PUT /api/v1/server/4711/schedule").split(maxsplit=2)
    client.post("/api/v1/server/4711/", SIZES)
    assert client.call(method, path, json.loads(body)).status_code == 201
    documented = json.loads("{" + block("docs/api.md", '"next_run"') + "}")
    created = spec.of_values(world.values[4711]["schedules"])["nightly"].created
    shown = documented["last_run"]
    due, started, finished = (datetime.fromisoformat(shown[name]) for name in ("due", "started", "finished"))
    run = runs.at_step(runs.begun(None, created, due, "a", started, 1), created, due, "a", 1, "restart")
    run = runs.ended(run, created, due, "a", finished, "succeeded")
    annotations = world.statefulsets[4711]["metadata"]["annotations"]
    annotations[SCHEDULE_RUNS] = runs.changed(None, "nightly", lambda _: run)
    actual = client.get(path).json or {}
    assert {name: actual[name] for name in ("paused", "last_run")} == {
        name: documented[name] for name in ("paused", "last_run")
    }
    assert len(actual["next_run"]) == len(documented["next_run"])


def test_a_webhook_is_answered_as_written(world: World, settings: Settings) -> None:
    """The answer is that of docs/api.md, except for the secret and the time."""
    place = Place()
    records = partial(RecordStore, place.kube, settings.servers_namespace)
    app = create_app(
        build_context(settings, FakeCluster(world), FakeReleases(world), records=records, webhooks=place.webhooks)
    )
    actual, documented = call_example("docs/api.md", "PUT /api/v1/webhook/shop ", Client(app.test_client()))
    assert actual | {"secret": "", "created": ""} == documented | {"secret": "", "created": ""}
    assert actual["secret"].startswith(documented["secret"].removesuffix("…"))
    assert len(actual["created"]) == len(documented["created"])


def _tokens(settings: Settings) -> FakeTokens:
    assert settings.tokens_file
    return FakeTokens(TokensFile(settings.tokens_file))


def test_a_backup_is_made_and_restored_as_written(make_app: Callable[..., Flask]) -> None:
    """The API takes the calls in docs/api.md, and shows a backup as it says."""
    app = make_app(backup_store={"kind": "folder"})
    client, context = Client(app.test_client()), app.extensions["gameserver"]

    def sent(first: str) -> Any:
        method, path, body = block("docs/api.md", first).split(maxsplit=2)
        return client.call(method, path, json.loads(body))

    client.post("/api/v1/server/4711/", {**SIZES, "customer": "acme"})
    keep = sent('PATCH /api/v1/server/4711/   {"backup_keep"')
    assert keep.get_json() == {"success": True, "restarting": False}
    made = sent("POST /api/v1/server/4711/backup")
    assert (made.status_code, made.get_json()["action"]) == (202, "backup")
    context.operations.show(replace(context.operations.all()[0], state="done"), lambda: None)
    # The documented backup, as the controller records it.
    _, path, body = block("docs/api.md", "GET /api/v1/server/4711/backup/b-").split(maxsplit=2)
    documented = json.loads(body)
    uid = context.releases.current(4711)["server"]["uid"]
    names = set(documented) - {"success", "server", "consistency", "where", "unreadable"}
    backup = Backup(**{name: documented[name] for name in names}, consistency="game-saved", where="store")
    context.backups.change(uid, lambda kept: replace(kept, backups=(backup,)))
    documented["server"]["uid"] = uid
    assert client.get(path).get_json() == documented
    _, path = block("docs/api.md", "GET /api/v1/backup/?").split()
    until(lambda: [each["id"] for each in client.get(path).get_json()["backups"]] == [backup.id])
    assert sent("POST /api/v1/server/4712/").get_json()["action"] == "clone"
    context.operations.show(replace(context.operations.all()[0], state="done"), lambda: None)
    assert sent("POST /api/v1/server/4711/restore").get_json()["backup"] == backup.id
