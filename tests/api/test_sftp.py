"""SFTP accounts: passwords, public keys, and servers without file access."""

from __future__ import annotations

import base64
import ctypes
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import asyncssh
import pytest
from flask import Flask

from service.app import create_app
from service.assembly import build_context
from service.files.accounts import Account
from service.files.credentials import new_password, password_hash, public_key
from service.operations import file_access
from service.settings import Settings
from tests.api.conftest import SIZES, Client
from tests.support.fakes import FINGERPRINT, FakeAccounts, FakeCluster, FakeReleases, World

SFTP = "/api/v1/server/7/sftp"


def new_key(kind: str, comment: str = "", **options: int) -> str:
    """A new public key in OpenSSH's format."""
    key = asyncssh.generate_private_key(kind, comment=comment or None, **options)
    return key.export_public_key().decode().strip()


ED25519 = new_key("ssh-ed25519", "me@home")
ECDSA = new_key("ecdsa-sha2-nistp256")


@pytest.fixture
def accounts() -> FakeAccounts:
    return FakeAccounts()


@pytest.fixture
def files(world: World, settings: Settings, accounts: FakeAccounts) -> Client:
    """A client of an API with file access, and server 7."""
    app = create_app(
        build_context(
            replace(settings, sftp_namespace="gameserver-sftp", disk_image="example.com/api:1"),
            FakeCluster(world),
            FakeReleases(world),
            accounts,
        )
    )
    client = Client(app.test_client())
    assert client.post("/api/v1/server/7/", SIZES).status_code == 201
    return client


def put(client: Client, body: object, **more: str) -> object:
    """Change the account of server 7."""
    return client.call("PUT", SFTP, body, **more).json


def test_a_new_account_has_no_credentials(files: Client) -> None:
    """Nobody can log in until a password or a key is set."""
    assert files.get(SFTP).json == {
        "success": True,
        "user": "server-7",
        "password": None,
        "password_set": False,
        "public_keys": [],
        "host_keys": [FINGERPRINT],
    }


def test_a_password_is_shown_once_and_stored_as_a_hash(files: Client, accounts: FakeAccounts) -> None:
    """The hash is one that sshd accepts, and later reads do not show the password."""
    answer = files.call("PUT", SFTP, {"password": True}).json
    assert answer is not None
    password = answer["password"]
    assert len(password) == 20
    assert answer["password_set"] is True
    stored = accounts.accounts[7].password_hash
    assert stored is not None
    assert password not in stored
    assert crypt(password, stored) == stored
    later = files.get(SFTP).json
    assert later is not None
    assert (later["password"], later["password_set"]) == (None, True)


def test_a_field_that_is_not_sent_stays(files: Client, accounts: FakeAccounts) -> None:
    """Password and keys change independently."""
    put(files, {"password": True, "public_keys": [ED25519]})
    before = accounts.accounts[7]
    put(files, {})
    assert accounts.accounts[7] == before
    put(files, {"public_keys": []})
    assert accounts.accounts[7] == Account(before.password_hash, ())
    put(files, {"password": False})
    assert accounts.accounts[7] == Account()


def test_each_key_is_stored_once_with_its_comment(files: Client) -> None:
    """Duplicates and surrounding spaces are removed."""
    answer = files.call("PUT", SFTP, {"public_keys": [f"  {ED25519} \n", ECDSA, ED25519]}).json
    assert answer is not None
    assert answer["public_keys"] == [ED25519, ECDSA]


def test_an_invalid_key_is_named_by_its_index(files: Client, accounts: FakeAccounts) -> None:
    """The answer is 422, and nothing is stored."""
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
def test_an_invalid_body_is_refused(files: Client, accounts: FakeAccounts, body: object) -> None:
    """The answer is 422, and nothing is stored."""
    assert files.call("PUT", SFTP, body).status_code == 422
    assert 7 not in accounts.accounts


def test_the_server_lists_the_sftp_port(files: Client) -> None:
    """It has the same number as in the call for the port."""
    answer = files.patch("/api/v1/server/7/port/sftp")
    assert answer.status_code == 200
    assert answer.json is not None
    assert answer.json.keys() == {"success", "port", "protocol", "host"}
    server = files.get("/api/v1/server/7/").json
    assert server is not None
    assert server["ports"]["sftp"]["port"] == answer.json["port"]


def test_a_delete_and_a_create_remove_the_account(files: Client, accounts: FakeAccounts) -> None:
    """A new server never gets the account of an earlier one, even if an operator removed that one by hand."""
    put(files, {"password": True})
    files.delete("/api/v1/server/7/")
    assert accounts.accounts == {}
    accounts.accounts[7] = Account("of an earlier server")
    assert files.post("/api/v1/server/7/", {**SIZES, "disk": "reuse"}).status_code == 201
    assert accounts.accounts == {}


def test_repeating_a_create_keeps_the_account(files: Client, accounts: FakeAccounts) -> None:
    """The customer can still log in."""
    put(files, {"password": True})
    assert files.post("/api/v1/server/7/", SIZES).status_code == 200
    assert accounts.accounts[7].password_hash


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [("GET", SFTP, None), ("PUT", SFTP, {"password": True}), ("PATCH", "/api/v1/server/7/port/sftp", None)],
)
class TestRefusals:
    """Each call about files is refused if file access is not possible."""

    def test_a_disk_on_the_network_is_not_reachable(
        self, files: Client, accounts: FakeAccounts, method: str, path: str, body: object
    ) -> None:
        """The answer is 409."""
        accounts.local = False
        answer = files.call(method, path, body)
        assert answer.status_code == 409
        assert answer.json is not None
        assert answer.json["type"] == "/problems/disk-not-node-local"

    def test_without_the_chart_there_is_no_file_access(
        self, files: Client, accounts: FakeAccounts, method: str, path: str, body: object
    ) -> None:
        """The answer is 501."""
        accounts.installed = False
        assert files.call(method, path, body).status_code == 501

    def test_without_the_setting_there_is_no_file_access(
        self, make_app: Callable[..., Flask], method: str, path: str, body: object
    ) -> None:
        """The answer is 501."""
        client = Client(make_app().test_client())
        client.post("/api/v1/server/7/", SIZES)
        assert client.call(method, path, body).status_code == 501

    def test_an_unknown_server_is_not_found(self, files: Client, method: str, path: str, body: object) -> None:
        """The answer is 404."""
        assert files.call(method, path.replace("7", "8"), body).status_code == 404

    def test_another_customers_server_is_not_found(self, files: Client, method: str, path: str, body: object) -> None:
        """The answer is 404."""
        assert files.call(method, path, body, token="acme").status_code == 404


def refused(client: Client, method: str, path: str, body: object, status: int, slug: str) -> Any:
    """The response to a call that is refused with this problem."""
    answer = client.call(method, path, body)
    assert answer.json is not None
    assert (answer.status_code, answer.json["type"]) == (status, f"/problems/{slug}")
    return answer


def unbind_disk(world: World, *, running: bool) -> None:
    """Make the claim wait for its first pod, as with storage classes that use WaitForFirstConsumer."""
    world.claims[7]["status"] = {"phase": "Pending"}
    world.statefulsets[7]["spec"]["replicas"] = int(running)


MAKES_DISK: list[tuple[str, str, object]] = [
    ("PUT", SFTP, {"password": True}),
    ("PUT", SFTP, {"public_keys": [ED25519]}),
]
PORT: list[tuple[str, str, object]] = [
    ("PATCH", "/api/v1/server/7/port/sftp", None),
    ("GET", "/api/v1/server/7/port/sftp", None),
]
NEEDS_DISK = [*MAKES_DISK, *PORT]


@pytest.mark.parametrize(("method", "path", "body"), PORT)
def test_a_stopped_server_without_a_disk_has_no_port_yet(
    files: Client, world: World, accounts: FakeAccounts, method: str, path: str, body: object
) -> None:
    """The answer is 409 and says what makes the disk. Reading makes none."""
    unbind_disk(world, running=False)
    answer = refused(files, method, path, body, 409, "disk-not-made")
    assert "`PUT …/sftp`" in answer.json["detail"]
    assert "Retry-After" not in answer.headers
    assert world.jobs == {}


@pytest.mark.parametrize(("method", "path", "body"), MAKES_DISK)
class TestFilesBeforeTheFirstStart:
    """The first password or key of a server that never started makes its disk."""

    def test_the_call_makes_the_disk(
        self, files: Client, world: World, accounts: FakeAccounts, method: str, path: str, body: object
    ) -> None:
        """The answer is as for any server, and the port works from then on. A second call makes no second disk."""
        unbind_disk(world, running=False)
        assert files.call(method, path, body).status_code == 200
        assert accounts.accounts[7] != Account()
        assert world.history[1:] == [("make disk", 7)]
        assert files.patch("/api/v1/server/7/port/sftp").status_code == 200
        del world.jobs[7], world.job_pods[7]
        assert files.call(method, path, body).status_code == 200
        assert world.history[1:] == [("make disk", 7)]

    def test_a_disk_that_is_not_there_in_seconds_is_asked_for_again(
        self,
        files: Client,
        world: World,
        accounts: FakeAccounts,
        monkeypatch: pytest.MonkeyPatch,
        method: str,
        path: str,
        body: object,
    ) -> None:
        """The answer is 503 with `Retry-After` and stores nothing. The same call finds the same Job, and its disk."""
        monkeypatch.setattr(file_access, "WAIT_SECONDS", 0)
        unbind_disk(world, running=False)
        world.makes_disks = False
        answer = refused(files, method, path, body, 503, "disk-not-ready")
        assert answer.headers["Retry-After"] == "2"
        assert 7 not in accounts.accounts
        # The disk is bound a moment before it belongs to the game's group.
        world.claims[7]["status"] = {"phase": "Bound"}
        world.job_pods[7] = {"metadata": {"name": "server-7-disk-x"}, "status": {"phase": "Pending"}}
        assert files.call(method, path, body).status_code == 503
        conditions = [{"type": "PodReadyToStartContainers", "status": "True"}]
        world.job_pods[7]["status"] = {"phase": "Pending", "conditions": conditions}
        assert files.call(method, path, body).status_code == 200
        assert world.history[1:] == [("make disk", 7)]

    def test_a_disk_for_which_there_is_no_room_is_refused_with_the_reason(
        self,
        files: Client,
        world: World,
        monkeypatch: pytest.MonkeyPatch,
        method: str,
        path: str,
        body: object,
    ) -> None:
        """The answer is 503 and says what the cluster lacks, without the whole wait."""
        monkeypatch.setattr(file_access, "PATIENCE_SECONDS", 0)
        unbind_disk(world, running=False)
        world.makes_disks = False
        message = "0/2 nodes are available: 2 Insufficient memory."
        world.job_pods[7] = {
            "metadata": {"name": "server-7-disk-x"},
            "spec": {"containers": [{"name": "game", "resources": {"requests": {"memory": "2Gi"}}}]},
            "status": {
                "phase": "Pending",
                "conditions": [
                    {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
                ],
            },
        }
        answer = refused(files, method, path, body, 503, "disk-not-ready")
        assert f"No node has 2 GiB of memory free. ({message})" in answer.json["detail"]
        assert answer.headers["Retry-After"] == "10"

    def test_a_disk_that_sftp_cannot_reach_is_refused_before_it_is_made(
        self, files: Client, world: World, accounts: FakeAccounts, method: str, path: str, body: object
    ) -> None:
        """No pod runs for a storage class of another CSI driver."""
        unbind_disk(world, running=False)
        accounts.local = False
        refused(files, method, path, body, 409, "disk-not-node-local")
        assert world.jobs == {}

    def test_a_disk_that_turns_out_to_be_attached_is_refused_after_it_is_made(
        self,
        files: Client,
        world: World,
        accounts: FakeAccounts,
        monkeypatch: pytest.MonkeyPatch,
        method: str,
        path: str,
        body: object,
    ) -> None:
        """Not every driver can be known by its storage class."""
        unbind_disk(world, running=False)
        monkeypatch.setattr(accounts, "node_local", lambda claim: claim["status"]["phase"] == "Pending")
        refused(files, method, path, body, 409, "disk-not-node-local")
        assert 7 not in accounts.accounts

    def test_a_lost_claim_is_restored_by_a_start(
        self, files: Client, world: World, method: str, path: str, body: object
    ) -> None:
        """Without a claim no pod can make a disk."""
        unbind_disk(world, running=False)
        del world.claims[7]
        refused(files, method, path, body, 409, "disk-not-made")
        assert world.jobs == {}

    def test_without_an_image_the_first_start_makes_the_disk(
        self,
        world: World,
        settings: Settings,
        accounts: FakeAccounts,
        method: str,
        path: str,
        body: object,
    ) -> None:
        """An API outside the cluster may have none. The answer is 409 as for the port."""
        app = create_app(
            build_context(
                replace(settings, sftp_namespace="gameserver-sftp"), FakeCluster(world), FakeReleases(world), accounts
            )
        )
        client = Client(app.test_client())
        client.post("/api/v1/server/7/", {**SIZES, "start": False})
        answer = client.call(method, path, body)
        assert answer.json is not None
        assert (answer.status_code, answer.json["type"]) == (409, "/problems/disk-not-made")
        assert world.jobs == {}


def test_an_invalid_key_makes_no_disk(files: Client, world: World) -> None:
    """The keys are checked first."""
    unbind_disk(world, running=False)
    assert files.call("PUT", SFTP, {"public_keys": ["not a key"]}).status_code == 422
    assert world.jobs == {}


@pytest.mark.parametrize(("method", "path", "body"), NEEDS_DISK)
class TestDuringTheFirstStart:
    """Customers get no credentials and no port until the server has a disk."""

    def test_the_first_start_creates_the_disk(
        self, files: Client, world: World, method: str, path: str, body: object
    ) -> None:
        """Until it has, the answer is 503 with `Retry-After`."""
        unbind_disk(world, running=True)
        answer = refused(files, method, path, body, 503, "disk-not-ready")
        assert int(answer.headers["Retry-After"]) > 0

    def test_a_stopped_server_with_a_disk_is_reachable(
        self, files: Client, world: World, method: str, path: str, body: object
    ) -> None:
        """The game need not run."""
        world.statefulsets[7]["spec"]["replicas"] = 0
        assert files.call(method, path, body).status_code == 200


def test_credentials_can_be_removed_before_the_first_start(files: Client, world: World, accounts: FakeAccounts) -> None:
    """Reading the account works too. Neither makes a disk."""
    accounts.accounts[7] = Account("of an earlier server", (ED25519,))
    unbind_disk(world, running=False)
    assert files.get(SFTP).status_code == 200
    assert files.call("PUT", SFTP, {"password": False, "public_keys": []}).status_code == 200
    assert accounts.accounts[7] == Account()
    assert world.jobs == {}


def test_an_account_of_an_earlier_server_is_ignored(files: Client, world: World, accounts: FakeAccounts) -> None:
    """If an earlier server with this id left its account behind, the API neither shows nor extends it."""
    accounts.accounts[7] = Account("of another server", (ED25519,), "another")
    shown = files.get(SFTP).json
    assert shown is not None
    assert (shown["password_set"], shown["public_keys"]) == (False, [])
    answer = files.call("PUT", SFTP, {"password": True}).json
    assert answer is not None
    assert answer["public_keys"] == []
    assert accounts.accounts[7].uid == world.values[7]["server"]["uid"]


def test_a_reader_may_read_but_not_change_the_account(files: Client) -> None:
    """A change needs the scope `files`."""
    assert files.get(SFTP, token="reader").status_code == 200
    assert files.call("PUT", SFTP, {"password": True}, token="reader").status_code == 403


@pytest.mark.parametrize(
    "kind", ["ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa"]
)
def test_openssh_keys_are_valid(kind: str) -> None:
    """A comment may have several words."""
    key = new_key(kind)
    assert public_key(f"{key} a comment with words") == f"{key} a comment with words"


def blob(*fields: bytes) -> str:
    """The data of a key, in base64."""
    return base64.b64encode(b"".join(struct.pack(">I", len(field)) + field for field in fields)).decode()


def test_a_hardware_key_is_valid() -> None:
    """A real one needs hardware, so the test builds its data."""
    key = f"sk-ssh-ed25519@openssh.com {blob(b'sk-ssh-ed25519@openssh.com', b'x' * 32, b'ssh:')}"
    assert public_key(key) == key


INVALID_KEYS = {
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
    "of an obsolete type": f"ssh-dss {blob(b'ssh-dss', b'x')}",
    "a private key": "-----BEGIN OPENSSH PRIVATE KEY-----",
    "a long comment": f"{ED25519} {'x' * 9000}",
}


@pytest.mark.parametrize("line", INVALID_KEYS.values(), ids=INVALID_KEYS)
def test_an_invalid_key_is_refused(line: str) -> None:
    """The message says what is wrong."""
    with pytest.raises(ValueError, match=r"must|is|says"):
        public_key(line)


def crypt(password: str, setting: str) -> str:
    """The hash that libxcrypt computes; sshd uses the same library."""
    library = ctypes.CDLL("libcrypt.so.1")
    library.crypt.restype = ctypes.c_char_p
    return str(library.crypt(password.encode(), setting.encode()).decode())


@pytest.mark.parametrize("password", [new_password(), "ü" * 40], ids=["new", "not ASCII"])
def test_the_hash_is_the_one_that_sshd_computes(password: str) -> None:
    """It has a salt, so two hashes of one password differ."""
    stored = password_hash(password)
    assert crypt(password, stored) == stored
    assert crypt(password + "x", stored) != stored
    assert stored != password_hash(password)
