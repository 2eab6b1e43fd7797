"""Schedules through the API: what is accepted, what is kept, and what a call may do."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

import pytest
from flask import Flask

from service.app import create_app
from service.assembly import build_context
from service.operations import schedules
from service.schedules import runs, spec
from service.servers.names import SCHEDULE_RUNS, SCHEDULES
from service.servers.values import restarts
from service.settings import Settings
from service.tokens import TokensFile
from tests.api.conftest import SIZES, Client
from tests.support import tokens
from tests.support.fakes import FakeCluster, FakeReleases, FakeTokens, World

NIGHTLY: dict[str, Any] = {"cron": "30 4 * * *", "timezone": "Europe/Berlin", "steps": [{"restart": {}}]}
PATH = "/api/v1/server/1/schedule/nightly"
SHOWN = {
    "name": "nightly",
    **NIGHTLY,
    "only_when": None,
    "enabled": True,
    "timeout_s": 3600,
    "paused": None,
    "last_run": None,
}


@pytest.fixture
def client(make_app: Callable[..., Flask]) -> Client:
    """A client, and a server 1 of the customer acme."""
    client = Client(make_app().test_client())
    assert client.post("/api/v1/server/1/", {**SIZES, "customer": "acme"}).status_code == 201
    return client


def put(client: Client, path: str = PATH, token: str = "shop", **changes: Any) -> Any:
    return client.call("PUT", path, {**NIGHTLY, **changes}, token=token)


def body_of(answer: Any) -> dict[str, Any]:
    """The body without `success` and `next_run`, which depends on the time."""
    body: dict[str, Any] = answer.get_json()
    assert body.pop("success") is True
    body.pop("next_run", None)
    return body


def test_a_schedule_is_set_read_changed_and_deleted(client: Client, world: World) -> None:
    """PUT answers 201 for a new one and 200 for a change; the same again changes nothing."""
    assert client.get(PATH).get_json()["type"] == "/problems/schedule-not-found"
    answer = put(client)
    assert (answer.status_code, body_of(answer)) == (201, SHOWN)
    upgrades = len(world.history)
    answer = put(client)
    assert (answer.status_code, body_of(answer)) == (200, SHOWN)
    assert len(world.history) == upgrades
    wait = [{"stop": {}}, {"wait": 300}, {"start": {}}]
    changed: dict[str, Any] = {"steps": wait, "only_when": "empty", "enabled": False, "timeout_s": 600}
    answer = put(client, **changed)
    assert (answer.status_code, body_of(answer)) == (200, {**SHOWN, **changed})
    assert body_of(client.get(PATH)) == {**SHOWN, **changed}
    assert client.get(PATH).get_json()["next_run"] is None
    put(client, path=PATH.replace("nightly", "a"))
    names = [each["name"] for each in client.get("/api/v1/server/1/schedule/").get_json()["schedules"]]
    assert names == ["a", "nightly"]
    for name in names:
        assert client.delete(PATH.replace("nightly", name)).status_code == 200
    assert client.delete(PATH).status_code == 404
    assert client.get("/api/v1/server/1/schedule/").get_json() == {"success": True, "schedules": []}
    assert "schedules" not in world.values[1]


def test_the_next_run_is_by_the_clock_of_its_zone(client: Client) -> None:
    """04:30 in Berlin is 02:30 or 03:30 in UTC."""
    due = datetime.fromisoformat(put(client).get_json()["next_run"])
    assert timedelta() < due - datetime.now(UTC) < timedelta(days=1, hours=1)
    assert (due.hour, due.minute) in ((2, 30), (3, 30))


def test_what_is_kept(client: Client, world: World) -> None:
    """The values name the token, and of its rights only what the steps need; no hash and no token."""
    put(client, token="acme")
    put(client, path=PATH.replace("nightly", "quiet"), steps=[{"wait": 5}])
    kept = spec.of_values(world.values[1]["schedules"])
    by = kept["nightly"].by
    assert by == replace(by, token="acme", scopes=frozenset({"server:power"}), customer="acme", servers=None)
    assert (kept["quiet"].by.token, kept["quiet"].by.scopes, kept["quiet"].by.customer) == ("shop", frozenset(), None)
    annotations = world.statefulsets[1]["metadata"]["annotations"]
    assert spec.of_annotation(annotations[SCHEDULES]) == kept
    assert "sha256" not in json.dumps(world.values[1]["schedules"])


def test_a_command_is_kept_as_it_is(client: Client) -> None:
    """Whatever the line is. It needs the scope of the call that sends a command."""
    steps = [{"command": "say ${x} {{ y }} '\"\\ 😀"}, {"wait": 60}, {"command": "ä" * 500}]
    assert put(client, steps=steps).get_json()["steps"] == steps
    assert client.get(PATH).get_json()["steps"] == steps


def test_a_change_keeps_a_running_game(client: Client, world: World) -> None:
    """Schedules are no part of the pod."""
    before = dict(world.values[1])
    put(client)
    assert not restarts(before, world.values[1])
    assert client.patch("/api/v1/server/1/", {"ram_gb": 3}).status_code == 200
    assert "nightly" in world.values[1]["schedules"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"cron": "often"}, "cron"),
        ({"cron": "* * * * *"}, "cron"),
        ({"cron": None}, "cron"),
        ({"timezone": "Mars/Phobos"}, "timezone"),
        ({"steps": []}, "steps"),
        ({"steps": [{"restart": {}}] * 21}, "steps"),
        ({"steps": [{"restart": {}, "stop": {}}]}, "steps.0"),
        ({"steps": [{"restart": {"now": True}}]}, "steps.0"),
        ({"steps": [{"stop": {}}, {"command": "say hi\nstop"}]}, "steps.1"),
        ({"steps": [{"command": ""}]}, "steps.0"),
        ({"steps": [{"command": "ä" * 501}]}, "steps.0"),
        ({"steps": [{"command": {}}]}, "steps.0"),
        ({"steps": [{"wait": 0}]}, "steps.0"),
        ({"steps": [{"wait": True}]}, "steps.0"),
        ({"steps": [{"wait": 1.0}]}, "steps.0"),
        ({"steps": [{"explode": {}}]}, "steps.0"),
        ({"steps": ["restart"]}, "steps.0"),
        ({"only_when": "raining"}, "only_when"),
        ({"enabled": "yes"}, "enabled"),
        ({"timeout_s": 59}, "timeout_s"),
        ({"timeout_s": 21601}, "timeout_s"),
        ({"more": 1}, "more"),
    ],
)
def test_what_is_invalid_is_refused(client: Client, changes: dict[str, Any], field: str) -> None:
    """With the field that is wrong."""
    answer = put(client, **changes)
    assert (answer.status_code, list(answer.get_json()["errors"])) == (422, [field])


@pytest.mark.parametrize("name", ["Nightly", "n_x", "x" * 33, "é", "a.b"])
def test_a_name_is_short_and_plain(client: Client, name: str) -> None:
    """Any other is no path of the API."""
    assert put(client, path=PATH.replace("nightly", name)).status_code == 404


def test_a_server_has_at_most_twenty(client: Client) -> None:
    """The next one is refused; a change of one is not."""
    for number in range(20):
        assert put(client, path=PATH.replace("nightly", f"s{number}")).status_code == 201
    assert put(client).get_json()["type"] == "/problems/too-many-schedules"
    assert put(client, path=PATH.replace("nightly", "s7"), enabled=False).status_code == 200


def test_all_schedules_of_a_server_fit_into_an_annotation(client: Client, world: World) -> None:
    """Kubernetes would refuse every other annotation of the server otherwise. Go writes `<` as 6 bytes."""
    full: dict[str, Any] = {"steps": [{"command": "<" * 1000}] * 10}
    assert put(client, **full).status_code == 201
    before = world.values[1]["schedules"]
    answer = put(client, path=PATH.replace("nightly", "second"), **full)
    assert (answer.status_code, answer.get_json()["type"]) == (409, "/problems/too-many-schedules")
    assert "64 KiB" in answer.get_json()["detail"]
    assert put(client, steps=[{"command": "<" * 1000}] * 11).status_code == 409
    assert world.values[1]["schedules"] == before
    assert put(client, path=PATH.replace("nightly", "second")).status_code == 201


def make(world: World, settings: Settings, *entries: dict[str, Any], records: dict[str, str] | None = None) -> Client:
    """A client of an API with other tokens of the operator's, and with issued tokens."""
    assert settings.tokens_file is not None
    tokens.write(settings.tokens_file, tokens.entry("shop", "shop-secret"), *entries)
    issued = FakeTokens(TokensFile(settings.tokens_file), records)
    return Client(
        create_app(build_context(settings, FakeCluster(world), FakeReleases(world), tokens=issued)).test_client()
    )


def test_the_steps_scopes_are_needed(world: World, settings: Settings) -> None:
    """To set and to run a schedule one must be allowed to do its steps; to read or abort it, not."""
    timer = tokens.entry("timer", "timer-secret", scopes=["schedule"])
    client = make(world, settings, timer)
    client.post("/api/v1/server/1/", SIZES)
    answer = put(client, token="timer")
    assert (answer.status_code, answer.get_json()["type"]) == (403, "/problems/missing-scope")
    assert put(client, token="timer", steps=[{"wait": 5}]).status_code == 201
    assert put(client).status_code == 200
    assert client.post(f"{PATH}/run", token="timer").status_code == 403
    assert client.get(PATH, token="timer").status_code == 200
    assert client.post(f"{PATH}/abort", token="timer").status_code == 200


def test_a_backup_needs_the_scope_of_backups(world: World, settings: Settings) -> None:
    """Which the run gets, and nothing else."""
    scopes = ["schedule", "server:power", "server:create"]
    entries = [
        tokens.entry("power", "power-secret", scopes=scopes),
        tokens.entry("backs-up", "backs-up-secret", scopes=["schedule", "backup:create"]),
    ]
    client = make(world, settings, *entries)
    client.post("/api/v1/server/1/", SIZES, token="power")
    answer = put(client, token="power", steps=[{"backup": {}}])
    assert (answer.status_code, answer.get_json()["type"]) == (403, "/problems/missing-scope")
    answer = put(client, token="backs-up", steps=[{"backup": {}}])
    assert (answer.status_code, answer.get_json()["steps"]) == (201, [{"backup": {}}])
    assert world.values[1]["schedules"]["nightly"]["by"]["scopes"] == ["backup:create"]


def test_each_call_needs_its_scope(world: World, settings: Settings) -> None:
    """`schedule`, whatever else the token may do; no bundle but `admin` has it."""
    client = make(world, settings, tokens.entry("operator", "operator-secret", scopes=["read", "operate"]))
    client.post("/api/v1/server/1/", SIZES)
    put(client)
    for answer in (
        put(client, token="operator"),
        client.get(PATH, token="operator"),
        client.get("/api/v1/server/1/schedule/", token="operator"),
        client.post(f"{PATH}/run", token="operator"),
        client.post(f"{PATH}/abort", token="operator"),
        client.delete(PATH, token="operator"),
    ):
        assert (answer.status_code, answer.get_json()["type"]) == (403, "/problems/missing-scope")
        assert "`schedule`" in answer.get_json()["detail"]


def test_a_customer_cannot_change_schedules_of_a_suspended_server(world: World, settings: Settings) -> None:
    """Set, run, abort and delete answer 403 with the reason."""
    scopes = ["schedule", "server:power", "server:read"]
    client = make(world, settings, tokens.entry("acme", "acme-secret", scopes=scopes, customer="acme"))
    client.post("/api/v1/server/1/", {**SIZES, "customer": "acme"})
    assert put(client, token="acme").status_code == 201
    client.patch("/api/v1/server/1/suspend", {"reason": "unpaid"})
    for answer in (
        put(client, token="acme", enabled=False),
        client.post(f"{PATH}/run", token="acme"),
        client.post(f"{PATH}/abort", token="acme"),
        client.delete(PATH, token="acme"),
    ):
        assert (answer.status_code, answer.get_json()["type"]) == (403, "/problems/server-suspended")
        assert "unpaid" in answer.get_json()["detail"]
    assert client.get(PATH, token="acme").status_code == 200
    assert put(client, enabled=False).status_code == 200


def run_of(world: World) -> runs.Run:
    return runs.read(world.statefulsets[1]["metadata"]["annotations"].get(SCHEDULE_RUNS))["nightly"]


def test_a_run_is_asked_for_once(client: Client, world: World) -> None:
    """The second call answers 409, until the run has ended."""
    assert client.post(f"{PATH}/run").status_code == 404
    put(client, enabled=False)
    answer = client.post(f"{PATH}/run")
    assert answer.status_code == 202
    last = answer.get_json()["last_run"]
    assert (last["outcome"], last["asked_by"], last["started"], last["step"]) == ("waiting", "shop", None, None)
    assert run_of(world).asked_for
    assert client.post(f"{PATH}/run").get_json()["type"] == "/problems/schedule-running"
    assert client.get(PATH).get_json()["last_run"] == last
    answer = client.post(f"{PATH}/abort")
    assert (answer.status_code, answer.get_json()["last_run"]["outcome"]) == (200, "aborted")
    assert client.post(f"{PATH}/abort").get_json()["last_run"]["outcome"] == "aborted"
    assert client.post(f"{PATH}/run").status_code == 202


def change_run(world: World, change: Callable[[runs.Run], runs.Run]) -> None:
    """What the controller does."""
    annotations = world.statefulsets[1]["metadata"]["annotations"]
    annotations[SCHEDULE_RUNS] = runs.changed(annotations[SCHEDULE_RUNS], "nightly", lambda run: run and change(run))


def test_a_run_is_shown_with_its_step(client: Client, world: World) -> None:
    """While it runs, and when it has ended."""
    put(client, steps=[{"stop": {}}, {"start": {}}])
    client.post(f"{PATH}/run")
    begun = datetime(2026, 6, 1, 4, tzinfo=UTC)
    change_run(world, lambda run: runs.begun(run, run.of, run.due, "a", begun, 2))
    change_run(world, lambda run: runs.at_step(run, run.of, run.due, "a", 1, "stop"))
    last = client.get(PATH).get_json()["last_run"]
    assert (last["outcome"], last["started"]) == ("running", "2026-06-01T04:00:00Z")
    assert last["step"] == {"number": 1, "of": 2, "action": "stop"}
    assert client.post(f"{PATH}/run").status_code == 409
    assert client.post(f"{PATH}/abort").status_code == 200
    assert run_of(world).abort
    change_run(world, lambda run: runs.ended(run, run.of, run.due, "a", begun, "failed", "The disk is full."))
    last = client.get(PATH).get_json()["last_run"]
    assert (last["outcome"], last["reason"]) == ("failed", "The disk is full.")
    assert last["step"] == {"number": 1, "of": 2, "action": "stop"}
    # An edit keeps the run; another schedule of the same name does not have it.
    assert put(client).get_json()["last_run"] == last
    assert client.delete(PATH).status_code == 200
    assert SCHEDULE_RUNS not in world.statefulsets[1]["metadata"]["annotations"]
    assert put(client).get_json()["last_run"] is None


def test_a_record_that_a_delete_left_is_not_shown(client: Client, world: World) -> None:
    """A schedule of the same name is another one."""
    put(client)
    client.post(f"{PATH}/run")
    left = world.statefulsets[1]["metadata"]["annotations"][SCHEDULE_RUNS]
    client.delete(PATH)
    put(client)
    world.statefulsets[1]["metadata"]["annotations"][SCHEDULE_RUNS] = left
    assert client.get(PATH).get_json()["last_run"] is None
    assert client.post(f"{PATH}/run").status_code == 202


def test_a_token_that_is_gone_pauses_its_schedules(world: World, settings: Settings) -> None:
    """GET says so and why; setting the schedule again ends the pause. So does a token that can do less, or see less."""
    entry = tokens.entry("acme", "acme-secret", customer="acme")
    client = make(world, settings, entry)
    client.post("/api/v1/server/1/", {**SIZES, "customer": "acme"})
    assert put(client, token="acme").get_json()["paused"] is None
    for gone, reason in (
        ([], "The token that set it, acme, is no longer valid."),
        ([{**entry, "scopes": ["read", "schedule"]}],
         "The token that set it, acme, no longer has the scope server:power."),
        ([{**entry, "customer": "other"}], "The token that set it, acme, may no longer see this server."),
        ([{**entry, "servers": [2]}], "The token that set it, acme, may no longer see this server."),
    ):  # fmt: skip
        client = make(world, settings, *gone)
        answer = client.get(PATH).get_json()
        assert (answer["paused"], answer["next_run"]) == (reason, None)
        assert client.get("/api/v1/server/1/schedule/").get_json()["schedules"][0]["paused"] == reason
        refused = client.post(f"{PATH}/run")
        assert (refused.status_code, refused.get_json()["detail"]) == (409, reason)
    assert put(client).get_json()["paused"] is None


def test_an_issued_token_that_is_revoked_pauses_its_schedules(
    world: World, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later token of the same name is another one. Set with that one, the schedule goes on as it was."""
    records: dict[str, str] = {}
    client = make(world, settings, records=records)
    client.post("/api/v1/server/1/", {**SIZES, "customer": "acme"})
    wanted = {"name": "friend", "scopes": ["schedule", "server:power"], "customer": "acme"}
    token = client.post("/api/v1/token", wanted).get_json()["token"]
    headers = {"Authorization": f"Bearer {token}"}
    assert client.flask.put(PATH, json=NIGHTLY, headers=headers).status_code == 201
    assert client.get(PATH).get_json()["paused"] is None
    client.delete("/api/v1/token/friend")
    assert client.get(PATH).get_json()["paused"] == "The token that set it, friend, is no longer valid."
    token = client.post("/api/v1/token", wanted).get_json()["token"]
    later = json.loads(records["token.friend"])
    records["token.friend"] = json.dumps({**later, "created": "2999-01-01T00:00:00Z"})
    assert client.get(PATH).get_json()["paused"] == "The token that set it, friend, is no longer valid."

    class Later(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Later:
            return cls(2999, 1, 2, tzinfo=tz)

    headers = {"Authorization": f"Bearer {token}"}
    with monkeypatch.context() as patch:
        patch.setattr(schedules, "datetime", Later)
        answer = client.flask.put(PATH, json=NIGHTLY, headers=headers)
    assert (answer.status_code, answer.get_json()["paused"]) == (200, None)
    assert client.get(PATH).get_json()["paused"] is None


def test_what_a_login_sets_lasts_longer_than_the_login(world: World, settings: Settings) -> None:
    """It stands under the token that made the link, confined as the login was."""
    records: dict[str, str] = {}
    client = make(world, settings, records=records)
    client.post("/api/v1/server/1/", {**SIZES, "customer": "acme"})
    wanted = {"customer": "acme", "scopes": ["schedule", "server:power"], "minutes": 5}
    link = client.post("/api/v1/login-link", wanted).get_json()["link"]
    headers = {"Authorization": f"Bearer {client.flask.get(link).get_json()['token']}"}
    assert client.flask.put(PATH, json=NIGHTLY, headers=headers).status_code == 201
    by = spec.of_values(world.values[1]["schedules"])["nightly"].by
    assert (by.token, by.customer) == ("shop", "acme")
    records.clear()
    assert client.get(PATH).get_json()["paused"] is None


def test_others_do_not_see_them(world: World, settings: Settings) -> None:
    """A server that the token may not see answers 404."""
    client = make(world, settings, tokens.entry("other", "other-secret", customer="other"))
    client.post("/api/v1/server/1/", {**SIZES, "customer": "acme"})
    put(client)
    assert client.get(PATH, token="other").get_json()["type"] == "/problems/server-not-found"
    assert client.get("/api/v1/server/1/schedule/", token="other").status_code == 404
    assert put(client, token="other").status_code == 404
    assert client.post(f"{PATH}/run", token="other").status_code == 404


def test_without_its_statefulset_a_server_shows_no_schedules(client: Client, world: World) -> None:
    """It says what to do, instead of that there are none."""
    put(client)
    del world.statefulsets[1]
    assert client.get(PATH).get_json()["type"] == "/problems/object-missing"
    assert client.get("/api/v1/server/1/schedule/").get_json()["type"] == "/problems/object-missing"
    before = len(world.history)
    for answer in (put(client), client.delete(PATH)):
        assert (answer.status_code, answer.get_json()["type"]) == (409, "/problems/object-missing")
    assert len(world.history) == before
    client.patch("/api/v1/server/1/start")
    assert put(client).status_code == 200


def test_an_id_that_is_used_again_has_no_schedules(client: Client) -> None:
    """They end with their server."""
    put(client)
    client.post(f"{PATH}/run")
    client.delete("/api/v1/server/1/?disk=erase")
    client.post("/api/v1/server/1/", SIZES)
    assert client.get("/api/v1/server/1/schedule/").get_json()["schedules"] == []
