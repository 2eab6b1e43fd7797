"""File access: accounts, keys, fingerprints, and where there is none."""

from __future__ import annotations

import base64
import ctypes
import struct
from collections.abc import Callable
from dataclasses import replace

import asyncssh
import pytest
from flask import Flask

from service.app import create_app
from service.files.accounts import Account
from service.files.credentials import new_password, password_hash, public_key
from service.settings import Settings
from tests.api.conftest import Client
from tests.support.fakes import FINGERPRINT, FakeAccounts, FakeCluster, FakeReleases, World

MADE = {"ram_gb": 2, "disk_gb": 10}
SFTP = "/api/v1/server/7/sftp"


def key_of(kind: str, comment: str = "", **options: int) -> str:
    key = asyncssh.generate_private_key(kind, comment=comment or None, **options)
    return key.export_public_key().decode().strip()


ED25519 = key_of("ssh-ed25519", "me@home")
ECDSA = key_of("ecdsa-sha2-nistp256")


@pytest.fixture
def accounts() -> FakeAccounts:
    return FakeAccounts()


@pytest.fixture
def files(world: World, settings: Settings, accounts: FakeAccounts) -> Client:
    """An API with file access, and server 7."""
    app = create_app(
        replace(settings, sftp_namespace="gameserver-sftp"), FakeCluster(world), FakeReleases(world), accounts
    )
    client = Client(app.test_client())
    assert client.post("/api/v1/server/7/", MADE).status_code == 201
    return client


def put(client: Client, body: object, **more: str) -> object:
    return client.call("PUT", SFTP, body, **more).json


def test_before_anything_is_set_nobody_gets_in(files: Client) -> None:
    assert files.get(SFTP).json == {
        "success": True,
        "user": "server-7",
        "password": None,
        "password_set": False,
        "public_keys": [],
        "host_keys": [FINGERPRINT],
    }


def test_a_password_is_shown_once_and_kept_as_a_hash(files: Client, accounts: FakeAccounts) -> None:
    answer = files.call("PUT", SFTP, {"password": True}).json
    assert answer is not None
    password = answer["password"]
    assert len(password) == 20
    assert answer["password_set"] is True
    kept = accounts.accounts[7].password_hash
    assert kept is not None
    assert password not in kept
    assert crypt(password, kept) == kept
    later = files.get(SFTP).json
    assert later is not None
    assert (later["password"], later["password_set"]) == (None, True)


def test_what_is_not_named_stays(files: Client, accounts: FakeAccounts) -> None:
    put(files, {"password": True, "public_keys": [ED25519]})
    before = accounts.accounts[7]
    put(files, {})
    assert accounts.accounts[7] == before
    put(files, {"public_keys": []})
    assert accounts.accounts[7] == Account(before.password_hash, ())
    put(files, {"password": False})
    assert accounts.accounts[7] == Account()


def test_keys_are_kept_once_each_with_their_comment(files: Client) -> None:
    answer = files.call("PUT", SFTP, {"public_keys": [f"  {ED25519} \n", ECDSA, ED25519]}).json
    assert answer is not None
    assert answer["public_keys"] == [ED25519, ECDSA]


def test_a_key_that_is_none_is_refused_by_its_place(files: Client, accounts: FakeAccounts) -> None:
    answer = files.call("PUT", SFTP, {"public_keys": [ED25519, "not a key"]})
    assert answer.status_code == 422
    assert answer.json is not None
    assert list(answer.json["errors"]) == ["public_keys.1"]
    assert 7 not in accounts.accounts


@pytest.mark.parametrize(
    "body",
    [
        {"password": "mine"},
        {"password": None},
        {"password": 1},
        {"public_keys": ED25519},
        {"public_keys": None},
        {"public_keys": [None]},
        {"public_keys": [[]]},
        {"public_keys": [""]},
        {"public_keys": [ED25519] * 21},
        {"user": "root"},
        [],
    ],
)
def test_what_does_not_fit_is_refused(files: Client, accounts: FakeAccounts, body: object) -> None:
    assert files.call("PUT", SFTP, body).status_code == 422
    assert 7 not in accounts.accounts


def test_the_port_leads_to_the_files(files: Client) -> None:
    answer = files.patch("/api/v1/server/7/port/sftp")
    assert answer.status_code == 200
    assert answer.json is not None
    assert answer.json.keys() == {"success", "port", "protocol", "host"}
    server = files.get("/api/v1/server/7/").json
    assert server is not None
    assert server["ports"]["sftp"]["port"] == answer.json["port"]


def test_a_deleted_servers_account_goes_and_a_new_servers_begins_empty(files: Client, accounts: FakeAccounts) -> None:
    put(files, {"password": True})
    files.delete("/api/v1/server/7/")
    assert accounts.accounts == {}
    accounts.accounts[7] = Account("left by a hand")
    assert files.post("/api/v1/server/7/", {**MADE, "disk": "reuse"}).status_code == 201
    assert accounts.accounts == {}


def test_creating_a_server_again_leaves_its_account(files: Client, accounts: FakeAccounts) -> None:
    put(files, {"password": True})
    assert files.post("/api/v1/server/7/", MADE).status_code == 200
    assert accounts.accounts[7].password_hash


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [("GET", SFTP, None), ("PUT", SFTP, {"password": True}), ("PATCH", "/api/v1/server/7/port/sftp", None)],
)
class TestRefusals:
    def test_a_disk_that_is_not_a_nodes_own(
        self, files: Client, accounts: FakeAccounts, method: str, path: str, body: object
    ) -> None:
        accounts.local = False
        answer = files.call(method, path, body)
        assert answer.status_code == 409
        assert answer.json is not None
        assert answer.json["type"] == "/problems/disk-not-node-local"

    def test_the_chart_is_not_installed(
        self, files: Client, accounts: FakeAccounts, method: str, path: str, body: object
    ) -> None:
        accounts.installed = False
        assert files.call(method, path, body).status_code == 501

    def test_the_api_knows_no_file_access(
        self, make_app: Callable[..., Flask], method: str, path: str, body: object
    ) -> None:
        client = Client(make_app().test_client())
        client.post("/api/v1/server/7/", MADE)
        assert client.call(method, path, body).status_code == 501

    def test_there_is_no_such_server(self, files: Client, method: str, path: str, body: object) -> None:
        assert files.call(method, path.replace("7", "8"), body).status_code == 404

    def test_another_customers_server(self, files: Client, method: str, path: str, body: object) -> None:
        assert files.call(method, path, body, token="acme").status_code == 404


def without_a_disk(world: World, *, running: bool) -> None:
    """As a claim waits for the first pod that uses it: storage classes with WaitForFirstConsumer."""
    world.claims[7]["status"] = {"phase": "Pending"}
    world.statefulsets[7]["spec"]["replicas"] = int(running)


GIVES_OUT = [
    ("PUT", SFTP, {"password": True}),
    ("PUT", SFTP, {"public_keys": [ED25519]}),
    ("PATCH", "/api/v1/server/7/port/sftp", None),
    ("GET", "/api/v1/server/7/port/sftp", None),
]


@pytest.mark.parametrize(("method", "path", "body"), GIVES_OUT)
class TestBeforeTheFirstStart:
    """A customer is not told to connect to where nothing answers yet."""

    def test_it_says_to_start_the_server_once(
        self, files: Client, world: World, accounts: FakeAccounts, method: str, path: str, body: object
    ) -> None:
        without_a_disk(world, running=False)
        answer = files.call(method, path, body)
        assert answer.json is not None
        assert (answer.status_code, answer.json["type"]) == (409, "/problems/disk-not-made")
        assert "Start the server once" in answer.json["detail"]
        assert "Retry-After" not in answer.headers
        assert 7 not in accounts.accounts

    def test_while_that_start_makes_the_disk_it_says_when_to_come_again(
        self, files: Client, world: World, method: str, path: str, body: object
    ) -> None:
        without_a_disk(world, running=True)
        answer = files.call(method, path, body)
        assert answer.json is not None
        assert (answer.status_code, answer.json["type"]) == (503, "/problems/disk-not-ready")
        assert int(answer.headers["Retry-After"]) > 0

    def test_a_stopped_server_that_has_run_is_reached(
        self, files: Client, world: World, method: str, path: str, body: object
    ) -> None:
        world.statefulsets[7]["spec"]["replicas"] = 0
        assert files.call(method, path, body).status_code == 200


def test_before_the_first_start_one_may_look_and_take_away(files: Client, world: World, accounts: FakeAccounts) -> None:
    accounts.accounts[7] = Account("left from before", (ED25519,))
    without_a_disk(world, running=False)
    assert files.get(SFTP).status_code == 200
    assert files.call("PUT", SFTP, {"password": False, "public_keys": []}).status_code == 200
    assert accounts.accounts[7] == Account()


def test_an_account_of_an_earlier_server_counts_for_nothing(
    files: Client, world: World, accounts: FakeAccounts
) -> None:
    """Of the same id, left by a hand: it shows nothing, and what is set is this server's alone."""
    accounts.accounts[7] = Account("another's", (ED25519,), "another")
    shown = files.get(SFTP).json
    assert shown is not None
    assert (shown["password_set"], shown["public_keys"]) == (False, [])
    answer = files.call("PUT", SFTP, {"password": True}).json
    assert answer is not None
    assert answer["public_keys"] == []
    assert accounts.accounts[7].uid == world.values[7]["server"]["uid"]


def test_a_reader_may_look_but_not_set(files: Client) -> None:
    assert files.get(SFTP, token="reader").status_code == 200
    assert files.call("PUT", SFTP, {"password": True}, token="reader").status_code == 403


@pytest.mark.parametrize(
    "kind", ["ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa"]
)
def test_keys_of_openssh_are_keys(kind: str) -> None:
    key = key_of(kind)
    assert public_key(f"{key} a comment with words") == f"{key} a comment with words"


def blob(*fields: bytes) -> str:
    return base64.b64encode(b"".join(struct.pack(">I", len(field)) + field for field in fields)).decode()


def test_a_security_key_is_a_key() -> None:
    key = f"sk-ssh-ed25519@openssh.com {blob(b'sk-ssh-ed25519@openssh.com', b'x' * 32, b'ssh:')}"
    assert public_key(key) == key


NO_KEYS = {
    "no data": "ssh-ed25519",
    "too little data": "ssh-ed25519 AAAA",
    "not base64": "ssh-ed25519 not/base64!",
    "a command": f'command="/bin/sh" {ED25519}',
    "an option": f"no-pty {ED25519}",
    "two lines": f"{ED25519}\n{ECDSA}",
    "a NUL": f"{ED25519}\0",
    "of another type": f"ssh-rsa {ED25519.split()[1]}",
    "cut off": f"ssh-ed25519 {ED25519.split()[1][:-8]}",
    "too short": f"ssh-ed25519 {blob(b'ssh-ed25519', b'x' * 31)}",
    "too long": f"ssh-ed25519 {blob(b'ssh-ed25519', b'x' * 32, b'more')}",
    "on another curve": f"ecdsa-sha2-nistp256 {blob(b'ecdsa-sha2-nistp256', b'nistp384', b'x' * 65)}",
    "too weak": f"ssh-rsa {blob(b'ssh-rsa', bytes([1, 0, 1]), b'x' * 128)}",
    "of a type that is no more": f"ssh-dss {blob(b'ssh-dss', b'x')}",
    "a private key": "-----BEGIN OPENSSH PRIVATE KEY-----",
    "a long comment": f"{ED25519} {'x' * 9000}",
}


@pytest.mark.parametrize("line", NO_KEYS.values(), ids=NO_KEYS)
def test_what_is_no_key_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"must|is|says"):
        public_key(line)


def crypt(password: str, setting: str) -> str:
    """libxcrypt's own opinion, which is sshd's."""
    library = ctypes.CDLL("libcrypt.so.1")
    library.crypt.restype = ctypes.c_char_p
    return str(library.crypt(password.encode(), setting.encode()).decode())


@pytest.mark.parametrize("password", [new_password(), "ü" * 40], ids=["new", "not ASCII"])
def test_the_hash_is_the_one_that_sshd_computes(password: str) -> None:
    kept = password_hash(password)
    assert crypt(password, kept) == kept
    assert crypt(password + "x", kept) != kept
    assert kept != password_hash(password)
