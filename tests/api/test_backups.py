"""Backups through the API: made, shown, changed and deleted, and by whom."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from service.backups.records import Backup, Before, ServerBackups, Unreadable
from service.kube.times import stamp
from service.operations.context import Context
from service.settings import Keep, Settings
from tests.api.conftest import SIZES, TOKENS, Client
from tests.support import tokens
from tests.support.backup_world import new_id
from tests.support.fakes import World

SERVER = "/api/v1/server/1/"
BACKUPS = f"{SERVER}backup/"
ACME = {**SIZES, "customer": "acme"}
KEEP = {"last": 2, "hourly": 0, "daily": 7, "weekly": 0}


def test_how_many_backups_stay_is_set_shown_and_taken_back(client: Client, world: World) -> None:
    """By create and change. What is not named is 0; null is the operator's default, and leaves no value."""
    client.post(SERVER, {**SIZES, "backup_keep": {"last": 2, "daily": 7}})
    assert world.values[1]["server"]["backupKeep"] == KEEP
    assert client.get(SERVER).get_json()["backup_keep"] == KEEP
    assert client.post(SERVER, SIZES).status_code == 200
    assert client.post(SERVER, {**SIZES, "backup_keep": None}).status_code == 409
    changed = client.patch(SERVER, {"backup_keep": {"weekly": 1}}).get_json()
    assert changed == {"success": True, "restarting": False}
    assert client.get(SERVER).get_json()["backup_keep"] == vars(Keep(0, 0, 0, 1))
    client.patch(SERVER, {"backup_keep": None})
    assert client.get(SERVER).get_json()["backup_keep"] is None
    assert "backupKeep" not in world.values[1]["server"]


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ({}, "must keep at least one"),
        ({"last": 0}, "must keep at least one"),
        ({"last": 21}, "must be from 0 to 20"),
        ({"last": -1, "daily": 2}, "must be from 0 to 20"),
        ({"last": "2"}, "must be a whole number"),
        ({"last": 1, "yearly": 1}, "unknown field"),
        ([], "must be an object"),
    ],
)
def test_how_many_backups_stay_has_bounds(client: Client, world: World, keep: Any, message: str) -> None:
    """At least one stays, because a new backup must not be the one that goes; and no more than a server may have."""
    client.post(SERVER, SIZES)
    answer = client.patch(SERVER, {"backup_keep": keep})
    assert answer.status_code == 422
    assert message in str(answer.get_json()["errors"])
    assert "backupKeep" not in world.values[1]["server"]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """With a store, and a token for server 1 alone, whoever's it is."""
    entries = [tokens.entry(name, f"{name}-secret", **more) for name, more in TOKENS.items()]
    entries += [
        tokens.entry("other", "other-secret", customer="other"),
        tokens.entry("one", "one-secret", servers=[1]),
        tokens.entry("deletes", "deletes-secret", scopes=["server:delete", "disk:erase"]),
    ]
    file = tokens.write(tmp_path / "tokens.json", *entries)
    return Settings(tokens_file=file, accepted_eulas=frozenset({"minecraft"}), backup_store={"kind": "folder"})


@pytest.fixture
def app(make_app: Callable[..., Flask]) -> Flask:
    return make_app()


@pytest.fixture
def context(app: Flask) -> Context:
    found: Context = app.extensions["gameserver"]
    return found


@pytest.fixture
def client(app: Flask) -> Client:
    return Client(app.test_client())


@pytest.fixture
def server(client: Client, context: Context) -> str:
    """The uid of acme's server 1, which runs."""
    assert client.post(SERVER, ACME).status_code == 201
    return uid_of(context)


def uid_of(context: Context) -> str:
    """The uid of server 1."""
    values = context.releases.current(1)
    assert values is not None
    return str(values["server"]["uid"])


def made(client: Client, body: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """The operation of a backup that is accepted."""
    answer = client.post(BACKUPS, body or {}, **more)
    assert answer.status_code == 202, answer.get_json()
    operation: dict[str, Any] = answer.get_json()
    assert answer.headers["Location"] == f"/api/v1/operation/{operation['id']}"
    return operation


def finish(context: Context, uid: str, **fields: Any) -> None:
    """Finish all backups of a server and their operations, as the controller does."""
    for operation in context.operations.all():
        if not operation.ended:
            context.operations.show(replace(operation, state="done"), lambda: None)
    done = {"state": "done", "where": "store", "consistency": "stopped", "finished": "2026-11-27T07:00:00Z", **fields}
    context.backups.change(
        uid,
        lambda kept: replace(
            kept, backups=tuple(replace(each, **done) if each.unfinished else each for each in kept.backups)
        ),
    )


def keep(context: Context, uid: str, *backups: Backup, **more: Any) -> None:
    """Keep these backups of a server."""
    kept = ServerBackups(**{"uid": uid, "id": 1, "customer": "acme", "game": "minecraft", **more}, backups=backups)
    context.backups.change(uid, lambda _: kept, kept)


def old(**fields: Any) -> Backup:
    """A backup of long ago, which is done."""
    return Backup(new_id(), **{"created": "2026-01-01T00:00:00Z", "state": "done", "where": "store", **fields})


def refused(answer: Any, status: int, slug: str) -> str:
    """The detail of a refusal."""
    assert (answer.status_code, answer.get_json()["type"]) == (status, f"/problems/{slug}"), answer.get_json()
    return str(answer.get_json()["detail"])


def test_a_backup_is_made_shown_and_deleted(client: Client, context: Context, server: str) -> None:
    """Each call that the controller carries out answers an operation; the one after it sees what was asked for."""
    operation = made(client, {"name": "before the update", "note": "x", "locked": True})
    assert (operation["action"], operation["state"]) == ("backup", "pending")
    path = BACKUPS + operation["backup"]
    shown = client.get(path).get_json()
    assert shown == {
        "success": True,
        "id": operation["backup"],
        "name": "before the update",
        "note": "x",
        "trigger": "manual",
        "locked": True,
        "created": operation["created"],
        "finished": None,
        "operation": operation["id"],
        "state": "queued",
        "reason": None,
        "files": None,
        "size_bytes": None,
        "added_bytes": None,
        "checked_at": None,
        "proven_at": None,
        "server": {"id": 1, "uid": server, "customer": "acme", "game": "minecraft", "deleted": None},
        "consistency": None,
        "where": None,
        "unreadable": {"count": 0, "paths": []},
        "suspicious": None,
        "accepted": False,
    }
    refused(client.delete(path), 409, "operation-in-progress")
    finish(context, server)
    assert client.patch(path, {"note": "y"}).get_json()["note"] == "y"
    refused(client.delete(path), 409, "backup-locked")
    unlocked = client.patch(path, {"locked": False}).get_json()
    assert (unlocked["locked"], unlocked["name"], unlocked["state"]) == (False, "before the update", "done")
    deleted = client.delete(path)
    assert (deleted.status_code, deleted.get_json()["action"]) == (202, "delete-backup")
    assert deleted.get_json()["backup"] == operation["backup"]
    assert client.get(path).get_json()["state"] == "deleting"
    assert client.delete(path).get_json()["id"] == deleted.get_json()["id"]
    refused(client.patch(path, {"name": "z"}), 409, "operation-in-progress")
    [argument] = [each.argument for each in context.operations.all() if each.action == "delete-backup"]
    assert argument == {"backup": operation["backup"]}


def test_a_backup_says_what_it_is_worth(client: Client, context: Context, server: str) -> None:
    """In words too: how consistent, where it lives and dies, what it lacks, and why it is suspicious."""
    keep(
        context, server,
        old(consistency="game-saved", size_bytes=7, added_bytes=3, files=2, proven_at="2026-01-02T00:00:00Z"),
        old(where="node", consistency="crash-like", why="The game did not answer.", created="2026-01-03T00:00:00Z"),
        old(suspicious="incomplete", unreadable=Unreadable(2, ("a", "b")), created="2026-01-04T00:00:00Z"),
        old(state="failed", reason="The store is full.", where=None, created="2026-01-05T00:00:00Z"),
    )  # fmt: skip
    failed, incomplete, node, saved = client.get(BACKUPS).get_json()["backups"]
    assert failed["reason"] == "The store is full."
    assert incomplete["suspicious"] == {"slug": "incomplete", "detail": "It lacks files that could not be read."}
    assert incomplete["unreadable"] == {"count": 2, "paths": ["a", "b"]}
    assert node["consistency"] == {"slug": "crash-like", "detail": "The game did not answer."}
    assert node["where"]["detail"] == "It is on the node of the server's disk: it lives and dies with that node."
    assert saved["consistency"]["detail"] == "The game had saved its world, and held still."
    assert [saved[name] for name in ("size_bytes", "added_bytes", "files")] == [7, 3, 2]


def test_a_suspicious_one_can_be_accepted(client: Client, context: Context, server: str) -> None:
    """And that can be taken back. There is nothing to accept of one that is not suspicious, or not made yet."""
    keep(context, server, old(suspicious="smaller"), old(created="2026-01-02T00:00:00Z"))
    good, small = client.get(BACKUPS).get_json()["backups"]
    changed = client.patch(BACKUPS + small["id"], {"accepted": True}).get_json()
    assert (changed["accepted"], changed["suspicious"]["slug"]) == (True, "smaller")
    assert client.patch(BACKUPS + small["id"], {"name": "x"}).get_json()["accepted"] is True
    assert client.patch(BACKUPS + small["id"], {"accepted": False}).get_json()["accepted"] is False
    for id in (good["id"], made(client)["backup"]):
        answer = client.patch(BACKUPS + id, {"accepted": True, "name": "y"})
        assert (answer.status_code, list(answer.get_json()["errors"])) == (422, ["accepted"])
        assert client.get(BACKUPS + id).get_json()["name"] == ""
        assert client.patch(BACKUPS + id, {"accepted": False}).status_code == 200


def test_the_list_has_the_bounds_and_what_can_be_undone(make_app: Callable[..., Flask]) -> None:
    """The newest restore first; one that is too old cannot be undone any more."""
    app = make_app(backup_gb_per_server=5, backups_per_server=12, backup_keep=Keep(1, 0, 2, 0))
    client, context = Client(app.test_client()), app.extensions["gameserver"]
    client.post(SERVER, ACME)
    empty = {"success": True, "backups": [], "stored_bytes": None, "most": 12, "most_gb": 5, "undo": []}
    assert client.get(BACKUPS).get_json() == {**empty, "keep": vars(Keep(1, 0, 2, 0))}
    client.patch(SERVER, {"backup_keep": {"last": 9}})
    now = datetime.now(UTC).replace(microsecond=0)
    times = [stamp(now - timedelta(days=days)) for days in (8, 2, 1)]
    befores = tuple(Before(f"op-{number}", at, "disk") for number, at in enumerate(times))
    keep(context, uid_of(context), befores=befores)
    listed = client.get(BACKUPS).get_json()
    assert listed["keep"] == vars(Keep(9, 0, 0, 0))
    assert [undo["restore"] for undo in listed["undo"]] == ["op-2", "op-1"]
    assert listed["undo"][0] == {
        "restore": "op-2", "at": times[2], "until": stamp(now + timedelta(days=6)), "where": "disk", "paths": [],
    }  # fmt: skip


def test_a_key_gives_the_same_backup(client: Client, context: Context, server: str) -> None:
    """However often it is sent; with another request it is refused."""
    headers = {"Idempotency-Key": "tonight"}
    first = made(client, {"name": "a"}, headers=headers)
    assert made(client, {"name": "a"}, headers=headers) == first
    refused(client.post(BACKUPS, {"name": "b"}, headers=headers), 409, "idempotency-key-reused")
    kept = context.backups.of(server)
    assert kept is not None
    assert [backup.id for backup in kept.backups] == [first["backup"]]


def test_one_at_a_time_and_two_in_ten_minutes(client: Client, context: Context, server: str) -> None:
    """429 with the time to wait. One that was deleted since counts too."""
    first = made(client)
    answer = client.post(BACKUPS, {})
    assert "is being made" in refused(answer, 429, "too-many-backups")
    assert answer.headers["Retry-After"] == "30"
    finish(context, server)
    made(client)
    finish(context, server)
    client.delete(BACKUPS + first["backup"])
    context.backups.change(server, lambda kept: kept.without(first["backup"]))
    answer = client.post(BACKUPS, {})
    assert "at most 2" in refused(answer, 429, "too-many-backups")
    assert 590 <= int(answer.headers["Retry-After"]) <= 601


def test_a_backup_that_was_never_begun_holds_up_no_other(client: Client, context: Context, server: str) -> None:
    """The API has ended between its two writes: after a minute the backup has failed."""
    long_ago = stamp(datetime.now(UTC) - timedelta(minutes=20))
    for created, status in ((stamp(datetime.now(UTC)), 429), (long_ago, 202)):
        keep(context, server, Backup(new_id(), created, operation="op-gone"))
        assert client.post(BACKUPS, {}).status_code == status
    states = [(each["state"], each["reason"]) for each in client.get(BACKUPS).get_json()["backups"]]
    assert states == [("queued", None), ("failed", "Nothing makes it any more.")]


@pytest.mark.parametrize(("locked", "status"), [((True, True), 429), ((True, False), 202)])
def test_only_what_may_go_makes_room(make_app: Callable[..., Flask], locked: tuple[bool, ...], status: int) -> None:
    """The oldest goes when the new one is there. If all are locked, none may, and waiting does not help."""
    app = make_app(backups_per_server=2)
    client, context = Client(app.test_client()), app.extensions["gameserver"]
    client.post(SERVER, ACME)
    keep(context, uid_of(context), *(old(locked=each) for each in locked))
    answer = client.post(BACKUPS, {})
    assert answer.status_code == status
    assert "Retry-After" not in answer.headers
    assert len(client.get(BACKUPS).get_json()["backups"]) == 2 + (status == 202)


def test_a_backup_needs_a_disk_and_somewhere_to_be(make_app: Callable[..., Flask], world: World) -> None:
    """The answer says what to do."""
    client = Client(make_app(backup_store=None).test_client())
    client.post(SERVER, {**ACME, "start": False})
    assert "first start" in refused(client.post(BACKUPS, {}), 409, "disk-not-made")
    client.patch(f"{SERVER}start")
    assert "docs/operations.md" in refused(client.post(BACKUPS, {}), 409, "backups-not-possible")
    world.snapshots = True
    made(client)


def test_no_backup_of_a_world_that_is_being_replaced(client: Client, context: Context, server: str) -> None:
    """Nor the other way round."""
    keep(context, server, old())
    [backup] = client.get(BACKUPS).get_json()["backups"]
    restore = client.post(f"{SERVER}restore", {"backup": backup["id"]})
    assert (restore.status_code, restore.get_json()["action"]) == (202, "restore")
    assert restore.get_json()["id"] in refused(client.post(BACKUPS, {}), 409, "operation-in-progress")
    finish(context, server)
    made(client)
    refused(client.post(f"{SERVER}restore", {"backup": backup["id"]}), 409, "operation-in-progress")


def test_a_restore_and_its_undo_are_accepted(client: Client, context: Context, server: str) -> None:
    """Of a backup of this server that is done; and while the world of before is kept."""
    failed = old(state="failed")
    keep(context, server, failed)
    refused(client.post(f"{SERVER}restore", {"backup": failed.id}), 409, "backup-not-usable")
    refused(client.post(f"{SERVER}restore", {"backup": new_id()}), 404, "backup-not-found")
    refused(client.post(f"{SERVER}restore", {"backup": "b-1"}), 422, "invalid-request")
    refused(client.post(f"{SERVER}undo-restore", {}), 409, "nothing-to-undo")
    keep(context, server, befores=(Before(f"op-{'0' * 26}", stamp(datetime.now(UTC)), "disk"),))
    undo = client.post(f"{SERVER}undo-restore", {})
    assert (undo.status_code, undo.get_json()["action"]) == (202, "undo-restore")


@pytest.mark.parametrize("where", ["node", "store"])
@pytest.mark.parametrize("reads", ["restore", "clone"])
def test_a_snapshot_that_is_read_is_not_deleted(
    client: Client, context: Context, server: str, where: str, reads: str
) -> None:
    """Before the restore or clone has ended. What is in the store stays there until the next prune anyway."""
    backup, other = old(where=where), old(where=where)
    keep(context, server, backup, other)
    if reads == "restore":
        reading = client.post(f"{SERVER}restore", {"backup": backup.id})
    else:
        reading = client.post("/api/v1/server/2/", {**ACME, "from": {"backup": backup.id}})
    assert reading.status_code == 202
    if where == "node":
        answer = client.delete(BACKUPS + backup.id)
        assert reading.get_json()["id"] in refused(answer, 409, "operation-in-progress")
        assert answer.headers["Retry-After"] == "30"
        assert client.get(BACKUPS + backup.id).get_json()["state"] == "done"
        assert client.delete(BACKUPS + other.id).status_code == 202
        finish(context, server)
    assert client.delete(BACKUPS + backup.id).status_code == 202


def test_another_customer_with_the_same_id_sees_nothing(client: Client, context: Context, server: str) -> None:
    """The backups of a server that is gone stay its customer's; whoever has the id now finds no trace of them.

    That goes for a token that is confined to the id alone, too.
    """
    backup = old(name="secret")
    keep(context, server, backup)
    assert client.get(f"/api/v1/backup/{backup.id}", token="one").status_code == 200
    client.delete(f"{SERVER}?disk=erase")
    client.post(SERVER, {**SIZES, "customer": "other"})
    for token in ("other", "one"):
        assert client.get(BACKUPS, token=token).get_json()["backups"] == []
        for query in ("", "?server=1", f"?uid={server}", "?customer=acme"):
            listed = client.get(f"/api/v1/backup/{query}", token=token).get_json()
            assert (query, listed["backups"]) == (query, [])
        for method, path, body in (
            ("GET", f"{BACKUPS}{backup.id}", None),
            ("PATCH", f"{BACKUPS}{backup.id}", {"locked": True}),
            ("DELETE", f"{BACKUPS}{backup.id}", None),
            ("GET", f"/api/v1/backup/{backup.id}", None),
            ("DELETE", f"/api/v1/backup/{backup.id}", None),
            ("POST", f"{SERVER}restore", {"backup": backup.id}),
        ):
            refused(client.call(method, path, body, token=token), 404, "backup-not-found")
        clone = client.post("/api/v1/server/2/", {**SIZES, "from": {"backup": backup.id}}, token=token)
        refused(clone, 404, "server-not-found" if token == "one" else "backup-not-found")
    assert context.backups.of(server) is not None
    # His customer still has them, and may delete them.
    assert [each["id"] for each in client.get("/api/v1/backup/", token="acme").get_json()["backups"]] == [backup.id]
    assert client.get(f"/api/v1/backup/{backup.id}", token="acme").get_json()["name"] == "secret"
    assert client.delete(f"/api/v1/backup/{backup.id}", token="acme").status_code == 202


def test_all_backups_are_listed_in_pages(client: Client, context: Context) -> None:
    """By the uids of their servers; of each server, the newest first."""
    for number in range(5):
        keep(context, f"uid-{number}", old(), old(created="2026-02-01T00:00:00Z"), id=number + 1)
    keep(context, "uid-5", id=6)
    pages, continue_ = [], ""
    while continue_ is not None:
        answer = client.get(f"/api/v1/backup/?limit=2{continue_ and f'&continue={continue_}'}").get_json()
        pages.append([(each["server"]["uid"], each["created"][5:7]) for each in answer["backups"]])
        continue_ = answer["continue"]
    expected = [[(f"uid-{each}", month) for each in page for month in ("02", "01")] for page in ((0, 1), (2, 3), (4,))]
    assert pages == expected
    [one, _] = client.get("/api/v1/backup/?server=3").get_json()["backups"]
    assert one["server"]["uid"] == "uid-2"
    assert client.get(f"/api/v1/backup/?server={2**63 - 1}").get_json()["backups"] == []


def test_a_new_backup_is_seen_at_once_by_every_replica(make_app: Callable[..., Flask], server: str) -> None:
    """By the calls about its server, by its own address, and by the list with its server's uid."""
    one, other = (Client(make_app().test_client()) for _ in range(2))
    assert other.get("/api/v1/backup/").get_json()["backups"] == []
    backup = made(one)["backup"]
    assert other.get(BACKUPS + backup).status_code == 200
    assert [each["id"] for each in other.get(f"/api/v1/backup/?uid={server}").get_json()["backups"]] == [backup]
    assert other.get(f"/api/v1/backup/{backup}").status_code == 200


def test_a_delete_erases_backups_only_if_it_says_so(client: Client, context: Context, server: str) -> None:
    """It needs the scope. The controller then deletes all of them."""
    keep(context, server, old(locked=True))

    def erase() -> bool:
        kept = context.backups.of(server)
        assert kept is not None
        return kept.erase

    refused(client.delete(f"{SERVER}?backups=erase", token="deletes"), 403, "missing-scope")
    assert client.get(SERVER).status_code == 200
    assert client.delete(SERVER).status_code == 200
    assert not erase()
    # The disk was kept, and knows whose it was.
    assert client.delete(f"{SERVER}?disk=erase&backups=erase").status_code == 200
    assert erase()


@pytest.mark.parametrize(
    "body", [{"name": "x" * 65}, {"note": "x" * 201}, {"name": "a\nb"}, {"locked": 1}, {"name": None}, {"keep": 1}]
)
def test_what_a_backup_is_called_has_bounds(client: Client, server: str, body: object) -> None:
    """A server's backups share one record of 64 KiB."""
    refused(client.post(BACKUPS, body), 422, "invalid-request")


def test_what_is_done_with_backups_is_audited(
    client: Client, context: Context, server: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With the backup and the operation."""
    caplog.set_level(logging.INFO, "service.audit")
    operation = made(client)
    finish(context, server)
    path = BACKUPS + operation["backup"]
    client.patch(path, {"name": "a"})
    deletion = client.delete(path).get_json()["id"]
    common = {"token": "shop", "server": 1, "outcome": "ok"}
    lines = [record.fields for record in caplog.records if record.name == "service.audit"]  # type: ignore[attr-defined]
    assert lines == [
        {**common, "action": "make_backup", "operation": operation["id"]},
        {**common, "action": "change_server_backup", "backup": operation["backup"]},
        {**common, "action": "delete_server_backup", "backup": operation["backup"], "operation": deletion},
    ]
